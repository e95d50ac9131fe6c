//! Our own cases, next to those of others: what the same clauses of the RFCs say of other attributes, lengths and flags.

use serde_json::{Value, json};

use super::outcome;
use crate::support::{Actor, EBGP, IBGP, message, unhex, update};
use bgp::wire::MessageType;

const ORIGIN: &str = "40010100";
const AS_PATH: &str = "40020602010000fde9";
const NEXT_HOP: &str = "4003040a000002";
/// ORIGIN IGP, AS_PATH empty, NEXT_HOP 10.0.0.3, LOCAL_PREF 100.
const INSIDE: &str = "400101004002004003040a00000340050400000064";
/// 192.0.2.0/24.
const NLRI: &str = "18c00002";
/// Of IPv6: next hop 2001:db8::1, 2001:db8:1::/48.
const MP_REACH: &str = "800e1c0002011020010db8000000000000000000000001003020010db80001";

fn row(id: &str, actor: Actor, message: &[u8], expect: &str) -> Value {
    let hex: String = message.iter().map(|octet| format!("{octet:02x}")).collect();
    let peer = if actor.as_number == IBGP.as_number { "ibgp" } else { "ebgp" };
    // A NOTIFICATION stands behind the word; the attribute that is discarded likewise.
    let mut words = expect.split(' ');
    let mut row = json!({"id": id, "peer": peer, "hex": hex, "expect": words.next(), "phase": "established"});
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    match numbers[..] {
        [] => {}
        [attribute] => row["attr_type"] = json!(attribute),
        _ => row["notification"] = json!(numbers),
    }
    row
}

fn check(rows: impl IntoIterator<Item = Value>) {
    let broken: Vec<String> = rows
        .into_iter()
        .filter_map(|row| {
            outcome(&row).err().map(|why| format!("{}: not {}: {why}", row["id"], row["expect"]))
        })
        .collect();
    assert!(broken.is_empty(), "{} cases don't hold:\n{}", broken.len(), broken.join("\n"));
}

fn attributes(hex: &str) -> Vec<u8> {
    unhex(&hex.replace(' ', ""))
}

