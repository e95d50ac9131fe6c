//! A mirror of routes that a test names itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

/// What a test wants, in place of the RIB.
#[derive(Default)]
pub(crate) struct Listed {
    rows: Vec<(Prefix, Option<Arc<MirrorTarget>>)>,
    places: BTreeMap<Prefix, Place>,
    pub(super) held: BTreeMap<Place, usize>,
}

impl Listed {
    pub(super) fn place(&mut self, prefix: Prefix) -> Place {
        *self.places.entry(prefix).or_insert_with(|| {
            self.rows.push((prefix, None));
            Place(self.rows.len() as u32 - 1)
        })
    }

    pub(super) fn want(&mut self, prefix: Prefix, target: Option<Arc<MirrorTarget>>) -> Place {
        let place = self.place(prefix);
        self.rows[place.at()].1 = target;
        place
    }

    pub(super) fn keep(&mut self, place: Place, is_held: bool) {
        match is_held {
            true => drop(self.held.insert(place, 1)),
            false => drop(self.held.remove(&place)),
        }
    }
}

impl Routes for Listed {
    fn wanted(&mut self, place: Place) -> (Prefix, Option<Arc<MirrorTarget>>) {
        self.rows[place.at()].clone()
    }

    fn hold(&mut self, prefix: Prefix) -> Place {
        let place = self.place(prefix);
        self.keep(place, true);
        place
    }

    fn let_go(&mut self, place: Place) {
        self.keep(place, false);
    }
}

/// A mirror and what it is to hold.
pub(crate) struct Mirrored {
    pub(crate) mirror: Mirror,
    pub(super) listed: Listed,
}

impl Mirrored {
    pub(crate) fn start(limit: usize) -> Mirrored {
        Mirrored { mirror: Mirror::start(limit).unwrap(), listed: Listed::default() }
    }

    pub(crate) fn install(&mut self, prefix: &str, target: MirrorTarget) {
        self.change(prefix.parse().unwrap(), Some(Arc::new(target)));
    }

    pub(crate) fn withdraw(&mut self, prefix: &str) {
        self.change(prefix.parse().unwrap(), None);
    }

    pub(super) fn change(&mut self, prefix: Prefix, target: Option<Arc<MirrorTarget>>) {
        let is_wanted = target.is_some();
        let place = self.listed.want(prefix, target);
        let is_held = self.mirror.changed(place, is_wanted);
        self.listed.keep(place, is_held);
    }

    /// Until the kernel has all of it; in time, or the test fails.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        assert!(self.mirror.wait_until_idle(&mut self.listed, 10 * WAIT), "in time");
    }
}
