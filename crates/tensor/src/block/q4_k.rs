//! Q4_K.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q4_K", len: 256, bytes: 144, gguf: 12, decode: None, encode: None };
