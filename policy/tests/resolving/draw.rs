//! Resources and packets drawn from numbers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{
    Action, EndpointPort, EntityRule, Family, HostEndpoint, HostInterface, NetworkPolicy, NetworkSet, Order,
    PolicyKey, PolicyKind, PolicyRule, PortMatch, Prefix, Profile, Protocol, Resource, StagedAction, Tier,
    TierDefault, WorkloadEndpoint,
};
use policy::judge::Packet;

use crate::NODE;

const NAMESPACES: [&str; 2] = ["red", "blue"];

/// Choices drawn from numbers that proptest makes, and makes smaller.
pub struct Draw<'a>(pub std::slice::Iter<'a, u8>);

impl Draw<'_> {
    fn below(&mut self, end: u8) -> u8 {
        self.0.next().map_or(0, |number| number % end)
    }

    /// True one time in so many.
    pub fn one_in(&mut self, times: u8) -> bool {
        self.below(times) == times - 1
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u8) as usize].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        self.one_in(2).then(|| self.of(all))
    }

    fn few<T>(&mut self, end: u8, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(end)).map(|_| draw(self)).collect()
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let pairs =
            self.few(3, |draw| (draw.of(&["app", "role"]).to_owned(), draw.of(&["a", "b"]).to_owned()));
        pairs.into_iter().collect()
    }

    fn selector(&mut self) -> String {
        self.of(&[
            "app == 'a'",
            "app == 'b'",
            "has(role)",
            "!has(role)",
            "role != 'a'",
            "app in {'a', 'b'} && role == 'b'",
            "app == 'a' || role == 'a'",
            "all()",
            "given == 'p'",
        ])
        .to_owned()
    }

    fn net(&mut self) -> Prefix {
        let nets = [
            "10.0.0.1/32",
            "10.0.0.2/32",
            "10.0.0.0/30",
            "10.0.0.0/24",
            "0.0.0.0/0",
            "fd00::1/128",
            "fd00::/64",
        ];
        self.of(&nets).parse().unwrap()
    }

    fn host(&mut self) -> IpAddr {
        self.of(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "fd00::1", "fd00::2"]).parse().unwrap()
    }

    fn ports(&mut self) -> Vec<EndpointPort> {
        self.few(3, |draw| EndpointPort {
            name: draw.of(&["http", "dns"]).to_owned(),
            protocol: draw.of(&[Protocol::TCP, Protocol::UDP]),
            port: draw.of(&[80, 81]),
        })
    }

    fn profiles(&mut self) -> Vec<String> {
        self.few(3, |draw| {
            draw.of(&["kns.red", "kns.blue", "p", "missing", Profile::DEFAULT_ALLOW]).to_owned()
        })
    }

    fn port_matches(&mut self) -> Vec<PortMatch> {
        self.few(3, |draw| {
            draw.of(&[
                PortMatch::Numbers((80..=80).into()),
                PortMatch::Numbers((81..=90).into()),
                PortMatch::Named("http".to_owned()),
                PortMatch::Named("dns".to_owned()),
            ])
        })
    }

    fn end(&mut self) -> EntityRule {
        let mut end = EntityRule::default();
        match self.below(8) {
            0 | 1 => end.selector = Some(self.selector()),
            2 => end.nets = self.few(3, Draw::net),
            3 => end.not_nets = self.few(3, Draw::net),
            4 => end.not_selector = Some(self.selector()),
            5 => {
                end.selector = Some(self.selector());
                end.not_selector = Some(self.selector());
            }
            6 => end.namespace_selector = Some(self.of(&["colour == 'red'", "all()", "global()"]).to_owned()),
            _ => {}
        }
        if self.one_in(3) {
            end.ports = self.port_matches();
        }
        if self.one_in(5) {
            end.not_ports = self.port_matches();
        }
        end
    }

    fn rule(&mut self) -> PolicyRule {
        let mut rule = PolicyRule::any(self.of(&[Action::Allow, Action::Deny, Action::Pass, Action::Log]));
        rule.source = self.end();
        rule.destination = self.end();
        if self.one_in(2) {
            rule.protocol = Some(self.of(&[Protocol::TCP, Protocol::UDP, Protocol::ICMP]));
        }
        if self.one_in(6) {
            rule.family = Some(self.of(&Family::ALL));
        }
        rule
    }

    fn policy(&mut self) -> Resource {
        let kind = self.of(&[
            PolicyKind::GlobalNetworkPolicy,
            PolicyKind::NetworkPolicy,
            PolicyKind::StagedGlobalNetworkPolicy,
            PolicyKind::StagedNetworkPolicy,
        ]);
        let namespace = kind.is_namespaced().then(|| self.of(&NAMESPACES).to_owned());
        let mut policy = NetworkPolicy::empty(PolicyKey {
            kind,
            namespace,
            name: self.of(&["one", "two", "three"]).to_owned(),
        });
        policy.tier = self.of(&["default", "early", "ghost", "kube-baseline"]).to_owned();
        policy.order = self.of(&[Order::LAST, Order::new(1.0).unwrap(), Order::new(2.0).unwrap()]);
        policy.selector = self.some(&[()]).map(|()| self.selector()).unwrap_or_default();
        let about = self.below(3);
        (policy.applies_to_ingress, policy.applies_to_egress) = (about != 1, about != 0);
        policy.ingress = self.few(3, Draw::rule);
        policy.egress = self.few(3, Draw::rule);
        policy.needed_everywhere = self.one_in(4);
        if kind.is_staged() {
            policy.staged_action = Some(self.of(&[
                StagedAction::Set,
                StagedAction::Delete,
                StagedAction::Learn,
                StagedAction::Ignore,
            ]));
        }
        if !kind.is_namespaced() {
            let namespaces = ["colour == 'red'", "all()"].map(str::to_owned);
            policy.namespace_selector = if self.one_in(3) { Some(self.of(&namespaces)) } else { None };
            let class = self.below(6);
            (policy.do_not_track, policy.pre_dnat) = (class == 1, class == 2);
            policy.apply_on_forward = (1..4).contains(&class);
        }
        Resource::NetworkPolicy(policy)
    }

    /// A resource of any kind, one of few names.
    pub fn resource(&mut self) -> Resource {
        match self.below(12) {
            0..4 => self.policy(),
            4..7 => {
                let namespace = self.of(&NAMESPACES).to_owned();
                let mut labels = self.labels();
                labels.insert("projectcalico.org/namespace".to_owned(), namespace.clone());
                Resource::WorkloadEndpoint(WorkloadEndpoint {
                    namespace,
                    name: self.of(&["pod-1", "pod-2"]).to_owned(),
                    labels,
                    node: self.of(&[NODE, NODE, "there"]).to_owned(),
                    ip_networks: self.few(3, |draw| Prefix::host(draw.host())),
                    profiles: self.profiles(),
                    ports: self.ports(),
                    ..WorkloadEndpoint::default()
                })
            }
            7 => Resource::HostEndpoint(HostEndpoint {
                name: self.of(&["eth0", "eth1"]).to_owned(),
                labels: self.labels(),
                node: self.of(&[NODE, "there"]).to_owned(),
                interface: HostInterface::All,
                expected_ips: self.few(3, Draw::host),
                profiles: self.profiles(),
                ports: self.ports(),
                dscp: None,
            }),
            8 => {
                let namespace = self.some(&NAMESPACES).map(str::to_owned);
                let mut labels = self.labels();
                labels.extend(namespace.clone().map(|it| ("projectcalico.org/namespace".to_owned(), it)));
                Resource::NetworkSet(NetworkSet {
                    namespace,
                    name: self.of(&["set-1", "set-2"]).to_owned(),
                    labels,
                    nets: self.few(4, Draw::net),
                })
            }
            9 | 10 => {
                let name = self.of(&["kns.red", "kns.blue", "p"]);
                let mut labels_to_apply = self.labels();
                labels_to_apply.insert("given".to_owned(), name.to_owned());
                if let Some(colour) = name.strip_prefix("kns.") {
                    labels_to_apply.insert("pcns.colour".to_owned(), colour.to_owned());
                }
                Resource::Profile(Profile {
                    name: name.to_owned(),
                    labels_to_apply,
                    ingress: self.few(3, Draw::rule),
                    egress: self.few(3, Draw::rule),
                })
            }
            _ => Resource::Tier(Tier {
                name: self.of(&["default", "early"]).to_owned(),
                order: self.of(&[Order::LAST, Order::new(1.0).unwrap()]),
                default_action: self.of(&[TierDefault::Deny, TierDefault::Pass]),
            }),
        }
    }

    /// A packet between addresses that endpoints may have.
    pub fn packet(&mut self) -> Packet {
        let family = self.of(&Family::ALL);
        let hosts: &[&str] = match family {
            Family::V4 => &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "192.0.2.1"],
            Family::V6 => &["fd00::1", "fd00::2", "2001:db8::1"],
        };
        let [source, destination] = [self.of(hosts), self.of(hosts)].map(|host| host.parse().unwrap());
        let protocol = self.of(&[6, 17, 1]);
        let ports = (protocol != 1).then(|| (self.of(&[80, 81, 1024]), self.of(&[80, 81, 1024])));
        Packet { protocol, source, destination, ports, icmp: (protocol == 1).then_some((8, 0)) }
    }
}
