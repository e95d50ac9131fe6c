//! The notations of single values, each refused with the reason that calicoctl would give.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::{AsNumber, Family, InterfaceAddr, ParseAddrError, PortMatch, PortRange, Prefix, Protocol};
use policy::Selector;

use crate::document::Content;
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::schema;

/// BGP's port (RFC 4271 §8.2.1).
const BGP_PORT: u16 = 179;
/// The kernel's IFNAMSIZ without its final zero (include/uapi/linux/if.h).
const INTERFACE_NAME_MAX: usize = 15;
/// Longest DNS subdomain, which is what names of resources are (RFC 1123 §2.1).
const NAME_MAX: usize = 253;

/// A name of a resource, a namespace or a node.
pub(crate) fn name(field: &Field<'_>) -> Result<String, Fault> {
    let name = field.text()?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    if name.len() > NAME_MAX || name.contains(odd) {
        return Err(field.fault(Reason::BadName(name.to_owned())));
    }
    Ok(name.to_owned())
}

/// A network without host bits.
pub(crate) fn masked_prefix(field: &Field<'_>) -> Result<Prefix, Fault> {
    let given: InterfaceAddr = field.parse()?;
    let masked = given.network();
    if masked.addr() != given.addr {
        return Err(field.fault(Reason::NotStrictlyMasked { given: field.text()?.to_owned(), masked }));
    }
    Ok(masked)
}

/// A workload's address: a /32, a /128, or an address without a length.
pub(crate) fn single_address(field: &Field<'_>) -> Result<Prefix, Fault> {
    let prefix: Prefix = field.parse()?;
    if prefix.is_host() { Ok(prefix) } else { Err(field.fault(Reason::NotSingleAddress(prefix))) }
}

/// A node's own address of one family, with the length of its subnet.
pub(crate) fn node_address(field: &Field<'_>, family: Family) -> Result<InterfaceAddr, Fault> {
    let given: InterfaceAddr = field.parse()?;
    if Family::of(given.addr) != family {
        let given = field.text()?.to_owned();
        return Err(field.fault(Reason::WrongFamily { given, expected: family }));
    }
    usable(field, given.addr)?;
    Ok(given)
}

/// A number, or in quotes a number or `HIGH.LOW`.
pub(crate) fn as_number(field: &Field<'_>) -> Result<AsNumber, Fault> {
    match field.value().content {
        Content::Text(_) => field.parse(),
        _ => field.number(0, u32::MAX.into()).map(AsNumber),
    }
}

/// The longest selector that Calico takes, in characters.
const SELECTOR_MAX: usize = 1024;

/// A selector that is not empty, as written.
pub(crate) fn selector(of: &Object<'_>, name: &str) -> Result<Option<String>, Fault> {
    let Some((field, text)) = of.text(name)? else { return Ok(None) };
    parsed_selector(&field)?;
    Ok(Some(text.to_owned()))
}

/// A selector other than of namespaces, in which `global()` has no place.
pub(crate) fn plain_selector(of: &Object<'_>, name: &str) -> Result<Option<String>, Fault> {
    let selector = selector(of, name)?;
    if let Some(text) = &selector
        && text.contains("global(")
    {
        return Err(of.required(name)?.fault(Reason::GlobalSelector));
    }
    Ok(selector)
}

pub(crate) fn parsed_selector(field: &Field<'_>) -> Result<Selector, Fault> {
    at_most(field, field.text()?.chars().count(), SELECTOR_MAX, "characters")?;
    field.parse()
}

/// Refuses what is longer than the limit.
pub(crate) fn at_most(field: &Field<'_>, given: usize, max: usize, unit: &'static str) -> Result<(), Fault> {
    if given > max { Err(field.fault(Reason::TooLong { given, max, unit })) } else { Ok(()) }
}

/// A number from 1 to 255, also in quotes, or a protocol's name in Calico's spelling.
pub(crate) fn protocol(field: &Field<'_>) -> Result<Protocol, Fault> {
    let Content::Text(text) = &field.value().content else { return field.number(1, 255).map(Protocol) };
    let number = text.bytes().all(|b| b.is_ascii_digit());
    let spelled = |protocol: &Protocol| protocol.0 > 0 && (number || protocol.to_string() == *text);
    text.parse().ok().filter(spelled).ok_or_else(|| field.fault(Reason::BadProtocol(text.clone())))
}

