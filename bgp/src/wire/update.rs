//! UPDATE messages in (RFC 4271 §4.3, §6.3; RFC 4760; RFC 7606) and out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Family;

use super::attributes::{
    AsPath, RawAttribute, SegmentKind, code, emit, emit_key_nexthop, emit_segment, flag, key_attributes,
    key_nexthop,
};
use super::nlri::{self, AfiSafi, Nlri, NlriField};
use super::notification::{Notification, UPDATE_ERROR};
use super::open::AS_TRANS;
use super::treatment::{AttributeError, Reading, Treatment, is_unicast, judge, kept_flags};
use super::{HEADER_LEN, MessageType, Reader, emit_message};
use crate::config::PeerKind;

/// What a session negotiated, as far as UPDATEs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateContext {
    /// Same AS or another.
    pub kind: PeerKind,
    /// AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Families in use, in the order of [`Family::ALL`].
    pub families: [bool; 2],
    /// Where prefixes we receive carry path identifiers (RFC 7911), in the same order.
    pub add_path: [bool; 2],
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub v4_over_v6: bool,
}

impl UpdateContext {
    /// What two speakers of this time agree on: AS numbers of four octets and both families; a path a prefix.
    pub fn usual(kind: PeerKind) -> UpdateContext {
        UpdateContext {
            kind,
            four_octet_as: true,
            families: [true; 2],
            add_path: [false; 2],
            v4_over_v6: false,
        }
    }

    fn uses(&self, family: Family) -> bool {
        self.families[family as usize]
    }

    fn field<'a>(&self, bytes: &'a [u8], family: Family) -> Option<NlriField<'a>> {
        NlriField::parse(bytes, family, self.add_path[family as usize])
    }
}

/// Routes of one family with one next hop.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    /// To where.
    pub nlri: NlriField<'a>,
    /// Via whom.
    pub nexthop: IpAddr,
}

