//! FelixConfiguration (`api/pkg/apis/projectcalico/v3/felixconfig.go`).

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use model::{
    ConntrackTimeouts, FelixConfiguration, NatOutgoingExclusions, ParseAddrError, Prefix, Resource,
    ReversePath,
};

use super::{Identity, Outcome, refuse_unsupported};
use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// Obeyed for all nodes, a configuration for some of them would do what nobody asked for.
const UNSUPPORTED: &[(&str, &str)] = &[("nodeSelector", "spec.nodeSelector")];
/// Smallest MTU that IPv4 asks for, and the largest that a port has (RFC 791 §3.2).
const MTU: (i64, i64) = (68, 9216);
/// 24 bits (RFC 7348 §5).
const VNI_MAX: i64 = 0xff_ffff;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    refuse_unsupported(spec, UNSUPPORTED)?;
    let config = FelixConfiguration {
        name: identity.name.clone(),
        ipip_enabled: spec.flag("ipipEnabled")?,
        ipip_mtu: mtu(spec, "ipipMTU")?,
        vxlan_enabled: spec.flag("vxlanEnabled")?,
        vxlan_mtu: mtu(spec, "vxlanMTU")?,
        vxlan_mtu_v6: mtu(spec, "vxlanMTUV6")?,
        vxlan_port: spec.field("vxlanPort").map(|field| validate::port(&field)).transpose()?,
        vxlan_vni: spec.field("vxlanVNI").map(|field| field.number(1, VNI_MAX)).transpose()?,
        allow_ipip_from_workloads: spec.flag("allowIPIPPacketsFromWorkloads")?,
        allow_vxlan_from_workloads: spec.flag("allowVXLANPacketsFromWorkloads")?,
        external_nodes: external_nodes(spec)?,
        workload_source_spoofing: word(spec, "workloadSourceSpoofing", &["Disabled", "Any"], &[false, true])?,
        floating_ips: word(spec, "floatingIPs", &["Disabled", "Enabled"], &[false, true])?,
        nat_outgoing_address: spec
            .text("natOutgoingAddress")?
            .map(|(field, text)| ipv4_address(&field, text))
            .transpose()?,
        nat_port_range: spec.field("natPortRange").map(|field| port_range(&field)).transpose()?.flatten(),
        nat_outgoing_exclusions: word(
            spec,
            "natOutgoingExclusions",
            &["IPPoolsOnly", "IPPoolsAndHostIPs"],
            &[NatOutgoingExclusions::IpPoolsOnly, NatOutgoingExclusions::IpPoolsAndHostIps],
        )?,
        reverse_path: word(
            spec,
            "bpfEnforceRPF",
            &["Disabled", "Loose", "Strict"],
            &[ReversePath::Disabled, ReversePath::Loose, ReversePath::Strict],
        )?,
        conntrack_timeouts: conntrack_timeouts(&spec.object("bpfConntrackTimeouts")?)?,
    };
    Ok(Outcome::of(Resource::FelixConfiguration(config)))
}

/// A zero is Calico's word for "work it out".
fn mtu(spec: &Object<'_>, name: &str) -> Result<Option<u16>, Fault> {
    let Some(field) = spec.field(name) else { return Ok(None) };
    match field.value().content {
        Content::Int(0) => Ok(None),
        _ => field.number(MTU.0, MTU.1).map(Some),
    }
}

fn word<T: Copy>(
    spec: &Object<'_>,
    name: &str,
    words: &'static [&'static str],
    meanings: &[T],
) -> Result<Option<T>, Fault> {
    spec.text(name)?.map(|(field, _)| field.one_of(words, meanings)).transpose()
}

fn external_nodes(spec: &Object<'_>) -> Result<Option<Vec<Prefix>>, Fault> {
    let Some(list) = spec.field("externalNodesList") else { return Ok(None) };
    list.items()?.map(|item| item.parse()).collect::<Result<Vec<Prefix>, Fault>>().map(Some)
}

fn ipv4_address(field: &Field<'_>, text: &str) -> Result<Ipv4Addr, Fault> {
    text.parse().map_err(|_| field.fault(ParseAddrError { expected: "IPv4 address", given: text.to_owned() }))
}

/// One port, `FIRST:LAST`, or a zero for "any".
fn port_range(field: &Field<'_>) -> Result<Option<RangeInclusive<u16>>, Fault> {
    if let Content::Int(_) = field.value().content {
        let port: u16 = field.number(0, u16::MAX.into())?;
        return Ok((port != 0).then_some(port..=port));
    }
    let text = field.text()?;
    let bad = || field.fault(Reason::BadPortRange(text.to_owned()));
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().map_err(|_| bad());
    match (port(first)?, port(last)?) {
        (0, 0) => Ok(None),
        (first, last) if first <= last && first > 0 => Ok(Some(first..=last)),
        _ => Err(bad()),
    }
}

fn conntrack_timeouts(timeouts: &Object<'_>) -> Result<ConntrackTimeouts, Fault> {
    let timeout = |name| -> Result<Option<Duration>, Fault> {
        match timeouts.text(name)? {
            // What Linux has, which is Felix's way to leave the choice to us.
            Some((_, "Auto")) | None => Ok(None),
            Some((field, _)) => validate::duration(&field).map(Some),
        }
    };
    Ok(ConntrackTimeouts {
        creation_grace_period: timeout("creationGracePeriod")?,
        tcp_syn_sent: timeout("tcpSynSent")?,
        tcp_established: timeout("tcpEstablished")?,
        tcp_fins_seen: timeout("tcpFinsSeen")?,
        tcp_reset_seen: timeout("tcpResetSeen")?,
        udp: timeout("udpTimeout")?,
        icmp: timeout("icmpTimeout")?,
        generic: timeout("genericTimeout")?,
    })
}
