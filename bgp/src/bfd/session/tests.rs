//! Every transition of RFC 5880 §6.2, and the timers around them, on simulated time.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn config(detect_mult: u8, tx: u64, rx: u64) -> BfdConfig {
    BfdConfig {
        detect_mult,
        desired_min_tx: Duration::from_millis(tx),
        required_min_rx: Duration::from_millis(rx),
        idle_tx: Duration::from_secs(1),
    }
}

/// Two ends and the way between them.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    /// Nothing crosses in this direction: from the end of this number.
    cut: [bool; 2],
    changes: Vec<(usize, State, State)>,
    sent: [Vec<(Instant, Control)>; 2],
}

impl Pair {
    fn new(one: BfdConfig, two: BfdConfig) -> Pair {
        let now = Instant::now();
        let end = |number, config| Session::new(NonZeroU32::new(number).unwrap(), config, now);
        Pair {
            ends: [end(11, one), end(22, two)],
            now,
            cut: [false; 2],
            changes: Vec::new(),
            sent: [Vec::new(), Vec::new()],
        }
    }

    fn up(one: BfdConfig, two: BfdConfig) -> Pair {
        let mut pair = Pair::new(one, two);
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.states(), [State::Up; 2]);
        pair.changes.clear();
        pair.sent = [Vec::new(), Vec::new()];
        pair
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    /// What one end asks for reaches the other at once, and so on until nobody has anything to say.
    fn carry(&mut self, from: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Changed { from: before, to } => self.changes.push((from, before, to)),
                Step::Send(packet) => {
                    self.sent[from].push((self.now, packet));
                    if !self.cut[from] {
                        let mut answer = Vec::new();
                        self.ends[1 - from].receive(&packet, self.now, self.now, &mut answer);
                        self.carry(1 - from, answer);
                    }
                }
            }
        }
    }

    fn act(&mut self, end: usize, act: impl FnOnce(&mut Session, Instant, &mut Vec<Step>)) {
        let mut steps = Vec::new();
        act(&mut self.ends[end], self.now, &mut steps);
        self.carry(end, steps);
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = (0..2).filter_map(|end| Some((self.ends[end].next_deadline()?, end))).min();
            let Some((at, end)) = next.filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.act(end, Session::tick);
        }
        self.now = until;
    }

    /// The gaps between what an end sends.
    fn gaps(&self, end: usize) -> Vec<Duration> {
        self.sent[end].windows(2).map(|two| two[1].0 - two[0].0).collect()
    }
}

#[test]
fn every_state_goes_where_rfc_5880_leads_it() {
    use State::{AdminDown, Down, Init, Up};
    let states = [AdminDown, Down, Init, Up];
    // Rows: where we are. Columns: what is heard, in the order above.
    let table = [[AdminDown; 4], [Down, Init, Up, Down], [Down, Init, Up, Up], [Down, Down, Up, Up]];
    for (own, row) in states.into_iter().zip(table) {
        for (heard, expected) in states.into_iter().zip(row) {
            assert_eq!(next_state(own, heard), expected, "{own} hears {heard}");
        }
    }
}

#[test]
fn two_ends_come_up_in_three_steps_and_beat_at_the_slower_pace() {
    let mut pair = Pair::up(config(3, 100, 10), config(5, 50, 300));
    pair.run(Duration::from_secs(30));
    // What the first sends is bounded by what the second can take, and the other way round.
    assert_eq!(pair.ends[0].transmit_interval(), Some(300 * MS));
    assert_eq!(pair.ends[1].transmit_interval(), Some(50 * MS));
    assert_eq!(pair.ends[0].detection_time(), Some(5 * 50 * MS));
    assert_eq!(pair.ends[1].detection_time(), Some(3 * 300 * MS));
    for (end, interval) in [(0, 300 * MS), (1, 50 * MS)] {
        let gaps = pair.gaps(end);
        assert!(gaps.len() > 50);
        assert!(gaps.iter().all(|gap| (interval * 3 / 4..=interval).contains(gap)), "{gaps:?}");
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*most - *least > interval / 10, "jitter");
    }
    assert!(pair.changes.is_empty());
}

#[test]
fn until_it_is_up_a_session_sends_no_faster_than_once_a_second() {
    let mut pair = Pair::new(config(3, 10, 10), config(3, 10, 10));
    pair.cut = [true, true];
    pair.run(Duration::from_secs(20));
    assert!(pair.gaps(0).iter().all(|gap| *gap >= 750 * MS), "{:?}", pair.gaps(0));
    assert!(pair.sent[0].iter().all(|(_, packet)| packet.desired_min_tx >= 1_000_000));
    assert!(pair.sent[0].iter().all(|(_, packet)| packet.your_discriminator == 0));
}

