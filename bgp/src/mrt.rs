//! Tables in MRT's form (RFC 6396 `TABLE_DUMP_V2`, RFC 8050): what collectors keep and tools of others read.
//!
//! [`Speaker::mrt`] writes what each peer announced, before policy; [`Dump::read`] reads such a file and gives the
//! UPDATEs that would bring the table about again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{Family, Prefix};

use crate::path::{Path, Slot};
use crate::speaker::Speaker;
use crate::wire::attributes::{Attributes, RawAttribute, code, emit, flag, iterate};
use crate::wire::nlri::{self, AfiSafi, Nlri, NlriField};
use crate::wire::{MAX_EXTENDED_LEN, MessageType, Reader, emit_message};

/// MRT type `TABLE_DUMP_V2`.
const TABLE_DUMP_V2: u16 = 13;
/// The record that says who the peers are.
const PEER_INDEX_TABLE: u16 = 1;
/// Larger records are refused: a prefix with the most paths that the count can say has less.
const RECORD_MAX: usize = 1 << 28;

/// The subtype of a record of one prefix.
fn subtype(family: Family, add_path: bool) -> u16 {
    match (family, add_path) {
        (Family::V4, false) => 2,
        (Family::V6, false) => 4,
        (Family::V4, true) => 8,
        (Family::V6, true) => 10,
    }
}

fn record(time: u32, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(time.to_be_bytes());
    out.extend([TABLE_DUMP_V2, subtype].into_iter().flat_map(u16::to_be_bytes));
    out.extend([0; 4]);
    body(&mut out);
    let len = (out.len() - 12) as u32;
    out[8..12].copy_from_slice(&len.to_be_bytes());
    out
}

impl Speaker {
    /// Every path that is held, in records of MRT: first who the peers are, then a record for each prefix in order.
    ///
    /// `time` is in seconds since 1970; when each path came is not remembered, so all carry it.
    pub fn mrt(&self, time: u32) -> impl Iterator<Item = Vec<u8>> + '_ {
        let tables = &self.tables.rib;
        let records = tables.v4.sorted();
        let records = records.chain(tables.v6.sorted()).filter(|(_, paths)| !paths.as_slice().is_empty());
        let prefixes = records.enumerate().map(move |(at, (prefix, paths))| {
            let paths: Vec<&Path> = paths.as_slice().iter().collect();
            prefix_record(time, at as u32, prefix, &paths, self.peers.len())
        });
        std::iter::once(self.peer_record(time)).chain(prefixes)
    }

    /// Begins to write the table piece by piece, so that nobody waits for all of it: see [`Speaker::mrt_piece`].
    pub fn mrt_begin(&self, time: u32) -> MrtPieces {
        let tables = &self.tables.rib;
        let prefixes = tables.v4.sorted().map(|(prefix, _)| prefix);
        let prefixes: Vec<Prefix> = prefixes.chain(tables.v6.sorted().map(|(prefix, _)| prefix)).collect();
        let peers = self.peer_record(time);
        MrtPieces {
            time,
            written: 0,
            first: Some(peers),
            ourselves: self.peers.len(),
            prefixes: prefixes.into_iter(),
        }
    }

    /// The next records: about as many octets as asked for, or more by a record; none at the end.
    ///
    /// Each prefix is written as it is by then. Peers that have come meanwhile are nobody's in the list of peers, so their paths
    /// are left out.
    pub fn mrt_piece(&self, pieces: &mut MrtPieces, len: usize) -> Vec<u8> {
        let mut out = pieces.first.take().unwrap_or_default();
        while out.len() < len {
            let Some(prefix) = pieces.prefixes.next() else { break };
            let is_listed =
                |path: &&Path| path.source == Slot::LOCAL || (path.source.0 as usize) < pieces.ourselves;
            let paths: Vec<&Path> = self.tables.rib.paths(prefix).iter().filter(is_listed).collect();
            if !paths.is_empty() {
                out.extend(prefix_record(pieces.time, pieces.written, prefix, &paths, pieces.ourselves));
                pieces.written += 1;
            }
        }
        out
    }

    /// Peers by their slots, and ourselves as the last, with no address.
    fn peer_record(&self, time: u32) -> Vec<u8> {
        record(time, PEER_INDEX_TABLE, |out| {
            out.extend(self.config.router_id.octets());
            out.extend([0, 0]);
            out.extend((self.peers.len() as u16 + 1).to_be_bytes());
            let nobody = (Ipv4Addr::UNSPECIFIED, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            let peers = self.peers.iter().map(|peer| match peer {
                Some(peer) => {
                    let router_id = peer.rib_in.router_id.unwrap_or(Ipv4Addr::UNSPECIFIED);
                    (router_id, peer.session.config.address, peer.session.config.peer_as.0)
                }
                None => nobody,
            });
            let ourselves = (self.config.router_id, nobody.1, self.config.local_as.0);
            for (router_id, address, as_number) in peers.chain([ourselves]) {
                // Bit 0: the address is IPv6; bit 1: the AS number has four octets.
                out.push(2 | u8::from(address.is_ipv6()));
                out.extend(router_id.octets());
                match address {
                    IpAddr::V4(address) => out.extend(address.octets()),
                    IpAddr::V6(address) => out.extend(address.octets()),
                }
                out.extend(as_number.to_be_bytes());
            }
        })
    }
}

