//! BGPConfiguration (`api/pkg/apis/projectcalico/v3/bgpconfig.go`).

use std::collections::BTreeMap;
use std::str::FromStr;

use model::{
    BgpCommunity, BgpConfiguration, ClusterRoutes, InterfaceAddr, Prefix, PrefixAdvertisement, Resource,
};

use super::{Identity, Outcome, bgp_filter, bgp_peer};
use crate::fields::{Fault, Field, Object};
use crate::invalid::Reason;
use crate::validate;

/// They are the cluster's, not one node's.
const DEFAULT_ONLY: &[&str] =
    &["nodeToNodeMeshEnabled", "asNumber", "nodeMeshMaxRestartTime", "nodeMeshPassword"];
/// What Calico reads from the cluster's configuration and leaves alone in a node's
/// (`updateBGPConfigCache` in `confd/pkg/backends/calico/client.go`).
const UNREAD_FOR_ONE_NODE: &[&str] = &[
    "bindMode",
    "serviceClusterIPs",
    "serviceExternalIPs",
    "serviceLoadBalancerIPs",
    "ignoredInterfaces",
    "ipv4NormalRoutePriority",
    "ipv6NormalRoutePriority",
    "localWorkloadPeeringIPV4",
    "localWorkloadPeeringIPV6",
    "programClusterRoutes",
];
/// Lists may have so many entries.
const ADVERTISEMENTS_MAX: usize = 500;
const COMMUNITIES_MAX: usize = 50;
/// LOCAL_PREF stands for a kernel metric below this.
const PRIORITY_MAX: i64 = 2_147_483_646;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    check_name(identity)?;
    let for_all = identity.name == "default";
    if !for_all && let Some(field) = DEFAULT_ONLY.iter().find_map(|name| spec.field(name)) {
        return Err(field.fault(Reason::DefaultOnly));
    }
    check_severity(spec)?;
    let mesh = spec.flag("nodeToNodeMeshEnabled")?;
    let of_mesh = ["nodeMeshPassword", "nodeMeshMaxRestartTime"].iter().find_map(|name| spec.field(name));
    if let (Some(false), Some(field)) = (mesh, of_mesh) {
        return Err(field.fault(Reason::Needs("spec.nodeToNodeMeshEnabled")));
    }
    let mesh_password = bgp_peer::secret_key(spec, "nodeMeshPassword")?;
    let config = BgpConfiguration {
        name: identity.name.clone(),
        node_to_node_mesh: mesh,
        as_number: spec.field("asNumber").map(|field| validate::as_number(&field)).transpose()?,
        listen_port: spec.field("listenPort").map(|field| validate::port(&field)).transpose()?,
        mesh_max_restart_time: spec
            .field("nodeMeshMaxRestartTime")
            .map(|field| validate::duration(&field))
            .transpose()?,
        mesh_password,
        bind_to_node_address: match spec.text("bindMode")? {
            Some((field, _)) => field.one_of(&["None", "NodeIP"], &[false, true])?,
            None => false,
        },
        prefix_advertisements: prefix_advertisements(spec)?,
        service_cluster_ips: networks(spec, "serviceClusterIPs")?,
        service_external_ips: networks(spec, "serviceExternalIPs")?,
        service_load_balancer_ips: networks(spec, "serviceLoadBalancerIPs")?,
        load_balancers_one_by_one: match spec.text("serviceLoadBalancerAggregation")? {
            Some((field, _)) => field.one_of(&["Enabled", "Disabled"], &[false, true])?,
            None => false,
        },
        ignored_interfaces: ignored_interfaces(spec)?,
        local_workload_peering_v4: address(spec, "localWorkloadPeeringIPV4")?,
        local_workload_peering_v6: address(spec, "localWorkloadPeeringIPV6")?,
        normal_route_priority_v4: priority(spec, "ipv4NormalRoutePriority")?,
        normal_route_priority_v6: priority(spec, "ipv6NormalRoutePriority")?,
        cluster_routes: match spec.text("programClusterRoutes")? {
            Some((field, _)) => Some(field.one_of(&ClusterRoutes::WORDS, &ClusterRoutes::MEANINGS)?),
            None => None,
        },
    };
    let mut outcome = Outcome::of(Resource::BgpConfiguration(config));
    let unread = UNREAD_FOR_ONE_NODE.iter().filter(|_| !for_all).filter_map(|name| spec.field(name));
    let unread = unread.filter(|field| !field.is_empty());
    outcome.unused.extend(unread.map(|field| (field.path().to_owned(), field.position())));
    Ok(outcome)
}

