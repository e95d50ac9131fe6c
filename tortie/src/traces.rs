//! The router's end of `tortie trace`: packets that are made up, and one list at a time of packets that are followed.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastpath::{MadeUp, Outer, Rehearsal};
use model::{Family, PortId, Prefix, Protocol};
use serde::{Deserialize, Serialize};
use tables::{DropReason, Trace, TraceFilter, Tracing};

use crate::limits;
use crate::turns::Turns;

/// A packet that an operator makes up. Absent fields have the defaults that `tortie trace --help` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PacketQuestion {
    /// The port, by its interface's name or its endpoint's; where none is said, that of the workload with the source.
    pub(crate) port: Option<String>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) tcp_flags: u8,
    pub(crate) icmp_type: u8,
    pub(crate) icmp_code: u8,
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    pub(crate) may_fragment: bool,
    pub(crate) payload: u16,
    /// `ipip` or `vxlan`, where it comes in a tunnel.
    pub(crate) tunnel: Option<TunnelQuestion>,
}

/// The tunnel that a made-up packet comes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TunnelQuestion {
    pub(crate) is_vxlan: bool,
    pub(crate) source: IpAddr,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) vni: Option<u32>,
}

/// Which packets are to be followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FilterQuestion {
    pub(crate) port: Option<String>,
    /// An address or a network.
    pub(crate) source: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) protocol: Option<u8>,
    pub(crate) source_port: Option<u16>,
    pub(crate) destination_port: Option<u16>,
    pub(crate) both_ways: bool,
    /// Only what is dropped.
    pub(crate) dropped: bool,
    /// For this reason.
    pub(crate) reason: Option<String>,
    pub(crate) one_in: u32,
}

/// Why nothing can be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum Untraceable {
    #[error(
        "there is no port of the name {0}, nor an endpoint of that name with a port; see `tortie show ports`"
    )]
    NoPort(String),
    #[error("no workload here has the address {0}; name the port that the packet comes in by with --in")]
    NoSender(IpAddr),
    #[error("a packet that is made up needs a source and a destination")]
    NoAddress,
    #[error("it can't be made up: {0}")]
    Unfit(fastpath::Unfit),
    #[error("{0} is neither an address nor a network")]
    NotANetwork(String),
    #[error("nothing is dropped for the reason {0}; `tortie show drops --all` lists them")]
    NoSuchReason(String),
    #[error(
        "somebody else is being told of packets, for {} s more at most; try again then", .0.as_secs() + 1
    )]
    Busy(Duration),
    #[error("somebody else is being told of packets by now; ask anew")]
    Over,
}

/// What `tortie trace` asks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Traces(Arc<Inner>);

struct Inner {
    rehearsal: Mutex<Rehearsal>,
    tracing: Tracing,
    turns: Mutex<Turns>,
}

impl Traces {
    pub(crate) fn new(rehearsal: Rehearsal, tracing: Tracing) -> Traces {
        Traces(Arc::new(Inner { rehearsal: Mutex::new(rehearsal), tracing, turns: Mutex::default() }))
    }

    /// Takes a packet that is made up through the walk.
    pub(crate) fn walk(&self, asked: &PacketQuestion) -> Result<Trace, Untraceable> {
        let (source, destination) = asked.source.zip(asked.destination).ok_or(Untraceable::NoAddress)?;
        let mut rehearsal = self.rehearsal();
        let ingress = match &asked.port {
            Some(name) => rehearsal.port_named(name).ok_or_else(|| Untraceable::NoPort(name.clone()))?,
            None => rehearsal.port_of_sender(source).ok_or(Untraceable::NoSender(source))?,
        };
        let packet = MadeUp {
            ingress,
            source,
            destination,
            protocol: asked.protocol,
            ports: (asked.source_port, asked.destination_port),
            tcp_flags: asked.tcp_flags,
            icmp: (asked.icmp_type, asked.icmp_code, asked.source_port),
            ttl: asked.ttl,
            dscp: asked.dscp,
            dont_fragment: !asked.may_fragment,
            payload: asked.payload,
            outer: asked.tunnel.as_ref().map(|tunnel| Outer {
                source: tunnel.source,
                destination: tunnel.destination,
                vxlan: tunnel.is_vxlan.then_some(tunnel.vni),
            }),
        };
        rehearsal.walk(&packet).map_err(Untraceable::Unfit)
    }

