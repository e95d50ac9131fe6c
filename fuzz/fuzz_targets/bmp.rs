//! A stream of BMP that says anything at all.
#![no_main]

#[path = "../../bgp/tests/support/bmp_stream.rs"]
mod bmp_stream;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bmp_stream::run(data));
