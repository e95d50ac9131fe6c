//! Random policy, packets and changes, in a world small enough for everything to meet.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use model::{Family, Prefix};
use policy::compile::{Compiled, Compiler, Judgement, Limits, ProgramId};
use policy::judge::{self, Packet, Sets, Step, judge};
use policy::rule::{
    Action, AfterTiers, Checks, EndMatch, IcmpMatch, Policy, PortRange, Rule, SetId, Tier, TierDefault,
};
use policy::sets::Member;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

pub const LIMITS: Limits = Limits { programs: 64, rules: 20_000, members: 1_000, bytes: 1 << 26 };

/// Sets of addresses, then sets of ports.
pub const NET_SETS: u32 = 5;
pub const PORT_SETS: u32 = 3;
const PROTOCOLS: [u8; 6] = [6, 17, 1, 58, 132, 47];
const PORTS: [u16; 7] = [0, 53, 80, 81, 443, 8080, 65535];

/// The sets as they should be.
#[derive(Clone, Debug, Default)]
pub struct World(pub BTreeMap<SetId, BTreeSet<Member>>);

impl Sets for World {
    fn contains(&self, set: SetId, addr: IpAddr) -> bool {
        let mut members = self.0.get(&set).into_iter().flatten();
        members.any(|member| matches!(member, Member::Net(net) if net.contains(addr)))
    }

    fn contains_port(&self, set: SetId, addr: IpAddr, protocol: u8, port: u16) -> bool {
        let mut members = self.0.get(&set).into_iter().flatten();
        members.any(|member| {
            matches!(member, Member::Port { net, protocol: p, port: q }
                if net.contains(addr) && (*p, *q) == (protocol, port))
        })
    }
}

/// Few, and in both families alike.
pub fn addr() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0u8..4, 0u8..8).prop_map(|(v6, net, host)| {
        if v6 {
            IpAddr::from([0xfd00, 0, 0, net.into(), 0, 0, 0, host.into()])
        } else {
            IpAddr::from([10, 0, net, host])
        }
    })
}

pub fn net() -> impl Strategy<Value = Prefix> {
    let v4 = select(vec![0u8, 8, 22, 23, 24, 29, 30, 31, 32, 32, 32]);
    let v6 = select(vec![0u8, 8, 62, 63, 64, 125, 126, 127, 128, 128, 128]);
    (addr(), v4, v6).prop_map(|(addr, v4, v6)| {
        let len = if addr.is_ipv4() { v4 } else { v6 };
        Prefix::new(addr, len).expect("a length of the family")
    })
}

fn port_range() -> impl Strategy<Value = PortRange> {
    (select(&PORTS[..]), select(&PORTS[..])).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
}

fn few<T: std::fmt::Debug>(
    weight: f64,
    item: impl Strategy<Value = T>,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop::option::weighted(weight, vec(item, 1..=most)).prop_map(Option::unwrap_or_default)
}

fn net_set() -> impl Strategy<Value = SetId> {
    (0..NET_SETS).prop_map(SetId)
}

fn port_set() -> impl Strategy<Value = SetId> {
    (NET_SETS..NET_SETS + PORT_SETS).prop_map(SetId)
}

fn end() -> impl Strategy<Value = EndMatch> {
    (
        few(0.25, net(), 3),
        few(0.15, net(), 2),
        few(0.3, net_set(), 2),
        few(0.15, net_set(), 2),
        few(0.3, port_range(), 3),
        few(0.2, port_set(), 2),
        few(0.15, port_range(), 2),
        few(0.15, port_set(), 2),
    )
        .prop_map(|(nets, not_nets, sets, not_sets, ports, named_ports, not_ports, not_named_ports)| {
            EndMatch { nets, not_nets, sets, not_sets, ports, named_ports, not_ports, not_named_ports }
        })
}

fn icmp() -> impl Strategy<Value = IcmpMatch> {
    (select(vec![0u8, 8, 255]), prop::option::of(0u8..2))
        .prop_map(|(icmp_type, code)| IcmpMatch { icmp_type, code })
}

pub fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![15 => some_rule(), 1 => some_rule().prop_map(|rule| Rule::never(rule.action))]
}

