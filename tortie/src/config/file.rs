//! `tortie.yaml` as it is written: every value with its place, nothing judged yet.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Largest file that is read, in bytes: a hundred times what every field together needs.
pub(super) const MAX_BYTES: u64 = 64 * 1024;

/// A value and its place in the file.
pub(super) type Entry = Spanned<Scalar>;

/// What a field may hold. Types are judged later, where the field's name is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i128),
    Fraction,
    Text(String),
    List(Vec<Entry>),
    Mapping,
}

impl Scalar {
    /// The type, as an error message names it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Scalar::Null => "nothing",
            Scalar::Bool(_) => "true or false",
            Scalar::Int(_) => "a number",
            Scalar::Fraction => "a decimal number",
            Scalar::Text(_) => "a text",
            Scalar::List(_) => "a list",
            Scalar::Mapping => "a mapping",
        }
    }
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) node: Option<Entry>,
    pub(super) datastore: Option<Section<Datastore>>,
    pub(super) uplinks: Option<Entry>,
    pub(super) workloads: Option<Section<Workloads>>,
    pub(super) workers: Option<Entry>,
    pub(super) cores: Option<Entry>,
    pub(super) control_socket: Option<Entry>,
    pub(super) bird_sockets: Option<Entry>,
    pub(super) metrics: Option<Section<EndpointFields>>,
    pub(super) looking_glass: Option<Section<EndpointFields>>,
    pub(super) log: Option<Section<Log>>,
    pub(super) mode: Option<Entry>,
    pub(super) queues: Option<Entry>,
    pub(super) waiting: Option<Entry>,
    pub(super) segments: Option<Vec<Section<SegmentFields>>>,
    pub(super) bgp: Option<Section<BgpFields>>,
    pub(super) bfd: Option<Section<Bfd>>,
    pub(super) ecmp: Option<Section<Ecmp>>,
    pub(super) limits: Option<Section<LimitsFields>>,
    pub(super) startup: Option<Section<StartupFields>>,
    pub(super) tuning: Option<Section<TuningFields>>,
}

/// What may be changed of the machine.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TuningFields {
    pub(super) queues: Option<Entry>,
    pub(super) interrupts: Option<Entry>,
    pub(super) governor: Option<Entry>,
    pub(super) rings: Option<Entry>,
    pub(super) defer_hard_irqs: Option<Entry>,
    pub(super) gro_flush_timeout: Option<Entry>,
}

/// A VXLAN segment.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SegmentFields {
    pub(super) name: Option<Entry>,
    pub(super) vni: Option<Entry>,
    pub(super) port: Option<Entry>,
    pub(super) local: Option<Entry>,
    pub(super) mac: Option<Entry>,
    pub(super) addresses: Option<Entry>,
    pub(super) direct_routing: Option<Entry>,
    pub(super) flood: Option<Entry>,
    pub(super) group: Option<Entry>,
    pub(super) members: Option<Entry>,
    pub(super) ageing: Option<Entry>,
    pub(super) ends: Option<Vec<Section<EndFields>>>,
}

/// Another end of a segment.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EndFields {
    pub(super) remote: Option<Entry>,
    pub(super) address: Option<Entry>,
    pub(super) mac: Option<Entry>,
    pub(super) networks: Option<Entry>,
}

/// BGP beyond Calico's resources.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BgpFields {
    pub(super) router_id: Option<Entry>,
    pub(super) secrets: Option<Entry>,
    pub(super) announce: Option<Entry>,
    pub(super) networks: Option<Entry>,
    pub(super) redistribute: Option<Entry>,
    pub(super) aggregates: Option<Vec<Section<AggregateFields>>>,
    pub(super) peers: Option<Vec<Section<PeerGroupFields>>>,
    pub(super) bmp: Option<Vec<Section<StationFields>>>,
}

/// A monitoring station.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StationFields {
    pub(super) station: Option<Entry>,
    pub(super) routes: Option<Entry>,
    pub(super) statistics: Option<Entry>,
    pub(super) buffer: Option<Entry>,
}

/// A network announced as there is a route inside it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AggregateFields {
    pub(super) prefix: Option<Entry>,
    pub(super) summary_only: Option<Entry>,
}

