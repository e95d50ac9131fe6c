//! FelixConfiguration (`api/pkg/apis/projectcalico/v3/felixconfig.go`).

mod settings;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use model::{
    ClusterRoutes, ConntrackTimeouts, DenyAction, EndpointToHost, FailsafePort, Family, FelixConfiguration,
    InterfaceAddr, LogRate, NatOutgoingExclusions, ParseAddrError, Prefix, Protocol, Reporting, Resource,
    ReversePath, Setting,
};

use regex::Regex;

use self::settings::Settings;
use super::{Identity, Outcome};
use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// Longest name of an interface (include/uapi/linux/if.h).
const INTERFACE_MAX: usize = 15;
/// Smallest MTU that IPv4 asks for, and the largest that a port has (RFC 791 §3.2).
const MTU: (i64, i64) = (68, 9216);
/// 24 bits (RFC 7348 §5).
const VNI_MAX: i64 = 0xff_ffff;

/// Fields that change packets under Felix and none here, and what they say then.
const WITHOUT_EFFECT: &[(&str, Says)] = &[
    ("wireguardEnabled", Says::Flag(true)),
    ("wireguardEnabledV6", Says::Flag(true)),
    ("wireguardHostEncryptionEnabled", Says::Flag(true)),
    ("ipv6Support", Says::Flag(false)),
    ("routeSyncDisabled", Says::Flag(true)),
    ("ipForwarding", Says::Word("Disabled")),
    ("localSubnetL2Reachability", Says::Word("PodsAndLoadBalancers")),
    ("routeSource", Says::Word("WorkloadIPs")),
    ("serviceLoopPrevention", Says::Word("Reject")),
    ("istioAmbientMode", Says::Word("Enabled")),
    ("iptablesNATOutgoingInterfaceFilter", Says::Something),
    ("mtuIfacePattern", Says::Something),
    ("deviceRouteSourceAddress", Says::Something),
    ("deviceRouteSourceAddressIPv6", Says::Something),
];

enum Says {
    Flag(bool),
    /// In whichever case.
    Word(&'static str),
    Something,
}

impl Says {
    fn is(&self, content: &Content) -> bool {
        match (self, content) {
            (Says::Flag(flag), Content::Bool(given)) => flag == given,
            (Says::Word(word), Content::Text(given)) => word.eq_ignore_ascii_case(given),
            (Says::Something, Content::Text(given)) => !given.is_empty(),
            _ => false,
        }
    }
}

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let mut given = Settings::new(spec, &identity.annotations)?;
    let config = FelixConfiguration {
        name: identity.name.clone(),
        created: identity.created,
        node_selector: validate::selector(spec, "nodeSelector")?,
        metadata_addr: given.get("metadataAddr", text)?,
        metadata_port: given.get("metadataPort", |spec, name| number(spec, name, 0, u16::MAX.into()))?,
        ipip_enabled: given.get("ipipEnabled", flag)?,
        ipip_mtu: given.get("ipipMTU", mtu)?,
        vxlan_enabled: given.get("vxlanEnabled", flag)?,
        vxlan_mtu: given.get("vxlanMTU", mtu)?,
        vxlan_mtu_v6: given.get("vxlanMTUV6", mtu)?,
        vxlan_port: given.get("vxlanPort", |spec, name| number(spec, name, 1, u16::MAX.into()))?,
        vxlan_vni: given.get("vxlanVNI", |spec, name| number(spec, name, 1, VNI_MAX))?,
        cluster_routes: given.get("programClusterRoutes", |spec, name| {
            word(spec, name, &ClusterRoutes::WORDS, &ClusterRoutes::MEANINGS)
        })?,
        allow_ipip_from_workloads: given.get("allowIPIPPacketsFromWorkloads", flag)?,
        allow_vxlan_from_workloads: given.get("allowVXLANPacketsFromWorkloads", flag)?,
        external_nodes: given.get("externalNodesList", external_nodes)?,
        workload_source_spoofing: given.get("workloadSourceSpoofing", |spec, name| {
            word(spec, name, &["Disabled", "Any"], &[false, true])
        })?,
        floating_ips: given
            .get("floatingIPs", |spec, name| word(spec, name, &["Disabled", "Enabled"], &[false, true]))?,
        nat_outgoing_address: given.get("natOutgoingAddress", nat_outgoing_address)?,
        nat_port_range: given.get("natPortRange", port_range)?,
        nat_outgoing_exclusions: given.get("natOutgoingExclusions", |spec, name| {
            let meanings = [NatOutgoingExclusions::IpPoolsOnly, NatOutgoingExclusions::IpPoolsAndHostIps];
            word(spec, name, &["IPPoolsOnly", "IPPoolsAndHostIPs"], &meanings)
        })?,
        reverse_path: given.get("bpfEnforceRPF", |spec, name| {
            let meanings = [ReversePath::Disabled, ReversePath::Loose, ReversePath::Strict];
            word(spec, name, &["Disabled", "Loose", "Strict"], &meanings)
        })?,
        conntrack_timeouts: conntrack_timeouts(&mut given)?,
        interface_prefixes: given.get("interfacePrefix", interface_prefixes)?,
        interface_exclude: given.get("interfaceExclude", interface_exclude)?,
        endpoint_to_host: given.get("defaultEndpointToHostAction", |spec, name| {
            let meanings = [EndpointToHost::Drop, EndpointToHost::Accept, EndpointToHost::Return];
            word(spec, name, &["Drop", "Accept", "Return"], &meanings)
        })?,
        failsafe_inbound: given.get("failsafeInboundHostPorts", failsafe_ports)?,
        failsafe_outbound: given.get("failsafeOutboundHostPorts", failsafe_ports)?,
        conntrack_invalid_allowed: given.get("disableConntrackInvalidCheck", flag)?,
        deny_action: {
            // Both dataplanes' settings are held to their words; that of nftables is the newer one.
            let newer = given.get("nftablesFilterDenyAction", deny_action)?;
            newer.or(given.get("iptablesFilterDenyAction", deny_action)?)
        },
        log_prefix: given.get("logPrefix", log_prefix)?,
        log_rate: given.get("logActionRateLimit", log_rate)?,
        log_burst: given.get("logActionRateLimitBurst", |spec, name| number(spec, name, 0, 9999))?,
        reporting: Reporting {
            interval: given.get("reportingInterval", duration)?,
            ttl: given.get("reportingTTL", duration)?,
            endpoints: given.get("endpointReportingEnabled", flag)?,
            endpoint_delay: given.get("endpointReportingDelay", duration)?,
        },
    };
    let Settings { left_out, mut unused, .. } = given;
    let field =
        |(name, says): &(&str, Says)| spec.field(name).filter(|field| says.is(&field.value().content));
    let without_effect = WITHOUT_EFFECT.iter().filter_map(field);
    let says_whom_it_is_for = identity.name == "default" || identity.name.starts_with("node.");
    let selector = spec.field("nodeSelector").filter(|field| says_whom_it_is_for && !field.is_empty());
    let without_effect = without_effect.chain(selector);
    unused.extend(without_effect.map(|field| (field.path().to_owned(), field.position())));
    Ok(Outcome { left_out, unused, ..Outcome::of(Resource::FelixConfiguration(config)) })
}