#[test]
fn what_an_external_peer_adds_or_lacks() {
    let sound = format!("{ORIGIN}{AS_PATH}{NEXT_HOP}");
    let with = |more: &str| format!("{sound}{more}");
    let cases = [
        // RFC 7606 §3 c: Optional and Transitive are as the attribute's definition has them, whichever of them is wrong.
        ("origin, flags 00", format!("00010100{AS_PATH}{NEXT_HOP}"), "treat-as-withdraw"),
        ("origin, flags 80", format!("80010100{AS_PATH}{NEXT_HOP}"), "treat-as-withdraw"),
        ("as_path, flags 80", format!("{ORIGIN}80020602010000fde9{NEXT_HOP}"), "treat-as-withdraw"),
        ("next_hop, flags 00", format!("{ORIGIN}{AS_PATH}0003040a000002"), "treat-as-withdraw"),
        ("med, flags 40", with("40040400000001"), "treat-as-withdraw"),
        ("atomic_aggregate, flags c0", with("c00600"), "treat-as-withdraw"),
        ("aggregator, flags 80", with("8007080000fde90a000002"), "treat-as-withdraw"),
        ("communities, flags 40", with("400804fde80001"), "treat-as-withdraw"),
        ("extended communities, flags 40", with("4010080002fde900000001"), "treat-as-withdraw"),
        ("large communities, flags 40", with("40200c0000fde90000000100000002"), "treat-as-withdraw"),
        ("only to customer, flags 40", with("4023040000fde9"), "treat-as-withdraw"),
        // §3 d: what is missing.
        ("no as_path", format!("{ORIGIN}{NEXT_HOP}"), "treat-as-withdraw"),
        ("nothing at all", String::new(), "treat-as-withdraw"),
        // §3 g: the first counts.
        ("origin twice", with("40010102"), "accept"),
        ("next_hop twice, the second a martian", with("4003047f000001"), "accept"),
        // §4: what goes beyond the end.
        ("two octets of a header", with("c008"), "treat-as-withdraw"),
        ("a value beyond the end", with("c00808fde80001"), "treat-as-withdraw"),
        ("an extended length beyond the end", with("d0080100fde80001"), "treat-as-withdraw"),
        ("an extended length of a short value", with("d0080004fde80001"), "accept"),
        // §7.1, §7.2.
        ("origin of three octets", format!("400103000000{AS_PATH}{NEXT_HOP}"), "treat-as-withdraw"),
        ("origin egp", format!("40010101{AS_PATH}{NEXT_HOP}"), "accept"),
        ("a confederation's sequence", format!("{ORIGIN}40020603010000fde9{NEXT_HOP}"), "treat-as-withdraw"),
        ("a confederation's set", format!("{ORIGIN}40020604010000fde9{NEXT_HOP}"), "treat-as-withdraw"),
        ("a set alone", format!("{ORIGIN}40020601010000fde9{NEXT_HOP}"), "treat-as-withdraw"),
        (
            "five octets after the last segment",
            format!("{ORIGIN}40020b02010000fde90201000000{NEXT_HOP}"),
            "treat-as-withdraw",
        ),
        (
            "an empty segment behind another",
            format!("{ORIGIN}40020802010000fde90200{NEXT_HOP}"),
            "treat-as-withdraw",
        ),
        (
            "as 0 in the middle",
            format!("{ORIGIN}40020e02030000fde9000000000000fdea{NEXT_HOP}"),
            "treat-as-withdraw",
        ),
        ("two sequences", format!("{ORIGIN}40020c02010000fde902010000fdea{NEXT_HOP}"), "accept"),
        ("our own as", format!("{ORIGIN}40020a02020000fde90000fde8{NEXT_HOP}"), "exclude-route"),
        // §7.3, RFC 4271 §6.3.
        ("next_hop of no octets", format!("{ORIGIN}{AS_PATH}400300"), "treat-as-withdraw"),
        (
            "next_hop of 16 octets",
            format!("{ORIGIN}{AS_PATH}40031020010db8000000000000000000000001"),
            "treat-as-withdraw",
        ),
        ("next_hop broadcast", format!("{ORIGIN}{AS_PATH}400304ffffffff"), "treat-as-withdraw"),
        ("next_hop of class e", format!("{ORIGIN}{AS_PATH}400304f0000001"), "treat-as-withdraw"),
        ("next_hop in 0/8", format!("{ORIGIN}{AS_PATH}40030400000001"), "treat-as-withdraw"),
        // §7.5, §7.9, §7.10: not for those outside.
        ("a sound local_pref", with("40050400000064"), "attribute-discard 5"),
        ("an empty local_pref", with("400500"), "attribute-discard 5"),
        ("an originator_id of five octets", with("8009050a00000200"), "attribute-discard 9"),
        ("a sound cluster_list", with("800a040a000002"), "attribute-discard 10"),
        ("a cluster_list of five octets", with("800a050a00000200"), "attribute-discard 10"),
        // §7.6, §7.7.
        ("atomic_aggregate of four octets", with("40060400000000"), "attribute-discard 6"),
        ("aggregator of two-octet ases", with("c00706fde90a000002"), "attribute-discard 7"),
        ("an empty aggregator", with("c00700"), "attribute-discard 7"),
        // §7.8, §7.14, §7.15, RFC 8092 §6, RFC 9234 §6.
        ("communities of 3 octets", with("c00803fde800"), "treat-as-withdraw"),
        ("communities of 6 octets", with("c00806fde80001fde8"), "treat-as-withdraw"),
        ("extended communities of 7 octets", with("c010070002fde9000000"), "treat-as-withdraw"),
        ("large communities of 11 octets", with("c0200b0000fde900000001000000"), "treat-as-withdraw"),
        (
            "large communities of 24 octets",
            with("c020180000fde900000001000000020000fde90000000100000003"),
            "accept",
        ),
        ("an empty only to customer", with("c02300"), "treat-as-withdraw"),
        // RFC 6793 §6, and what a speaker of four-octet ASes doesn't send (§4.1).
        ("as4_path", with("c0110602010000fde9"), "attribute-discard 17"),
        ("as4_aggregator", with("c012080000fde90a000002"), "attribute-discard 18"),
        // RFC 7311 §3.3, RFC 8669 §6.
        ("aigp of a session without it", with("801a0b01000b0000000000000005"), "attribute-discard 26"),
        ("an empty prefix_sid", with("c02800"), "attribute-discard 40"),
        // RFC 4271 §5, §6.3: what nobody knows.
        ("an unknown well-known", with("40fd0100"), "session-reset 3 2"),
        ("an unknown of no flags", with("00fd0100"), "session-reset 3 2"),
        ("an unknown that isn't passed on", with("80fd0100"), "attribute-discard 253"),
        ("an unknown of an extended length", with("d0fd000100"), "accept-and-propagate"),
        ("an unknown that others didn't know either", with("f0fd000100"), "accept-and-propagate"),
        // RFC 4271 §4.3: the lower four bits are ignored, Partial and Extended Length are no matter here.
        ("origin, flags 4f", format!("4f010100{AS_PATH}{NEXT_HOP}"), "accept"),
        ("origin of an extended length", format!("5001000100{AS_PATH}{NEXT_HOP}"), "accept"),
        ("med of an extended length", with("9004000400000001"), "accept"),
        ("communities, flags e0", with("e00804fde80001"), "accept"),
        ("med twice, the second too short", with("80040400000001800403000001"), "accept"),
        // RFC 5701 §3 as RFC 7606 §7.15 has it.
        ("ipv6 extended communities", with(&format!("c01914{}", "00".repeat(20))), "accept"),
        ("two ipv6 extended communities", with(&format!("c01928{}", "00".repeat(40))), "accept"),
        (
            "ipv6 extended communities of 19 octets",
            with(&format!("c01913{}", "00".repeat(19))),
            "treat-as-withdraw",
        ),
        (
            "ipv6 extended communities, flags 80",
            with(&format!("801914{}", "00".repeat(20))),
            "treat-as-withdraw",
        ),
        // RFC 7606 §3 c, of what is passed on without being understood.
        ("pmsi tunnel, flags 40", with("40160900060000000a000002"), "treat-as-withdraw"),
        ("tunnel encapsulation, flags 40", with("40170400070000"), "treat-as-withdraw"),
        ("a sound tunnel encapsulation", with("c0170400070000"), "accept"),
        // RFC 4271 §4.3: a segment holds up to 255.
        (
            "a segment of 255 ases",
            format!("{ORIGIN}500203fe02ff{}{NEXT_HOP}", "0000fde9".repeat(255)),
            "accept",
        ),
        (
            "a segment that says one more than there are",
            format!("{ORIGIN}500203fa02ff{}{NEXT_HOP}", "0000fde9".repeat(254)),
            "treat-as-withdraw",
        ),
    ];
    check(
        cases.iter().map(|(id, hex, expect)| {
            row(id, EBGP, &update(&[], &attributes(hex), &attributes(NLRI)), expect)
        }),
    );
}

