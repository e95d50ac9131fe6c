//! Path attributes: their table, AS paths, and attribute sets in one canonical form.
//!
//! What the rest of the room works with is an [`Attributes`]: the next hop and the attribute bytes, sorted by
//! code, AS numbers in four octets, and without NEXT_HOP, MP_(UN)REACH_NLRI and AS4_*, which [`super::update`]
//! puts there and takes away. Keeping the bytes makes comparing, hashing and sending on cheap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Reader;
use crate::input::Origin;

/// Attribute type codes (IANA "BGP Path Attributes").
#[allow(missing_docs, reason = "the names are the registry's")]
pub mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const PMSI_TUNNEL: u8 = 22;
    pub const TUNNEL_ENCAPSULATION: u8 = 23;
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub const AIGP: u8 = 26;
    pub const LINK_STATE: u8 = 29;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
    pub const PREFIX_SID: u8 = 40;
}

/// Attribute flags (RFC 4271 §4.3).
#[allow(missing_docs, reason = "the names are the RFC's")]
pub mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
    /// Well-known attributes.
    pub const WELL_KNOWN: u8 = TRANSITIVE;
    /// Optional transitive attributes.
    pub const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
}

/// Routes not to be announced to anyone (RFC 1997).
pub const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Routes not to leave the AS (confederation).
pub const NO_EXPORT: u32 = 0xffff_ff01;
/// Routes not to leave the member AS.
pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
/// Routes whose peer is gone for long: the last to be used (RFC 9494 §3.2).
pub const LLGR_STALE: u32 = 0xffff_0006;
/// Routes that are not to be kept for long (RFC 9494 §3.3).
pub const NO_LLGR: u32 = 0xffff_0007;
/// Packets to these destinations are not wanted (RFC 7999).
pub const BLACKHOLE: u32 = 0xffff_029a;

/// One attribute as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    /// The upper four bits of the flags octet; the lower four mean nothing.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: &'a [u8],
}

impl<'a> RawAttribute<'a> {
    /// Takes the first attribute off a block; `None` where its header or value is cut short.
    pub(crate) fn take(block: &mut Reader<'a>) -> Option<RawAttribute<'a>> {
        let (flags, code) = (block.u8()?, block.u8()?);
        let len = if flags & flag::EXTENDED_LENGTH != 0 {
            usize::from(block.u16()?)
        } else {
            usize::from(block.u8()?)
        };
        Some(RawAttribute { flags: flags & 0xf0, code, value: block.take(len)? })
    }
}

/// Appends an attribute; the extended length bit is set where, and only where, the value needs it.
pub fn emit(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    let flags = flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL);
    match u8::try_from(value.len()) {
        Ok(len) => out.extend_from_slice(&[flags, code, len]),
        Err(_) => {
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code]);
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// The kinds of AS_PATH segments (RFC 4271 §4.3, RFC 5065 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Unordered.
    Set = 1,
    /// Ordered.
    Sequence = 2,
    /// Ordered, within a confederation.
    ConfedSequence = 3,
    /// Unordered, within a confederation.
    ConfedSet = 4,
}

/// An AS_PATH with AS numbers of four octets, or of two for old speakers.
#[derive(Clone, Copy, Debug)]
pub struct AsPath<'a> {
    bytes: &'a [u8],
    width: usize,
}

/// One segment of an AS_PATH.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Which kind.
    pub kind: SegmentKind,
    bytes: &'a [u8],
    width: usize,
}

impl<'a> AsPath<'a> {
    /// Four octets for each AS number.
    pub fn four_octet(bytes: &'a [u8]) -> AsPath<'a> {
        AsPath { bytes, width: 4 }
    }

    /// Two octets for each AS number.
    pub fn two_octet(bytes: &'a [u8]) -> AsPath<'a> {
        AsPath { bytes, width: 2 }
    }

    /// Known kinds, no empty segment, no overrun (RFC 7606 §7.2).
    pub fn is_well_formed(self) -> bool {
        let mut segments = self;
        let used: usize = segments.by_ref().map(|segment| 2 + segment.bytes.len()).sum();
        used == self.bytes.len()
    }

    /// AS numbers in order, of whatever kind of segment.
    pub fn as_numbers(self) -> impl Iterator<Item = u32> + 'a {
        self.flat_map(Segment::as_numbers)
    }

    /// Length as the decision process counts it: a set is one, confederation segments nothing
    /// (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3).
    pub fn hops(self) -> usize {
        self.map(|segment| match segment.kind {
            SegmentKind::Sequence => segment.as_numbers().count(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        })
        .sum()
    }

    /// The AS that sent the route to ours: the first of a leading sequence.
    pub fn neighbor_as(mut self) -> Option<u32> {
        let first = self.next()?;
        (first.kind == SegmentKind::Sequence).then(|| first.as_numbers().next())?
    }
}

impl<'a> Iterator for AsPath<'a> {
    type Item = Segment<'a>;

    /// The next segment; ends at the first that is not well-formed.
    fn next(&mut self) -> Option<Segment<'a>> {
        let (&[kind, count], rest) = self.bytes.split_first_chunk()?;
        let kind = match kind {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            4 => SegmentKind::ConfedSet,
            _ => return None,
        };
        let (bytes, rest) = rest.split_at_checked(usize::from(count) * self.width)?;
        if count == 0 {
            return None;
        }
        self.bytes = rest;
        Some(Segment { kind, bytes, width: self.width })
    }
}

impl<'a> Segment<'a> {
    /// The segment's AS numbers.
    pub fn as_numbers(self) -> impl Iterator<Item = u32> + 'a {
        self.bytes
            .chunks_exact(self.width)
            .map(|octets| octets.iter().fold(0, |number, &octet| number << 8 | u32::from(octet)))
    }
}

