use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Manifest, Vec<String>> {
    parse(Path::new("f.yaml"), text, 100, Reader::Writer)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn keys(text: &str) -> Vec<String> {
    read(text).unwrap().entries.iter().map(|entry| entry.resource.key().to_string()).collect()
}

const THREE: &str = "\
# a rack
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: n1
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: p1
spec:
  cidr: 10.1.0.0/16
---
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: w1
spec:
  node: n1
  interfaceName: cali1
  ipNetworks:
    - 10.1.0.1/32
    - 10.1.0.0/24
";

#[test]
fn an_error_in_the_third_document_names_its_line_in_the_file() {
    assert_eq!(
        read(THREE).unwrap_err(),
        [
            "f.yaml:24:7: WorkloadEndpoint(w1): spec.ipNetworks[1]: 10.1.0.0/24 must be a single address: a /32 or a /128"
        ]
    );
    assert_eq!(
        keys(&THREE.replace("    - 10.1.0.0/24\n", "")),
        ["Node(n1)", "IPPool(p1)", "WorkloadEndpoint(default/w1)"]
    );
}

#[test]
fn a_syntax_error_in_a_later_document_names_its_line_in_the_file() {
    let text = THREE.replace("  node: n1\n", "  node: [n1\n");
    let problems = read(&text).unwrap_err();
    assert!(problems[0].starts_with("f.yaml:2"), "{problems:?}");
    assert!(problems[0].contains("not readable as YAML"), "{problems:?}");
}

#[test]
fn every_broken_document_is_named_and_none_is_used() {
    let text =
        THREE.replace("name: n1\n---", "name: ''\n---").replace("cidr: 10.1.0.0/16", "cidr: 10.1.0.1/16");
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.len(), 3);
    assert!(problems[0].starts_with("f.yaml:5:9: Node: metadata.name"), "{problems:?}");
    assert!(problems[1].starts_with("f.yaml:12:9: IPPool(p1): spec.cidr"), "{problems:?}");
}

#[test]
fn lists_hold_items() {
    let items = "items:\n- apiVersion: projectcalico.org/v3\n  kind: Node\n  metadata: {name: a}\n\
                 - apiVersion: projectcalico.org/v3\n  kind: Node\n  metadata: {name: b}\n";
    for head in [
        "apiVersion: v1\nkind: List\n",
        "apiVersion: projectcalico.org/v3\nkind: List\n",
        "apiVersion: projectcalico.org/v3\nkind: NodeList\nmetadata: {resourceVersion: '7'}\n",
    ] {
        assert_eq!(keys(&format!("{head}{items}")), ["Node(a)", "Node(b)"]);
    }
    assert!(keys("apiVersion: projectcalico.org/v3\nkind: NodeList\n").is_empty());
}

#[test]
fn an_item_that_is_wrong_is_named_by_its_own_line() {
    let text = "apiVersion: projectcalico.org/v3\nkind: NodeList\nitems:\n- apiVersion: projectcalico.org/v3\n  \
                kind: Node\n  metadata: {name: a}\n  spec: {bgp: {ipv4Address: x}}\n";
    assert_eq!(
        read(text).unwrap_err(),
        ["f.yaml:7:29: Node(a): spec.bgp.ipv4Address: \"x\" is not a valid address"]
    );
}

#[test]
fn json_is_read_too_with_tabs_and_all() {
    let text = "{\n\t\"apiVersion\": \"projectcalico.org/v3\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {\n\t\t\"name\": \
                \"n\\u0031\"\n\t},\n\t\"spec\": {\"bgp\": {\"ipv4Address\": \"10.0.0.1/24\"}}\n}\n";
    assert_eq!(keys(text), ["Node(n1)"]);
}

#[test]
fn calicos_other_kinds_are_ignored_with_a_word() {
    let text = "apiVersion: projectcalico.org/v3\nkind: LiveMigration\nmetadata: {name: web, namespace: shop}\n\
                spec: {source: {}}\n---\napiVersion: projectcalico.org/v3\nkind: IPReservationList\nitems:\n\
                - {apiVersion: projectcalico.org/v3, kind: IPReservation, metadata: {name: out}}\n";
    let manifest = read(text).unwrap();
    assert!(manifest.entries.is_empty());
    let ignored: Vec<_> = manifest.ignored.iter().map(ToString::to_string).collect();
    assert_eq!(
        ignored,
        [
            "f.yaml:1:1: LiveMigration(shop/web): not used by this version",
            "f.yaml:9:3: IPReservation(out): not used by this version"
        ]
    );
}

