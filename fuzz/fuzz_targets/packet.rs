//! A frame of any bytes at all.
#![no_main]

#[path = "../../packet/tests/support/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| checks::run(frame));
