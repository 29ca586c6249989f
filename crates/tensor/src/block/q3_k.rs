//! Q3_K.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q3_K", len: 256, bytes: 110, gguf: 11, decode: None, encode: None };