#[test]
fn fields_without_effect_are_told() {
    let text = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: node.a}\n\
                spec:\n  serviceClusterIPs: [{cidr: 10.96.0.0/12}]\n  serviceExternalIPs: []\n";
    let manifest = read(text).unwrap();
    assert_eq!(manifest.entries.len(), 1);
    assert_eq!(manifest.ignored.len(), 1);
    assert_eq!(manifest.ignored[0].field.as_deref(), Some("spec.serviceClusterIPs"));
}

/// What a misspelt one was meant to say, a rule doesn't.
#[test]
fn unknown_fields_are_errors_to_who_writes_and_told_of_in_what_is_stored() {
    let text = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: web}\nspec:\n  ingress:\n\
                \x20 - action: Allow\n    source: {selecter: app == 'web'}\n";
    let read = |reader| super::parse(Path::new("f.yaml"), text, 100, reader);
    assert_eq!(
        read(Reader::Writer).unwrap_err()[0].to_string(),
        "f.yaml:7:24: NetworkPolicy(web): spec.ingress[0].source.selecter: there is no field \"selecter\" here: is \
         \"selector\" meant?"
    );
    for reader in [Reader::Router, Reader::Follower] {
        let manifest = read(reader).unwrap();
        assert_eq!(manifest.entries.len(), 1);
        assert_eq!(manifest.ignored[0].field.as_deref(), Some("spec.ingress[0].source.selecter"));
    }
}

#[test]
fn unknown_kinds_and_versions_are_errors() {
    for (head, expected) in [
        (
            "apiVersion: projectcalico.org/v3\nkind: Pod",
            "f.yaml:2:7: Pod(x): kind: \"Pod\" is not a kind of Calico's projectcalico.org/v3",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: PodList",
            "f.yaml:2:7: PodList(x): kind: \"PodList\" is not a kind of Calico's projectcalico.org/v3",
        ),
        (
            "apiVersion: v1\nkind: Node",
            "f.yaml:1:13: Node(x): apiVersion: \"v1\" is not known: expected \"projectcalico.org/v3\"",
        ),
        ("kind: Node", "f.yaml:1:1: Node(x): apiVersion: is required"),
        ("apiVersion: projectcalico.org/v3", "f.yaml:1:1: (x): kind: is required"),
    ] {
        assert_eq!(read(&format!("{head}\nmetadata: {{name: x}}\n")).unwrap_err(), [expected]);
    }
    assert_eq!(read("just a text\n").unwrap_err(), ["f.yaml:1:1: expected a mapping, found a text"]);
    assert_eq!(
        read("- 1\n- 2\n").unwrap_err(),
        [
            "f.yaml:1:3: expected a mapping, found a number (put a text in quotes)",
            "f.yaml:2:3: expected a mapping, found a number (put a text in quotes)"
        ]
    );
}

#[test]
fn the_second_of_two_namesakes_in_a_file_is_refused() {
    let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\n";
    assert_eq!(
        read(&format!("{node}---\n{node}")).unwrap_err(),
        ["f.yaml:5:1: Node(a): Node(a) exists already in f.yaml at line 1; this one is left out"]
    );
}

#[test]
fn empty_files_hold_nothing() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "---\n---\n...\n", "null\n", "\u{feff}"] {
        assert!(keys(text).is_empty(), "{text:?}");
    }
}

#[track_caller]
fn refused(text: &str) {
    let problems = read(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("not readable as YAML"), "{problems:?}");
}

