//! IQ4_XS.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "IQ4_XS", len: 256, bytes: 136, gguf: 23, decode: None, encode: None };
