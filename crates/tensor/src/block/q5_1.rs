//! Q5_1.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q5_1", len: 32, bytes: 24, gguf: 7, decode: None, encode: None };
