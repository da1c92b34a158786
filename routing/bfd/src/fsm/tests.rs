// SPDX-License-Identifier: Apache-2.0

use std::num::NonZeroU8;

use proptest::prelude::*;

use super::*;
use crate::packet::tests::packets;

const MS: Duration = Duration::from_millis(1);

fn config(tx: u32, rx: u32, multiplier: u8) -> Config {
    Config::new(MS * tx, MS * rx, multiplier).expect("in range")
}

fn name(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not 0")
}

/// What another end that sends and takes packets every 50 ms says in `state`.
fn said(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        final_answer: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: NonZeroU8::new(3).expect("not 0"),
        my_discriminator: name(7),
        your_discriminator: 1,
        desired_min_tx: MS * 50,
        required_min_rx: MS * 50,
        required_min_echo_rx: Duration::ZERO,
    }
}

/// A session in `state`, and nothing left to send.
fn session(state: State, now: Instant) -> Session {
    let mut session = Session::new(config(50, 50, 3), name(1));
    match state {
        State::AdminDown => session.disable(),
        State::Down => {}
        State::Init => assert_eq!(session.receive(&said(State::Down), now), None),
        State::Up => assert_eq!(session.receive(&said(State::Init), now), Some(Change::Up)),
    }
    assert_eq!(session.state(), state);
    while session.transmit(now, 0).is_some() {}
    session
}

/// A session that is up and whose poll is answered.
fn settled(now: Instant) -> Session {
    let mut session = session(State::Up, now);
    session.receive(&Packet { final_answer: true, ..said(State::Up) }, now);
    assert_eq!(session.poll, Poll::Idle);
    while session.transmit(now, 0).is_some() {}
    session
}

#[derive(Debug, Clone, Copy)]
enum Input {
    Said(State),
    Silence,
    Enable,
    Disable,
}

#[test]
fn every_input_in_every_state_leads_where_the_rfc_says() {
    use Change::{AdminDown as TheirWill, Down as Lost, Up as Found};
    use Input::{Disable, Enable, Said, Silence};
    use State::{AdminDown, Down, Init, Up};
    let signaled = Some(Lost(Diagnostic::NEIGHBOUR_SIGNALED_DOWN));
    let expired = Some(Lost(Diagnostic::DETECTION_TIME_EXPIRED));
    let table = [
        (AdminDown, Said(AdminDown), AdminDown, None),
        (AdminDown, Said(Down), AdminDown, None),
        (AdminDown, Said(Init), AdminDown, None),
        (AdminDown, Said(Up), AdminDown, None),
        (AdminDown, Silence, AdminDown, None),
        (AdminDown, Enable, Down, None),
        (AdminDown, Disable, AdminDown, None),
        (Down, Said(AdminDown), Down, Some(TheirWill)),
        (Down, Said(Down), Init, None),
        (Down, Said(Init), Up, Some(Found)),
        (Down, Said(Up), Down, None),
        (Down, Silence, Down, None),
        (Down, Enable, Down, None),
        (Down, Disable, AdminDown, None),
        (Init, Said(AdminDown), Down, Some(TheirWill)),
        (Init, Said(Down), Init, None),
        (Init, Said(Init), Up, Some(Found)),
        (Init, Said(Up), Up, Some(Found)),
        (Init, Silence, Down, None),
        (Init, Enable, Init, None),
        (Init, Disable, AdminDown, None),
        (Up, Said(AdminDown), Down, Some(TheirWill)),
        (Up, Said(Down), Down, signaled),
        (Up, Said(Init), Up, None),
        (Up, Said(Up), Up, None),
        (Up, Silence, Down, expired),
        (Up, Enable, Up, None),
        (Up, Disable, AdminDown, None),
    ];
    for (from, input, to, change) in table {
        let now = Instant::now();
        let mut session = session(from, now);
        let seen = match input {
            Said(state) => session.receive(&said(state), now),
            Silence => session.tick(now + MS * 150),
            Enable => {
                session.enable();
                None
            }
            Disable => {
                session.disable();
                None
            }
        };
        assert_eq!((session.state(), seen), (to, change), "{input:?} in {from}");
        if from != to {
            let told = session.transmit(now, 0).expect("a change of state is told at once");
            assert_eq!(told.state, to, "{input:?} in {from}");
        }
    }
}

