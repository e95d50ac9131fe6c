//! A tenant's network: frontends and a database, a policy and a profile, first with a deny before everything, which is
//! honoured and pointed out, then without it. Then a change that cuts a session under way.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use model::Family;

use crate::cluster::{CONVERGE, Cluster, ClusterPlan, NodePlan, RouterKind};
use crate::process::Process;
use crate::scenario::{Options, Scenario, Store};
use crate::traffic::{self, Knock, Session};
use crate::workload::Workload;
use crate::{Lab, command};

/// Manifests of Calico's first API, as the tenant wrote them.
pub(super) const TENANT_POLICY: Scenario = Scenario {
    name: "tenant-policy",
    about: "frontends and a database under a policy and a profile; the deny that comes first is honoured and pointed out; the denied are told where asked for",
    programs: &["ping", "ss", "ethtool"],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

const PLAN: ClusterPlan = ClusterPlan {
    fabric: "fabric",
    as_number: 64512,
    pools: [("172.16.1.0/24", 26), ("fd16:1::/112", 122)],
    nodes: &[
        NodePlan {
            name: "slave1",
            router: RouterKind::Tortie,
            addresses: ["192.168.40.11/24", "fd40::11/64"],
            blocks: ["172.16.1.0/26", "fd16:1::/122"],
            workloads: 2,
        },
        NodePlan {
            name: "slave2",
            router: RouterKind::Tortie,
            addresses: ["192.168.40.12/24", "fd40::12/64"],
            blocks: ["172.16.1.64/26", "fd16:1::40/122"],
            workloads: 2,
        },
    ],
};

/// The database's port, and another one that it serves.
const MYSQL: u16 = 3306;
const OTHER: u16 = 8080;
/// How soon a change must be in force.
const IN_FORCE: Duration = Duration::from_secs(60);

const FRONTEND: &str = "{service: frontend, namespace: default}";
const DATABASE: &str = "{service: database, namespace: default}";
const STRANGER: &str = "{service: frontend, namespace: other}";

const ALLOW_ALL: &str = "{action: allow}";
const DENY_ALL: &str = "{action: deny}, ";
const FROM_NAMESPACE: &str = "{action: allow, source: {selector: \"namespace == 'default'\"}}";
const FROM_FRONTENDS: &str = "{action: allow, protocol: tcp, source: {selector: \"namespace == 'default' && \
                              service == 'frontend'\"}, destination: {ports: [3306]}}";

struct Tenant<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster<'a>,
    _servers: Vec<Process>,
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let mut cluster = Cluster::raise(lab, &PLAN)?;
    for (node, workload, labels, profiles) in [
        ("slave1", "slave1-w1", FRONTEND, "[]"),
        ("slave1", "slave1-w2", FRONTEND, "[]"),
        ("slave2", "slave2-w1", DATABASE, "[profile-database]"),
        ("slave2", "slave2-w2", STRANGER, "[]"),
    ] {
        cluster.resources.endpoint_policy(node, workload, labels, profiles)?;
    }
    profile(&cluster, DENY_ALL)?;
    policy(&cluster, DENY_ALL)?;
    // The stranger has no policy and no profile; it may send, so that what keeps it out is the others' policy.
    egress_for_strangers(&cluster)?;
    cluster.start()?;
    cluster.mesh_is_up(0)?;
    cluster.blocks_are_known()?;
    let mut servers = Vec::new();
    for port in [MYSQL, OTHER] {
        servers.push(traffic::serve(lab, &cluster.nodes[1].workloads[0].namespace, port)?);
        servers.push(traffic::serve(lab, &cluster.nodes[0].workloads[1].namespace, port)?);
    }
    let tenant = Tenant { lab, cluster: &cluster, _servers: servers };
    tenant.the_deny_first_is_honoured()?;
    tenant.the_deny_first_is_pointed_out()?;
    tenant.the_profile_alone()?;
    tenant.the_policy_alone()?;
    tenant.who_is_denied_can_be_told()?;
    tenant.a_change_cuts_a_session()?;
    cluster.books_balance()
}

fn policy(cluster: &Cluster<'_>, first: &str) -> Result<()> {
    let text = format!(
        "- apiVersion: v1\n  kind: policy\n  metadata: {{name: namespace-default}}\n  spec:\n    \
         selector: \"namespace == 'default'\"\n    ingress: [{first}{FROM_NAMESPACE}]\n    egress: [{ALLOW_ALL}]\n"
    );
    cluster.resources.write("policy.yaml", &text)
}

