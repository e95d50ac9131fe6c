use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::wire::attributes::{SegmentKind, code, emit, emit_segment, flag};

const RULES: Rules = Rules { max_paths: 8, always_compare_med: false };

/// A path as a test describes it.
#[derive(Clone, Debug)]
struct Described {
    key: Vec<u8>,
    peer: CandidatePeer,
    metric: Option<u32>,
    stale: bool,
    path_id: u32,
}

/// Attributes in the order of codes.
fn key(attributes: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut key = vec![4, 10, 0, 0, 2];
    for (code, value) in attributes {
        emit(&mut key, flag::WELL_KNOWN, *code, value);
    }
    key
}

fn as_path(first: u32, len: usize) -> Vec<u8> {
    let mut path = Vec::new();
    let numbers: Vec<u32> = std::iter::once(first).chain(std::iter::repeat(7)).take(len).collect();
    emit_segment(&mut path, SegmentKind::Sequence, &numbers);
    path
}

/// How each path fares.
fn decide(paths: &[Described], rules: Rules) -> Decision {
    let attributes: Vec<_> = paths.iter().map(|path| Attributes::from_key(&path.key, 0)).collect();
    let candidates: Vec<_> = paths
        .iter()
        .zip(&attributes)
        .map(|(path, attributes)| {
            let metric = path.metric.ok_or(Ineligible::Unreachable)?;
            let (stale, path_id) = (path.stale, path.path_id);
            Ok(Candidate { attributes, rank: Rank::Peers, peer: Some(path.peer), metric, stale, path_id })
        })
        .collect();
    let mut decision = Decision::default();
    decision.run(&candidates, rules);
    decision
}

fn described(row: &Value) -> Described {
    let number = |name: &str| row[name].as_u64().map(|number| number as u32);
    let mut path = as_path(number("as_path_first").unwrap_or(1), number("as_path_len").unwrap_or(1) as usize);
    let kinds = [
        ("AS_CONFED_SEQUENCE of ", SegmentKind::ConfedSequence),
        ("AS_CONFED_SET of ", SegmentKind::ConfedSet),
        ("AS_SET of ", SegmentKind::Set),
    ];
    for (words, kind) in kinds {
        let many = row["note"].as_str().and_then(|note| note.split_once(words)?.1.get(..1)?.parse().ok());
        if let Some(many) = many {
            let numbers: Vec<u32> = (65100..).take(many).collect();
            let mut segment = Vec::new();
            emit_segment(&mut segment, kind, &numbers);
            // A confederation's segments lead, a set closes what was aggregated.
            path = if kind == SegmentKind::Set { [path, segment] } else { [segment, path] }.concat();
        }
    }
    let origin = match row["origin"].as_str() {
        Some("igp") => 0,
        Some("egp") => 1,
        _ => 2,
    };
    let mut attributes = vec![(code::ORIGIN, vec![origin]), (code::AS_PATH, path)];
    let numbers = [("med", code::MULTI_EXIT_DISC), ("local_pref", code::LOCAL_PREF)];
    for (name, code) in numbers {
        attributes.extend(number(name).map(|number| (code, number.to_be_bytes().to_vec())));
    }
    if let Some(originator) = row["originator_id"].as_str() {
        let originator: Ipv4Addr = originator.parse().expect("an identifier");
        attributes.push((code::ORIGINATOR_ID, originator.octets().to_vec()));
    }
    if let Some(len) = number("cluster_list_len") {
        attributes.push((code::CLUSTER_LIST, vec![1; 4 * len as usize]));
    }
    let text = |name: &str| row[name].as_str().expect("a text");
    let reachable = text("nexthop") == "reachable" && row.get("error").is_none();
    Described {
        key: key(&attributes),
        peer: CandidatePeer {
            kind: if text("peer_type") == "ebgp" { PeerKind::Ebgp } else { PeerKind::Ibgp },
            router_id: text("router_id").parse().expect("an identifier"),
            address: text("peer_addr").parse().expect("an address"),
        },
        metric: reachable.then(|| number("igp_metric").unwrap_or(0)),
        stale: false,
        path_id: 0,
    }
}

