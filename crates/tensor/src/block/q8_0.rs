//! Q8_0.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q8_0", len: 32, bytes: 34, gguf: 8, decode: None, encode: None };