fn profile(cluster: &Cluster<'_>, first: &str) -> Result<()> {
    let text = format!(
        "- apiVersion: v1\n  kind: profile\n  metadata: {{name: profile-database}}\n  spec:\n    \
         ingress: [{first}{FROM_FRONTENDS}]\n    egress: [{ALLOW_ALL}]\n"
    );
    cluster.resources.write("profile.yaml", &text)
}

fn egress_for_strangers(cluster: &Cluster<'_>) -> Result<()> {
    let text = format!(
        "- apiVersion: v1\n  kind: policy\n  metadata: {{name: strangers}}\n  spec:\n    \
         selector: \"namespace == 'other'\"\n    egress: [{ALLOW_ALL}]\n"
    );
    cluster.resources.write("strangers.yaml", &text)
}

impl Tenant<'_> {
    fn frontends(&self) -> &[Workload] {
        &self.cluster.nodes[0].workloads
    }

    fn database(&self) -> &Workload {
        &self.cluster.nodes[1].workloads[0]
    }

    fn stranger(&self) -> &Workload {
        &self.cluster.nodes[1].workloads[1]
    }

    /// What comes of a connection, by both families: at first whatever a change on its way makes of it.
    fn knocks(&self, from: &Workload, to: &Workload, port: u16, wanted: Knock) -> Result<()> {
        for family in Family::ALL {
            let server = SocketAddr::new(to.address(family)?, port);
            let what = format!("{} to {server} being {wanted:?}", from.name());
            self.lab.wait(&what, IN_FORCE, || {
                Ok((traffic::knock(self.lab, &from.namespace, server)? == wanted).then_some(()))
            })?;
        }
        Ok(())
    }

    fn ping(&self, from: &Workload, to: &Workload) -> Result<u32> {
        let mut received = 0;
        for family in Family::ALL {
            received += traffic::ping(&from.namespace, to.address(family)?, 3)?.received;
        }
        Ok(received)
    }

    fn the_deny_first_is_honoured(&self) -> Result<()> {
        let (frontend, other) = (&self.frontends()[0], &self.frontends()[1]);
        for (from, to) in [(frontend, self.database()), (frontend, other), (self.stranger(), self.database())]
        {
            self.knocks(from, to, MYSQL, Knock::Silent)?;
            ensure!(self.ping(from, to)? == 0, "{} answers {} against policy", to.name(), from.name());
        }
        let drops: crate::tortie::ShowDrops = self.cluster.nodes[1].tortie()?.show("drops")?;
        let denied = drops.dropped.of("ingress_denied");
        ensure!(denied > 0, "slave2 has dropped nothing by policy");
        self.lab.proved(format!(
            "with the deny first nobody reaches anybody, on one node or two, by IPv4 and IPv6; slave2 has dropped {denied} \
             packets by policy"
        ));
        Ok(())
    }

    fn the_deny_first_is_pointed_out(&self) -> Result<()> {
        let mut validate = Command::new(&self.lab.tools().tortie);
        validate.arg("validate").arg("-f").arg(self.cluster.resources.directory());
        let said = command::output(&mut validate, CONVERGE)?;
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        for (name, rule) in
            [("namespace-default", "spec.ingress[1]"), ("profile-database", "spec.ingress[1]")]
        {
            let told = text.lines().any(|line| line.contains(name) && line.contains(rule));
            ensure!(told, "`tortie validate` doesn't say that {rule} of {name} never matters: {text}");
        }
        let mut explain = Command::new(&self.lab.tools().tortie);
        explain.args(["explain", "policy", "-f"]).arg(self.cluster.resources.directory());
        let (from, to) = (self.frontends()[0].address(Family::V4)?, self.database());
        let port = MYSQL.to_string();
        explain.args([
            "--endpoint",
            &to.interface,
            "--direction",
            "ingress",
            "--proto",
            "tcp",
            "--dport",
            &port,
        ]);
        explain.args(["--src", &from.to_string(), "--dst", &to.address(Family::V4)?.to_string()]);
        let said = command::output(&mut explain, CONVERGE)?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        ensure!(
            said.status.code() == Some(1) && text.contains("namespace-default"),
            "`tortie explain policy` says {text}"
        );
        self.lab.proved(
            "`tortie validate` points out both rules that never matter, and `tortie explain policy` names the policy that denies",
        );
        Ok(())
    }

    /// Frontends reach the database on its port and nothing else.
    fn the_profile_alone(&self) -> Result<()> {
        self.cluster.resources.remove("policy.yaml")?;
        profile(self.cluster, "")?;
        // Without the policy the frontends have neither policy nor profile; they may send.
        for name in ["slave1-w1", "slave1-w2"] {
            self.cluster.resources.endpoint_policy(
                "slave1",
                name,
                FRONTEND,
                "[projectcalico-default-allow]",
            )?;
        }
        for frontend in self.frontends() {
            self.knocks(frontend, self.database(), MYSQL, Knock::Open)?;
            self.knocks(frontend, self.database(), OTHER, Knock::Silent)?;
            ensure!(
                self.ping(frontend, self.database())? == 0,
                "the database answers a ping against its profile"
            );
        }
        self.knocks(self.stranger(), self.database(), MYSQL, Knock::Silent)?;
        self.lab.proved(
            "with the profile put right and no policy, frontends reach the database on 3306, not on 8080 and not by ping; a \
             frontend of another namespace doesn't reach it",
        );
        Ok(())
    }

    /// The policy decides before profiles are asked.
    fn the_policy_alone(&self) -> Result<()> {
        policy(self.cluster, "")?;
        let frontends = self.frontends();
        self.knocks(&frontends[0], self.database(), OTHER, Knock::Open)?;
        self.knocks(&frontends[0], &frontends[1], OTHER, Knock::Open)?;
        self.knocks(self.stranger(), self.database(), MYSQL, Knock::Silent)?;
        self.knocks(self.stranger(), &frontends[1], OTHER, Knock::Silent)?;
        self.lab.proved(
            "with the policy put right everybody of the namespace reaches everybody of it, the database too, and nobody else does",
        );
        Ok(())
    }

    /// By a message that ends the attempt at once, as Felix's `REJECT` does: at the workload's own node, and across the fabric.
    fn who_is_denied_can_be_told(&self) -> Result<()> {
        let frontend = &self.frontends()[1];
        self.cluster.resources.felix("nftablesFilterDenyAction: Reject")?;
        self.knocks(self.stranger(), self.database(), MYSQL, Knock::Refused)?;
        self.knocks(self.stranger(), frontend, OTHER, Knock::Refused)?;
        self.knocks(frontend, self.database(), OTHER, Knock::Open)?;
        let drops: crate::tortie::ShowDrops = self.cluster.nodes[0].tortie()?.show("drops")?;
        let told = drops.punted.of("denied");
        ensure!(told > 0, "slave1 has told nobody of what it denies");
        self.cluster.resources.felix("nftablesFilterDenyAction: Drop")?;
        self.knocks(self.stranger(), self.database(), MYSQL, Knock::Silent)?;
        self.lab.proved(format!(
            "where denied senders are to be told, a client is refused at once, on one node and between two, by IPv4 and IPv6: \
             slave1 has handed {told} packets up for that; without it there is silence again"
        ));
        Ok(())
    }

    fn a_change_cuts_a_session(&self) -> Result<()> {
        let (frontend, database) = (&self.frontends()[0], self.database());
        let address: IpAddr = database.address(Family::V4)?;
        let mut session = Session::open(self.lab, &frontend.namespace, &database.namespace, address)?;
        session.beats_on(10)?;
        policy(self.cluster, DENY_ALL)?;
        self.knocks(frontend, database, MYSQL, Knock::Silent)?;
        // What was answered before may yet be told of.
        self.lab.wait("the session's end", IN_FORCE, || {
            let before = session.beats()?;
            crate::wait::pass(Duration::from_secs(2))?;
            let more = session.beats()? - before;
            ensure!(more == 0, "the session goes on against policy: {more} more beats");
            Ok(Some(()))
        })?;
        policy(self.cluster, "")?;
        self.knocks(frontend, database, MYSQL, Knock::Open)?;
        self.lab.proved(
            "a change of policy cuts a session under way, and lets new ones in once it is taken back",
        );
        Ok(())
    }
}
