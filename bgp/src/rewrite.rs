//! Making one attribute set from another.

use std::borrow::Cow;
use std::net::IpAddr;

use model::AsNumber;

use crate::filter::{Community, FilterRule, Operation};
use crate::wire::attributes::{Attributes, SegmentKind, code, emit, emit_key_nexthop, emit_segment, flag};

/// Stands for an AS number that two octets don't hold (RFC 6793).
const AS_TRANS: u16 = 23456;

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
        let mut parts = Vec::with_capacity(8);
        parts.extend(attributes.iter().map(part));
        Rewrite { parts }
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

    /// Tells a link's bandwidth, in bytes a second, to our own AS alone (draft-ietf-idr-link-bandwidth §2).
    pub(crate) fn add_link_bandwidth(&mut self, own_as: u32, bandwidth: u64) {
        let [high, low] = u16::try_from(own_as).unwrap_or(AS_TRANS).to_be_bytes();
        let [a, b, c, d] = (bandwidth as f32).to_be_bytes();
        self.add_to_list(code::EXTENDED_COMMUNITIES, [[0x40, 4, high, low, a, b, c, d]].into_iter());
    }

    /// Does what a filter's rule asks.
    pub(crate) fn operate(&mut self, rule: &FilterRule) {
        for operation in &rule.operations {
            match operation {
                Operation::AddCommunity(Community::Standard(community)) => {
                    self.add_communities(&[*community], &[]);
                }
                Operation::AddCommunity(Community::Large(community)) => {
                    self.add_communities(&[], &[*community]);
                }
                Operation::PrependAsPath(numbers) => {
                    numbers.iter().rev().for_each(|number| self.prepend_as(*number));
                }
                Operation::SetLocalPref(local_pref) => {
                    let value = local_pref.to_be_bytes().to_vec();
                    self.set(flag::WELL_KNOWN, code::LOCAL_PREF, value);
                }
            }
        }
    }

    /// Puts an AS before the AS_PATH (RFC 4271 §5.1.2 b).
    pub(crate) fn prepend_as(&mut self, number: AsNumber) {
        let longer = prepend(number, self.value(code::AS_PATH).unwrap_or_default());
        self.set(flag::WELL_KNOWN, code::AS_PATH, longer);
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

fn prepend(number: AsNumber, path: &[u8]) -> Vec<u8> {
    let mut longer = Vec::with_capacity(path.len() + 6);
    match path {
        [kind, count @ 1..=254, rest @ ..] if *kind == SegmentKind::Sequence as u8 => {
            longer.extend([*kind, count + 1]);
            longer.extend(number.0.to_be_bytes());
            longer.extend(rest);
        }
        _ => {
            emit_segment(&mut longer, SegmentKind::Sequence, &[number.0]);
            longer.extend(path);
        }
    }
    longer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::attributes::AsPath;

    #[test]
    fn a_full_segment_gets_another_before_it() {
        let mut full = Vec::new();
        emit_segment(&mut full, SegmentKind::Sequence, &[7; 255]);
        let longer = prepend(AsNumber(1), &full);
        let path = AsPath::four_octet(&longer);
        assert!(path.is_well_formed());
        assert_eq!((path.hops(), path.count()), (256, 2));
        assert_eq!(prepend(AsNumber(9), &prepend(AsNumber(8), &[])), [2, 2, 0, 0, 0, 9, 0, 0, 0, 8]);
    }
}
