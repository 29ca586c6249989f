//! Q6_K.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q6_K", len: 256, bytes: 210, gguf: 14, decode: None, encode: None };