/// What one UPDATE says. Apply it in the order of the fields.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// No longer reachable: from the message's own field and from MP_UNREACH_NLRI.
    pub withdrawn: [NlriField<'a>; 2],
    /// Announced in the message's own field and in MP_REACH_NLRI.
    pub announced: [Option<Announced<'a>>; 2],
    /// Treat what is announced as withdrawn, for this reason.
    pub error: Option<AttributeError>,
    /// This is the End-of-RIB of a family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Attributes dropped for RFC 7606 "attribute discard" or because we need not know them.
    pub discarded: u32,
    attributes: Vec<RawAttribute<'a>>,
    four_octet_as: bool,
}

impl<'a> Update<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The NOTIFICATION of a session reset, where RFC 7606 leaves no milder way.
    pub fn parse(body: &'a [u8], context: &UpdateContext) -> Result<Update<'a>, Notification> {
        let list_malformed = || Notification::new(UPDATE_ERROR, 1);
        let mut body = Reader(body);
        let withdrawn_len = body.u16().ok_or_else(list_malformed)?;
        let withdrawn = body.take(usize::from(withdrawn_len)).ok_or_else(list_malformed)?;
        let attributes_len = body.u16().ok_or_else(list_malformed)?;
        let block = body.take(usize::from(attributes_len)).ok_or_else(list_malformed)?;
        let bad_network = || Notification::new(UPDATE_ERROR, 10);
        let withdrawn = context.field(withdrawn, Family::V4).ok_or_else(bad_network)?;
        let announced = context.field(body.0, Family::V4).ok_or_else(bad_network)?;

        let list = AttributeList::parse(block, context)?;
        let reaches_mp = list.mp_reach.is_some();
        let mut update = Update {
            withdrawn: [withdrawn, list.mp_unreach.flatten().unwrap_or(NlriField::EMPTY)],
            announced: [None, list.mp_reach.flatten()],
            error: list.error,
            end_of_rib: None,
            discarded: list.discarded,
            attributes: list.kept,
            four_octet_as: context.four_octet_as,
        };
        if !announced.is_empty() {
            update.announce_classic(announced);
        }
        if !announced.is_empty() || reaches_mp {
            update.require(code::AS_PATH);
            update.require(code::ORIGIN);
        } else if let Some(error) = update.error {
            // §5.2: without reachable routes there is nothing to withdraw, so the error is not contained.
            let wrong = update.attributes.iter().find(|attribute| error.attribute() == Some(attribute.code));
            let notification = error.notification();
            return Err(match wrong {
                Some(&attribute) => with_attribute(notification.subcode, attribute),
                None => notification,
            });
        }
        if update.announced[1].is_some_and(|announced| !is_unicast(announced.nexthop)) {
            update.error.get_or_insert(AttributeError::NextHop);
        }
        let nothing_else = withdrawn.is_empty() && announced.is_empty() && !reaches_mp;
        update.end_of_rib = match list.mp_unreach {
            None if nothing_else && block.is_empty() => Some(Family::V4),
            Some(Some(field)) if nothing_else && field.is_empty() && update.attributes.is_empty() => {
                Some(field.family())
            }
            _ => None,
        };
        if !context.uses(Family::V4) {
            (update.withdrawn[0], update.announced[0]) = (NlriField::EMPTY, None);
            update.end_of_rib = update.end_of_rib.filter(|&family| family == Family::V6);
        }
        Ok(update)
    }

    /// Takes NEXT_HOP for the prefixes of the message's own field.
    fn announce_classic(&mut self, nlri: NlriField<'a>) {
        self.require(code::NEXT_HOP);
        let octets = self.value(code::NEXT_HOP).and_then(|value| <[u8; 4]>::try_from(value).ok());
        let nexthop = IpAddr::V4(octets.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from));
        if !is_unicast(nexthop) {
            self.error.get_or_insert(AttributeError::NextHop);
        }
        self.announced[0] = Some(Announced { nlri, nexthop });
    }

    /// The attributes that are kept, in the order of their codes, without those of RFC 4760.
    pub fn attributes(&self) -> impl Iterator<Item = RawAttribute<'a>> {
        self.attributes.iter().copied()
    }

    fn require(&mut self, code: u8) {
        if self.value(code).is_none() {
            self.error.get_or_insert(AttributeError::Missing(code));
        }
    }

    fn value(&self, code: u8) -> Option<&'a [u8]> {
        self.attributes.iter().find(|attribute| attribute.code == code).map(|attribute| attribute.value)
    }

    /// Writes the canonical key of [`Attributes`](super::attributes::Attributes) for a next hop over `key`.
    pub(crate) fn canonical_key(&self, nexthop: IpAddr, key: &mut Vec<u8>) {
        key.clear();
        emit_key_nexthop(key, Some(nexthop));
        for attribute in &self.attributes {
            let flags = kept_flags(*attribute);
            match attribute.code {
                code::NEXT_HOP | code::AS4_PATH | code::AS4_AGGREGATOR => {}
                code::AS_PATH if !self.four_octet_as => {
                    emit(key, flags, attribute.code, &self.whole_as_path())
                }
                code::AGGREGATOR if !self.four_octet_as => {
                    emit(key, flags, attribute.code, &self.whole_aggregator(attribute.value));
                }
                code => emit(key, flags, code, attribute.value),
            }
        }
    }

    /// AS_PATH and AS4_PATH of an old speaker put together (RFC 6793 §4.2.3).
    fn whole_as_path(&self) -> Vec<u8> {
        let numbers = |path: AsPath<'_>| path.as_numbers().collect::<Vec<_>>();
        let old = numbers(AsPath::two_octet(self.value(code::AS_PATH).unwrap_or_default()));
        let aggregated_since = self
            .value(code::AGGREGATOR)
            .and_then(|value| value.first_chunk())
            .is_some_and(|number| u16::from_be_bytes(*number) != AS_TRANS);
        let new = match self.value(code::AS4_PATH) {
            Some(value) if !aggregated_since => numbers(AsPath::four_octet(value)),
            _ => Vec::new(),
        };
        let lead = if new.len() <= old.len() { old.len() - new.len() } else { old.len() };
        let mut whole = old[..lead].to_vec();
        if lead + new.len() == old.len() {
            whole.extend(new);
        }
        let mut path = Vec::new();
        emit_segment(&mut path, SegmentKind::Sequence, &whole);
        path
    }

    /// AGGREGATOR with four octets, from AS4_AGGREGATOR where the old one holds AS_TRANS.
    fn whole_aggregator(&self, old: &[u8]) -> Vec<u8> {
        let (number, address) = old.split_at_checked(2).unwrap_or_default();
        match self.value(code::AS4_AGGREGATOR) {
            Some(new) if number == AS_TRANS.to_be_bytes() => new.to_vec(),
            _ => [&[0, 0], number, address].concat(),
        }
    }
}

