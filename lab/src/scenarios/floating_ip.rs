//! An address elsewhere that stands for a workload: from outside, from other workloads, and from itself.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use model::Family;

use super::nat_site::{Site, udp_answers};
use crate::capture::Capture;
use crate::cluster::CONVERGE;
use crate::scenario::{Options, Scenario, Store};
use crate::workload::INTERFACE;
use crate::{Lab, books, dissected, traffic};

/// Floating IPs in both families, hairpin included.
pub(super) const FLOATING_IP: Scenario = Scenario {
    name: "floating-ip",
    about: "a workload is reached by its floating IP: from outside, from another workload and from itself",
    programs: &["ping", "tcpdump", "tshark", "iperf3", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const FLOATING: [&str; 2] = ["198.51.100.7", "2001:db8:100::7"];
const BYTES: u64 = 2_000_000;

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab, "floatingIPs: Enabled")?;
    give_floating_ips(&site)?;
    site.start()?;
    for family in Family::ALL {
        let floating: IpAddr = FLOATING[usize::from(family == Family::V6)].parse()?;
        // Calico announces no floating IP; here the operator's route leads to the node.
        let (option, bits) = if floating.is_ipv6() { ("-6 ", 128) } else { ("", 32) };
        let via = site.node_address(family)?;
        site.server.ip(&format!("{option}route add {floating}/{bits} via {via}"))?;
        everybody_reaches(&site, family, floating)?;
        the_workload_goes_out_under_the_nodes_address(&site, family, floating)?;
    }
    let books = books::settled(lab, &site.node)?;
    lab.proved(books::line("node", &books));
    Ok(())
}

/// The first workload's endpoint, written anew.
fn give_floating_ips(site: &Site<'_>) -> Result<()> {
    let workload = &site.workloads[0];
    let own: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: node-k8s-w1-eth0, namespace: default}}\n\
         spec:\n  orchestrator: k8s\n  node: node\n  pod: w1\n  endpoint: eth0\n  interfaceName: {}\n  mac: {}\n  \
         profiles: [projectcalico-default-allow]\n  ipNetworks: ['{}/32', '{}/128']\n  ipNATs:\n  - {{internalIP: '{}', externalIP: '{}'}}\n  - {{internalIP: '{}', \
         externalIP: '{}'}}\n",
        workload.interface, workload.mac, own[0], own[1], own[0], FLOATING[0], own[1], FLOATING[1]
    );
    site.resources.write("workloadendpoint-node-k8s-w1-eth0.yaml", &text)
}

fn everybody_reaches(site: &Site<'_>, family: Family, floating: IpAddr) -> Result<()> {
    let [owner, other] = [&site.workloads[0], &site.workloads[1]];
    let internal = owner.address(family)?;
    let sources = [
        ("the server", &site.server, site.server(family)?.to_string()),
        ("another workload", &other.namespace, other.address(family)?.to_string()),
        ("itself", &owner.namespace, floating.to_string()),
    ];
    for (who, from, seen_as) in sources {
        traffic::reaches(site.lab, from, floating, CONVERGE)?;
        let arriving = format!("dst host {internal} and src host {seen_as}");
        let seen = Capture::start(site.lab, &owner.namespace, INTERFACE, &arriving)?;
        traffic::answered(from, floating, 3)?;
        // The workload knows its own address only, so it listens there.
        let listener = ListenAt { site, internal };
        listener.transfer(from, floating)?;
        let captured = seen.stop()?;
        let frames = dissected::well_formed(&captured)?;
        ensure!(frames > 10, "the workload saw {frames} packets from {seen_as}");
        site.lab.proved(format!(
            "{family:?}: {who} reaches {floating} by ping and TCP; the workload sees {seen_as}, and tshark finds nothing wrong"
        ));
    }
    udp_answers(site.lab, &site.server, &owner.namespace, floating)?;
    site.lab.proved(format!("{family:?}: UDP to {floating} is answered"));
    Ok(())
}

struct ListenAt<'a> {
    site: &'a Site<'a>,
    internal: IpAddr,
}

impl ListenAt<'_> {
    /// Bytes to the floating IP arrive whole.
    fn transfer(&self, from: &crate::netns::Namespace, floating: IpAddr) -> Result<()> {
        let to = &self.site.workloads[0].namespace;
        traffic::transfer_by(self.site.lab, from, to, floating, self.internal, BYTES).map(drop)
    }
}

/// A floating IP is no source NAT: connections of the workload's own leave under the node's address.
fn the_workload_goes_out_under_the_nodes_address(
    site: &Site<'_>,
    family: Family,
    floating: IpAddr,
) -> Result<()> {
    let server = site.server(family)?;
    let seen = Capture::start(site.lab, &site.server, "eth0", &format!("src host {floating}"))?;
    traffic::answered(&site.workloads[0].namespace, server, 3)?;
    let leaks = dissected::naming(&seen.stop()?, &[floating])?;
    ensure!(leaks.is_empty(), "the server saw {floating} as a source: {}", leaks[0]);
    site.lab.proved(format!(
        "{family:?}: what the workload begins leaves under the node's address, not {floating}"
    ));
    Ok(())
}
