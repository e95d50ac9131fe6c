//! What the IPv6 engine's structure makes worth asking: the edges of its root, pages, nodes and ways, values that don't
//! fit in a word, a full arena, and long histories.

use lpm::{Full, Limits, NO_ROUTE, Naive, Table, Value};

mod numbers;

use numbers::Numbers;

fn masked(addr: u128, len: u8) -> u128 {
    addr & u128::MAX.checked_shl(u32::from(128 - len)).unwrap_or(0)
}

/// The first and last address of a prefix, and their neighbours outside.
fn edges(addr: u128, len: u8) -> [u128; 4] {
    let last = addr | u128::MAX.checked_shr(len.into()).unwrap_or(0);
    [addr.wrapping_sub(1), addr, last, last.wrapping_add(1)]
}

/// Asks alone, and in batches with every number of addresses up to two batches and one, with and without what this
/// processor has beyond others.
fn compare(table: &Table<u128>, naive: &Naive<u128>, keys: &[u128]) {
    let lookup = table.reader();
    for (number, keys) in keys.chunks(129).enumerate() {
        let keys = &keys[..keys.len().min(129 - number % 129)];
        let (mut answers, mut portable) = (vec![0; keys.len()], vec![0; keys.len()]);
        lookup.lookup_batch(keys, &mut answers);
        lookup.clone().portable().lookup_batch(keys, &mut portable);
        assert_eq!(answers, portable);
        for (key, answer) in keys.iter().zip(answers) {
            let expected = naive.lookup(*key);
            assert_eq!(lookup.lookup(*key), expected, "{key:032x}");
            assert_eq!(answer, expected.unwrap_or(NO_ROUTE), "{key:032x} in a batch");
        }
    }
}

fn insert(table: &mut Table<u128>, naive: &mut Naive<u128>, addr: u128, len: u8, value: Value) {
    let replaced = table.insert(addr, len, value).expect("there is room");
    assert_eq!(replaced, naive.insert(addr, len, value));
}

#[test]
fn every_length_begins_and_ends_where_it_should() {
    let addr = 0x2001_0db8_5a5a_a5a5_0123_4567_89ab_cdef_u128;
    for value in [5, 0x7fff_fffd, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0000, Value::MAX - 1] {
        let (mut table, mut naive) = (Table::new(Limits::for_routes(200)), Naive::new());
        let keys: Vec<u128> = (0..=128).flat_map(|len| edges(masked(addr, len), len)).collect();
        // From the shortest to the longest, then the other way round, so that each is both a leaf and split.
        for len in (0..=128).step_by(2).chain((1..=128).rev().step_by(2)) {
            insert(&mut table, &mut naive, masked(addr, len), len, value - u32::from(len % 3));
            compare(&table, &naive, &keys);
        }
        for len in (0..=128).filter(|len| len % 3 != 1).chain((0..=128).filter(|len| len % 3 == 1)) {
            assert_eq!(table.remove(masked(addr, len), len), naive.remove(masked(addr, len), len));
            compare(&table, &naive, &keys);
        }
        table.compact();
        table.retire(1, 1);
        assert_eq!((table.usage().nodes, table.usage().retired_blocks), (0, 0));
    }
}

/// Down to 48 bits a route that lies alone has a node for each level, so that a batch takes it in its stride; below that, a
/// way, however long, and the node it ends in.
#[test]
fn a_lone_route_takes_a_line_a_level_down_to_48_bits_and_two_below() {
    let addr = 0x2001_0db8_5a5a_a5a5_0123_4567_89ab_cdef_u128;
    let expected = [(24, 0), (25, 1), (32, 1), (33, 2), (48, 3), (56, 4), (64, 5), (65, 5), (128, 5)];
    for (len, lines) in expected {
        let mut table = Table::new(Limits::for_routes(4));
        table.insert(addr, len, 1).unwrap();
        assert_eq!(table.usage().nodes, lines, "/{len}");
        // A shorter one on its way takes nothing, and what it was comes back.
        let before = table.usage().nodes;
        for covering in (25..len).rev().filter(|covering| covering % 8 == 0) {
            table.insert(masked(addr, covering), covering, 2).unwrap();
            table.remove(masked(addr, covering), covering);
            table.compact();
            table.retire(1, 1);
            assert_eq!(table.usage().nodes, before, "/{len} after /{covering}");
        }
    }
}

#[test]
fn nodes_with_every_number_of_runs_answer() {
    // Hosts, one after the other and from both ends, in nodes at several depths: from one run to 256.
    for depth in [24, 32, 64, 120] {
        let (mut table, mut naive) = (Table::new(Limits::for_routes(300)), Naive::new());
        let place = |byte: u32| 0xfd00_u128 << 112 | u128::from(byte) << (120 - depth);
        let keys: Vec<u128> = (0..256).flat_map(|byte| edges(place(byte), depth + 8)).collect();
        for byte in (0..128).flat_map(|byte| [byte, 255 - byte]) {
            insert(&mut table, &mut naive, place(byte), depth + 8, byte);
            compare(&table, &naive, &keys);
        }
    }
}