    /// Begins to follow packets that pass; the number by which they are asked for.
    pub(crate) fn follow(
        &self,
        asked: &FilterQuestion,
        packets: u32,
        seconds: u64,
    ) -> Result<u64, Untraceable> {
        let filter = self.filter(asked)?;
        let lasts = Duration::from_secs(seconds.clamp(1, limits::FOLLOWED_SECONDS));
        let mut turns = self.turns();
        let id = turns.begin(Instant::now(), lasts).map_err(Untraceable::Busy)?;
        self.0.tracing.start(filter, packets.clamp(1, limits::FOLLOWED_PACKETS));
        Ok(id)
    }

    /// What has been found since this was asked last, and whether there may be more; and how many were missed.
    pub(crate) fn found(&self, id: u64) -> Result<(Vec<Trace>, bool, u64), Untraceable> {
        let goes_on = self.turns().ask(id, Instant::now()).ok_or(Untraceable::Over)?;
        let is_on = goes_on && self.0.tracing.is_on();
        let traces: Vec<Trace> =
            std::iter::from_fn(|| self.0.tracing.next()).take(limits::FOLLOWED_AT_ONCE).collect();
        let more = is_on || traces.len() == limits::FOLLOWED_AT_ONCE;
        Ok((traces, more, self.0.tracing.missed()))
    }

    /// Follows these packets no more; what was found of them may still be asked for.
    pub(crate) fn end(&self, id: u64) {
        let mut turns = self.turns();
        if turns.end(id) {
            self.0.tracing.stop();
        }
    }

    fn rehearsal(&self) -> MutexGuard<'_, Rehearsal> {
        self.0.rehearsal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The filter that is asked for, with ports by their numbers.
    pub(crate) fn filter(&self, asked: &FilterQuestion) -> Result<TraceFilter, Untraceable> {
        let net = |text: &Option<String>| -> Result<Option<Prefix>, Untraceable> {
            let parse = |text: &String| text.parse().map_err(|_| Untraceable::NotANetwork(text.clone()));
            text.as_ref().map(parse).transpose()
        };
        let port = match &asked.port {
            Some(name) => Some(self.port(name)?),
            None => None,
        };
        let reason = match &asked.reason {
            Some(name) => {
                let found = DropReason::ALL.iter().find(|reason| reason.as_str() == name);
                Some(*found.ok_or_else(|| Untraceable::NoSuchReason(name.clone()))?)
            }
            None => None,
        };
        Ok(TraceFilter {
            port,
            source: net(&asked.source)?,
            destination: net(&asked.destination)?,
            protocol: asked.protocol,
            sport: asked.source_port,
            dport: asked.destination_port,
            both_ways: asked.both_ways,
            dropped: (asked.dropped || reason.is_some()).then_some(reason),
            one_in: asked.one_in.max(1),
        })
    }

    /// What every port is called.
    pub(crate) fn port_names(&self) -> Vec<(PortId, String)> {
        self.rehearsal().port_names()
    }

    /// The port of this name, or of the endpoint of this name.
    pub(crate) fn port(&self, name: &str) -> Result<PortId, Untraceable> {
        self.rehearsal().port_named(name).ok_or_else(|| Untraceable::NoPort(name.to_owned()))
    }
}

