//! `tortie explain bgp`: BGP messages decoded, or the treatment they get.

mod attributes;

use std::fmt::Write as _;
use std::process::ExitCode;

use bgp::PeerKind;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::route_refresh::RouteRefresh;
use bgp::wire::update::{Update, UpdateContext};
use bgp::wire::{Framer, HEADER_LEN, MessageType};
use clap::Args;
use serde::Serialize;

use crate::output::{self, Form};
use attributes::Attribute;

pub(super) const EXAMPLES: &str = "\
Examples:
  tortie explain bgp ffffffffffffffffffffffffffffffff001304
  tortie explain bgp --ibgp \"$(cat update.hex)\" -o json

Exit status 0 where every message is taken as it is, 1 where routes are treated as withdrawn or attributes
dropped (RFC 7606), 2 where the session would end, or where it is no message.";

/// An UPDATE whose errors are contained.
const CONTAINED: u8 = 1;
/// The session would end.
const RESET: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct BgpArgs {
    /// One or more whole messages in hexadecimal; blanks, colons and line breaks don't matter
    #[arg(value_name = "HEX", required = true)]
    hex: Vec<String>,

    /// As from a peer in our own AS; otherwise as from one in another
    #[arg(long)]
    ibgp: bool,

    /// AS numbers have two octets: the peer lacks RFC 6793
    #[arg(long)]
    two_octet_as: bool,

    /// Prefixes come with path identifiers (RFC 7911)
    #[arg(long)]
    add_path: bool,
}

/// The answer, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    /// In the order given; a message that ends the session is the last.
    messages: Vec<Message>,
}

/// One message.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Message {
    /// `OPEN`, `UPDATE`, …; absent where not even that can be told.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Its length, header included.
    #[serde(skip_serializing_if = "Option::is_none")]
    octets: Option<usize>,
    /// `accept`, `attribute-discard`, `treat-as-withdraw` or `session-reset`.
    treatment: &'static str,
    /// Why, where it isn't `accept`; the NOTIFICATION where the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What it says, in the order of the message.
    content: Vec<Attribute>,
}

/// Answers and prints.
///
/// # Errors
/// It is not hexadecimal, or no whole message.
pub(super) fn run(args: &BgpArgs, form: Form) -> anyhow::Result<ExitCode> {
    let bytes = octets(&args.hex.join(" "))?;
    let kind = if args.ibgp { PeerKind::Ibgp } else { PeerKind::Ebgp };
    let context = UpdateContext {
        four_octet_as: !args.two_octet_as,
        add_path: [args.add_path; 2],
        ..UpdateContext::usual(kind)
    };
    let answer = answer(&bytes, &context)?;
    match form {
        Form::Json => output::print(&(serde_json::to_string_pretty(&answer)? + "\n"))?,
        Form::Table => output::print(&answer.text())?,
    }
    Ok(answer.exit_code())
}

fn octets(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut digits = Vec::new();
    for (at, c) in text.chars().enumerate() {
        match c.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None if c.is_whitespace() || c == ':' => {}
            None => anyhow::bail!("not hexadecimal: {c:?} at character {}", at + 1),
        }
    }
    anyhow::ensure!(
        digits.len().is_multiple_of(2),
        "{} hexadecimal digits are no whole octets",
        digits.len()
    );
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn answer(bytes: &[u8], context: &UpdateContext) -> anyhow::Result<Answer> {
    let mut messages = Vec::new();
    let (mut framer, mut rest) = (Framer::default(), bytes);
    loop {
        match framer.next(&mut rest) {
            Ok(Some((kind, body))) => {
                let message = message(kind, body, context);
                let last = message.treatment == "session-reset";
                messages.push(message);
                if last {
                    break;
                }
            }
            Ok(None) if messages.is_empty() || framer_holds(bytes, &messages) => {
                anyhow::bail!("the message is cut short: {} octets have come", bytes.len());
            }
            Ok(None) => break,
            Err(notification) => {
                messages.push(reset(None, None, &notification));
                break;
            }
        }
    }
    Ok(Answer { messages })
}

/// Are there octets after the last whole message?
fn framer_holds(bytes: &[u8], messages: &[Message]) -> bool {
    messages.iter().filter_map(|message| message.octets).sum::<usize>() < bytes.len()
}

