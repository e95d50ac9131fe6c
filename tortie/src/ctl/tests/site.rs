//! A site as a whole: settings, export and import, old manifests.

use super::*;

#[test]
fn a_site_is_exported_for_kubernetes_under_the_lock_alone() {
    let node = resource(
        "Node",
        "host-1",
        json!({ "bgp": { "ipv4Address": "10.1.0.1/24" }, "orchRefs": [{ "orchestrator": "k8s", "nodeName": "kube-1" }] }),
    );
    let shell = Shell::with(&[pool("pool", "10.0.1.0/24"), node]);
    let error = migrate::migrated(&shell.store).unwrap_err();
    assert!(
        error.starts_with("datastore is not locked. Run the `calicoctl datastore migrate lock` command"),
        "{error}"
    );
    assert_eq!(migrate::lock(&shell.store).unwrap(), "Datastore locked.\n");
    let text = migrate::migrated(&shell.store).unwrap();
    assert_eq!(text.matches("===\n").count(), 2);
    assert!(text.contains("    name: kube-1\n") && !text.contains("name: host-1"), "{text}");
    assert_eq!(migrate::unlock(&shell.store).unwrap(), "Datastore unlocked.\n");
}

#[test]
fn a_node_without_a_name_in_kubernetes_keeps_a_site_from_being_exported_there() {
    let shell = Shell::with(&[resource("Node", "host-1", json!({}))]);
    migrate::lock(&shell.store).unwrap();
    let error = migrate::migrated(&shell.store).unwrap_err();
    assert!(error.contains("node host-1 missing a 'k8s' orchestrator reference"), "{error}");
}

#[test]
fn what_was_exported_is_imported_whole() {
    let tier = resource("Tier", "admin", json!({ "order": 100 }));
    let policy =
        resource("GlobalNetworkPolicy", "admin.deny", json!({ "tier": "admin", "selector": "all()" }));
    let old = Shell::with(&[pool("pool", "10.0.1.0/24"), tier, policy]);
    let text = migrate::export(&old.store, false).unwrap();
    let new = Shell::new();
    let said = migrate::import(&new.store, &text).unwrap();
    assert!(said.starts_with("Successfully applied "), "{said}");
    for (kind, name) in [("ippool", "pool"), ("tier", "admin"), ("gnp", "admin.deny")] {
        assert_eq!(new.yaml(kind, name)["spec"], old.yaml(kind, name)["spec"], "{kind}");
    }
    let guid = |shell: &Shell| shell.yaml("clusterinfo", "default")["spec"]["clusterGUID"].clone();
    assert_eq!(guid(&new), guid(&old));
    assert!(migrate::import(&new.store, "nonsense").unwrap_err().contains("improperly formatted"));
}

#[test]
fn single_settings_are_read_and_set_as_of_old() {
    let shell = Shell::new();
    for (name, value) in [("asNumber", "64513"), ("nodeToNodeMesh", "off"), ("logLevel", "debug")] {
        assert_eq!(shell.good(&["config", "set", name, value]), "");
        assert_eq!(shell.good(&["config", "get", name]), format!("{value}\n"), "{name}");
    }
    assert_eq!(shell.yaml("bgpconfig", "default")["spec"]["nodeToNodeMeshEnabled"], false);
    assert!(!shell.bad(&["config", "set", "asNumber", "many"]).is_empty());
    assert!(!shell.bad(&["config", "set", "nodeToNodeMesh", "on", "--node", "node1"]).is_empty());
}

#[test]
fn manifests_of_the_first_api_are_converted() {
    let shell = Shell::new();
    let old = "apiVersion: v1\nkind: ipPool\nmetadata:\n  cidr: 10.1.0.0/16\nspec:\n  nat-outgoing: true\n";
    let yaml = shell.good(&["convert", "-f", &shell.text("old.yaml", old), "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: projectcalico.org/v3\nkind: IPPool\n"), "{yaml}");
    assert!(yaml.contains("  cidr: 10.1.0.0/16\n") && yaml.contains("  natOutgoing: true\n"), "{yaml}");
    let applied = shell.good(&["apply", "-f", &shell.text("new.yaml", &yaml)]);
    assert_eq!(applied, "Successfully applied 1 'IPPool' resource(s)\n");
}