/// The attributes of one UPDATE, judged.
///
/// The outer `Option` of the MP fields says whether the attribute is there, the inner one whether it is of a
/// family in use.
struct AttributeList<'a> {
    kept: Vec<RawAttribute<'a>>,
    mp_reach: Option<Option<Announced<'a>>>,
    mp_unreach: Option<Option<NlriField<'a>>>,
    error: Option<AttributeError>,
    discarded: u32,
}

impl<'a> AttributeList<'a> {
    fn parse(block: &'a [u8], context: &UpdateContext) -> Result<AttributeList<'a>, Notification> {
        let mut list = AttributeList {
            kept: Vec::with_capacity(8),
            mp_reach: None,
            mp_unreach: None,
            error: None,
            discarded: 0,
        };
        let mut seen = [false; 256];
        let mut block = Reader(block);
        while !block.is_empty() {
            let Some(attribute) = RawAttribute::take(&mut block) else {
                list.error.get_or_insert(AttributeError::ListMalformed);
                break;
            };
            let again = std::mem::replace(&mut seen[usize::from(attribute.code)], true);
            match attribute.code {
                // §3 g: a second MP attribute cannot be told from a mistake in the first.
                code::MP_REACH_NLRI | code::MP_UNREACH_NLRI if again => {
                    return Err(Notification::new(UPDATE_ERROR, 1));
                }
                // §3 g: of any other attribute the first counts.
                _ if again => list.discarded += 1,
                _ => list.add(attribute, context)?,
            }
        }
        list.kept.sort_unstable_by_key(|attribute| attribute.code);
        Ok(list)
    }

    fn add(&mut self, attribute: RawAttribute<'a>, context: &UpdateContext) -> Result<(), Notification> {
        let reading = Reading { kind: context.kind, four_octet_as: context.four_octet_as };
        match judge(attribute, reading) {
            Treatment::Keep => {}
            Treatment::Discard => {
                self.discarded += 1;
                return Ok(());
            }
            Treatment::Withdraw(error) => {
                self.error.get_or_insert(error);
            }
            Treatment::Unrecognized => return Err(with_attribute(2, attribute)),
        }
        // §5.3: a malformed MP attribute hides which routes are meant.
        let optional_error = || with_attribute(9, attribute);
        match attribute.code {
            code::MP_REACH_NLRI => {
                self.mp_reach = Some(parse_mp_reach(attribute, context)?);
            }
            code::MP_UNREACH_NLRI => {
                self.mp_unreach =
                    Some(parse_mp_unreach(attribute.value, context).ok_or_else(optional_error)?);
            }
            _ => self.kept.push(attribute),
        }
        Ok(())
    }
}

/// A NOTIFICATION whose data is "the erroneous attribute (type, length, and value)" (RFC 4271 §6.3).
fn with_attribute(subcode: u8, attribute: RawAttribute<'_>) -> Notification {
    let mut data = Vec::new();
    emit(&mut data, attribute.flags, attribute.code, attribute.value);
    Notification { code: UPDATE_ERROR, subcode, data }
}

/// `None` is of a family not in use (RFC 4760 §3, RFC 7606 §7.11).
///
/// # Errors
/// Optional Attribute Error where a field is cut short or a prefix is impossible. Where the next hop's length
/// is wrong the prefixes cannot even be found: Malformed Attribute List.
fn parse_mp_reach<'a>(
    attribute: RawAttribute<'a>,
    context: &UpdateContext,
) -> Result<Option<Announced<'a>>, Notification> {
    let optional_error = || with_attribute(9, attribute);
    let unexpected_nexthop = || Notification::new(UPDATE_ERROR, 1);
    let mut value = Reader(attribute.value);
    let mut fixed_part = || Some((AfiSafi { afi: value.u16()?, safi: value.u8()? }, value.u8()?));
    let (family, nexthop_len) = fixed_part().ok_or_else(optional_error)?;
    let nexthop = value.take(usize::from(nexthop_len)).ok_or_else(unexpected_nexthop)?;
    let _reserved = value.u8().ok_or_else(optional_error)?;
    let Some(family) = family.family().filter(|&family| context.uses(family)) else { return Ok(None) };
    let nexthop = mp_nexthop(family, nexthop, context.v4_over_v6).ok_or_else(unexpected_nexthop)?;
    let nlri = context.field(value.0, family).ok_or_else(optional_error)?;
    Ok(Some(Announced { nlri, nexthop }))
}