#[test]
fn a_session_that_is_not_up_sends_at_most_once_a_second() {
    for state in [State::AdminDown, State::Down, State::Init] {
        let now = Instant::now();
        let mut session = session(state, now);
        assert_eq!(session.transmit_interval(), Some(SLOW), "{state}");
        assert_eq!(session.transmit(now + MS * 749, 0), None, "{state}");
        let packet = session.transmit(now + MS * 750, 0).expect("due");
        assert_eq!(packet.desired_min_tx, SLOW, "{state}");
    }
}

#[test]
fn going_up_polls_until_the_other_end_answers() {
    let now = Instant::now();
    let mut session = Session::new(config(50, 50, 3), name(1));
    assert_eq!(session.receive(&said(State::Init), now), Some(Change::Up));
    let first = session.transmit(now, 0).expect("told at once");
    assert!(first.poll);
    assert_eq!(first.desired_min_tx, MS * 50);
    let second = session.transmit(now + MS * 50, 0).expect("due");
    assert!(second.poll, "no answer came");
    session.receive(&Packet { final_answer: true, ..said(State::Up) }, now + MS * 60);
    let third = session.transmit(now + MS * 100, 0).expect("due");
    assert!(!third.poll);
}

#[test]
fn a_poll_is_answered_at_once_and_out_of_turn() {
    let now = Instant::now();
    let mut session = settled(now);
    let due = session.due();
    session.receive(&Packet { poll: true, ..said(State::Up) }, now + MS);
    assert_eq!(session.deadline(now + MS), Some(now + MS));
    let answer = session.transmit(now + MS, 0).expect("an answer");
    assert!(answer.final_answer && !answer.poll);
    assert_eq!(session.transmit(now + MS, 0), None);
    assert_eq!(session.due(), due, "periodic packets keep their time");
}

#[test]
fn the_slower_of_two_wishes_is_the_interval() {
    let now = Instant::now();
    let mut session = settled(now);
    assert_eq!(session.transmit_interval(), Some(MS * 50));
    session.receive(&Packet { required_min_rx: MS * 300, ..said(State::Up) }, now);
    assert_eq!(session.transmit_interval(), Some(MS * 300));
    session.receive(&Packet { required_min_rx: MS * 10, ..said(State::Up) }, now);
    assert_eq!(session.transmit_interval(), Some(MS * 50));
}

#[test]
fn the_detection_time_is_the_other_ends_multiplier_of_the_slower_interval() {
    let now = Instant::now();
    let mut session = settled(now);
    assert_eq!(session.detection_time(), Some(MS * 150));
    let slow = Packet { desired_min_tx: MS * 100, ..said(State::Up) };
    session.receive(&Packet { detect_multiplier: NonZeroU8::new(5).expect("not 0"), ..slow }, now);
    assert_eq!(session.detection_time(), Some(MS * 500));
    assert_eq!(session.tick(now + MS * 500 - Duration::from_nanos(1)), None);
    assert_eq!(
        session.tick(now + MS * 500),
        Some(Change::Down(Diagnostic::DETECTION_TIME_EXPIRED)),
        "exactly then"
    );
    assert_eq!(session.remote().0, 0, "the other end's name is forgotten");
}

#[test]
fn jitter_takes_up_to_a_quarter_and_with_multiplier_1_a_tenth_at_least() {
    for (multiplier, most) in [(1, 900), (2, 1000), (3, 1000)] {
        let gaps: Vec<Duration> = (0..2000).map(|chance| Share::of(chance, multiplier).take(SLOW)).collect();
        let (least, longest) = (gaps.iter().min().expect("some"), gaps.iter().max().expect("some"));
        assert_eq!(*least, MS * 750, "multiplier {multiplier}");
        assert!(*longest <= MS * most && *longest > MS * (most - 2), "multiplier {multiplier}: {longest:?}");
    }
}

