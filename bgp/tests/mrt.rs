//! Tables in MRT's form: what is written is read again, by us and by others.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use bgp::mrt::{Dump, MrtError};
use bgp::wire::capability::{AddPathMode, Capability};
use bgp::wire::nlri::AfiSafi;
use bgp::{Input, OriginatedRoute};
use model::Family;
use proptest::prelude::*;
use support::{Bench, EBGP, IBGP, ip, prefix, unhex, update};

const TIME: u32 = 1_700_000_000;

/// A speaker with routes of its own and of two peers, of both families; one peer has two paths to a prefix.
fn speaker() -> Bench {
    let mut bench = Bench::new();
    let mut config = Bench::config(EBGP);
    config.add_path = true;
    bench.give(Input::PutPeer(config));
    let mut open = EBGP.open();
    let send = AddPathMode { receive: false, send: true };
    open.capabilities.push(Capability::AddPath(vec![(AfiSafi::unicast(Family::V4), send)]));
    bench.establish_with(EBGP, &open);
    bench.establish(IBGP);
    let attributes = |nexthop: &str| unhex(&format!("4001010040020602010000fde9400304{nexthop}"));
    bench.receive(EBGP, &update(&[], &attributes("0a000002"), &unhex("0000000118c00002")));
    bench.receive(EBGP, &update(&[], &attributes("0a000004"), &unhex("0000000218c00002")));
    // MP_REACH_NLRI: 2001:db8:7::/48 through 2001:db8::2.
    let mp = "800e1c000201 10 20010db8000000000000000000000002 00 30 20010db80007".replace(' ', "");
    bench
        .receive(IBGP, &update(&[], &unhex(&format!("{mp}4001010040020040050400000064c00804fde80001")), &[]));
    bench.receive(
        IBGP,
        &update(
            &[],
            &unhex("4001010240020040 03040a00000340050400000064".replace(' ', "").as_str()),
            &unhex("18c0000218c63364"),
        ),
    );
    bench.give(Input::Originate(OriginatedRoute::new(prefix("203.0.113.0/24"))));
    bench
}

fn dumped(bench: &Bench) -> Vec<u8> {
    bench.speaker.mrt(TIME).flatten().collect()
}

#[test]
fn a_table_is_written_and_read_again() {
    let bench = speaker();
    let bytes = dumped(&bench);
    let dump = Dump::read(&bytes).expect("our own dump");
    let addresses: Vec<_> = dump.peers.iter().map(|peer| (peer.address, peer.as_number)).collect();
    assert_eq!(addresses, [(ip("10.0.0.2"), 65001), (ip("10.0.0.3"), 65000), (ip("0.0.0.0"), 65000)]);
    let paths: BTreeSet<_> =
        dump.paths.iter().map(|path| (path.nlri.prefix.to_string(), path.nlri.path_id, path.peer)).collect();
    let expected = [
        ("192.0.2.0/24", 0, 1),
        ("192.0.2.0/24", 1, 0),
        ("192.0.2.0/24", 2, 0),
        ("198.51.100.0/24", 0, 1),
        ("2001:db8:7::/48", 0, 1),
        ("203.0.113.0/24", 0, 2),
    ];
    assert_eq!(paths, expected.map(|(prefix, id, peer)| (prefix.to_owned(), id, peer)).into());
}

#[test]
fn a_table_that_is_loaded_is_the_table_that_was_dumped() {
    let bytes = dumped(&speaker());
    let dump = Dump::read(&bytes).expect("our own dump");
    let mut again = Bench::new();
    again.establish(IBGP);
    again.receive(IBGP, &dump.updates(1));
    let bytes_again = dumped(&again);
    let dump_again = Dump::read(&bytes_again).expect("our own dump");
    let of_peer = |dump: &Dump<'_>, peer| -> Vec<_> {
        let paths = dump.paths.iter().filter(|path| path.peer == peer);
        paths.map(|path| (path.nlri, path.attributes.to_vec())).collect()
    };
    assert_eq!(of_peer(&dump_again, 0), of_peer(&dump, 1));
    assert_eq!(of_peer(&dump, 1).len(), 3);
}

