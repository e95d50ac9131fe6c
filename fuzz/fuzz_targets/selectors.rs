//! A selector that holds anything at all.
#![no_main]

#[path = "../../policy/tests/support/selector_text.rs"]
mod selector_text;

libfuzzer_sys::fuzz_target!(|data: &[u8]| selector_text::run(data));
