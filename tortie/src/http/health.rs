//! `/healthz`: does the router live? `/readyz`: does it forward, and if not, what does it wait for?
//!
//! Text for people, JSON for who accepts only that: `{"ready":false,"waits_for":[{"what":…,"why":…}],"warnings":[…]}`.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap};
use serde::Serialize;
use slowpath::status::Summary;

use super::reply::{Reply, json, text};
use crate::observer::{NoAnswer, Observer};

/// Whether the router forwards.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Readiness {
    ready: bool,
    /// Empty once it is ready.
    waits_for: Vec<Wait>,
    /// What an operator should look at, and what doesn't keep it from forwarding.
    warnings: Vec<String>,
}

/// One thing that isn't there yet.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Wait {
    /// `slow_path`, `datastore` or `forwarding`.
    what: &'static str,
    why: String,
}

impl Readiness {
    fn of(summary: Result<Summary, NoAnswer>) -> Readiness {
        let wait = |what, why| Wait { what, why };
        let summary = match summary {
            Ok(summary) => summary,
            Err(error) => {
                let waits_for = vec![wait("slow_path", error.to_string())];
                return Readiness { ready: false, waits_for, warnings: Vec::new() };
            }
        };
        let mut waits_for = Vec::new();
        if !summary.in_sync {
            let why = summary.datastore.stale_reason.clone();
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            waits_for.push(wait("datastore", format!("the datastore isn't in sync yet{why}")));
        }
        if !summary.ready {
            waits_for.push(wait("forwarding", "forwarding isn't open yet".to_owned()));
        }
        Readiness { ready: summary.ready, waits_for, warnings: summary.warnings }
    }

    fn words(&self) -> String {
        if self.ready {
            return "ready\n".to_owned();
        }
        self.waits_for.iter().map(|wait| format!("not ready: {}\n", wait.why)).collect()
    }
}

/// The process lives, and so does the slow path: its end takes the process with it.
pub(super) fn live(observer: &Observer) -> Reply {
    match observer.slow_path_ended() {
        true => text(StatusCode::SERVICE_UNAVAILABLE, "the slow path has ended\n"),
        false => text(StatusCode::OK, "ok\n"),
    }
}

pub(super) async fn ready(headers: &HeaderMap, observer: &Observer) -> Reply {
    let readiness = Readiness::of(observer.summary().await);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json =
        headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    match wants_json {
        true => json(status, &readiness),
        false => text(status, readiness.words()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_for_which_it_is_not_ready_is_named() {
        let mut summary = Summary { warnings: vec!["look at eth9".to_owned()], ..Summary::default() };
        summary.datastore.stale_reason = Some("connection refused".to_owned());
        let readiness = Readiness::of(Ok(summary));
        let text = serde_json::to_string(&readiness).unwrap();
        assert_eq!(
            text,
            r#"{"ready":false,"waits_for":[{"what":"datastore","why":"the datastore isn't in sync yet: connection refused"},{"what":"forwarding","why":"forwarding isn't open yet"}],"warnings":["look at eth9"]}"#
        );
        assert_eq!(readiness.words().lines().count(), 2);
        let silent = Readiness::of(Err(NoAnswer::Ended));
        assert_eq!((silent.ready, silent.waits_for[0].what), (false, "slow_path"));
    }

    #[test]
    fn a_router_that_forwards_is_ready_though_its_datastore_is_away() {
        let summary = Summary { in_sync: true, ready: true, ..Summary::default() };
        let readiness = Readiness::of(Ok(summary));
        assert_eq!((readiness.ready, readiness.words().as_str()), (true, "ready\n"));
    }
}