#[test]
fn the_winner_is_the_one_others_expect() {
    let folder = std::env::var_os("TORTIE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("bgp_bestpath.jsonl")) else {
        println!("skipped: no bgp_bestpath.jsonl in {}", folder.display());
        return;
    };
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line is JSON");
        let always_compare_med = row["config"]["always_compare_med"] == true;
        let rules = Rules { always_compare_med, ..RULES };
        if row.get("a").is_some() {
            let [a, b] = ["a", "b"].map(|name| described(&row[name]));
            let winner = usize::from(row["winner"] == "b");
            assert_eq!(decide(&[a.clone(), b.clone()], rules).chosen[0], winner, "{}", row["id"]);
            assert_eq!(decide(&[b, a], rules).chosen[0], 1 - winner, "{} turned round", row["id"]);
        } else {
            let paths: Vec<_> = row["paths"].as_array().expect("paths").iter().map(described).collect();
            let best = decide(&paths, rules).chosen[0];
            for turn in 0..paths.len() {
                let mut turned = paths.clone();
                turned.rotate_left(turn);
                assert_eq!(
                    (decide(&turned, rules).chosen[0] + turn) % paths.len(),
                    best,
                    "{} turned by {turn}",
                    row["id"]
                );
            }
        }
    }
}

fn simple(router_id: u32, attributes: &[(u8, Vec<u8>)]) -> Described {
    Described {
        key: key(attributes),
        peer: CandidatePeer {
            kind: PeerKind::Ebgp,
            router_id: router_id.into(),
            address: IpAddr::V4(router_id.into()),
        },
        metric: Some(0),
        stale: false,
        path_id: 0,
    }
}

/// Two paths that are alike but for what is given, external ones unless they are `inside`: the first of each pair wins.
#[test]
fn each_step_decides_what_those_before_it_left_open() {
    let alike = |more: Value| {
        let mut row = serde_json::json!({
            "local_pref": 100, "as_path_len": 2, "as_path_first": 1, "origin": "igp", "med": 100,
            "peer_type": "ebgp", "router_id": "0.0.0.2", "peer_addr": "192.0.2.2", "nexthop": "reachable",
        });
        let more = more.as_object().expect("fields").clone();
        row.as_object_mut().expect("fields").extend(more);
        described(&row)
    };
    let inside = |more: Value| {
        let mut path = alike(more);
        path.peer.kind = PeerKind::Ibgp;
        path
    };
    use serde_json::json;
    let cases = [
        (Step::LocalPref, alike(json!({"local_pref": 101})), alike(json!({"as_path_len": 1}))),
        // RFC 4271 §5.1.5: none is what this speaker takes for it, 100.
        (
            Step::LocalPref,
            alike(json!({"local_pref": null})),
            alike(json!({"local_pref": 99, "as_path_len": 1})),
        ),
        (Step::AsPathLength, alike(json!({"origin": "incomplete"})), alike(json!({"as_path_len": 3}))),
        // §9.1.2.2 a: a set counts as one, however many are in it; RFC 5065 §5.3: confederation's not at all.
        (
            Step::Origin,
            alike(json!({"as_path_len": 1, "note": "AS_SET of 5"})),
            alike(json!({"origin": "egp"})),
        ),
        (Step::Origin, alike(json!({"note": "AS_CONFED_SET of 3"})), alike(json!({"origin": "egp"}))),
        (
            Step::Origin,
            alike(json!({"origin": "egp", "med": 900})),
            alike(json!({"origin": "incomplete", "med": 0})),
        ),
        (Step::Med, inside(json!({})), alike(json!({"med": 101}))),
        (Step::Med, inside(json!({"med": null})), alike(json!({"med": 1}))),
        (
            Step::PeerKind,
            alike(json!({"igp_metric": 9, "router_id": "0.0.0.9"})),
            inside(json!({"igp_metric": 1})),
        ),
        (
            Step::Metric,
            alike(json!({"igp_metric": 1, "router_id": "0.0.0.9"})),
            alike(json!({"igp_metric": 2})),
        ),
        (Step::RouterId, alike(json!({"peer_addr": "192.0.2.9"})), alike(json!({"router_id": "0.0.0.3"}))),
        // RFC 4456 §9: who brought it into the AS, not who reflects it.
        (
            Step::RouterId,
            inside(json!({"router_id": "0.0.0.9", "originator_id": "0.0.0.1"})),
            inside(json!({"router_id": "0.0.0.1", "originator_id": "0.0.0.2"})),
        ),
        (
            Step::ClusterList,
            inside(json!({"peer_addr": "192.0.2.9", "originator_id": "0.0.0.2"})),
            inside(json!({"originator_id": "0.0.0.2", "cluster_list_len": 1})),
        ),
        (Step::PeerAddress, alike(json!({})), alike(json!({"peer_addr": "192.0.2.3"}))),
        // As numbers, not as text.
        (
            Step::PeerAddress,
            alike(json!({"peer_addr": "192.0.2.9"})),
            alike(json!({"peer_addr": "192.0.2.10"})),
        ),
    ];
    let at_most_one = Rules { max_paths: 1, ..RULES };
    for (step, better, worse) in cases {
        for (winner, paths) in [(0, [better.clone(), worse.clone()]), (1, [worse, better])] {
            let decision = decide(&paths, at_most_one);
            assert_eq!(decision.chosen, [winner], "{step:?}: {paths:?}");
            assert_eq!(decision.standings[1 - winner], Standing::Lost(step), "{paths:?}");
        }
    }
}

