//! ExaBGP's encoding suite: each message is given to a speaker, and what it then holds is what the suite says.

use std::net::Ipv4Addr;

use bgp::wire::capability::{AddPathMode, Capability, NextHopEncoding};
use bgp::wire::nlri::AfiSafi;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::{Input, Origin, PathStatus, PeerState};
use model::{Family, Prefix};
use serde_json::Value;

use crate::check;
use crate::support::{Bench, IBGP, unhex, update};

/// Rows that end otherwise here, and why.
const OTHERWISE: [(&str, &str); 3] = [
    (
        "conf-generic-attribute#2",
        "an unknown attribute without the Optional bit is well-known: RFC 4271 §6.3 asks for 3/2",
    ),
    ("conf-attributes#2", "255.255.255.255 is no next hop (RFC 4271 §6.3): treated as withdrawn"),
    ("conf-ipself4#0", "127.0.0.1 is no next hop either"),
];

#[test]
fn messages_of_the_wire_suite_are_held_as_the_suite_says() {
    check("bgp_wire.jsonl", |row| {
        if let Some((id, why)) = OTHERWISE.iter().find(|(id, _)| row["id"] == *id) {
            println!("{id}: {why}");
            return otherwise(row);
        }
        let raw = unhex(row["raw"].as_str().unwrap_or_default());
        match row["kind"].as_str() {
            Some("update") => update_row(row, &raw),
            Some("update_body") => update_row(row, &with_header(row)),
            Some("open") => {
                let open = Open::parse(&raw[19..]).map_err(|error| error.to_string())?;
                let mut again = Vec::new();
                open.emit(&mut again);
                // The suite gives each capability a parameter of its own, we put all in one.
                let known = Open::parse(&again[19..]).map_err(|error| error.to_string())?;
                if known == open { Ok(()) } else { Err(format!("{known:?}")) }
            }
            Some("notification") => {
                let mut again = Vec::new();
                Notification::parse(&raw[19..]).ok_or("not read")?.emit(&mut again);
                if again == raw { Ok(()) } else { Err(format!("{again:x?}")) }
            }
            kind => Err(format!("unknown kind {kind:?}")),
        }
    });
}

/// A row whose message lacks its header.
fn with_header(row: &Value) -> Vec<u8> {
    let body = ["raw", "body", "hex"].iter().find_map(|key| row[*key].as_str()).unwrap_or_default();
    let body = unhex(&body.replace(':', ""));
    if body.starts_with(&[0xff; 16]) {
        return body;
    }
    crate::support::message(bgp::wire::MessageType::Update, &body)
}

/// A session within the AS where all that the suite needs was agreed on.
fn session(row: &Value) -> Bench {
    let mut bench = Bench::new();
    let mut config = Bench::config(IBGP);
    (config.add_path, config.v4_over_v6) = (row["add_path"] == true, true);
    bench.give(Input::PutPeer(config));
    let mut open = IBGP.open();
    open.capabilities.push(Capability::ExtendedNextHop(vec![NextHopEncoding::V4_OVER_V6]));
    let send = AddPathMode { receive: false, send: true };
    open.capabilities.push(Capability::AddPath(vec![(AfiSafi::unicast(Family::V4), send)]));
    bench.establish_with(IBGP, &open);
    bench
}

fn update_row(row: &Value, raw: &[u8]) -> Result<(), String> {
    let mut bench = session(row);
    bench.receive(IBGP, raw);
    if bench.state(IBGP) != PeerState::Established {
        return Err(format!("{:?}", bench.notification(IBGP)));
    }
    let said = &row["json"]["neighbor"]["message"]["update"];
    let families = said["announce"].as_object().into_iter().flatten();
    for (family, nexthops) in families.filter(|(family, _)| family.ends_with("unicast")) {
        for (nexthop, nlri) in nexthops.as_object().ok_or("no next hops")? {
            for nlri in nlri.as_array().ok_or("no prefixes")? {
                let text = nlri["nlri"].as_str().ok_or("no prefix")?;
                let prefix: Prefix = text.parse().map_err(|_| format!("{text} is no prefix"))?;
                let path_id = nlri["path-information"].as_str().map_or(Ok(0), |id| {
                    id.parse::<Ipv4Addr>().map(u32::from).map_err(|_| format!("{id} is no identifier"))
                })?;
                let routes = bench.speaker.routes(prefix);
                let route = routes.iter().find(|route| route.path_id == path_id);
                let route = route.ok_or_else(|| format!("{family} {prefix} {path_id} is not held"))?;
                held_as_said(route, nexthop, &said["attribute"])?;
            }
        }
    }
    Ok(())
}

fn held_as_said(route: &PathStatus, nexthop: &str, said: &Value) -> Result<(), String> {
    let got = &route.attributes;
    if got.nexthop().map(|addr| addr.to_string()).as_deref() != Some(nexthop) {
        return Err(format!("next hop {:?}, expected {nexthop}", got.nexthop()));
    }
    let numbers = |name: &str| -> Option<Vec<Vec<u64>>> {
        let list = said[name].as_array()?;
        Some(
            list.iter()
                .map(|item| item.as_array().into_iter().flatten().filter_map(Value::as_u64).collect())
                .collect(),
        )
    };
    let community = |number: u32| vec![u64::from(number >> 16), u64::from(number & 0xffff)];
    let checks = [
        (
            "origin",
            said["origin"].as_str().is_none_or(|origin| {
                origin
                    == match got.origin() {
                        Origin::Igp => "igp",
                        Origin::Egp => "egp",
                        Origin::Incomplete => "incomplete",
                    }
            }),
        ),
        ("LOCAL_PREF", said["local-preference"].as_u64() == got.local_pref().map(u64::from)),
        ("MED", said["med"].as_u64() == got.med().map(u64::from)),
        (
            "communities",
            numbers("community").unwrap_or_default() == got.communities().map(community).collect::<Vec<_>>(),
        ),
        (
            "large communities",
            numbers("large-community").unwrap_or_default()
                == got.large_communities().map(|parts| parts.map(u64::from).to_vec()).collect::<Vec<_>>(),
        ),
        (
            "extended communities",
            said["extended-community"].as_array().is_none_or(|list| {
                let values = got.value(bgp::wire::attributes::code::EXTENDED_COMMUNITIES).unwrap_or_default();
                let values = values.as_chunks::<8>().0.iter().map(|octets| u64::from_be_bytes(*octets));
                list.iter().filter_map(|item| item["value"].as_u64()).eq(values)
            }),
        ),
    ];
    match checks.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(format!("{what} of {got:?}, expected {said}")),
        None => Ok(()),
    }
}

/// What becomes of a row that ends otherwise is what we say it is.
fn otherwise(row: &Value) -> Result<(), String> {
    let mut bench = session(row);
    // Something to withdraw.
    bench.receive(
        IBGP,
        &update(
            &[],
            &unhex("40010100400200400304 0a000003 40050400000064".replace(' ', "").as_str()),
            &unhex("200a000007200a000000"),
        ),
    );
    bench.receive(IBGP, &unhex(row["raw"].as_str().unwrap_or_default()));
    let reset = bench.notification(IBGP).map(|sent| (sent.code, sent.subcode));
    let withdrawn = bench.status(IBGP).errors.treated_as_withdraw == 1 && bench.status(IBGP).v4.received == 1;
    if reset == Some((3, 2)) || withdrawn {
        Ok(())
    } else {
        Err(format!("{reset:?}, {:?}", bench.status(IBGP).v4))
    }
}
