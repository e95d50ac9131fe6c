//! What the commands that write do, and how they refuse.

use super::*;

#[test]
fn verbs_count_what_they_did_and_refuse_what_is_there_or_is_not() {
    let shell = Shell::new();
    let file = shell.file(&peer("bgppeer1", "192.168.0.250"));
    let Said { out, error } = shell.say(&["replace", "-f", &file]);
    assert_eq!(out, "Partial success: replaced the first 1 out of 1 'BGPPeer' resources:\n");
    assert_eq!(
        error.as_deref(),
        Some("hit error: resource does not exist: BGPPeer(bgppeer1) with error: <nil>")
    );
    assert_eq!(shell.good(&["create", "-f", &file]), "Successfully created 1 'BGPPeer' resource(s)\n");
    assert_eq!(
        shell.bad(&["create", "-f", &file]),
        "failed to create 'BGPPeer' resource: [resource already exists: BGPPeer(bgppeer1)]"
    );
    assert_eq!(
        shell.good(&["create", "-f", &file, "--skip-exists"]),
        "Successfully created 1 'BGPPeer' resource(s)\n"
    );
    assert_eq!(shell.good(&["apply", "-f", &file]), "Successfully applied 1 'BGPPeer' resource(s)\n");
    assert_eq!(shell.good(&["replace", "-f", &file]), "Successfully replaced 1 'BGPPeer' resource(s)\n");
    assert_eq!(shell.good(&["delete", "-f", &file]), "Successfully deleted 1 'BGPPeer' resource(s)\n");
    assert_eq!(
        shell.bad(&["delete", "bgppeer", "bgppeer1"]),
        "Failed to delete 'BGPPeer' resource: resource does not exist: BGPPeer(bgppeer1) with error: <nil>\n"
    );
    assert_eq!(
        shell.good(&["delete", "bgppeer", "bgppeer1", "--skip-not-exists"]),
        "Successfully deleted 1 'BGPPeer' resource(s)\n"
    );
}

#[test]
fn a_write_on_an_older_version_is_a_conflict() {
    let shell = Shell::with(&[peer("bgppeer1", "192.168.0.250")]);
    let old = shell.yaml("bgppeer", "bgppeer1");
    let mut new = old.clone();
    new["spec"]["asNumber"] = 64515.into();
    shell.good(&["apply", "-f", &shell.file(&new)]);
    let error = shell.bad(&["apply", "-f", &shell.file(&old)]);
    assert!(error.contains("update conflict: BGPPeer(bgppeer1)"), "{error}");
}

#[test]
fn labels_that_a_replacement_does_not_have_are_gone() {
    let mut first = peer("bgppeer1", "192.168.0.250");
    first["metadata"]["labels"] = json!({ "a": "b" });
    let shell = Shell::with(&[first]);
    shell.good(&["apply", "-f", &shell.file(&peer("bgppeer1", "192.168.0.251"))]);
    let now = shell.yaml("bgppeer", "bgppeer1");
    assert_eq!(now["metadata"]["labels"], Value::Null);
    assert_eq!(now["spec"]["peerIP"], "192.168.0.251");
}

#[test]
fn some_good_and_some_bad_is_a_partial_success() {
    let shell = Shell::with(&[peer("two", "10.0.0.2")]);
    let all = list(&[peer("one", "10.0.0.1"), peer("two", "10.0.0.2"), peer("three", "10.0.0.3")]);
    let Said { out, error } = shell.say(&["create", "-f", &shell.file(&all)]);
    assert_eq!(out, "Partial success: created the first 2 out of 3 'BGPPeer' resources:\n");
    assert_eq!(error.as_deref(), Some("hit error: [resource already exists: BGPPeer(two)]"));
}

#[test]
fn a_field_that_no_rule_allows_is_named() {
    let shell = Shell::new();
    let error = shell.bad(&["create", "-f", &shell.file(&peer("bgppeer1", "badpeerIP"))]);
    assert!(
        error.starts_with("failed to create 'BGPPeer' resource: [error with field PeerIP = 'badpeerIP'"),
        "{error}"
    );
}

#[test]
fn a_file_of_another_form_is_refused_in_gos_words() {
    let shell = Shell::new();
    let refused = |value: Value| shell.bad(&["create", "-f", &shell.file(&value)]);
    let mut unknown_version = peer("bgppeer1", "10.0.0.1");
    unknown_version["apiVersion"] = "v7".into();
    let error = refused(unknown_version);
    assert!(error.contains("unknown resource type (BGPPeer) and/or version (v7)"), "{error}");
    let mut misspelt = peer("bgppeer1", "10.0.0.1");
    misspelt["spec"]["peerIPs"] = "10.0.0.1".into();
    let error = super::super::massaged(&refused(misspelt));
    assert_eq!(error, "field in document is not recognized or is in the wrong location: peerIPs");
    let error = refused(resource("IPPool", "pool", json!({ "cidr": "10.0.0.0/24", "disabled": "true" })));
    assert!(
        error.contains("cannot unmarshal string into Go struct field IPPoolSpec.spec.disabled of type bool"),
        "{error}"
    );
    let empty = shell.text("empty.yaml", "");
    assert_eq!(shell.bad(&["create", "-f", &empty]), format!("no resources specified in file {empty}"));
    assert_eq!(shell.good(&["create", "-f", &empty, "--skip-empty"]), "No resources specified\n");
}

