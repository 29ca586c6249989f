//! Q4_1.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q4_1", len: 32, bytes: 20, gguf: 3, decode: None, encode: None };