fn check_name(identity: &Identity<'_>) -> Result<(), Fault> {
    let per_node = identity.name.strip_prefix("node.").is_some_and(|node| !node.is_empty());
    if identity.name == "default" || per_node {
        return Ok(());
    }
    Err(identity.name_field.fault(Reason::BadBgpConfigurationName(identity.name.clone())))
}

/// What BIRD would log, in whichever case.
fn check_severity(spec: &Object<'_>) -> Result<(), Fault> {
    const WORDS: &[&str] = &["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
    match spec.text("logSeverityScreen")? {
        Some((field, given)) if !WORDS.iter().any(|word| word.eq_ignore_ascii_case(given)) => {
            Err(field.fault(Reason::NotOneOf { allowed: WORDS, given: given.to_owned() }))
        }
        _ => Ok(()),
    }
}

fn ignored_interfaces(spec: &Object<'_>) -> Result<Vec<String>, Fault> {
    let Some(field) = spec.field("ignoredInterfaces") else { return Ok(Vec::new()) };
    let name = |item: Field<'_>| match item.text()? {
        // All of them at once is what Calico refuses.
        "*" => Err(item.fault(Reason::BadInterface("*".to_owned()))),
        name => bgp_filter::interface(&item, name),
    };
    field.items()?.map(name).collect()
}

fn priority(spec: &Object<'_>, name: &str) -> Result<Option<u32>, Fault> {
    spec.field(name).map(|field| field.number(1, PRIORITY_MAX)).transpose()
}

fn address<A: FromStr>(spec: &Object<'_>, name: &str) -> Result<Option<A>, Fault> {
    let Some((field, text)) = spec.text(name)? else { return Ok(None) };
    let bad = || Reason::BadForm { expected: "an address of that family", given: text.to_owned() };
    text.parse().map(Some).map_err(|_| field.fault(bad()))
}

/// Entries of the form `cidr: NETWORK`, where an address stands for itself alone.
fn networks(spec: &Object<'_>, name: &str) -> Result<Vec<Prefix>, Fault> {
    let Some(field) = spec.field(name) else { return Ok(Vec::new()) };
    field.items()?.map(|item| network(&item.object()?)).collect()
}

fn network(of: &Object<'_>) -> Result<Prefix, Fault> {
    let (field, _) = of.required_text("cidr")?;
    Ok(field.parse::<InterfaceAddr>()?.network())
}

fn prefix_advertisements(spec: &Object<'_>) -> Result<Option<Vec<PrefixAdvertisement>>, Fault> {
    let names = named_communities(spec)?;
    let advertised = spec.field("prefixAdvertisements");
    if let Some(field) = spec.field("communities")
        && !names.is_empty()
        && advertised.as_ref().is_none_or(Field::is_empty)
    {
        return Err(field.fault(Reason::Needs("spec.prefixAdvertisements")));
    }
    let Some(field) = advertised else { return Ok(None) };
    validate::at_most(&field, field.items()?.count(), ADVERTISEMENTS_MAX, "entries")?;
    field.items()?.map(|item| advertisement(&item.object()?, &names)).collect::<Result<_, _>>().map(Some)
}

fn named_communities(spec: &Object<'_>) -> Result<BTreeMap<String, BgpCommunity>, Fault> {
    let Some(field) = spec.field("communities") else { return Ok(BTreeMap::new()) };
    let mut names = BTreeMap::new();
    for item in field.items()? {
        let item = item.object()?;
        let (_, name) = item.required_text("name")?;
        let community = bgp_filter::community(&item.required("value")?)?;
        // Of equal names the first counts, as with confd.
        names.entry(name.to_owned()).or_insert(community);
    }
    Ok(names)
}

fn advertisement(
    of: &Object<'_>,
    names: &BTreeMap<String, BgpCommunity>,
) -> Result<PrefixAdvertisement, Fault> {
    let mut communities = Vec::new();
    let field = of.required("communities")?;
    validate::at_most(&field, field.items()?.count(), COMMUNITIES_MAX, "communities")?;
    for item in field.items()? {
        let community = value_or_named(&item, names)?;
        if !communities.contains(&community) {
            communities.push(community);
        }
    }
    Ok(PrefixAdvertisement { cidr: network(of)?, communities })
}

/// `aa:nn`, `aa:nn:mm`, or a name out of `spec.communities`.
fn value_or_named(field: &Field<'_>, names: &BTreeMap<String, BgpCommunity>) -> Result<BgpCommunity, Fault> {
    let text = field.text()?;
    match names.get(text) {
        Some(named) => Ok(*named),
        None => bgp_filter::community(field),
    }
}
