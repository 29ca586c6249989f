//! Q5_0.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q5_0", len: 32, bytes: 22, gguf: 6, decode: None, encode: None };