/// Appends a segment with four-octet numbers.
pub(crate) fn emit_segment(out: &mut Vec<u8>, kind: SegmentKind, numbers: &[u32]) {
    for numbers in numbers.chunks(255) {
        out.extend([kind as u8, numbers.len() as u8]);
        numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
    }
}

/// A next hop and attributes in canonical form.
///
/// What the decision process asks for is taken out once, here.
#[derive(Debug)]
pub struct Attributes {
    content: Content,
    /// Of the key, and of what these were made of where they were, as the speaker hashes.
    pub(crate) hash: u32,
    /// These three where `told` says that they are there: an option each would take as much again.
    local_pref: u32,
    med: u32,
    neighbor_as: u32,
    told: u8,
    hops: u16,
    origin: Origin,
    scope: Scope,
    long_lived_stale: bool,
}

// With the counts of an `Arc` 64 bytes, and there can be hundreds of thousands of them.
const _: () = assert!(size_of::<Attributes>() == 40);

/// Length of the next hop, the next hop, then the attributes: the key, which makes two sets equal.
#[derive(Debug)]
enum Content {
    /// As a peer said it.
    Received(Box<[u8]>),
    /// What an import filter has made of others. Few routes need those, so most sets have no room for them.
    Made(Box<(Box<[u8]>, Arc<Attributes>)>),
}

/// What may be absent of an attribute set, a bit each.
mod told {
    pub(super) const LOCAL_PREF: u8 = 1;
    pub(super) const MED: u8 = 1 << 1;
    pub(super) const NEIGHBOR_AS: u8 = 1 << 2;
}

/// How far a route may go (RFC 1997, well-known communities).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To everyone.
    Anywhere,
    /// Only within our AS.
    OwnAs,
    /// To nobody.
    Nobody,
}

impl Attributes {
    /// Reads a canonical key: length of the next hop (0, 4 or 16), the next hop, the attributes.
    pub(crate) fn from_key(key: &[u8], hash: u32) -> Attributes {
        Attributes::new(Content::Received(key.into()), key, hash)
    }

    /// As [`Self::from_key`]; an import filter has made them of others.
    pub(crate) fn made(key: &[u8], hash: u32, of: Arc<Attributes>) -> Attributes {
        Attributes::new(Content::Made(Box::new((key.into(), of))), key, hash)
    }

    fn new(content: Content, key: &[u8], hash: u32) -> Attributes {
        let mut attributes = Attributes {
            content,
            hash,
            local_pref: 0,
            med: 0,
            neighbor_as: 0,
            told: 0,
            hops: 0,
            origin: Origin::Incomplete,
            scope: Scope::Anywhere,
            long_lived_stale: false,
        };
        for attribute in iterate(key_attributes(key)) {
            let number = || attribute.value.first_chunk().map(|octets| u32::from_be_bytes(*octets));
            match attribute.code {
                code::ORIGIN => {
                    attributes.origin = match attribute.value {
                        [0] => Origin::Igp,
                        [1] => Origin::Egp,
                        _ => Origin::Incomplete,
                    };
                }
                code::AS_PATH => {
                    let path = AsPath::four_octet(attribute.value);
                    attributes.hops = path.hops().min(usize::from(u16::MAX)) as u16;
                    attributes.note(told::NEIGHBOR_AS, path.neighbor_as());
                }
                code::MULTI_EXIT_DISC => attributes.note(told::MED, number()),
                code::LOCAL_PREF => attributes.note(told::LOCAL_PREF, number()),
                code::COMMUNITIES => {
                    attributes.scope = scope(attribute.value);
                    attributes.long_lived_stale = has_community(attribute.value, LLGR_STALE);
                }
                _ => {}
            }
        }
        attributes
    }

