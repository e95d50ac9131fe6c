//! A BGP peer that sends anything at all; see the module for what the first octet chooses.
#![no_main]

#[path = "../../bgp/tests/support/stream.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|data: &[u8]| stream::run(data));