fn some_rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        3 => Just(Action::Allow),
        3 => Just(Action::Deny),
        2 => Just(Action::Pass),
        2 => Just(Action::Log)
    ];
    let protocol = || prop::option::weighted(0.4, select(&PROTOCOLS[..]));
    let quiet_end = || prop_oneof![2 => Just(EndMatch::default()), 3 => end()];
    (
        action,
        prop::option::weighted(0.15, select(&Family::ALL[..])),
        protocol(),
        prop::option::weighted(0.15, select(&PROTOCOLS[..])),
        prop::option::weighted(0.1, icmp()),
        prop::option::weighted(0.1, icmp()),
        quiet_end(),
        quiet_end(),
    )
        .prop_map(|(action, family, protocol, not_protocol, icmp, not_icmp, source, destination)| Rule {
            action,
            family,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
        })
}

fn policies(most: usize) -> impl Strategy<Value = Vec<Arc<Policy>>> {
    vec(vec(rule(), 0..8).prop_map(|rules| Arc::new(Policy { name: "a".to_owned(), rules })), 0..=most)
}

pub fn checks() -> impl Strategy<Value = Checks> {
    let default = select(vec![TierDefault::Deny, TierDefault::Pass, TierDefault::Pass]);
    let tier = (policies(3), default).prop_map(|(policies, default)| Tier {
        name: "t".to_owned(),
        policies,
        default,
    });
    let after = prop_oneof![3 => policies(3).prop_map(AfterTiers::Profiles), 1 => Just(AfterTiers::NoMatch)];
    (vec(tier, 0..4), after).prop_map(|(tiers, after)| Checks { tiers, after })
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let upper = (select(&PORTS[..]), select(&PORTS[..]), 0u8..3);
    (select(&PROTOCOLS[..]), addr(), (0u8..5, 0u8..9), upper).prop_map(
        |(protocol, source, (net, host), (sport, dport, kind))| {
            let destination = match source {
                IpAddr::V4(_) => IpAddr::from([10, 0, net, host]),
                IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, net.into(), 0, 0, 0, host.into()]),
            };
            // One in three is a later fragment, or cut short.
            let whole = kind != 0;
            let is_icmp = matches!(protocol, 1 | 58);
            Packet {
                protocol,
                source,
                destination,
                ports: (whole && !is_icmp).then_some((sport, dport)),
                icmp: (whole && is_icmp).then_some(([0, 8, 255][kind as usize % 3], host % 3)),
            }
        },
    )
}

fn member(set: SetId) -> BoxedStrategy<Member> {
    if set.0 < NET_SETS {
        net().prop_map(Member::Net).boxed()
    } else {
        let port = (net(), select(&PROTOCOLS[..2]), select(&PORTS[1..4]));
        port.prop_map(|(net, protocol, port)| Member::Port { net, protocol, port }).boxed()
    }
}

/// A change that a writer may be told of.
#[derive(Clone, Debug)]
pub enum Change {
    Put(SetId, BTreeSet<Member>),
    Update(SetId, Vec<Member>, Vec<Member>),
    Remove(SetId),
    /// Checks for one of the endpoints.
    Checks(Index, Checks),
    /// An endpoint goes.
    Release(Index),
    Publish,
}

pub fn change() -> impl Strategy<Value = Change> {
    let any_set = || prop_oneof![net_set(), port_set()];
    prop_oneof![
        3 => any_set().prop_flat_map(|id| (Just(id), btree_set(member(id), 0..12)))
            .prop_map(|(id, members)| Change::Put(id, members)),
        6 => any_set().prop_flat_map(|id| (Just(id), vec(member(id), 0..6), vec(member(id), 0..4)))
            .prop_map(|(id, removed, added)| Change::Update(id, removed, added)),
        1 => any_set().prop_map(Change::Remove),
        3 => (any::<Index>(), checks()).prop_map(|(index, checks)| Change::Checks(index, checks)),
        1 => any::<Index>().prop_map(Change::Release),
        4 => Just(Change::Publish),
    ]
}

/// A program of hundreds of rules: this world many times over, each with rules, sets and packets of its own.
#[derive(Clone, Debug)]
pub struct Islands {
    pub checks: Checks,
    /// Changes of sets.
    pub before: Vec<Change>,
    pub after: Vec<Change>,
    pub packets: Vec<Packet>,
}

const ISLANDS: u8 = 100;

