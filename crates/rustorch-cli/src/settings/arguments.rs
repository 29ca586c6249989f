//! Makes the command line of the rows.
