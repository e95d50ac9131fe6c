//! Real directories and real notifications. Each wait ends as soon as what is waited for comes; the long limit
//! only keeps a broken test from hanging.

use std::fs;
use std::sync::mpsc::{Receiver, channel};

use model::Key;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A watched directory, and the set that its updates add up to.
struct Watched {
    dir: TempDir,
    events: Receiver<Event>,
    set: BTreeMap<Key, Resource>,
    _directory: Directory,
}

fn config(path: &Path) -> DirectoryConfig {
    DirectoryConfig {
        rescan: Duration::from_secs(3600),
        debounce: Duration::from_millis(20),
        ..DirectoryConfig::at(path)
    }
}

fn watch(dir: TempDir, config: DirectoryConfig) -> Watched {
    let (sender, events) = channel();
    let directory = Directory::open(config, move |event| drop(sender.send(event))).unwrap();
    Watched { dir, events, set: BTreeMap::new(), _directory: directory }
}

fn watch_files(files: &[(&str, String)]) -> Watched {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let config = config(dir.path());
    watch(dir, config)
}

impl Watched {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// By renaming, so that no test depends on a writer's being faster than the debounce time.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(".new"), text).unwrap();
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }

    fn next(&mut self) -> Event {
        let event = self.events.recv_timeout(PATIENCE).expect("an event should have come");
        match &event {
            Event::Update(Update::Put(resource)) => {
                drop(self.set.insert(resource.key(), Resource::clone(resource)))
            }
            Event::Update(Update::Remove(key)) => assert!(self.set.remove(key).is_some(), "{key} twice"),
            _ => {}
        }
        event
    }

    /// All events up to and with the one that answers the question.
    fn until(&mut self, mut last: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if last(events.last().unwrap()) {
                return events;
            }
        }
    }

    fn until_in_sync(&mut self) -> Vec<Event> {
        self.until(|event| *event == Event::Update(Update::InSync))
    }

    fn keys(&self) -> Vec<String> {
        self.set.keys().map(ToString::to_string).collect()
    }
}

fn node(name: &str, addr: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{ipv4Address: \
         {addr}}}}}\n"
    )
}

fn cluster(is_ready: bool) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {{name: default}}\nspec: \
         {{datastoreReady: {is_ready}}}\n"
    )
}

#[test]
fn a_closed_directory_changes_nothing_until_it_opens() {
    let mut watched = watch_files(&[("a.yaml", node("a", "10.0.0.1/24")), ("cluster.yaml", cluster(true))]);
    assert!(watched.until_in_sync().iter().all(|event| !matches!(event, Event::Ignored(_))));
    let stale = |event: &Event| matches!(event, Event::Stale { reason } if reason.contains("datastoreReady"));
    watched.write("cluster.yaml", &cluster(false));
    assert_eq!(watched.until(stale).len(), 1);
    watched.write("b.yaml", &node("b", "10.0.0.2/24"));
    fs::remove_file(watched.path("a.yaml")).unwrap();

    // Whoever starts now waits, and hears of nothing.
    let (sender, late) = channel();
    let _late = Directory::open(config(watched.dir.path()), move |event| drop(sender.send(event))).unwrap();
    assert!(stale(&late.recv_timeout(PATIENCE).expect("an event")));

    watched.write("cluster.yaml", &cluster(true));
    let events = watched.until(|event| *event == Event::Current);
    assert_eq!(watched.keys(), ["Node(b)"], "{events:?}");
    let told: Vec<Event> = (0..3).map(|_| late.recv_timeout(PATIENCE).expect("an event")).collect();
    assert!(matches!(&told[0], Event::Update(Update::Put(_))), "{told:?}");
    assert_eq!(told[1..], [Event::Update(Update::InSync), Event::Current]);
}

fn removed(key: &str) -> impl FnMut(&Event) -> bool + use<'_> {
    move |event| matches!(event, Event::Update(Update::Remove(gone)) if gone.to_string() == key)
}

