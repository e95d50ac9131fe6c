//! From the best path to what one peer is told of it.

use std::net::{IpAddr, Ipv4Addr};

use model::{AsNumber, Family, Prefix};

use crate::config::{NextHopMode, PeerConfig, PeerKind, SelfNextHops, SendPaths};
use crate::connection::Negotiated;
use crate::decision::DEFAULT_LOCAL_PREF;
use crate::filter::{Filter, FilterRule, Verdict};
use crate::path::{Path, Slot};
use crate::rewrite::Rewrite;
use crate::wire::attributes::{AsPath, Scope, code, flag};
use crate::wire::capability::Role;
use crate::wire::open::AS_TRANS;
use crate::wire::update::{Form, attributes_room};

/// All that decides what a peer is told, but which peer it is: those of equal policy are told the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExportPolicy {
    pub(crate) kind: PeerKind,
    pub(crate) local_as: AsNumber,
    /// Our address on the session.
    pub(crate) local_address: IpAddr,
    pub(crate) next_hop: NextHopMode,
    pub(crate) self_next_hops: SelfNextHops,
    /// The peer is a client of ours in this cluster.
    pub(crate) client: Option<Ipv4Addr>,
    /// What we are to a peer in another AS.
    pub(crate) role: Option<Role>,
    pub(crate) four_octet_as: bool,
    pub(crate) v4_over_v6: bool,
    /// The peer knows to use LLGR_STALE routes last (RFC 9494 §4.3).
    pub(crate) knows_long_lived: bool,
    pub(crate) max_message_len: usize,
    pub(crate) families: [bool; 2],
    pub(crate) send_paths: SendPaths,
    /// Takes several paths (RFC 7911), by [`Family`]: of each prefix all but its own, so it is told what nobody else is.
    pub(crate) several: [bool; 2],
    pub(crate) alone: Option<Slot>,
    pub(crate) filter: Filter,
}

/// Who of those with one policy is to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient {
    pub(crate) slot: Slot,
    pub(crate) address: Option<IpAddr>,
}

impl Recipient {
    /// Whoever a route is not from, and whose address is not its next hop.
    pub(crate) const ANY: Recipient = Recipient { slot: Slot::ANY, address: None };
}

/// The peer that a path comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Learned {
    pub(crate) kind: PeerKind,
    pub(crate) router_id: Ipv4Addr,
    /// It is a client of ours in this cluster.
    pub(crate) client: Option<Ipv4Addr>,
}

/// What is said of a route: nothing, or its attributes as a rule changes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit<'a> {
    No,
    Yes(Option<&'a FilterRule>),
}

impl ExportPolicy {
    /// The policy towards a peer over its session.
    pub(crate) fn new(
        slot: Slot,
        config: &PeerConfig,
        (local_as, kind): (AsNumber, PeerKind),
        negotiated: &Negotiated,
        local_address: IpAddr,
    ) -> ExportPolicy {
        let takes_several = negotiated.send_several.contains(&true);
        ExportPolicy {
            kind,
            local_as,
            local_address,
            next_hop: config.next_hop,
            self_next_hops: config.self_next_hops,
            client: config.reflector_client,
            role: config.role.filter(|_| kind == PeerKind::Ebgp),
            four_octet_as: negotiated.update.four_octet_as,
            v4_over_v6: negotiated.update.v4_over_v6,
            knows_long_lived: negotiated.long_lived.is_some(),
            max_message_len: negotiated.max_message_len,
            families: negotiated.update.families,
            send_paths: if takes_several { config.send_paths } else { SendPaths::Best },
            several: negotiated.send_several,
            alone: takes_several.then_some(slot),
            filter: config.export.in_force(config.policy_required, kind).clone(),
        }
    }

    /// How the peer reads what we send of a family.
    pub(crate) fn form(&self, family: Family) -> Form {
        Form { family, max_len: self.max_message_len, add_path: self.several[family as usize] }
    }

    /// Is the next hop that is announced ever another's?
    pub(crate) fn keeps_next_hops(&self) -> bool {
        match self.next_hop {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => self.kind == PeerKind::Ibgp,
        }
    }

