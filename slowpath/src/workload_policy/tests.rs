//! What packets meet at a port, as resources come and go and as tables are full.

use model::{
    Action, EntityRule, IfIndex, MacAddr, NetworkPolicy, PolicyKey, PolicyKind, PolicyRule, PortId, PortKind,
    Prefix, Profile, Resource, Update, WorkloadEndpoint,
};
use policy::judge::{Packet, Verdict};
use tables::{Endpoint, Limits, PolicyLimits, Port, Reader};

use super::*;

const WEB: PortId = PortId(1);

struct Bench {
    resolver: Resolver,
    policy: WorkloadPolicy,
    writer: Writer,
    reader: Reader,
}

impl Bench {
    fn new(members: usize) -> Bench {
        let policy = PolicyLimits { programs: 8, rules: 64, members, bytes: 1 << 20 };
        let mut writer = Writer::new(Limits {
            ports: 4,
            adjacencies: 4,
            groups: 4,
            routes_v4: 10,
            routes_v6: 10,
            policy,
            readers: 1,
        });
        let mut reader = writer.reader().unwrap();
        reader.go_offline();
        let endpoint = Endpoint { name: "ns/web".to_owned(), addresses: Vec::new(), qos: None };
        let port = Port {
            id: WEB,
            name: "caliweb".to_owned(),
            ifindex: IfIndex(2),
            kind: PortKind::Workload,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            queues: 1,
            endpoint: Some(endpoint),
        };
        writer.put_port(port).unwrap();
        let mut resolver = Resolver::new("here");
        resolver.apply(&Update::InSync);
        Bench { resolver, policy: WorkloadPolicy::default(), writer, reader }
    }

    fn put(&mut self, resource: Resource) {
        self.resolver.apply(&Update::Put(Arc::new(resource)));
    }

    fn come(&mut self) {
        let changes = self.resolver.changes();
        self.policy.come(changes, &self.resolver, &mut self.writer);
        self.writer.publish();
    }

    fn go(&mut self) {
        self.policy.go(&mut self.writer);
        self.writer.publish();
    }

    /// What the port makes of a packet from there; `None` where it isn't asked.
    fn verdict(&mut self, from: &str) -> Option<Verdict> {
        let packet = Packet {
            protocol: 6,
            source: from.parse().unwrap(),
            destination: "10.0.0.1".parse().unwrap(),
            ports: Some((1024, 80)),
            icmp: None,
        };
        let policy = self.reader.snapshot().state.policy.clone();
        self.reader.go_offline();
        let program = policy.of(WEB).ingress?;
        Some(policy.judge(program, &(&packet).into()).verdict)
    }
}

fn endpoint(name: &str, node: &str, role: &str, addr: &str) -> Resource {
    Resource::WorkloadEndpoint(WorkloadEndpoint {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        node: node.to_owned(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        ip_networks: vec![addr.parse::<Prefix>().unwrap()],
        ..WorkloadEndpoint::default()
    })
}

/// Lets clients in.
fn policy() -> Resource {
    let key = PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: None, name: "p".to_owned() };
    let source = EntityRule { selector: Some("role == 'client'".to_owned()), ..EntityRule::default() };
    Resource::NetworkPolicy(NetworkPolicy {
        selector: "role == 'web'".to_owned(),
        applies_to_ingress: true,
        ingress: vec![PolicyRule { source, ..PolicyRule::any(Action::Allow) }],
        ..NetworkPolicy::empty(key)
    })
}

#[test]
fn a_packet_meets_the_policy_of_its_endpoint_as_resources_come_and_go() {
    let mut bench = Bench::new(100);
    assert_eq!(bench.verdict("10.0.0.2"), None);
    bench.put(endpoint("web", "here", "web", "10.0.0.1"));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
    bench.put(policy());
    bench.put(endpoint("one", "there", "client", "10.0.0.2"));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Allow));
    assert_eq!(bench.verdict("10.0.0.3"), Some(Verdict::Deny));
    // A client more is a member more.
    bench.put(endpoint("other", "there", "client", "10.0.0.3"));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.3"), Some(Verdict::Allow));
    bench.resolver.apply(&Update::Remove(Key::WorkloadEndpoint("ns".to_owned(), "one".to_owned())));
    bench.come();
    bench.go();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
}