fn flag(spec: &Object<'_>, name: &str) -> Result<Setting<bool>, Fault> {
    spec.flag(name).map(Setting::from)
}

/// A text that "none" empties.
fn text(spec: &Object<'_>, name: &str) -> Result<Setting<String>, Fault> {
    let given = spec.text(name)?.map(|(_, text)| if is_none(text) { String::new() } else { text.to_owned() });
    Ok(Setting::from(given))
}

fn number<T: TryFrom<i64>>(spec: &Object<'_>, name: &str, min: i64, max: i64) -> Result<Setting<T>, Fault> {
    spec.field(name).map(|field| field.number(min, max)).transpose().map(Setting::from)
}

fn duration(spec: &Object<'_>, name: &str) -> Result<Setting<Duration>, Fault> {
    spec.text(name)?.map(|(field, _)| validate::duration(&field)).transpose().map(Setting::from)
}

/// A zero is Calico's word for "work it out".
fn mtu(spec: &Object<'_>, name: &str) -> Result<Setting<u16>, Fault> {
    match spec.field(name) {
        Some(field) if field.value().content == Content::Int(0) => Ok(Setting::Standard),
        _ => number(spec, name, MTU.0, MTU.1),
    }
}

/// A word in whichever case, as Felix takes its actions.
fn word<T: Copy>(
    spec: &Object<'_>,
    name: &str,
    words: &'static [&'static str],
    meanings: &[T],
) -> Result<Setting<T>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(Setting::Absent) };
    let place = words.iter().position(|word| word.eq_ignore_ascii_case(text));
    match place.and_then(|place| meanings.get(place)) {
        Some(meaning) => Ok(Setting::Given(*meaning)),
        None => field.one_of(words, meanings).map(Setting::Given),
    }
}

fn deny_action(spec: &Object<'_>, name: &str) -> Result<Setting<DenyAction>, Fault> {
    word(spec, name, &["Drop", "Reject"], &[DenyAction::Drop, DenyAction::Reject])
}

