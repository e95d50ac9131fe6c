//! Whole messages with their content, spelled out by other decoders.

use bgp::Capability;
use bgp::wire::nlri::{AfiSafi, Nlri};
use bgp::wire::open::Open;
use bgp::wire::route_refresh::RouteRefresh;
use bgp::wire::update::{Update, UpdateContext};
use bgp::{Input, PeerKind};
use model::Prefix;
use serde_json::Value;

use crate::check;
use crate::support::{Bench, IBGP, unhex};

/// Messages whose form is right but which a speaker like ours refuses.
const NOT_FOR_US: [&str; 1] = [
    // An unknown attribute without the Optional bit is well-known by definition: RFC 4271 §6.3 asks for 3/2.
    "exabgp/conf-generic-attribute/54",
];

#[test]
fn valid_messages_are_read_as_others_read_them() {
    check("bgp_valid_messages.jsonl", |row| {
        if row["id"].as_str().is_some_and(|id| NOT_FOR_US.contains(&id)) {
            return Ok(());
        }
        let bytes = unhex(row["hex"].as_str().expect("hex"));
        let (kind, body, expect) = (bytes[18], &bytes[19..], &row["expect"]);
        match (expect["type"].as_str(), kind) {
            (Some("open"), 1) => open(body, expect),
            (Some("update"), 2) => update(body, row, expect),
            (Some("route-refresh"), 5) => {
                let refresh = RouteRefresh::parse(body).ok_or("not read")?;
                same("afi", u64::from(refresh.family.afi), &expect["afi"])?;
                same("safi", u64::from(refresh.family.safi), &expect["safi"])
            }
            (Some("keepalive"), 4) => Ok(()),
            (wanted, kind) => Err(format!("type {kind}, expected {wanted:?}")),
        }
    });
}

fn same(what: &str, got: u64, wanted: &Value) -> Result<(), String> {
    if wanted.as_u64() == Some(got) { Ok(()) } else { Err(format!("{what} {got}, expected {wanted}")) }
}