    /// May the peer be told of this path at all?
    pub(crate) fn permits(
        &self,
        to: Recipient,
        prefix: Prefix,
        path: &Path,
        learned: Option<Learned>,
    ) -> Permit<'_> {
        let internal = self.kind == PeerKind::Ibgp;
        // Not back to where it came from, and from one iBGP peer to another (RFC 4271 §9.2) only where one of them is a
        // client (RFC 4456 §6).
        let within = learned.filter(|learned| internal && learned.kind == PeerKind::Ibgp);
        let allowed = path.source != to.slot
            && self.may_hear_of(path)
            && within.is_none_or(|learned| learned.client.or(self.client).is_some())
            && match path.imported.scope() {
                Scope::Anywhere => true,
                Scope::OwnAs => internal,
                Scope::Nobody => false,
            };
        let originated = learned.is_none().then_some(path.rank);
        match self.filter.verdict(prefix, &path.imported, originated) {
            Verdict::Accept(rule) if allowed => Permit::Yes(rule),
            _ => Permit::No,
        }
    }

    /// Not of what the peer would not know to use last (RFC 9494 §4.3), nor of what must only go down (RFC 9234 §5,
    /// egress 2).
    fn may_hear_of(&self, path: &Path) -> bool {
        let upwards = matches!(self.role, Some(Role::Customer | Role::RouteServerClient | Role::Peer));
        (!path.imported.is_long_lived_stale() || self.knows_long_lived)
            && !(upwards && path.imported.only_to_customer().is_some())
    }

    /// Writes the canonical key of what the peer is told over `key`; `false` where it cannot be told: we have
    /// no next hop of the family, or the attributes would not fit a message.
    pub(crate) fn write(
        &self,
        to: Recipient,
        family: Family,
        path: &Path,
        learned: Option<Learned>,
        rule: Option<&FilterRule>,
        key: &mut Vec<u8>,
    ) -> bool {
        let Some(nexthop) = self.next_hop(to, family, path, learned) else { return false };
        let mut rewrite = Rewrite::of(&path.imported);
        if let Some(rule) = rule {
            rewrite.operate(rule);
        }
        match (self.kind, learned) {
            (PeerKind::Ibgp, Some(learned)) if learned.kind == PeerKind::Ibgp => {
                self.reflect(&mut rewrite, learned);
            }
            // Of no meaning outside the AS (RFC 4456 §8).
            _ => rewrite.remove(&[code::ORIGINATOR_ID, code::CLUSTER_LIST]),
        }
        match self.kind {
            PeerKind::Ibgp => {
                if rewrite.value(code::LOCAL_PREF).is_none() {
                    let value = DEFAULT_LOCAL_PREF.to_be_bytes().to_vec();
                    rewrite.set(flag::WELL_KNOWN, code::LOCAL_PREF, value);
                }
                if rewrite.value(code::AS_PATH).is_none() {
                    rewrite.set(flag::WELL_KNOWN, code::AS_PATH, Vec::new());
                }
            }
            PeerKind::Ebgp => self.leave_as(&mut rewrite, path),
        }
        if !self.four_octet_as {
            to_two_octets(&mut rewrite);
        }
        rewrite.write(Some(nexthop), key);
        key.len() <= attributes_room(self.max_message_len)
    }

    /// What changes where a route goes from one iBGP peer to another: who brought it into the AS, and which clusters it
    /// has been through (RFC 4456 §8). All else stays as it is (§10).
    fn reflect(&self, rewrite: &mut Rewrite<'_>, learned: Learned) {
        if rewrite.value(code::ORIGINATOR_ID).is_none() {
            rewrite.set(flag::OPTIONAL, code::ORIGINATOR_ID, learned.router_id.octets().to_vec());
        }
        // A route that goes from one cluster of ours into another has been through both.
        let ours = self.client.filter(|ours| learned.client != Some(*ours));
        let through = ours.into_iter().chain(learned.client).flat_map(|cluster| cluster.octets());
        let list = through.chain(rewrite.value(code::CLUSTER_LIST).unwrap_or_default().iter().copied());
        let list = list.collect();
        rewrite.set(flag::OPTIONAL, code::CLUSTER_LIST, list);
    }

    /// What changes where a route leaves our AS.
    fn leave_as(&self, rewrite: &mut Rewrite<'_>, path: &Path) {
        // LOCAL_PREF is for our AS only; MED is for the neighbouring AS only (RFC 4271 §5.1.4, §5.1.5).
        rewrite.remove(&[code::LOCAL_PREF]);
        if path.source != Slot::LOCAL {
            rewrite.remove(&[code::MULTI_EXIT_DISC]);
        }
        // The second highest bit says "non-transitive across ASes" (RFC 4360 §6, RFC 5701 §2).
        let transitive = |community: &[u8]| community.first().is_none_or(|kind| kind & 0x40 == 0);
        rewrite.filter_list(code::EXTENDED_COMMUNITIES, 8, transitive);
        rewrite.filter_list(code::IPV6_EXTENDED_COMMUNITIES, 20, transitive);
        rewrite.prepend_as(self.local_as);
        // From here on the route goes down only (RFC 9234 §5, egress 1).
        let downwards = matches!(self.role, Some(Role::Provider | Role::RouteServer | Role::Peer));
        if downwards && rewrite.value(code::ONLY_TO_CUSTOMER).is_none() {
            let value = self.local_as.0.to_be_bytes().to_vec();
            rewrite.set(flag::OPTIONAL_TRANSITIVE, code::ONLY_TO_CUSTOMER, value);
        }
    }

    /// RFC 4271 §5.1.3, or what the peer's configuration says instead.
    fn next_hop(
        &self,
        to: Recipient,
        family: Family,
        path: &Path,
        learned: Option<Learned>,
    ) -> Option<IpAddr> {
        let ours = self.own_next_hop(family);
        let theirs = path.imported.nexthop().filter(|_| learned.is_some());
        // "A BGP speaker … MUST NOT advertise an address of a peer to that peer as a NEXT_HOP".
        let theirs = theirs.filter(|&nexthop| Some(nexthop) != to.address);
        let theirs = theirs.filter(|&nexthop| Family::of(nexthop) == family || self.v4_over_v6);
        match (self.next_hop, self.kind) {
            (NextHopMode::SelfAddress, _) | (NextHopMode::Auto, PeerKind::Ebgp) => ours,
            (NextHopMode::Keep, _) | (NextHopMode::Auto, PeerKind::Ibgp) => theirs.or(ours),
        }
    }

    fn own_next_hop(&self, family: Family) -> Option<IpAddr> {
        let of_family = |family| {
            let configured = match family {
                Family::V4 => self.self_next_hops.v4.map(IpAddr::V4),
                Family::V6 => self.self_next_hops.v6.map(IpAddr::V6),
            };
            let session = Some(self.local_address);
            configured.or(session.filter(|&addr| Family::of(addr) == family && !addr.is_unspecified()))
        };
        // Over a session of IPv6, which is where IPv4 has no addresses to go through (RFC 8950 §1).
        let over_v6 = family == Family::V4 && self.v4_over_v6 && self.local_address.is_ipv6();
        over_v6.then(|| of_family(Family::V6)).flatten().or_else(|| of_family(family))
    }
}

