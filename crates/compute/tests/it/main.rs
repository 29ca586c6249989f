//! The CPU device against plain double-precision arithmetic, over every instruction set of the machine.

mod arguments;
mod attention;
mod feed_forward;
mod linear;
mod reference;
