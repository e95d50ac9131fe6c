//! FelixConfiguration (`api/pkg/apis/projectcalico/v3/felixconfig.go`).

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use model::{
    ConntrackTimeouts, DenyAction, EndpointToHost, FailsafePort, Family, FelixConfiguration, InterfaceAddr,
    LogRate, NatOutgoingExclusions, ParseAddrError, Prefix, Protocol, Reporting, Resource, ReversePath,
};

use regex::Regex;

use super::{Identity, Outcome, refuse_unsupported};
use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// Obeyed for all nodes, a configuration for some of them would do what nobody asked for.
const UNSUPPORTED: &[(&str, &str)] = &[("nodeSelector", "spec.nodeSelector")];
/// Longest name of an interface (include/uapi/linux/if.h).
const INTERFACE_MAX: usize = 15;
/// Smallest MTU that IPv4 asks for, and the largest that a port has (RFC 791 §3.2).
const MTU: (i64, i64) = (68, 9216);
/// 24 bits (RFC 7348 §5).
const VNI_MAX: i64 = 0xff_ffff;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    refuse_unsupported(spec, UNSUPPORTED)?;
    let mut left_out = Vec::new();
    let config = FelixConfiguration {
        name: identity.name.clone(),
        ipip_enabled: spec.flag("ipipEnabled")?,
        ipip_mtu: or_nothing(&mut left_out, mtu(spec, "ipipMTU"))?,
        vxlan_enabled: spec.flag("vxlanEnabled")?,
        vxlan_mtu: or_nothing(&mut left_out, mtu(spec, "vxlanMTU"))?,
        vxlan_mtu_v6: or_nothing(&mut left_out, mtu(spec, "vxlanMTUV6"))?,
        vxlan_port: or_nothing(
            &mut left_out,
            spec.field("vxlanPort").map(|field| validate::port(&field)).transpose(),
        )?,
        vxlan_vni: or_nothing(
            &mut left_out,
            spec.field("vxlanVNI").map(|field| field.number(1, VNI_MAX)).transpose(),
        )?,
        allow_ipip_from_workloads: spec.flag("allowIPIPPacketsFromWorkloads")?,
        allow_vxlan_from_workloads: spec.flag("allowVXLANPacketsFromWorkloads")?,
        external_nodes: external_nodes(spec)?,
        workload_source_spoofing: or_nothing(
            &mut left_out,
            word(spec, "workloadSourceSpoofing", &["Disabled", "Any"], &[false, true]),
        )?,
        floating_ips: or_nothing(
            &mut left_out,
            word(spec, "floatingIPs", &["Disabled", "Enabled"], &[false, true]),
        )?,
        nat_outgoing_address: or_nothing(&mut left_out, nat_outgoing_address(spec))?,
        nat_port_range: spec.field("natPortRange").map(|field| port_range(&field)).transpose()?.flatten(),
        nat_outgoing_exclusions: or_nothing(
            &mut left_out,
            word(
                spec,
                "natOutgoingExclusions",
                &["IPPoolsOnly", "IPPoolsAndHostIPs"],
                &[NatOutgoingExclusions::IpPoolsOnly, NatOutgoingExclusions::IpPoolsAndHostIps],
            ),
        )?,
        reverse_path: or_nothing(
            &mut left_out,
            any_case(
                spec,
                "bpfEnforceRPF",
                &["Disabled", "Loose", "Strict"],
                &[ReversePath::Disabled, ReversePath::Loose, ReversePath::Strict],
            ),
        )?,
        conntrack_timeouts: conntrack_timeouts(&spec.object("bpfConntrackTimeouts")?, &mut left_out)?,
        interface_prefixes: interface_prefixes(spec)?,
        interface_exclude: or_nothing(&mut left_out, interface_exclude(spec))?,
        endpoint_to_host: any_case(
            spec,
            "defaultEndpointToHostAction",
            &["Drop", "Accept", "Return"],
            &[EndpointToHost::Drop, EndpointToHost::Accept, EndpointToHost::Return],
        )?,
        failsafe_inbound: failsafe_ports(spec, "failsafeInboundHostPorts")?,
        failsafe_outbound: failsafe_ports(spec, "failsafeOutboundHostPorts")?,
        conntrack_invalid_allowed: spec.flag("disableConntrackInvalidCheck")?,
        deny_action: deny_action(spec)?,
        log_prefix: or_nothing(&mut left_out, log_prefix(spec))?,
        log_rate: or_nothing(&mut left_out, log_rate(spec))?,
        log_burst: or_nothing(
            &mut left_out,
            spec.field("logActionRateLimitBurst").map(|field| field.number(0, 9999)).transpose(),
        )?,
        reporting: Reporting {
            interval: duration(spec, "reportingInterval")?,
            ttl: duration(spec, "reportingTTL")?,
            endpoints: spec.flag("endpointReportingEnabled")?,
            endpoint_delay: duration(spec, "endpointReportingDelay")?,
        },
    };
    Ok(Outcome { left_out, ..Outcome::of(Resource::FelixConfiguration(config)) })
}