fn open(body: &[u8], expect: &Value) -> Result<(), String> {
    let open = Open::parse(body).map_err(|notification| notification.to_string())?;
    same("AS", u64::from(open.my_as), &expect["my_as"])?;
    same("hold time", u64::from(open.hold_time), &expect["hold_time"])?;
    if expect["router_id"].as_str() != Some(&open.router_id.to_string()) {
        return Err(format!("identifier {}", open.router_id));
    }
    let wanted = expect["capabilities"].as_array().ok_or("no capabilities")?;
    same("capabilities", open.capabilities.len() as u64, &wanted.len().into())?;
    for (capability, wanted) in open.capabilities.iter().zip(wanted) {
        let mut bytes = Vec::new();
        capability.emit(&mut bytes);
        same("capability", u64::from(bytes[0]), &wanted["code"])?;
        match capability {
            Capability::FourOctetAs(number) => {
                same("AS of the capability", u64::from(*number), &wanted["asn"])?
            }
            Capability::GracefulRestart(restart) => {
                same("restart time", u64::from(restart.restart_time), &wanted["time"])?;
                same("families", restart.families.len() as u64, &families_of(wanted))?;
            }
            Capability::AddPath(families) => same("families", families.len() as u64, &families_of(wanted))?,
            Capability::Other { value, .. } => {
                let wanted = unhex(wanted["raw"].as_str().ok_or("no value")?);
                same("value that differs", u64::from(*value != wanted), &0.into())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn families_of(wanted: &Value) -> Value {
    wanted["families"].as_array().map_or(0, Vec::len).into()
}

/// Prefixes with path identifiers, as the oracle writes them.
fn listed(list: &Value) -> Vec<(u64, Prefix)> {
    let nlri = |item: &Value| {
        let prefix = item["prefix"].as_str().or(item.as_str())?.parse().ok()?;
        Some((item["path_id"].as_u64().unwrap_or(0), prefix))
    };
    list.as_array().map(|items| items.iter().filter_map(nlri).collect()).unwrap_or_default()
}

fn read(nlri: impl Iterator<Item = Nlri>) -> Vec<(u64, Prefix)> {
    nlri.map(|nlri| (u64::from(nlri.path_id), nlri.prefix)).collect()
}

fn update(body: &[u8], row: &Value, expect: &Value) -> Result<(), String> {
    let add_path = |afi| {
        row["addpath"]
            .as_array()
            .is_some_and(|families| families.iter().any(|family| *family == serde_json::json!([afi, 1])))
    };
    let context = UpdateContext {
        four_octet_as: row["asn4"] == true,
        add_path: [add_path(1), add_path(2)],
        v4_over_v6: true,
        ..UpdateContext::usual(PeerKind::Ibgp)
    };
    let update = Update::parse(body, &context).map_err(|notification| notification.to_string())?;
    let attributes = &expect["attrs"];
    let unicast = |mp: &Value| {
        let family = AfiSafi {
            afi: mp["afi"].as_u64().unwrap_or(0) as u16,
            safi: mp["safi"].as_u64().unwrap_or(0) as u8,
        };
        family.family().is_some()
    };
    let lists = [
        ("withdrawn", read(update.withdrawn[0]), listed(&expect["withdrawn"])),
        (
            "announced",
            read(update.announced[0].into_iter().flat_map(|announced| announced.nlri)),
            listed(&expect["nlri"]),
        ),
        (
            "MP withdrawn",
            read(update.withdrawn[1]),
            Some(&attributes["mp_unreach"])
                .filter(|mp| unicast(mp))
                .map(|mp| listed(&mp["nlri"]))
                .unwrap_or_default(),
        ),
        (
            "MP announced",
            read(update.announced[1].into_iter().flat_map(|announced| announced.nlri)),
            Some(&attributes["mp_reach"])
                .filter(|mp| unicast(mp))
                .map(|mp| listed(&mp["nlri"]))
                .unwrap_or_default(),
        ),
    ];
    for (what, got, wanted) in lists {
        if got != wanted {
            return Err(format!("{what} {got:?}, expected {wanted:?}"));
        }
    }
    let reached = update.announced.into_iter().flatten().find(|announced| !announced.nlri.is_empty());
    match (reached, update.error) {
        (Some(announced), None) if context.add_path == [false; 2] && context.four_octet_as => {
            contents(row, announced.nlri, attributes)
        }
        _ => Ok(()),
    }
}

/// What the speaker holds of the route, against the oracle's attributes.
fn contents(row: &Value, mut nlri: bgp::wire::nlri::NlriField<'_>, expect: &Value) -> Result<(), String> {
    let Some(Nlri { prefix, .. }) = nlri.next() else { return Ok(()) };
    let mut bench = Bench::new();
    bench.establish(IBGP);
    bench.give(Input::Received {
        connection: IBGP.connection(),
        bytes: &unhex(row["hex"].as_str().expect("hex")),
    });
    let routes = bench.speaker.routes(prefix);
    // Prefixes that cannot be forwarded to are not held.
    let Some(route) = routes.first() else { return Ok(()) };
    let got = &route.attributes;
    let optional = |what: &str, got: Option<u32>| match expect.get(what) {
        Some(wanted) => same(what, got.map_or(u64::MAX, u64::from), wanted),
        None => Ok(()),
    };
    optional("med", got.med())?;
    optional("local_pref", got.local_pref())?;
    let texts = |what: &str, got: Vec<String>| match expect[what].as_array() {
        Some(wanted) if wanted.iter().filter_map(Value::as_str).ne(got.iter().map(String::as_str)) => {
            Err(format!("{what} {got:?}, expected {wanted:?}"))
        }
        _ => Ok(()),
    };
    texts(
        "communities",
        got.communities().map(|number| format!("{}:{}", number >> 16, number & 0xffff)).collect(),
    )?;
    texts("large_communities", got.large_communities().map(|[a, b, c]| format!("{a}:{b}:{c}")).collect())?;
    texts("cluster_list", got.cluster_list().map(|id| id.to_string()).collect())?;
    let wanted_path: Vec<u64> = expect["as_path"]
        .as_array()
        .map(|segments| {
            segments
                .iter()
                .filter_map(|segment| segment["asns"].as_array())
                .flatten()
                .filter_map(Value::as_u64)
                .collect()
        })
        .unwrap_or_default();
    let path: Vec<u64> = got.as_path().as_numbers().map(u64::from).collect();
    if path == wanted_path { Ok(()) } else { Err(format!("AS_PATH {path:?}, expected {wanted_path:?}")) }
}
