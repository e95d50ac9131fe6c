//! Desired and installed routes side by side, and the queue of prefixes where they differ. No I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use model::Prefix;

use super::{MirrorError, MirrorFailure, MirrorStatus, MirrorTarget};
use crate::kernel_routes::pipeline::BATCH_CHANGES;

/// Errno: the route to remove is gone already.
pub(super) const ESRCH: i32 = 3;

/// What the kernel has for a prefix, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    Nothing,
    /// Something an earlier run left.
    Unknown,
    This(Arc<MirrorTarget>),
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) desired: Option<Arc<MirrorTarget>>,
    pub(super) installed: Installed,
    pub(super) queued: bool,
}

/// Desired and installed routes, and the queue of prefixes where they differ.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) limit: usize,
    pub(super) rows: AHashMap<Prefix, Row>,
    /// Equal targets are kept once: a full table has a handful.
    pub(super) targets: AHashSet<Arc<MirrorTarget>>,
    /// The one asked for last, and the one of equal value that is kept.
    latest: Option<(Arc<MirrorTarget>, Arc<MirrorTarget>)>,
    pub(super) queue: VecDeque<Prefix>,
    pub(super) failed: AHashSet<Prefix>,
    pub(super) desired: usize,
    pub(super) installed: usize,
    pub(super) refused_full: u64,
    pub(super) last_failure: Option<MirrorFailure>,
    pub(super) may_sweep: bool,
    pub(super) resync: bool,
    pub(super) busy: bool,
}

/// A change on its way to the kernel; `None` removes.
pub(super) type Order = (Prefix, Option<Arc<MirrorTarget>>);

impl Rows {
    pub(super) fn new(limit: usize) -> Rows {
        Rows {
            limit,
            rows: AHashMap::new(),
            targets: AHashSet::new(),
            latest: None,
            queue: VecDeque::new(),
            failed: AHashSet::new(),
            desired: 0,
            installed: 0,
            refused_full: 0,
            last_failure: None,
            may_sweep: false,
            resync: true,
            busy: false,
        }
    }

    pub(super) fn desire(&mut self, prefix: Prefix, target: Arc<MirrorTarget>) -> Result<(), MirrorError> {
        if matches!(&*target, MirrorTarget::Nexthops(nexthops) if nexthops.is_empty()) {
            return Err(MirrorError::NoNexthop { prefix });
        }
        let new = self.rows.get(&prefix).is_none_or(|row| row.desired.is_none());
        if new && self.desired >= self.limit {
            self.refused_full += 1;
            return Err(MirrorError::Full { prefix, limit: self.limit });
        }
        self.desired += usize::from(new);
        let target = self.shared_target(target);
        self.row(prefix).desired = Some(target);
        self.queue_if_due(prefix);
        Ok(())
    }

    pub(super) fn undesire(&mut self, prefix: Prefix) {
        let Some(row) = self.rows.get_mut(&prefix) else { return };
        self.desired -= usize::from(row.desired.take().is_some());
        self.failed.remove(&prefix);
        self.queue_if_due(prefix);
        self.forget_if_empty(prefix);
    }

    fn row(&mut self, prefix: Prefix) -> &mut Row {
        self.rows.entry(prefix).or_insert(Row { desired: None, installed: Installed::Nothing, queued: false })
    }

    fn shared_target(&mut self, target: Arc<MirrorTarget>) -> Arc<MirrorTarget> {
        // Routes that come together mostly have one.
        if let Some((asked, shared)) = &self.latest
            && Arc::ptr_eq(asked, &target)
        {
            return Arc::clone(shared);
        }
        let known = self.targets.get(&target).map(Arc::clone);
        let shared = known.unwrap_or_else(|| {
            if self.targets.len() == self.targets.capacity() {
                self.targets.retain(|target| Arc::strong_count(target) > 1);
            }
            self.targets.insert(Arc::clone(&target));
            Arc::clone(&target)
        });
        self.latest = Some((target, Arc::clone(&shared)));
        shared
    }