#[test]
fn what_an_internal_peer_adds_or_lacks() {
    let cases = [
        ("local_pref, flags c0", format!("{}c0050400000064", &INSIDE[..28]), "treat-as-withdraw"),
        ("local_pref of five octets", format!("{}4005050000006400", &INSIDE[..28]), "treat-as-withdraw"),
        ("originator_id, flags c0", format!("{INSIDE}c009040a000007"), "treat-as-withdraw"),
        ("originator_id of five octets", format!("{INSIDE}8009050a00000700"), "treat-as-withdraw"),
        ("an empty originator_id", format!("{INSIDE}800900"), "treat-as-withdraw"),
        ("cluster_list, flags c0", format!("{INSIDE}c00a040a000007"), "treat-as-withdraw"),
        ("cluster_list of five octets", format!("{INSIDE}800a050a00000700"), "treat-as-withdraw"),
        ("a sound reflection", format!("{INSIDE}8009040a000007800a080a0000070a000008"), "accept"),
        // RFC 4456 §8: our identifier is our cluster's, too.
        ("our own cluster", format!("{INSIDE}8009040a000007800a080a0000070a000001"), "exclude-route"),
        (
            "a confederation's sequence",
            format!("{ORIGIN}40020603010000fde94003040a00000340050400000064"),
            "treat-as-withdraw",
        ),
        ("our own as", format!("{ORIGIN}40020602010000fde84003040a00000340050400000064"), "exclude-route"),
        ("our own next hop", format!("{ORIGIN}4002004003040a00000140050400000064"), "exclude-route"),
    ];
    check(
        cases.iter().map(|(id, hex, expect)| {
            row(id, IBGP, &update(&[], &attributes(hex), &attributes(NLRI)), expect)
        }),
    );
}

#[test]
fn where_the_prefixes_are_wrong() {
    let sound = format!("{ORIGIN}{AS_PATH}{NEXT_HOP}");
    let cases = [
        // RFC 7606 §5.3.
        ("a prefix of 33 bits", "", sound.as_str(), "21c0000200ff", "session-reset 3 10"),
        ("a withdrawn prefix of 33 bits", "21c000020000", "", "", "session-reset 3 10"),
        ("a second prefix cut short", "", &sound, "18c0000220c00003", "session-reset 3 10"),
        ("bits behind the prefix's length", "", &sound, "17c00003", "accept"),
        ("a default route", "", &sound, "00", "accept"),
        // RFC 4271 §6.3: not fit to be forwarded.
        ("loopback", "", &sound, "087f", "ignore-prefix"),
        ("multicast whole", "", &sound, "04e0", "ignore-prefix"),
        ("only withdrawn, of what was never there", "18c00002", "", "", "ignore"),
    ];
    check(cases.map(|(id, withdrawn, hex, nlri, expect)| {
        row(id, EBGP, &update(&attributes(withdrawn), &attributes(hex), &attributes(nlri)), expect)
    }));
}

