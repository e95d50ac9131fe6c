//! Network namespaces for tests: made by the test, gone after it, also after a panic.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `test` on a thread of its own in an empty network namespace with the loopback up. The kernel removes the
/// namespace with its last thread and socket. Without the right to make one, says so and returns.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: can't make a network namespace: {error}");
            return;
        }
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `test` as [`in_namespace`], inside a tokio runtime.
pub(crate) fn in_namespace_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
}

/// `ip` in the namespace of this thread; its output. Panics where it fails.
#[track_caller]
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// A program in the namespace of this thread, its arguments split at spaces; its output. Panics where it fails.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does it again where a signal came in between: to a process that was stopped and goes on, a call with a time limit ends so.
pub(crate) fn uninterrupted<T>(mut does: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match does() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Is a program there? Says "skipped" if not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} isn't installed");
    }
    found
}

/// A second namespace with a name, joined to this thread's by a veth pair; removed when dropped.
pub(crate) struct Neighborhood {
    name: String,
}

impl Neighborhood {
    /// Moves one end of a new veth pair, `far`, there and brings both up; `near` stays here.
    pub(crate) fn behind(near: &str, far: &str) -> Neighborhood {
        let neighborhood = Neighborhood::empty();
        ip(&format!("link add {near} type veth peer name {far} netns {}", neighborhood.name));
        ip(&format!("link set {near} up"));
        neighborhood.ip(&format!("link set {far} up"));
        neighborhood
    }

    /// `ip` there.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// The output of a command line there. Panics where it fails.
    #[track_caller]
    pub(crate) fn output(&self, command: &str) -> String {
        ip(&format!("netns exec {} {command}", self.name))
    }

    /// Does a command line there succeed?
    pub(crate) fn succeeds(&self, command: &str) -> bool {
        let words = command.split_whitespace();
        Command::new("ip").args(["netns", "exec", &self.name]).args(words).output().unwrap().status.success()
    }

    /// Runs a function there, on a thread of its own; what it returns.
    #[track_caller]
    pub(crate) fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves an interface of this thread's namespace there.
    pub(crate) fn take(&self, interface: &str) {
        ip(&format!("link set {interface} netns {}", self.name));
    }

    /// An empty one, joined to nothing yet.
    pub(crate) fn empty() -> Neighborhood {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tortie-t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"));
        Neighborhood { name }
    }
}

impl Drop for Neighborhood {
    fn drop(&mut self) {
        // Best effort: a test that fails already says why.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}
