//! An OpenStack instance and the DHCP server of its own host: dnsmasq on an interface with nobody behind it, which serves the
//! instances' interfaces beside its own, as Calico's DHCP agent starts it; and the server of its metadata, on its host's loopback
//! and elsewhere.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use model::Family;

use super::one_node::{OneNode, outside};
use crate::cluster::CONVERGE;
use crate::link;
use crate::process::Process;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{ShowDrops, TortieNode};
use crate::traffic::Knock;
use crate::workload::{INTERFACE, Workload};
use crate::{Lab, books, traffic};

/// Leases by both families, whatever policy and reverse-path filters say.
pub(super) const OPENSTACK_DHCP: Scenario = Scenario {
    name: "openstack-dhcp",
    about: "an instance gets its addresses from dnsmasq on its own host and renews them, and reaches its metadata, under OpenStack alone",
    programs: &["dnsmasq", "dhclient", "ping", "nft", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// Where instances ask for metadata.
const METADATA: &str = "169.254.169.254:80";
/// The server's own interface and its addresses. By IPv6 dnsmasq serves networks that it is in, so that is another one than the
/// pool's, which is routed by address.
const SERVER: &str = "ns-dhcp";
const SERVER_ADDRESSES: [&str; 2] = ["10.65.0.62/32", "fd99::3e/64"];
/// Until a client has what it asks for: it asks again after some seconds.
const LEASED: Duration = Duration::from_secs(60);
/// Renewals that are waited for.
const RENEWALS: usize = 3;

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = OneNode::raise(lab, &["instance"])?;
    let instance = &site.workloads[0];
    // A host that filters strictly, as many do.
    site.node.set(&[("net/ipv4/conf/all/rp_filter", "1")])?;
    let node = site.start()?;
    // Neither policy nor profile: the instance may send nothing.
    site.resources.endpoint_policy("node", "instance", "{}", "[]")?;
    let server = serve(&site, instance)?;
    let client = ask(&site, instance, Family::V4)?;
    nobody_is_heard_without_openstack(lab, &node, &server)?;
    // On the loopback alone.
    let _metadata = traffic::agent(lab, &site.node, "echo", &["127.0.0.1:8775"])?;
    let silent = traffic::knock(lab, &instance.namespace, METADATA.parse()?)?;
    ensure!(silent == Knock::Silent, "the metadata server answers without OpenStack: {silent:?}");
    site.resources.write(
        "clusterinformation-default.yaml",
        "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\n\
         spec: {clusterType: openstack}\n",
    )?;
    the_lease_is_given_and_renewed(&site, &node, (&server, &client))?;
    the_lease_is_given_by_ipv6(&site, &node, &server)?;
    the_metadata_are_reached(&site)?;
    let books = books::settled(lab, &node)?;
    lab.proved(books::line("node", &books));
    Ok(())
}

/// Starts the server. A lease is renewed after four seconds, one before the client would ask everybody again; the least that
/// dnsmasq gives is two minutes long.
fn serve(site: &OneNode<'_>, instance: &Workload) -> Result<Process> {
    site.node.ip(&format!("link add {SERVER} type bridge"))?;
    site.node.ip(&format!("link set {SERVER} up"))?;
    for address in SERVER_ADDRESSES {
        link::add_address(&site.node, SERVER, address.parse()?)?;
    }
    let mut command = site.node.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--port=0",
        "--log-facility=-",
    ]);
    command.args(["--pid-file=", "--leasefile-ro", "--no-ping", "--log-dhcp"]);
    // Of one interface alone it would hear nothing else.
    command.arg(format!("--interface={SERVER}")).arg(format!("--interface={}", instance.interface));
    command.arg(format!("--bridge-interface={SERVER},{}", instance.interface));
    command.args(["--dhcp-range=10.65.0.0,static,255.255.255.192", "--dhcp-range=fd99::,static,64"]);
    command.arg(format!("--dhcp-host={},10.65.0.1,[fd99::1]", instance.mac));
    command.arg("--dhcp-option=option:T2,5");
    site.lab.spawn("dnsmasq", command)
}

/// Starts a client in the instance, which changes nothing there: it has the addresses already.
fn ask(site: &OneNode<'_>, instance: &Workload, family: Family) -> Result<Process> {
    let name = format!("dhclient-{}", u8::from(family == Family::V6));
    let file = |suffix: &str| site.lab.directory().join(format!("{name}.{suffix}"));
    let configuration = "timeout 300; retry 1; initial-interval 1; backoff-cutoff 2;\n";
    fs::write(file("conf"), configuration)?;
    let mut command = instance.namespace.command("dhclient");
    command.args(["-d", "-v", if family == Family::V6 { "-6" } else { "-4" }, "-sf", "/bin/true"]);
    command.arg("-cf").arg(file("conf")).arg("-lf").arg(file("leases")).arg("-pf").arg(file("pid"));
    command.arg(INTERFACE);
    site.lab.spawn(&name, command)
}

