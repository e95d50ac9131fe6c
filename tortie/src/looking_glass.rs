//! The looking glass: one page for people, and the JSON that it is made of.
//!
//! The page, its style and its script are in the program, and are one answer. Everything that it shows are answers of
//! `/api/…`, whose forms are those of `tortie show … -o json` and `tortie trace -o json`: there is one source, and the page only
//! lays it out. Nothing here changes anything in the router, whatever is asked.
//!
//! Names that it shows come from outside (datastore, BGP peers, interfaces). The script writes them as text and never as
//! markup, and the page's content security policy runs nothing but the very script that is in the program.

mod pace;
mod page;
mod question;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use hyper::header::{CONTENT_SECURITY_POLICY, HOST};
use hyper::{Request, StatusCode, Uri};
use serde::Serialize;
use tables::{DropReason, PuntReason};

use crate::forms::XdpCounts;
use crate::http::reply::{Reply, json, of};
use crate::limits;
use crate::observer::{NoAnswer, Observer};
use pace::Pace;
use page::Page;

const HTML: &str = "text/html; charset=utf-8";

/// What one looking glass needs to answer.
pub(crate) struct LookingGlass {
    node: String,
    page: Page,
    pace: Pace,
}

/// Why a request isn't answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub(crate) enum Refused {
    #[error(
        "this looking glass doesn't answer to the name {0}: ask by address, by `localhost` or by the node's name, or give it a certificate"
    )]
    Name(String),
    #[error("more is asked than this looking glass answers a second: wait a moment")]
    TooMany,
}

impl Refused {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refused::Name(_) => StatusCode::MISDIRECTED_REQUEST,
            Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// What the page says of the router and of words that stand in answers.
#[derive(Serialize)]
struct About<'a> {
    node: &'a str,
    version: &'static str,
    /// Every reason for a drop, with its meaning.
    drops: BTreeMap<&'static str, &'static str>,
    /// Every reason for which the slow path gets a copy.
    punts: BTreeMap<&'static str, &'static str>,
    /// Every counter of a queue's.
    queues: BTreeMap<&'static str, &'static str>,
}

/// No answer, and why.
#[derive(Serialize)]
struct NoAnswerBody {
    error: String,
}

impl LookingGlass {
    pub(crate) fn new(node: String) -> LookingGlass {
        let pace = Pace::new(limits::GLASS_REQUESTS_A_SECOND, limits::GLASS_REQUESTS_AT_ONCE);
        LookingGlass { node, page: Page::new(), pace }
    }

    /// Is there something at this path?
    pub(crate) fn has(path: &str) -> bool {
        path == "/" || path.starts_with("/api/")
    }

    /// Is this request to be answered? `is_private`: it came by TLS.
    ///
    /// # Errors
    /// Too many come, or it names a host that nobody here is called.
    pub(crate) fn admits<B>(&self, request: &Request<B>, is_private: bool) -> Result<(), Refused> {
        if !is_private {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            self.is_called(host)?;
        }
        if self.pace.take(Instant::now()) { Ok(()) } else { Err(Refused::TooMany) }
    }

    /// A page of somebody else's may lead its own name to our address, and its script would then read what we answer (DNS
    /// rebinding). It can't do so with an address, nor with names that no stranger has. With TLS, the certificate decides.
    fn is_called(&self, host: &str) -> Result<(), Refused> {
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let is_ours = name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.eq_ignore_ascii_case(&self.node);
        if is_ours { Ok(()) } else { Err(Refused::Name(name.escape_default().to_string())) }
    }

    pub(crate) async fn respond(&self, uri: &Uri, observer: &Observer) -> Reply {
        match uri.path() {
            "/" => {
                let mut reply = of(StatusCode::OK, HTML, self.page.bytes());
                reply.headers_mut().insert(CONTENT_SECURITY_POLICY, self.page.policy());
                reply
            }
            "/api/about" => json(StatusCode::OK, &self.about()),
            path => match question::read(path, uri.query().unwrap_or_default()) {
                Err(error) => failure(error.status(), error.to_string()),
                Ok(question) => match observer.answer(question).await {
                    Ok(answer) => json(StatusCode::OK, &answer),
                    Err(error @ NoAnswer::Untraceable(_)) => {
                        failure(StatusCode::BAD_REQUEST, error.to_string())
                    }
                    Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
                },
            },
        }
    }

    fn about(&self) -> About<'_> {
        About {
            node: &self.node,
            version: env!("CARGO_PKG_VERSION"),
            drops: DropReason::ALL.iter().map(|reason| (reason.as_str(), reason.help())).collect(),
            punts: PuntReason::ALL.iter().map(|reason| (reason.as_str(), reason.help())).collect(),
            queues: XdpCounts::default().list().into_iter().map(|(name, help, _)| (name, help)).collect(),
        }
    }
}

fn failure(status: StatusCode, error: String) -> Reply {
    json(status, &NoAnswerBody { error })
}

#[cfg(test)]
mod tests;