#[test]
fn slower_sending_waits_for_the_answer_to_the_poll() {
    let now = Instant::now();
    let mut session = settled(now);
    session.configure(config(200, 50, 3));
    let packet = session.transmit(now, 0).expect("told at once");
    assert!(packet.poll);
    assert_eq!(packet.desired_min_tx, MS * 200);
    assert_eq!(session.transmit_interval(), Some(MS * 50), "the other end still expects the old pace");
    session.receive(&Packet { final_answer: true, ..said(State::Up) }, now);
    assert_eq!(session.transmit_interval(), Some(MS * 200));
}

#[test]
fn quicker_detection_waits_for_the_answer_to_the_poll() {
    let now = Instant::now();
    let mut session = session(State::Up, now);
    let slow = Packet { desired_min_tx: MS * 10, final_answer: true, ..said(State::Up) };
    session.receive(&slow, now);
    session.configure(config(50, 20, 3));
    assert_eq!(session.detection_time(), Some(MS * 150), "the other end still sends at the old pace");
    session.receive(&slow, now);
    assert_eq!(session.detection_time(), Some(MS * 60));
}

#[test]
fn an_answer_to_an_older_question_does_not_end_the_poll() {
    let now = Instant::now();
    let mut session = settled(now);
    session.configure(config(200, 50, 3));
    session.configure(config(400, 50, 3));
    let answer = Packet { final_answer: true, ..said(State::Up) };
    session.receive(&answer, now);
    assert_eq!(session.transmit_interval(), Some(MS * 50));
    assert!(session.transmit(now, 0).expect("asked again").poll);
    session.receive(&answer, now);
    assert_eq!(session.transmit_interval(), Some(MS * 400));
}

#[test]
fn an_end_that_takes_no_packets_is_sent_none_until_it_does() {
    let now = Instant::now();
    let mut session = settled(now);
    session.receive(&Packet { required_min_rx: Duration::ZERO, ..said(State::Up) }, now);
    assert_eq!(session.transmit(now + SLOW * 2, 0), None);
    session.receive(&said(State::Up), now + SLOW * 2);
    assert!(session.transmit(now + SLOW * 2, 0).is_some());
}

#[test]
fn demand_of_the_other_end_is_heeded_only_while_both_are_up_and_nothing_is_asked() {
    let now = Instant::now();
    let mut session = settled(now);
    let demand = Packet { demand: true, ..said(State::Up) };
    session.receive(&demand, now);
    assert_eq!(session.transmit(now + SLOW, 0), None);
    session.receive(&Packet { poll: true, ..demand }, now);
    assert!(session.transmit(now, 0).expect("an answer").final_answer);
    session.configure(config(60, 50, 3));
    assert!(session.transmit(now, 0).expect("a question").poll);
    assert!(session.transmit(now + MS * 60, 0).expect("again").poll);
    session.receive(&Packet { final_answer: true, ..demand }, now);
    assert_eq!(session.transmit(now + SLOW, 0), None);
    session.receive(&Packet { state: State::Down, ..demand }, now);
    assert!(session.transmit(now, 0).is_some());
    assert_eq!(session.transmit_interval(), Some(SLOW));
}

#[test]
fn the_other_ends_will_is_told_once() {
    let now = Instant::now();
    let mut session = settled(now);
    assert_eq!(session.receive(&said(State::AdminDown), now), Some(Change::AdminDown));
    assert_eq!(session.diagnostic(), Diagnostic::NEIGHBOUR_SIGNALED_DOWN);
    assert_eq!(session.receive(&said(State::AdminDown), now), None);
}

#[test]
fn our_bits_are_honest() {
    let now = Instant::now();
    let mut session = Session::new(config(50, 60, 4), name(9));
    session.receive(&said(State::Down), now);
    let packet = session.transmit(now, 0).expect("urgent");
    assert!(!packet.control_plane_independent, "this BFD ends with the speaker");
    assert!(!packet.demand);
    assert_eq!(packet.required_min_echo_rx, Duration::ZERO);
    assert_eq!((packet.my_discriminator, packet.your_discriminator), (name(9), 7));
    assert_eq!((packet.required_min_rx, packet.detect_multiplier.get()), (MS * 60, 4));
}

