//! A path and its query become a question of the control socket: only such as read, and with bounds of their own.
//!
//! ```text
//! /api/show/ports                         tortie show ports
//! /api/show/route?address=10.65.0.7       tortie show route 10.65.0.7
//! /api/trace?src=10.65.0.2&dst=…          tortie trace --src 10.65.0.2 --dst …
//! ```

use hyper::StatusCode;
use model::Prefix;
use percent_encoding::percent_decode_str;

use crate::control::Question;
use crate::limits;
use crate::trace;

/// Why a request is no question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(super) enum NoQuestion {
    #[error("nothing is shown at {0}")]
    Unknown(String),
    #[error("{name} is `{given}`, which is no {expected}")]
    Wrong { name: &'static str, given: String, expected: &'static str },
    #[error("say by {0} what to look for")]
    Missing(&'static str),
    #[error("there is no parameter `{0}` here")]
    Parameter(String),
    #[error("{0}")]
    Packet(String),
}

impl NoQuestion {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            NoQuestion::Unknown(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a request.
///
/// # Errors
/// It asks for nothing that is shown here, or asks wrongly.
pub(super) fn read(path: &str, query: &str) -> Result<Question, NoQuestion> {
    let mut parameters = Parameters::read(query);
    let question = match path {
        "/api/trace" => {
            let packet = trace::packet_of(parameters.take_all()).map_err(NoQuestion::Packet)?;
            Question::Trace { packet }
        }
        "/api/show/ports" => Question::Ports,
        "/api/show/stages" => Question::Stages,
        "/api/show/drops" => Question::Drops,
        "/api/show/bfd" => Question::Bfd,
        "/api/show/icmp" => Question::Icmp,
        "/api/show/neighbors" => Question::Neighbors,
        "/api/show/segments" => Question::Segments,
        "/api/show/datastore" => Question::Datastore,
        "/api/show/host-policy" => Question::HostPolicy,
        "/api/show/staged" => Question::Staged,
        "/api/show/bgp" => match parameters.parsed::<Prefix>("prefix", "network such as 10.0.0.0/8")? {
            None => Question::Bgp,
            Some(prefix) => Question::BgpRoute { prefix: prefix.to_string() },
        },
        // Sums alone: to list some in order, all would be sorted.
        "/api/show/routes" => Question::Routes { limit: 0, source: None },
        "/api/show/route" => {
            let address = parameters.parsed("address", "IPv4 or IPv6 address")?;
            Question::Route { address: address.ok_or(NoQuestion::Missing("address"))? }
        }
        "/api/show/flows" => {
            let limit = parameters.parsed("limit", "whole number")?.unwrap_or(limits::GLASS_ROWS);
            let address = parameters.parsed("address", "IPv4 or IPv6 address")?;
            Question::Flows { address, limit: limit.min(limits::GLASS_ROWS) }
        }
        "/api/show/policy" => Question::Policy {
            endpoint: parameters.take("endpoint"),
            all: parameters.parsed("all", "true or false")?.unwrap_or(false),
        },
        other => return Err(NoQuestion::Unknown(other.escape_default().to_string())),
    };
    parameters.is_used_up()?;
    Ok(question)
}

/// What stands behind the question mark.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// A parameter without a value is one that isn't there, as forms send it.
    fn read(query: &str) -> Parameters {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (decode(name), decode(value)));
        Parameters(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    fn take_all(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0)
    }

    fn parsed<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, NoQuestion> {
        let Some(given) = self.take(name) else { return Ok(None) };
        let wrong = |_| NoQuestion::Wrong { name, given: given.escape_default().to_string(), expected };
        given.trim().parse().map(Some).map_err(wrong)
    }

    fn is_used_up(&self) -> Result<(), NoQuestion> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(NoQuestion::Parameter(name.escape_default().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::PacketQuestion;
    use proptest::prelude::*;

    #[test]
    fn paths_are_the_questions_of_tortie_show() {
        assert_eq!(read("/api/show/ports", ""), Ok(Question::Ports));
        let address = "fd00::1".parse().unwrap();
        assert_eq!(read("/api/show/route", "address=fd00%3A%3A1"), Ok(Question::Route { address }));
        assert_eq!(
            read("/api/show/bgp", "prefix=10.0.0.0%2F8"),
            Ok(Question::BgpRoute { prefix: "10.0.0.0/8".to_owned() })
        );
        let endpoint = Some("a b/c".to_owned());
        assert_eq!(
            read("/api/show/policy", "endpoint=a+b%2Fc"),
            Ok(Question::Policy { endpoint, all: false })
        );
        assert_eq!(
            read("/api/show/flows", "address=&limit=100000000"),
            Ok(Question::Flows { address: None, limit: limits::GLASS_ROWS }),
            "work is bounded"
        );
    }

    #[test]
    fn a_packet_is_asked_about_in_the_words_of_tortie_trace() {
        let query = "in=cali1&src=10.65.0.2&dst=10.65.1.7&proto=tcp&sport=&dport=443";
        let Ok(Question::Trace { packet }) = read("/api/trace", query) else { panic!("a question") };
        let PacketQuestion { port, source_port, destination_port, tcp_flags, ttl, .. } = packet;
        assert_eq!(
            (port.as_deref(), source_port, destination_port, tcp_flags, ttl),
            (Some("cali1"), 49_152, 443, 2, 64)
        );
        for (query, says) in [
            ("src=10.65.0.2&dst=fd00::1&proto=tcp&dport=1", "one family"),
            ("src=10.65.0.2&dst=10.65.1.7&proto=tcp&dport=70000", "70000"),
            ("src=10.65.0.2&dst=10.65.1.7&proto=tcp", "--dport"),
            ("live=true&src=10.65.0.2", "live"),
            ("socket=/etc/passwd", "socket"),
            ("src=--live&dst=x&proto=tcp", "not an address"),
        ] {
            let Err(error) = read("/api/trace", query) else { panic!("{query}") };
            assert!(error.to_string().contains(says), "{query}: {error}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_refused_in_words() {
        for (path, query, says, status) in [
            ("/api/show/follow", "", "nothing is shown", 404),
            ("/api/show/route", "", "address", 400),
            ("/api/show/route", "address=web", "`web`, which is no IPv4 or IPv6", 400),
            ("/api/show/ports", "limit=1", "no parameter `limit`", 400),
            ("/api/show/bgp", "prefix=10.0.0.0/40", "no network", 400),
        ] {
            let error = read(path, query).unwrap_err();
            assert!(error.to_string().contains(says), "{path}?{query}: {error}");
            assert_eq!(error.status(), status);
        }
    }

    /// Nobody can follow packets, or end that somebody follows some: that would be a change.
    #[test]
    fn no_question_changes_anything() {
        for path in ["/api/trace", "/api/show/follow", "/api/show/followed", "/api/follow", "/api/show/trace"]
        {
            let query = "src=10.65.0.2&dst=10.65.1.7&proto=udp&dport=1&id=1&count=1&seconds=1";
            let question = read(path, query);
            let reads = !matches!(
                question,
                Ok(Question::Follow { .. } | Question::Followed { .. } | Question::EndFollowing { .. })
            );
            assert!(reads, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_query_makes_the_reader_panic(query in ".{0,200}", words in "(src|dst|in|dport|proto|x)=.{0,40}&.{0,40}") {
            for path in ["/api/trace", "/api/show/route", "/api/show/flows", "/api/show/bgp", "/api/show/policy"] {
                let _ = read(path, &query);
                let _ = read(path, &words);
            }
        }
    }
}
