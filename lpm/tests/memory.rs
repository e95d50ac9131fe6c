//! What a table costs before anything is in it. Alone in its file, so that no other test's memory is measured.
#![cfg(target_os = "linux")]

use std::fs;

use lpm::{Limits, Table};

/// Memory of this process that is backed by pages, in KiB (`proc_pid_status(5)`).
fn resident_kib() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn what_a_table_reserves_is_not_resident_until_it_is_used() {
    let Some(before) = resident_kib() else {
        println!("skipped: /proc/self/status doesn't tell VmRSS");
        return;
    };
    let table = Table::<u32>::new(Limits::for_routes(2_000_000));
    let grown = resident_kib().unwrap().saturating_sub(before);
    println!("a table of {} MiB took {grown} KiB", table.bytes() >> 20);
    assert!(table.bytes() > 300 << 20, "the table is smaller than the test means it to be");
    assert!(grown < 4 * 1024, "an empty table has {grown} KiB resident");
}