#[test]
fn silence_for_the_detection_time_is_the_end_and_not_a_moment_less() {
    let mut pair = Pair::up(config(3, 100, 10), config(3, 100, 10));
    pair.run(Duration::from_secs(1));
    let last = pair.sent[1].last().unwrap().0;
    pair.cut[1] = true;
    let expires = last + 300 * MS;
    pair.run(expires - MS - pair.now);
    assert_eq!(pair.ends[0].state(), State::Up);
    pair.run(MS);
    assert_eq!(pair.ends[0].state(), State::Down);
    assert_eq!(pair.ends[0].diagnostic(), Diagnostic::DETECTION_TIME_EXPIRED);
    // It is told at once, so the end that still hears goes down too.
    assert_eq!(pair.ends[1].state(), State::Down);
    assert_eq!(pair.ends[1].diagnostic(), Diagnostic::NEIGHBOR_DOWN);
    assert_eq!(pair.changes, [(0, State::Up, State::Down), (1, State::Up, State::Down)]);
    let (_, told) = pair.sent[0].last().unwrap();
    assert_eq!((told.state, told.your_discriminator), (State::Down, 0), "nobody is heard any more");
    // One way alone is not up.
    pair.run(Duration::from_secs(10));
    assert_ne!(pair.ends[0].state(), State::Up);
    assert_ne!(pair.ends[1].state(), State::Up);
    pair.cut[1] = false;
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn a_slower_pace_waits_until_the_other_end_has_confirmed_it() {
    let mut pair = Pair::up(config(3, 100, 100), config(3, 100, 100));
    pair.run(Duration::from_secs(1));
    // The question is lost: the old pace stays.
    pair.cut[0] = true;
    pair.act(0, |session, now, out| session.configure(config(3, 500, 50), now, out));
    assert!(pair.sent[0].last().unwrap().1.poll);
    assert_eq!(pair.ends[0].transmit_interval(), Some(100 * MS));
    assert_eq!(pair.ends[0].detection_time(), Some(300 * MS), "the shorter detection time waits too");
    pair.run(150 * MS);
    assert_eq!(pair.ends[0].transmit_interval(), Some(100 * MS));
    pair.cut[0] = false;
    pair.run(200 * MS);
    assert_eq!(pair.ends[0].transmit_interval(), Some(500 * MS));
    assert_eq!(pair.ends[1].detection_time(), Some(3 * 500 * MS));
    let answer = pair.sent[1].iter().find(|(_, packet)| packet.final_).unwrap().1;
    assert!(!answer.poll);
    pair.run(Duration::from_secs(10));
    assert!(!pair.sent[0].last().unwrap().1.poll, "asked once");
    assert!(pair.changes.is_empty(), "{:?}", pair.changes);
}

#[test]
fn a_faster_pace_begins_at_once() {
    let mut pair = Pair::up(config(3, 1000, 10), config(3, 1000, 10));
    pair.run(Duration::from_secs(3));
    pair.act(0, |session, now, out| session.configure(config(3, 20, 10), now, out));
    assert_eq!(pair.ends[0].transmit_interval(), Some(20 * MS));
    pair.sent[0].clear();
    pair.run(Duration::from_secs(1));
    assert!(pair.sent[0].len() >= 45, "{}", pair.sent[0].len());
}

#[test]
fn a_change_during_a_poll_is_asked_for_again() {
    let now = Instant::now();
    let mut session = Session::new(NonZeroU32::MIN, config(3, 100, 100), now);
    let packet = |state, final_| Control {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        final_,
        control_plane_independent: false,
        demand: false,
        detect_mult: 3,
        my_discriminator: NonZeroU32::MIN,
        your_discriminator: 1,
        desired_min_tx: 100_000,
        required_min_rx: 100_000,
        required_min_echo_rx: 0,
    };
    let mut out = Vec::new();
    session.receive(&packet(State::Init, false), now, now, &mut out);
    assert_eq!(session.state(), State::Up);
    session.configure(config(3, 700, 100), now, &mut out);
    // This may be the answer to the first question.
    session.receive(&packet(State::Up, true), now, now, &mut out);
    assert_eq!(session.transmit_interval(), Some(100 * MS));
    session.receive(&packet(State::Up, true), now, now, &mut out);
    assert_eq!(session.transmit_interval(), Some(700 * MS));
    // A poll is answered, once, and the answer is no question.
    out.clear();
    session.receive(&Control { poll: true, ..packet(State::Up, false) }, now, now, &mut out);
    let [Step::Send(answer)] = out.as_slice() else { panic!("{out:?}") };
    assert!(answer.final_ && !answer.poll);
}

#[test]
fn an_end_that_says_farewell_takes_the_other_down_and_says_so() {
    let mut pair = Pair::up(config(3, 100, 10), config(3, 100, 10));
    pair.act(0, Session::farewell);
    assert_eq!(pair.states(), [State::AdminDown, State::Down]);
    assert_eq!(pair.ends[1].diagnostic(), Diagnostic::NEIGHBOR_DOWN);
    assert_eq!(pair.ends[1].remote().unwrap().state, State::AdminDown);
    // It hears, and stays down.
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.states(), [State::AdminDown, State::Down]);
}