/// What happens to a pair of sessions in one step.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u16),
    Lose(bool),
    Configure(u16, u16),
    Bounce,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..2000_u16).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Lose),
        1 => (10..400_u16, 10..400_u16).prop_map(|(tx, rx)| Step::Configure(tx, rx)),
        1 => Just(Step::Bounce),
    ];
    proptest::collection::vec(step, 0..20)
}

/// Two sessions and the line between them.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    lossy: bool,
    chance: u32,
}

impl Pair {
    fn new(now: Instant, seed: u32) -> Self {
        let ends = [1, 2].map(|number| Session::new(config(50, 50, 3), name(number)));
        Self { ends, now, lossy: false, chance: seed }
    }

    /// Lets time pass; checks the pace of what is sent.
    fn run(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let end = self.now + time;
        let mut sent = 0_u32;
        loop {
            for index in 0..2 {
                self.ends[index].tick(self.now);
                self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                while let Some(packet) = self.ends[index].transmit(self.now, self.chance >> 8) {
                    sent += 1;
                    let packet = Packet::parse(&packet.encode()).expect("what is sent can be read");
                    if !self.lossy {
                        self.ends[1 - index].receive(&packet, self.now);
                    }
                }
            }
            let next = self.ends.iter().filter_map(|end| end.deadline(self.now)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next;
        }
        self.now = end;
        let most = 2 * (time.as_millis() / 7) + 64;
        prop_assert!(u128::from(sent) <= most, "{sent} packets in {time:?}");
        Ok(())
    }
}

#[test]
fn the_c_bit_that_counts_is_that_of_the_last_packet_of_an_end_that_was_up() {
    let now = Instant::now();
    let with = |state, control_plane_independent| Packet { control_plane_independent, ..said(state) };
    let mut session = settled(now);
    assert_eq!(session.remote_fate(), Fate::Shared, "nothing else was said");
    session.receive(&with(State::Up, true), now);
    assert_eq!(session.remote_fate(), Fate::Independent);
    // Another run of the other end says so of itself, not of the one whose session ends.
    let change = session.receive(&with(State::Down, false), now);
    assert_eq!(change, Some(Change::Down(Diagnostic::NEIGHBOUR_SIGNALED_DOWN)));
    assert_eq!(session.remote_fate(), Fate::Independent);
    let mut session = settled(now);
    session.receive(&with(State::Up, true), now);
    assert!(session.tick(now + SLOW).is_some());
    assert_eq!(session.remote_fate(), Fate::Independent, "silence does not change it");
}

proptest! {
    #[test]
    fn two_ends_on_a_good_line_come_up_and_notice_a_bad_one(steps in steps(), seed in any::<u32>()) {
        let mut pair = Pair::new(Instant::now(), seed);
        for step in steps {
            match step {
                Step::Wait(ms) => pair.run(MS * u32::from(ms))?,
                Step::Lose(lossy) => pair.lossy = lossy,
                Step::Configure(tx, rx) => pair.ends[0].configure(config(tx.into(), rx.into(), 3)),
                Step::Bounce => {
                    pair.ends[1].disable();
                    pair.ends[1].enable();
                }
            }
        }
        pair.lossy = false;
        pair.run(SLOW * 8)?;
        for end in &pair.ends {
            prop_assert_eq!(end.state(), State::Up);
            prop_assert_eq!(end.poll, Poll::Idle);
        }
        let [a, b] = &pair.ends;
        prop_assert_eq!((a.remote().0, b.remote().0), (2, 1));
        let patience = a.detection_time().max(b.detection_time()).expect("heard");
        pair.lossy = true;
        pair.run(patience)?;
        for end in &pair.ends {
            prop_assert_eq!(end.state(), State::Down);
            prop_assert_eq!(end.diagnostic(), Diagnostic::DETECTION_TIME_EXPIRED);
        }
    }

    #[test]
    fn no_packet_makes_a_session_spin(packets in proptest::collection::vec(packets(), 0..30)) {
        let now = Instant::now();
        let mut session = Session::new(config(50, 50, 3), name(1));
        for packet in packets {
            session.receive(&packet, now);
            session.tick(now);
            for _ in 0..2 {
                session.transmit(now, 0);
            }
            prop_assert_eq!(session.transmit(now, 0), None);
            prop_assert!(session.deadline(now).is_none_or(|at| at > now));
        }
    }
}
