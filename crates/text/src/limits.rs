//! The bounds on what a template or a vocabulary from an untrusted file may cost, in one place.
//!
//! A bound is a number here, its check is where the cost arises, and each has a test on either side. What bounds the
//! files themselves (string lengths, counts) is the `checkpoint` crate's.

use std::time::Duration;

/// Longest template source, in bytes.
pub const TEMPLATE_SOURCE_BYTES: usize = 4 << 20;

/// Deepest nesting of blocks and expressions in a template. It is the bound of the template engine's parser, which has no
/// setting for it; a test holds the two together.
pub const TEMPLATE_DEPTH: usize = 150;

/// Most tokens (names, operators, literals) in one tag of a template.
pub const TEMPLATE_TAG_TOKENS: usize = 2048;

/// Deepest nesting of macro calls, in the template engine's units (a macro call costs 4).
pub const TEMPLATE_RECURSION: usize = 400;

/// Work a template may do before its input is counted: one unit is one instruction or 64 bytes made. A million is about
/// fifty times the dearest template we know; it bounds the memory made at 64 MB and the processor time under 500 ms.
pub const TEMPLATE_FUEL: u64 = 1_000_000;

/// Further units of work for every byte of messages, tools and variables, so that a long conversation never runs dry.
pub const TEMPLATE_FUEL_PER_INPUT_BYTE: u64 = 8;

/// Longest rendered prompt, in bytes.
pub const TEMPLATE_OUTPUT_BYTES: usize = 32 << 20;

/// Longest string one operation of a template may make, in bytes.
pub const TEMPLATE_STRING_BYTES: usize = 32 << 20;

/// Wall clock for parsing or rendering a template; what calls back checks it, and no caller waits for more than twice as
/// long. [`TEMPLATE_FUEL`] ends hostile work long before; this is for what fuel does not see, and long enough for a machine
/// that is busy with other things.
pub const TEMPLATE_TIME: Duration = Duration::from_secs(2);

/// Stack of the thread templates are parsed and rendered on: address space, committed only as used. Sized for the
/// deepest value that [`TEMPLATE_FUEL`] can nest, since comparing or dropping such a value recurses.
pub const TEMPLATE_STACK_BYTES: usize = 256 << 20;

/// Longest error text taken from a template, in bytes.
pub const TEMPLATE_ERROR_BYTES: usize = 2048;

/// Most tokens in a vocabulary.
pub const VOCABULARY_TOKENS: usize = 16 << 20;

/// How many times longer the replacements of a normalizer or decoder may make a text (3 for each step that writes U+2581
/// is usual). Bounds the memory that a hostile chain of them takes.
pub const NORMALIZER_GROWTH: usize = 256;

/// Most tokens that a post-processor may put around a text.
pub const POST_PROCESSOR_TOKENS: usize = 64;

/// Longest expression that a file may bring to cut text into words, in bytes. The usual ones have under 400.
pub const PATTERN_BYTES: usize = 4096;
