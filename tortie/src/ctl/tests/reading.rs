//! What `get` shows.

use super::*;

#[test]
fn an_empty_store_shows_headings_and_empty_lists() {
    let shell = Shell::new();
    assert_eq!(shell.good(&["get", "ippools"]), "NAME   CIDR   SELECTOR   \n\n");
    let yaml = shell.good(&["get", "bgppeer", "-o", "yaml"]);
    assert!(
        yaml.starts_with(
            "apiVersion: projectcalico.org/v3\nitems: []\nkind: BGPPeerList\nmetadata:\n  resourceVersion: "
        ),
        "{yaml}"
    );
}

#[test]
fn a_pool_is_shown_in_calicoctls_tables() {
    let shell = Shell::with(&[pool("ippool-name1", "10.0.1.0/24")]);
    assert_eq!(
        shell.good(&["get", "ippool"]),
        "\
NAME           CIDR          SELECTOR       \n\
ippool-name1   10.0.1.0/24   foo == 'bar'   \n\n"
    );
    assert_eq!(
        shell.good(&["get", "IPPools", "-o", "wide"]),
        "\
NAME           CIDR          NAT     IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   SELECTOR       ASSIGNMENTMODE   \n\
ippool-name1   10.0.1.0/24   false   Always     Never       false      false              foo == 'bar'   Automatic        \n\n"
    );
}

#[test]
fn names_that_are_not_there_are_told_after_those_that_are() {
    let shell = Shell::with(&[pool("one", "10.0.1.0/24"), pool("two", "10.0.2.0/24")]);
    let Said { out, error } = shell.say(&["get", "ippool", "one", "blah", "two"]);
    assert_eq!(error.as_deref(), Some("resource does not exist: IPPool(blah) with error: <nil>"));
    assert_eq!(out.matches("NAME   CIDR").count(), 2, "{out}");
}

#[test]
fn a_kind_that_nobody_knows_is_refused() {
    assert_eq!(
        Shell::new().bad(&["get", "somekind"]),
        "failed to get resources: resource type 'somekind' is not supported"
    );
}

#[test]
fn the_profile_that_everybody_has_is_listed_first_of_all() {
    let list = Shell::new().read(&["get", "profiles", "-o", "json"]);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        list["items"][0]["metadata"],
        json!({ "name": "projectcalico-default-allow", "resourceVersion": "1" })
    );
    assert_eq!(
        list["items"][0]["spec"],
        json!({ "ingress": [{ "action": "Allow" }], "egress": [{ "action": "Allow" }] })
    );
}

#[test]
fn an_export_leaves_out_what_belongs_to_one_cluster() {
    let shell = Shell::with(&[pool("ippool-name1", "10.0.1.0/24")]);
    let yaml = shell.good(&["get", "ippool", "ippool-name1", "--export", "-o", "yaml"]);
    assert_eq!(
        yaml,
        "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: ippool-name1
spec:
  allowedUses:
  - Workload
  - Tunnel
  assignmentMode: Automatic
  blockSize: 27
  cidr: 10.0.1.0/24
  ipipMode: Always
  nodeSelector: foo == 'bar'
  vxlanMode: Never
"
    );
}

#[test]
fn what_get_prints_can_be_applied_again() {
    let shell = Shell::with(&[pool("ippool-name1", "10.0.1.0/24")]);
    let file = shell.text("got.yaml", &shell.good(&["get", "ippools", "-o", "yaml"]));
    assert_eq!(shell.good(&["apply", "-f", &file]), "Successfully applied 1 'IPPool' resource(s)\n");
}

#[test]
fn columns_and_templates_are_the_callers_choice() {
    let shell = Shell::with(&[pool("one", "10.0.1.0/24"), pool("two", "10.0.2.0/24")]);
    assert_eq!(
        shell.good(&["get", "ippool", "-o", "custom-columns=NAME,CIDR"]),
        "NAME   CIDR          \none    10.0.1.0/24   \ntwo    10.0.2.0/24   \n\n"
    );
    let template =
        "go-template={{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{.Spec.CIDR}},{{end}}{{end}}";
    assert_eq!(shell.good(&["get", "ippool", "-o", template]), "one 10.0.1.0/24,two 10.0.2.0/24,");
}

#[test]
fn resources_of_namespaces_are_asked_for_by_them() {
    let mut set = resource("NetworkSet", "set1", json!({ "nets": ["10.0.0.1", "11.0.0.0/16"] }));
    let shell = Shell::with(std::slice::from_ref(&set));
    set["metadata"]["namespace"] = "other".into();
    shell.good(&["create", "-f", &shell.file(&set)]);
    assert_eq!(shell.good(&["get", "networksets"]), "NAME   \nset1   \n\n");
    assert_eq!(
        shell.good(&["get", "networksets", "-A"]),
        "NAMESPACE   NAME   \ndefault     set1   \nother       set1   \n\n"
    );
    assert_eq!(shell.yaml("networkset", "set1")["metadata"]["namespace"], "default");
    let other = shell.read(&["get", "networkset", "set1", "-n", "other", "-o", "json"]);
    assert_eq!(other["metadata"]["namespace"], "other");
    assert!(!shell.bad(&["get", "networkset", "set1", "-n", "nowhere"]).is_empty());
}

#[test]
fn durations_are_written_as_go_writes_them() {
    let spec = json!({ "reportingTTL": "125s", "routeRefreshInterval": "2h45m10s", "iptablesLockProbeInterval": "500ms" });
    let shell = Shell::with(&[resource("FelixConfiguration", "node.node5", spec)]);
    let spec = &shell.yaml("felixconfig", "node.node5")["spec"];
    assert_eq!(spec["reportingTTL"], "2m5s");
    assert_eq!(spec["routeRefreshInterval"], "2h45m10s");
    assert_eq!(spec["iptablesLockProbeInterval"], "500ms");
}
