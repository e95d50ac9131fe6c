//! Fields of FelixConfiguration that change nothing here, held to Calico's rules all the same: what calicoctl refuses is
//! refused (markers in `felixconfig.go`, `validateFelixConfigSpec` in `libcalico-go/lib/validator/v3/validator.go`).

use std::net::IpAddr;

use model::{Family, InterfaceAddr, ParseAddrError, PortMatch};
use regex::Regex;

use super::items;
use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// A field's name and the words that it takes.
type Words = (&'static str, &'static [&'static str]);

const ON_OFF: &[&str] = &["Enabled", "Disabled"];
const SEVERITIES: &[&str] = &["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
const ALLOW_ACTIONS: &[&str] = &["Accept", "Return"];

/// In whichever case.
const ANY_CASE: &[Words] = &[
    ("chainInsertMode", &["Insert", "Append"]),
    ("iptablesFilterAllowAction", ALLOW_ACTIONS),
    ("iptablesMangleAllowAction", ALLOW_ACTIONS),
    ("nftablesFilterAllowAction", ALLOW_ACTIONS),
    ("nftablesMangleAllowAction", ALLOW_ACTIONS),
    ("logSeverityFile", SEVERITIES),
    ("logSeverityScreen", SEVERITIES),
    ("logSeveritySys", SEVERITIES),
    ("bpfLogLevel", &["Off", "Info", "Debug"]),
    ("bpfExternalServiceMode", &["Tunnel", "DSR"]),
    ("bpfMapSizeConntrackScaling", &["Disabled", "DoubleIfFull"]),
    ("routeSource", &["WorkloadIPs", "CalicoIPAM"]),
];

/// As they are written here.
const EXACT: &[Words] = &[
    ("iptablesBackend", &["Auto", "Legacy", "NFT"]),
    ("serviceLoopPrevention", &["Drop", "Reject", "Disabled"]),
    ("ipForwarding", ON_OFF),
    ("nftablesMode", &["Disabled", "Enabled", "Auto"]),
    ("bpfConntrackLogLevel", &["Off", "Debug"]),
    ("bpfConntrackMode", &["Auto", "Userspace", "BPFProgram"]),
    ("bpfConnectTimeLoadBalancing", &["TCP", "Enabled", "Disabled"]),
    ("bpfHostNetworkedNATWithoutCTLB", ON_OFF),
    ("bpfRedirectToPeer", &["Enabled", "Disabled", "L2Only"]),
    ("bpfProfiling", ON_OFF),
    ("flowLogsLocalReporter", ON_OFF),
    ("awsSrcDstCheck", &["DoNothing", "Enable", "Disable"]),
    ("windowsManageFirewallRules", ON_OFF),
    ("localSubnetL2Reachability", &["Disabled", "PodsAndLoadBalancers"]),
    ("istioAmbientMode", ON_OFF),
    ("nftablesFlowTableOffload", &["All", "Disabled"]),
    ("bpfAttachType", &["TC", "TCX", "Netkit"]),
    ("bpfJITHardening", &["Auto", "Strict"]),
    ("bpfOverlayHostSourceIP", &["HostAddress", "TunnelAddress"]),
    ("flowLogsPolicyEvaluationMode", &["None", "Continuous"]),
    (
        "prometheusMetricsClientAuth",
        &["RequireAndVerifyClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "NoClientCert"],
    ),
];

/// Whole numbers, from and to.
const NUMBERS: &[(&str, i64, i64)] = &[
    ("debugPort", 0, 65_535),
    ("healthPort", 0, 65_535),
    ("prometheusMetricsPort", 0, 65_535),
    ("bpfMaglevMaxServices", 1, 3_000),
    ("bpfMaglevMaxEndpointsPerService", 1, 3_000),
    ("bpfExtToServiceConnmark", 0, 0xffff_ffff),
    ("bpfMapSizeConntrackCleanupQueue", 1, i64::MAX),
    ("wireguardListeningPort", 1, 65_535),
    ("wireguardListeningPortV6", 1, 65_535),
    ("wireguardRoutingRulePriority", 1, 32_765),
    ("ipv4NormalRoutePriority", 1, PRIORITY_MAX),
    ("ipv4ElevatedRoutePriority", 1, PRIORITY_MAX),
    ("ipv6NormalRoutePriority", 1, PRIORITY_MAX),
    ("ipv6ElevatedRoutePriority", 1, PRIORITY_MAX),
    ("goGCThreshold", -1, i64::MAX),
    ("goMemoryLimitMB", -1, i64::MAX),
    ("goMaxProcs", -1, i64::MAX),
];
/// A metric less than the largest one is left for routes that give way.
const PRIORITY_MAX: i64 = 0x7fff_ffff - 1;

const EXPRESSIONS: &[&str] = &[
    "mtuIfacePattern",
    "bpfDataIfacePattern",
    "bpfL3IfacePattern",
    "bpfDisableGROForIfaces",
    "nftablesFlowTableDataIfacePattern",
    "logDebugFilenameRegex",
];

/// The first rule of Calico's that a field breaks.
pub(super) fn check(spec: &Object<'_>) -> Result<(), Fault> {
    for (name, words) in ANY_CASE {
        if let Some((field, given)) = spec.text(name)?
            && !words.iter().any(|word| word.eq_ignore_ascii_case(given))
        {
            return Err(field.fault(Reason::NotOneOf { allowed: words, given: given.to_owned() }));
        }
    }
    for (name, words) in EXACT {
        if let Some((field, given)) = spec.text(name)?
            && !words.contains(&given)
        {
            return Err(field.fault(Reason::NotOneOf { allowed: words, given: given.to_owned() }));
        }
    }
    for (name, min, max) in NUMBERS {
        spec.field(name).map(|field| field.number::<i64>(*min, *max)).transpose()?;
    }
    for name in EXPRESSIONS {
        if let Some((field, given)) = spec.text(name)?
            && Regex::new(given).is_err()
        {
            return Err(bad(&field, "a regular expression", given));
        }
    }
    addresses(spec)?;
    interfaces(spec)?;
    node_ports(spec)?;
    spec.field("bpfPSNATPorts").map(|field| validate::port_match(&field)).transpose()?;
    spec.field("istioDSCPMark").map(|field| validate::dscp(&field)).transpose()?;
    route_tables(spec)?;
    health_timeouts(spec)?;
    switches(spec, "featureDetectOverride", "(true|false|)")?;
    switches(spec, "featureGates", "[^=]+")?;
    open_stack_region(spec)
}

fn bad(field: &Field<'_>, expected: &'static str, given: &str) -> Fault {
    field.fault(Reason::BadForm { expected, given: given.to_owned() })
}

/// `NAME=VALUE`, and more of them after commas, of which there may be one at the end.
fn switches(spec: &Object<'_>, name: &str, value: &str) -> Result<(), Fault> {
    let Some((field, given)) = spec.text(name)? else { return Ok(()) };
    let item = format!("[A-Za-z0-9_-]+={value}");
    let list = Regex::new(&format!("^({item},)*({item})?$"));
    // What may stand in a value may look like another item, and then has a name that Felix can read.
    let is_read = |item: &str| {
        let names = item.split('=').rev().skip(1);
        item.is_empty()
            || names.into_iter().any(|name| name.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    };
    if list.is_ok_and(|list| list.is_match(given)) && given.split(',').all(is_read) {
        return Ok(());
    }
    Err(bad(&field, "NAME=VALUE, and more of them after commas", given))
}

fn addresses(spec: &Object<'_>) -> Result<(), Fault> {
    let fields = [("deviceRouteSourceAddress", Family::V4), ("deviceRouteSourceAddressIPv6", Family::V6)];
    for (name, expected) in fields {
        let Some((field, text)) = spec.text(name)? else { continue };
        let given = text.to_owned();
        let addr: IpAddr = text
            .parse()
            .map_err(|_| field.fault(ParseAddrError { expected: "IP address", given: given.clone() }))?;
        if Family::of(addr) != expected {
            return Err(field.fault(Reason::WrongFamily { given, expected }));
        }
    }
    for name in ["bpfDSROptoutCIDRs", "bpfExcludeCIDRsFromNAT"] {
        for item in items(spec, name)? {
            item.parse::<InterfaceAddr>()?;
        }
    }
    Ok(())
}

/// Names, and patterns in which `+` stands for any ending.
fn interfaces(spec: &Object<'_>) -> Result<(), Fault> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let is_host = |text: &str| text.bytes().all(|b| legal(b) || matches!(b, b':' | b'+'));
    let pattern = |field: &Field<'_>| {
        let text = field.text()?;
        let good = (1..=15).contains(&text.len()) && is_host(text);
        if good { Ok(()) } else { Err(bad(field, "1 to 15 letters, digits and any of \":._+-\"", text)) }
    };
    if let Some((field, _)) = spec.text("iptablesNATOutgoingInterfaceFilter")? {
        pattern(&field)?;
    }
    if let Some(list) = spec.field("bpfForceTrackPacketsFromIfaces") {
        list.items()?.try_for_each(|item| pattern(&item))?;
    }
    for name in ["wireguardInterfaceName", "wireguardInterfaceNameV6"] {
        if let Some((field, given)) = spec.text(name)?
            && given != "*"
        {
            validate::interface_name(&field)?;
        }
    }
    if let Some((field, given)) = spec.text("prometheusMetricsHost")?
        && (given.len() > 64 || !is_host(given))
    {
        return Err(bad(&field, "a host's name or address", given));
    }
    for (name, filter) in spec.object("bpfLogFilters")?.fields() {
        if name.len() > 15 || !name.bytes().all(legal) {
            return Err(filter.fault(Reason::BadInterface(name.to_owned())));
        }
    }
    Ok(())
}

fn node_ports(spec: &Object<'_>) -> Result<(), Fault> {
    const RANGES_MAX: usize = 7;
    let Some(list) = spec.field("kubeNodePortRanges") else { return Ok(()) };
    validate::at_most(&list, list.items()?.count(), RANGES_MAX, "ranges of ports")?;
    for item in list.items()? {
        if let PortMatch::Named(name) = validate::port_match(&item)? {
            return Err(item.fault(Reason::BadPortRange(name)));
        }
    }
    Ok(())
}

/// Tables of routes by number, from and to.
fn route_tables(spec: &Object<'_>) -> Result<(), Fault> {
    const OLD_MAX: i64 = 250;
    const NUMBER_MAX: i64 = 0xffff_ffff;
    const TABLES_MAX: i64 = 0xffff;
    let range = |range: &Object<'_>, max: i64| {
        let first: i64 = range.required("min")?.number(1, max)?;
        let last: i64 = range.required("max")?.number(first, max)?;
        Ok(last - first + 1)
    };
    let (old, new) = (spec.field("routeTableRange"), spec.field("routeTableRanges"));
    if let Some(old) = &old {
        range(&old.object()?, OLD_MAX)?;
    }
    let Some(new) = new else { return Ok(()) };
    if old.is_some() {
        return Err(new.fault(Reason::OutOfPlace("a configuration with routeTableRange")));
    }
    let mut tables = 0;
    for item in new.items()? {
        tables += range(&item.object()?, NUMBER_MAX)?;
        if tables > TABLES_MAX {
            return Err(new.fault(Reason::OutOfRange { given: tables, min: 0, max: TABLES_MAX }));
        }
    }
    Ok(())
}

fn health_timeouts(spec: &Object<'_>) -> Result<(), Fault> {
    let Some(list) = spec.field("healthTimeoutOverrides") else { return Ok(()) };
    for item in list.items()? {
        let item = item.object()?;
        let (field, name) = item.required_text("name")?;
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' ' | b'-')) {
            return Err(bad(&field, "letters, digits, '_', '-' and blanks", name));
        }
        if let Some(timeout) = item.field("timeout") {
            match timeout.value().content {
                // Go's decoder takes nanoseconds, too.
                Content::Int(_) => drop(timeout.number::<i64>(0, i64::MAX)?),
                _ => drop(validate::duration(&timeout)?),
            }
        }
    }
    Ok(())
}

/// Part of a namespace's name, behind `openstack-region-`.
fn open_stack_region(spec: &Object<'_>) -> Result<(), Fault> {
    const REGION_MAX: usize = 63 - "openstack-region-".len();
    let Some((field, region)) = spec.text("openstackRegion")? else { return Ok(()) };
    validate::at_most(&field, region.len(), REGION_MAX, "characters")?;
    let is_end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = region.as_bytes();
    let good = bytes.iter().all(|b| is_end(b) || *b == b'-')
        && bytes.first().is_some_and(is_end)
        && bytes.last().is_some_and(is_end);
    if good { Ok(()) } else { Err(bad(&field, "a DNS label: a-z, 0-9, and '-' between them", region)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Value;

    fn is_good(spec: serde_json::Value) -> bool {
        check(&Object::top(&Value::of_json(&spec)).unwrap()).is_ok()
    }

    #[test]
    fn words_are_held_to_calicos_spelling_where_calico_does() {
        use serde_json::json;
        assert!(is_good(json!({"logSeverityScreen": "trace", "bpfLogLevel": "", "iptablesBackend": "NFT"})));
        assert!(!is_good(json!({"logSeveritySys": "Critical"})));
        assert!(is_good(json!({"awsSrcDstCheck": "Enable", "windowsManageFirewallRules": "Disabled"})));
        assert!(!is_good(json!({"awsSrcDstCheck": "enable"})));
        assert!(!is_good(json!({"iptablesBackend": "nft"})));
        assert!(!is_good(json!({"serviceLoopPrevention": "Wibbly"})));
    }

    #[test]
    fn numbers_patterns_and_names_have_their_bounds() {
        use serde_json::json;
        assert!(is_good(
            json!({"bpfExtToServiceConnmark": 0xffff_ffff_u32, "wireguardRoutingRulePriority": 99})
        ));
        assert!(!is_good(json!({"bpfExtToServiceConnmark": -1})));
        assert!(!is_good(json!({"wireguardListeningPort": 99_999})));
        assert!(is_good(json!({"mtuIfacePattern": "eth.*", "bpfForceTrackPacketsFromIfaces": ["docker+"]})));
        assert!(!is_good(json!({"mtuIfacePattern": "*"})));
        assert!(!is_good(json!({"bpfForceTrackPacketsFromIfaces": ["cali-123,cali@456"]})));
        assert!(is_good(
            json!({"prometheusMetricsHost": "fe80::ea7a:70fa:cf74:25d5", "openstackRegion": "foo"})
        ));
        assert!(!is_good(json!({"prometheusMetricsHost": "0: 1::1"})));
        assert!(!is_good(
            json!({"openstackRegion": "my-region-has-a-very-long-and-extremely-interesting-name"})
        ));
        assert!(!is_good(json!({"deviceRouteSourceAddress": "1.2.3.4/32"})));
        assert!(!is_good(json!({"deviceRouteSourceAddressIPv6": "1.2.3.4"})));
    }

    #[test]
    fn ranges_are_in_order_and_not_too_many() {
        use serde_json::json;
        assert!(is_good(json!({"routeTableRanges": [{"min": 8, "max": 8}, {"min": 7, "max": 7}]})));
        assert!(!is_good(json!({"routeTableRanges": [{"min": 1, "max": 0x10000}]})));
        assert!(!is_good(json!({"routeTableRange": {"min": 1, "max": 253}})));
        let both =
            json!({"routeTableRange": {"min": 1, "max": 250}, "routeTableRanges": [{"min": 1, "max": 250}]});
        assert!(!is_good(both));
        assert!(is_good(json!({"kubeNodePortRanges": ["3000:4000", 15_000]})));
        assert!(!is_good(
            json!({"kubeNodePortRanges": ["1:2", "3:4", "5:6", "7:8", "9:10", "11:12", "13:14", 15]})
        ));
        assert!(is_good(json!({"healthTimeoutOverrides": [{"name": "Valid", "timeout": "0s"}]})));
        assert!(!is_good(json!({"healthTimeoutOverrides": [{"name": "%", "timeout": "10ns"}]})));
        assert!(!is_good(json!({"healthTimeoutOverrides": [{"name": "Valid", "timeout": "-1ns"}]})));
    }
}
