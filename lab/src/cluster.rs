//! A Calico cluster: nodes on one subnet, each with a router, blocks and workloads.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use model::{Family, InterfaceAddr, Prefix};

use crate::bird::{Bird, CalicoNode, Session};
use crate::link::{self, Fabric};
use crate::netns::Namespace;
use crate::resources::{REFLECTOR, Resources};
use crate::tortie::{Settings, TortieNode};
use crate::workload::Workload;
use crate::{Lab, books, traffic};

/// How long sessions and routes may take: BIRD waits up to 30 s after an error, and it may come to a second one.
pub const CONVERGE: Duration = Duration::from_secs(180);
/// How long the first packet of a way may take.
const FIRST_REPLY: Duration = Duration::from_secs(60);

/// The nodes' interface towards the fabric.
pub const UPLINK: &str = "eth0";

/// Which router a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    /// Tortie.
    Tortie,
    /// BIRD and the kernel's forwarding.
    Bird,
}

/// One node to be raised.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// Its name.
    pub name: &'static str,
    /// Its router.
    pub router: RouterKind,
    /// Its addresses on the subnet, IPv4 then IPv6.
    pub addresses: [&'static str; 2],
    /// Its blocks, IPv4 then IPv6.
    pub blocks: [&'static str; 2],
    /// How many workloads it gets; they take the block's addresses from the second one on.
    pub workloads: u8,
}

/// A cluster to be raised.
#[derive(Clone, Copy, Debug)]
pub struct ClusterPlan {
    /// What the namespace of the switch between the nodes is called.
    pub fabric: &'static str,
    /// The cluster's AS number.
    pub as_number: u32,
    /// Its pools, with the size of their blocks.
    pub pools: [(&'static str, u8); 2],
    /// Its nodes.
    pub nodes: &'static [NodePlan],
}

/// A node's router.
pub enum Router {
    /// Tortie.
    Tortie(TortieNode),
    /// BIRD; `None` until it is started.
    Bird(Option<Bird>),
}

/// A raised node.
pub struct Node {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its addresses on the subnet.
    pub addresses: Vec<InterfaceAddr>,
    /// Its blocks.
    pub blocks: Vec<Prefix>,
    /// Its workloads.
    pub workloads: Vec<Workload>,
    /// Its router.
    pub router: Router,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its Tortie.
    ///
    /// # Errors
    /// It has another router.
    pub fn tortie(&self) -> Result<&TortieNode> {
        match &self.router {
            Router::Tortie(tortie) => Ok(tortie),
            Router::Bird(_) => anyhow::bail!("{} has no tortie", self.name()),
        }
    }

    /// Its BIRD.
    ///
    /// # Errors
    /// It has another router, or BIRD is not started.
    pub fn bird(&self) -> Result<&Bird> {
        match &self.router {
            Router::Bird(Some(bird)) => Ok(bird),
            _ => anyhow::bail!("{} has no running bird", self.name()),
        }
    }

    /// Its address of a family on the subnet.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| Family::of(address.addr) == family);
        found
            .map(|address| address.addr)
            .with_context(|| format!("{} has no {family:?} address", self.name()))
    }

    /// Its block of a family.
    ///
    /// # Errors
    /// It has none.
    pub fn block(&self, family: Family) -> Result<Prefix> {
        let found = self.blocks.iter().copied().find(|block| block.family() == family);
        found.with_context(|| format!("{} has no {family:?} block", self.name()))
    }
}

/// A raised cluster.
pub struct Cluster<'lab> {
    lab: &'lab Lab,
    plan: ClusterPlan,
    /// The switch between the nodes.
    pub fabric: Fabric,
    /// The resources that the nodes read.
    pub resources: Resources,
    /// The nodes, in the plan's order.
    pub nodes: Vec<Node>,
    /// Names of the nodes that reflect routes to the others, which then have no mesh.
    reflectors: &'static [&'static str],
}

