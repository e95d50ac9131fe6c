//! `ipam check`: the books of addresses held against nodes and workloads, and against themselves.
//!
//! calicoctl asks Kubernetes for services and virtual machines besides. Here is none to ask, so addresses of load balancers are
//! taken to be in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use datastore::ipam::{Attributes, Block, Ipam, WINDOWS_RESERVED};
use datastore::{Key, ResourceKind, Store, Stored, Under};
use model::{Family, InterfaceAddr, Prefix};
use serde_json::Value;

use super::report::{Allocation, HandleInfo, Report};
use super::{Failure, VERSION, cluster_information, is_locked};

/// Nodes that are named among those with the most addresses.
const TOP_NODES: usize = 20;
/// Whose blocks of the load balancer's are.
const LOAD_BALANCER: &str = "virtual:load-balancer";

#[derive(Clone, Debug, Default, Args)]
pub(super) struct CheckArgs {
    /// Print all IPs that are checked
    #[arg(long)]
    pub(super) show_all_ips: bool,
    /// Print all IPs that are leaked or not allocated properly
    #[arg(long)]
    pub(super) show_problem_ips: bool,
    /// Path to output report file
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Taken for calicoctl's sake: Kubernetes isn't asked
    #[arg(long, value_name = "KUBECONFIG", hide = true)]
    pub(super) kubeconfig: Option<PathBuf>,
}

/// What an address is for, by its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Workload,
    Tunnel,
    LoadBalancer,
    WindowsReserved,
    Unknown,
}

impl Kind {
    fn of(block: &Block, row: &Attributes) -> Kind {
        if row.handle.as_deref().is_some_and(|handle| handle.eq_ignore_ascii_case(WINDOWS_RESERVED)) {
            return Kind::WindowsReserved;
        }
        if block.affinity() == Some(LOAD_BALANCER) {
            return Kind::LoadBalancer;
        }
        match row.owner.get("type").map_or("", String::as_str) {
            // Tunnels' addresses had neither handle nor attributes at first; those of workloads always had a handle.
            "" if row.owner.is_empty() && row.handle.is_none() => Kind::Tunnel,
            "" => Kind::Workload,
            "ipipTunnelAddress"
            | "vxlanTunnelAddress"
            | "vxlanV6TunnelAddress"
            | "wireguardTunnelAddress"
            | "wireguardV6TunnelAddress" => Kind::Tunnel,
            "LoadBalancer" => Kind::LoadBalancer,
            _ => Kind::Unknown,
        }
    }
}

/// An address of a block, as it stands in the report and as it is judged.
struct Row {
    addr: IpAddr,
    report: Allocation,
    /// Absent where the block names attributes that it doesn't have.
    kind: Option<Kind>,
    attributes: String,
}

/// Who uses an address: what for, and by name.
type References = BTreeMap<IpAddr, BTreeSet<(String, bool)>>;

struct Checker<'a> {
    store: &'a dyn Store,
    args: &'a CheckArgs,
    out: &'a mut String,
    rows: BTreeMap<IpAddr, Row>,
    /// The flag says whether it is a node's.
    references: References,
    problems: usize,
}

pub(super) fn run(
    store: &dyn Store,
    _: &Ipam<'_>,
    args: &CheckArgs,
    out: &mut String,
) -> Result<(), Failure> {
    out.push_str("Checking IPAM for inconsistencies...\n\n");
    let cluster = cluster_information(store)?;
    let mut checker =
        Checker { store, args, out, rows: BTreeMap::new(), references: BTreeMap::new(), problems: 0 };
    let (blocks, unreadable) = checker.blocks()?;
    let pools = checker.pools()?;
    checker.nodes()?;
    checker.say("Loading all service load balancer IPs.");
    checker.say("There is no Kubernetes to ask, skipping service load balancer check.\n");
    checker.say("Loading all KubeVirt VMs.");
    checker.say("KubeVirt is not installed, skipping VM check.\n");
    checker.workloads()?;
    let handles = checker.handles()?;
    checker.busiest_nodes();
    checker.unknown_types();
    checker.leaked();
    checker.not_allocated(&pools);
    let leaked_handles = checker.leaked_handles(&handles);
    checker.missing_handles(&handles);
    checker.invalid_blocks(&blocks, &unreadable);
    let problems = checker.problems;
    checker.say(&format!("Check complete; found {problems} problems."));
    if let Some(file) = &args.output {
        let rows = std::mem::take(&mut checker.rows);
        write_report(&cluster, rows, leaked_handles, file)?;
    }
    Ok(())
}

