//! Within stages 6 and 12: what a workload may send and get in a second: Calico's QoS controls, by dropping what is above them.
//!
//! Asked once a run of frames of one endpoint; where no endpoint has limits, `walk.rs` doesn't come here.

use afxdp::Frame;
use model::PortId;
use tables::{Fate, MeterTime, Policer, Ports};

use crate::batch::{BATCH, Batch};

/// Drops what workloads send above their egress limits.
pub(crate) fn from_workloads(batch: &mut Batch, ports: &Ports, now: MeterTime) {
    let Batch { frames, runs, fates, .. } = batch;
    for run in runs {
        let Some(policer) = run.ingress.and_then(|ingress| egress(ports, ingress)) else { continue };
        let mut asked = Asked::new();
        for row in run.rows() {
            if fates[row] == Fate::Undecided {
                asked.push(row, &frames[row]);
            }
        }
        asked.ask(policer, now, fates);
    }
}

/// Drops what would leave for workloads above their ingress limits, by which they get what came in by some port. The slow
/// path's own packets are few, and other workers have asked for theirs.
pub(crate) fn to_workloads(batch: &mut Batch, ports: &Ports, now: MeterTime) {
    let Batch { frames, runs, fates, .. } = batch;
    let mut leaves_by: Option<PortId> = None;
    let mut policer: Option<&Policer> = None;
    let mut asked = Asked::new();
    for row in runs.iter().filter(|run| run.ingress.is_some()).flat_map(|run| run.rows()) {
        let (Fate::Forward(port) | Fate::Fragment(port)) = fates[row] else { continue };
        if leaves_by != Some(port) {
            if let Some(policer) = policer {
                asked.ask(policer, now, fates);
            }
            (leaves_by, policer) = (Some(port), ingress(ports, port));
        }
        if policer.is_some() {
            asked.push(row, &frames[row]);
        }
    }
    if let Some(policer) = policer {
        asked.ask(policer, now, fates);
    }
}

fn egress(ports: &Ports, port: PortId) -> Option<&Policer> {
    ports.get(port)?.endpoint.as_ref()?.qos.as_ref()?.egress.as_ref()
}

fn ingress(ports: &Ports, port: PortId) -> Option<&Policer> {
    ports.get(port)?.endpoint.as_ref()?.qos.as_ref()?.ingress.as_ref()
}

/// Frames of one endpoint, to ask for together.
struct Asked {
    rows: [u8; BATCH],
    sizes: [u32; BATCH],
    len: usize,
}

impl Asked {
    fn new() -> Asked {
        Asked { rows: [0; BATCH], sizes: [0; BATCH], len: 0 }
    }

    fn push(&mut self, row: usize, frame: &Frame) {
        // A batch has no more rows than there is room, so nothing is overwritten.
        let at = self.len % BATCH;
        (self.rows[at], self.sizes[at]) = (row as u8, frame.len() as u32);
        self.len = at + 1;
    }

    /// Asks for all of them, drops those that are refused, and forgets them.
    fn ask(&mut self, policer: &Policer, now: MeterTime, fates: &mut [Fate]) {
        if self.len > 0 {
            policer.police(now, &self.sizes[..self.len], |place, reason| {
                fates[usize::from(self.rows[place])] = Fate::Drop(reason);
            });
        }
        self.len = 0;
    }
}