    pub(super) fn allow_sweep(&mut self) {
        self.may_sweep = true;
        self.queue_all_due();
    }

    /// Takes over what a dump found.
    pub(super) fn reconcile(&mut self, found: &AHashSet<Prefix>) {
        for (prefix, row) in &mut self.rows {
            if !found.contains(prefix) {
                row.installed = Installed::Nothing;
            } else if row.installed == Installed::Nothing {
                row.installed = Installed::Unknown;
            }
        }
        for prefix in found {
            if !self.rows.contains_key(prefix) {
                self.row(*prefix).installed = Installed::Unknown;
            }
        }
        self.rows.retain(|_, row| row.queued || row.desired.is_some() || row.installed != Installed::Nothing);
        self.installed = found.len();
        self.failed.clear();
        self.queue_all_due();
    }

    fn queue_all_due(&mut self) {
        for (prefix, row) in &mut self.rows {
            if !row.queued && is_due(row, self.may_sweep) {
                row.queued = true;
                self.queue.push_back(*prefix);
            }
        }
    }

    fn queue_if_due(&mut self, prefix: Prefix) {
        let Some(row) = self.rows.get_mut(&prefix) else { return };
        if !row.queued && is_due(row, self.may_sweep) {
            row.queued = true;
            self.queue.push_back(prefix);
        }
    }

    pub(super) fn queue_failed(&mut self) {
        for prefix in std::mem::take(&mut self.failed) {
            self.queue_if_due(prefix);
        }
    }

    /// The next batch. What became as desired while it waited needs no order.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        let mut orders = Vec::with_capacity(BATCH_CHANGES);
        while orders.len() < BATCH_CHANGES {
            let Some(prefix) = self.queue.pop_front() else { break };
            let Some(row) = self.rows.get_mut(&prefix) else { continue };
            row.queued = false;
            if is_due(row, self.may_sweep) {
                orders.push((prefix, row.desired.clone()));
            } else {
                self.forget_if_empty(prefix);
            }
        }
        orders
    }

    pub(super) fn record(&mut self, (prefix, target): Order, refusal: Option<i32>) {
        let Some(row) = self.rows.get_mut(&prefix) else { return };
        let was_installed = row.installed != Installed::Nothing;
        match (refusal, target) {
            (None, Some(target)) => {
                row.installed = Installed::This(target);
                self.installed += usize::from(!was_installed);
            }
            (None | Some(ESRCH), None) => {
                row.installed = Installed::Nothing;
                self.installed -= usize::from(was_installed);
            }
            (Some(errno), _) => {
                self.failed.insert(prefix);
                self.last_failure = Some(MirrorFailure { prefix, errno });
                return;
            }
        }
        self.failed.remove(&prefix);
        // Its desire may have changed while the order was under way.
        self.queue_if_due(prefix);
        self.forget_if_empty(prefix);
    }

    fn forget_if_empty(&mut self, prefix: Prefix) {
        let empty = |row: &Row| !row.queued && row.desired.is_none() && row.installed == Installed::Nothing;
        if self.rows.get(&prefix).is_some_and(empty) {
            self.rows.remove(&prefix);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.busy && !self.resync
    }

    pub(super) fn status(&self) -> MirrorStatus {
        MirrorStatus {
            desired: self.desired,
            installed: self.installed,
            waiting: self.queue.len(),
            failed: self.failed.len(),
            refused_full: self.refused_full,
            last_failure: self.last_failure,
        }
    }
}

/// Must the kernel be told something about this row?
fn is_due(row: &Row, may_sweep: bool) -> bool {
    match (&row.desired, &row.installed) {
        (Some(desired), Installed::This(installed)) => desired != installed,
        (Some(_), _) | (None, Installed::This(_)) => true,
        (None, Installed::Unknown) => may_sweep,
        (None, Installed::Nothing) => false,
    }
}