/// Whatever policy says where the host itself serves them, as policy says where another does.
fn the_metadata_are_reached(site: &OneNode<'_>) -> Result<()> {
    let lab = site.lab;
    let instance = &site.workloads[0];
    let knocks = || traffic::knock(lab, &instance.namespace, METADATA.parse()?);
    lab.wait("the metadata server of the host", CONVERGE, || Ok((knocks()? == Knock::Open).then_some(())))?;
    let other = traffic::knock(lab, &instance.namespace, "169.254.169.254:8775".parse()?)?;
    ensure!(other == Knock::Silent, "another port of the address answers: {other:?}");
    lab.proved("an instance that may send nothing reaches 127.0.0.1:8775 of its host at 169.254.169.254:80");
    let elsewhere = outside(Family::V4)?;
    let _metadata = traffic::serve(lab, &site.outside, 8775)?;
    site.resources.felix(&format!("metadataAddr: {elsewhere}"))?;
    lab.wait("policy to be asked", CONVERGE, || Ok((knocks()? == Knock::Silent).then_some(())))?;
    site.resources.endpoint_policy("node", "instance", "{}", "[projectcalico-default-allow]")?;
    lab.wait("the metadata server elsewhere", CONVERGE, || Ok((knocks()? == Knock::Open).then_some(())))?;
    lab.proved(format!("with metadataAddr: {elsewhere} it reaches that host, once its policy allows it"));
    Ok(())
}

fn punted(node: &TortieNode) -> Result<u64> {
    Ok(node.show::<ShowDrops>("drops")?.punted.of("dhcp"))
}

fn nobody_is_heard_without_openstack(lab: &Lab, node: &TortieNode, server: &Process) -> Result<()> {
    lab.wait("requests to be dropped", LEASED, || {
        let lost = node.show::<ShowDrops>("drops")?.dropped.of("broadcast");
        Ok((lost >= 2).then_some(()))
    })?;
    ensure!(punted(node)? == 0, "a request went up without OpenStack");
    ensure!(!server.said().contains("DHCPDISCOVER"), "dnsmasq heard a request without OpenStack");
    lab.proved("without OpenStack an instance's DHCP requests are dropped as broadcasts");
    Ok(())
}

fn the_lease_is_given_and_renewed(
    site: &OneNode<'_>,
    node: &TortieNode,
    (server, client): (&Process, &Process),
) -> Result<()> {
    let lab = site.lab;
    lab.wait("a lease by IPv4", CONVERGE + LEASED, || {
        Ok(client.said().contains("bound to 10.65.0.1").then_some(()))
    })?;
    let renewed =
        |said: String| said.matches("DHCPREQUEST for 10.65.0.1 on eth0 to 10.65.0.62 port 67").count();
    let answered = |said: String| said.matches("DHCPACK of 10.65.0.1 from ").count();
    lab.wait("renewals", LEASED, || {
        let said = client.said();
        // The first answer is to the broadcast that took the offer.
        Ok((renewed(said.clone()) >= RENEWALS && answered(said) > RENEWALS).then_some(()))
    })?;
    ensure!(server.said().contains("DHCPDISCOVER"), "the first request came to somebody else");
    let up = punted(node)?;
    ensure!(up >= 2 + RENEWALS as u64, "{up} requests went up");
    lab.proved(format!(
        "under OpenStack an instance without policy and profile has 10.65.0.1 from dnsmasq on its host, which filters reverse \
         paths strictly, and renews it {RENEWALS} times with the server alone: {up} requests are counted as `dhcp`"
    ));
    Ok(())
}

fn the_lease_is_given_by_ipv6(site: &OneNode<'_>, node: &TortieNode, server: &Process) -> Result<()> {
    let before = punted(node)?;
    let client = ask(site, &site.workloads[0], Family::V6)?;
    let what = "a lease by IPv6";
    site.lab.wait(what, LEASED, || Ok(server.said().contains("DHCPREPLY").then_some(())))?;
    site.lab.wait("the reply", LEASED, || Ok(client.said().contains("Bound to lease").then_some(())))?;
    ensure!(punted(node)? >= before + 2, "a Solicit and a Request went up");
    site.lab.proved(
        "DHCPv6 goes the same way: fd99::1, from the server's link-local address on the instance's interface",
    );
    Ok(())
}
