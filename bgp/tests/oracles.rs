//! Other people's test cases: what they expect of a message holds for us.

mod support;

use bgp::wire::attributes::code;
use bgp::wire::capability::Capability;
use bgp::wire::nlri::Nlri;
use bgp::wire::open::Open;
use bgp::wire::update::{Update, UpdateContext};
use bgp::{Input, Output, PeerKind, PeerState, Standing};
use model::{Family, Prefix};
use serde_json::Value;
use support::{Actor, Bench, EBGP, IBGP, OBSERVER, oracle, unhex, update};

fn actor(row: &Value) -> Actor {
    match row["peer"].as_str() {
        Some("ibgp") => IBGP,
        _ => EBGP,
    }
}

fn context(actor: Actor) -> UpdateContext {
    let kind = if actor.as_number == 65000 { PeerKind::Ibgp } else { PeerKind::Ebgp };
    UpdateContext::usual(kind)
}

/// Prefixes that an UPDATE announces, if it can be read.
fn announced(message: &[u8], actor: Actor) -> Vec<Prefix> {
    let Some(body) = message.get(19..) else { return Vec::new() };
    let Ok(update) = Update::parse(body, &context(actor)) else { return Vec::new() };
    let nlri = update.announced.into_iter().flatten().flat_map(|announced| announced.nlri);
    nlri.map(|Nlri { prefix, .. }| prefix).collect()
}

/// What became of a message, in the words of the oracle.
fn outcome(row: &Value) -> Result<(), String> {
    let (actor, message) = (actor(row), unhex(row["hex"].as_str().expect("hex")));
    let mut bench = Bench::new();
    if row["phase"] == "opensent" {
        return opening_outcome(row, actor, &message);
    }
    bench.establish(OBSERVER);
    bench.establish(actor);
    let prefixes = announced(&message, actor);
    // Something to withdraw: the same prefixes with sound attributes.
    if row["expect"] == "treat-as-withdraw" {
        let attributes = match actor.as_number {
            65000 => "40010100400200400304 0a000003 40050400000064".replace(' ', ""),
            _ => "40010100 40020602010000fde9 4003040a000002".replace(' ', ""),
        };
        let (v4, v6): (Vec<_>, Vec<_>) = prefixes.iter().partition(|prefix| prefix.family() == Family::V4);
        let mut attributes = unhex(&attributes);
        if !v6.is_empty() {
            let nlri = nlri_of(&v6);
            let reach = unhex("0002011020010db800000000000000000000000100");
            attributes.extend([0x80, code::MP_REACH_NLRI, (reach.len() + nlri.len()) as u8]);
            attributes.extend([reach, nlri].concat());
        }
        bench.receive(actor, &update(&[], &attributes, &nlri_of(&v4)));
        let missing: Vec<_> =
            prefixes.iter().filter(|&&prefix| bench.speaker.routes(prefix).is_empty()).collect();
        if prefixes.is_empty() || !missing.is_empty() {
            return Err(format!("nothing to withdraw: {prefixes:?}, missing {missing:?}"));
        }
        bench.take();
    }
    bench.receive(actor, &message);
    let state = bench.state(actor);
    let routes: Vec<_> = prefixes.iter().flat_map(|&prefix| bench.speaker.routes(prefix)).collect();
    let stands = if state == PeerState::Established {
        Ok(())
    } else {
        Err(format!("{state}: {:?}", bench.notification(actor)))
    };
    let has_routes = if routes.is_empty() { Err("no route".to_owned()) } else { Ok(()) };
    let no_routes = if routes.is_empty() { Ok(()) } else { Err(format!("routes: {routes:?}")) };
    match row["expect"].as_str().expect("expect") {
        "treat-as-withdraw" => stands.and(no_routes),
        "accept" | "accept-or-discard" => stands.and(has_routes),
        "attribute-discard" => {
            stands.and(has_routes)?;
            let discarded = row["attr_type"].as_u64().or(discarded_by(row)).ok_or("which attribute?")?;
            match routes.iter().any(|route| route.attributes.value(discarded as u8).is_some()) {
                true => Err("the attribute is still there".to_owned()),
                false => Ok(()),
            }
        }
        "accept-first" => {
            stands.and(has_routes)?;
            let communities: Vec<_> = routes[0].attributes.communities().collect();
            if communities == [0xfde8_0001] { Ok(()) } else { Err(format!("communities {communities:x?}")) }
        }
        "accept-and-propagate" => {
            stands.and(has_routes)?;
            let unknown =
                routes[0].attributes.iter().find(|attribute| attribute.code >= 200).ok_or("not kept")?;
            let [flags, code] = [unknown.flags | 0x20, unknown.code];
            let wanted = [&[flags, code, unknown.value.len() as u8], unknown.value].concat();
            let told = bench.sent(OBSERVER);
            let passed_on =
                told.iter().any(|(_, body)| body.windows(wanted.len()).any(|window| window == wanted));
            if passed_on { Ok(()) } else { Err("not passed on with the Partial bit".to_owned()) }
        }
        "exclude-route" => {
            stands?;
            let used = routes.iter().any(|route| !matches!(route.standing, Standing::Ineligible(_)));
            let told = bench.out.iter().any(|output| matches!(output, Output::RouteChanged { .. }));
            if used || told { Err("the route is used".to_owned()) } else { Ok(()) }
        }
        "ignore" | "eor" => stands.and(no_routes),
        "ignore-prefix" => stands.and(no_routes),
        "session-reset" => {
            let notification = bench.notification(actor).ok_or("no NOTIFICATION")?;
            let got = [u64::from(notification.code), u64::from(notification.subcode)];
            match row["notification"].as_array() {
                Some(wanted) if wanted.iter().filter_map(Value::as_u64).ne(got) => {
                    Err(format!("NOTIFICATION {got:?}, expected {wanted:?}"))
                }
                _ => Ok(()),
            }
        }
        other => Err(format!("unknown expectation {other}")),
    }
}

