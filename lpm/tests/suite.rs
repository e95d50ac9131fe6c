//! Every story in `testdata/`, told to every engine.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use lpm::{Key, Limits, NO_ROUTE, Naive, Table, Value};

/// An engine as a story sees it.
trait Engine<K> {
    fn insert(&mut self, addr: K, len: u8, value: Value);
    fn remove(&mut self, addr: K, len: u8) -> Option<Value>;
    fn lookup(&self, addr: K) -> Option<Value>;
    fn retire(&mut self);
}

impl<K: Key> Engine<K> for Naive<K> {
    fn insert(&mut self, addr: K, len: u8, value: Value) {
        Naive::insert(self, addr, len, value);
    }
    fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        Naive::remove(self, addr, len)
    }
    fn lookup(&self, addr: K) -> Option<Value> {
        Naive::lookup(self, addr)
    }
    fn retire(&mut self) {}
}

impl<K: Key> Engine<K> for Table<K> {
    fn insert(&mut self, addr: K, len: u8, value: Value) {
        Table::insert(self, addr, len, value).unwrap();
    }
    fn remove(&mut self, addr: K, len: u8) -> Option<Value> {
        Table::remove(self, addr, len)
    }
    fn lookup(&self, addr: K) -> Option<Value> {
        let lookup = self.reader();
        let answer = lookup.lookup(addr);
        for lookup in [lookup.clone(), lookup.portable()] {
            let mut answers = [0; 65];
            lookup.lookup_batch(&[addr; 65], &mut answers);
            assert_eq!(answers, [answer.unwrap_or(NO_ROUTE); 65], "in a batch");
        }
        answer
    }
    fn retire(&mut self) {
        Table::retire(self, 1, 1);
    }
}

fn tell<K: Key>(story: &str, name: &str, key: impl Fn(IpAddr) -> K, engine: &mut dyn Engine<K>) {
    for (number, line) in story.lines().enumerate() {
        let place = || format!("{name}:{}: {line}", number + 1);
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        let addr = |text: &str| key(text.parse().unwrap_or_else(|_| panic!("no address in {}", place())));
        let prefix = |text: &str| {
            let (addr_text, len) = text.split_once('/').unwrap_or_else(|| panic!("no prefix in {}", place()));
            (addr(addr_text), len.parse().unwrap())
        };
        match words[..] {
            [] => {}
            ["retire"] => engine.retire(),
            ["insert", text, value] => {
                let (addr, len) = prefix(text);
                engine.insert(addr, len, value.parse().unwrap());
            }
            ["remove", text] => {
                let (addr, len) = prefix(text);
                assert!(engine.remove(addr, len).is_some(), "{}", place());
            }
            ["lookup", text, value] => {
                assert_eq!(engine.lookup(addr(text)), value.parse().ok(), "{}", place());
            }
            _ => panic!("no step in {}", place()),
        }
    }
}

fn v4(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => addr.into(),
        IpAddr::V6(addr) => panic!("{addr} in a story of IPv4"),
    }
}

fn v6(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => panic!("{addr} in a story of IPv6"),
        IpAddr::V6(addr) => addr.into(),
    }
}

#[test]
fn every_engine_agrees_with_every_story() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut told = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let story = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.ends_with("-v6.txt") {
            tell(&story, &name, v6, &mut Naive::new());
            tell(&story, &name, v6, &mut Table::new(Limits::for_routes(100)));
        } else {
            tell(&story, &name, v4, &mut Naive::new());
            tell(&story, &name, v4, &mut Table::new(Limits::for_routes(100)));
        }
        told += 1;
    }
    assert!(told >= 4, "only {told} stories found");
}
