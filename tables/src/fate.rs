//! How a frame's walk ends (ARCHITECTURE.md, D6).
//!
//! One list of reasons serves the walk, `tortie show drops` and Prometheus. A reason exists only where some line
//! of the fast path gives it and some test makes it happen (`fastpath/tests/every_reason.rs`).

use model::PortId;

/// Where a frame's walk has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Still on its way; never the end of a walk.
    Undecided,
    /// Leaves through this port.
    Forward(PortId),
    /// Leaves through this port in fragments, each as large as the next hop's MTU allows.
    Fragment(PortId),
    /// A copy goes to the slow path.
    Punt(PuntReason),
    /// Lost, for this reason.
    Drop(DropReason),
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $label:literal: $help:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $help] $variant,)*
        }

        impl $name {
            /// Every reason, in order of [`Self::index`].
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// As an index into an array of counters.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The name in tables, JSON and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }

            /// One sentence for an operator.
            pub const fn help(self) -> &'static str {
                match self { $($name::$variant => $help,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a packet goes up to the slow path.
    PuntReason {
        Arp = "arp": "An ARP packet from a workload or the host.",
        NeighborDiscovery = "neighbor_discovery": "An IPv6 neighbour or router discovery packet from a workload or the host.",
        InsideSegment = "inside_segment": "ARP or neighbour discovery inside a VXLAN segment that this node has joined.",
        TtlExceeded = "ttl_exceeded": "The TTL or hop limit ran out here; the sender is told by ICMP.",
        NoRoute = "no_route": "No route covers the destination; the sender is told by ICMP.",
        Rejected = "rejected": "The route is of the kind unreachable; the sender is told by ICMP.",
        Prohibited = "prohibited": "The route is of the kind prohibit; the sender is told by ICMP.",
        Unresolved = "unresolved": "The next hop's MAC address isn't known yet; the slow path asks for it.",
        TooBig = "too_big": "Larger than the next port's MTU and not to be fragmented; the sender is told by ICMP.",
        BadOption = "bad_option": "An IPv4 option's length is wrong; the sender is told by ICMP.",
        EgressConnections = "egress_connections": "A new TCP connection of a workload's, above its endpoint's egressMaxConnections; the sender is told by a reset.",
        IngressConnections = "ingress_connections": "A new TCP connection to a workload, above its endpoint's ingressMaxConnections; the sender is told by a reset.",
        Denied = "denied": "Policy denies it, and nftablesFilterDenyAction is Reject; the sender is told by ICMP.",
        BeyondScope = "beyond_scope": "From a link-local address to one that isn't; the sender is told by ICMP.",
        Dhcp = "dhcp": "A DHCP request of an OpenStack instance's; handed to the host's kernel as received on that interface.",
    }
}

reasons! {
    /// Why a packet is lost.
    DropReason {
        TooShort = "too_short": "Shorter than an Ethernet header.",
        VlanTruncated = "vlan_truncated": "The frame ends inside a VLAN tag.",
        ArpMalformed = "arp_malformed": "An ARP packet that is too short or isn't about IPv4 over Ethernet.",
        Ipv4HeaderTruncated = "ipv4_header_truncated": "Shorter than an IPv4 header.",
        Ipv4BadVersion = "ipv4_bad_version": "Ethertype IPv4, but the version field isn't 4.",
        Ipv4BadHeaderLength = "ipv4_bad_header_length": "The IPv4 header length is below 20 bytes or beyond the packet.",
        Ipv4BadTotalLength = "ipv4_bad_total_length": "The IPv4 total length is below the header's or beyond the frame.",
        Ipv4BadChecksum = "ipv4_bad_checksum": "The IPv4 header checksum is wrong.",
        Ipv6HeaderTruncated = "ipv6_header_truncated": "Shorter than an IPv6 header.",
        Ipv6BadVersion = "ipv6_bad_version": "Ethertype IPv6, but the version field isn't 6.",
        Ipv6BadPayloadLength = "ipv6_bad_payload_length": "The IPv6 payload length runs beyond the frame.",
        Ipv6BadExtension = "ipv6_bad_extension": "An IPv6 extension header is cut short, or there are too many.",
        L4Truncated = "l4_truncated": "The TCP, UDP or ICMP header is cut short.",
        UnknownEthertype = "unknown_ethertype": "Neither IPv4, IPv6 nor ARP.",
        VlanTagged = "vlan_tagged": "Carries a VLAN tag, and no port here has VLANs.",
        NotReady = "not_ready": "The tables aren't filled yet: the datastore isn't in sync.",
        NotOurs = "not_ours": "The destination MAC address isn't this port's.",
        Multicast = "multicast": "To a multicast destination, which is not forwarded.",
        MartianSource = "martian_source": "From an address that no packet may come from (RFC 1812 §5.3.7).",
        MartianDestination = "martian_destination": "To an address that is never forwarded (RFC 1812 §5.3.7, RFC 4291 §2.5).",
        Broadcast = "broadcast": "To everybody on the link: an Ethernet or IPv4 limited broadcast, DHCP requests among them but under OpenStack; no router forwards it (RFC 1812 §5.3.4).",
        DirectedBroadcast = "directed_broadcast": "To everybody in a network of this router's, which is not forwarded (RFC 2644).",
        LinkLocal = "link_local": "From or to a link-local address, which never leaves its link (RFC 3927 §7, RFC 4291 §2.5.6).",
        UnknownEndpoint = "unknown_endpoint": "From or to a workload interface that no workload endpoint names.",
        SpoofedSource = "spoofed_source": "From a workload, with a source address that isn't the workload's.",
        NoReversePath = "no_reverse_path": "From an uplink, with a source address that no route leads back to, or that is this router's own (RFC 3704, loose or strict).",
        ReversePathElsewhere = "reverse_path_elsewhere": "From an uplink, with a source address that the way back to leaves by another port (RFC 3704 §2.2, strict).",
        EgressPacketRate = "egress_packet_rate": "From a workload, above its endpoint's egress packet rate.",
        EgressBandwidth = "egress_bandwidth": "From a workload, above its endpoint's egress bandwidth or peak rate.",
        IngressPacketRate = "ingress_packet_rate": "To a workload, above its endpoint's ingress packet rate.",
        IngressBandwidth = "ingress_bandwidth": "To a workload, above its endpoint's ingress bandwidth or peak rate.",
        EgressDenied = "egress_denied": "From a workload, and its endpoint's egress policy denies it.",
        IngressDenied = "ingress_denied": "To a workload, and its endpoint's ingress policy denies it.",
        ForwardDenied = "forward_denied": "A host endpoint's policy denies it: of what is forwarded, before translation, or untracked.",
        WorkloadToHost = "workload_to_host": "From a workload to this node itself, which defaultEndpointToHostAction drops.",
        FlowInvalid = "flow_invalid": "From or to a workload that policy is about: belongs to no flow and can begin none, as a reset or an answer that nobody asked for.",
        UnknownTunnelSource = "unknown_tunnel_source": "A tunnel packet for this router from an address that is no known end of the tunnel.",
        UnknownVni = "unknown_vni": "A VXLAN packet for this router with a network identifier that no tunnel end here has.",
        TunnelMalformed = "tunnel_malformed": "A tunnel packet for this router whose headers contradict each other, or without an IP packet inside.",
        TunnelNotOurs = "tunnel_not_ours": "A VXLAN packet for this router with a frame inside whose destination MAC address isn't the tunnel end's.",
        TunnelOwnSource = "tunnel_own_source": "Out of a tunnel, with a source address that is this router's own: only a forger sends that (RFC 1812 §5.3.8).",
        TunnelFragment = "tunnel_fragment": "A fragment of a tunnel packet for this router: they aren't put together, and the sender's MTU should leave room.",
        TunnelNested = "tunnel_nested": "A tunnel packet for this router inside another one: a packet is opened once.",
        TunnelCongested = "tunnel_congested": "Met congestion on its way through a tunnel, and its transport can't be told (RFC 6040).",
        TunnelFromWorkload = "tunnel_from_workload": "A tunnel packet of a workload's own, which FelixConfiguration doesn't allow.",
        TunnelFamily = "tunnel_family": "The next hop is behind an IPIP tunnel, which carries IPv4 only.",
        FlowTableFull = "flow_table_full": "Begins a flow that must be remembered, and the table of flows is full of established ones.",
        NatPortsExhausted = "nat_ports_exhausted": "Must leave under another source, and every port of that address is taken.",
        NatShareExhausted = "nat_share_exhausted": "Must leave under another source, and its workload has as many ports as one address may have (`limits.nat_ports_per_address`).",
        NatInvalid = "nat_invalid": "Must be translated, and belongs to no flow and can begin none: a reset, or an ICMP error about an unknown flow.",
        NatUnsupported = "nat_unsupported": "Must leave under another source, and this node has no address of the family, or only its own and the protocol has no ports.",
        IcmpErrorMalformed = "icmp_error_malformed": "An ICMP error that must be translated, and the packet that it quotes is malformed.",
        FragmentUnknown = "fragment_unknown": "A later fragment that must be translated or that policy is about, and the first one of its datagram hasn't come by or was refused.",
        Blackhole = "blackhole": "The route is a blackhole: an unused address in a block of this node's.",
        NeedsFragmentation = "needs_fragmentation": "Larger than the next port's MTU, and can't be fragmented: no frame is free for the pieces, or none would fit.",
        SourceRouted = "source_routed": "Its sender chose the way: a loose or strict source route (RFC 7126), or routing header type 0 (RFC 5095).",
        PortDown = "port_down": "The port it would leave by is down or gone.",
        TransmitRingFull = "transmit_ring_full": "The port's transmit ring is full.",
        OverFairShare = "over_fair_share": "The port's transmit ring is nearly full, and the port that the packet came by has had its share.",
        HandoffRingFull = "handoff_ring_full": "The ring to the worker that owns the port's queue is full, or the packet too long for it.",
        PuntRingFull = "punt_ring_full": "The slow path is behind: its ring is full.",
    }
}

impl From<PuntReason> for Fate {
    fn from(reason: PuntReason) -> Fate {
        Fate::Punt(reason)
    }
}

impl From<DropReason> for Fate {
    fn from(reason: DropReason) -> Fate {
        Fate::Drop(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_unique_and_fit_prometheus() {
        let labels: Vec<&str> = (PuntReason::ALL.iter().map(|r| r.as_str()))
            .chain(DropReason::ALL.iter().map(|r| r.as_str()))
            .collect();
        assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len());
        assert!(
            labels
                .iter()
                .all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }

    #[test]
    fn an_index_finds_its_reason() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::ALL[reason.index()], *reason);
        }
        for reason in PuntReason::ALL {
            assert_eq!(PuntReason::ALL[reason.index()], *reason);
        }
    }
}