#[test]
fn a_way_that_is_known_to_be_gone_is_down_without_waiting() {
    let mut pair = Pair::up(config(3, 100, 10), config(3, 100, 10));
    pair.cut = [true, true];
    pair.act(0, Session::path_down);
    assert_eq!(pair.ends[0].state(), State::Down);
    assert_eq!(pair.ends[0].diagnostic(), Diagnostic::PATH_DOWN);
}

#[test]
fn who_wants_nothing_gets_nothing() {
    for (demand, required_min_rx) in [(true, 100_000), (false, 0)] {
        let mut pair = Pair::up(config(3, 100, 10), config(3, 100, 10));
        pair.run(Duration::from_secs(1));
        let (_, latest) = *pair.sent[1].last().unwrap();
        pair.cut = [true, true];
        let quiet = Control { demand, required_min_rx, poll: false, final_: false, ..latest };
        pair.act(0, |session, now, out| session.receive(&quiet, now, now, out));
        pair.sent[0].clear();
        pair.run(250 * MS);
        assert_eq!(pair.sent[0], [], "demand {demand}");
    }
}

#[test]
fn where_no_packet_may_be_lost_the_jitter_leaves_a_tenth() {
    let mut pair = Pair::up(config(1, 100, 10), config(1, 100, 10));
    pair.run(Duration::from_secs(60));
    assert!(pair.changes.is_empty());
    let gaps = pair.gaps(0);
    assert!(gaps.iter().all(|gap| (75 * MS..=90 * MS).contains(gap)), "{gaps:?}");
}

/// Any packet that is in order by itself.
fn packets() -> impl Strategy<Value = Control> {
    let fields = (0u8..32, 0u8..4, any::<[bool; 4]>(), 1u8.., 1u32.., any::<u32>(), any::<[u32; 3]>());
    fields.prop_map(|(diagnostic, state, flags, detect_mult, mine, yours, intervals)| Control {
        diagnostic: Diagnostic(diagnostic),
        state: [State::AdminDown, State::Down, State::Init, State::Up][usize::from(state)],
        poll: flags[0],
        final_: flags[1],
        control_plane_independent: flags[2],
        demand: flags[3],
        detect_mult,
        my_discriminator: NonZeroU32::new(mine).unwrap(),
        your_discriminator: yours,
        desired_min_tx: intervals[0],
        required_min_rx: intervals[1],
        required_min_echo_rx: intervals[2],
    })
}

proptest! {
    /// Whatever the other end says: we follow the table, answer each packet with two at most, and end in silence.
    #[test]
    fn no_packet_makes_a_session_leave_the_rules(packets in proptest::collection::vec((packets(), 0u64..5000), 1..60)) {
        let mut now = Instant::now();
        let mut session = Session::new(NonZeroU32::MIN, config(3, 100, 10), now);
        let mut out = Vec::new();
        for (packet, wait) in packets {
            now += Duration::from_millis(wait);
            session.tick(now, &mut out);
            let before = session.state();
            out.clear();
            session.receive(&packet, now, now, &mut out);
            prop_assert_eq!(session.state(), next_state(before, packet.state));
            prop_assert!(out.iter().filter(|step| matches!(step, Step::Send(_))).count() <= 2);
            prop_assert!(session.next_deadline().is_some(), "silence is noticed");
            // The longest detection time that a packet can ask for is 255 times 2^32 µs.
            prop_assert!(session.next_deadline().unwrap() <= now + Duration::from_micros(u64::from(u32::MAX)) * 255);
        }
        while let Some(due) = session.next_deadline().filter(|_| session.remote().is_some()) {
            now = now.max(due);
            session.tick(now, &mut out);
        }
        prop_assert!(matches!(session.state(), State::Down));
    }

    /// Over a way that loses packets at random, both ends agree once it no longer does.
    #[test]
    fn two_ends_agree_again_after_any_loss(losses in proptest::collection::vec((any::<[bool; 2]>(), 1u64..700), 0..40)) {
        let mut pair = Pair::new(config(3, 100, 10), config(4, 50, 20));
        for (cut, time) in losses {
            pair.cut = cut;
            pair.run(Duration::from_millis(time));
        }
        pair.cut = [false; 2];
        pair.run(Duration::from_secs(5));
        prop_assert_eq!(pair.states(), [State::Up; 2]);
    }
}

#[test]
fn silence_lasts_from_when_a_packet_came_however_late_it_is_looked_at() {
    let pace = config(3, 10, 10);
    let mut pair = Pair::up(pace, pace);
    let (came, looked_at) = (pair.now + 5 * MS, pair.now + 25 * MS);
    let (packet, mut out) = (pair.ends[1].packet(), Vec::new());
    pair.ends[0].receive(&packet, came, looked_at, &mut out);
    assert_eq!(pair.ends[0].detect_at, Some(came + 30 * MS));
    // A clock that was set back makes nothing come later than now.
    pair.ends[0].receive(&packet, looked_at + 1000 * MS, looked_at, &mut out);
    assert_eq!(pair.ends[0].detect_at, Some(looked_at + 30 * MS));
}