/// A protocol that has ports.
pub(crate) fn protocol_with_ports(field: &Field<'_>) -> Result<Protocol, Fault> {
    let protocol = protocol(field)?;
    if protocol.has_ports() {
        Ok(protocol)
    } else {
        Err(field.fault(Reason::ProtocolWithoutPorts(protocol.to_string())))
    }
}

/// A port as rules ask for it: a number, `FIRST:LAST` or a name (`api/pkg/lib/numorstring/port.go`).
pub(crate) fn port_match(field: &Field<'_>) -> Result<PortMatch, Fault> {
    const NAME_MAX: usize = 128;
    let Content::Text(text) = &field.value().content else {
        let port = port(field)?;
        return Ok(PortMatch::Numbers(PortRange { first: port, last: port }));
    };
    let bad = || field.fault(Reason::BadPort(text.clone()));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| digits(text).filter(|port| *port > 0).ok_or_else(bad);
    if is_number(text) {
        let port = number(text)?;
        return Ok(PortMatch::Numbers(PortRange { first: port, last: port }));
    }
    if let Some((first, last)) = text.split_once(':') {
        let range = PortRange { first: number(first)?, last: number(last)? };
        return if range.first <= range.last { Ok(PortMatch::Numbers(range)) } else { Err(bad()) };
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(legal) {
        return Err(bad());
    }
    Ok(PortMatch::Named(text.clone()))
}

/// A number written in digits alone: Go takes no sign.
pub(crate) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A name that an endpoint gives one of its ports (RFC 6335 §5.1, in lower case).
pub(crate) fn port_name(field: &Field<'_>) -> Result<String, Fault> {
    const PORT_NAME_MAX: usize = 15;
    let name = field.text()?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=PORT_NAME_MAX).contains(&name.len())
        && name.bytes().all(legal)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if good { Ok(name.to_owned()) } else { Err(field.fault(Reason::BadPortName(name.to_owned()))) }
}

/// A TCP port.
pub(crate) fn port(field: &Field<'_>) -> Result<u16, Fault> {
    field.number(1, u16::MAX.into())
}

/// A code point of the differentiated services field: a number, or a name (RFC 2474, 2597, 3246, 5865, 8622).
pub(crate) fn dscp(field: &Field<'_>) -> Result<u8, Fault> {
    let Content::Text(text) = &field.value().content else { return field.number(0, 63) };
    let bad = || field.fault(Reason::BadDscp(text.clone()));
    // Names as `numorstring.DSCP` compares them: whatever their case, and with blanks around them.
    let name = text.trim().to_ascii_uppercase();
    let digit = |at: usize, max: u8| {
        let digit = name.as_bytes().get(at)?.checked_sub(b'0')?;
        (digit <= max).then_some(digit)
    };
    match (name.as_str(), name.len()) {
        ("DF", _) => Ok(0),
        ("LE", _) => Ok(1),
        ("VA", _) => Ok(44),
        ("EF", _) => Ok(46),
        (name, 3) if name.starts_with("CS") => digit(2, 7).map(|class| class * 8).ok_or_else(bad),
        (name, 4) if name.starts_with("AF") => {
            let class = digit(2, 4).filter(|class| *class > 0).ok_or_else(bad)?;
            let precedence = digit(3, 3).filter(|precedence| *precedence > 0).ok_or_else(bad)?;
            Ok(class * 8 + precedence * 2)
        }
        _ => digits(text).filter(|dscp| *dscp <= 63).ok_or_else(bad),
    }
}

/// `ip`, `ip:port` or `[v6]:port`. As with Calico the address may be one that no TCP connection can be made to, such as a
/// multicast one; who asks for the session is told.
pub(crate) fn peer_ip(field: &Field<'_>) -> Result<SocketAddr, Fault> {
    let text = field.text()?;
    let bad = || field.fault(Reason::BadPeerIp(text.to_owned()));
    let peer = match text.parse::<IpAddr>() {
        Ok(addr) => SocketAddr::new(addr, BGP_PORT),
        // A scope id names an interface of one host only, so it can't stand in a resource for all.
        Err(_) if text.contains('%') => return Err(bad()),
        Err(_) => text.parse().map_err(|_| bad())?,
    };
    if peer.port() == 0 {
        return Err(bad());
    }
    specified(field, peer.ip())?;
    Ok(peer)
}