    fn note(&mut self, what: u8, number: Option<u32>) {
        let Some(number) = number else { return };
        self.told |= what;
        match what {
            told::LOCAL_PREF => self.local_pref = number,
            told::MED => self.med = number,
            _ => self.neighbor_as = number,
        }
    }

    fn if_told(&self, what: u8, number: u32) -> Option<u32> {
        (self.told & what != 0).then_some(number)
    }

    pub(crate) fn key(&self) -> &[u8] {
        match &self.content {
            Content::Received(key) => key,
            Content::Made(made) => &made.0,
        }
    }

    /// What an import filter has made these of.
    pub(crate) fn made_of(&self) -> Option<&Arc<Attributes>> {
        match &self.content {
            Content::Received(_) => None,
            Content::Made(made) => Some(&made.1),
        }
    }

    /// Where to send; `None` for our own routes, which get theirs when announced.
    pub fn nexthop(&self) -> Option<IpAddr> {
        key_nexthop(self.key())
    }

    /// The attributes' bytes, without NEXT_HOP and MP_REACH_NLRI.
    pub fn bytes(&self) -> &[u8] {
        key_attributes(self.key())
    }

    /// Every attribute in the order of codes.
    pub fn iter(&self) -> impl Iterator<Item = RawAttribute<'_>> {
        iterate(self.bytes())
    }

    /// The value of one attribute.
    pub fn value(&self, code: u8) -> Option<&[u8]> {
        self.iter().find(|attribute| attribute.code == code).map(|attribute| attribute.value)
    }

    /// ORIGIN.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// LOCAL_PREF, where announced.
    pub fn local_pref(&self) -> Option<u32> {
        self.if_told(told::LOCAL_PREF, self.local_pref)
    }

    /// MULTI_EXIT_DISC, where announced.
    pub fn med(&self) -> Option<u32> {
        self.if_told(told::MED, self.med)
    }

    /// AS_PATH.
    pub fn as_path(&self) -> AsPath<'_> {
        AsPath::four_octet(self.value(code::AS_PATH).unwrap_or_default())
    }

    /// Length of AS_PATH as the decision process counts it.
    pub fn hops(&self) -> u16 {
        self.hops
    }

    /// The first AS of AS_PATH.
    pub fn neighbor_as(&self) -> Option<u32> {
        self.if_told(told::NEIGHBOR_AS, self.neighbor_as)
    }

    /// How far the well-known communities let the route go.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Does LLGR_STALE say that the route is the last to be used?
    pub fn is_long_lived_stale(&self) -> bool {
        self.long_lived_stale
    }

    /// Does the route carry this community?
    pub fn has_community(&self, community: u32) -> bool {
        has_community(self.value(code::COMMUNITIES).unwrap_or_default(), community)
    }

    /// Only to Customer (RFC 9234 §5): the AS from where on a route goes down only.
    pub fn only_to_customer(&self) -> Option<u32> {
        self.value(code::ONLY_TO_CUSTOMER)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))
    }

    /// COMMUNITIES (RFC 1997).
    pub fn communities(&self) -> impl Iterator<Item = u32> + '_ {
        numbers(self.value(code::COMMUNITIES).unwrap_or_default())
    }

    /// LARGE_COMMUNITIES (RFC 8092).
    pub fn large_communities(&self) -> impl Iterator<Item = [u32; 3]> + '_ {
        let value = self.value(code::LARGE_COMMUNITIES).unwrap_or_default();
        value.chunks_exact(12).map(|octets| {
            let mut parts = numbers(octets);
            std::array::from_fn(|_| parts.next().unwrap_or_default())
        })
    }

    /// The bandwidth of the link to the next hop, in bytes a second, as the link bandwidth extended community tells it
    /// (draft-ietf-idr-link-bandwidth §2), whether or not it is marked as transitive; the least where there are several.
    pub fn link_bandwidth(&self) -> Option<u64> {
        let value = self.value(code::EXTENDED_COMMUNITIES).unwrap_or_default();
        let told = value.as_chunks::<8>().0.iter().filter_map(|community| match *community {
            // Type 0x40 or 0x00, sub-type 4, an AS of two octets, a float.
            [0x40 | 0x00, 4, _, _, a, b, c, d] => Some(f32::from_be_bytes([a, b, c, d])),
            _ => None,
        });
        // A link that carries nothing is no statement about shares.
        told.filter(|bandwidth| bandwidth.is_finite() && *bandwidth >= 1.0)
            .map(|bandwidth| bandwidth as u64)
            .min()
    }

    /// ORIGINATOR_ID, set by a route reflector (RFC 4456 §8).
    pub fn originator_id(&self) -> Option<Ipv4Addr> {
        let octets = self.value(code::ORIGINATOR_ID)?.first_chunk::<4>()?;
        Some(Ipv4Addr::from(*octets))
    }

    /// CLUSTER_LIST, the reflectors passed (RFC 4456 §8).
    pub fn cluster_list(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        numbers(self.value(code::CLUSTER_LIST).unwrap_or_default()).map(Ipv4Addr::from)
    }
}

