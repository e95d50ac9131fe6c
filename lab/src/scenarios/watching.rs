//! A router that is watched: by people through its looking glass, and by Prometheus.

mod looking_glass;
mod prometheus;

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use model::Family;

use crate::Lab;
use crate::cluster::{Cluster, ClusterPlan, Node, NodePlan, Router, RouterKind};
use crate::process::Process;
use crate::tortie::{Settings, TortieNode};
use crate::traffic::{self, Session};

pub(super) use looking_glass::LOOKING_GLASS;
pub(super) use prometheus::MONITORING;

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("10.65.0.0/16", 26), ("fd65::/48", 122)],
    nodes: &[
        NodePlan {
            name: "gateway",
            router: RouterKind::Tortie,
            addresses: ["172.18.0.2/24", "fd18::2/64"],
            blocks: ["10.65.0.0/26", "fd65::/122"],
            workloads: 3,
        },
        NodePlan {
            name: "rack1",
            router: RouterKind::Bird,
            addresses: ["172.18.0.3/24", "fd18::3/64"],
            blocks: ["10.65.0.64/26", "fd65::40/122"],
            workloads: 1,
        },
        NodePlan {
            name: "rack2",
            router: RouterKind::Bird,
            addresses: ["172.18.0.4/24", "fd18::4/64"],
            blocks: ["10.65.0.128/26", "fd65::80/122"],
            workloads: 1,
        },
    ],
};

/// Where the router answers, in its own namespace.
const METRICS: &str = "127.0.0.1:9191";
const GLASS: &str = "127.0.0.1:9192";
/// What the database serves.
const MYSQL: u16 = 3306;

/// Frontends may ask the database on its port, and a staged policy would let it answer nobody.
const POLICIES: &str = "\
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: database}
  spec:
    order: 10
    selector: role == 'database'
    types: [Ingress, Egress]
    ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'frontend'}, destination: {ports: [3306]}}]
    egress: [{action: Allow}]
- apiVersion: projectcalico.org/v3
  kind: StagedGlobalNetworkPolicy
  metadata: {name: lockdown}
  spec: {order: 5, selector: role == 'database', types: [Ingress], ingress: [{action: Deny}]}
";

/// The site, with traffic that passes and traffic that policy denies.
struct Site<'a> {
    cluster: Cluster<'a>,
    session: Session,
    _others: Vec<Process>,
}

impl Site<'_> {
    fn raise<'a>(lab: &'a Lab) -> Result<Site<'a>> {
        let mut cluster = Cluster::raise(lab, &PLAN)?;
        let glass = format!("looking_glass: {{ listen: \"{GLASS}\" }}\n");
        let settings = Settings { metrics: Some(METRICS.parse()?), more: glass, ..Settings::default() };
        let gateway = &cluster.nodes[0];
        let watched =
            TortieNode::configure(lab, &gateway.namespace, cluster.resources.directory(), &settings)?;
        cluster.nodes[0].router = Router::Tortie(watched);
        for (workload, role) in
            [("gateway-w1", "frontend"), ("gateway-w2", "database"), ("gateway-w3", "stranger")]
        {
            let labels = format!("{{role: {role}}}");
            cluster.resources.endpoint_policy(
                "gateway",
                workload,
                &labels,
                "[projectcalico-default-allow]",
            )?;
        }
        cluster.resources.qos_controls(
            "gateway",
            "gateway-w3",
            "{egressPacketRate: 1000, egressPacketBurst: 100}",
        )?;
        cluster.resources.write("policies.yaml", POLICIES)?;
        cluster.start()?;
        cluster.mesh_is_up(0)?;
        cluster.blocks_are_known()?;
        let (site, others) = traffic(lab, &cluster)?;
        Ok(Site { cluster, session: site, _others: others })
    }

    fn gateway(&self) -> &Node {
        &self.cluster.nodes[0]
    }
}

/// A session that policy allows, pings between racks and workloads, and a stranger that policy denies.
fn traffic(lab: &Lab, cluster: &Cluster<'_>) -> Result<(Session, Vec<Process>)> {
    let [frontend, database, stranger] = &cluster.nodes[0].workloads[..] else {
        anyhow::bail!("the gateway has three workloads");
    };
    let server = SocketAddr::new(database.address(Family::V4)?, MYSQL);
    let session = Session::open_at(lab, &frontend.namespace, &database.namespace, server)?;
    let mut others = Vec::new();
    for (number, (from, to)) in [
        (frontend, &cluster.nodes[1].workloads[0]),
        (stranger, &cluster.nodes[2].workloads[0]),
        (stranger, database),
    ]
    .into_iter()
    .enumerate()
    {
        for family in Family::ALL {
            let mut ping: Command = from.namespace.command("ping");
            ping.args(["-n", "-q", "-i", "0.01", "-s", "1000"]).arg(to.address(family)?.to_string());
            others.push(lab.spawn(&format!("ping-{number}-{family}"), ping)?);
        }
    }
    traffic::knock(lab, &stranger.namespace, server)?;
    Ok((session, others))
}
