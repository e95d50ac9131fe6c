//! A large site from either store: how long the router takes from its start until all of it is in sync, compiled and in
//! force, and how far behind it is while the site changes. It is the product's own binary, with an etcd and a namespace of
//! its own; it says itself how long it took.

mod resources;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use datastore::settings::EtcdSettings;
use datastore::{EtcdStore, Key, Store};
use lab::etcd::EtcdServer;
use lab::progress::Progress;
use lab::tortie::{Settings, ShowDatastore, TortieNode};
use lab::{Lab, Tools, link};
use perf::measure::Readings;
use perf::record::Record;
use serde::Serialize;
use serde_json::Value;

use resources::{NODE, basics, endpoint, policy};

/// Writers beside each other.
const WRITERS: usize = 8;
/// How long a load may take.
const LOAD: Duration = Duration::from_secs(600);
/// How long it may take until the last change is in force.
const CATCH_UP: Duration = Duration::from_secs(120);
/// What `etcd` may store: endpoints of some 700 bytes, and their histories.
const QUOTA: &str = "--quota-backend-bytes=2147483648";

/// What one may ask of `perf site`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Workload endpoints, a hundred of them on the node that is measured.
    #[arg(long, default_value_t = 100_000)]
    endpoints: usize,
    /// Policies, each of which selects endpoints of the node.
    #[arg(long, default_value_t = 2_000)]
    policies: usize,
    /// Changes a second.
    #[arg(long, default_value_t = 1_000)]
    changes: usize,
    /// For so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: usize,
    /// Only these stores: etcd, directory.
    #[arg(long, value_delimiter = ',', default_values_t = ["etcd".to_owned(), "directory".to_owned()])]
    stores: Vec<String>,
    /// The router; the one beside this program where none is named.
    #[arg(long)]
    tortie: Option<PathBuf>,
    /// Write the result into perf/records/.
    #[arg(long)]
    record: bool,
}

/// How often it is looked how far behind the router is.
const LOOK: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Serialize)]
struct Results {
    rounds: usize,
    /// For how long the site changed.
    seconds: usize,
    writers: usize,
    etcd: String,
    stores: Vec<Row>,
}

/// One store's figures.
#[derive(Serialize)]
struct Row {
    store: &'static str,
    endpoints: usize,
    policies: usize,
    /// From the start of following until all is in force.
    load_seconds: Readings,
    load_processor_seconds: Readings,
    resident_megabytes: Readings,
    changes: usize,
    changes_a_second: f64,
    /// From the datastore's word until a change is in force.
    median_delay_milliseconds: f64,
    p99_delay_milliseconds: f64,
    longest_delay_milliseconds: f64,
    /// From the moment that a change begins to be written until it is in force, at moments of the run.
    median_behind_milliseconds: f64,
    p99_behind_milliseconds: f64,
    /// From the last write until all changes are in force.
    caught_up_milliseconds: f64,
    processor_share: f64,
}

/// Measures and prints, and records where asked to.
pub fn run(arguments: &Arguments) -> Result<()> {
    let beside = std::env::current_exe()?.with_file_name("tortie");
    let tortie = arguments.tortie.clone().unwrap_or(beside);
    ensure!(tortie.exists(), "there is no {}: build tortie, or name it by --tortie", tortie.display());
    let mut rows = Vec::new();
    for store in ["etcd", "directory"] {
        if arguments.stores.iter().any(|wanted| wanted == store) {
            rows.push(measure(store, &tortie, arguments)?);
        }
    }
    if arguments.record {
        let results = Results {
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            writers: WRITERS,
            etcd: etcd_version(),
            stores: rows,
        };
        println!("written to {}", Record::new("site", results).write()?.display());
    }
    Ok(())
}

/// As it says itself.
fn etcd_version() -> String {
    let said = std::process::Command::new("etcd").arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("none").to_owned()
}

/// Writes a value.
type Put<'a> = Box<dyn FnMut(&Key, &Value) -> Result<()> + 'a>;

/// Where the site is kept.
enum Site {
    Etcd(EtcdSettings),
    Directory(PathBuf),
}