/// The address of a router.
pub(crate) fn peer_address(field: &Field<'_>) -> Result<IpAddr, Fault> {
    let text = field.text()?;
    let addr = text
        .parse()
        .map_err(|_| field.fault(ParseAddrError { expected: "IP address", given: text.to_owned() }))?;
    specified(field, addr)?;
    Ok(addr)
}

fn specified(field: &Field<'_>, addr: IpAddr) -> Result<(), Fault> {
    if addr.is_unspecified() { Err(field.fault(Reason::UnusableAddress(addr))) } else { Ok(()) }
}

fn usable(field: &Field<'_>, addr: IpAddr) -> Result<(), Fault> {
    if addr.is_unspecified() || addr.is_multicast() {
        return Err(field.fault(Reason::UnusableAddress(addr)));
    }
    Ok(())
}

/// A name that the kernel takes for an interface, by Calico's narrower rule.
pub(crate) fn interface_name(field: &Field<'_>) -> Result<String, Fault> {
    let name = field.text()?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.len() > INTERFACE_NAME_MAX || !name.bytes().all(legal) || matches!(name, "." | "..") {
        return Err(field.fault(Reason::BadInterface(name.to_owned())));
    }
    Ok(name.to_owned())
}

/// A duration as Go reads it: `90s`, `2m30s`, `1h`, `1.5s`, `0`; never negative.
pub(crate) fn duration(field: &Field<'_>) -> Result<Duration, Fault> {
    let text = field.text()?;
    schema::nanoseconds(text)
        .and_then(|nanoseconds| u64::try_from(nanoseconds).ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| field.fault(Reason::BadDuration(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Value;

    fn check<T>(read: impl Fn(&Field<'_>) -> Result<T, Fault>, text: &str) -> Result<T, Reason> {
        let value = Value {
            content: Content::Map(vec![(
                "x".to_owned(),
                Value { content: Content::Text(text.to_owned()), position: None },
            )]),
            position: None,
        };
        let field = Object::top(&value).unwrap().required("x").unwrap();
        read(&field).map_err(|fault| fault.reason)
    }

    #[test]
    fn peer_addresses_are_read_in_their_three_forms() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:179"),
            ("10.0.0.1:1179", "10.0.0.1:1179"),
            ("fd00::1", "[fd00::1]:179"),
            ("[fd00::1]:1179", "[fd00::1]:1179"),
        ] {
            assert_eq!(check(peer_ip, text), Ok(expected.parse().unwrap()));
        }
    }

    #[test]
    fn other_forms_of_peer_addresses_are_refused() {
        for text in [
            "",
            "tor",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.330:170",
            "[fd00::1]",
            "[]:8552",
            "10.0.0.1/32",
            "fe80::1%eth0",
            "[fe80::1%2]:179",
        ] {
            assert_eq!(check(peer_ip, text), Err(Reason::BadPeerIp(text.to_owned())));
        }
        for text in ["0.0.0.0", "::"] {
            assert!(matches!(check(peer_ip, text), Err(Reason::UnusableAddress(_))), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("2m30s", 150_000),
            ("1h0m0.5s", 3_600_500),
            ("1.5m", 90_000),
            ("+5s", 5_000),
        ] {
            assert_eq!(check(duration, text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "90", "s", "-1s", "1 s", "1d", "1s1", "1..5s", "99999999999999999999999h"] {
            assert_eq!(check(duration, text), Err(Reason::BadDuration(text.to_owned())));
        }
    }

    #[test]
    fn interfaces_have_names_that_the_kernel_takes() {
        assert_eq!(check(interface_name, "Valid_Iface.0-9"), Ok("Valid_Iface.0-9".to_owned()));
        for text in ["Invalid&Intface", "Invalid:Intface", "a/b", "..", "sixteen-letters-"] {
            assert_eq!(check(interface_name, text), Err(Reason::BadInterface(text.to_owned())));
        }
    }

    #[test]
    fn host_bits_in_a_network_are_refused_with_the_network_to_write() {
        let reason = check(masked_prefix, "10.65.0.7/26").unwrap_err();
        assert_eq!(reason.to_string(), "10.65.0.7/26 must be strictly masked: write 10.65.0.0/26");
        assert!(check(masked_prefix, "fd00::/64").is_ok());
    }
}
