//! IQ4_NL.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "IQ4_NL", len: 32, bytes: 18, gguf: 20, decode: None, encode: None };