fn prefix_record(time: u32, at: u32, prefix: Prefix, paths: &[&Path], ourselves: usize) -> Vec<u8> {
    let add_path = paths.iter().any(|path| path.path_id != 0);
    record(time, subtype(prefix.family(), add_path), |out| {
        out.extend(at.to_be_bytes());
        nlri::emit(out, Nlri { path_id: 0, prefix }, false);
        let paths = &paths[..paths.len().min(usize::from(u16::MAX))];
        out.extend((paths.len() as u16).to_be_bytes());
        for path in paths {
            let peer = if path.source == Slot::LOCAL { ourselves } else { path.source.0 as usize };
            out.extend((peer as u16).to_be_bytes());
            out.extend(time.to_be_bytes());
            if add_path {
                out.extend(path.path_id.to_be_bytes());
            }
            let attributes = attributes(prefix.family(), path.received());
            out.extend((attributes.len() as u16).to_be_bytes());
            out.extend(attributes);
        }
    })
}

/// A path's attributes; of MP_REACH_NLRI there is only the next hop (RFC 6396 §4.3.4).
fn attributes(family: Family, set: &Attributes) -> Vec<u8> {
    let mut parts: Vec<_> = set.iter().map(|raw| (raw.code, raw.flags, raw.value.to_vec())).collect();
    parts.push(match (family, set.nexthop()) {
        (Family::V4, Some(IpAddr::V4(nexthop))) => {
            (code::NEXT_HOP, flag::WELL_KNOWN, nexthop.octets().to_vec())
        }
        // Our own routes get a next hop when they are announced.
        (Family::V4, None) => (code::NEXT_HOP, flag::WELL_KNOWN, vec![0; 4]),
        (_, Some(IpAddr::V6(nexthop))) => mp_reach(nexthop),
        (Family::V6, _) => mp_reach(Ipv6Addr::UNSPECIFIED),
    });
    parts.sort_by_key(|(code, ..)| *code);
    let mut out = Vec::new();
    parts.iter().for_each(|(code, flags, value)| emit(&mut out, *flags, *code, value));
    out
}

fn mp_reach(nexthop: Ipv6Addr) -> (u8, u8, Vec<u8>) {
    (code::MP_REACH_NLRI, flag::OPTIONAL, [&[16][..], &nexthop.octets()].concat())
}

/// A table that is being written, piece by piece.
#[derive(Clone, Debug)]
pub struct MrtPieces {
    time: u32,
    written: u32,
    /// The list of peers, until it is written.
    first: Option<Vec<u8>>,
    ourselves: usize,
    prefixes: std::vec::IntoIter<Prefix>,
}

/// Why a file is no table in MRT's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MrtError {
    /// A record goes beyond the end of the file, or is larger than any can be.
    #[error("the record at octet {0} is cut short")]
    CutShort(usize),
    /// A record's content is not as RFC 6396 has it.
    #[error("the record at octet {0} is malformed")]
    Malformed(usize),
}

/// A peer of the speaker whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpPeer {
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub as_number: u32,
}

/// One path of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpPath<'a> {
    /// To where, and which of the prefix's paths.
    pub nlri: Nlri,
    /// Whose, as an index of [`Dump::peers`].
    pub peer: u16,
    /// The attributes as the file has them, AS numbers in four octets.
    pub attributes: &'a [u8],
    /// When the table was written, in seconds since 1970.
    pub time: u32,
}

impl<'a> DumpPath<'a> {
    /// The attributes one by one, up to the first that is cut short.
    pub fn iter(&self) -> impl Iterator<Item = RawAttribute<'a>> + use<'a> {
        iterate(self.attributes)
    }
}

/// A table that was read.
#[derive(Clone, Debug, Default)]
pub struct Dump<'a> {
    /// Who announced what is in it.
    pub peers: Vec<DumpPeer>,
    /// All paths, in the order of the file.
    pub paths: Vec<DumpPath<'a>>,
}

