//! A writer dies at each of its writes in turn, before it was done or after: whatever was left half done is taken up or
//! given back by those who come after, no address is had twice, and in the end nothing is left.

mod ipam_site;
mod way;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use datastore::ipam::{Assign, Ipam, IpamConfig, IpamError, Release};
use datastore::{Key, Store, StoreError};
use model::Prefix;
use serde_json::json;

use ipam_site::{FULL, Site};
use way::{Gate, Way, died};

/// A writer that dies at a write.
struct Mortal {
    /// How many writes it has made or tried.
    writes: AtomicUsize,
    /// Its last, counted from 0, and whether that is done.
    last: Option<(usize, bool)>,
}

impl Gate for Mortal {
    fn read<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.last {
            Some((last, _)) if self.writes.load(Ordering::Relaxed) > last => Err(died()),
            _ => read(),
        }
    }

    fn write<T>(&self, _: &Key, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        match self.last {
            Some((last, _)) if number > last => Err(died()),
            Some((last, is_done)) if number == last => {
                if is_done {
                    // It never hears of it.
                    drop(write());
                }
                Err(died())
            }
            _ => write(),
        }
    }
}

/// Something that a writer does, and what there is before.
struct Deed {
    name: &'static str,
    before: fn(&Site),
    /// By `node1`, for the handle `pod`.
    act: fn(&Site, &Ipam<'_>) -> Result<(), IpamError>,
}

fn first_block() -> Prefix {
    "10.0.0.0/30".parse().unwrap()
}

const DEEDS: &[Deed] = &[
    Deed {
        name: "takes an address of a block that it claims",
        before: |_| {},
        act: |site, ipam| site.assign(ipam, "node1", "pod", 1).map(drop),
    },
    Deed {
        name: "takes addresses of two blocks",
        before: |_| {},
        act: |site, ipam| site.assign(ipam, "node1", "pod", 6).map(drop),
    },
    Deed {
        name: "takes another address of its own block",
        before: |site| drop(site.assign(&site.ipam(), "node1", "before", 1)),
        act: |site, ipam| site.assign(ipam, "node1", "pod", 1).map(drop),
    },
    Deed {
        name: "borrows of another's block",
        before: |site| drop(site.assign(&site.ipam(), "node2", "before", 5)),
        act: |site, ipam| site.assign(ipam, "node1", "pod", 2).map(drop),
    },
    Deed {
        name: "takes an empty block from another",
        before: |site| {
            site.assign(&site.ipam(), "node2", "before", 8).unwrap();
            site.release("before");
            site.wait(120);
        },
        act: |site, ipam| site.assign(ipam, "node1", "pod", 2).map(drop),
    },
    Deed {
        name: "takes up a claim that was left half done",
        before: |site| {
            let claim = Key::Affinity { node: "node1".to_owned(), block: first_block() };
            site.store.create(&claim, &json!({"state": "pendingDeletion", "deleted": false})).unwrap();
        },
        act: |site, ipam| site.assign(ipam, "node1", "pod", 1).map(drop),
    },
    Deed {
        name: "takes one address",
        before: |_| {},
        act: |_, ipam| {
            let assign = Assign {
                addr: "10.0.0.2".parse().unwrap(),
                node: "node1",
                handle: Some("pod"),
                owner: BTreeMap::new(),
                usage: None,
            };
            match ipam.assign(&assign) {
                // It has got it before it died.
                Err(IpamError::Store(error)) => Err(error.into()),
                _ => Ok(()),
            }
        },
    },
    Deed {
        name: "gives back by handle",
        before: |site| drop(site.assign(&site.ipam(), "node1", "pod", 6)),
        act: |_, ipam| match ipam.release_by_handle("pod") {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        },
    },
    Deed {
        name: "gives back an address",
        before: |site| drop(site.assign(&site.ipam(), "node1", "pod", 2)),
        act: |site, ipam| {
            let mine = site.assigned().into_keys().next();
            mine.map_or(Ok(()), |addr| ipam.release(&[Release::of(addr)]).map(drop))
        },
    },
    Deed {
        name: "gives up its blocks, one of them in use",
        before: |site| {
            site.assign(&site.ipam(), "node1", "before", 4).unwrap();
            site.assign(&site.ipam(), "node1", "pod", 2).unwrap();
            site.release("before");
        },
        act: |_, ipam| ipam.release_host_affinities("node1", false),
    },
    Deed {
        name: "gives up its empty blocks",
        before: |site| {
            site.assign(&site.ipam(), "node1", "before", 4).unwrap();
            site.release("before");
        },
        act: |_, ipam| ipam.release_affinity("10.0.0.0/29".parse().unwrap(), "node1", true),
    },
    Deed {
        name: "gives back the last address of a block that is nobody's",
        before: |site| {
            site.assign(&site.ipam(), "node1", "pod", 2).unwrap();
            site.ipam().release_host_affinities("node1", false).unwrap();
        },
        act: |_, ipam| match ipam.release_by_handle("pod") {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        },
    },
];

/// Runs a deed that ends at a write; tells how many writes it came to.
fn until(deed: &Deed, last: Option<(usize, bool)>, strict: bool) -> (Site, usize) {
    let site = Site::new();
    (deed.before)(&site);
    if strict {
        let config = IpamConfig { strict_affinity: true, ..IpamConfig::initial() };
        site.ipam().set_config(&config).unwrap();
    }
    let gate = Mortal { writes: AtomicUsize::new(0), last };
    let mortal = Way { store: &site.store, gate };
    let outcome = (deed.act)(&site, &site.by(&mortal));
    // Some of what it does it does at the side, and says nothing if that fails.
    assert!(last.is_some() || outcome.is_ok(), "{}: {outcome:?}", deed.name);
    let writes = mortal.gate.writes.load(Ordering::Relaxed);
    (site, writes)
}

fn survives(deed: &Deed, last: (usize, bool), strict: bool) {
    let what = format!("{}, dies at write {last:?}, strict: {strict}", deed.name);
    let after = || until(deed, Some(last), strict).0;

    let site = after();
    site.is_sound(&what);
    // Another node gets whatever nobody has, its claims of it left half done or not.
    site.wait(120);
    if !strict {
        let taken = site.assigned();
        let got = site.assign(&site.ipam(), "node2", "other", FULL).unwrap();
        assert_eq!(got.len(), FULL - taken.len(), "{what}: node2 gets the rest; {taken:?}");
        assert!(got.iter().all(|addr| !taken.contains_key(addr)), "{what}: {got:?}, {taken:?}");
        site.is_sound(&what);
    }
    site.ends_well(&what);

    // The same once more, by whoever takes its place.
    let site = after();
    if let Err(error) = (deed.act)(&site, &site.ipam()) {
        panic!("{what}: its successor fails: {error}");
    }
    site.is_sound(&what);
    site.ends_well(&what);
}

#[test]
fn a_writer_may_die_at_any_of_its_writes() {
    let mut deaths = 0;
    for deed in DEEDS {
        for strict in [false, true] {
            let (site, writes) = until(deed, None, strict);
            assert!(writes > 0 || strict, "{} writes something", deed.name);
            site.ends_well(deed.name);
            for last in (0..writes).flat_map(|write| [(write, false), (write, true)]) {
                survives(deed, last, strict);
                deaths += 1;
            }
        }
    }
    println!("deaths: {deaths}");
}
