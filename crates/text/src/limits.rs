//! The bounds on what a template or a vocabulary from an untrusted file may cost, in one place.
//!
//! A bound is a number here, its check is where the cost arises, and each has a test on either side. What bounds the
//! files themselves (string lengths, counts) is the `checkpoint` crate's.

use std::time::Duration;

/// Longest template source, in bytes.
pub const TEMPLATE_SOURCE_BYTES: usize = 4 << 20;

/// Deepest nesting of blocks and expressions in a template. The template engine's parser has the same bound; ours is
/// checked first, on the tokens, so that the nesting never becomes recursion.
pub const TEMPLATE_DEPTH: usize = 150;

/// Deepest nesting of macro calls, in the template engine's units (a macro call costs 4).
pub const TEMPLATE_RECURSION: usize = 400;

/// Work a template may do before its input is counted: one unit is one instruction or 64 bytes made. Two million is
/// about a hundred times the dearest template we know and bounds the memory made at 128 MB and the time far under
/// [`TEMPLATE_TIME`].
pub const TEMPLATE_FUEL: u64 = 2_000_000;

/// Further units of work for every byte of messages, tools and variables, so that a long conversation never runs dry.
pub const TEMPLATE_FUEL_PER_INPUT_BYTE: u64 = 8;

/// Longest rendered prompt, in bytes.
pub const TEMPLATE_OUTPUT_BYTES: usize = 32 << 20;

/// Longest string one operation of a template may make, in bytes.
pub const TEMPLATE_STRING_BYTES: usize = 32 << 20;

/// Wall clock for one rendering. [`TEMPLATE_FUEL`] ends hostile work long before; this is for what fuel does not see.
pub const TEMPLATE_TIME: Duration = Duration::from_millis(500);

/// Stack of the thread templates are parsed and rendered on: address space, committed only as used. Sized for the
/// deepest value that [`TEMPLATE_FUEL`] can nest, since dropping such a value recurses.
pub const TEMPLATE_STACK_BYTES: usize = 64 << 20;

/// Longest error text taken from a template, in bytes.
pub const TEMPLATE_ERROR_BYTES: usize = 2048;

/// Most tokens in a vocabulary.
pub const VOCABULARY_TOKENS: usize = 16 << 20;

/// Longest single token, in bytes.
pub const TOKEN_BYTES: usize = 1 << 20;
