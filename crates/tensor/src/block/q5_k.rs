//! Q5_K.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q5_K", len: 256, bytes: 176, gguf: 13, decode: None, encode: None };