/// The peers at the addresses of a range.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PeerGroupFields {
    pub(super) range: Option<Entry>,
    pub(super) accept: Option<Entry>,
    pub(super) limit: Option<Entry>,
    pub(super) default_route: Option<Entry>,
    pub(super) next_hop: Option<Entry>,
    pub(super) prefix_limit: Option<Section<PrefixLimitFields>>,
    pub(super) families: Option<Entry>,
    pub(super) add_paths: Option<Entry>,
    pub(super) send_paths: Option<Entry>,
    pub(super) restart_time: Option<Entry>,
    pub(super) long_lived_time: Option<Entry>,
    pub(super) survive_notification: Option<Entry>,
    pub(super) extended_messages: Option<Entry>,
    pub(super) role: Option<Entry>,
    pub(super) strict_role: Option<Entry>,
    pub(super) require_policy: Option<Entry>,
    pub(super) blackhole: Option<Entry>,
    pub(super) link_bandwidth: Option<Entry>,
    pub(super) ipv4_over_ipv6: Option<Entry>,
    pub(super) bfd: Option<Entry>,
    pub(super) hold_time: Option<Entry>,
    pub(super) keepalive_time: Option<Entry>,
    pub(super) ttl_security: Option<Entry>,
    pub(super) password: Option<Entry>,
}

/// How many paths a peer may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PrefixLimitFields {
    pub(super) most: Option<Entry>,
    pub(super) warn: Option<Entry>,
    pub(super) action: Option<Entry>,
    pub(super) rest: Option<Entry>,
}

/// Where resources are kept.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Datastore {
    pub(super) directory: Option<Entry>,
    pub(super) etcd: Option<Section<EtcdFields>>,
}

/// An etcd that keeps resources.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EtcdFields {
    pub(super) endpoints: Option<Entry>,
    pub(super) discovery_srv: Option<Entry>,
    pub(super) username: Option<Entry>,
    pub(super) password: Option<Entry>,
    pub(super) ca_file: Option<Entry>,
    pub(super) cert_file: Option<Entry>,
    pub(super) key_file: Option<Entry>,
}

/// Which interfaces lead to workloads.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Workloads {
    pub(super) prefix: Option<Entry>,
    pub(super) mtu: Option<Entry>,
    pub(super) mtu_file: Option<Entry>,
}

/// Where the router answers over HTTP.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EndpointFields {
    pub(super) listen: Option<Entry>,
    pub(super) interface: Option<Entry>,
    pub(super) everywhere: Option<Entry>,
    pub(super) tls: Option<Section<TlsFields>>,
}

/// Who it is there, and who may ask.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsFields {
    pub(super) cert_file: Option<Entry>,
    pub(super) key_file: Option<Entry>,
    pub(super) client_ca_file: Option<Entry>,
}

/// How the log is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Option<Entry>,
    pub(super) level: Option<Entry>,
}

/// How peers are watched.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Bfd {
    pub(super) minimum_recv_interval: Option<Entry>,
    pub(super) minimum_send_interval: Option<Entry>,
    pub(super) idle_send_interval: Option<Entry>,
    pub(super) multiplier: Option<Entry>,
    pub(super) multihop: Option<Entry>,
    pub(super) mesh: Option<Entry>,
}

/// How flows choose among equally good next hops.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ecmp {
    pub(super) symmetric: Option<Entry>,
    pub(super) seed: Option<Entry>,
}

/// Sizes that differ from the defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsFields {
    pub(super) routes_v4: Option<Entry>,
    pub(super) routes_v6: Option<Entry>,
    pub(super) ports: Option<Entry>,
    pub(super) adjacencies: Option<Entry>,
    pub(super) groups: Option<Entry>,
    pub(super) frames: Option<Entry>,
    pub(super) large_frames: Option<Entry>,
    pub(super) mtu: Option<Entry>,
    pub(super) neighbors: Option<Entry>,
    pub(super) mirror_routes: Option<Entry>,
    pub(super) prefixes_per_peer: Option<Entry>,
    pub(super) flows: Option<Entry>,
    pub(super) nat_ports_per_address: Option<Entry>,
    pub(super) policy_programs: Option<Entry>,
    pub(super) policy_rules: Option<Entry>,
    pub(super) policy_members: Option<Entry>,
    pub(super) policy_bytes: Option<Entry>,
}