/// What was given; nothing where it is no good and Felix runs on with its default (`felix/config/config_params.go`: those
/// without `die-on-fail`). Of a value that isn't of its type, nobody reads the rest.
fn or_nothing<T>(left_out: &mut Vec<Fault>, given: Result<Option<T>, Fault>) -> Result<Option<T>, Fault> {
    match given {
        Err(fault) if !matches!(fault.reason, Reason::WrongType { .. }) => {
            left_out.push(fault);
            Ok(None)
        }
        given => given,
    }
}

fn duration(spec: &Object<'_>, name: &str) -> Result<Option<Duration>, Fault> {
    spec.text(name)?.map(|(field, _)| validate::duration(&field)).transpose()
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

/// A word in whichever case, as Felix takes its actions.
fn any_case<T: Copy>(
    spec: &Object<'_>,
    name: &str,
    words: &'static [&'static str],
    meanings: &[T],
) -> Result<Option<T>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(None) };
    match words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
        Some(place) => Ok(meanings.get(place).copied()),
        None => field.one_of(words, meanings).map(Some),
    }
}

/// Both dataplanes' settings are held to their words; that of nftables is the newer one.
fn deny_action(spec: &Object<'_>) -> Result<Option<DenyAction>, Fault> {
    let read = |name| any_case(spec, name, &["Drop", "Reject"], &[DenyAction::Drop, DenyAction::Reject]);
    let (newer, older) = (read("nftablesFilterDenyAction")?, read("iptablesFilterDenyAction")?);
    Ok(newer.or(older))
}

