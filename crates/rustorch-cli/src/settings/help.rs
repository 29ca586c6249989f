//! Help texts made of the rows.
