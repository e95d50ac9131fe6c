use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::rows::Installed;
use super::*;
use crate::interfaces;
use crate::testing::{in_namespace, ip};

const WAIT: Duration = Duration::from_secs(30);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn nexthops(hops: &[(&str, IfIndex)]) -> MirrorTarget {
    MirrorTarget::Nexthops(hops.iter().map(|(addr, ifindex)| (addr.parse().unwrap(), *ifindex)).collect())
}

fn install(mirror: &Mirror, text: &str, target: MirrorTarget) {
    mirror.apply(vec![(prefix(text), Some(Arc::new(target)))]);
}

fn withdraw(mirror: &Mirror, text: &str) {
    mirror.apply(vec![(prefix(text), None)]);
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
        let mirror = Mirror::start(100).unwrap();
        install(&mirror, "10.1.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        install(&mirror, "10.2.0.0/26", nexthops(&[("192.0.0.9", up0), ("192.0.1.9", up1)]));
        install(&mirror, "10.3.0.0/26", MirrorTarget::Blackhole);
        install(&mirror, "10.4.0.0/26", nexthops(&[("2001:db8:0::9", up0)]));
        install(&mirror, "fd01::/64", nexthops(&[("2001:db8:0::9", up0)]));
        install(&mirror, "fd02::/64", nexthops(&[("2001:db8:0::9", up0), ("2001:db8:1::9", up1)]));
        install(&mirror, "fd03::/64", MirrorTarget::Blackhole);
        install(&mirror, "0.0.0.0/0", nexthops(&[("192.0.0.9", up0)]));
        assert!(mirror.wait_until_idle(WAIT));
        let expected = [
            "10.1.0.0/26 via 192.0.0.9 dev up0 proto 116",
            "10.2.0.0/26 proto 116 | via 192.0.0.9 dev up0 weight 1 | via 192.0.1.9 dev up1 weight 1",
            "10.4.0.0/26 via inet6 2001:db8::9 dev up0 proto 116",
            "blackhole 10.3.0.0/26 proto 116",
            "blackhole fd03::/64 dev lo proto 116 metric 1024 pref medium",
            "default via 192.0.0.9 dev up0 proto 116",
            "fd01::/64 via 2001:db8::9 dev up0 proto 116 metric 1024 pref medium",
            "fd02::/64 proto 116 metric 1024 pref medium | via 2001:db8::9 dev up0 weight 1 | via 2001:db8:1::9 dev up1 weight 1",
        ];
        assert_eq!(table(), expected);
        assert_eq!((mirror.status().installed, mirror.status().failed), (8, 0));

        // Every kind becomes another.
        install(&mirror, "10.1.0.0/26", MirrorTarget::Blackhole);
        install(&mirror, "10.2.0.0/26", nexthops(&[("192.0.1.9", up1)]));
        install(&mirror, "10.3.0.0/26", nexthops(&[("192.0.0.9", up0), ("192.0.1.9", up1)]));
        install(&mirror, "fd01::/64", MirrorTarget::Blackhole);
        install(&mirror, "fd02::/64", nexthops(&[("2001:db8:1::9", up1)]));
        install(&mirror, "fd03::/64", nexthops(&[("2001:db8:0::9", up0), ("2001:db8:1::9", up1)]));
        withdraw(&mirror, "10.4.0.0/26");
        withdraw(&mirror, "0.0.0.0/0");
        withdraw(&mirror, "10.99.0.0/26");
        assert!(mirror.wait_until_idle(WAIT));
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
        let first = Mirror::start(100).unwrap();
        for text in ["10.1.0.0/26", "10.2.0.0/26", "fd01::/64"] {
            install(&first, text, MirrorTarget::Blackhole);
        }
        assert!(first.wait_until_idle(WAIT));
        drop(first);
        assert_eq!(table().len(), 3, "stopping leaves the routes");
        ip("route add blackhole 10.77.0.0/16 table 116 proto static");

        let second = Mirror::start(100).unwrap();
        install(&second, "10.1.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        assert!(second.wait_until_idle(WAIT));
        assert_eq!(table().len(), 4);
        assert!(table().contains(&"10.1.0.0/26 via 192.0.0.9 dev up0 proto 116".into()));
        second.first_sync_done();
        assert!(second.wait_until_idle(WAIT));
        let expected = ["10.1.0.0/26 via 192.0.0.9 dev up0 proto 116", "blackhole 10.77.0.0/16 proto static"];
        assert_eq!(table(), expected, "what isn't ours stays");
    });
}