/// What the node tells of itself at its start, by name: the names are `config/startup.rs`'s.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct StartupFields(pub(super) BTreeMap<String, Entry>);

/// A mapping that says what it should look like where something else stands in its place.
#[derive(Debug, Default)]
pub(super) struct Section<T>(pub(super) T);

/// How a section is written, for error messages.
pub(super) trait Written {
    const EXPECTED: &'static str;
}

impl Written for File {
    const EXPECTED: &'static str = "fields such as `node: node1`";
}

impl Written for Datastore {
    const EXPECTED: &'static str = "a mapping such as `datastore: { directory: /etc/tortie/resources }`";
}

impl Written for EtcdFields {
    const EXPECTED: &'static str = "a mapping such as `etcd: { endpoints: [\"https://etcd1:2379\"] }`";
}

impl Written for Workloads {
    const EXPECTED: &'static str = "a mapping such as `workloads: { prefix: cali }`";
}

impl Written for EndpointFields {
    const EXPECTED: &'static str = "a mapping such as `metrics: { listen: \"127.0.0.1:9191\" }`";
}

impl Written for TlsFields {
    const EXPECTED: &'static str =
        "a mapping such as `tls: { cert_file: /etc/tortie/router.crt, key_file: /etc/tortie/router.key }`";
}

impl Written for Log {
    const EXPECTED: &'static str = "a mapping such as `log: { format: text, level: info }`";
}

impl Written for SegmentFields {
    const EXPECTED: &'static str =
        "a mapping such as `{ name: site, local: 192.168.1.2, mac: \"5a:00:00:00:00:07\" }`";
}

impl Written for EndFields {
    const EXPECTED: &'static str =
        "a mapping such as `{ remote: 192.168.1.3, address: 10.244.1.0, mac: \"5a:00:00:00:00:01\" }`";
}

impl Written for Bfd {
    const EXPECTED: &'static str = "a mapping such as `bfd: { minimum_send_interval: 100, multiplier: 5 }`";
}

impl Written for BgpFields {
    const EXPECTED: &'static str = "a mapping such as `bgp: { announce: all }`";
}

impl Written for AggregateFields {
    const EXPECTED: &'static str = "a mapping such as `{ prefix: 10.65.0.0/16, summary_only: true }`";
}

impl Written for PeerGroupFields {
    const EXPECTED: &'static str = "a mapping such as `{ range: 10.1.0.0/24, accept: any }`";
}

impl Written for StationFields {
    const EXPECTED: &'static str = "a mapping such as `{ station: \"192.0.2.9:11019\" }`";
}

impl Written for PrefixLimitFields {
    const EXPECTED: &'static str = "a mapping such as `prefix_limit: { most: 1000, action: drop }`";
}

impl Written for Ecmp {
    const EXPECTED: &'static str = "a mapping such as `ecmp: { symmetric: true, seed: 7 }`";
}

impl Written for LimitsFields {
    const EXPECTED: &'static str = "a mapping such as `limits: { routes_v4: 100000 }`";
}

impl Written for TuningFields {
    const EXPECTED: &'static str = "a mapping such as `tuning: { queues: auto, rings: 1024 }`";
}

impl Written for StartupFields {
    const EXPECTED: &'static str = "a mapping such as `startup: { ip: autodetect, as: 64512 }`";
}

impl<'de, T: Deserialize<'de> + Written> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SectionVisitor(PhantomData)).map(Section)
    }
}

struct SectionVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Written> Visitor<'de> for SectionVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_none<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        Scalar::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Scalar, E> {
        Ok(Scalar::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Scalar, E> {
        Ok(i128::try_from(value).map_or(Scalar::Fraction, Scalar::Int))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Fraction)
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Scalar::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<Scalar, Scalar>()?.is_some() {}
        Ok(Scalar::Mapping)
    }
}
