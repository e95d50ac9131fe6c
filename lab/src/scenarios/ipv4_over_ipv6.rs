//! IPv4 between machines that have none on the link between them: its routes have IPv6 next hops (RFC 8950), with Debian's
//! BIRD 2 at the other end.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};

use crate::Lab;
use crate::bird::Bird;
use crate::cluster::CONVERGE;
use crate::link::{Fabric, add_address};
use crate::netns::Namespace;
use crate::resources::Resources;
use crate::scenario::{Options, Scenario, Store};
use crate::tortie::{Settings, ShowRoute, TortieNode};
use crate::traffic;
use crate::workload::Workload;

pub(super) const IPV4_OVER_IPV6: Scenario = Scenario {
    name: "ipv4-over-ipv6",
    about: "a link with IPv6 addresses alone towards BIRD; IPv4 packets pass both ways by IPv6 next hops (RFC 8950)",
    programs: &["bird", "birdc", "ping", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const ROUTER: &str = "fd09::1";
const ROUTER_AS: u32 = 64512;
/// The router's one IPv4 address, on its loopback.
const ROUTER_V4: &str = "192.0.2.1";
const BIRD: &str = "fd09::2";
const BIRD_AS: u32 = 64900;
const WORKLOAD: &str = "10.65.0.1";
const BLOCK: &str = "10.65.0.0/26";
/// What is behind BIRD, and an address of it that answers.
const BEHIND: &str = "10.88.0.0/24";
const ANSWERS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const PINGS: u32 = 50;

fn run(lab: &Lab, _: &Options) -> Result<()> {
    lab.step("raising a router and a BIRD with IPv6 between them");
    let fabric = Fabric::raise(lab, "fabric")?;
    let far = fabric.host(lab, "far", &[&format!("{BIRD}/64")])?;
    far.forward()?;
    far.ip("link set lo up")?;
    add_address(&far, "lo", format!("{ANSWERS}/32").parse()?)?;
    let bird = Bird::start(lab, &far, &configuration())?;
    let near = fabric.host(lab, "near", &[&format!("{ROUTER}/64")])?;
    near.forward()?;
    near.ip("link set lo up")?;
    add_address(&near, "lo", format!("{ROUTER_V4}/32").parse()?)?;
    let resources = resources(lab)?;
    let workload = Workload::raise(lab, &resources, &near, "w1", &[WORKLOAD.parse()?])?;
    let more = format!(
        "bgp: {{ peers: [{{ range: \"{BIRD}/128\", families: [ipv6, ipv4], ipv4_over_ipv6: true }}] }}\n"
    );
    let router =
        TortieNode::configure(lab, &near, resources.directory(), &Settings { more, ..Settings::default() })?;
    router.start(lab)?;

    lab.wait("the session", CONVERGE, || {
        bird.established(1)?;
        router.established(1).map(Some)
    })?;
    let next_hop: IpAddr = BIRD.parse()?;
    let route = lab.wait("BIRD's route", CONVERGE, || {
        let route: ShowRoute = router.show(&format!("route {ANSWERS}"))?;
        let resolved = route.nexthops.iter().any(|hop| hop.via == Some(next_hop));
        Ok((route.prefix.as_deref() == Some(BEHIND) && resolved).then_some(route))
    })?;
    lab.wait("the router's route at BIRD", CONVERGE, || {
        let route = far.ip(&format!("route show {BLOCK}"))?;
        Ok(route.contains(&format!("via inet6 {ROUTER}")).then_some(()))
    })?;
    for namespace in [&near, &far] {
        let addresses = namespace.ip("-4 address show dev eth0")?;
        ensure!(addresses.trim().is_empty(), "there is IPv4 on the link: {addresses}");
    }
    let via = route.nexthops.first().and_then(|hop| hop.via).context("a next hop")?;
    lab.proved(format!(
        "{BEHIND} goes via {via} here, and {BLOCK} via inet6 {ROUTER} at BIRD; no IPv4 on the link"
    ));

    let forwarded = |router: &TortieNode| -> Result<u64> {
        Ok(router.show::<crate::tortie::ShowDrops>("drops")?.forwarded)
    };
    traffic::reaches(lab, &workload.namespace, ANSWERS.into(), CONVERGE)?;
    let before = forwarded(&router)?;
    traffic::answered(&workload.namespace, ANSWERS.into(), PINGS)?;
    lab.wait("the walk's count of both ways", CONVERGE, || {
        let passed = forwarded(&router)? - before;
        ensure!(passed >= u64::from(2 * PINGS), "only {passed} packets went through the walk");
        Ok(Some(()))
    })?;
    lab.proved(format!(
        "{PINGS} pings from {WORKLOAD} to {ANSWERS} are answered, through the walk both ways"
    ));
    the_kernel_could_go_on(lab, &near)?;
    router.must_run()
}

/// The mirror names the IPv6 next hop too.
fn the_kernel_could_go_on(lab: &Lab, near: &Namespace) -> Result<()> {
    let mirrored = lab.wait("the kernel's mirror", CONVERGE, || {
        let route = near.ip(&format!("route show table 116 {BEHIND}"))?;
        Ok(route.contains(&format!("via inet6 {BIRD}")).then_some(route))
    })?;
    lab.proved(format!("the kernel's mirror has it alike: {}", mirrored.trim()));
    Ok(())
}

fn configuration() -> String {
    format!(
        "log stderr all;\nrouter id 192.0.2.2;\nprotocol device {{ scan time 2; }}\nprotocol direct {{ ipv6; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol static {{ ipv4; route {BEHIND} blackhole; }}\n\
         protocol bgp tortie {{ local {BIRD} as {BIRD_AS}; neighbor {ROUTER} as {ROUTER_AS}; direct; \
         connect delay time 1; connect retry time 3; error wait time 1,3; \
         ipv6 {{ import all; export none; }}; \
         ipv4 {{ import all; export where source = RTS_STATIC; extended next hop on; }}; }}\n"
    )
}

fn resources(lab: &Lab) -> Result<Resources> {
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.plain_pool("pool-0", "10.65.0.0/16".parse()?, 26)?;
    resources.node(
        "near",
        Some(format!("{ROUTER_V4}/32").parse()?),
        Some(format!("{ROUTER}/64").parse()?),
    )?;
    resources.block("near", BLOCK.parse()?)?;
    resources.write(
        "bgppeer-bird.yaml",
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: bird}}\n\
             spec: {{peerIP: \"{BIRD}\", asNumber: {BIRD_AS}}}\n"
        ),
    )?;
    Ok(resources)
}
