//! A `tokenizer.json` of any bytes.
#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses one entry point")]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::tokenizer_json(data));