#[test]
fn a_link_that_comes_back_gets_its_routes_back() {
    in_namespace(|| {
        let (up0, _) = uplinks();
        let mirror = Mirror::start(100).unwrap();
        install(&mirror, "10.1.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        install(&mirror, "10.2.0.0/26", MirrorTarget::Blackhole);
        assert!(mirror.wait_until_idle(WAIT));
        ip("link set up0 down");
        assert_eq!(table().len(), 1);
        ip("link set up0 up");
        mirror.resync();
        assert!(mirror.wait_until_idle(WAIT));
        assert_eq!(table().len(), 2);
    });
}

#[test]
fn a_refused_route_is_reported_and_tried_again() {
    in_namespace(|| {
        let (up0, _) = uplinks();
        let mirror = Mirror::start(100).unwrap();
        install(&mirror, "10.1.0.0/26", nexthops(&[("198.51.100.1", up0)]));
        install(&mirror, "10.2.0.0/26", nexthops(&[("192.0.0.9", up0)]));
        assert!(mirror.wait_until_idle(WAIT));
        let status = mirror.status();
        assert_eq!((status.desired, status.installed, status.failed), (2, 1, 1));
        assert_eq!(status.last_failure.unwrap().prefix, prefix("10.1.0.0/26"));
        ip("addr add 198.51.100.2/24 dev up0");
        mirror.resync();
        assert!(mirror.wait_until_idle(WAIT));
        assert_eq!((mirror.status().installed, mirror.status().failed), (2, 0));
    });
}

#[test]
fn a_full_mirror_refuses_new_prefixes_and_counts_them() {
    in_namespace(|| {
        let mirror = Mirror::start(2).unwrap();
        install(&mirror, "10.1.0.0/26", MirrorTarget::Blackhole);
        install(&mirror, "10.2.0.0/26", MirrorTarget::Blackhole);
        install(&mirror, "10.3.0.0/26", MirrorTarget::Blackhole);
        assert_eq!((mirror.status().desired, mirror.status().refused_full), (2, 1));
        withdraw(&mirror, "10.1.0.0/26");
        // There is room again.
        install(&mirror, "10.3.0.0/26", MirrorTarget::Blackhole);
        // A target without next hops is none, so what there was stays.
        install(&mirror, "10.2.0.0/26", MirrorTarget::Nexthops([].into()));
        assert!(mirror.wait_until_idle(WAIT));
        assert_eq!(table(), ["blackhole 10.2.0.0/26 proto 116", "blackhole 10.3.0.0/26 proto 116"]);
        assert_eq!(mirror.status().refused_full, 1);
    });
}

#[test]
fn purging_removes_rules_and_routes_of_ours_alone() {
    in_namespace(|| {
        let mut netlink = Netlink::open().unwrap();
        policy_rules::install_rules(&mut netlink).unwrap();
        let mirror = Mirror::start(1000).unwrap();
        for n in 0..200 {
            install(&mirror, &format!("10.0.{n}.0/24"), MirrorTarget::Blackhole);
            install(&mirror, &format!("fd00:{n}::/32"), MirrorTarget::Blackhole);
        }
        assert!(mirror.wait_until_idle(WAIT));
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
        let mirror = Mirror::start(2 * count as usize).unwrap();
        let (v4, v6) = (nexthops(&[("192.0.0.9", up0)]), nexthops(&[("2001:db8:0::9", up0)]));
        let prefixes_v4 =
            (0..count).map(|n| Prefix::new(IpAddr::V4((0x0a00_0000 + (n << 4)).into()), 28).unwrap());
        let high = |n: u32| (0xfd00_0000_0000_0000_u128 + (u128::from(n) << 8)) << 64;
        let prefixes_v6 = (0..count).map(|n| Prefix::new(IpAddr::V6(high(n).into()), 56).unwrap());
        for (prefixes, target) in [(prefixes_v4.collect::<Vec<_>>(), v4), (prefixes_v6.collect(), v6)] {
            let begun = Instant::now();
            let target = Some(Arc::new(target));
            mirror.apply(prefixes.iter().map(|prefix| (*prefix, target.clone())).collect());
            assert!(mirror.wait_until_idle(10 * WAIT));
            let seconds = begun.elapsed().as_secs_f64();
            println!("{count} routes like {}: {:.0} a second", prefixes[0], f64::from(count) / seconds);
        }
        let status = mirror.status();
        assert_eq!((status.installed, status.failed), (2 * count as usize, 0));
        drop(mirror);

        let begun = Instant::now();
        let mirror = Mirror::start(10).unwrap();
        assert!(mirror.wait_until_idle(10 * WAIT));
        println!("{} routes read back in {:?}", 2 * count, begun.elapsed());
        mirror.first_sync_done();
        assert!(mirror.wait_until_idle(10 * WAIT));
        println!("and removed after {:?}", begun.elapsed());
        assert_eq!(table(), [""; 0]);
    });
}

/// A kernel that does as it is told, or refuses.
fn carry_out(rows: &mut Rows, kernel: &mut BTreeMap<Prefix, Arc<MirrorTarget>>, refuse: bool) {
    for order in rows.take_orders() {
        if refuse {
            rows.record(order, Some(101));
            continue;
        }
        match &order.1 {
            Some(target) => kernel.insert(order.0, Arc::clone(target)),
            None => kernel.remove(&order.0),
        };
        rows.record(order, None);
    }
}

fn counts_are_true(rows: &Rows) -> bool {
    let desired = rows.rows.values().filter(|row| row.desired.is_some()).count();
    let installed = rows.rows.values().filter(|row| row.installed != Installed::Nothing).count();
    (desired, installed) == (rows.desired, rows.installed)
}

proptest! {
    /// Whatever happens in whatever order, in the end the kernel has what is desired and nothing else.
    #[test]
    fn the_kernel_ends_with_what_is_desired(
        left in prop::collection::btree_set(0u8..8, 0..5),
        steps in prop::collection::vec((0u8..7, 0u8..8, 1u8..4), 0..80)
    ) {
        let prefix = |n: u8| Prefix::new(IpAddr::from([10, n, 0, 0]), 16).unwrap();
        let target = |n: u8| nexthops(&[("192.0.2.1", IfIndex(u32::from(n)))]);
        let mut rows = Rows::new(8);
        let mut kernel: BTreeMap<Prefix, Arc<MirrorTarget>> =
            left.into_iter().map(|n| (prefix(n), Arc::new(target(0)))).collect();
        let mut desired = BTreeMap::new();
        rows.reconcile(&kernel.keys().copied().collect());
        for (action, n, which) in steps {
            match action {
                0 | 1 => {
                    rows.desire(prefix(n), Arc::new(target(which))).unwrap();
                    desired.insert(prefix(n), target(which));
                }
                2 => {
                    rows.undesire(prefix(n));
                    desired.remove(&prefix(n));
                }
                3 => carry_out(&mut rows, &mut kernel, false),
                4 => carry_out(&mut rows, &mut kernel, true),
                5 => {
                    kernel.remove(&prefix(n));
                    rows.reconcile(&kernel.keys().copied().collect());
                }
                _ => rows.queue_failed(),
            }
            prop_assert!(counts_are_true(&rows));
        }
        rows.allow_sweep();
        while !rows.queue.is_empty() || !rows.failed.is_empty() {
            rows.queue_failed();
            carry_out(&mut rows, &mut kernel, false);
        }
        let kernel: BTreeMap<Prefix, MirrorTarget> = kernel.into_iter().map(|(p, t)| (p, (*t).clone())).collect();
        prop_assert_eq!(&kernel, &desired);
        prop_assert!(counts_are_true(&rows));
        prop_assert_eq!(rows.rows.len(), desired.len(), "no row outlives its route");
    }
}