fn put(key: &str) -> impl FnMut(&Event) -> bool + use<'_> {
    move |event| matches!(event, Event::Update(Update::Put(new)) if new.key().to_string() == key)
}

fn invalid(event: &Event) -> bool {
    matches!(event, Event::Invalid(_))
}

#[test]
fn what_is_there_comes_in_order_of_dependence_then_in_sync_then_changes() {
    let all = "\
apiVersion: projectcalico.org/v3
kind: List
items:
- {apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: w}, \
   spec: {node: a, interfaceName: cali1, ipNetworks: [10.65.0.1/32]}}
- {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: t}, spec: {peerIP: 10.0.0.9, asNumber: 1}}
- {apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: b}, \
   spec: {cidr: 10.65.0.0/26, node: a, state: confirmed, deleted: 'false'}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.65.0.0/16}}
- {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: a}}
- {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}}
";
    let order = |events: &[Event]| -> Vec<String> {
        events
            .iter()
            .filter_map(|event| match event {
                Event::Update(Update::Put(resource)) => Some(resource.key().to_string()),
                Event::Update(Update::Remove(key)) => Some(key.to_string()),
                _ => None,
            })
            .collect()
    };
    let expected = [
        "BGPConfiguration(default)",
        "Node(a)",
        "IPPool(p)",
        "BlockAffinity(10.65.0.0/26 of a)",
        "BGPPeer(t)",
        "WorkloadEndpoint(default/w)",
    ];
    let mut watched = watch_files(&[("all.yaml", all.to_owned())]);
    assert_eq!(order(&watched.until_in_sync()), expected);
    fs::remove_file(watched.path("all.yaml")).unwrap();
    let removals = watched.until(removed("BGPConfiguration(default)"));
    assert_eq!(order(&removals), expected.iter().rev().copied().collect::<Vec<_>>());
}

#[test]
fn files_may_be_written_in_place_renamed_over_and_deleted() {
    let mut watched = watch_files(&[("a.yaml", node("a", "10.0.0.1"))]);
    watched.until_in_sync();
    fs::write(watched.path("a.yaml"), node("a", "10.0.0.2")).unwrap();
    watched.until(put("Node(a)"));
    assert_eq!(watched.set.values().next().unwrap(), &check(watched.path("a.yaml")).unwrap()[0]);

    watched.write("b.tmp", &node("b", "10.0.0.3"));
    fs::rename(watched.path("b.tmp"), watched.path("b.yml")).unwrap();
    watched.until(put("Node(b)"));
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.until(removed("Node(a)"));
    assert_eq!(watched.keys(), ["Node(b)"]);
}

#[test]
fn a_file_without_change_announces_nothing() {
    let mut watched = watch_files(&[("a.yaml", node("a", "10.0.0.1"))]);
    watched.until_in_sync();
    watched.write("a.yaml", &format!("# a comment\n{}", node("a", "10.0.0.1")));
    watched.write(".b.yaml.swp", "never read: [");
    watched.write("c.yaml", &node("c", "10.0.0.3"));
    assert_eq!(watched.until(put("Node(c)")).len(), 1);
}

#[test]
fn a_malformed_file_keeps_its_last_good_contents_and_disturbs_no_other() {
    let mut watched = watch_files(&[("a.yaml", node("a", "10.0.0.1")), ("b.yaml", node("b", "10.0.0.2"))]);
    watched.until_in_sync();
    watched.write("a.yaml", &node("a", "10.0.0.300"));
    let Event::Invalid(problem) = watched.until(invalid).pop().unwrap() else { unreachable!() };
    assert_eq!(problem.file, watched.path("a.yaml"));
    assert_eq!(problem.position, Some(crate::Position { line: 4, column: 27 }));
    assert_eq!(problem.resource.as_deref(), Some("Node(a)"));
    assert_eq!(problem.field.as_deref(), Some("spec.bgp.ipv4Address"));
    assert_eq!(
        problem.to_string(),
        format!(
            "{}:4:27: Node(a): spec.bgp.ipv4Address: \"10.0.0.300\" is not a valid address",
            problem.file.display()
        )
    );

    watched.write("b.yaml", &node("b2", "10.0.0.2"));
    watched.until(removed("Node(b)"));
    assert_eq!(watched.keys(), ["Node(a)", "Node(b2)"]);

    watched.write("a.yaml", &node("a", "10.0.0.3"));
    let events = watched.until(|event| matches!(event, Event::Mended { .. }));
    assert!(events.iter().any(|event| put("Node(a)")(event)), "{events:?}");
    assert_eq!(events.last(), Some(&Event::Mended { file: watched.path("a.yaml") }));
}