impl Site {
    /// The place, and the server there, if there is one.
    fn raise(store: &str, lab: &Lab) -> Result<(Site, Option<EtcdServer>)> {
        if store == "etcd" {
            let server = EtcdServer::start(lab, &lab.namespace("etcd")?, None, &[QUOTA])?;
            return Ok((Site::Etcd(server.settings()), Some(server)));
        }
        let directory = lab.directory().join("site");
        fs::create_dir(&directory)?;
        Ok((Site::Directory(directory), None))
    }

    fn datastore(&self) -> String {
        match self {
            Site::Etcd(settings) => format!("{{ etcd: {{ endpoints: [\"{}\"] }} }}", settings.endpoints[0]),
            Site::Directory(path) => format!("{{ directory: {} }}", path.display()),
        }
    }

    /// Writes from several threads; number *n* not before `due(n)` has passed.
    fn write(
        &self,
        count: usize,
        what: impl Fn(usize) -> (Key, Value) + Sync,
        due: impl Fn(usize) -> Duration + Sync,
    ) -> Result<()> {
        let began = Instant::now();
        let (what, due) = (&what, &due);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || -> Result<()> {
                        let mut put = self.writer()?;
                        for number in (writer..count).step_by(WRITERS) {
                            thread::sleep(due(number).saturating_sub(began.elapsed()));
                            let (key, value) = what(number);
                            put(&key, &value)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("a writer ends"))
        })
    }

    fn writer(&self) -> Result<Put<'_>> {
        match self {
            Site::Etcd(settings) => {
                let store = EtcdStore::open(settings)?;
                Ok(Box::new(move |key, value| Ok(store.put(key, value, None).map(drop)?)))
            }
            // As an operator's tools write them: a file a resource, put in place whole.
            Site::Directory(path) => Ok(Box::new(move |key, value| put_file(path, key, value))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put_file(directory: &Path, key: &Key, value: &Value) -> Result<()> {
    let name = key.to_string().replace(['(', ')', '/'], "_");
    let aside = directory.join(format!(".{name}.new"));
    fs::write(&aside, serde_saphyr::to_string(value)?)?;
    Ok(fs::rename(aside, directory.join(format!("{name}.yaml")))?)
}

fn measure(store: &'static str, tortie: &Path, arguments: &Arguments) -> Result<Row> {
    let Arguments { endpoints, policies, .. } = *arguments;
    let tools = Tools { tortie: tortie.to_owned(), agent: PathBuf::new() };
    let lab = Lab::raise(&tools, Progress::new(None))?;
    let (site, _server) = Site::raise(store, &lab)?;
    let basics = basics();
    let began = Instant::now();
    site.write(
        basics.len() + policies + endpoints,
        |number| match number.checked_sub(basics.len()) {
            None => basics[number].clone(),
            Some(number) if number < policies => policy(number),
            Some(number) => endpoint(number - policies, 0),
        },
        |_| Duration::ZERO,
    )?;
    println!(
        "{store}: {} resources written by {WRITERS} writers in {:.1} s",
        basics.len() + policies + endpoints,
        began.elapsed().as_secs_f64()
    );
    let (router, outside) = (lab.namespace(NODE)?, lab.namespace("outside")?);
    link::veth(link::End::new(&router, "eth0"), link::End::new(&outside, "eth0"))?;
    link::add_address(&router, "eth0", "192.0.2.1/24".parse()?)?;
    let settings = Settings { datastore: Some(site.datastore()), ..Settings::default() };
    let node = TortieNode::configure(&lab, &router, lab.directory(), &settings)?;
    let mut row = Row {
        store,
        endpoints,
        policies,
        load_seconds: Readings::default(),
        load_processor_seconds: Readings::default(),
        resident_megabytes: Readings::default(),
        changes: arguments.changes * arguments.seconds,
        changes_a_second: 0.0,
        median_delay_milliseconds: 0.0,
        p99_delay_milliseconds: 0.0,
        longest_delay_milliseconds: 0.0,
        median_behind_milliseconds: 0.0,
        p99_behind_milliseconds: 0.0,
        caught_up_milliseconds: 0.0,
        processor_share: 0.0,
    };
    for round in 0..arguments.rounds {
        if round > 0 {
            node.stop()?;
        }
        load(&lab, &node, &mut row)?;
    }
    println!(
        "{store}: in force after {} s, {} s of processor time, {} MB",
        row.load_seconds, row.load_processor_seconds, row.resident_megabytes
    );
    if row.changes > 0 {
        follow(&lab, &node, &site, arguments, &mut row)?;
        println!(
            "{store}: {} changes at {:.0} a second: half in force within {:.1} ms, 99 % within {:.1} ms, all within {:.1} ms \
             of the datastore's word; behind the writers by {:.0} ms half of the time, {:.0} ms 99 % of it; the last in force \
             {:.0} ms after it was written; {:.0} % of a core",
            row.changes,
            row.changes_a_second,
            row.median_delay_milliseconds,
            row.p99_delay_milliseconds,
            row.longest_delay_milliseconds,
            row.median_behind_milliseconds,
            row.p99_behind_milliseconds,
            row.caught_up_milliseconds,
            row.processor_share * 100.0
        );
    }
    Ok(row)
}

/// From the start until all is in force.
fn load(lab: &Lab, node: &TortieNode, row: &mut Row) -> Result<()> {
    node.start(lab)?;
    let loaded = lab.wait("the load", LOAD, || {
        node.must_run()?;
        Ok(node.show::<ShowDatastore>("datastore")?.load_seconds)
    })?;
    let identity = node.identity()?;
    row.load_seconds.0.push(loaded);
    row.load_processor_seconds.0.push(identity.processor_time()?.as_secs_f64());
    row.resident_megabytes.0.push(identity.resident_bytes()? as f64 / 1e6);
    Ok(())
}

fn follow(lab: &Lab, node: &TortieNode, site: &Site, arguments: &Arguments, row: &mut Row) -> Result<()> {
    let before: ShowDatastore = node.show("datastore")?;
    let processor = node.identity()?.processor_time()?;
    let began = Instant::now();
    let interval = Duration::from_secs(1) / u32::try_from(arguments.changes).context("changes")?;
    // When each write began, in their order.
    let writes = Mutex::new(Vec::with_capacity(row.changes));
    let change = |number: usize| {
        lock(&writes).push(Instant::now());
        // The endpoints of the node itself are left alone: most changes of a site are about others.
        endpoint(100 + number % (row.endpoints - 100), number + 1)
    };
    let due = |number: usize| interval * u32::try_from(number).unwrap_or(u32::MAX);
    let mut behind = thread::scope(|scope| -> Result<Vec<f64>> {
        let writing = scope.spawn(|| site.write(row.changes, change, due));
        let mut behind = Vec::new();
        while !writing.is_finished() {
            thread::sleep(LOOK);
            let in_force = node.show::<ShowDatastore>("datastore")?.changes - before.changes;
            let oldest = lock(&writes).get(usize::try_from(in_force)?).map(Instant::elapsed);
            behind.push(oldest.unwrap_or_default().as_secs_f64() * 1e3);
        }
        writing.join().expect("the writers end").map(|()| behind)
    })?;
    behind.sort_by(f64::total_cmp);
    let within = |share: f64| behind.get((behind.len() as f64 * share) as usize).copied().unwrap_or_default();
    (row.median_behind_milliseconds, row.p99_behind_milliseconds) = (within(0.5), within(0.99));
    let written = Instant::now();
    row.changes_a_second = row.changes as f64 / (written - began).as_secs_f64();
    let wanted = before.changes + row.changes as u64;
    let after = lab.wait("the last change", CATCH_UP, || {
        let now: ShowDatastore = node.show("datastore")?;
        Ok((now.changes >= wanted).then_some(now))
    })?;
    row.caught_up_milliseconds = written.elapsed().as_secs_f64() * 1e3;
    row.processor_share =
        (node.identity()?.processor_time()? - processor).as_secs_f64() / began.elapsed().as_secs_f64();
    row.median_delay_milliseconds = after.median_delay_seconds * 1e3;
    row.p99_delay_milliseconds = after.p99_delay_seconds * 1e3;
    row.longest_delay_milliseconds = after.longest_delay_seconds * 1e3;
    Ok(())
}