/// Routes of every length within one node, few values, some of them too large for a word: so that runs part and join.
#[test]
fn a_node_that_many_routes_end_in_depends_on_them_alone() {
    let mut numbers = Numbers(5);
    for depth in [24u8, 40, 120] {
        let (mut table, mut naive) = (Table::new(Limits::for_routes(600)), Naive::new());
        let node = masked(0x2001_0db8_5a5a_a5a5_0123_4567_89ab_cdef, depth);
        let keys: Vec<u128> =
            (0..256).flat_map(|entry| edges(node | entry << (120 - depth), depth + 8)).collect();
        for change in 1..=3000 {
            let len = depth + 1 + numbers.below(8) as u8;
            let addr = masked(node | u128::from(numbers.next() % 256) << (120 - depth), len);
            // Routes come more often than they go, then the other way round.
            if numbers.below(8) < if change < 1500 { 6 } else { 2 } {
                let value = [1, 2, 0x7fff_ffff, Value::MAX - 1][numbers.below(4)];
                insert(&mut table, &mut naive, addr, len, value);
            } else {
                assert_eq!(table.remove(addr, len), naive.remove(addr, len));
            }
            table.retire(change, change);
            if change % 50 == 0 {
                compare(&table, &naive, &keys);
                table.compact();
                table.retire(change, change);
                compare(&table, &naive, &keys);
                let mut fresh = Table::new(Limits::for_routes(600));
                for (addr, len, value) in table.iter() {
                    fresh.insert(addr, len, value).unwrap();
                }
                fresh.retire(1, 1);
                assert_eq!(table.usage(), fresh.usage());
            }
        }
    }
}

/// Blocks of pods with an address in each, and routes to other clusters.
fn cluster() -> impl Iterator<Item = (u128, u8)> {
    let block = |number: u128| 0xfd00_0010_0244_u128 << 80 | number << 6;
    let pods = (0..4000).map(move |number| (block(number) + number % 64, 128));
    pods.chain((0..4000).map(move |number| (block(number), 122)))
        .chain((0..4000).map(|number| (0x2001_u128 << 112 | number << 84, 44)))
}

#[test]
fn a_route_that_comes_back_finds_its_words() {
    let (mut table, mut naive) = (Table::new(Limits::for_routes(100_000)), Naive::new());
    for (addr, len) in cluster() {
        insert(&mut table, &mut naive, addr, len, 1);
    }
    table.retire(1, 1);
    let before = table.usage();
    // As many as have a place each: every fifteenth, so that no two of them are neighbours.
    let flapping: Vec<_> = cluster().step_by(15).collect();
    for (addr, len) in &flapping {
        assert_eq!(table.remove(*addr, *len), naive.remove(*addr, *len));
    }
    let keys: Vec<u128> = flapping.iter().flat_map(|(addr, len)| edges(*addr, *len)).collect();
    compare(&table, &naive, &keys);
    for (value, (addr, len)) in (2..).zip(&flapping) {
        insert(&mut table, &mut naive, *addr, *len, value);
    }
    compare(&table, &naive, &keys);
    assert_eq!(table.usage(), before, "no node was copied");
    // Those that have come back are left alone.
    table.compact();
    compare(&table, &naive, &keys);
    assert_eq!(table.usage(), before);
}

#[test]
fn routes_that_went_leave_words_of_a_thousand_at_most() {
    let mut table = Table::new(Limits::for_routes(100_000));
    for (addr, len) in cluster() {
        table.insert(addr, len, 1).expect("there is room");
    }
    table.retire(1, 1);
    let loaded = table.usage();
    for (addr, len) in cluster() {
        assert_eq!(table.remove(addr, len), Some(1));
        table.retire(1, 1);
    }
    // The last thousand routes of twelve, all /44, stood in a few nodes.
    assert!((1..loaded.nodes / 8).contains(&table.usage().nodes), "{:?} of {loaded:?}", table.usage());
    table.compact();
    table.retire(1, 1);
    assert_eq!((table.usage().nodes, table.usage().retired_blocks), (0, 0));
}

#[test]
fn the_default_route_stands_behind_all_others() {
    let mut table = Table::new(Limits::for_routes(10));
    let lookup = table.reader();
    table.insert(1 << 125, 3, 3).unwrap();
    table.insert(0, 0, 7).unwrap();
    assert_eq!(
        (lookup.lookup(1 << 125), lookup.lookup(0), lookup.lookup(u128::MAX)),
        (Some(3), Some(7), Some(7))
    );
    table.remove(1 << 125, 3);
    assert_eq!(lookup.lookup(1 << 125), Some(7));
    table.insert(0, 0, Value::MAX - 1).unwrap();
    assert_eq!(lookup.lookup(1 << 125), Some(Value::MAX - 1));
    table.remove(0, 0);
    assert_eq!(lookup.lookup(1 << 125), None);
}