#[test]
fn a_file_that_never_was_good_contributes_nothing_and_in_sync_comes_all_the_same() {
    let text = format!("{}---\nkind: [", node("a", "10.0.0.1"));
    let mut watched = watch_files(&[("a.yaml", text)]);
    let events = watched.until_in_sync();
    assert!(matches!(&events[..], [Event::Invalid(_), Event::Update(Update::InSync)]), "{events:?}");
    fs::remove_file(watched.path("a.yaml")).unwrap();
    assert_eq!(watched.next(), Event::Mended { file: watched.path("a.yaml") });
}

#[test]
fn of_namesakes_in_two_files_the_first_files_stays_and_the_second_is_named() {
    let mut watched = watch_files(&[("a.yaml", node("n", "10.0.0.1")), ("b.yaml", node("n", "10.0.0.2"))]);
    let events = watched.until_in_sync();
    let Event::Invalid(problem) = &events[0] else { panic!("{events:?}") };
    assert_eq!(problem.file, watched.path("b.yaml"));
    assert!(
        problem
            .to_string()
            .contains(&format!("exists already in {} at line 1", watched.path("a.yaml").display())),
        "{problem}"
    );
    let first = check(watched.path("a.yaml")).unwrap();
    assert_eq!(watched.set.values().collect::<Vec<_>>(), first.iter().collect::<Vec<_>>());

    fs::remove_file(watched.path("a.yaml")).unwrap();
    let events = watched.until(|event| matches!(event, Event::Mended { .. }));
    assert!(events.iter().any(|event| put("Node(n)")(event)), "{events:?}");
}

#[test]
fn what_is_ignored_is_told_once() {
    let filter = "apiVersion: projectcalico.org/v3\nkind: IPReservation\nmetadata: {name: web}\n";
    let mut watched = watch_files(&[("a.yaml", filter.to_owned())]);
    let told = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Ignored(_))).count();
    assert_eq!(told(&watched.until_in_sync()), 1);
    // Another line is no news; another reservation is.
    watched.write("a.yaml", &format!("# moved\n{filter}"));
    watched.write("b.yaml", &node("b", "10.0.0.2"));
    assert_eq!(told(&watched.until(put("Node(b)"))), 0);
    watched.write("c.yaml", &filter.replace("web", "db"));
    assert_eq!(told(&watched.until(|event| matches!(event, Event::Ignored(_)))), 1);
}

#[test]
fn a_directory_that_vanishes_keeps_its_resources_and_is_taken_up_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("resources");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), node("a", "10.0.0.1")).unwrap();
    let mut watched = watch(parent, config(&path));
    watched.until_in_sync();

    fs::remove_dir_all(&path).unwrap();
    let gone = |event: &Event| {
        matches!(event, Event::Invalid(Invalid { reason: Reason::DirectoryUnavailable(_), .. }))
    };
    // The file may be seen to go before the directory does; what matters is that the end is reported.
    watched.until(gone);
    fs::create_dir(&path).unwrap();
    fs::write(path.join("b.yaml"), node("b", "10.0.0.2")).unwrap();
    watched.until(|event| matches!(event, Event::Mended { file } if *file == path));
    while watched.keys() != ["Node(b)"] {
        watched.next();
    }
    // The new directory is watched, not the old one.
    fs::write(path.join("c.yaml"), node("c", "10.0.0.3")).unwrap();
    watched.until(put("Node(c)"));
}

