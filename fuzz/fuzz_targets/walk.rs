//! A whole walk: any frame at all, by any port of a router with tunnels that begin and end here.
#![no_main]

#[path = "../../fastpath/tests/support/mod.rs"]
mod support;

use std::cell::RefCell;

use support::{Rig, one_fate};

thread_local! {
    // Made once: its tables and frames are worth many thousand walks.
    static RIG: RefCell<Rig> = RefCell::new(Rig::new());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| RIG.with_borrow_mut(|rig| one_fate::run(rig, bytes)));
