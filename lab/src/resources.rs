//! The directory of Calico resources that all nodes of a lab read.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use model::{InterfaceAddr, MacAddr, Prefix};

/// The label of nodes that reflect routes.
pub const REFLECTOR: &str = "route-reflector";

/// A directory of Calico manifests, a resource per file.
pub struct Resources {
    directory: PathBuf,
}

/// What a WorkloadEndpoint manifest says.
pub struct Endpoint<'a> {
    /// The workload's name.
    pub name: &'a str,
    /// The node it runs on.
    pub node: &'a str,
    /// The host's end of its veth pair.
    pub interface: &'a str,
    /// The MAC address of its own end.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

impl Resources {
    /// A directory of resources, with nothing but a FelixConfiguration in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(directory: PathBuf) -> Result<Resources> {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let resources = Resources { directory };
        resources.felix("")?;
        Ok(resources)
    }

    /// FelixConfiguration `default`, with these fields in YAML's flow form besides: workloads reach their own host, as Calico's
    /// manifests for Kubernetes have it.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn felix(&self, fields: &str) -> Result<()> {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\n\
             spec: {{defaultEndpointToHostAction: Accept, {fields}}}\n"
        );
        self.write("felixconfiguration-default.yaml", &text)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts a file in place in one step, so that a watcher never reads half of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let hidden = self.directory.join(format!(".{file}.new"));
        fs::write(&hidden, text).with_context(|| format!("cannot write {}", hidden.display()))?;
        fs::rename(&hidden, self.directory.join(file))?;
        Ok(())
    }

    /// Takes a file away.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| format!("cannot remove {file}"))
    }

    /// BGPConfiguration `default`.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn bgp_configuration(&self, mesh: bool, as_number: u32) -> Result<()> {
        let spec = format!("  nodeToNodeMeshEnabled: {mesh}\n  asNumber: {as_number}\n");
        self.manifest("BGPConfiguration", "default", "", &spec)
    }

    /// The mesh, and all routes to other nodes' workloads by it, as before Calico 3.33: none into pools of IPIP from blocks.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn mesh_with_all_routes(&self, as_number: u32) -> Result<()> {
        let spec = format!(
            "  nodeToNodeMeshEnabled: true\n  asNumber: {as_number}\n  programClusterRoutes: Enabled\n"
        );
        self.manifest("BGPConfiguration", "default", "", &spec)?;
        self.manifest("FelixConfiguration", "default", "", "  programClusterRoutes: Disabled\n")
    }

    /// A node with its addresses, in CIDR form.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn node(&self, name: &str, ipv4: Option<InterfaceAddr>, ipv6: Option<InterfaceAddr>) -> Result<()> {
        let line = |key: &str, address: Option<InterfaceAddr>| {
            address.map(|address| format!("    {key}: {address}\n")).unwrap_or_default()
        };
        let spec = format!("  bgp:\n{}{}", line("ipv4Address", ipv4), line("ipv6Address", ipv6));
        self.manifest("Node", name, "", &spec)
    }

    /// A node that reflects routes in a cluster, with the label [`REFLECTOR`].
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn reflector(&self, name: &str, own: [InterfaceAddr; 2], cluster: Ipv4Addr) -> Result<()> {
        let [ipv4, ipv6] = own;
        let spec = format!(
            "  bgp:\n    ipv4Address: {ipv4}\n    ipv6Address: {ipv6}\n    routeReflectorClusterID: {cluster}\n"
        );
        self.manifest("Node", name, &format!("  labels: {{{REFLECTOR}: \"true\"}}\n"), &spec)
    }

    /// A node with these labels, in YAML's flow form, and this `spec`, indented.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn labelled_node(&self, name: &str, labels: &str, spec: &str) -> Result<()> {
        self.manifest("Node", name, &format!("  labels: {labels}\n"), spec)
    }

    /// A BGPPeer with this `spec`, indented.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn bgp_peer_of(&self, name: &str, spec: &str) -> Result<()> {
        self.manifest("BGPPeer", name, "", spec)
    }

    /// BGP sessions between the nodes that one selector finds and those that another finds.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn bgp_peer_nodes(&self, name: &str, nodes: &str, others: &str) -> Result<()> {
        let spec = format!("  nodeSelector: \"{nodes}\"\n  peerSelector: \"{others}\"\n");
        self.manifest("BGPPeer", name, "", &spec)
    }

    /// A pool whose packets travel without encapsulation.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn plain_pool(&self, name: &str, cidr: Prefix, block_size: u8) -> Result<()> {
        self.pool(name, cidr, block_size, "Never", "Never")
    }

    /// A pool with its modes of IPIP and VXLAN.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn pool(&self, name: &str, cidr: Prefix, block_size: u8, ipip: &str, vxlan: &str) -> Result<()> {
        let spec = format!(
            "  cidr: {cidr}\n  blockSize: {block_size}\n  ipipMode: {ipip}\n  vxlanMode: {vxlan}\n  natOutgoing: false\n  nodeSelector: all()\n"
        );
        self.manifest("IPPool", name, "", &spec)
    }

    /// A node with its addresses, in CIDR form, and its one address of each family in all tunnels; IPv4 first.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn tunnel_node(&self, name: &str, own: [InterfaceAddr; 2], tunnel: [IpAddr; 2]) -> Result<()> {
        let ([ipv4, ipv6], [v4, v6]) = (own, tunnel);
        let spec = format!(
            "  bgp:\n    ipv4Address: {ipv4}\n    ipv6Address: {ipv6}\n    ipv4IPIPTunnelAddr: {v4}\n  \
             ipv4VXLANTunnelAddr: {v4}\n  ipv6VXLANTunnelAddr: {v6}\n"
        );
        self.manifest("Node", name, "", &spec)
    }

    /// A node's claim of a block.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn block(&self, node: &str, cidr: Prefix) -> Result<()> {
        let name = format!("{node}-{}", dashed(&cidr.to_string()));
        self.manifest(
            "BlockAffinity",
            &name,
            "",
            &format!("  state: confirmed\n  node: {node}\n  cidr: {cidr}\n"),
        )
    }

    /// A workload's interface, with the profile that Calico always has and that allows everything both ways: an endpoint
    /// without policy and profile gets and sends nothing.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn workload_endpoint(&self, endpoint: &Endpoint<'_>) -> Result<()> {
        let networks = endpoint.addresses.iter().map(|&address| format!("  - {}\n", Prefix::host(address)));
        let spec = format!(
            "  orchestrator: k8s\n  node: {}\n  pod: {}\n  endpoint: eth0\n  interfaceName: {}\n  mac: {}\n  profiles: [projectcalico-default-allow]\n  ipNetworks:\n{}",
            endpoint.node,
            endpoint.name,
            endpoint.interface,
            endpoint.mac,
            networks.collect::<String>()
        );
        let name = endpoint_name(endpoint.node, endpoint.name);
        self.manifest("WorkloadEndpoint", &name, "  namespace: default\n", &spec)
    }

    /// Gives a workload's interface these `qosControls`, in YAML's flow form, in place of those that it has.
    ///
    /// # Errors
    /// There is no such endpoint, or as [`Resources::write`].
    pub fn qos_controls(&self, node: &str, workload: &str, controls: &str) -> Result<()> {
        const KEY: &str = "  qosControls: ";
        let file = endpoint_file(node, workload);
        let path = self.directory.join(&file);
        let before = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let others = before.lines().filter(|line| !line.starts_with(KEY)).map(|line| format!("{line}\n"));
        // `spec` is the last key of the manifest.
        self.write(&file, &format!("{}{KEY}{controls}\n", others.collect::<String>()))
    }

    /// Gives a workload's interface these labels and profiles, in YAML's flow form, in place of those that it has.
    ///
    /// # Errors
    /// There is no such endpoint, or as [`Resources::write`].
    pub fn endpoint_policy(&self, node: &str, workload: &str, labels: &str, profiles: &str) -> Result<()> {
        let file = endpoint_file(node, workload);
        let path = self.directory.join(&file);
        let before = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = |line: &str| match line {
            line if line.starts_with("  labels: ") => String::new(),
            line if line.starts_with("  profiles: ") => format!("  profiles: {profiles}\n"),
            "  namespace: default" => format!("{line}\n  labels: {labels}\n"),
            line => format!("{line}\n"),
        };
        self.write(&file, &before.lines().map(line).collect::<String>())
    }

    /// A BGP session with a router outside the mesh: of one node, or of every node.
    ///
    /// # Errors
    /// As [`Resources::write`].
    pub fn bgp_peer(&self, name: &str, node: Option<&str>, peer: IpAddr, as_number: u32) -> Result<()> {
        let node = node.map(|node| format!("  node: {node}\n")).unwrap_or_default();
        self.manifest("BGPPeer", name, "", &format!("{node}  peerIP: \"{peer}\"\n  asNumber: {as_number}\n"))
    }

    fn manifest(&self, kind: &str, name: &str, more_metadata: &str, spec: &str) -> Result<()> {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata:\n  name: {name}\n{more_metadata}spec:\n{spec}"
        );
        self.write(&format!("{}-{name}.yaml", kind.to_lowercase()), &text)
    }
}