#[test]
fn a_directory_moved_away_keeps_its_resources_in_force() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("resources");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), node("a", "10.0.0.1")).unwrap();
    let mut watched = watch(parent, DirectoryConfig { rescan: Duration::from_millis(50), ..config(&path) });
    watched.until_in_sync();
    fs::rename(&path, watched.path("elsewhere")).unwrap();
    let events = watched.until(invalid);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(watched.keys(), ["Node(a)"]);
    fs::rename(watched.path("elsewhere"), &path).unwrap();
    assert_eq!(watched.next(), Event::Mended { file: path });
}

#[test]
fn changes_are_found_without_notifications_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = DirectoryConfig { rescan: Duration::from_millis(50), ..config(dir.path()) };
    let (sender, events) = channel();
    let (wake, woken) = sync_channel(1);
    // A watch whose wake-ups lead nowhere stands for notifications that were lost.
    let (nowhere, _) = sync_channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = Watcher {
        watch: Watch::new(nowhere),
        stop: Arc::clone(&stop),
        woken,
        files: Files::new(config.limits()),
        available: true,
        in_sync: false,
        closed: false,
        announced: Announced::default(),
        config,
    };
    let thread = std::thread::spawn(move || watcher.run(move |event| drop(sender.send(event))));
    let _directory = Directory { stop, wake, thread: Some(thread) };
    assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Update(Update::InSync)));
    fs::write(dir.path().join("a.yaml"), node("a", "10.0.0.1")).unwrap();
    assert!(put("Node(a)")(&events.recv_timeout(PATIENCE).unwrap()));
}

#[test]
fn a_directory_that_cannot_be_opened_is_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = Directory::open(config(&missing), |_| {}).unwrap_err();
    assert!(matches!(error, OpenError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("does not exist; create it"), "{error}");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Directory::open(config(&file), |_| {}).unwrap_err(), OpenError::NotADirectory { .. }));
    assert_eq!(check(&missing).unwrap_err()[0].reason, Reason::DirectoryUnavailable(io::ErrorKind::NotFound));
}

#[test]
fn files_that_are_no_text_or_too_large_are_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = fs::File::create(dir.path().join("sparse.yaml")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    fs::write(dir.path().join("binary.yaml"), [0x7f, b'E', b'L', b'F', 0xff, 0, 0]).unwrap();
    fs::create_dir(dir.path().join("directory.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
    // To open a FIFO for reading would wait for ever.
    let fifo = dir.path().join("fifo.yaml");
    if !std::process::Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()) {
        println!("skipped: the FIFO, as there is no mkfifo");
    }
    let problems = check(dir.path()).unwrap_err();
    assert_eq!(problems[0].position, Some(crate::Position { line: 1, column: 5 }));
    let reasons: Vec<_> = problems.iter().map(|problem| &problem.reason).collect();
    assert_eq!(reasons, [&Reason::NotText, &Reason::FileTooLarge { bytes: 1 << 30, max: 4 << 20 }]);
}

#[test]
fn more_resources_or_files_than_allowed_are_left_out_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let two = format!("{}---\n{}", node("a", "10.0.0.1"), node("b", "10.0.0.2"));
    fs::write(dir.path().join("1.yaml"), two).unwrap();
    fs::write(dir.path().join("2.yaml"), node("c", "10.0.0.3")).unwrap();
    let config = |max_resources| DirectoryConfig { max_resources, ..config(dir.path()) };
    assert_eq!(config(3).check().unwrap().len(), 3);
    let problems = config(2).check().unwrap_err();
    assert_eq!(problems[0].reason, Reason::TooManyResources { max: 2 });
    assert!(problems[0].file.ends_with("2.yaml"));
    let problems = config(1).check().unwrap_err();
    assert!(problems.iter().any(|problem| problem.reason == Reason::TooManyFiles { max: 1 }), "{problems:?}");
}

#[test]
fn dropping_the_directory_ends_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = channel();
    let directory = Directory::open(config(dir.path()), move |event| drop(sender.send(event))).unwrap();
    assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Update(Update::InSync)));
    drop(directory);
    assert!(events.recv().is_err(), "the sink lives only as long as the thread");
}