/// For a peer that knows only two-octet AS numbers (RFC 6793 §4.2.2).
fn to_two_octets(rewrite: &mut Rewrite<'_>) {
    let narrow = |number: u32| u16::try_from(number).unwrap_or(AS_TRANS);
    if let Some(wide) = rewrite.value(code::AS_PATH).map(<[u8]>::to_vec) {
        let mut narrowed = Vec::new();
        for segment in AsPath::four_octet(&wide) {
            narrowed.extend([segment.kind as u8, segment.as_numbers().count() as u8]);
            segment.as_numbers().for_each(|number| narrowed.extend(narrow(number).to_be_bytes()));
        }
        rewrite.set(flag::WELL_KNOWN, code::AS_PATH, narrowed);
        if AsPath::four_octet(&wide).as_numbers().any(|number| u16::try_from(number).is_err()) {
            rewrite.set(flag::OPTIONAL_TRANSITIVE, code::AS4_PATH, wide);
        }
    }
    if let Some(wide) = rewrite.value(code::AGGREGATOR).map(<[u8]>::to_vec)
        && let Some((number, address)) = wide.split_first_chunk::<4>()
    {
        let number = u32::from_be_bytes(*number);
        let narrowed = [&narrow(number).to_be_bytes()[..], address].concat();
        rewrite.set(flag::OPTIONAL_TRANSITIVE, code::AGGREGATOR, narrowed);
        if u16::try_from(number).is_err() {
            rewrite.set(flag::OPTIONAL_TRANSITIVE, code::AS4_AGGREGATOR, wide);
        }
    }
}
