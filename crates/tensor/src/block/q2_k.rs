//! Q2_K.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q2_K", len: 256, bytes: 84, gguf: 10, decode: None, encode: None };