fn numbers(octets: &[u8]) -> impl Iterator<Item = u32> + '_ {
    octets.as_chunks().0.iter().map(|octets| u32::from_be_bytes(*octets))
}

fn has_community(communities: &[u8], wanted: u32) -> bool {
    numbers(communities).any(|community| community == wanted)
}

fn scope(communities: &[u8]) -> Scope {
    let has = |wanted| has_community(communities, wanted);
    if has(NO_ADVERTISE) {
        Scope::Nobody
    } else if has(NO_EXPORT) || has(NO_EXPORT_SUBCONFED) {
        Scope::OwnAs
    } else {
        Scope::Anywhere
    }
}

/// The next hop of a canonical key.
pub(crate) fn key_nexthop(key: &[u8]) -> Option<IpAddr> {
    let (&len, rest) = key.split_first()?;
    match len {
        4 => rest.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
        16 => rest.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
        _ => None,
    }
}

/// The attributes of a canonical key.
pub(crate) fn key_attributes(key: &[u8]) -> &[u8] {
    let skip = 1 + usize::from(key.first().copied().unwrap_or_default());
    key.get(skip..).unwrap_or_default()
}

/// Attributes of a block, up to the first that is cut short.
pub(crate) fn iterate(block: &[u8]) -> impl Iterator<Item = RawAttribute<'_>> {
    let mut block = Reader(block);
    std::iter::from_fn(move || RawAttribute::take(&mut block))
}

/// Begins a canonical key with its next hop.
pub(crate) fn emit_key_nexthop(key: &mut Vec<u8>, nexthop: Option<IpAddr>) {
    match nexthop {
        None => key.push(0),
        Some(IpAddr::V4(addr)) => {
            key.push(4);
            key.extend_from_slice(&addr.octets());
        }
        Some(IpAddr::V6(addr)) => {
            key.push(16);
            key.extend_from_slice(&addr.octets());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_set_counts_one_hop_and_confederation_segments_none() {
        let mut path = Vec::new();
        emit_segment(&mut path, SegmentKind::ConfedSequence, &[65100, 65101]);
        emit_segment(&mut path, SegmentKind::Sequence, &[1, 2, 3]);
        emit_segment(&mut path, SegmentKind::Set, &[4, 5]);
        assert_eq!(AsPath::four_octet(&path).hops(), 4);
        assert!(AsPath::four_octet(&path).is_well_formed());
    }

    #[test]
    fn the_least_link_bandwidth_counts_whether_transitive_or_not() {
        let community = |kind: u8, bandwidth: f32| {
            let [a, b, c, d] = bandwidth.to_be_bytes();
            [kind, 4, 0xfd, 0xe9, a, b, c, d]
        };
        let of = |communities: &[[u8; 8]]| {
            let mut key = vec![0];
            emit(&mut key, flag::OPTIONAL_TRANSITIVE, code::EXTENDED_COMMUNITIES, &communities.concat());
            Attributes::from_key(&key, 0).link_bandwidth()
        };
        assert_eq!(of(&[community(0x40, 1.25e9)]), Some(1_250_000_000));
        assert_eq!(of(&[community(0x00, 2e6), community(0x40, 1e6)]), Some(1_000_000));
        let route_target = [0, 2, 0xfd, 0xe9, 0, 0, 0, 1];
        assert_eq!(of(&[route_target]), None);
        for nonsense in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(of(&[community(0x40, nonsense)]), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn an_attribute_comes_back_from_its_own_bytes(
            flags: u8, code: u8, value in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut bytes = Vec::new();
            emit(&mut bytes, flags, code, &value);
            let mut block = Reader(&bytes);
            let attribute = RawAttribute::take(&mut block).expect("whole");
            prop_assert!(block.is_empty());
            prop_assert_eq!((attribute.flags & 0xe0, attribute.code), (flags & 0xe0, code));
            prop_assert_eq!(attribute.value, &value[..]);
        }

        #[test]
        fn any_bytes_are_read_as_a_key_without_panic(key: Vec<u8>) {
            let attributes = Attributes::from_key(&key, 0);
            let _ = (attributes.nexthop(), attributes.as_path().as_numbers().count(), attributes.originator_id());
        }

        #[test]
        fn a_path_is_well_formed_only_if_every_octet_belongs_to_a_segment(bytes: Vec<u8>, two: bool) {
            let path = if two { AsPath::two_octet(&bytes) } else { AsPath::four_octet(&bytes) };
            let numbers = path.as_numbers().count();
            if path.is_well_formed() {
                prop_assert_eq!(numbers * path.width + 2 * path.count(), bytes.len());
            }
        }
    }
}
