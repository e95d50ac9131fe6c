//! The thread that keeps our table in the kernel: nft takes its time, and the event loop has none.
//!
//! The newest policy counts; one that comes while nft still loads an older one takes its place. What nft refuses is said
//! and tried again, and what was in force stays so. A table that somebody else removed (`nft flush ruleset`, a restart of
//! the distribution's own firewall) comes back.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::render::{Rendering, render};
use super::ruleset::{self, Ruleset};
use super::{HostPolicy, TABLE, counters};
use crate::nft::{self, NftError};
use crate::privileges::{NET_ADMIN, born_with};
use crate::status::{Answer, HostPolicyStatus};

/// How often the table is looked for, and what was refused is tried again.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Questions that may wait for the thread; more are not answered.
const QUESTIONS: usize = 16;

/// The table in the kernel, kept equal to the newest policy. Dropping it stops the thread and leaves the table in force.
pub struct Enforcer {
    /// What it was given last.
    given: Option<Arc<HostPolicy>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    work: Condvar,
}

#[derive(Default)]
struct Inbox {
    newest: Option<Arc<HostPolicy>>,
    questions: Vec<oneshot::Sender<Answer>>,
    stop: bool,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enforcer {
    /// Starts the thread, in the network namespace of the caller. Until the first policy comes, what an earlier run left
    /// stays in force.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start() -> io::Result<Enforcer> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        // Its nft has what the thread has.
        let named = std::thread::Builder::new().name("host-policy".to_owned());
        let thread = born_with(NET_ADMIN, || named.spawn(move || run(&own)))??;
        Ok(Enforcer { given: None, shared, thread: Some(thread) })
    }

    /// Has the table hold this, soon.
    pub fn apply(&mut self, policy: HostPolicy) {
        if self.given.as_deref() == Some(&policy) {
            return;
        }
        let policy = Arc::new(policy);
        self.given = Some(policy.clone());
        self.shared.inbox().newest = Some(policy);
        self.shared.work.notify_one();
    }

    /// Has the question answered: what is in force, and what it has counted. Where too many wait, the sender is dropped.
    pub fn ask(&self, reply: oneshot::Sender<Answer>) {
        let mut inbox = self.shared.inbox();
        if inbox.questions.len() < QUESTIONS {
            inbox.questions.push(reply);
            drop(inbox);
            self.shared.work.notify_one();
        }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.shared.inbox().stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    let mut table = Table::default();
    loop {
        let (newest, questions) = {
            let idle =
                |inbox: &mut Inbox| !inbox.stop && inbox.newest.is_none() && inbox.questions.is_empty();
            let waited = shared.work.wait_timeout_while(shared.inbox(), CHECK_EVERY, idle);
            let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if inbox.stop {
                return;
            }
            (inbox.newest.take(), std::mem::take(&mut inbox.questions))
        };
        match newest {
            Some(policy) => table.want(render(&policy)),
            None if questions.is_empty() => table.check(),
            None => {}
        }
        for question in questions {
            // Somebody who went away doesn't need the answer.
            let _ = question.send(Answer::HostPolicy(table.status()));
        }
    }
}

/// What the kernel's table holds, as far as we know.
#[derive(Debug, Default, PartialEq, Eq)]
enum Kernel {
    /// What an earlier run left, or nothing.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// This.
    Holds(Ruleset),
}

/// Our table: as it should be, and as it is.
#[derive(Debug, Default)]
pub(super) struct Table {
    kernel: Kernel,
    wanted: Option<Rendering>,
    refused: Option<NftError>,
}

impl Table {
    pub(super) fn want(&mut self, wanted: Rendering) {
        let known = self.wanted.as_ref().map(|known| known.problems.as_slice()).unwrap_or_default();
        for problem in wanted.problems.iter().filter(|problem| !known.contains(problem)) {
            warn!("{problem}");
        }
        self.wanted = Some(wanted);
        self.bring();
    }

    /// Brings the kernel to what is wanted.
    fn bring(&mut self) {
        let Some(wanted) = &self.wanted else { return };
        match bring(&mut self.kernel, &wanted.ruleset) {
            Ok(()) => {
                if self.refused.take().is_some() {
                    info!("host-endpoint policy is in force again");
                }
            }
            Err(refusal) => {
                if self.refused.as_ref() != Some(&refusal) {
                    error!("host-endpoint policy stays as it was: {refusal}; it will be tried again");
                }
                self.refused = Some(refusal);
            }
        }
    }

    /// Looks whether the table is still there, and tries again what was refused.
    pub(super) fn check(&mut self) {
        if self.refused.is_none() {
            let Kernel::Holds(_) = self.kernel else { return };
            // Where nft can't be run, the table is no worse than it was.
            let Ok(false) = nft::has_table(TABLE) else { return };
            warn!("somebody removed the nftables table inet {TABLE}; it is put back");
            self.kernel = Kernel::Unknown;
        }
        self.bring();
    }

    pub(super) fn status(&self) -> HostPolicyStatus {
        let (ruleset, counted, problem) = match &self.kernel {
            Kernel::Holds(ruleset) => match counters::read(TABLE) {
                Ok(counted) => (ruleset, counted, None),
                Err(problem) => (ruleset, counters::Counted::default(), Some(problem)),
            },
            Kernel::Unknown | Kernel::Absent => (&Ruleset::default(), counters::Counted::default(), None),
        };
        let mut status = counters::status(ruleset, &counted);
        status.in_force = matches!(self.kernel, Kernel::Holds(_));
        status.refused = self.refused.as_ref().map(NftError::to_string);
        status.problems = self.wanted.as_ref().map(|wanted| wanted.problems.clone()).unwrap_or_default();
        status.problems.extend(problem);
        status
    }
}

/// One transaction from what there is to what is wanted; a second one, over all, where nft doesn't take the first.
fn bring(kernel: &mut Kernel, wanted: &Ruleset) -> Result<(), NftError> {
    if wanted.chains.is_empty() {
        if *kernel != Kernel::Absent {
            nft::apply(&ruleset::removal(TABLE))?;
            *kernel = Kernel::Absent;
        }
        return Ok(());
    }
    let script = match kernel {
        Kernel::Holds(old) => wanted.transaction(old, TABLE),
        Kernel::Unknown | Kernel::Absent => None,
    };
    let first = match script {
        Some(script) if script.is_empty() => return Ok(()),
        Some(script) => nft::apply(&script),
        None => nft::apply(&wanted.replacement(TABLE)),
    };
    if let (Err(NftError::Refused { reason }), Kernel::Holds(_)) = (&first, &*kernel) {
        nft::apply(&wanted.replacement(TABLE))?;
        warn!("the table inet {TABLE} wasn't what we made it ({reason}); it is made anew");
    } else {
        first?;
    }
    *kernel = Kernel::Holds(wanted.clone());
    Ok(())
}

/// Takes the table away; none there is no error.
///
/// # Errors
/// See [`NftError`].
pub fn remove() -> Result<(), NftError> {
    nft::apply(&ruleset::removal(TABLE))
}