/// `bgpdump` is RIPE's reader. A line of `-m`: TABLE_DUMP2|time|B|peer|AS|prefix|AS path|origin|next hop|…
#[test]
fn a_reader_of_others_reads_the_same() {
    let bytes = dumped(&speaker());
    let mut child = match Command::new("bgpdump")
        .args(["-q", "-m", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            println!("skipped: bgpdump can't be run: {error}");
            return;
        }
    };
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("bgpdump reads");
    let output = child.wait_with_output().expect("bgpdump ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let fields = |line: &str| -> String {
        let mut fields: Vec<&str> = line.split('|').collect();
        // Where there are path identifiers, they stand behind the prefix.
        if fields[0] == "TABLE_DUMP2_AP" {
            fields.remove(6);
        }
        [3, 4, 5, 6, 7, 8].map(|at| fields.get(at).copied().unwrap_or("?")).join("|")
    };
    let lines: BTreeSet<String> = text.lines().map(fields).collect();
    let expected = [
        "10.0.0.2|65001|192.0.2.0/24|65001|IGP|10.0.0.2",
        "10.0.0.2|65001|192.0.2.0/24|65001|IGP|10.0.0.4",
        "10.0.0.3|65000|192.0.2.0/24||INCOMPLETE|10.0.0.3",
        "10.0.0.3|65000|198.51.100.0/24||INCOMPLETE|10.0.0.3",
        "10.0.0.3|65000|2001:db8:7::/48||IGP|2001:db8::2",
        "0.0.0.0|65000|203.0.113.0/24||IGP|0.0.0.0",
    ];
    assert_eq!(lines, expected.map(str::to_owned).into(), "{text}");
}

#[test]
fn a_file_that_is_cut_short_says_where() {
    let bytes = dumped(&speaker());
    let error = Dump::read(&bytes[..bytes.len() - 1]).expect_err("cut short");
    assert!(matches!(error, MrtError::CutShort(at) if at > 0), "{error}");
    // A record that says it is longer than its content.
    let mut malformed = bytes.clone();
    malformed[12 + 6 + 1] = 200;
    assert_eq!(Dump::read(&malformed).err(), Some(MrtError::Malformed(0)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>, at in 0usize..400, octet: u8) {
        let _ = Dump::read(&bytes);
        let mut near = dumped(&speaker());
        if let Some(there) = near.get_mut(at) {
            *there = octet;
        }
        if let Ok(dump) = Dump::read(&near) {
            (0..4).for_each(|peer| drop(dump.updates(peer)));
        }
    }
}

#[test]
fn a_table_written_in_pieces_is_the_table_written_at_once_but_for_what_changes_meanwhile() {
    let bench = speaker();
    let whole = dumped(&bench);
    for len in [1, 100, 1 << 20] {
        let mut pieces = bench.speaker.mrt_begin(TIME);
        let (mut all, mut count) = (Vec::new(), 0);
        loop {
            let piece = bench.speaker.mrt_piece(&mut pieces, len);
            if piece.is_empty() {
                break;
            }
            count += 1;
            all.extend(piece);
        }
        assert_eq!(all, whole, "pieces of {len}");
        assert_eq!(count == 1, len == 1 << 20);
    }
    // Routes that go meanwhile are left out.
    let mut bench = speaker();
    let mut pieces = bench.speaker.mrt_begin(TIME);
    let mut all = bench.speaker.mrt_piece(&mut pieces, 1);
    bench.give(bgp::Input::RemovePeer(EBGP.id));
    all.extend(bench.speaker.mrt_piece(&mut pieces, 1 << 20));
    let dump = Dump::read(&all).expect("whole records");
    assert!(dump.paths.iter().all(|path| path.peer != 0) && !dump.paths.is_empty());
    assert_eq!(dump.paths[0].time, TIME);
}