/// A node's pods: /122 blocks in one /48, /128s in the blocks, and what leads out of the cluster.
fn pods(numbers: &mut Numbers) -> (u128, u8) {
    let cluster = 0xfd00_0010_0244_u128 << 80;
    let block = cluster | u128::from(numbers.next() % 40) << 6;
    match numbers.below(12) {
        0 => (0x2000_u128 << 112, 3),
        1 => (cluster, 48),
        2 => (masked(cluster, 44), 44),
        3 => (cluster, 64),
        4 => (cluster, 65),
        5 => (block, 122),
        6 => (masked(block, 121), 121),
        _ => (block | u128::from(numbers.next() % 64), 128),
    }
}

/// Few routes that share their way as far as they please, around the 48 bits where what a way is written as changes.
fn forks(numbers: &mut Numbers) -> (u128, u8) {
    let bytes = [0x20, 0x01, 0x0d].into_iter().chain((0..6).map(|_| numbers.below(2) as u128));
    let addr = bytes.fold(0, |addr, byte| addr << 8 | byte) << 56;
    let len = 25 + numbers.below(48) as u8;
    (masked(addr, len), len)
}

#[test]
fn a_long_history_leaves_no_trace() {
    // Pods come as often as they go; of the others there are few at a time.
    for (draw, goes_of_ten) in [(pods as fn(&mut Numbers) -> (u128, u8), 5), (forks, 9)] {
        let changes = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
        let mut numbers = Numbers(3);
        let mut table = Table::new(Limits::for_routes(3000));
        for change in 1..=changes {
            let (addr, len) = draw(&mut numbers);
            if numbers.below(10) < goes_of_ten {
                table.remove(addr, len);
            } else {
                table.insert(addr, len, numbers.below(4) as Value).expect("there is room");
            }
            // Readers are one change behind.
            table.retire(change, change - 1);
            if change % (changes / 10) == 0 {
                table.compact();
                table.retire(change, change);
                is_as_fresh(&table);
            }
        }
        let routes: Vec<_> = table.iter().collect();
        assert!(!routes.is_empty());
        for (addr, len, _) in routes {
            assert!(table.remove(addr, len).is_some());
        }
        table.compact();
        table.retire(changes + 1, changes + 1);
        assert_eq!((table.usage().routes, table.usage().nodes), (0, 0));
    }
}

/// The table takes what one takes that these routes were put into, and answers as the oracle does.
fn is_as_fresh(table: &Table<u128>) {
    let (mut fresh, mut naive) = (Table::new(Limits::for_routes(3000)), Naive::new());
    for (addr, len, value) in table.iter() {
        insert(&mut fresh, &mut naive, addr, len, value);
    }
    fresh.retire(1, 1);
    assert_eq!(table.usage(), fresh.usage());
    let keys: Vec<u128> = table.iter().flat_map(|(addr, len, _)| edges(addr, len)).collect();
    compare(table, &naive, &keys);
}

#[test]
fn what_finds_no_room_changes_nothing_and_what_goes_makes_room() {
    let mut numbers = Numbers(5);
    let (mut table, mut naive) =
        (Table::new(Limits { max_routes: 4000, max_nodes: 200, max_leaves: 200 }), Naive::new());
    let mut refused = 0;
    for change in 1..=6000u64 {
        let (addr, len) = pods(&mut numbers);
        if numbers.below(5) < 3 {
            let (before, value) = (table.usage(), numbers.below(4) as Value);
            match table.insert(addr, len, value) {
                Ok(replaced) => assert_eq!(replaced, naive.insert(addr, len, value)),
                Err(full) => {
                    assert!(matches!(full, Full::Nodes { .. }));
                    assert_eq!(table.usage(), before);
                    refused += 1;
                }
            }
        } else {
            assert_eq!(table.remove(addr, len), naive.remove(addr, len));
        }
        if change % 50 == 0 {
            let keys: Vec<u128> =
                (0..100).map(|_| pods(&mut numbers)).flat_map(|(addr, len)| edges(addr, len)).collect();
            compare(&table, &naive, &keys);
            table.retire(change, change);
        }
    }
    assert!(refused > 100, "only {refused} were refused: the arena is larger than the test means it to be");
}

#[test]
fn a_batch_whose_addresses_end_at_every_depth_is_answered() {
    let mut numbers = Numbers(9);
    let (mut table, mut naive) = (Table::new(Limits::for_routes(1000)), Naive::new());
    for number in 0..400 {
        let len = 1 + numbers.below(128) as u8;
        let near = u128::from(numbers.next() % 8) << 122 | u128::from(numbers.next() % 3) << 90;
        let addr = masked(near | u128::from(numbers.next()), len);
        let value = if number % 7 == 0 { Value::MAX - 1 - number } else { number };
        insert(&mut table, &mut naive, addr, len, value);
    }
    let routes: Vec<_> = table.iter().collect();
    let keys: Vec<u128> = (0..20_000)
        .map(|_| {
            let (addr, len, _) = routes[numbers.below(routes.len())];
            edges(addr, len)[numbers.below(4)]
        })
        .collect();
    compare(&table, &naive, &keys);
}
