//! Q8_K.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q8_K", len: 256, bytes: 292, gguf: 15, decode: None, encode: None };