/// The echo request of a family, and of others than ICMP nothing.
pub(crate) fn echo_request(protocol: Protocol, family: Family) -> u8 {
    match (protocol, family) {
        (Protocol::ICMP, Family::V4) => 8,
        (Protocol::ICMPV6, Family::V6) => 128,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afxdp::{Region, RegionConfig};
    use tables::{Fate, Flows, Stage, Writer};

    fn traces() -> (Traces, Writer) {
        let limits = tables::Limits {
            ports: 4,
            adjacencies: 4,
            groups: 4,
            routes_v4: 16,
            routes_v6: 16,
            policy: tables::PolicyLimits::NONE,
            readers: 1,
        };
        let mut writer = Writer::new(limits);
        let config = RegionConfig { frames: 16, chunk_size: 2048, large: None, hugepages: false };
        let pool = Region::new(config).unwrap().1;
        let rehearsal = Rehearsal::new(writer.reader().unwrap(), pool, Flows::new(16), 4);
        (Traces::new(rehearsal, Tracing::new(4)), writer)
    }

    fn port() -> tables::Port {
        tables::Port {
            id: PortId(1),
            name: "eth0".to_owned(),
            ifindex: model::IfIndex(2),
            kind: model::PortKind::Uplink,
            mac: model::MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            queues: 1,
            endpoint: None,
        }
    }

    fn packet() -> PacketQuestion {
        PacketQuestion {
            port: Some("eth0".to_owned()),
            source: Some("192.0.2.1".parse().unwrap()),
            destination: Some("192.0.2.9".parse().unwrap()),
            protocol: 17,
            ttl: 64,
            ..PacketQuestion::default()
        }
    }

    #[test]
    fn a_packet_is_walked_by_the_tables_that_are_there() {
        let (traces, mut writer) = traces();
        assert_eq!(traces.walk(&packet()), Err(Untraceable::NoPort("eth0".to_owned())));
        writer.put_port(port()).unwrap();
        writer.publish();
        let trace = traces.walk(&packet()).unwrap();
        assert_eq!(
            (trace.ended, trace.fate),
            (Stage::Admit, Fate::Drop(DropReason::NotReady)),
            "forwarding isn't open yet"
        );
        writer.set_ready(true);
        writer.publish();
        assert_eq!(traces.walk(&packet()).unwrap().ended, Stage::Route);
        let nobody = PacketQuestion { port: None, ..packet() };
        assert_eq!(traces.walk(&nobody), Err(Untraceable::NoSender("192.0.2.1".parse().unwrap())));
        let nowhere = PacketQuestion { destination: None, ..packet() };
        assert_eq!(traces.walk(&nowhere), Err(Untraceable::NoAddress));
    }

    #[test]
    fn packets_are_followed_for_one_at_a_time_and_not_for_ever() {
        let (traces, _writer) = traces();
        let all = FilterQuestion::default();
        let id = traces.follow(&all, 3, 60).unwrap();
        assert!(matches!(traces.follow(&all, 3, 60), Err(Untraceable::Busy(_))));
        assert_eq!(traces.found(id), Ok((Vec::new(), true, 0)));
        assert_eq!(traces.found(id + 1), Err(Untraceable::Over));
        traces.end(id + 1);
        assert!(traces.0.tracing.is_on(), "that was somebody else");
        traces.end(id);
        assert!(!traces.0.tracing.is_on());
        assert_eq!(traces.found(id), Ok((Vec::new(), false, 0)), "what was found may still be asked for");
        assert_eq!(traces.follow(&all, 3, 60), Ok(id + 1));
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let (traces, _writer) = traces();
        let filter = FilterQuestion { source: Some("10.0.0.0/40".to_owned()), ..FilterQuestion::default() };
        assert_eq!(traces.follow(&filter, 1, 1), Err(Untraceable::NotANetwork("10.0.0.0/40".to_owned())));
        let filter = FilterQuestion { reason: Some("no_such".to_owned()), ..FilterQuestion::default() };
        assert_eq!(traces.follow(&filter, 1, 1), Err(Untraceable::NoSuchReason("no_such".to_owned())));
        let filter = FilterQuestion { port: Some("eth9".to_owned()), ..FilterQuestion::default() };
        assert_eq!(traces.follow(&filter, 1, 1), Err(Untraceable::NoPort("eth9".to_owned())));
        let filter = FilterQuestion { reason: Some("blackhole".to_owned()), ..FilterQuestion::default() };
        assert_eq!(traces.filter(&filter).unwrap().dropped, Some(Some(DropReason::Blackhole)));
    }
}
