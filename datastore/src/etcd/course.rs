//! What is believed of what etcd says while it is followed: no socket, no clock.
//!
//! ```text
//!   all there is, at one revision ─► listed ─┐
//!                                            ├─► state ─► what has changed
//!   an answer of the watches ──────► hear ───┘
//! ```
//!
//! A key goes only where an etcd that is known says so: a list of its own, or a watch's word about a key of its own, later
//! than what was known. Whatever else is said (nothing at all, somebody else's keys, revisions that were) is nonsense, and
//! changes nothing.

use super::message::{Header, KeyValue, WatchEventKind, WatchResponse};
use super::state::State;
use crate::event::Event;

/// What the router makes use of.
pub(super) const PREFIXES: [&str; 3] =
    ["/calico/resources/v3/projectcalico.org/", "/calico/ipam/v2/assignment/", "/calico/ipam/v2/host/"];
/// What their watches are called.
pub(super) const WATCH_IDS: [i64; PREFIXES.len()] = [1, 2, 3];

/// Where a watch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    cluster: u64,
    /// The last write that is known of under each prefix. They need not be told in one order.
    revisions: [i64; PREFIXES.len()],
}

/// What is to be done after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Tell what has changed, if anything has.
    Good,
    /// Wait for the watches that don't stand yet: what was missed may be told by the last of them.
    Incomplete,
    /// Everything has to be listed again.
    Outdated,
    /// The watches are no good; they can begin anew from where they were.
    Lost(String),
}

/// The state, and how far it follows etcd.
#[derive(Debug)]
pub(super) struct Course {
    state: State,
    /// Nothing before the first list.
    place: Option<Place>,
    /// Watches begin behind it.
    begun: Option<Place>,
    created: [bool; PREFIXES.len()],
}

impl Place {
    pub(super) fn of(header: &Header) -> Place {
        Place { cluster: header.cluster_id, revisions: [header.revision; PREFIXES.len()] }
    }

    fn last(&self) -> i64 {
        self.revisions.into_iter().fold(0, i64::max)
    }

    /// The first write that each watch has to tell of.
    pub(super) fn next(&self) -> [i64; PREFIXES.len()] {
        self.revisions.map(|revision| revision.saturating_add(1))
    }
}

impl Course {
    pub(super) fn new(max_resources: usize) -> Course {
        Course {
            state: State::new(max_resources),
            place: None,
            begun: None,
            created: [false; PREFIXES.len()],
        }
    }

    /// All that there is, as it was at this place.
    ///
    /// # Errors
    /// Why it isn't believed.
    pub(super) fn listed(&mut self, found: Vec<KeyValue>, at: Place) -> Result<(), String> {
        // Or this one, put back to what it was.
        let is_another =
            self.place.is_some_and(|place| place.cluster != at.cluster || at.last() < place.last());
        if is_another && found.is_empty() && !self.state.is_empty() {
            // Somebody has put a new one in its place and will fill it, or has made a mistake.
            return Err("another etcd answers, which holds nothing".to_owned());
        }
        if is_another {
            // Its writes are counted anew: the same number may be another write.
            self.state.forget_revisions();
        }
        self.state.replace(found);
        self.place = Some(at);
        Ok(())
    }

    /// Watches are about to begin; behind which place. Nothing where everything has to be listed first.
    pub(super) fn begin(&mut self) -> Option<Place> {
        self.created = [false; PREFIXES.len()];
        self.begun = self.place;
        self.place
    }

    /// An answer of the watches.
    pub(super) fn hear(&mut self, answer: WatchResponse) -> Heard {
        let (Some(place), Some(begun)) = (self.place, self.begun) else { return Heard::Outdated };
        let nonsense = |what: &str| Heard::Lost(format!("etcd's answer makes no sense: {what}"));
        let Some(header) = &answer.header else { return nonsense("it has no header") };
        if header.cluster_id != place.cluster || answer.compact_revision > 0 {
            return Heard::Outdated;
        }
        if answer.canceled {
            return Heard::Lost(answer.cancel_reason);
        }
        let watch = WATCH_IDS.iter().position(|id| *id == answer.watch_id);
        if answer.created {
            // A store that is behind what was seen of it has lost something.
            if header.revision < begun.last() {
                return Heard::Outdated;
            }
            let Some(watch) = watch else { return nonsense("nobody asked for such a watch") };
            self.created[watch] = true;
        }
        if !answer.events.is_empty() {
            let Some(watch) = watch else { return nonsense("nobody asked for such a watch") };
            // All of it or nothing.
            for event in &answer.events {
                if let Err(what) = about(watch, begun, event.kind, event.kv.as_ref()) {
                    return nonsense(what);
                }
            }
            for (kind, kv) in answer.events.into_iter().filter_map(|event| Some((event.kind, event.kv?))) {
                self.take(watch, kind == i32::from(WatchEventKind::Delete), &kv);
            }
        }
        if self.stands() { Heard::Good } else { Heard::Incomplete }
    }

    fn take(&mut self, watch: usize, is_gone: bool, kv: &KeyValue) {
        if let Some(place) = &mut self.place {
            place.revisions[watch] = place.revisions[watch].max(kv.mod_revision);
        }
        if is_gone {
            self.state.remove(&String::from_utf8_lossy(&kv.key));
        } else {
            self.state.put(kv);
        }
    }

    /// Do all watches stand?
    pub(super) fn stands(&self) -> bool {
        self.created.into_iter().all(|created| created)
    }

    /// Should everything be listed again, because a resource that was left out has room now?
    pub(super) fn has_made_room(&self) -> bool {
        self.state.has_made_room()
    }

    /// May what there is be told?
    pub(super) fn is_open(&self) -> bool {
        self.state.is_open()
    }

    /// What has changed since this was asked last.
    pub(super) fn tell(&mut self) -> Vec<Event> {
        self.state.tell()
    }
}

/// Can a watch that began behind this place say this?
fn about(watch: usize, begun: Place, kind: i32, kv: Option<&KeyValue>) -> Result<(), &'static str> {
    let kv = kv.ok_or("an event without a key")?;
    if WatchEventKind::try_from(kind).is_err() {
        return Err("an event that is neither a write nor a removal");
    }
    if !kv.key.starts_with(PREFIXES[watch].as_bytes()) {
        return Err("a key that isn't watched");
    }
    if kv.mod_revision < begun.next()[watch] {
        return Err("a write from before the watch");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
