//! Debian's Prometheus watches a running router by the files of `monitoring/`: every rule evaluates, every panel of the
//! dashboard has something to show and can be drawn, and the alert of a session that goes down wakes up. With
//! `TORTIE_SCREENSHOTS=FOLDER`, the operator's guide gets a picture of the dashboard, drawn by `dashboard.html`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{METRICS, Site};
use crate::browser::{self, Browser};
use crate::netns::Namespace;
use crate::process::Process;
use crate::scenario::{Options, Scenario, Store};
use crate::{Lab, command};

pub(in crate::scenarios) const MONITORING: Scenario = Scenario {
    name: "monitoring",
    about: "Prometheus scrapes a router: alert rules evaluate, every panel of the dashboard shows something",
    programs: &["ping", "bird", "birdc", "prometheus", "promtool", "mkfifo", browser::PROGRAM],
    tortie: true,
    alone: false,
    store: Store::Either,
    run,
};

/// Where Prometheus answers, in the router's namespace.
const PROMETHEUS: &str = "127.0.0.1:9090";
const QUESTION: Duration = Duration::from_secs(60);
/// Two scrapes, a second apart, and a machine that has other things to do.
const APPEARS: Duration = Duration::from_secs(180);
/// What the picture of the dashboard shows, in seconds.
const SHOWN: u64 = 60;
/// Draws the dashboard in a browser.
const VIEWER: &str = include_str!("dashboard.html");
/// What a panel's description begins with that may be empty here.
const MAY_BE_EMPTY: &str = "Empty where";

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let site = Site::raise(lab)?;
    let prometheus = Prometheus::start(lab, &site.gateway().namespace)?;
    lab.wait("Prometheus' first scrape of the router", APPEARS, || {
        Ok((prometheus.value("up{job=\"tortie\"}")? == Some(1.0)).then_some(()))
    })?;
    panels(lab, &prometheus)?;
    rules(lab, &prometheus)?;
    picture(lab, &prometheus)?;
    an_alert_wakes_up(lab, &site, &prometheus)?;
    let longest = prometheus.value("max_over_time(scrape_duration_seconds{job=\"tortie\"}[10m])")?;
    let longest = longest.context("a scrape has a duration")?;
    let series = prometheus.value("scrape_samples_scraped{job=\"tortie\"}")?.unwrap_or_default();
    lab.proved(format!(
        "a scrape of {series} series took {:.1} ms at most, the way to Prometheus included",
        longest * 1e3
    ));
    site.session.beats().map(drop)
}

/// Every query of every panel, with the variables that Grafana would put in.
fn panels(lab: &Lab, prometheus: &Prometheus<'_>) -> Result<()> {
    let text = std::fs::read_to_string(monitoring().join("grafana.json"))?;
    let dashboard: Value = serde_json::from_str(&text).context("grafana.json")?;
    let panels = dashboard["panels"].as_array().context("a list of panels")?;
    let (mut asked, mut empty) = (0, Vec::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        let may_be_empty = panel["description"].as_str().is_some_and(|text| text.starts_with(MAY_BE_EMPTY));
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().with_context(|| format!("{title} asks nothing"))?;
            let query = query.replace("$__rate_interval", "30s").replace("$instance", ".*");
            asked += 1;
            if may_be_empty {
                if prometheus.ask(&query)?.is_empty() {
                    empty.push(title);
                }
                continue;
            }
            lab.wait(&format!("something in the panel {title}: {query}"), APPEARS, || {
                Ok((!prometheus.ask(&query)?.is_empty()).then_some(()))
            })?;
        }
    }
    ensure!(asked > 20, "only {asked} queries in the dashboard");
    lab.proved(format!(
        "all {asked} queries of the dashboard's panels evaluate and give series{}",
        if empty.is_empty() {
            String::new()
        } else {
            format!("; nothing to show here: {}", empty.join(", "))
        }
    ));
    Ok(())
}

/// Every panel, drawn from Prometheus' HTTP API. Grafana isn't in Debian.
fn picture(lab: &Lab, prometheus: &Prometheus<'_>) -> Result<()> {
    let folder = std::env::var_os("TORTIE_SCREENSHOTS").map(PathBuf::from);
    if folder.is_some() {
        let scraped = format!("count_over_time(up{{job=\"tortie\"}}[{}s]) >= {}", SHOWN + 5, SHOWN);
        lab.wait("enough scrapes for a picture", 3 * APPEARS, || {
            Ok((!prometheus.ask(&scraped)?.is_empty()).then_some(()))
        })?;
    }
    let mut browser = Browser::start(lab, prometheus.namespace)?;
    browser.window(1400, 1000, false)?;
    let page = format!("http://{PROMETHEUS}/user/dashboard.html?seconds={SHOWN}");
    browser.visit(&page, "document.body.dataset.panels > 0")?;
    let drawn = "document.querySelectorAll('section[data-series] :is(path, .stat, td)').length";
    browser.wait(&format!("{drawn} > 30"))?;
    let (drawn, shown) = (browser.evaluate(drawn)?, browser.evaluate("document.body.dataset.panels")?);
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "the browser complains: {}", complaints.join("; "));
    lab.proved(format!("{shown} panels and rows are drawn, with {drawn} lines and numbers"));
    let Some(folder) = folder else { return Ok(()) };
    let height = browser.evaluate("document.documentElement.scrollHeight")?.as_u64().context("a height")?;
    browser.window(1400, u32::try_from(height)?, false)?;
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join("dashboard.png"), browser.picture()?)?)
}