/// Keys whose values nobody can read, and why.
type Unreadable = Vec<(Key, String)>;

impl Checker<'_> {
    fn say(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn show_problems(&self) -> bool {
        self.args.show_problem_ips || self.args.show_all_ips
    }

    fn list(&self, under: &Under, what: &str) -> Result<Vec<Stored>, Failure> {
        let listed = self.store.list(under);
        Ok(listed.map_err(|error| Failure::new(format!("failed to {what}: {error}")))?.stored)
    }

    fn resources(&self, kind: ResourceKind, what: &str) -> Result<Vec<Stored>, Failure> {
        self.list(&Under::Kind { kind, namespace: None }, what)
    }

    /// The blocks that can be read, and what can't be, with its reason.
    fn blocks(&mut self) -> Result<(Vec<Block>, Unreadable), Failure> {
        self.say("Loading all IPAM blocks...");
        let (mut blocks, mut unreadable) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            for stored in self.list(&Under::Blocks(family), "list IPAM blocks")? {
                match Block::from_value(&stored.value) {
                    Ok(block) => blocks.push(block),
                    Err(reason) => unreadable.push((stored.key, reason)),
                }
            }
        }
        self.say(&format!("Found {} IPAM blocks.", blocks.len()));
        for block in &blocks {
            self.say(&format!(
                " IPAM block {} affinity={}:",
                block.cidr(),
                block.affinity().unwrap_or("<none>")
            ));
            for (addr, place, row) in block.allocations() {
                let row = allocation(block, addr, place, row);
                if self.args.show_all_ips {
                    self.say(&format!("  {addr} allocated; attrs {}", row.attributes));
                }
                self.rows.insert(addr, row);
            }
        }
        let allocations: usize = blocks.iter().map(|block| block.allocations().count()).sum();
        self.say(&format!("IPAM blocks record {allocations} allocations.\n"));
        Ok((blocks, unreadable))
    }

    fn pools(&mut self) -> Result<Vec<Prefix>, Failure> {
        self.say("Loading all IPAM pools...");
        let mut active = Vec::new();
        for pool in self.resources(ResourceKind::IpPool, "load IP pools")? {
            let spec = &pool.value["spec"];
            if spec["disabled"].as_bool() == Some(true) {
                continue;
            }
            let cidr = spec["cidr"].as_str().unwrap_or_default();
            self.say(&format!("  {cidr}"));
            active.push(
                cidr.parse()
                    .map_err(|error| Failure::new(format!("failed to parse IP pool CIDR: {error}")))?,
            );
        }
        self.say(&format!("Found {} active IP pools.\n", active.len()));
        Ok(active)
    }

    fn nodes(&mut self) -> Result<(), Failure> {
        self.say("Loading all nodes.");
        let mut found = 0;
        for node in self.resources(ResourceKind::Node, "list nodes")? {
            let spec = &node.value["spec"];
            let addresses = [
                &spec["ipv4VXLANTunnelAddr"],
                &spec["ipv6VXLANTunnelAddr"],
                &spec["bgp"]["ipv4IPIPTunnelAddr"],
                &spec["wireguard"]["interfaceIPv4Address"],
                &spec["wireguard"]["interfaceIPv6Address"],
            ];
            let name = format!("Node({})", text(&node.value["metadata"]["name"]));
            found += self.refer(addresses.map(text), &name, true)?;
        }
        self.say(&format!("Found {found} node tunnel IPs.\n"));
        Ok(())
    }

    fn workloads(&mut self) -> Result<(), Failure> {
        self.say("Loading all workload endpoints.");
        let mut found = 0;
        for endpoint in self.resources(ResourceKind::WorkloadEndpoint, "list workload endpoints")? {
            let metadata = &endpoint.value["metadata"];
            let name = format!("Workload({}/{})", text(&metadata["namespace"]), text(&metadata["name"]));
            let networks = endpoint.value["spec"]["ipNetworks"].as_array().into_iter().flatten();
            found += self.refer(networks.map(text), &name, false)?;
        }
        self.say(&format!("Found {found} workload IPs."));
        self.say(&format!("Workloads and nodes are using {} IPs.\n", self.references.len()));
        Ok(())
    }

    /// Notes who uses addresses. Returns how many.
    fn refer<'v>(
        &mut self,
        addresses: impl IntoIterator<Item = &'v str>,
        name: &str,
        node: bool,
    ) -> Result<usize, Failure> {
        let mut found = 0;
        for given in addresses.into_iter().filter(|given| !given.is_empty()) {
            let addr: InterfaceAddr = given.parse().map_err(|error| {
                Failure::new(format!("{name} has an unparseable address {given:?}: {error}"))
            })?;
            if self.args.show_all_ips {
                self.say(&format!("  {} belongs to {name}", addr.addr));
            }
            self.references.entry(addr.addr).or_default().insert((name.to_owned(), node));
            found += 1;
        }
        Ok(found)
    }

    fn handles(&mut self) -> Result<BTreeMap<String, String>, Failure> {
        self.say("Loading all handles");
        let stored = self.list(&Under::Handles, "list handles")?;
        let named = stored.into_iter().filter_map(|stored| match stored.key {
            Key::Handle(name) => Some((name, stored.revision.0.to_string())),
            _ => None,
        });
        Ok(named.collect())
    }

    fn busiest_nodes(&mut self) {
        self.say(&format!("Looking for top (up to {TOP_NODES}) nodes by allocations..."));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in self.rows.values() {
            *counts.entry(&row.report.node).or_default() += 1;
        }
        let mut counts: Vec<(String, usize)> =
            counts.into_iter().map(|(node, count)| (node.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (node, count) in counts.iter().take(TOP_NODES) {
            self.say(&format!("  {node} has {count} allocations"));
        }
        if let (Some((_, most)), Some((_, median))) = (counts.first(), counts.get(counts.len() / 2)) {
            self.say(&format!("Node with most allocations has {most}; median is {median}"));
        }
        self.say("");
    }

    fn unknown_types(&mut self) {
        self.say("Scanning for IPs with unknown types...");
        let unknown =
            |row: &&Row| row.kind == Some(Kind::Unknown) && !self.references.contains_key(&row.addr);
        let unknown: Vec<(IpAddr, String)> =
            self.rows.values().filter(unknown).map(|row| (row.addr, row.report.kind.clone())).collect();
        let shown = self.show_problems();
        for (addr, kind) in unknown.iter().filter(|_| shown) {
            self.out.push_str(&format!(
                "  {addr} allocation has unknown type ({kind}) Assuming IP is still in use.\n"
            ));
        }
        if unknown.is_empty() {
            self.say("Found 0 IPs with unknown allocation types.");
        } else {
            self.say(&format!(
                "Warning: found {} IPs with unknown allocation types. Perhaps a new version of this tool is needed?",
                unknown.len()
            ));
            self.problems += unknown.len();
        }
    }

    fn leaked(&mut self) {
        self.say("Scanning for IPs that are allocated but not actually in use...");
        let mut lines = Vec::new();
        let mut leaked = 0;
        // calicoctl goes by the addresses' texts.
        let mut rows: Vec<&mut Row> = self.rows.values_mut().collect();
        rows.sort_by_key(|row| row.addr.to_string());
        for row in rows {
            let references = self.references.get(&row.addr);
            let by_its_kind =
                |tunnel| references.is_some_and(|names| names.iter().any(|(_, node)| *node == tunnel));
            let held = match row.kind {
                Some(Kind::Workload) => by_its_kind(false),
                Some(Kind::Tunnel) => by_its_kind(true),
                Some(Kind::LoadBalancer | Kind::WindowsReserved | Kind::Unknown) => true,
                None => references.is_some(),
            };
            row.report.in_use = held && !row.report.cooling_down;
            let mut owners: Vec<String> =
                references.into_iter().flatten().map(|(name, _)| name.clone()).collect();
            match row.kind {
                Some(Kind::WindowsReserved) if row.report.in_use => {
                    owners.push("Reserved for Windows".to_owned())
                }
                Some(Kind::Unknown) if row.report.in_use => {
                    owners.push(format!("UnknownType({})", row.report.kind));
                }
                _ => {}
            }
            row.report.owners = (!owners.is_empty()).then_some(owners);
            if !row.report.in_use && !row.report.cooling_down {
                leaked += 1;
                lines.push(format!("  {} leaked; attrs {}", row.addr, row.attributes));
            }
        }
        if self.show_problems() {
            lines.iter().for_each(|line| self.say(line));
        }
        self.problems += leaked;
        self.say(&format!("Found {leaked} IPs that are allocated in IPAM but not actually in use."));
    }

    fn not_allocated(&mut self, pools: &[Prefix]) {
        self.say("Scanning for IPs that are in use by a workload or node but not allocated in IPAM...");
        let (mut foreign, mut unallocated) = (0, 0);
        let mut lines = Vec::new();
        for (addr, names) in &self.references {
            if names.len() > 1 {
                lines.push(format!("  {addr} has multiple owners."));
            }
            if self.rows.contains_key(addr) {
                continue;
            }
            let in_pool = pools.iter().any(|pool| pool.contains(*addr));
            *if in_pool { &mut unallocated } else { &mut foreign } += 1;
            for (name, _) in names {
                lines.push(if in_pool {
                    format!("  {addr} in use by {name} and in active IPAM pool but has no IPAM allocation.")
                } else {
                    format!("  {addr} in use by {name} is not in any active IP pool.")
                });
            }
        }
        if self.show_problems() {
            lines.iter().for_each(|line| self.say(line));
        }
        self.problems += foreign + unallocated;
        self.say(&format!("Found {foreign} in-use IPs that are not in active IP pools."));
        self.say(&format!(
            "Found {unallocated} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n"
        ));
    }

    /// Handles that addresses name.
    fn named_handles(&self) -> BTreeSet<String> {
        let handles = self.rows.values().map(|row| row.report.handle.clone());
        handles.filter(|handle| !handle.is_empty()).collect()
    }

    fn leaked_handles(&mut self, handles: &BTreeMap<String, String>) -> Vec<HandleInfo> {
        self.say("Scanning for IPAM handles with no matching IPs...");
        let named = self.named_handles();
        let leaked: Vec<HandleInfo> = handles
            .iter()
            .filter(|(id, _)| !named.contains(*id))
            .map(|(id, revision)| HandleInfo { id: id.clone(), uid: None, revision: revision.clone() })
            .collect();
        for handle in leaked.iter().filter(|_| self.args.show_all_ips) {
            self.out.push_str(&format!("  {} doesn't have any active IPs.\n", handle.id));
        }
        self.problems += leaked.len();
        self.say(&format!(
            "Found {} handles with no matching IPs (and {} handles with matches).",
            leaked.len(),
            handles.len() - leaked.len()
        ));
        leaked
    }

    fn missing_handles(&mut self, handles: &BTreeMap<String, String>) {
        self.say("Scanning for IPs with missing handle...");
        let named = self.named_handles();
        let missing: Vec<&String> = named.iter().filter(|id| !handles.contains_key(*id)).collect();
        let shown = self.show_problems();
        for id in missing.iter().filter(|_| shown) {
            self.out.push_str(&format!("  {id} is in use in a block but doesn't exist.\n"));
        }
        self.say(&format!(
            "Found {} handles mentioned in blocks with no matching handle resource.",
            missing.len()
        ));
    }

    fn invalid_blocks(&mut self, blocks: &[Block], unreadable: &[(Key, String)]) {
        self.say("Validating IPAMBlock structures...");
        let now = SystemTime::now();
        let broken = blocks.iter().filter_map(|block| Some((block.cidr(), block.validate(now).err()?)));
        let unreadable = unreadable.iter().filter_map(|(key, reason)| match key {
            Key::Block(cidr) => Some((*cidr, reason.clone())),
            _ => None,
        });
        let invalid: Vec<(Prefix, String)> = broken.chain(unreadable).collect();
        for (cidr, reason) in &invalid {
            self.say(&format!("  IPAMBlock BlockKey(cidr={cidr}) is invalid: {reason}"));
        }
        self.problems += invalid.len();
        self.say(&format!("Found {} invalid IPAMBlocks.", invalid.len()));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn allocation(block: &Block, addr: IpAddr, place: usize, row: Option<&Attributes>) -> Row {
    let node = block.node().unwrap_or_default();
    let mut report = Allocation {
        ip: addr.to_string(),
        sequence_number: Some(block.sequence_number_of(place)),
        node: node.to_owned(),
        ..Allocation::default()
    };
    let kind = row.map(|row| Kind::of(block, row));
    if let Some(row) = row {
        let attribute = |name: &str| row.owner.get(name).cloned().unwrap_or_default();
        if kind != Some(Kind::WindowsReserved) {
            report.handle = row.handle.clone().unwrap_or_default();
        }
        report.cooling_down = !row.is_held();
        let owner = attribute("node");
        report.borrowed = !owner.is_empty() && owner != node;
        if !owner.is_empty() {
            report.node = owner;
        }
        report.pod = attribute("pod");
        report.namespace = attribute("namespace");
        report.kind = attribute("type");
        report.creation_timestamp = attribute("timestamp");
    }
    Row { addr, report, kind, attributes: row.map_or("<missing>".to_owned(), described) }
}

/// Attributes in one line.
fn described(row: &Attributes) -> String {
    let pairs = |attributes: &BTreeMap<String, String>| {
        attributes.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    };
    let mut line = format!("Main:{} Extra:{}", row.handle.as_deref().unwrap_or("<none>"), pairs(&row.owner));
    if !row.alternate.is_empty() {
        line.push_str(&format!(" Alternate:{}", pairs(&row.alternate)));
    }
    line
}

fn write_report(
    cluster: &Stored,
    rows: BTreeMap<IpAddr, Row>,
    leaked_handles: Vec<HandleInfo>,
    file: &std::path::Path,
) -> Result<(), Failure> {
    let spec = &cluster.value["spec"];
    let report = Report {
        version: VERSION.to_owned(),
        cluster_guid: text(&spec["clusterGUID"]).to_owned(),
        datastore_locked: is_locked(cluster),
        cluster_information_revision: cluster.revision.0.to_string(),
        cluster_type: text(&spec["clusterType"]).to_owned(),
        allocations: rows.into_iter().map(|(addr, row)| (addr.to_string(), vec![row.report])).collect(),
        leaked_handles,
    };
    let written = serde_json::to_string_pretty(&report).map_err(|error| error.to_string());
    written
        .and_then(|text| std::fs::write(file, text).map_err(|error| error.to_string()))
        .map_err(|error| Failure::new(format!("failed to write {}: {error}", file.display())))
}