impl<'lab> Cluster<'lab> {
    /// Raises fabric, nodes and workloads and writes their resources; no router runs yet.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn raise(lab: &'lab Lab, plan: &ClusterPlan) -> Result<Cluster<'lab>> {
        Cluster::raise_with(lab, plan, &Settings::default())
    }

    /// As [`Cluster::raise`], with what stands in the configuration of its Tortie nodes.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn raise_with(lab: &'lab Lab, plan: &ClusterPlan, settings: &Settings) -> Result<Cluster<'lab>> {
        lab.step(&format!("raising {}", plan.fabric));
        let fabric = Fabric::raise(lab, plan.fabric)?;
        let resources = Resources::create(lab.directory().join("resources"))?;
        resources.bgp_configuration(true, plan.as_number)?;
        for (index, (pool, block_size)) in plan.pools.iter().enumerate() {
            resources.plain_pool(&format!("pool-{index}"), pool.parse()?, *block_size)?;
        }
        let mut cluster = Cluster { lab, plan: *plan, fabric, resources, nodes: Vec::new(), reflectors: &[] };
        for node in plan.nodes {
            lab.step(&format!("raising {}", node.name));
            let node = cluster.raise_node(node, settings)?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Turns the mesh off and makes these nodes reflectors of all others, in one cluster, and peers of each other. Before
    /// [`Cluster::start`].
    ///
    /// # Errors
    /// A resource cannot be written.
    pub fn reflect(&mut self, reflectors: &'static [&'static str], cluster: Ipv4Addr) -> Result<()> {
        self.reflectors = reflectors;
        self.resources.bgp_configuration(false, self.plan.as_number)?;
        for node in self.nodes.iter().filter(|node| self.is_reflector(node)) {
            self.resources.reflector(node.name(), [node.addresses[0], node.addresses[1]], cluster)?;
        }
        let (reflects, does_not) = (format!("has({REFLECTOR})"), format!("!has({REFLECTOR})"));
        self.resources.bgp_peer_nodes("nodes-with-reflectors", &does_not, &reflects)?;
        self.resources.bgp_peer_nodes("reflectors", &reflects, &reflects)
    }

    fn is_reflector(&self, node: &Node) -> bool {
        self.reflectors.contains(&node.name())
    }

    /// Do two nodes speak BGP with each other?
    fn are_peers(&self, one: &Node, other: &Node) -> bool {
        let meet = self.reflectors.is_empty() || self.is_reflector(one) || self.is_reflector(other);
        one.name() != other.name() && meet
    }

    fn raise_node(&self, plan: &NodePlan, settings: &Settings) -> Result<Node> {
        let namespace = self.lab.namespace(plan.name)?;
        namespace.forward()?;
        self.fabric.attach(&namespace, UPLINK)?;
        let addresses =
            plan.addresses.iter().map(|text| text.parse()).collect::<Result<Vec<InterfaceAddr>, _>>()?;
        for &address in &addresses {
            link::add_address(&namespace, UPLINK, address)?;
        }
        self.resources.node(plan.name, Some(addresses[0]), Some(addresses[1]))?;
        if plan.router == RouterKind::Bird {
            // The kernel answers ARP by proxy only for what it could forward: the gateway of the workloads, too.
            let gateway = nth(addresses[0].network(), 1);
            namespace.ip(&format!("route add default via {gateway} dev {UPLINK}"))?;
        }
        let blocks = plan.blocks.iter().map(|text| text.parse()).collect::<Result<Vec<Prefix>, _>>()?;
        for &block in &blocks {
            self.resources.block(plan.name, block)?;
        }
        let mut workloads = Vec::new();
        for index in 1..=plan.workloads {
            let name = format!("{}-w{index}", plan.name);
            let addresses: Vec<IpAddr> = blocks.iter().map(|&block| nth(block, index)).collect();
            let workload = Workload::raise(self.lab, &self.resources, &namespace, &name, &addresses)?;
            if plan.router == RouterKind::Bird {
                workload.plug_into_kernel(&namespace)?;
            }
            workloads.push(workload);
        }
        let router = match plan.router {
            RouterKind::Tortie => Router::Tortie(TortieNode::configure(
                self.lab,
                &namespace,
                self.resources.directory(),
                settings,
            )?),
            RouterKind::Bird => Router::Bird(None),
        };
        Ok(Node { namespace, addresses, blocks, workloads, router })
    }

    /// Starts every router, and waits until every workload reaches every other.
    ///
    /// # Errors
    /// A router does not start, or the mesh, a block or a ping fails.
    pub fn comes_up(&mut self) -> Result<()> {
        self.start()?;
        self.mesh_is_up(0)?;
        self.blocks_are_known()?;
        self.everybody_reaches_everybody()
    }

    /// Starts every router.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            match &self.nodes[index].router {
                Router::Tortie(tortie) => tortie.start(self.lab)?,
                Router::Bird(_) => {
                    let configuration = self.bird_of(&self.nodes[index])?.render();
                    let bird = Bird::start(self.lab, &self.nodes[index].namespace, &configuration)?;
                    self.nodes[index].router = Router::Bird(Some(bird));
                }
            }
        }
        Ok(())
    }

    /// What Calico's templates would tell the BIRD of `node`.
    fn bird_of(&self, node: &Node) -> Result<CalicoNode> {
        let IpAddr::V4(router_id) = node.address(Family::V4)? else {
            anyhow::bail!("{} has no IPv4 address for its router id", node.name());
        };
        let mut sessions = Vec::new();
        for family in Family::ALL {
            for other in self.nodes.iter().filter(|other| self.are_peers(node, other)) {
                let mesh = Session::mesh(node.address(family)?, other.address(family)?, self.plan.as_number);
                // Outside the mesh both ends connect.
                sessions.push(Session { passive: mesh.passive && self.reflectors.is_empty(), ..mesh });
            }
        }
        let pools = self.plan.pools.iter().map(|(pool, _)| pool.parse()).collect::<Result<_, _>>()?;
        Ok(CalicoNode { router_id, blocks: node.blocks.clone(), pools, sessions })
    }

    /// Waits until every session of the mesh, or with the reflectors, is Established on both sides, and `more` others of
    /// each node.
    ///
    /// # Errors
    /// A session does not come up in time.
    pub fn mesh_is_up(&self, more: usize) -> Result<()> {
        let mut sessions = 0;
        for node in &self.nodes {
            let peers = self.nodes.iter().filter(|other| self.are_peers(node, other)).count();
            let expected = peers * Family::ALL.len() + more;
            sessions += expected;
            self.lab.wait(&format!("the BGP sessions of {}", node.name()), CONVERGE, || {
                match &node.router {
                    Router::Tortie(tortie) => tortie.established(expected).map(|_| ())?,
                    Router::Bird(_) => node.bird()?.established(expected)?,
                }
                Ok(Some(()))
            })?;
        }
        self.lab
            .proved(format!("{sessions} ends of BGP sessions are Established on {} nodes", self.nodes.len()));
        Ok(())
    }

    /// Waits until every node has every other node's blocks.
    ///
    /// # Errors
    /// A block does not arrive in time.
    pub fn blocks_are_known(&self) -> Result<()> {
        for node in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.name() != node.name()) {
                for &block in &other.blocks {
                    let via = other.address(block.family())?;
                    let what = format!("{block} via {via} on {}", node.name());
                    self.lab.wait(&what, CONVERGE, || knows(node, block, via))?;
                }
            }
        }
        self.lab.proved("every node has every other node's blocks, each by its node's address");
        Ok(())
    }

    /// All workloads of all nodes.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.nodes.iter().flat_map(|node| &node.workloads)
    }

    /// Every workload pings every other, by IPv4 and IPv6.
    ///
    /// # Errors
    /// A ping is lost once the way has been found.
    pub fn everybody_reaches_everybody(&self) -> Result<()> {
        let mut pairs = 0;
        for from in self.workloads() {
            for to in self.workloads().filter(|to| to.name() != from.name()) {
                for family in Family::ALL {
                    let address = to.address(family)?;
                    self.lab.progress().waiting(&format!("{} pings {}", from.name(), to.name()));
                    traffic::reaches(self.lab, &from.namespace, address, FIRST_REPLY)?;
                    traffic::answered(&from.namespace, address, 2)?;
                    pairs += 1;
                }
            }
        }
        self.lab
            .proved(format!("{pairs} pairs of workloads reach each other, by IPv4 and IPv6, no ping lost"));
        Ok(())
    }

    /// The books of every Tortie balance.
    ///
    /// # Errors
    /// They do not.
    pub fn books_balance(&self) -> Result<()> {
        for node in &self.nodes {
            if let Router::Tortie(tortie) = &node.router {
                tortie.must_run()?;
                let books = books::settled(self.lab, tortie)?;
                self.lab.proved(books::line(node.name(), &books));
            }
        }
        Ok(())
    }

    /// Two workloads on different nodes.
    ///
    /// # Errors
    /// There are none.
    pub fn distant_workloads(&self) -> Result<(&Workload, &Workload)> {
        let from = self.nodes.first().and_then(|node| node.workloads.first());
        let to = self.nodes.last().and_then(|node| node.workloads.first());
        let (Some(from), Some(to)) = (from, to) else { anyhow::bail!("the cluster has no workloads") };
        ensure!(from.node != to.node, "the cluster has one node only");
        Ok((from, to))
    }
}

/// Whether a node's router has the route.
fn knows(node: &Node, block: Prefix, via: IpAddr) -> Result<Option<()>> {
    let known = match &node.router {
        Router::Tortie(tortie) => {
            let answer: crate::tortie::ShowRoute = tortie.show(&format!("route {}", nth(block, 1)))?;
            let by_nexthop = answer.nexthops.iter().any(|nexthop| nexthop.via == Some(via));
            answer.prefix.as_deref() == Some(block.to_string().as_str()) && by_nexthop
        }
        Router::Bird(_) => {
            // From the kernel, which forwards on such a node.
            let family = if block.family() == Family::V6 { "-6 " } else { "" };
            node.namespace.ip(&format!("{family}route show {block}"))?.contains(&format!("via {via}"))
        }
    };
    Ok(known.then_some(()))
}

/// The address at this distance from the begin of a block.
pub fn nth(block: Prefix, distance: u8) -> IpAddr {
    match block.addr() {
        IpAddr::V4(addr) => IpAddr::V4((u32::from(addr) + u32::from(distance)).into()),
        IpAddr::V6(addr) => IpAddr::V6((u128::from(addr) + u128::from(distance)).into()),
    }
}
