//! Ports follow their links. Nothing is opened here but by a fake, and no interface has the names used.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::WorkloadEndpoint;
use tables::{Limits, Reader};
use tracing::span;

use super::*;
use crate::calico::Calico;
use crate::{NotDelivered, OpenPortError, TunnelTraffic};

const UPLINK: IfIndex = IfIndex(2);
const WORKLOAD: IfIndex = IfIndex(3);

/// Remembers what it was asked; refuses as long as there is a refusal.
#[derive(Default)]
struct FakeOpener {
    asked: Vec<String>,
    closed: Vec<PortId>,
    refusal: Option<&'static str>,
}

impl PortOpener for FakeOpener {
    fn open(&mut self, port: &OpenPort) -> Result<Vec<QueueReport>, OpenPortError> {
        self.asked.push(port.name.clone());
        match self.refusal {
            Some(refusal) => Err(OpenPortError(refusal.to_owned())),
            None => Ok(Vec::new()),
        }
    }

    fn forwarding_opens(&mut self) {}

    fn forwarding_closes(&mut self) {}

    fn close(&mut self, port: PortId) {
        self.closed.push(port);
    }

    fn set_local(&mut self, _: &BTreeSet<IpAddr>) {}

    fn set_translated(&mut self, _: &BTreeMap<IpAddr, std::ops::RangeInclusive<u16>>) {}

    fn set_tunnels(&mut self, _: &TunnelTraffic) {}

    fn deliver(&mut self, _: PortId, _: &[u8]) -> Result<(), NotDelivered> {
        Ok(())
    }
}

struct Bench {
    table: PortTable,
    kernel: KernelState,
    desired: Desired,
    roles: Roles,
    opener: FakeOpener,
    netlink: Netlink,
    writer: Writer,
    reader: Reader,
}

fn link(ifindex: IfIndex, name: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, ifindex.0 as u8]),
        mtu: 1500,
        up: true,
        kind: None,
        peer: None,
        peer_netns: None,
        num_rx_queues: 4,
    }
}

impl Bench {
    /// An uplink and a workload's interface, both up; room for this many ports.
    fn new(limit: usize) -> Bench {
        let limits = Limits {
            ports: limit,
            adjacencies: 4,
            groups: 4,
            routes_v4: 4,
            routes_v6: 4,
            policy: tables::PolicyLimits::NONE,
            readers: 1,
        };
        let mut writer = Writer::new(limits);
        let reader = writer.reader().unwrap();
        Bench {
            table: PortTable::new(limit, 2),
            kernel: KernelState {
                links: vec![link(UPLINK, "nowhere0"), link(WORKLOAD, "nocali1")],
                ..KernelState::default()
            },
            desired: Calico::new("a").desired(),
            roles: Roles {
                uplinks: vec!["nowhere0".to_owned()],
                workload_prefix: "nocali".to_owned(),
                host: None,
            },
            opener: FakeOpener::default(),
            netlink: Netlink::open().unwrap(),
            writer,
            reader,
        }
    }

    fn reconcile(&mut self) -> bool {
        let changed = self.table.reconcile(
            &self.kernel,
            &self.desired,
            &self.roles,
            &mut self.opener,
            &mut self.netlink,
            &mut self.writer,
        );
        self.writer.publish();
        changed
    }

    /// The port as the workers see it.
    fn published(&mut self, id: PortId) -> Option<Port> {
        self.reader.snapshot().state.ports.get(id).cloned()
    }

    fn problem(&self, name: &str) -> Option<&str> {
        self.table.problems().get(name).map(String::as_str)
    }

    fn endpoint(&mut self, addresses: &[&str]) {
        let endpoint = WorkloadEndpoint {
            namespace: "default".to_owned(),
            name: "w".to_owned(),
            node: "a".to_owned(),
            interface: "nocali1".to_owned(),
            mac: None,
            ip_networks: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..WorkloadEndpoint::default()
        };
        self.desired.endpoints.insert(("default".to_owned(), "w".to_owned()), endpoint);
    }
}