/// Rows that do not name the attribute to be discarded.
fn discarded_by(row: &Value) -> Option<u64> {
    let id = row["id"].as_str()?;
    [("localpref", code::LOCAL_PREF), ("originator", code::ORIGINATOR_ID), ("as4path", code::AS4_PATH)]
        .into_iter()
        .find(|(name, _)| id.contains(name))
        .map(|(_, code)| code.into())
}

fn opening_outcome(row: &Value, actor: Actor, open: &[u8]) -> Result<(), String> {
    let mut bench = Bench::new();
    let mut config = Bench::config(actor);
    // The rows' OPENs offer IPv4 only.
    config.families = vec![Family::V4];
    bench.give(Input::PutPeer(config));
    bench.connect(actor);
    bench.receive(actor, open);
    match (row["expect"].as_str(), bench.notification(actor)) {
        (Some("accept"), None) if bench.state(actor) == PeerState::OpenConfirm => Ok(()),
        (Some("session-reset"), Some(notification)) => {
            let got = [u64::from(notification.code), u64::from(notification.subcode)];
            let wanted = row["notification"].as_array().ok_or("no code expected")?;
            if wanted.iter().filter_map(Value::as_u64).eq(got) {
                Ok(())
            } else {
                Err(format!("NOTIFICATION {got:?}, expected {wanted:?}"))
            }
        }
        (_, notification) => Err(format!("{}: {notification:?}", bench.state(actor))),
    }
}

fn nlri_of(prefixes: &[Prefix]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &prefix in prefixes {
        bgp::wire::nlri::emit(&mut bytes, Nlri { path_id: 0, prefix }, false);
    }
    bytes
}

/// Checks every row of a file; those that are not an RFC's word may differ and are only printed.
fn check(name: &str, outcome: impl Fn(&Value) -> Result<(), String>) {
    let mut broken = Vec::new();
    for row in oracle(name) {
        let id = row["id"].as_str().unwrap_or_default().to_owned();
        if let Err(why) = outcome(&row) {
            if row["authority"].as_str().is_none_or(|authority| authority == "rfc") {
                broken.push(format!("{id}: expected {}: {why}", row["expect"]));
            } else {
                println!("{id} ({}): expected {}: {why}", row["authority"], row["expect"]);
            }
        }
    }
    assert!(broken.is_empty(), "{} rows of {name} do not hold:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn malformed_attributes_are_treated_as_rfc_7606_says() {
    check("bgp_malformed_attributes.jsonl", outcome);
}

#[test]
fn malformed_messages_are_treated_as_the_rfcs_say() {
    check("bgp_malformed_messages.jsonl", outcome);
}

#[test]
fn attribute_blocks_are_treated_as_the_rfcs_say() {
    check("bgp_attribute_blocks.jsonl", |row| match row["id"].as_str() {
        // A session type of a draft (draft-uttaro-idr-bgp-oad) that we do not have.
        Some(id) if id.ends_with("-oad") => Ok(()),
        _ => outcome(row),
    });
}

#[test]
fn capabilities_are_read_or_refused() {
    check("bgp_capabilities.jsonl", |row| {
        let bytes = unhex(row["param_hex"].as_str().expect("hex"));
        let fine = match row["what"].as_str() {
            Some("one capability TLV") => Capability::parse_all(&bytes).is_some(),
            Some(what) if what.starts_with("optional-parameters") => {
                let mut open = unhex("04fde9005a0a000002");
                open.push(bytes.len() as u8);
                open.extend(&bytes);
                Open::parse(&open).is_ok()
            }
            // Dynamic capabilities (a draft) are not offered, so such a message is an unknown type.
            _ => return Ok(()),
        };
        let wanted = row["expect"] == "parse-ok";
        if fine == wanted { Ok(()) } else { Err(format!("read: {fine}")) }
    });
}

#[test]
fn lengths_that_crashed_others_do_not_crash_us() {
    for row in oracle("bgp_bad_lengths.jsonl") {
        let bytes = unhex(row["hex"].as_str().expect("hex"));
        for actor in [EBGP, IBGP] {
            for header in [false, true] {
                let mut bench = Bench::new();
                bench.establish(actor);
                let mut bytes = bytes.clone();
                if header && bytes.len() >= 18 {
                    bytes[..16].fill(0xff);
                    let len = bytes.len() as u16;
                    bytes[16..18].copy_from_slice(&len.to_be_bytes());
                }
                bench.receive(actor, &bytes);
                let _ = Update::parse(&bytes, &context(actor));
            }
        }
    }
}

#[path = "oracles/valid_messages.rs"]
mod valid_messages;

#[path = "oracles/wire_suite.rs"]
mod wire_suite;

#[path = "oracles/neighbours.rs"]
mod neighbours;