impl<'a> Dump<'a> {
    /// Reads a file; records of other kinds are passed over.
    ///
    /// # Errors
    /// Where the file is cut short, or a record that we know is malformed.
    pub fn read(bytes: &'a [u8]) -> Result<Dump<'a>, MrtError> {
        let (mut dump, mut rest) = (Dump::default(), Reader(bytes));
        while !rest.is_empty() {
            let at = bytes.len() - rest.0.len();
            let (time, kind, subtype, body) = take_record(&mut rest).ok_or(MrtError::CutShort(at))?;
            if kind == TABLE_DUMP_V2 {
                dump.add(time, subtype, Reader(body)).ok_or(MrtError::Malformed(at))?;
            }
        }
        Ok(dump)
    }

    fn add(&mut self, time: u32, kind: u16, mut body: Reader<'a>) -> Option<()> {
        if kind == PEER_INDEX_TABLE {
            body.take(4)?;
            let name = body.u16()?;
            body.take(usize::from(name))?;
            let count = body.u16()?;
            self.peers = (0..count).map(|_| take_peer(&mut body)).collect::<Option<_>>()?;
            return Some(());
        }
        let forms = Family::ALL.into_iter().flat_map(|family| [(family, false), (family, true)]);
        let Some((family, add_path)) =
            forms.clone().find(|&(family, add_path)| subtype(family, add_path) == kind)
        else {
            return Some(());
        };
        body.take(4)?;
        let len = usize::from(body.0.first()?.div_ceil(8)) + 1;
        let prefix = NlriField::parse(body.take(len)?, family, false)?.next()?.prefix;
        for _ in 0..body.u16()? {
            let peer = body.u16()?;
            body.take(4)?;
            let path_id = if add_path { body.u32()? } else { 0 };
            let len = body.u16()?;
            let attributes = body.take(usize::from(len))?;
            self.paths.push(DumpPath { nlri: Nlri { path_id, prefix }, peer, attributes, time });
        }
        Some(())
    }

    /// One peer's table as UPDATEs, each with the prefixes next to each other that have the same attributes, for a
    /// peer that takes four-octet AS numbers. Path identifiers are left out.
    pub fn updates(&self, peer: u16) -> Vec<u8> {
        let mut out = Vec::new();
        let paths: Vec<_> = self.paths.iter().filter(|path| path.peer == peer).collect();
        let alike = |a: &&DumpPath<'_>, b: &&DumpPath<'_>| {
            a.attributes == b.attributes && a.nlri.prefix.family() == b.nlri.prefix.family()
        };
        for group in paths.chunk_by(alike) {
            // As many as fit any message, whatever the attributes.
            for group in group.chunks(100) {
                emit_update(&mut out, group);
            }
        }
        out
    }
}

/// One UPDATE of paths with the same attributes.
fn emit_update(out: &mut Vec<u8>, group: &[&DumpPath<'_>]) {
    let Some(first) = group.first() else { return };
    let family = first.nlri.prefix.family();
    let mut field = Vec::new();
    group.iter().for_each(|path| nlri::emit(&mut field, Nlri { path_id: 0, ..path.nlri }, false));
    let mut attributes = Vec::new();
    let mut is_mp = false;
    for raw in iterate(first.attributes) {
        if raw.code == code::MP_REACH_NLRI {
            is_mp = true;
            let AfiSafi { afi, safi } = AfiSafi::unicast(family);
            let value = [&afi.to_be_bytes()[..], &[safi], raw.value, &[0], &field].concat();
            emit(&mut attributes, raw.flags, raw.code, &value);
        } else {
            emit(&mut attributes, raw.flags, raw.code, raw.value);
        }
    }
    let rest = if is_mp { &[][..] } else { &field };
    if attributes.len() + rest.len() + 23 > MAX_EXTENDED_LEN {
        return;
    }
    emit_message(out, MessageType::Update, |out| {
        out.extend([0, 0]);
        out.extend((attributes.len() as u16).to_be_bytes());
        out.extend(&attributes);
        out.extend(rest);
    });
}

/// Time, type, subtype and body of the next record.
fn take_record<'a>(rest: &mut Reader<'a>) -> Option<(u32, u16, u16, &'a [u8])> {
    let time = rest.u32()?;
    let (kind, subtype, len) = (rest.u16()?, rest.u16()?, rest.u32()? as usize);
    let body = if len <= RECORD_MAX { rest.take(len)? } else { return None };
    Some((time, kind, subtype, body))
}

fn take_peer(body: &mut Reader<'_>) -> Option<DumpPeer> {
    let kind = body.u8()?;
    let router_id = Ipv4Addr::from(body.u32()?);
    let address = match kind & 1 {
        0 => IpAddr::V4(Ipv4Addr::from(body.u32()?)),
        _ => IpAddr::V6(Ipv6Addr::from(body.array::<16>()?)),
    };
    let as_number = if kind & 2 == 0 { u32::from(body.u16()?) } else { body.u32()? };
    Some(DumpPeer { router_id, address, as_number })
}
