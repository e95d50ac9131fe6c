//! Making one attribute set from another.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::config::FilterRule;
use crate::wire::attributes::{Attributes, code, emit, emit_key_nexthop, flag};

/// One attribute of the set in the making.
#[derive(Clone, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) flags: u8,
    pub(crate) code: u8,
    pub(crate) value: Cow<'a, [u8]>,
}

/// Attributes to be changed and then written as a canonical key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewrite<'a> {
    parts: Vec<Part<'a>>,
}

impl<'a> Rewrite<'a> {
    pub(crate) fn of(attributes: &'a Attributes) -> Rewrite<'a> {
        let part = |raw: crate::wire::attributes::RawAttribute<'a>| Part {
            flags: raw.flags,
            code: raw.code,
            value: Cow::Borrowed(raw.value),
        };
        Rewrite { parts: attributes.iter().map(part).collect() }
    }

    pub(crate) fn value(&self, code: u8) -> Option<&[u8]> {
        self.parts.iter().find(|part| part.code == code).map(|part| &*part.value)
    }

    pub(crate) fn remove(&mut self, codes: &[u8]) {
        self.parts.retain(|part| !codes.contains(&part.code));
    }

    /// Puts an attribute in, or in place of the one that is there, whose Partial bit stays.
    pub(crate) fn set(&mut self, flags: u8, code: u8, value: Vec<u8>) {
        match self.parts.iter_mut().find(|part| part.code == code) {
            Some(part) => part.value = Cow::Owned(value),
            None => self.parts.push(Part { flags, code, value: Cow::Owned(value) }),
        }
    }

    /// Adds items of `N` octets to a list, each once.
    fn add_to_list<const N: usize>(&mut self, code: u8, items: impl Iterator<Item = [u8; N]>) {
        let mut list = self.value(code).unwrap_or_default().to_vec();
        let before = list.len();
        for item in items {
            if !list.as_chunks::<N>().0.contains(&item) {
                list.extend(item);
            }
        }
        if list.len() > before {
            self.set(flag::OPTIONAL_TRANSITIVE, code, list);
        }
    }

    pub(crate) fn add_communities(&mut self, communities: &[u32], large: &[[u32; 3]]) {
        self.add_to_list(code::COMMUNITIES, communities.iter().map(|community| community.to_be_bytes()));
        let large = large.iter().map(|parts| {
            let mut octets = [0; 12];
            for (chunk, part) in octets.chunks_exact_mut(4).zip(parts) {
                chunk.copy_from_slice(&part.to_be_bytes());
            }
            octets
        });
        self.add_to_list(code::LARGE_COMMUNITIES, large);
    }

    pub(crate) fn add_communities_of(&mut self, rule: &FilterRule) {
        self.add_communities(&rule.add_communities, &rule.add_large_communities);
    }

    /// Keeps the items of `size` octets that `stays` says; without any the attribute goes.
    pub(crate) fn filter_list(&mut self, code: u8, size: usize, stays: impl Fn(&[u8]) -> bool) {
        let Some(list) = self.value(code) else { return };
        if list.chunks(size).all(&stays) {
            return;
        }
        let kept = list.chunks(size).filter(|item| stays(item)).collect::<Vec<_>>().concat();
        if kept.is_empty() {
            self.remove(&[code]);
        } else {
            self.set(flag::OPTIONAL_TRANSITIVE, code, kept);
        }
    }

    /// Writes the canonical key over `key`.
    pub(crate) fn write(mut self, nexthop: Option<IpAddr>, key: &mut Vec<u8>) {
        self.parts.sort_by_key(|part| part.code);
        key.clear();
        emit_key_nexthop(key, nexthop);
        for part in &self.parts {
            emit(key, part.flags, part.code, &part.value);
        }
    }
}