#[test]
fn med_counts_only_among_routes_of_one_neighbouring_as() {
    let path = |id, first, med: u32| {
        simple(id, &[(code::AS_PATH, as_path(first, 1)), (code::MULTI_EXIT_DISC, med.to_be_bytes().to_vec())])
    };
    let decision = decide(&[path(3, 1, 10), path(2, 1, 20), path(1, 2, 30)], RULES);
    assert_eq!(decision.standings, [Standing::Multipath, Standing::Lost(Step::Med), Standing::Best]);
}

#[test]
fn equal_paths_through_different_ases_are_used_together() {
    let path = |id, first| simple(id, &[(code::AS_PATH, as_path(first, 2))]);
    let decision = decide(&[path(2, 1), path(1, 9)], RULES);
    assert_eq!(decision.chosen, [1, 0]);
    assert_eq!(decision.standings, [Standing::Multipath, Standing::Best]);
}

#[test]
fn no_more_paths_are_chosen_than_allowed() {
    let paths: Vec<_> = (1..20).map(|id| simple(id, &[(code::AS_PATH, as_path(1, 1))])).collect();
    let decision = decide(&paths, Rules { max_paths: 3, ..RULES });
    assert_eq!(decision.chosen, [0, 1, 2]);
    assert_eq!(decision.standings[3], Standing::Lost(Step::RouterId));
}

#[test]
fn a_fresh_path_is_announced_before_a_stale_one_but_both_are_used() {
    let mut paths = [1, 2].map(|id| simple(id, &[(code::AS_PATH, as_path(1, 1))]));
    paths[0].stale = true;
    assert_eq!(decide(&paths, RULES).chosen, [1, 0]);
}

proptest! {
    #[test]
    fn the_outcome_does_not_depend_on_the_order_of_paths(
        paths in proptest::collection::vec(
            (1u32..4, 1usize..3, 0u32..3, 0u32..3, any::<bool>(), 0u32..2, 1u32..200), 1..8),
        turn in 0usize..8,
    ) {
        let paths: Vec<_> = paths.into_iter().enumerate().map(
            |(at, (first, len, med, local_pref, internal, metric, id))| {
                let attributes = [
                    (code::AS_PATH, as_path(first, len)),
                    (code::MULTI_EXIT_DISC, med.to_be_bytes().to_vec()),
                    (code::LOCAL_PREF, local_pref.to_be_bytes().to_vec()),
                ];
                let mut path = simple(id * 8 + at as u32, &attributes);
                path.peer.kind = if internal { PeerKind::Ibgp } else { PeerKind::Ebgp };
                path.metric = Some(metric);
                path
            }).collect();
        let mut turned = paths.clone();
        turned.rotate_left(turn % paths.len());
        let names = |paths: &[Described], decision: &Decision| -> Vec<_> {
            decision.chosen.iter().map(|&at| paths[at].peer.router_id).collect()
        };
        prop_assert_eq!(names(&paths, &decide(&paths, RULES)), names(&turned, &decide(&turned, RULES)));
    }
}