#[test]
fn where_multiprotocol_attributes_are_wrong() {
    let base = format!("{ORIGIN}{AS_PATH}");
    let cases = [
        // RFC 7606 §7.11, §5.3: which routes are meant can't be known.
        ("sound", format!("{base}{MP_REACH}"), "accept"),
        ("before the others", format!("{MP_REACH}{base}"), "accept"),
        ("twice", format!("{base}{MP_REACH}{MP_REACH}"), "session-reset 3 1"),
        ("a next hop of no octets", format!("{base}800e0c00020100003020010db80001"), "session-reset"),
        (
            "a next hop of 15 octets",
            format!("{base}800e1b0002010f20010db80000000000000000000000003020010db80001"),
            "session-reset",
        ),
        (
            "a link-local address behind",
            format!(
                "{base}800e2c0002012020010db8000000000000000000000001fe800000000000000000000000000001003020010db80001"
            ),
            "accept",
        ),
        (
            "a multicast next hop",
            format!("{base}800e1c00020110ff020000000000000000000000000001003020010db80001"),
            "treat-as-withdraw",
        ),
        (
            "a prefix of 129 bits",
            format!(
                "{base}800e2700020110 20010db8000000000000000000000001 00 81 20010db800010000000000000000000000"
            ),
            "session-reset 3 9",
        ),
        (
            "a prefix cut short",
            format!("{base}800e1a0002011020010db8000000000000000000000001003020010db8"),
            "session-reset 3 9",
        ),
        ("without origin", format!("{AS_PATH}{MP_REACH}"), "treat-as-withdraw"),
        ("without as_path", format!("{ORIGIN}{MP_REACH}"), "treat-as-withdraw"),
        // RFC 4760 §3, RFC 7606 §5.4: families that aren't in use are ignored.
        (
            "of multicast",
            format!("{base}800e1c0002021020010db8000000000000000000000001003020010db80001"),
            "ignore",
        ),
        ("of an unknown family", format!("{base}800e0a0063010400000000001820"), "ignore"),
        ("unreach of two octets", "800f020002".to_owned(), "session-reset 3 9"),
        ("unreach of 129 bits", "800f0500020181 20".to_owned(), "session-reset 3 9"),
        ("the end of ipv6", "800f03000201".to_owned(), "eor"),
        ("unreach of an unknown family", "800f04006301ff".to_owned(), "ignore"),
    ];
    check(cases.iter().map(|(id, hex, expect)| {
        let mut row = row(id, EBGP, &update(&[], &attributes(hex), &[]), expect);
        row["prefix"] = json!("2001:db8:1::/48");
        row
    }));
}

#[test]
fn where_the_frame_is_wrong() {
    let framed = |len: u16, kind: u8, body: &[u8]| {
        let mut bytes = vec![0xff; 16];
        bytes.extend(len.to_be_bytes());
        bytes.push(kind);
        bytes.extend(body);
        bytes
    };
    let mut unmarked = message(MessageType::Keepalive, &[]);
    unmarked[15] = 0xfe;
    let cases = [
        // RFC 4271 §6.1.
        ("a bit of the marker", unmarked, "session-reset 1 1"),
        ("length 18", framed(18, 4, &[]), "session-reset 1 2"),
        ("length 4097", framed(4097, 2, &[0; 23]), "session-reset 1 2"),
        ("a KEEPALIVE of 20", framed(20, 4, &[0]), "session-reset 1 2"),
        ("a NOTIFICATION of 20", framed(20, 3, &[6]), "session-reset 1 2"),
        ("an OPEN of 28", framed(28, 1, &[0; 9]), "session-reset 1 2"),
        ("type 6", framed(19, 6, &[]), "session-reset 1 3"),
        // RFC 4271 §6.6, RFC 6608.
        (
            "an OPEN once more",
            message(MessageType::Open, &unhex("04fde9005a0a00000200")),
            "session-reset 5 3",
        ),
        // RFC 2918 §4: a family that isn't in use.
        ("a refresh of multicast", message(MessageType::RouteRefresh, &[0, 1, 0, 2]), "ignore"),
        // RFC 7313 §5: an unknown subtype.
        ("a refresh of subtype 9", message(MessageType::RouteRefresh, &[0, 1, 9, 1]), "ignore"),
        // RFC 7606 §5.2: nothing to withdraw.
        ("attributes without routes", update(&[], &unhex("40010103"), &[]), "session-reset 3 6"),
        ("sound attributes without routes", update(&[], &unhex(ORIGIN), &[]), "ignore"),
    ];
    check(cases.iter().map(|(id, bytes, expect)| row(id, EBGP, bytes, expect)));
}