pub fn islands(rules: Range<usize>) -> impl Strategy<Value = Islands> {
    let on = || 0..ISLANDS;
    let changes = |most| {
        vec((on(), change()), 0..most).prop_map(|changes| {
            changes
                .into_iter()
                .filter_map(|(island, change)| moved_change(change, island))
                .collect::<Vec<_>>()
        })
    };
    let rules = vec((on(), rule(), 0u8..10), rules);
    let default = select(vec![TierDefault::Deny, TierDefault::Pass, TierDefault::Pass]);
    let packets = vec((on(), 0u8..12, packet()), 1..150);
    (rules, vec((1usize..400, default), 1..4), changes(300), changes(40), packets).prop_map(
        |(rules, tiers, before, after, packets)| {
            let rules = rules.into_iter().map(|(island, mut rule, rest)| {
                // One in ten may be about everybody, the others are about somebody here; most are plain.
                if rest > 3 {
                    rule = plain(rule);
                }
                let [source, destination] = [&rule.source, &rule.destination];
                if rest > 0
                    && [source, destination].iter().all(|end| end.nets.is_empty() && end.sets.is_empty())
                {
                    let net =
                        Prefix::new(IpAddr::from([10, 0, rest % 4, 0]), 22 + rest % 3).expect("a length");
                    if rest % 2 == 0 {
                        rule.source.nets = vec![net]
                    } else {
                        rule.destination.nets = vec![net]
                    };
                }
                moved_rule(rule, island)
            });
            let mut rules: Vec<Rule> = rules.collect();
            let policy = |rules| vec![Arc::new(Policy { name: "a".to_owned(), rules })];
            let tiers = tiers.into_iter().map(|(count, default)| {
                let some = rules.split_off(rules.len().saturating_sub(count));
                Tier { name: "t".to_owned(), policies: policy(some), default }
            });
            let tiers = tiers.collect();
            let checks = Checks { tiers, after: AfterTiers::Profiles(policy(rules)) };
            let moved = packets.into_iter().map(|(island, other, packet)| Packet {
                source: moved_addr(packet.source, island),
                // Mostly on the same one.
                destination: moved_addr(packet.destination, if other == 0 { other } else { island }),
                ..packet
            });
            Islands { checks, before, after, packets: moved.collect() }
        },
    )
}

/// A rule without negations and kinds of messages, and with a port or two.
fn plain(rule: Rule) -> Rule {
    let [source, destination] = [rule.source, rule.destination].map(|end| EndMatch {
        nets: end.nets,
        sets: end.sets,
        ports: end.ports.into_iter().take(2).collect(),
        ..EndMatch::default()
    });
    let protocol = rule.protocol.or((!source.ports.is_empty() || !destination.ports.is_empty()).then_some(6));
    Rule { protocol, family: None, source, destination, ..Rule::any(rule.action) }
}

fn moved_addr(addr: IpAddr, island: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let [a, _, c, d] = addr.octets();
            IpAddr::from([a, island, c, d])
        }
        IpAddr::V6(addr) => {
            let mut segments = addr.segments();
            segments[1] = island.into();
            IpAddr::from(segments)
        }
    }
}

fn moved_net(net: Prefix, island: u8) -> Prefix {
    let shortest = if net.addr().is_ipv4() { 16 } else { 32 };
    Prefix::new(moved_addr(net.addr(), island), net.len().max(shortest)).expect("a length of the family")
}

fn moved_set(set: SetId, island: u8) -> SetId {
    SetId(set.0 + u32::from(island) * (NET_SETS + PORT_SETS))
}

fn moved_rule(mut rule: Rule, island: u8) -> Rule {
    for end in [&mut rule.source, &mut rule.destination] {
        end.nets.iter_mut().for_each(|net| *net = moved_net(*net, island));
        // Nowhere stays so.
        if end.not_nets.iter().any(|net| net.len() > 0) {
            end.not_nets.iter_mut().for_each(|net| *net = moved_net(*net, island));
        }
        let lists = [&mut end.sets, &mut end.not_sets, &mut end.named_ports, &mut end.not_named_ports];
        lists.into_iter().flatten().for_each(|set| *set = moved_set(*set, island));
    }
    rule
}

