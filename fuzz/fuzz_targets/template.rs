//! A chat template of any text.
#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses one entry point")]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::template(data));