/// Counts the errors that are logged while `act` runs on this thread.
fn errors_logged(act: impl FnOnce()) -> usize {
    struct Counting(Arc<AtomicUsize>);

    impl tracing::Subscriber for Counting {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            if *event.metadata().level() == tracing::Level::ERROR {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    let count = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Counting(Arc::clone(&count)), act);
    count.load(Ordering::Relaxed)
}

#[test]
fn links_with_a_role_become_ports_once() {
    let mut bench = Bench::new(4);
    bench.kernel.links.push(link(IfIndex(9), "other0"));
    assert!(bench.reconcile());
    assert_eq!(bench.opener.asked, ["nowhere0", "nocali1"]);
    let uplink = bench.table.on(UPLINK).unwrap().clone();
    assert_eq!((uplink.kind, uplink.mtu, uplink.up, uplink.queues), (PortKind::Uplink, 1500, true, 1));
    assert_eq!(bench.published(uplink.id), Some(uplink));
    let workload = bench.table.on(WORKLOAD).unwrap();
    assert_eq!((workload.kind, &workload.endpoint), (PortKind::Workload, &None), "unknown: nothing passes");
    assert!(bench.table.on(IfIndex(9)).is_none());

    assert!(!bench.reconcile());
    assert_eq!(bench.opener.asked.len(), 2);
}

#[test]
fn an_open_port_follows_its_link_and_its_endpoint_without_being_opened_again() {
    let mut bench = Bench::new(4);
    bench.reconcile();
    let id = bench.table.on(WORKLOAD).unwrap().id;
    bench.kernel.links[1].mtu = 9000;
    bench.kernel.links[1].mac = MacAddr([2, 0, 0, 0, 0, 0x77]);
    bench.endpoint(&["10.65.0.1/32"]);
    assert!(bench.reconcile());
    let port = bench.published(id).unwrap();
    assert_eq!((port.mtu, port.mac), (9000, MacAddr([2, 0, 0, 0, 0, 0x77])));
    let endpoint = port.endpoint.unwrap();
    assert_eq!((endpoint.name.as_str(), endpoint.addresses.len()), ("default/w", 1));

    bench.endpoint(&["10.65.0.1/32", "fd65::1/128"]);
    bench.kernel.links[1].up = false;
    assert!(bench.reconcile());
    let port = bench.published(id).unwrap();
    assert_eq!((port.up, port.endpoint.unwrap().addresses.len()), (false, 2));

    bench.desired.endpoints.clear();
    bench.reconcile();
    assert_eq!(bench.published(id).unwrap().endpoint, None);
    assert_eq!((bench.opener.asked.len(), bench.opener.closed.len()), (2, 0));
}

#[test]
fn a_workload_may_send_from_what_its_endpoint_allows_besides_its_own_addresses() {
    let mut bench = Bench::new(4);
    bench.endpoint(&["10.65.0.1/32"]);
    bench.reconcile();
    let id = bench.table.on(WORKLOAD).unwrap().id;
    let mut may_send = |allowed: &[&str]| {
        for endpoint in bench.desired.endpoints.values_mut() {
            endpoint.allowed_sources = allowed.iter().map(|prefix| prefix.parse().unwrap()).collect();
        }
        bench.reconcile();
        let endpoint = bench.published(id).unwrap().endpoint.unwrap();
        ["10.65.0.1", "192.0.2.7", "2001:db8::7", "10.65.0.2"]
            .map(|addr| endpoint.owns(addr.parse().unwrap()))
    };
    assert_eq!(may_send(&[]), [true, false, false, false]);
    assert_eq!(may_send(&["192.0.2.0/24", "2001:db8::/64"]), [true, true, true, false]);
    assert_eq!(may_send(&[]), [true, false, false, false], "a change reaches open ports");
}

#[test]
fn a_port_whose_link_is_gone_or_renamed_closes_and_its_number_is_free_again() {
    let mut bench = Bench::new(4);
    bench.reconcile();
    let id = bench.table.on(WORKLOAD).unwrap().id;
    bench.kernel.links[1].name = "renamed0".to_owned();
    assert!(bench.reconcile());
    assert_eq!(bench.opener.closed, [id]);
    assert_eq!(bench.published(id), None);
    assert!(bench.table.get(id).is_none());

    bench.kernel.links[1] = link(IfIndex(12), "nocali2");
    bench.reconcile();
    assert_eq!(bench.table.on(IfIndex(12)).unwrap().id, id);
    bench.kernel.links.truncate(1);
    bench.reconcile();
    assert_eq!(bench.opener.closed, [id, id]);
    assert_eq!(bench.table.iter().count(), 1);
}

#[test]
fn a_port_that_cannot_be_opened_is_named_once_and_tried_each_time() {
    let mut bench = Bench::new(4);
    bench.kernel.links.truncate(1);
    bench.opener.refusal = Some("no memory for its queues");
    let errors = errors_logged(|| {
        assert!(!bench.reconcile());
        assert!(!bench.reconcile());
        assert!(!bench.reconcile());
    });
    assert_eq!((errors, bench.opener.asked.len()), (1, 3));
    assert_eq!(bench.problem("nowhere0"), Some("no memory for its queues"));
    assert!(bench.table.on(UPLINK).is_none());

    bench.opener.refusal = Some("another program owns its queues");
    assert_eq!(errors_logged(|| assert!(!bench.reconcile())), 1, "another reason is news");

    bench.opener.refusal = None;
    assert!(bench.reconcile());
    assert_eq!(bench.problem("nowhere0"), None);
    assert!(bench.table.on(UPLINK).is_some());
}

#[test]
fn an_uplink_that_is_missing_or_down_is_a_problem_until_it_is_up() {
    let mut bench = Bench::new(4);
    let uplink = bench.kernel.links.remove(0);
    bench.reconcile();
    assert!(bench.problem("nowhere0").unwrap().contains("no such interface"));
    bench.kernel.links.push(Link { up: false, ..uplink.clone() });
    bench.reconcile();
    assert!(bench.problem("nowhere0").unwrap().contains("is down"));
    assert_eq!(bench.opener.asked, ["nocali1"], "a link that is down can't be bound to");
    *bench.kernel.links.last_mut().unwrap() = uplink;
    bench.reconcile();
    assert!(bench.table.problems().is_empty());
}

#[test]
fn a_full_table_refuses_further_ports_by_name() {
    let mut bench = Bench::new(1);
    assert!(bench.reconcile());
    assert!(bench.problem("nocali1").unwrap().contains("full at 1"));
    assert_eq!(bench.opener.asked, ["nowhere0"]);
}

#[test]
fn changed_limits_reach_the_open_port_and_keep_their_buckets() {
    let mut bench = Bench::new(8);
    bench.endpoint(&["10.65.0.2/32"]);
    let limit = |bench: &mut Bench, rate: Option<u64>| {
        let endpoint = bench.desired.endpoints.values_mut().next().unwrap();
        endpoint.qos.egress.packet_rate = rate;
        bench.reconcile()
    };
    let qos = |bench: &mut Bench| bench.published(PortId(1)).unwrap().endpoint.unwrap().qos;
    let passed = |qos: &Qos, seconds: u64| {
        let mut passed = 8;
        let now = tables::MeterTime::from_nanos((10 + seconds) * 1_000_000_000);
        qos.egress.as_ref().unwrap().police(now, &[60; 8], |_, _| passed -= 1);
        passed
    };
    assert!(limit(&mut bench, Some(1)));
    let first = qos(&mut bench).unwrap();
    assert_eq!(passed(&first, 0), 5);
    assert!(!limit(&mut bench, Some(1)), "nothing has changed");
    // Another change leaves the limits as they are.
    bench.endpoint(&["10.65.0.2/32", "10.65.0.3/32"]);
    assert!(limit(&mut bench, Some(1)));
    assert!(Arc::ptr_eq(&first, &qos(&mut bench).unwrap()));
    assert!(limit(&mut bench, Some(2)));
    assert_eq!(passed(&qos(&mut bench).unwrap(), 1), 2, "a new limit, and no new burst");
    assert!(limit(&mut bench, None));
    assert!(qos(&mut bench).is_none());
    assert_eq!(bench.opener.asked.len(), 2, "nothing was opened again: {:?}", bench.opener.asked);
    assert!(bench.opener.closed.is_empty());
}
