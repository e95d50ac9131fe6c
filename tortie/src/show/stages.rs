//! `tortie show ports --stages`: where each worker's time goes.

use tables::Stage;

use crate::forms::{StagesStatus, WorkerStages};

use super::table::Table;

/// A column a worker: clocks a packet in each stage, and what part of the whole they are.
pub(super) fn table(status: &StagesStatus) -> String {
    let headings: Vec<String> =
        status.workers.iter().map(|worker| format!("WORKER {}", worker.worker)).collect();
    let mut table =
        Table::new(&[&["STAGE"], &headings.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    for stage in Stage::ALL {
        let cells = status.workers.iter().map(|worker| cell(worker, worker.clocks(stage.as_str())));
        table.row([stage.as_str().to_owned()].into_iter().chain(cells).collect());
    }
    let totals = status.workers.iter().map(|worker| cell(worker, worker.total()));
    table.row(["total".to_owned()].into_iter().chain(totals).collect());
    let packets: u64 = status.workers.iter().map(|worker| worker.packets).sum();
    format!(
        "{}\nClocks of the time-stamp counter a packet, and their share, of {packets} packets in batches that were timed: one in \
         64.\n",
        table.columns()
    )
}

fn cell(worker: &WorkerStages, clocks: f64) -> String {
    if worker.packets == 0 {
        return "-".to_owned();
    }
    format!("{clocks:.1} ({:.0} %)", 100.0 * clocks / worker.total().max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tables::StageSample;

    #[test]
    fn each_worker_has_a_column_and_one_without_packets_has_dashes() {
        let mut sample = StageSample { batches: 2, packets: 10, ..StageSample::default() };
        sample.ticks[Stage::Parse.index()] = 300;
        sample.ticks[Stage::Route.index()] = 100;
        let text = table(&StagesStatus::new([sample, StageSample::default()]));
        let line = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("STAGE"), "STAGE WORKER 0 WORKER 1");
        assert_eq!(line("parse"), "parse 30.0 (75 %) -");
        assert_eq!(line("total"), "total 40.0 (100 %) -");
        assert!(text.contains("of 10 packets"), "{text}");
    }
}