fn message(kind: MessageType, body: &[u8], context: &UpdateContext) -> Message {
    let (name, said) = match kind {
        MessageType::Open => ("OPEN", Open::parse(body).map(|open| accepted(of_open(&open)))),
        MessageType::Update => {
            ("UPDATE", Update::parse(body, context).map(|update| of_update(&update, context)))
        }
        MessageType::Notification => {
            let said = Notification::parse(body).map(|said| Attribute::new("notification", said.to_string()));
            ("NOTIFICATION", Ok(accepted(said.into_iter().collect())))
        }
        MessageType::Keepalive => ("KEEPALIVE", Ok(accepted(Vec::new()))),
        MessageType::RouteRefresh => {
            let said = RouteRefresh::parse(body).map(|refresh| {
                Attribute::new("refresh", format!("{}, subtype {}", refresh.family, refresh.subtype))
            });
            ("ROUTE-REFRESH", Ok(accepted(said.into_iter().collect())))
        }
    };
    let octets = Some(HEADER_LEN + body.len());
    match said {
        Ok(message) => Message { kind: Some(name), octets, ..message },
        Err(notification) => reset(Some(name), octets, &notification),
    }
}

fn accepted(content: Vec<Attribute>) -> Message {
    Message { kind: None, octets: None, treatment: "accept", reason: None, content }
}

fn reset(kind: Option<&'static str>, octets: Option<usize>, notification: &Notification) -> Message {
    let reason = Some(notification.to_string());
    Message { kind, octets, treatment: "session-reset", reason, content: Vec::new() }
}

fn of_open(open: &Open) -> Vec<Attribute> {
    let mut content = vec![
        Attribute::new("AS", open.as_number().to_string()),
        Attribute::new("hold time", format!("{} s", open.hold_time)),
        Attribute::new("BGP identifier", open.router_id.to_string()),
    ];
    content.extend(
        open.capabilities.iter().map(|capability| Attribute::new("capability", capability.to_string())),
    );
    content
}

fn of_update(update: &Update<'_>, context: &UpdateContext) -> Message {
    let mut content = Vec::new();
    for nlri in update.withdrawn.into_iter().flatten() {
        content.push(Attribute::new("withdrawn", prefix(nlri, context)));
    }
    content.extend(update.attributes().map(|attribute| attributes::of(&attribute, context.four_octet_as)));
    for announced in update.announced.into_iter().flatten() {
        for nlri in announced.nlri {
            let text = format!("{} via {}", prefix(nlri, context), announced.nexthop);
            content.push(Attribute::new("announced", text));
        }
    }
    if let Some(family) = update.end_of_rib {
        content.push(Attribute::new("end of RIB", family.to_string()));
    }
    match (update.error, update.discarded) {
        (Some(error), _) => {
            let reason = Some(error.to_string());
            Message { treatment: "treat-as-withdraw", reason, ..accepted(content) }
        }
        (None, 0) => accepted(content),
        (None, count) => {
            let reason = Some(format!("{count} of the attributes dropped"));
            Message { treatment: "attribute-discard", reason, ..accepted(content) }
        }
    }
}

fn prefix(nlri: bgp::wire::nlri::Nlri, context: &UpdateContext) -> String {
    match context.add_path[nlri.prefix.family() as usize] {
        true => format!("{} (path {})", nlri.prefix, nlri.path_id),
        false => nlri.prefix.to_string(),
    }
}

impl Answer {
    fn exit_code(&self) -> ExitCode {
        let worst = self.messages.iter().map(|message| match message.treatment {
            "accept" => 0,
            "session-reset" => RESET,
            _ => CONTAINED,
        });
        ExitCode::from(worst.max().unwrap_or(0))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for message in &self.messages {
            let kind = message.kind.unwrap_or("no message");
            let octets = message.octets.map(|octets| format!(", {octets} octets")).unwrap_or_default();
            let reason = message.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            // Writing to a String doesn't fail.
            let _ = writeln!(text, "{kind}{octets}: {}{reason}", message.treatment);
            for said in &message.content {
                let _ = writeln!(text, "  {:<18}{}", said.name, said.value);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