/// One address of the family, or an IPv6 one for IPv4 routes where that was agreed on (RFC 8950 §3). With 32 octets
/// a link-local one follows the global one (RFC 2545 §3).
fn mp_nexthop(family: Family, octets: &[u8], v4_over_v6: bool) -> Option<IpAddr> {
    match (family, octets.len()) {
        (Family::V4, 4) => octets.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
        (Family::V4, 16 | 32) if !v4_over_v6 => None,
        (_, 16 | 32) => octets.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
        _ => None,
    }
}

/// `None` is malformed, `Some(None)` a family not in use (RFC 4760 §4).
fn parse_mp_unreach<'a>(value: &'a [u8], context: &UpdateContext) -> Option<Option<NlriField<'a>>> {
    let mut value = Reader(value);
    let family = AfiSafi { afi: value.u16()?, safi: value.u8()? }.family();
    match family.filter(|&family| context.uses(family)) {
        Some(family) => context.field(value.0, family).map(Some),
        None => Some(None),
    }
}

/// How a peer reads the UPDATEs of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) family: Family,
    /// The longest message it takes.
    pub(crate) max_len: usize,
    /// Prefixes carry path identifiers (RFC 7911).
    pub(crate) add_path: bool,
}

/// The longest attributes that leave room for any one prefix in a message of at most `max_len`.
///
/// Beside them stand: the header, two lengths, MP_REACH_NLRI with its own header, one next hop, and a prefix with
/// its path identifier.
pub(crate) const fn attributes_room(max_len: usize) -> usize {
    max_len - HEADER_LEN - 4 - (4 + 5 + 16) - (17 + 4)
}

/// Appends UPDATEs that withdraw prefixes; as many in each as fit.
pub(crate) fn emit_withdrawals(out: &mut Vec<u8>, form: Form, nlri: &[Nlri]) {
    let overhead = HEADER_LEN + 4 + if form.family == Family::V6 { 4 + 3 } else { 0 };
    for chunk in chunks_that_fit(nlri, form, overhead) {
        emit_message(out, MessageType::Update, |out| match form.family {
            Family::V4 => {
                emit_counted(out, |out| emit_nlri(out, chunk, form));
                out.extend_from_slice(&[0, 0]);
            }
            Family::V6 => {
                out.extend_from_slice(&[0, 0]);
                emit_counted(out, |out| emit_mp_unreach(out, chunk, form));
            }
        });
    }
}