#[test]
fn hostile_yaml_is_refused_in_little_time_and_memory() {
    // Each anchor repeats the one before ten times.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..10 {
        let alias = format!("*a{},", i - 1).repeat(10);
        bomb.push_str(&format!("a{i}: &a{i} [{alias}]\n"));
    }
    refused(&bomb);
    refused(&"[".repeat(100_000));
    refused(&"{a: ".repeat(100_000));
    refused(&(0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>());
    refused(&"- ".repeat(100_000));
    refused(&format!("a: [{}]", "0,".repeat(100_000)));
    refused("a: 1\na: 2\n");
    refused("a: *nowhere\n");
    refused("a:\n\tb: 1\n");
    refused("a: \u{1}\n");
    refused(&"---\na: 1\n".repeat(200));
}

#[test]
fn reasons_are_in_words_for_operators() {
    for (text, expected) in [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: not readable as YAML: the key \"a\" stands twice"),
        ("a: *x\n", "f.yaml:1:4: not readable as YAML: alias references unknown anchor"),
        (
            "a:\n\tb: 1\n",
            "f.yaml:2:2: not readable as YAML: tabs disallowed within this context (block indentation)",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), [expected]);
    }
    let problems = read(&"- ".repeat(1_000)).unwrap_err();
    assert!(problems[0].contains("too large or too deeply nested"), "{problems:?}");
}

#[test]
fn huge_numbers_are_out_of_range_or_no_numbers() {
    for (number, expected) in [
        ("99999999999999999999", "expected a whole number"),
        ("340282366920938463463374607431768211456", "expected a whole number"),
        ("1e999", "expected a whole number"),
        (".nan", "expected a whole number"),
        ("-1", "out of range"),
        ("0x1ffffffff", "out of range"),
    ] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: a}}\nspec: {{bgp: {{asNumber: {number}}}}}\n"
        );
        let problems = read(&text).unwrap_err();
        assert!(problems[0].contains(expected), "{problems:?}");
    }
}

/// Texts near enough to resources to get past the parser now and then.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "apiVersion",
        "projectcalico.org/v3",
        "kind",
        "List",
        "Node",
        "IPPool",
        "BGPPeer",
        "WorkloadEndpoint",
        "BlockAffinity",
        "metadata",
        "name",
        "spec",
        "items",
        "cidr",
        "bgp",
        "asNumber",
        "peerIP",
        "ipNetworks",
        ": ",
        ":\n",
        "\n",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "---\n",
        "&a ",
        "*a",
        "<<",
        "'",
        "\"",
        "|",
        "#",
        "!!int ",
        "\t",
        "10.0.0.0/8",
        "::/0",
        "1.2",
        "-1",
        "null",
        "~",
        "true",
        "\u{0}",
        "é",
    ]);
    prop_oneof![
        prop::collection::vec(words, 0..40).prop_map(|words| words.concat()),
        any::<String>(),
        // A sound file with a few letters changed.
        prop::collection::vec((0..THREE.len(), any::<char>()), 1..6).prop_map(|changes| {
            let mut text: Vec<char> = THREE.chars().collect();
            changes.into_iter().for_each(|(at, letter)| text[at] = letter);
            text.into_iter().collect()
        }),
    ]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_place_inside_it(text in nearly_yaml()) {
        let Err(problems) = parse(Path::new("f.yaml"), &text, 100, Reader::Writer) else { return Ok(()) };
        prop_assert!(!problems.is_empty());
        let lines = text.lines().count() + 1;
        for problem in problems {
            prop_assert!(problem.position.is_none_or(|position| position.line as usize <= lines), "{}", problem);
        }
    }
}

#[test]
fn a_field_that_the_router_does_not_read_takes_nothing_down_with_it() {
    let text = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n\
                spec: {ipipEnabled: true, bpfLogLevel: Loud}\n---\n\
                apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n\
                spec: {wireguard: {interfaceIPv4Address: none}}\n";
    let read = |reader| super::parse(Path::new("f.yaml"), text, 100, reader);
    let manifest = read(Reader::Router).unwrap();
    let fields: Vec<_> = manifest.ignored.iter().filter_map(|ignored| ignored.field.as_deref()).collect();
    assert_eq!(fields, ["spec.bpfLogLevel", "spec.wireguard.interfaceIPv4Address"]);
    assert_eq!(manifest.entries.len(), 2);
    assert_eq!(read(Reader::Writer).unwrap_err().len(), 2, "who writes is told");
}
