//! Integration tests of dtypes and codecs.

mod codecs;
