use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::testing::{Listed, Mirrored};
use super::*;
use crate::interfaces;
use crate::testing::{in_namespace, ip};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn nexthops(hops: &[(&str, IfIndex)]) -> MirrorTarget {
    weighted(&hops.iter().map(|(addr, ifindex)| (*addr, *ifindex, 1)).collect::<Vec<_>>())
}

fn weighted(hops: &[(&str, IfIndex, u16)]) -> MirrorTarget {
    let hop = |(addr, ifindex, weight): &(&str, IfIndex, u16)| MirrorHop {
        gateway: addr.parse().unwrap(),
        ifindex: *ifindex,
        weight: *weight,
    };
    MirrorTarget::Nexthops(hops.iter().map(hop).collect())
}

/// The table as `ip` shows it, a route a line, both families, next hops joined to their route.
fn table() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for family in ["-4", "-6"] {
        // Of a table without routes `ip` says that it doesn't exist, and fails.
        let words = [family, "route", "show", "table", "116"];
        let shown = std::process::Command::new("ip").args(words).output().unwrap();
        for line in String::from_utf8(shown.stdout).unwrap().lines() {
            match line.trim_start().strip_prefix("nexthop ") {
                Some(hop) => lines.last_mut().unwrap().push_str(&format!(" | {}", hop.trim())),
                None => lines.push(line.split_whitespace().collect::<Vec<_>>().join(" ")),
            }
        }
    }
    lines.sort();
    lines
}

/// Two uplinks with a subnet of each family, as up0 and up1.
fn uplinks() -> (IfIndex, IfIndex) {
    ip("link add up0 type veth peer name up1");
    for (n, name) in ["up0", "up1"].iter().enumerate() {
        ip(&format!("link set {name} up"));
        ip(&format!("addr add 192.0.{n}.1/24 dev {name}"));
        ip(&format!("addr add 2001:db8:{n}::1/64 dev {name} nodad"));
    }
    let links = interfaces::links(&mut Netlink::open().unwrap()).unwrap();
    let find = |name: &str| links.iter().find(|link| link.name == name).unwrap().ifindex;
    (find("up0"), find("up1"))
}

