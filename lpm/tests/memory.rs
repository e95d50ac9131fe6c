//! What a table costs of what it reserves. One test alone in its file, so that no other's memory is measured.
#![cfg(target_os = "linux")]

use std::fs;

use lpm::{Limits, Table};

/// Room for so many that the allocator gives each array pages of its own.
const ROUTES: u32 = 2_000_000;
/// Root slots with a route of their own.
const SLOTS: u32 = 4096;

/// Memory of this process that is backed by pages, in KiB (`proc_pid_status(5)`).
fn resident_kib() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// An IPv4 table with this default route and a /24 in each of many root slots, and what memory has grown by.
fn filled(default: u32) -> Option<(Table<u32>, usize)> {
    let before = resident_kib()?;
    let mut table = Table::<u32>::new(Limits::for_routes(ROUTES));
    table.insert(0, 0, default).unwrap();
    (0..SLOTS).for_each(|slot| assert_eq!(table.insert(slot << 16, 24, 1), Ok(None)));
    let grown = resident_kib()?.saturating_sub(before);
    println!("{SLOTS} routes beside a default route of value {default} took {grown} KiB");
    Some((table, grown))
}

#[test]
fn what_a_table_reserves_is_not_resident_until_it_is_used() {
    let Some(before) = resident_kib() else {
        println!("skipped: /proc/self/status doesn't tell VmRSS");
        return;
    };
    let table = Table::<u32>::new(Limits::for_routes(ROUTES));
    let grown = resident_kib().unwrap().saturating_sub(before);
    println!("a table of {} MiB took {grown} KiB", table.bytes() >> 20);
    assert!(table.bytes() > 300 << 20, "the table is smaller than the test means it to be");
    assert!(grown < 4 * 1024, "an empty table has {grown} KiB resident");

    // All kept until the end, for the allocator has other ways with what has been given back.
    let filled = [7, 254, 255].map(|value| filled(value).unwrap());
    let [small, fills_its_byte, larger] = [0, 1, 2].map(|table: usize| filled[table].1);
    assert!(fills_its_byte < small + 512, "a code that fits in a byte takes that byte");
    assert!(larger > small + 1024, "or two more: {} leaves aren't enough to be seen", SLOTS * 256);
}