/// One step of a random history of three files.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<(u8, u8)>),
    Break(usize),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, prop::collection::vec((0..4u8, 0..3u8), 0..4)).prop_map(|(file, nodes)| Step::Write(file, nodes)),
        1 => (0..3usize).prop_map(Step::Break),
        1 => (0..3usize).prop_map(Step::Delete),
    ]
}

fn take(step: &Step, dir: &Path) {
    let path = |file: &usize| dir.join(format!("{file}.yaml"));
    match step {
        Step::Write(file, nodes) => {
            // A name twice in one file would make it malformed; that is `Break`'s part.
            let nodes: BTreeMap<_, _> = nodes.iter().copied().collect();
            let texts: Vec<_> = nodes
                .iter()
                .map(|(name, addr)| node(&format!("n{name}"), &format!("10.0.0.{addr}")))
                .collect();
            fs::write(path(file), texts.join("---\n")).unwrap();
        }
        Step::Break(file) => fs::write(path(file), "{").unwrap(),
        Step::Delete(file) => drop(fs::remove_file(path(file))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The stages below the watching, driven without threads: every prefix of a history announces what a fresh
    /// load of the files' last good contents gives.
    #[test]
    fn any_history_of_files_ends_in_the_state_of_a_fresh_load(steps in prop::collection::vec(step(), 1..12)) {
        let (dir, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let limits = config(dir.path()).limits();
        let mut files = Files::new(limits);
        let mut announced = Announced::default();
        let mut set = BTreeMap::new();
        for step in &steps {
            take(step, dir.path());
            if !matches!(step, Step::Break(_)) {
                take(step, good.path());
            }
            files.load(&scan::list(dir.path()).unwrap());
            let changes = match files.said(dir.path()) {
                Said::Some(changes) => changes,
                Said::All(desired) => announced.changes(desired),
            };
            announced.announce(changes, &mut |event| match event {
                Event::Update(Update::Put(resource)) => drop(set.insert(resource.key(), Resource::clone(&resource))),
                Event::Update(Update::Remove(key)) => assert!(set.remove(&key).is_some()),
                _ => {}
            });
            prop_assert!(!files.differ(&scan::list(dir.path()).unwrap()));

            let mut fresh = Files::new(limits);
            fresh.load(&scan::list(good.path()).unwrap());
            let fresh: BTreeMap<_, _> = fresh
                .desired(good.path())
                .set
                .into_values()
                .map(|resource| (resource.key(), Resource::clone(&resource)))
                .collect();
            prop_assert_eq!(&set, &fresh);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// The same through the thread and the kernel's notifications, writing as fast as can be.
    #[test]
    fn a_storm_of_writes_ends_in_the_state_of_a_fresh_load(steps in prop::collection::vec(step(), 1..40)) {
        let mut watched = watch_files(&[]);
        watched.until_in_sync();
        // Whether the contents before a malformed file were ever seen depends on timing, so none is malformed here.
        for step in steps.iter().filter(|step| !matches!(step, Step::Break(_))) {
            take(step, watched.dir.path());
        }
        // Written last, and of one change's puts the last by name: whoever has seen it has seen all puts.
        watched.write("last.yaml", &node("z", "10.0.0.9"));
        watched.until(put("Node(z)"));
        let limits = config(watched.dir.path()).limits();
        let mut fresh = Files::new(limits);
        fresh.load(&scan::list(watched.dir.path()).unwrap());
        let desired = fresh.desired(watched.dir.path());
        let keys: Vec<_> = desired.set.keys().map(|(_, key)| key.clone()).collect();
        // Removals follow the puts of one change.
        while watched.set.len() > keys.len() {
            watched.next();
        }
        let resources: Vec<_> = desired.set.into_values().map(Arc::unwrap_or_clone).collect();
        prop_assert_eq!(watched.set.into_values().collect::<Vec<_>>(), resources);
    }
}
