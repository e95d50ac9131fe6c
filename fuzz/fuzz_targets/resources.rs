//! A file of the resource directory that holds anything at all.
#![no_main]

#[path = "../../datastore/tests/support/resources.rs"]
mod resources;

libfuzzer_sys::fuzz_target!(|data: &[u8]| resources::run(data));