/// Names' beginnings, joined by commas.
fn interface_prefixes(spec: &Object<'_>) -> Result<Option<Vec<String>>, Fault> {
    let Some((field, text)) = spec.text("interfacePrefix")? else { return Ok(None) };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let good = |prefix: &str| (1..=INTERFACE_MAX).contains(&prefix.len()) && prefix.bytes().all(legal);
    if text.split(',').all(good) {
        return Ok(Some(text.split(',').map(str::to_owned).collect()));
    }
    let expected = "up to 15 letters, digits, '_' and '-', and more of them after commas";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

/// Names, and expressions between slashes, joined by commas (`RegexpPatternListParam` in `felix/config/param_types.go`).
fn interface_exclude(spec: &Object<'_>) -> Result<Option<Vec<String>>, Fault> {
    let Some((field, text)) = spec.text("interfaceExclude")? else { return Ok(None) };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let good = |item: &str| match item.strip_prefix('/').and_then(|item| item.strip_suffix('/')) {
        Some(expression) => Regex::new(expression).is_ok(),
        None => (1..=INTERFACE_MAX).contains(&item.len()) && item.bytes().all(legal),
    };
    let items = || text.split(',').map(str::trim);
    if items().all(good) {
        return Ok(Some(items().map(str::to_owned).collect()));
    }
    let expected =
        "names of interfaces, or regular expressions between slashes, and more of them after commas";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

fn failsafe_ports(spec: &Object<'_>, name: &str) -> Result<Option<Vec<FailsafePort>>, Fault> {
    let Some(list) = spec.field(name) else { return Ok(None) };
    list.items()?.map(|item| failsafe_port(&item.object()?)).collect::<Result<_, _>>().map(Some)
}

/// TCP where no protocol is given, as it was before there was a choice.
fn failsafe_port(port: &Object<'_>) -> Result<FailsafePort, Fault> {
    let protocol = match port.text("protocol")? {
        Some((field, text)) => {
            let protocol = text.parse().ok().filter(|protocol: &Protocol| protocol.has_ports());
            protocol.ok_or_else(|| field.fault(Reason::ProtocolWithoutPorts(text.to_owned())))?
        }
        None => Protocol::TCP,
    };
    Ok(FailsafePort {
        protocol,
        // Unlike elsewhere a zero is legal, and no packet's.
        port: port.required("port")?.number(0, u16::MAX.into())?,
        net: port.text("net")?.map(|(field, _)| field.parse()).transpose()?,
    })
}

fn log_prefix(spec: &Object<'_>) -> Result<Option<String>, Fault> {
    let Some((field, text)) = spec.text("logPrefix")? else { return Ok(None) };
    let legal = |c: char| c.is_ascii_alphanumeric() || "%: /_-".contains(c);
    if text.chars().all(legal) {
        return Ok(Some(text.to_owned()));
    }
    let expected = "letters, digits, blanks and '%', ':', '/', '_', '-'";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

/// `NUMBER/UNIT`.
fn log_rate(spec: &Object<'_>) -> Result<Option<LogRate>, Fault> {
    let Some((field, text)) = spec.text("logActionRateLimit")? else { return Ok(None) };
    let bad = || field.fault(Reason::BadRate(text.to_owned()));
    let (number, unit) = text.split_once('/').ok_or_else(bad)?;
    let seconds = match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return Err(bad()),
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    let packets = number.parse().ok().filter(|packets| digits && *packets <= 9999).ok_or_else(bad)?;
    Ok(Some(LogRate { packets, per: Duration::from_secs(seconds) }))
}

/// Networks of IPv4 that may have host bits, as Calico has it.
fn external_nodes(spec: &Object<'_>) -> Result<Option<Vec<Prefix>>, Fault> {
    let Some(list) = spec.field("externalNodesList") else { return Ok(None) };
    let network = |item: Field<'_>| -> Result<Prefix, Fault> {
        let given: InterfaceAddr = item.parse()?;
        let expected = Family::V4;
        if Family::of(given.addr) != expected {
            return Err(item.fault(Reason::WrongFamily { given: item.text()?.to_owned(), expected }));
        }
        Ok(given.network())
    };
    list.items()?.map(network).collect::<Result<_, _>>().map(Some)
}

fn nat_outgoing_address(spec: &Object<'_>) -> Result<Option<Ipv4Addr>, Fault> {
    let Some((field, text)) = spec.text("natOutgoingAddress")? else { return Ok(None) };
    let bad = |_| field.fault(ParseAddrError { expected: "IPv4 address", given: text.to_owned() });
    text.parse().map(Some).map_err(bad)
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

fn conntrack_timeouts(timeouts: &Object<'_>, left_out: &mut Vec<Fault>) -> Result<ConntrackTimeouts, Fault> {
    let mut timeout = |name| -> Result<Option<Duration>, Fault> {
        match timeouts.text(name)? {
            // What Linux has, which is Felix's way to leave the choice to us.
            Some((_, "Auto")) | None => Ok(None),
            Some((field, _)) => or_nothing(left_out, validate::duration(&field).map(Some)),
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