#[test]
fn routes_are_added_replaced_and_removed_in_both_families() {
    in_namespace(|| {
        let (up0, up1) = uplinks();
        let mut mirror = Mirrored::start(100);
        mirror.install("10.1.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        mirror.install("10.2.0.0/26", weighted(&[("192.0.0.9", up0, 3), ("192.0.1.9", up1, 1)]));
        mirror.install("10.3.0.0/26", MirrorTarget::Blackhole);
        mirror.install("10.4.0.0/26", nexthops(&[("2001:db8:0::9", up0)]));
        mirror.install("fd01::/64", nexthops(&[("2001:db8:0::9", up0)]));
        mirror.install("fd02::/64", weighted(&[("2001:db8:0::9", up0, 1), ("2001:db8:1::9", up1, 256)]));
        mirror.install("fd03::/64", MirrorTarget::Blackhole);
        mirror.install("0.0.0.0/0", nexthops(&[("192.0.0.9", up0)]));
        mirror.settle();
        let expected = [
            "10.1.0.0/26 via 192.0.0.9 dev up0 proto 116",
            "10.2.0.0/26 proto 116 | via 192.0.0.9 dev up0 weight 3 | via 192.0.1.9 dev up1 weight 1",
            "10.4.0.0/26 via inet6 2001:db8::9 dev up0 proto 116",
            "blackhole 10.3.0.0/26 proto 116",
            "blackhole fd03::/64 dev lo proto 116 metric 1024 pref medium",
            "default via 192.0.0.9 dev up0 proto 116",
            "fd01::/64 via 2001:db8::9 dev up0 proto 116 metric 1024 pref medium",
            "fd02::/64 proto 116 metric 1024 pref medium | via 2001:db8::9 dev up0 weight 1 | via 2001:db8:1::9 dev up1 weight 256",
        ];
        assert_eq!(table(), expected);
        assert_eq!((mirror.mirror.status().installed, mirror.mirror.status().failed), (8, 0));

        // Every kind becomes another.
        mirror.install("10.1.0.0/26", MirrorTarget::Blackhole);
        mirror.install("10.2.0.0/26", nexthops(&[("192.0.1.9", up1)]));
        mirror.install("10.3.0.0/26", nexthops(&[("192.0.0.9", up0), ("192.0.1.9", up1)]));
        mirror.install("fd01::/64", MirrorTarget::Blackhole);
        mirror.install("fd02::/64", nexthops(&[("2001:db8:1::9", up1)]));
        mirror.install("fd03::/64", nexthops(&[("2001:db8:0::9", up0), ("2001:db8:1::9", up1)]));
        mirror.withdraw("10.4.0.0/26");
        mirror.withdraw("0.0.0.0/0");
        mirror.withdraw("10.99.0.0/26");
        mirror.settle();
        let expected = [
            "10.2.0.0/26 via 192.0.1.9 dev up1 proto 116",
            "10.3.0.0/26 proto 116 | via 192.0.0.9 dev up0 weight 1 | via 192.0.1.9 dev up1 weight 1",
            "blackhole 10.1.0.0/26 proto 116",
            "blackhole fd01::/64 dev lo proto 116 metric 1024 pref medium",
            "fd02::/64 via 2001:db8:1::9 dev up1 proto 116 metric 1024 pref medium",
            "fd03::/64 proto 116 metric 1024 pref medium | via 2001:db8::9 dev up0 weight 1 | via 2001:db8:1::9 dev up1 weight 1",
        ];
        assert_eq!(table(), expected);
    });
}

#[test]
fn what_an_earlier_run_left_stays_until_the_first_sync_is_done() {
    in_namespace(|| {
        let (up0, _) = uplinks();
        let mut first = Mirrored::start(100);
        for text in ["10.1.0.0/26", "10.2.0.0/26", "fd01::/64"] {
            first.install(text, MirrorTarget::Blackhole);
        }
        first.settle();
        drop(first);
        assert_eq!(table().len(), 3, "stopping leaves the routes");
        ip("route add blackhole 10.77.0.0/16 table 116 proto static");

        let mut second = Mirrored::start(100);
        second.install("10.1.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        second.settle();
        assert_eq!(table().len(), 4);
        assert!(table().contains(&"10.1.0.0/26 via 192.0.0.9 dev up0 proto 116".into()));
        second.mirror.first_sync_done();
        second.settle();
        let expected = ["10.1.0.0/26 via 192.0.0.9 dev up0 proto 116", "blackhole 10.77.0.0/16 proto static"];
        assert_eq!(table(), expected, "what isn't ours stays");
    });
}

#[test]
fn a_link_that_comes_back_gets_its_routes_back() {
    in_namespace(|| {
        let (up0, _) = uplinks();
        let mut mirror = Mirrored::start(100);
        mirror.install("10.1.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        mirror.install("10.2.0.0/26", MirrorTarget::Blackhole);
        mirror.settle();
        ip("link set up0 down");
        assert_eq!(table().len(), 1);
        ip("link set up0 up");
        mirror.mirror.resync();
        mirror.settle();
        assert_eq!(table().len(), 2);
    });
}

#[test]
fn a_refused_route_is_reported_and_tried_again() {
    in_namespace(|| {
        let (up0, _) = uplinks();
        let mut mirror = Mirrored::start(100);
        mirror.install("10.1.0.0/26", nexthops(&[("198.51.100.1", up0)]));
        mirror.install("10.2.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        mirror.settle();
        let status = mirror.mirror.status();
        assert_eq!((status.desired, status.installed, status.failed), (2, 1, 1));
        assert_eq!(status.last_failure.unwrap().prefix, prefix("10.1.0.0/26"));
        let retry = |mirror: &mut Mirrored| {
            mirror.mirror.retry_refused();
            mirror.settle();
            mirror.mirror.warning()
        };
        assert_eq!(retry(&mut mirror), None, "once may be a matter of a moment");
        let warning = retry(&mut mirror).unwrap();
        assert!(warning.contains("10.1.0.0/26 of its mirror: Network is unreachable"), "{warning}");
        ip("addr add 198.51.100.2/24 dev up0");
        mirror.mirror.resync();
        mirror.settle();
        assert_eq!((mirror.mirror.status().installed, mirror.mirror.status().failed), (2, 0));
        assert_eq!(retry(&mut mirror), None);
    });
}

#[test]
fn a_full_mirror_refuses_new_prefixes_and_counts_them() {
    in_namespace(|| {
        let mut mirror = Mirrored::start(2);
        mirror.install("10.1.0.0/26", MirrorTarget::Blackhole);
        mirror.install("10.2.0.0/26", MirrorTarget::Blackhole);
        mirror.install("10.3.0.0/26", MirrorTarget::Blackhole);
        assert_eq!((mirror.mirror.status().desired, mirror.mirror.status().refused_full), (2, 1));
        mirror.withdraw("10.1.0.0/26");
        // There is room again.
        mirror.install("10.3.0.0/26", MirrorTarget::Blackhole);
        mirror.settle();
        assert_eq!(table(), ["blackhole 10.2.0.0/26 proto 116", "blackhole 10.3.0.0/26 proto 116"]);
        assert_eq!(mirror.mirror.status().refused_full, 1);
    });
}

#[test]
fn purging_removes_rules_and_routes_of_ours_alone() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        policy_rules::install_rules(&mut netlink).unwrap();
        let mut mirror = Mirrored::start(1000);
        for n in 0..200 {
            mirror.install(&format!("10.0.{n}.0/24"), MirrorTarget::Blackhole);
            mirror.install(&format!("fd00:{n}::/32"), MirrorTarget::Blackhole);
        }
        mirror.settle();
        drop(mirror);
        ip("route add blackhole 10.77.0.0/16 table 116 proto static");
        assert_eq!(purge(&mut netlink).unwrap(), 400);
        assert_eq!(table(), ["blackhole 10.77.0.0/16 proto static"]);
        assert!(!ip("rule show").contains("116") && !ip("-6 rule show").contains("116"));
        assert_eq!(purge(&mut netlink).unwrap(), 0);
    });
}

/// Not a judgement of speed: prints how long a long table takes, and checks that all of it arrives.
#[test]
fn a_long_table_goes_in_whole_and_out_again() {
    in_namespace(|| {
        let count: u32 = std::env::var("TORTIE_MIRROR_ROUTES").map_or(20_000, |count| count.parse().unwrap());
        let (up0, _) = uplinks();
        let mut mirror = Mirrored::start(2 * count as usize);
        let (v4, v6) = (nexthops(&[("192.0.0.9", up0)]), nexthops(&[("2001:db8:0::9", up0)]));
        let prefixes_v4 =
            (0..count).map(|n| Prefix::new(IpAddr::V4((0x0a00_0000 + (n << 4)).into()), 28).unwrap());
        let high = |n: u32| (0xfd00_0000_0000_0000_u128 + (u128::from(n) << 8)) << 64;
        let prefixes_v6 = (0..count).map(|n| Prefix::new(IpAddr::V6(high(n).into()), 56).unwrap());
        for (prefixes, target) in [(prefixes_v4.collect::<Vec<_>>(), v4), (prefixes_v6.collect(), v6)] {
            let begun = Instant::now();
            let target = Some(Arc::new(target));
            prefixes.iter().for_each(|prefix| mirror.change(*prefix, target.clone()));
            mirror.settle();
            let seconds = begun.elapsed().as_secs_f64();
            println!("{count} routes like {}: {:.0} a second", prefixes[0], f64::from(count) / seconds);
        }
        let status = mirror.mirror.status();
        assert_eq!((status.installed, status.failed), (2 * count as usize, 0));
        drop(mirror);

        let begun = Instant::now();
        let mut mirror = Mirrored::start(10);
        mirror.settle();
        println!("{} routes read back in {:?}", 2 * count, begun.elapsed());
        mirror.mirror.first_sync_done();
        mirror.settle();
        println!("and removed after {:?}", begun.elapsed());
        assert_eq!(table(), [""; 0]);
    });
}

/// A kernel that does as it is told, or refuses.
fn carry_out(
    ledger: &mut Ledger,
    listed: &mut Listed,
    kernel: &mut BTreeMap<Prefix, Arc<MirrorTarget>>,
    orders: Vec<(ledger::Order, Prefix, Option<Arc<MirrorTarget>>)>,
    refuse: bool,
) {
    for (order, prefix, target) in orders {
        let (ledger::Order::Install(place) | ledger::Order::Remove(place)) = order;
        let is_install = order == ledger::Order::Install(place);
        if refuse {
            ledger.record(place, prefix, is_install, Some(101));
            continue;
        }
        let outcome = match target.filter(|_| is_install) {
            Some(target) => {
                kernel.insert(prefix, target);
                None
            }
            None => kernel.remove(&prefix).is_none().then_some(ESRCH),
        };
        ledger.record(place, prefix, is_install, outcome);
    }
    release(ledger, listed);
}

fn release(ledger: &mut Ledger, listed: &mut Listed) {
    for place in ledger.take_released() {
        assert!(listed.held.contains_key(&place), "what is let go was held");
        listed.let_go(place);
    }
}

fn counts_are_true(ledger: &Ledger, listed: &Listed) -> bool {
    let status = ledger.status();
    ledger.counted() == (status.desired, status.installed, listed.held.len())
}

proptest! {
    /// Whatever happens in whatever order, in the end the kernel has what is desired and nothing else.
    #[test]
    fn the_kernel_ends_with_what_is_desired(
        left in prop::collection::btree_set(0u8..8, 0..5),
        steps in prop::collection::vec((0u8..9, 0u8..8, 1u8..4), 0..80)
    ) {
        let prefix = |n: u8| Prefix::new(IpAddr::from([10, n, 0, 0]), 16).unwrap();
        let target = |n: u8| Arc::new(nexthops(&[("192.0.2.1", IfIndex(u32::from(n)))]));
        let (mut ledger, mut listed) = (Ledger::new(8), Listed::default());
        let mut kernel: BTreeMap<Prefix, Arc<MirrorTarget>> =
            left.into_iter().map(|n| (prefix(n), target(0))).collect();
        let mut desired = BTreeMap::new();
        let mut under_way = Vec::new();
        let read = |ledger: &mut Ledger, listed: &mut Listed, kernel: &BTreeMap<Prefix, _>| {
            kernel.keys().for_each(|prefix| ledger.found(listed.hold(*prefix)));
            ledger.all_found();
            release(ledger, listed);
        };
        read(&mut ledger, &mut listed, &kernel);
        for (action, n, which) in steps {
            match action {
                0..=2 => {
                    let wanted = (action < 2).then(|| target(which));
                    match &wanted {
                        Some(wanted) => desired.insert(prefix(n), Arc::clone(wanted)),
                        None => desired.remove(&prefix(n)),
                    };
                    let is_wanted = wanted.is_some();
                    let place = listed.want(prefix(n), wanted);
                    let is_held = ledger.change(place, is_wanted).unwrap();
                    listed.keep(place, is_held);
                }
                3 | 4 => {
                    while let Some(order) = ledger.next_order() {
                        let (ledger::Order::Install(place) | ledger::Order::Remove(place)) = order;
                        let (prefix, target) = listed.wanted(place);
                        under_way.push((order, prefix, target));
                    }
                    release(&mut ledger, &mut listed);
                }
                5 => carry_out(&mut ledger, &mut listed, &mut kernel, std::mem::take(&mut under_way), false),
                6 => carry_out(&mut ledger, &mut listed, &mut kernel, std::mem::take(&mut under_way), true),
                7 => {
                    // Of some of these nobody hears: the socket failed.
                    for (order, ..) in under_way.drain(..) {
                        let (ledger::Order::Install(place) | ledger::Order::Remove(place)) = order;
                        ledger.lost(place);
                    }
                    kernel.remove(&prefix(n));
                    read(&mut ledger, &mut listed, &kernel);
                }
                _ => ledger.queue_refused(),
            }
            if under_way.is_empty() && ledger.is_idle() {
                prop_assert!(counts_are_true(&ledger, &listed));
            }
        }
        ledger.allow_sweep();
        carry_out(&mut ledger, &mut listed, &mut kernel, std::mem::take(&mut under_way), false);
        while !ledger.is_idle() || ledger.status().failed > 0 {
            ledger.queue_refused();
            let mut orders = Vec::new();
            while let Some(order) = ledger.next_order() {
                let (ledger::Order::Install(place) | ledger::Order::Remove(place)) = order;
                let (prefix, target) = listed.wanted(place);
                orders.push((order, prefix, target));
            }
            carry_out(&mut ledger, &mut listed, &mut kernel, orders, false);
        }
        prop_assert_eq!(&kernel, &desired);
        prop_assert!(counts_are_true(&ledger, &listed));
        prop_assert_eq!(listed.held.len(), desired.len(), "no place is held longer than its route");
    }
}
