//! The same cluster with its nodes running: what calicoctl shows of the sessions between them.

use super::namespace::{Namespace, Router, root};
use super::walkthrough::{CLUSTER, good};
use super::{calicoctl, on_a_directory};

/// Name, address and control socket of each node.
const NODES: [(&str, &str, &str); 2] =
    [("master.whale.com", "192.168.0.80", "master.sock"), ("node1.whale.com", "192.168.0.81", "node1.sock")];

const STATUS: &str = "\
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: master}
spec: {node: master.whale.com, classes: [Agent, BGP, Routes], updatePeriodSeconds: 1}
";

/// Two namespaces, each with an end of one veth pair called `up0`.
fn wire() -> Option<[Namespace; 2]> {
    let namespaces = [Namespace::new("master")?, Namespace::new("node1")?];
    let [master, node1] = &namespaces;
    master.ip("link add up0 type veth peer name far0");
    master.ip(&format!("link set far0 netns {}", node1.0));
    node1.ip("link set far0 name up0");
    for (namespace, (_, addr, _)) in namespaces.iter().zip(NODES) {
        namespace.ip("link set lo up");
        namespace.ip(&format!("addr add {addr}/24 dev up0"));
        namespace.ip("link set up0 up");
    }
    Some(namespaces)
}

/// Times are when they are.
fn without_time(table: &str) -> String {
    let row = |line: &str| match line.split('|').collect::<Vec<_>>().as_slice() {
        [begin, peer, kind, state, _, rest @ ..] if peer.trim().starts_with("192.") => {
            format!("{begin}|{peer}|{kind}|{state}| SINCE    |{}\n", rest.join("|"))
        }
        _ => format!("{line}\n"),
    };
    table.lines().map(row).collect()
}

#[test]
fn sessions_of_a_full_mesh_are_shown_by_node_status_and_in_the_datastore() {
    if !root() {
        return;
    }
    let Some(namespaces) = wire() else { return };
    on_a_directory(|place, variables| {
        let inherited = CLUSTER.replace(", asNumber: 64513", "");
        std::fs::write(place.join("cluster.yaml"), inherited).expect("a file");
        std::fs::write(place.join("status.yaml"), STATUS).expect("a file");
        let good = |line: &str| good(place, variables, line);
        assert_eq!(good("create -f cluster.yaml"), "Successfully created 3 resource(s)\n");
        assert_eq!(good("create -f status.yaml"), "Successfully created 1 'CalicoNodeStatus' resource(s)\n");
        let mut routers = Vec::new();
        for (namespace, (name, _, socket)) in namespaces.iter().zip(NODES) {
            let config = format!(
                "node: {name}\ndatastore: {{ directory: resources }}\nuplinks: [up0]\ncontrol_socket: {socket}\n\
                 workloads: {{ mtu_file: {name}.mtu }}\n\
                 limits: {{ frames: 8192, routes_v4: 1000, routes_v6: 1000 }}\n"
            );
            std::fs::write(place.join(format!("{name}.yaml")), config).expect("a file");
            routers.push(Router::start(namespace, place, &format!("{name}.yaml")));
        }
        let status = ["node", "status", "--socket", "master.sock"];
        let established = || calicoctl(place, variables, &status).1.contains("Established");
        routers[0].wait("the session", established);
        assert_eq!(
            without_time(&good(&status.join(" "))),
            "\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS | PEER TYPE         | STATE | SINCE    | INFO        |
+--------------+-------------------+-------+----------+-------------+
| 192.168.0.81 | node-to-node mesh | up    | SINCE    | Established |
+--------------+-------------------+-------+----------+-------------+

IPv6 BGP status
No IPv6 peers found.

"
        );
        let reported = || good("get caliconodestatus master -o yaml").contains("state: Established");
        routers[0].wait("the report", reported);
        let report = good("get caliconodestatus master -o yaml");
        for line in ["numberEstablishedV4: 1", "peerIP: 192.168.0.81", "type: NodeMesh"] {
            assert!(report.contains(line), "{line} is missing: {report}");
        }
        assert_eq!(
            good("get caliconodestatus -o wide"),
            "NAME     NODE               CLASSES            \nmaster   master.whale.com   Agent,BGP,Routes   \n\n"
        );
    });
}
