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

impl Row {
    const NOTHING: Row = Row { desired: None, installed: Installed::Nothing, queued: false };

    /// Must the kernel be told something about it?
    fn is_due(&self, may_sweep: bool) -> bool {
        match (&self.desired, &self.installed) {
            (Some(desired), Installed::This(installed)) => desired != installed,
            (Some(_), _) | (None, Installed::This(_)) => true,
            (None, Installed::Unknown) => may_sweep,
            (None, Installed::Nothing) => false,
        }
    }

    /// Must its prefix be put into the queue now? Then it counts as being there.
    fn is_to_be_queued(&mut self, may_sweep: bool) -> bool {
        let due = !self.queued && self.is_due(may_sweep);
        self.queued |= due;
        due
    }

    fn is_nothing(&self) -> bool {
        !self.queued && self.desired.is_none() && self.installed == Installed::Nothing
    }
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
        let is_new = |row: Option<&Row>| row.is_none_or(|row| row.desired.is_none());
        if self.desired >= self.limit && is_new(self.rows.get(&prefix)) {
            self.refused_full += 1;
            return Err(MirrorError::Full { prefix, limit: self.limit });
        }
        let target = self.shared_target(target);
        let row = self.rows.entry(prefix).or_insert(Row::NOTHING);
        self.desired += usize::from(row.desired.replace(target).is_none());
        if row.is_to_be_queued(self.may_sweep) {
            self.queue.push_back(prefix);
        }
        Ok(())
    }

    pub(super) fn undesire(&mut self, prefix: Prefix) {
        let Some(row) = self.rows.get_mut(&prefix) else { return };
        self.desired -= usize::from(row.desired.take().is_some());
        if row.is_to_be_queued(self.may_sweep) {
            self.queue.push_back(prefix);
        } else if row.is_nothing() {
            self.rows.remove(&prefix);
        }
        self.has_not_failed(prefix);
    }

    fn has_not_failed(&mut self, prefix: Prefix) {
        if !self.failed.is_empty() {
            self.failed.remove(&prefix);
        }
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
            let left = Row { installed: Installed::Unknown, ..Row::NOTHING };
            self.rows.entry(*prefix).or_insert(left);
        }
        self.rows.retain(|_, row| !row.is_nothing());
        self.installed = found.len();
        self.failed.clear();
        self.queue_all_due();
    }

    fn queue_all_due(&mut self) {
        for (prefix, row) in &mut self.rows {
            if row.is_to_be_queued(self.may_sweep) {
                self.queue.push_back(*prefix);
            }
        }
    }

    fn queue_if_due(&mut self, prefix: Prefix) {
        let Some(row) = self.rows.get_mut(&prefix) else { return };
        if row.is_to_be_queued(self.may_sweep) {
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
            if row.is_due(self.may_sweep) {
                orders.push((prefix, row.desired.clone()));
            } else if row.is_nothing() {
                self.rows.remove(&prefix);
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
        // Its desire may have changed while the order was under way.
        if row.is_to_be_queued(self.may_sweep) {
            self.queue.push_back(prefix);
        } else if row.is_nothing() {
            self.rows.remove(&prefix);
        }
        self.has_not_failed(prefix);
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
