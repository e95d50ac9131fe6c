//! Whole messages in hexadecimal, and what an operator reads.

use super::*;

const MARKER: &str = "ffffffffffffffffffffffffffffffff";

fn said(hex: &str) -> Answer {
    answer(&octets(hex).unwrap(), &UpdateContext::usual(PeerKind::Ebgp)).unwrap()
}

/// An UPDATE of these attributes about 192.0.2.0/24.
fn update(attributes: &str) -> String {
    let len = attributes.len() / 2;
    format!("{MARKER}{:04x}020000{len:04x}{attributes}18c00002", 19 + 4 + len + 4)
}

const GOOD: &str = "40010100 4002060201 0000fde9 4003040a000002";

#[test]
fn messages_are_told_one_after_the_other() {
    let attributes = format!("{GOOD} c0080400640007").replace(' ', "");
    let keepalive = format!("{MARKER}001304");
    let answer = said(&format!("{keepalive}\n{}", update(&attributes)));
    assert_eq!(
        answer.text(),
        "\
KEEPALIVE, 19 octets: accept
UPDATE, 54 octets: accept
  ORIGIN            IGP
  AS_PATH           65001
  NEXT_HOP          10.0.0.2
  COMMUNITIES       100:7
  announced         192.0.2.0/24 via 10.0.0.2
"
    );
    assert_eq!(answer.exit_code(), ExitCode::SUCCESS);
}

#[test]
fn an_error_is_told_with_its_treatment() {
    let withdrawn = said(&update(&GOOD.replace(' ', "").replacen("40010100", "40010107", 1)));
    assert_eq!(withdrawn.messages[0].treatment, "treat-as-withdraw");
    assert_eq!(withdrawn.messages[0].reason.as_deref(), Some("ORIGIN has an unknown value"));
    assert_eq!(withdrawn.exit_code(), ExitCode::from(CONTAINED));
    let discarded = said(&update(&format!("{}40060101", GOOD.replace(' ', ""))));
    assert_eq!(discarded.messages[0].treatment, "attribute-discard");
    let reset = said(&format!("{MARKER}001309"));
    assert_eq!(reset.messages[0].reason.as_deref(), Some("NOTIFICATION 1/3 (Bad Message Type)"));
    assert_eq!(reset.exit_code(), ExitCode::from(RESET));
}

#[test]
fn an_open_tells_who_it_is() {
    let open = format!("{MARKER}0025 01 04 5ba0 005a 0a000002 08 0206 4104 fa56ea00");
    let answer = said(&open);
    let texts: Vec<&str> = answer.messages[0].content.iter().map(|said| said.value.as_str()).collect();
    assert_eq!(texts, ["4200000000", "90 s", "10.0.0.2", "four-octet AS 4200000000"]);
}

#[test]
fn what_is_no_message_is_refused() {
    let refused = |hex: &str| match octets(hex) {
        Ok(bytes) => answer(&bytes, &UpdateContext::usual(PeerKind::Ebgp)).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(refused("ffxx"), "not hexadecimal: 'x' at character 3");
    assert_eq!(refused("fff"), "3 hexadecimal digits are no whole octets");
    assert_eq!(refused(MARKER), "the message is cut short: 16 octets have come");
    assert_eq!(refused(&format!("{MARKER}001304ff")), "the message is cut short: 20 octets have come");
}