fn moved_change(change: Change, island: u8) -> Option<Change> {
    let moved = |member| match member {
        Member::Net(net) => Member::Net(moved_net(net, island)),
        Member::Port { net, protocol, port } => Member::Port { net: moved_net(net, island), protocol, port },
    };
    match change {
        Change::Put(set, members) => {
            Some(Change::Put(moved_set(set, island), members.into_iter().map(moved).collect()))
        }
        Change::Update(set, removed, added) => {
            let [removed, added] = [removed, added].map(|some| some.into_iter().map(moved).collect());
            Some(Change::Update(moved_set(set, island), removed, added))
        }
        Change::Remove(set) => Some(Change::Remove(moved_set(set, island))),
        Change::Publish => Some(Change::Publish),
        Change::Checks(..) | Change::Release(_) => None,
    }
}

/// The compiled form holds to the slow judge: the verdict, the step that decided, and the rules that log.
pub fn check(
    compiler: &Compiler,
    compiled: &Compiled,
    program: ProgramId,
    checks: &Checks,
    packet: &Packet,
    world: &World,
) {
    let expected = judge(checks, packet, world);
    let asked = policy::compile::Packet::from(packet);
    let got = compiled.judge(program, &asked);
    assert_eq!(compiled.clone().by_tables().judge(program, &asked), got, "{packet:?}");
    let shown = || format!("{packet:?}\n{checks:#?}\n{world:?}");
    assert_eq!(got.verdict, expected.verdict, "expected {expected:?}\n{}", shown());
    let (_, step) = compiler.step(got.rule).expect("a rule that decided has a name");
    assert_eq!(Some(&step), expected.steps.last(), "{}", shown());
    let is_log = |step: &&Step| {
        matches!(step, Step::Rule { action: Action::Log, .. } | Step::Profile { action: Action::Log, .. })
    };
    let logs: Vec<Step> = expected.steps.iter().filter(is_log).copied().collect();
    let mut told = Vec::new();
    compiled.logs(program, &asked, |rule| told.push(compiler.step(rule).expect("a name").1));
    assert_eq!((told, got.logs as usize), (logs.clone(), logs.len()), "{}", shown());
}

/// A batch is judged as its packets one by one, however addresses are looked up and whatever the processor has.
pub fn check_batch(compiled: &Compiled, asked: &[(ProgramId, policy::compile::Packet)]) {
    let expected: Vec<_> = asked.iter().map(|(program, packet)| compiled.judge(*program, packet)).collect();
    let (by_tables, portable) = (compiled.clone().by_tables(), compiled.clone().by_any_processor());
    for compiled in [compiled, &by_tables, &portable, &portable.clone().by_tables()] {
        let mut out = vec![Judgement::NO_PROGRAM; asked.len()];
        compiled.judge_batch(asked, &mut out);
        assert_eq!(out, expected);
    }
}

/// Endpoints, each with checks and the program that it uses.
pub type Endpoints = Vec<Option<(Arc<Checks>, ProgramId)>>;

/// Applies changes to a writer and to the oracle's world.
pub fn apply(compiler: &mut Compiler, world: &mut World, endpoints: &mut Endpoints, change: &Change) {
    match change.clone() {
        Change::Put(id, members) => {
            compiler.put_set(id, members.clone()).expect("room");
            world.0.insert(id, members);
        }
        Change::Update(id, removed, added) => {
            compiler.update_set(id, &removed, &added).expect("room");
            let set = world.0.entry(id).or_default();
            removed.iter().for_each(|member| {
                set.remove(member);
            });
            set.extend(added);
        }
        Change::Remove(id) => {
            compiler.remove_set(id);
            world.0.remove(&id);
        }
        Change::Checks(index, checks) => {
            let checks = Arc::new(checks);
            let program = compiler.program(&checks).expect("room");
            let index = index.index(endpoints.len());
            if let Some((_, before)) = endpoints[index].replace((checks, program)) {
                compiler.release(before);
            }
        }
        Change::Release(index) => {
            let index = index.index(endpoints.len());
            if let Some((_, before)) = endpoints[index].take() {
                compiler.release(before);
            }
        }
        Change::Publish => {}
    }
}

/// Judgements without the numbers of rules, which differ from writer to writer.
pub fn named(compiler: &Compiler, judgement: Judgement) -> (judge::Verdict, Option<Step>, u32) {
    (judgement.verdict, compiler.step(judgement.rule).map(|(_, step)| step), judgement.logs)
}
