//! Q4_0.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q4_0", len: 32, bytes: 18, gguf: 2, decode: None, encode: None };
