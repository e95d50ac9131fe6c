//! The speaker is told every difference, once.

use model::{
    AffinityState, BgpPeer, BlockAffinity, EncapMode, IpPool, Key, Node, PeerNodes, PeerTarget, Resource,
    Update, WorkloadEndpoint,
};

use super::*;
use crate::calico::Calico;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn pool(name: &str, cidr: &str, disable_bgp_export: bool) -> Resource {
    Resource::IpPool(IpPool {
        name: name.to_owned(),
        cidr: prefix(cidr),
        ipip_mode: EncapMode::Never,
        vxlan_mode: EncapMode::Never,
        nat_outgoing: false,
        disabled: false,
        disable_bgp_export,
    })
}

fn peer(name: &str, remote: &str) -> Resource {
    Resource::BgpPeer(BgpPeer {
        name: name.to_owned(),
        nodes: PeerNodes::All,
        target: PeerTarget::Address(remote.parse().unwrap()),
        as_number: Some(AsNumber(65001)),
        filters: Vec::new(),
        local_as_number: None,
        allowed_local_as: 0,
        reachable_by: None,
        reverse_peering: true,
        next_hop_keep: false,
        keep_original_next_hop: false,
        next_hop_self: false,
        bind_to_node_address: true,
        max_restart_time: None,
        keepalive_time: None,
    })
}

fn block(cidr: &str) -> BlockAffinity {
    BlockAffinity { cidr: prefix(cidr), node: "a".to_owned(), state: AffinityState::Confirmed }
}

fn endpoint(addresses: &[&str]) -> Resource {
    Resource::WorkloadEndpoint(WorkloadEndpoint {
        namespace: "default".to_owned(),
        name: "w".to_owned(),
        node: "a".to_owned(),
        interface: "cali1".to_owned(),
        mac: None,
        ip_networks: addresses.iter().map(|address| prefix(address)).collect(),
        ..WorkloadEndpoint::default()
    })
}

/// One node's resources and what its speaker was told.
struct Bench {
    calico: Calico,
    sessions: Sessions,
}

impl Bench {
    /// A node with a block in a pool and one peer, not yet told.
    fn new() -> Bench {
        let mut bench = Bench { calico: Calico::new("a"), sessions: Sessions::default() };
        bench.put(Resource::Node(Node {
            name: "a".to_owned(),
            as_number: None,
            ipv4: Some("10.0.0.1/24".parse().unwrap()),
            ipv6: None,
            ..Node::default()
        }));
        bench.put(pool("pods", "10.65.0.0/16", false));
        bench.put(Resource::BlockAffinity(block("10.65.0.0/26")));
        bench.put(peer("tor", "10.0.0.9:179"));
        bench
    }

    fn put(&mut self, resource: Resource) {
        self.calico.apply(&Update::Put(resource.into()));
    }

    fn remove(&mut self, key: Key) {
        self.calico.apply(&Update::Remove(key));
    }

    fn changes(&mut self) -> Vec<Input<'static>> {
        self.sessions.changes(&self.calico.desired())
    }

    fn tor(&self) -> PeerId {
        self.sessions.at_address("10.0.0.9".parse().unwrap()).unwrap()
    }
}

/// The inputs as text, without the details.
fn told(inputs: &[Input<'_>]) -> Vec<String> {
    let text = |input: &Input<'_>| match input {
        Input::Originate(route) => format!("originate {}", route.prefix),
        Input::Withdraw(prefix) => format!("withdraw {prefix}"),
        Input::PutPeer(config) => format!("put {}", config.address),
        Input::RemovePeer(_) => "remove".to_owned(),
        other => panic!("{other:?}"),
    };
    inputs.iter().map(text).collect()
}

#[test]
fn everything_is_told_once_and_anew_to_a_new_speaker() {
    let mut bench = Bench::new();
    let all = ["originate 10.65.0.0/26", "put 10.0.0.9"];
    assert_eq!(told(&bench.changes()), all);
    let tor = bench.tor();
    assert_eq!(told(&bench.changes()), [""; 0]);
    bench.sessions.forget();
    assert_eq!(told(&bench.changes()), all);
    assert_eq!(bench.tor(), tor, "a peer keeps its number");
}

#[test]
fn own_routes_have_the_local_preference_of_calicos_nodes() {
    let mut bench = Bench::new();
    bench.put(endpoint(&["10.65.7.7/32"]));
    let preferences: Vec<Option<u32>> = bench
        .changes()
        .iter()
        .filter_map(|input| match input {
            Input::Originate(route) => Some(route.local_pref),
            _ => None,
        })
        .collect();
    assert_eq!(preferences, [Some(2_147_482_623); 2]);
}

#[test]
fn a_changed_export_filter_is_told_to_the_peer_and_nothing_else_is() {
    let mut bench = Bench::new();
    bench.changes();
    bench.put(pool("pods", "10.65.0.0/16", true));
    let changes = bench.changes();
    let [Input::PutPeer(config)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(config.id, bench.tor());
    let expected = export_filter(&bench.calico.desired().export);
    assert_eq!(config.export, expected);
    assert!(config.export.rules.iter().any(|rule| rule.action == FilterAction::Reject));
    assert_eq!(told(&bench.changes()), [""; 0]);
}

#[test]
fn a_peer_without_its_resource_is_removed_and_unknown_from_then_on() {
    let mut bench = Bench::new();
    bench.changes();
    let tor = bench.tor();
    bench.remove(Key::BgpPeer("tor".to_owned()));
    let changes = bench.changes();
    assert!(matches!(changes.as_slice(), [Input::RemovePeer(removed)] if *removed == tor), "{changes:?}");
    assert_eq!(bench.sessions.at_address("10.0.0.9".parse().unwrap()), None);
    assert!(bench.sessions.desired(tor).is_none());

    bench.put(peer("tor", "10.0.0.9:179"));
    assert_eq!(told(&bench.changes()), ["put 10.0.0.9"]);
    assert_ne!(bench.tor(), tor, "what is late for the old session doesn't meet the new one");
}

#[test]
fn a_borrowed_address_is_originated_by_itself_and_one_of_an_own_block_is_not() {
    let mut bench = Bench::new();
    bench.changes();
    bench.put(endpoint(&["10.65.0.5/32", "10.65.7.7/32"]));
    assert_eq!(told(&bench.changes()), ["originate 10.65.7.7/32"]);
    bench.put(endpoint(&["10.65.0.5/32"]));
    assert_eq!(told(&bench.changes()), ["withdraw 10.65.7.7/32"]);
}

#[test]
fn addresses_of_a_block_that_goes_are_borrowed_from_then_on() {
    let mut bench = Bench::new();
    bench.put(endpoint(&["10.65.0.5/32"]));
    bench.changes();
    bench.put(Resource::BlockAffinity(BlockAffinity {
        state: AffinityState::PendingDeletion,
        ..block("10.65.0.0/26")
    }));
    let changes = told(&bench.changes());
    assert_eq!(changes[..2], ["withdraw 10.65.0.0/26", "originate 10.65.0.5/32"]);
}
