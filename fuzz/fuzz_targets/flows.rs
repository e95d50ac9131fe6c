//! Packets of a few flows, in any order, by a workload with policy, which changes now and then.
#![no_main]

#[path = "../../fastpath/tests/support/mod.rs"]
mod support;

use std::cell::RefCell;

use support::{Rig, flow_sequence};

thread_local! {
    // Made once: its tables and frames are worth many thousand walks.
    static RIG: RefCell<Rig> = RefCell::new(flow_sequence::rig());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| RIG.with_borrow_mut(|rig| flow_sequence::run(rig, bytes)));