#[test]
fn directories_are_read_with_those_within_when_asked_to() {
    let shell = Shell::new();
    shell.text("all/one.json", &peer("one", "10.0.0.1").to_string());
    shell.text(
        "all/deep/two.yaml",
        &format!("---\n{}\n---\n{}\n", peer("two", "10.0.0.2"), peer("three", "10.0.0.3")),
    );
    shell.text("all/notes.txt", "nothing of ours");
    let all = shell.place.path().join("all").display().to_string();
    assert_eq!(shell.good(&["apply", "-f", &all]), "Successfully applied 1 'BGPPeer' resource(s)\n");
    assert_eq!(shell.good(&["apply", "-f", &all, "-R"]), "Successfully applied 3 'BGPPeer' resource(s)\n");
}

#[test]
fn labels_are_set_kept_overwritten_and_removed() {
    let shell = Shell::with(&[pool("pool", "10.0.1.0/24")]);
    let label = |words: &[&str]| shell.say(&[&["label", "ippool", "pool"], words].concat());
    assert_eq!(label(&["app=one"]), Said::fine("Successfully set label app on ippool pool\n"));
    let error = label(&["app=two"]).error.unwrap();
    assert!(error.contains("key app is already present"), "{error}");
    assert_eq!(
        label(&["app=two", "--overwrite"]),
        Said::fine("Successfully updated label app on ippool pool\n")
    );
    assert_eq!(shell.yaml("ippool", "pool")["metadata"]["labels"], json!({ "app": "two" }));
    assert_eq!(label(&["app", "--remove"]), Said::fine("Successfully removed label app from ippool pool\n"));
    let error = label(&["app", "--remove"]).error.unwrap();
    assert!(error.contains("cannot remove label of"), "{error}");
    assert_eq!(shell.bad(&["label", "ippool", "none", "a=b"]), "ippool none not found");
}

#[test]
fn a_patch_changes_what_it_names_in_each_of_its_forms() {
    let shell = Shell::with(&[pool("pool", "10.0.1.0/24")]);
    for (form, patch, nat) in [
        ("strategic", r#"{"spec":{"natOutgoing":true}}"#, json!(true)),
        ("json", r#"[{"op":"remove","path":"/spec/natOutgoing"}]"#, Value::Null),
        ("merge", r#"{"spec":{"natOutgoing":true}}"#, json!(true)),
    ] {
        let said = shell.good(&["patch", "ippool", "pool", "--type", form, "--patch", patch]);
        assert_eq!(said, "Successfully patched 1 'IPPool' resource\n");
        assert_eq!(shell.yaml("ippool", "pool")["spec"]["natOutgoing"], nat, "{form}");
    }
    let error = shell.bad(&["patch", "ippool", "nowhere", "-p", "{}"]);
    assert!(error.contains("resource does not exist: IPPool(nowhere)"), "{error}");
}

#[test]
fn resources_are_held_to_the_rules_without_a_store() {
    let shell = Shell::new();
    let good = shell.file(&pool("pool", "10.0.1.0/24"));
    let said = "Successfully validated 1 'IPPool' resource(s)\n";
    assert_eq!(shell.good(&["validate", "-f", &good]), said);
    // Which datastore and which namespace makes no difference.
    assert_eq!(shell.good(&["validate", "-f", &good, "-c", "/nowhere", "-n", "blue"]), said);
    let mixed =
        shell.file(&list(&[peer("one", "10.0.0.1"), peer("two", "nonsense"), peer("three", "10.0.0.3")]));
    let error = shell.bad(&["validate", "-f", &mixed]);
    assert!(error.starts_with("hit error: [error with field PeerIP = 'nonsense'"), "{error}");
}

#[test]
fn what_is_optimized_is_printed_as_yaml() {
    let shell = Shell::new();
    let one = shell.good(&["optimize", "-f", &shell.file(&pool("pool1", "10.0.1.0/24"))]);
    assert!(one.starts_with("apiVersion: projectcalico.org/v3\nkind: IPPool\n"), "{one}");
    let rule =
        |app: &str| json!({ "action": "Allow", "destination": { "selector": format!("app == '{app}'") } });
    let policy = resource("GlobalNetworkPolicy", "web", json!({ "ingress": [rule("a"), rule("b")] }));
    let many = shell.good(&["optimize", "-f", &shell.file(&list(&[policy, pool("pool1", "10.0.1.0/24")]))]);
    assert_eq!(many.matches("\n- apiVersion").count(), 2, "{many}");
    assert!(many.contains("    name: web-i-0\n") && many.contains("    name: web-i-1\n"), "{many}");
    let error = shell.bad(&["optimize", "-f", &shell.file(&pool("pool1", "10.0.1.0/33"))]);
    assert!(error.contains("CIDR = '10.0.1.0/33'"), "{error}");
}