/// Appends UPDATEs that announce prefixes with the same attributes, given as a canonical key; as many in each as fit.
///
/// The attributes must have a next hop and be no longer than [`attributes_room`].
pub(crate) fn emit_announcements(out: &mut Vec<u8>, form: Form, key: &[u8], nlri: &[Nlri]) {
    let bytes = key_attributes(key);
    match key_nexthop(key) {
        None => {}
        Some(IpAddr::V4(nexthop)) => {
            let overhead = HEADER_LEN + 4 + bytes.len() + 7;
            for chunk in chunks_that_fit(nlri, form, overhead) {
                emit_message(out, MessageType::Update, |out| {
                    out.extend_from_slice(&[0, 0]);
                    emit_counted(out, |out| emit_with_nexthop(out, bytes, nexthop));
                    emit_nlri(out, chunk, form);
                });
            }
        }
        Some(IpAddr::V6(nexthop)) => {
            let overhead = HEADER_LEN + 4 + bytes.len() + 4 + 5 + 16;
            for chunk in chunks_that_fit(nlri, form, overhead) {
                emit_message(out, MessageType::Update, |out| {
                    out.extend_from_slice(&[0, 0]);
                    emit_counted(out, |out| {
                        // First of all attributes, as RFC 7606 §5.1 asks.
                        emit_mp_reach(out, nexthop, chunk, form);
                        out.extend_from_slice(bytes);
                    });
                });
            }
        }
    }
}

/// Appends the End-of-RIB of a family (RFC 4724 §2).
pub(crate) fn emit_end_of_rib(out: &mut Vec<u8>, family: Family) {
    emit_message(out, MessageType::Update, |out| match family {
        Family::V4 => out.extend([0; 4]),
        Family::V6 => {
            out.extend_from_slice(&[0, 0]);
            let form = Form { family, max_len: super::MAX_MESSAGE_LEN, add_path: false };
            emit_counted(out, |out| emit_mp_unreach(out, &[], form));
        }
    });
}

/// Cuts a list into runs that fit a message beside `overhead` octets.
fn chunks_that_fit(nlri: &[Nlri], form: Form, overhead: usize) -> impl Iterator<Item = &[Nlri]> {
    let mut rest = nlri;
    std::iter::from_fn(move || {
        let mut used = overhead;
        let fits = rest.iter().take_while(|nlri| {
            used += nlri::emitted_len(nlri.prefix, form.add_path);
            used <= form.max_len
        });
        let (chunk, after) = rest.split_at(fits.count());
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn emit_nlri(out: &mut Vec<u8>, nlri: &[Nlri], form: Form) {
    nlri.iter().for_each(|&nlri| nlri::emit(out, nlri, form.add_path));
}

/// Appends what `body` appends, behind its length in two octets.
fn emit_counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    body(out);
    let len = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&len.to_be_bytes());
}

/// NEXT_HOP at its place in the order of codes.
fn emit_with_nexthop(out: &mut Vec<u8>, bytes: &[u8], nexthop: Ipv4Addr) {
    let mut block = Reader(bytes);
    let mut before = bytes.len();
    loop {
        let left = block.0.len();
        match RawAttribute::take(&mut block) {
            Some(attribute) if attribute.code < code::NEXT_HOP => {}
            _ => {
                before -= left;
                break;
            }
        }
    }
    out.extend_from_slice(&bytes[..before]);
    emit(out, flag::WELL_KNOWN, code::NEXT_HOP, &nexthop.octets());
    out.extend_from_slice(&bytes[before..]);
}

fn emit_mp_reach(out: &mut Vec<u8>, nexthop: Ipv6Addr, nlri: &[Nlri], form: Form) {
    let AfiSafi { afi, safi } = AfiSafi::unicast(form.family);
    out.extend([flag::OPTIONAL | flag::EXTENDED_LENGTH, code::MP_REACH_NLRI]);
    emit_counted(out, |out| {
        out.extend(afi.to_be_bytes());
        out.extend([safi, 16]);
        out.extend(nexthop.octets());
        out.push(0);
        emit_nlri(out, nlri, form);
    });
}

fn emit_mp_unreach(out: &mut Vec<u8>, nlri: &[Nlri], form: Form) {
    let AfiSafi { afi, safi } = AfiSafi::unicast(form.family);
    out.extend([flag::OPTIONAL | flag::EXTENDED_LENGTH, code::MP_UNREACH_NLRI]);
    emit_counted(out, |out| {
        out.extend(afi.to_be_bytes());
        out.push(safi);
        emit_nlri(out, nlri, form);
    });
}