fn rules(lab: &Lab, prometheus: &Prometheus<'_>) -> Result<()> {
    let text = std::fs::read_to_string(monitoring().join("alerts.yaml"))?;
    let written = text.lines().filter(|line| line.trim_start().starts_with("- alert: ")).count();
    let evaluated = format!("prometheus_rule_evaluations_total >= {}", 2 * written);
    lab.wait("every alert rule being evaluated twice", APPEARS, || {
        Ok((!prometheus.ask(&evaluated)?.is_empty()).then_some(()))
    })?;
    let known = prometheus.value("sum(prometheus_rule_group_rules)")?;
    ensure!(known == Some(written as f64), "{written} rules are written, and Prometheus knows {known:?}");
    let failures = prometheus.value("sum(prometheus_rule_evaluation_failures_total)")?;
    ensure!(failures == Some(0.0), "rules that don't evaluate: {failures:?}");
    lab.proved(format!("all {written} alert rules evaluate without an error"));
    Ok(())
}

fn an_alert_wakes_up(lab: &Lab, site: &Site<'_>, prometheus: &Prometheus<'_>) -> Result<()> {
    // Some wait for minutes before they are told of, so that a machine which is busy for a moment wakes nobody.
    lab.wait("no alert without a reason", APPEARS, || {
        let awake = prometheus.ask("ALERTS")?;
        ensure!(awake.is_empty(), "{awake:?}");
        Ok(Some(()))
    })?;
    site.cluster.nodes[2].bird()?.ask("disable all")?;
    lab.wait("the alert of sessions that are down", APPEARS, || {
        Ok((prometheus.ask("ALERTS{alertname=\"TortieBgpPeerDown\"}")?.len() == 2).then_some(()))
    })?;
    lab.proved("nothing is alerted of while all is well, and sessions that go down are, by both families");
    Ok(())
}

/// The files that an operator gets.
fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring")
}

/// A running Prometheus.
struct Prometheus<'a> {
    namespace: &'a Namespace,
    _process: Process,
}

impl Prometheus<'_> {
    fn start<'a>(lab: &Lab, namespace: &'a Namespace) -> Result<Prometheus<'a>> {
        let file = lab.directory().join("prometheus.yaml");
        let rules = monitoring().join("alerts.yaml").canonicalize()?;
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n\
             - {{ job_name: tortie, static_configs: [{{ targets: [\"{METRICS}\"] }}] }}\n\
             - {{ job_name: prometheus, static_configs: [{{ targets: [\"{PROMETHEUS}\"] }}] }}\n",
            rules.display()
        );
        std::fs::write(&file, text)?;
        let assets = lab.directory().join("assets");
        std::fs::create_dir(&assets)?;
        std::fs::write(assets.join("dashboard.html"), VIEWER)?;
        std::fs::copy(monitoring().join("grafana.json"), assets.join("grafana.json"))?;
        let mut command = namespace.command("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", lab.directory().join("prometheus").display()));
        command.arg(format!("--web.listen-address={PROMETHEUS}"));
        command.arg(format!("--web.user-assets={}", assets.display()));
        Ok(Prometheus { namespace, _process: lab.spawn("prometheus", command)? })
    }

    /// The series that a query gives now.
    fn ask(&self, query: &str) -> Result<Vec<Value>> {
        let mut promtool = self.namespace.command("promtool");
        promtool.args(["query", "-o", "json", "instant", &format!("http://{PROMETHEUS}"), query]);
        match serde_json::from_str(&command::run(&mut promtool, QUESTION)?)? {
            Value::Array(series) => Ok(series),
            other => bail!("`{query}` gave {other}"),
        }
    }

    /// The value of the first series.
    fn value(&self, query: &str) -> Result<Option<f64>> {
        let series = self.ask(query)?;
        let text = series.first().and_then(|series| series["value"][1].as_str());
        text.map(|text| text.parse().context("a number")).transpose()
    }
}