/// The kernel keeps the rest of a host endpoint's policy.
#[test]
fn a_host_endpoints_port_is_asked_of_what_it_forwards_alone() {
    let mut bench = Bench::new(100);
    let uplink = PortId(2);
    let web = bench.writer.staged().ports.get(WEB).cloned().unwrap();
    let port = Port { id: uplink, name: "eth0".to_owned(), kind: PortKind::Uplink, endpoint: None, ..web };
    bench.writer.put_port(port).unwrap();
    let named = [("eth0".to_owned(), host_name("up"))].into();
    bench.writer.set_host_endpoints(tables::HostEndpoints { named, ..tables::HostEndpoints::default() });
    bench.put(Resource::HostEndpoint(model::HostEndpoint {
        name: "up".to_owned(),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        node: "here".to_owned(),
        interface: model::HostInterface::Named("eth0".to_owned()),
        expected_ips: Vec::new(),
        profiles: Vec::new(),
        ports: Vec::new(),
        dscp: None,
    }));
    bench.put(policy());
    bench.come();
    let programs = |bench: &Bench| bench.writer.staged().policy.of_host(uplink);
    assert_eq!(programs(&bench), tables::PortPolicy::default(), "it isn't about what is forwarded");
    assert_eq!(bench.policy.asked().count(), 0);
    let Resource::NetworkPolicy(policy) = policy() else { unreachable!("it is a policy") };
    bench.put(Resource::NetworkPolicy(NetworkPolicy { apply_on_forward: true, ..policy.clone() }));
    bench.come();
    assert!(programs(&bench).ingress.is_some() && programs(&bench).egress.is_none());
    let asked: Vec<_> = bench.policy.asked().map(|asked| (asked.endpoint, asked.is_ingress)).collect();
    assert_eq!(asked, [("HostEndpoint(up)".to_owned(), true)]);
    let early = NetworkPolicy { apply_on_forward: true, pre_dnat: true, ..policy.clone() };
    bench.put(Resource::NetworkPolicy(early));
    bench.come();
    assert!(programs(&bench).pre_dnat.is_some() && programs(&bench).ingress.is_none());
    let untracked = NetworkPolicy { apply_on_forward: true, do_not_track: true, ..policy };
    bench.put(Resource::NetworkPolicy(untracked));
    bench.come();
    assert!(programs(&bench).untracked.is_some() && programs(&bench).pre_dnat.is_none());
    assert!(bench.writer.staged().policy.has_untracked());
    bench.resolver.apply(&Update::Remove(Key::HostEndpoint("up".to_owned())));
    bench.come();
    bench.go();
    assert_eq!(programs(&bench), tables::PortPolicy::default());
}

#[test]
fn who_is_allowed_everything_is_not_asked() {
    let mut bench = Bench::new(100);
    let Resource::WorkloadEndpoint(web) = endpoint("web", "here", "web", "10.0.0.1") else { panic!() };
    let profiles = vec![Profile::DEFAULT_ALLOW.to_owned()];
    bench.put(Resource::WorkloadEndpoint(WorkloadEndpoint { profiles, ..web }));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), None);
    let asked = |bench: &Bench| -> Vec<_> {
        bench.policy.asked().map(|asked| (asked.endpoint, asked.is_ingress, asked.is_staged)).collect()
    };
    assert_eq!(asked(&bench), []);
    bench.put(policy());
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
    assert_eq!(asked(&bench), [("ns/web".to_owned(), true, false)]);
}

#[test]
fn an_endpoint_that_is_gone_keeps_its_policy_until_its_port_is_in_line() {
    let mut bench = Bench::new(100);
    bench.put(endpoint("web", "here", "web", "10.0.0.1"));
    bench.put(policy());
    bench.come();
    bench.resolver.apply(&Update::Remove(Key::WorkloadEndpoint("ns".to_owned(), "web".to_owned())));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
    bench.go();
    assert_eq!(bench.verdict("10.0.0.2"), None);
    // One that comes back in between stays.
    bench.put(endpoint("web", "here", "web", "10.0.0.1"));
    bench.come();
    bench.resolver.apply(&Update::Remove(Key::WorkloadEndpoint("ns".to_owned(), "web".to_owned())));
    bench.come();
    bench.put(endpoint("web", "here", "web", "10.0.0.1"));
    bench.come();
    bench.go();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
}

#[test]
fn a_set_too_large_for_the_tables_closes_who_asks_by_it_until_it_fits() {
    let mut bench = Bench::new(2);
    bench.put(endpoint("web", "here", "web", "10.0.0.1"));
    bench.put(policy());
    for (name, addr) in [("one", "10.0.0.2"), ("two", "10.0.0.3"), ("three", "10.0.0.4")] {
        bench.put(endpoint(name, "there", "client", addr));
    }
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
    assert_eq!(bench.policy.closed.len(), 1);
    bench.resolver.apply(&Update::Remove(Key::WorkloadEndpoint("ns".to_owned(), "three".to_owned())));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Allow));
    assert!(bench.policy.closed.is_empty() && bench.policy.overflowing.is_empty());
    // One more than there is room for closes it again: nobody is let in by half a set.
    bench.put(endpoint("four", "there", "client", "10.0.0.5"));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
}

#[test]
fn a_policy_too_long_for_the_tables_closes_its_endpoint() {
    let mut bench = Bench::new(100);
    bench.put(endpoint("web", "here", "web", "10.0.0.1"));
    bench.put(policy());
    bench.put(endpoint("one", "there", "client", "10.0.0.2"));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Allow));
    let Resource::NetworkPolicy(mut long) = policy() else { unreachable!("it is a policy") };
    let rule = long.ingress[0].clone();
    long.ingress = vec![rule; 100];
    bench.put(Resource::NetworkPolicy(long));
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Deny));
    bench.put(policy());
    bench.come();
    assert_eq!(bench.verdict("10.0.0.2"), Some(Verdict::Allow));
}