#[test]
fn what_an_open_may_say() {
    const FOUR: &str = "41040000fde9";
    const IPV4: &str = "010400010001";
    let parameters = |capabilities: &str| {
        let len = capabilities.len() / 2;
        format!("{:02x}02{len:02x}{capabilities}", len + 2)
    };
    let open = |fixed: &str, parameters: &str| {
        message(MessageType::Open, &attributes(&format!("{fixed}{parameters}")))
    };
    let sound = "04fde9005a0a000002";
    let usual = parameters(&format!("{IPV4}{FOUR}"));
    let with = |more: &str| open(sound, &parameters(&format!("{IPV4}{FOUR}{more}")));
    let cases = [
        ("version 5", open("05fde9005a0a000002", &usual), "session-reset 2 1"),
        ("another as", open("04fdea005a0a000002", &parameters("41040000fdea")), "session-reset 2 2"),
        ("as_trans without its capability", open("045ba0005a0a000002", "00"), "session-reset 2 2"),
        ("as_trans with it", open("045ba0005a0a000002", &usual), "accept"),
        ("a hold time of 1", open("04fde900010a000002", &usual), "session-reset 2 6"),
        ("no hold time", open("04fde900000a000002", &usual), "accept"),
        ("the longest hold time", open("04fde9ffff0a000002", &usual), "accept"),
        // RFC 6286 §2.1: any number but 0.
        ("an identifier that is no unicast address", open("04fde9005ae0000001", &usual), "accept"),
        // RFC 5492: what isn't known is no matter, twice the same neither.
        ("no parameters", open(sound, "00"), "accept"),
        ("a parameter without capabilities", open(sound, "020200"), "accept"),
        ("an unknown capability", with("c8020102"), "accept"),
        ("route refresh twice", with("02000200"), "accept"),
        ("a capability beyond its parameter", with("c80901"), "session-reset 2 0"),
        ("half a capability", with("c8"), "session-reset 2 0"),
        ("authentication, which is no more", open(sound, "0401020000"), "session-reset 2 4"),
        // Lengths of capabilities that we know.
        ("a four-octet as of two octets", open(sound, &parameters("4102fde9")), "session-reset 2 0"),
        ("graceful restart cut short", with("4005807800010101"), "session-reset 2 0"),
        ("add-path of three octets", with("4503000101"), "session-reset 2 0"),
        ("extended next hop of four octets", with("050400010001"), "session-reset 2 0"),
        ("a role of two octets", with("09020000"), "session-reset 2 0"),
        ("long-lived restart of six octets", with("4706000101000000"), "session-reset 2 0"),
        // RFC 9072 §2: the extended form, also where the first length isn't 255.
        (
            "extended parameters cut short",
            open(sound, "ffff0010 02000c 0104000100014104 0000fde9"),
            "session-reset 2 0",
        ),
        ("extended parameters of no length", open(sound, "ffff0000"), "accept"),
        // Capabilities that say nothing of any family, or that we don't have.
        ("long-lived restart of no family", with("4700"), "accept"),
        ("add-path of no family", with("4500"), "accept"),
        ("extended next hop of no family", with("0500"), "accept"),
        ("graceful restart of no family", with("40028000"), "accept"),
        ("graceful restart of an octet", with("400180"), "session-reset 2 0"),
        ("add-path of mode 4", with("450400010104"), "accept"),
        ("a hostname", with("490402616200"), "accept"),
        ("a family that nobody knows", with("010400630001"), "accept"),
        (
            "a four-octet as of eight octets",
            open(sound, &parameters("41080000fde90000fde9")),
            "session-reset 2 0",
        ),
        // RFC 4271 §6.2: parameters that don't fill their length, or not all of the message.
        ("parameters of a length too long", open(sound, "0e020a010400010001410400fde9"), "session-reset 2 0"),
        ("octets behind the parameters", open(sound, &format!("{usual}00")), "session-reset 2 0"),
        ("half a parameter", open(sound, "0102"), "session-reset 2 0"),
        (
            "extended behind another length",
            open(sound, "10ff000f 02000c 0104000100014104 0000fde9"),
            "accept",
        ),
    ];
    check(cases.iter().map(|(id, bytes, expect)| {
        let mut row = row(id, EBGP, bytes, expect);
        row["phase"] = json!("opensent");
        row
    }));
}
