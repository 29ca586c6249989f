//! MXFP4.

use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "MXFP4", len: 32, bytes: 17, gguf: 39, decode: None, encode: None };
