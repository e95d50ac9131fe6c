//! Datagrams find their sessions, and no others.

use super::*;

const LINK: u32 = 7;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(remote: &str, link: Option<u32>) -> BfdPath {
    BfdPath { remote: addr(remote), local: addr("10.0.0.1"), link }
}

fn bfd() -> (Bfd, Instant, Vec<BfdOutput>) {
    (Bfd::new(7, 8), Instant::now(), Vec::new())
}

/// The packet of a stranger that begins.
fn hello(your_discriminator: u32, state: State) -> [u8; CONTROL_LEN] {
    Control {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: 3,
        my_discriminator: NonZeroU32::new(99).unwrap(),
        your_discriminator,
        desired_min_tx: 1_000_000,
        required_min_rx: 10_000,
        required_min_echo_rx: 0,
    }
    .emit()
}

fn datagram<'a>(from: &str, bytes: &'a [u8]) -> BfdDatagram<'a> {
    BfdDatagram {
        from: addr(from),
        to: addr("10.0.0.1"),
        link: LINK,
        multihop: false,
        ttl: 255,
        at: Instant::now(),
        bytes,
    }
}

fn states(bfd: &Bfd, now: Instant) -> Vec<State> {
    bfd.status(now).iter().map(|status| status.state).collect()
}

#[test]
fn a_session_is_found_by_address_and_link_until_its_number_is_known() {
    let (mut bfd, now, mut out) = bfd();
    bfd.put(path("10.0.0.2", Some(LINK)), BfdConfig::default(), now, &mut out);
    bfd.put(path("10.0.0.3", Some(LINK)), BfdConfig::default(), now, &mut out);
    bfd.put(path("10.0.0.3", Some(LINK + 1)), BfdConfig::default(), now, &mut out);
    bfd.put(path("10.0.0.3", None), BfdConfig::default(), now, &mut out);
    assert_eq!(out.len(), 4, "each sends at once");
    let (down, all) = (hello(0, State::Down), bfd.status(now));
    bfd.received(&datagram("10.0.0.3", &down), now, &mut out);
    // In order of link within one address: none, then the links.
    assert_eq!(states(&bfd, now), [State::Down, State::Down, State::Init, State::Down]);
    bfd.received(&BfdDatagram { multihop: true, ttl: 60, ..datagram("10.0.0.3", &down) }, now, &mut out);
    assert_eq!(states(&bfd, now), [State::Down, State::Init, State::Init, State::Down]);
    // By number: it must still come from where the session is.
    let of_two = all[0].discriminators.0;
    bfd.received(&datagram("10.0.0.3", &hello(of_two, State::Down)), now, &mut out);
    assert_eq!(states(&bfd, now)[0], State::Down);
    bfd.received(&datagram("10.0.0.2", &hello(of_two, State::Init)), now, &mut out);
    assert_eq!(states(&bfd, now)[0], State::Up);
    assert_eq!(bfd.refused().get(&Refused::NoSession), Some(&1));
}

#[test]
fn what_comes_from_further_than_a_hop_or_is_nobodys_is_counted() {
    let (mut bfd, now, mut out) = bfd();
    let one_hop = path("10.0.0.2", Some(LINK));
    bfd.put(one_hop, BfdConfig::default(), now, &mut out);
    let (hello, nonsense) = (hello(0, State::Down), [0; 24]);
    bfd.received(&BfdDatagram { ttl: 254, ..datagram("10.0.0.2", &hello) }, now, &mut out);
    bfd.received(&datagram("10.0.0.9", &hello), now, &mut out);
    bfd.received(&BfdDatagram { link: LINK + 1, ..datagram("10.0.0.2", &hello) }, now, &mut out);
    bfd.received(&datagram("10.0.0.2", &nonsense), now, &mut out);
    assert_eq!(states(&bfd, now), [State::Down]);
    let refused: Vec<_> = bfd.refused().iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(refused, [("version", 1), ("ttl", 1), ("no_session", 2)]);
}

#[test]
fn a_session_that_is_removed_says_farewell_and_is_forgotten() {
    let (mut bfd, now, mut out) = bfd();
    let one_hop = path("10.0.0.2", Some(LINK));
    bfd.put(one_hop, BfdConfig::default(), now, &mut out);
    out.clear();
    bfd.remove(one_hop, now, &mut out);
    let last = out.iter().find_map(|output| match output {
        BfdOutput::Send { bytes, .. } => Control::parse(bytes).ok(),
        BfdOutput::Changed { .. } => None,
    });
    assert_eq!(
        last.map(|packet| (packet.state, packet.diagnostic)),
        Some((State::AdminDown, Diagnostic::ADMIN_DOWN))
    );
    assert_eq!(bfd.next_deadline(), None);
    assert!(bfd.status(now).is_empty());
}

#[test]
fn an_operator_at_the_other_end_is_no_failure() {
    let (mut bfd, now, mut out) = bfd();
    bfd.put(path("10.0.0.2", Some(LINK)), BfdConfig::default(), now, &mut out);
    let ours = bfd.status(now)[0].discriminators.0;
    bfd.received(&datagram("10.0.0.2", &hello(ours, State::Init)), now, &mut out);
    for (said, expected) in [(State::AdminDown, true), (State::Down, false)] {
        bfd.received(&datagram("10.0.0.2", &hello(ours, State::Init)), now, &mut out);
        out.clear();
        bfd.received(&datagram("10.0.0.2", &hello(ours, said)), now, &mut out);
        let told = out.iter().find_map(|output| match output {
            BfdOutput::Changed { to: State::Down, remote_admin_down, .. } => Some(*remote_admin_down),
            _ => None,
        });
        assert_eq!(told, Some(expected), "{said}");
    }
}

#[test]
fn sessions_are_no_more_than_there_may_be_and_numbers_differ() {
    let (mut bfd, now, mut out) = bfd();
    for last in 0..8 {
        assert!(bfd.put(path(&format!("10.0.1.{last}"), None), BfdConfig::default(), now, &mut out));
    }
    assert!(!bfd.put(path("10.0.2.1", None), BfdConfig::default(), now, &mut out));
    let numbers: BTreeSet<u32> = bfd.status(now).iter().map(|status| status.discriminators.0).collect();
    assert_eq!(numbers.len(), 8);
}

#[test]
fn only_what_is_due_is_done() {
    let (mut bfd, mut now, mut out) = bfd();
    for last in 0..4 {
        bfd.put(path(&format!("10.0.1.{last}"), None), BfdConfig::default(), now, &mut out);
    }
    let mut sent = 0;
    for _ in 0..100 {
        out.clear();
        now = bfd.next_deadline().unwrap();
        bfd.tick(now, &mut out);
        sent += out.len();
        assert!(bfd.next_deadline().unwrap() > now);
    }
    assert!((100..=104).contains(&sent), "one packet a deadline, but where two fall together: {sent}");
}
