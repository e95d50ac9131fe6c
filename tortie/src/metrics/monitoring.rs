//! The files of `monitoring/` held to the metrics that exist: every name, every label, every reason for a drop; and the
//! alert rules by Prometheus' own tool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use tables::{DropReason, PuntReason};

use super::exposition::read;
use super::render;
use super::tests::sample;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("monitoring/{name}: {error}"))
}

/// Every metric's labels.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
    let families = read(&render(&sample(), String::new())).unwrap();
    let labels = |family: super::exposition::Family| {
        let of =
            |sample: &str| label.captures_iter(sample).map(|found| found[1].to_owned()).collect::<Vec<_>>();
        family.samples.keys().flat_map(|sample| of(sample)).collect()
    };
    families.into_iter().map(|(name, family)| (name, labels(family))).collect()
}

/// A query or a rule, and the text beside it that names its labels.
struct Asked {
    what: String,
    query: String,
    names: String,
}

fn panels() -> Vec<Asked> {
    let dashboard: serde_json::Value = serde_json::from_str(&text("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let asked = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(|target| Asked {
            what: panel["title"].to_string(),
            query: target["expr"].as_str().unwrap().to_owned(),
            names: target["legendFormat"].as_str().unwrap().replace("{{", "$labels."),
        })
    });
    asked.collect()
}

fn rules() -> Vec<Asked> {
    let text = text("alerts.yaml");
    let asked = text.split("  - alert: ").skip(1).map(|rule| Asked {
        what: rule.lines().next().unwrap().to_owned(),
        query: rule.lines().find_map(|line| line.trim().strip_prefix("expr: ")).unwrap().to_owned(),
        names: rule.to_owned(),
    });
    asked.collect()
}

/// What is wrong with a query.
fn faults(asked: &Asked, metrics: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let Asked { what, query, names } = asked;
    let mut faults = Vec::new();
    // What Prometheus adds to every series.
    let mut known: BTreeSet<String> = ["instance", "job"].map(str::to_owned).into();
    let metric = Regex::new(r"\b(tortie_[a-z0-9_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
    for found in metric.captures_iter(query) {
        let Some(labels) = metrics.get(&found[1]) else {
            faults.push(format!("{what}: there is no metric {}", &found[1]));
            continue;
        };
        known.extend(labels.iter().cloned());
        for asked in matcher.captures_iter(found.get(2).map_or("", |matchers| matchers.as_str())) {
            if !labels.contains(&asked[1]) && !["instance", "job"].contains(&&asked[1]) {
                faults.push(format!("{what}: {} has no label {}", &found[1], &asked[1]));
            }
            let reasons: Vec<&str> = match &found[1] {
                "tortie_dropped_packets_total" => {
                    DropReason::ALL.iter().map(|reason| reason.as_str()).collect()
                }
                "tortie_punted_packets_total" => {
                    PuntReason::ALL.iter().map(|reason| reason.as_str()).collect()
                }
                _ => continue,
            };
            for reason in asked[2].split('|').filter(|_| &asked[1] == "reason") {
                if !reasons.contains(&reason) {
                    faults.push(format!("{what}: {} has no reason {reason}", &found[1]));
                }
            }
        }
    }
    let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let told = Regex::new(r"\$labels\.([a-z_]+)").unwrap();
    let by = grouped
        .captures_iter(query)
        .flat_map(|found| found[1].split(", ").map(str::to_owned).collect::<Vec<_>>());
    let told = told.captures_iter(names).map(|found| found[1].to_owned());
    faults.extend(
        by.chain(told)
            .filter(|label| !known.contains(label))
            .map(|label| format!("{what}: no label {label}")),
    );
    faults
}

#[test]
fn every_panel_and_every_rule_asks_for_metrics_that_exist() {
    let metrics = metrics();
    let (panels, rules) = (panels(), rules());
    assert!(panels.len() > 20 && rules.len() > 10);
    let faults: Vec<String> = panels.iter().chain(&rules).flat_map(|asked| faults(asked, &metrics)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let asked =
        |query: &str, names: &str| Asked { what: "x".into(), query: query.into(), names: names.into() };
    for (query, names, says) in [
        ("rate(tortie_lost_total[5m])", "", "no metric tortie_lost_total"),
        ("tortie_ready{port=\"eth0\"}", "", "no label port"),
        ("sum by (peer) (tortie_ready)", "", "no label peer"),
        ("tortie_ready", "{{ $labels.peer }}", "no label peer"),
        ("tortie_dropped_packets_total{reason=~\"no_route|arp\"}", "", "no reason"),
    ] {
        let faults = faults(&asked(query, names), &metrics());
        assert!(faults.iter().any(|fault| fault.contains(says)), "{query}: {faults:?}");
    }
}

/// Every alert has a series under which it fires, and one under which it doesn't.
#[test]
fn alert_rules_are_sound_and_tested_both_ways() {
    let tests = text("alerts.test.yaml");
    for rule in rules() {
        for ends in ["fires", "doesn't fire"] {
            assert!(
                tests.contains(&format!("- name: {} {ends}\n", rule.what)),
                "{} {ends}: not tested",
                rule.what
            );
        }
    }
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let mut promtool = Command::new("promtool");
        let Ok(said) = promtool.args(arguments).current_dir(file(".")).output() else {
            println!("skipped: promtool isn't installed; `cargo xtask test` installs it");
            return;
        };
        let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.status.success(), "promtool {}: {words}", arguments.join(" "));
    }
}