/// Calico's own form of the name: single dashes between the parts, doubled inside them.
fn endpoint_name(node: &str, workload: &str) -> String {
    let double = |part: &str| part.replace('-', "--");
    format!("{}-k8s-{}-eth0", double(node), double(workload))
}

/// The file of a workload's WorkloadEndpoint.
pub(crate) fn endpoint_file(node: &str, workload: &str) -> String {
    format!("workloadendpoint-{}.yaml", endpoint_name(node, workload))
}

/// An address as part of a resource's name.
fn dashed(text: &str) -> String {
    text.replace(['.', ':', '/'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_endpoint_is_written_under_calicos_own_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let resources = Resources::create(directory.path().join("resources")).expect("a directory in it");
        let addresses = ["10.65.0.2".parse().expect("an address"), "fd65::2".parse().expect("an address")];
        let endpoint = Endpoint {
            name: "web-0",
            node: "node1",
            interface: "cali1",
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: &addresses,
        };
        resources.workload_endpoint(&endpoint).expect("it is written");
        let file = resources.directory().join("workloadendpoint-node1-k8s-web--0-eth0.yaml");
        let text = fs::read_to_string(file).expect("it is there");
        assert!(text.contains("  - 10.65.0.2/32\n  - fd65::2/128\n"), "{text}");
        assert!(text.contains("  mac: 02:00:00:00:00:01\n"), "{text}");
    }

    #[test]
    fn nothing_but_whole_files_is_left_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let resources = Resources::create(directory.path().to_owned()).expect("it is there already");
        resources.bgp_configuration(true, 64512).expect("it is written");
        let names: Vec<_> = fs::read_dir(directory.path()).expect("it is there").flatten().collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