/// Names' beginnings, joined by commas.
fn interface_prefixes(spec: &Object<'_>, name: &str) -> Result<Setting<Vec<String>>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(Setting::Absent) };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let good = |prefix: &str| (1..=INTERFACE_MAX).contains(&prefix.len()) && prefix.bytes().all(legal);
    if text.split(',').all(good) {
        return Ok(Setting::Given(text.split(',').map(str::to_owned).collect()));
    }
    let expected = "up to 15 letters, digits, '_' and '-', and more of them after commas";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

/// Names, and expressions between slashes, joined by commas (`RegexpPatternListParam` in `felix/config/param_types.go`).
fn interface_exclude(spec: &Object<'_>, name: &str) -> Result<Setting<Vec<String>>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(Setting::Absent) };
    if is_none(text) {
        return Ok(Setting::Given(Vec::new()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let good = |item: &str| match item.strip_prefix('/').and_then(|item| item.strip_suffix('/')) {
        Some(expression) => Regex::new(expression).is_ok(),
        None => (1..=INTERFACE_MAX).contains(&item.len()) && item.bytes().all(legal),
    };
    let items = || text.split(',').map(str::trim);
    if items().all(good) {
        return Ok(Setting::Given(items().map(str::to_owned).collect()));
    }
    let expected =
        "names of interfaces, or regular expressions between slashes, and more of them after commas";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

fn failsafe_ports(spec: &Object<'_>, name: &str) -> Result<Setting<Vec<FailsafePort>>, Fault> {
    let Some(list) = spec.field(name) else { return Ok(Setting::Absent) };
    list.items()?.map(|item| failsafe_port(&item.object()?)).collect::<Result<_, _>>().map(Setting::Given)
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

fn log_prefix(spec: &Object<'_>, name: &str) -> Result<Setting<String>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(Setting::Absent) };
    if is_none(text) {
        return Ok(Setting::Given(String::new()));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "%: /_-".contains(c);
    if text.chars().all(legal) {
        return Ok(Setting::Given(text.to_owned()));
    }
    let expected = "letters, digits, blanks and '%', ':', '/', '_', '-'";
    Err(field.fault(Reason::BadForm { expected, given: text.to_owned() }))
}

/// `NUMBER/UNIT`.
fn log_rate(spec: &Object<'_>, name: &str) -> Result<Setting<LogRate>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(Setting::Absent) };
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
    Ok(Setting::Given(LogRate { packets, per: Duration::from_secs(seconds) }))
}

/// Networks of IPv4 that may have host bits, as Calico has it.
fn external_nodes(spec: &Object<'_>, name: &str) -> Result<Setting<Vec<Prefix>>, Fault> {
    let Some(list) = spec.field(name) else { return Ok(Setting::Absent) };
    let network = |item: Field<'_>| -> Result<Prefix, Fault> {
        let given: InterfaceAddr = item.parse()?;
        let expected = Family::V4;
        if Family::of(given.addr) != expected {
            return Err(item.fault(Reason::WrongFamily { given: item.text()?.to_owned(), expected }));
        }
        Ok(given.network())
    };
    list.items()?.map(network).collect::<Result<_, _>>().map(Setting::Given)
}

fn nat_outgoing_address(spec: &Object<'_>, name: &str) -> Result<Setting<Ipv4Addr>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(Setting::Absent) };
    let bad = |_| field.fault(ParseAddrError { expected: "IPv4 address", given: text.to_owned() });
    text.parse().map(Setting::Given).map_err(bad)
}

/// One port, `FIRST:LAST`, or a zero for "any".
fn port_range(spec: &Object<'_>, name: &str) -> Result<Setting<RangeInclusive<u16>>, Fault> {
    let Some(field) = spec.field(name) else { return Ok(Setting::Absent) };
    if let Content::Int(_) = field.value().content {
        let port: u16 = field.number(0, u16::MAX.into())?;
        return Ok(if port == 0 { Setting::Standard } else { Setting::Given(port..=port) });
    }
    let text = field.text()?;
    let bad = || field.fault(Reason::BadPortRange(text.to_owned()));
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let port = |text: &str| validate::digits::<u16>(text).ok_or_else(bad);
    match (port(first)?, port(last)?) {
        (0, 0) => Ok(Setting::Standard),
        (first, last) if first <= last && first > 0 => Ok(Setting::Given(first..=last)),
        _ => Err(bad()),
    }
}

/// One setting to Felix, of which it leaves out what is no good (`GetTimeouts` in `felix/bpf/conntrack/timeouts`).
fn conntrack_timeouts(given: &mut Settings<'_>) -> Result<Setting<ConntrackTimeouts>, Fault> {
    let bad = RefCell::new(Vec::new());
    let timeouts = given.get("bpfConntrackTimeouts", |spec, name| {
        let timeouts = spec.object(name)?;
        let timeout = |name| -> Result<Option<Duration>, Fault> {
            match timeouts.text(name)? {
                // What Linux has, which is Felix's way to leave the choice to us.
                Some((_, "Auto")) | None => Ok(None),
                Some((field, _)) => {
                    Ok(validate::duration(&field).map_err(|fault| bad.borrow_mut().push(fault)).ok())
                }
            }
        };
        let given = ConntrackTimeouts {
            creation_grace_period: timeout("creationGracePeriod")?,
            tcp_syn_sent: timeout("tcpSynSent")?,
            tcp_established: timeout("tcpEstablished")?,
            tcp_fins_seen: timeout("tcpFinsSeen")?,
            tcp_reset_seen: timeout("tcpResetSeen")?,
            udp: timeout("udpTimeout")?,
            icmp: timeout("icmpTimeout")?,
            generic: timeout("genericTimeout")?,
        };
        let is_empty = spec.field(name).is_none_or(|field| field.is_empty());
        Ok(if is_empty { Setting::Absent } else { Setting::Given(given) })
    })?;
    given.left_out.extend(bad.into_inner());
    Ok(timeouts)
}

/// Felix's word for nothing at all, where the default is something.
fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none")
}
