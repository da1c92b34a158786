// SPDX-License-Identifier: Apache-2.0

use std::hash::{BuildHasherDefault, DefaultHasher};

use proptest::prelude::*;

use super::*;

const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const STEP: Duration = Duration::from_millis(100);

/// One other node, and a clock.
struct Story {
    prober: Prober<BuildHasherDefault<DefaultHasher>>,
    now: Instant,
    last: Option<Ask>,
}

impl Story {
    fn new() -> Self {
        let mut story = Self {
            prober: Prober::new(Settings::default(), Default::default()),
            now: Instant::now(),
            last: None,
        };
        story.prober.watch(&targets("b"), story.now);
        story
    }

    /// Goes on until the next question.
    fn ask(&mut self) -> Ask {
        self.now = self.now.max(self.prober.next().expect("somebody is asked"));
        let asks = self.prober.step(self.now);
        let [ask] = &asks[..] else { panic!("{asks:?}") };
        self.last = Some(ask.clone());
        ask.clone()
    }

    fn number(&self) -> u64 {
        self.last.as_ref().expect("asked").question.number
    }

    fn answer(&mut self) -> bool {
        let question = self.last.clone().expect("asked").question;
        self.prober.answered(&Datagram { kind: Kind::Answer, ..question })
    }

    fn state(&self) -> State {
        self.prober.rows().next().expect("one address").state
    }
}

fn targets(node: &str) -> BTreeMap<IpAddr, NodeName> {
    [(ADDR, node.parse().expect("valid"))].into()
}

#[test]
fn who_never_answered_is_never_silent() {
    let mut story = Story::new();
    for _ in 0..10 {
        assert!(!story.ask().echo);
        assert_eq!(story.state(), State::Unheard);
        // An agent of a version without probes: its kernel refuses.
        assert!(story.prober.signed(Sign::Refused { addr: ADDR }));
    }
    assert_eq!((story.state(), story.prober.wants_echoes()), (State::Unheard, false));
}

#[test]
fn three_questions_without_a_sign_of_life_are_silence_and_one_answer_ends_it() {
    let mut story = Story::new();
    story.ask();
    assert!(story.answer());
    let echoes: Vec<bool> = (0..3).map(|_| story.ask().echo).collect();
    assert_eq!((echoes, story.state()), (vec![false, true, true], State::Answering));
    assert!(story.ask().echo && story.prober.wants_echoes());
    assert_eq!((story.state(), story.prober.silent()), (State::Silent, [ADDR].into()));
    story.ask();
    assert!(story.answer());
    assert_eq!((story.state(), story.prober.silent()), (State::Answering, [].into()));
    assert!(!story.prober.wants_echoes() && !story.ask().echo);
}

#[test]
fn an_agent_that_is_away_takes_nothing_down_and_a_path_that_dies_then_is_found() {
    let mut story = Story::new();
    story.ask();
    story.answer();
    story.ask();
    for round in 0..20 {
        assert!(story.ask().echo, "{round}");
        let sign =
            if round % 2 == 0 { Sign::Echo { number: story.number() } } else { Sign::Refused { addr: ADDR } };
        assert!(story.prober.signed(sign));
        assert_eq!(story.state(), State::Away);
    }
    for _ in 0..4 {
        story.ask();
    }
    assert_eq!(story.state(), State::Silent);
    assert!(story.prober.signed(Sign::Echo { number: story.number() }));
    assert_eq!(story.state(), State::Away);
}

#[test]
fn an_answer_counts_once_asked_for_and_from_whom_was_asked() {
    let mut story = Story::new();
    let question = story.ask().question;
    let answer = Datagram { kind: Kind::Answer, ..question.clone() };
    assert!(!story.prober.answered(&question), "a question is no answer");
    assert!(!story.prober.answered(&Datagram { number: question.number ^ 1, ..answer.clone() }));
    assert!(!story.prober.answered(&Datagram { node: "c".parse().expect("valid"), ..answer.clone() }));
    assert!(!story.prober.signed(Sign::Echo { number: question.number ^ 1 }));
    assert!(!story.prober.signed(Sign::Refused { addr: [192, 0, 2, 9].into() }));
    assert_eq!(story.state(), State::Unheard);
    for _ in 0..OPEN - 1 {
        story.ask();
    }
    assert!(story.prober.answered(&answer), "late, and still good");
    story.ask();
    assert!(!story.prober.answered(&answer), "too late");
    assert_eq!(story.prober.open.len(), OPEN);
}

#[test]
fn another_node_at_the_address_is_somebody_new() {
    let mut story = Story::new();
    story.ask();
    story.answer();
    let now = story.now;
    story.prober.watch(&targets("b"), now);
    assert_eq!(story.state(), State::Answering);
    story.prober.watch(&targets("c"), now);
    assert_eq!(story.state(), State::Unheard);
    assert!(!story.answer(), "the other one's");
    story.prober.watch(&BTreeMap::new(), now);
    assert_eq!((story.prober.next(), story.prober.open.len()), (None, 0));
}

#[test]
fn a_pause_of_this_process_is_one_miss_at_most() {
    let mut story = Story::new();
    story.ask();
    story.answer();
    story.ask();
    story.now += Duration::from_secs(3600);
    story.ask();
    assert_eq!(story.prober.rows().next().expect("one").misses, 1);
    assert!(story.answer());
}

#[test]
fn many_addresses_are_asked_less_often() {
    let addrs = (0..2000u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let all: BTreeMap<IpAddr, NodeName> = addrs.map(|addr| (addr, "b".parse().expect("valid"))).collect();
    let (mut prober, mut now) = (Story::new().prober, Instant::now());
    prober.watch(&all, now);
    let end = now + Duration::from_secs(20);
    let (mut asked, mut worst) = (0, 0);
    while now < end {
        let asks = prober.step(now).len();
        (asked, worst) = (asked + asks, worst.max(asks));
        now += STEP;
    }
    assert!((9_000..=11_500).contains(&asked), "{asked} in 20 s");
    assert!(worst < 250, "{worst} at once");
}

proptest! {
    #[test]
    fn silence_is_what_follows_an_answer_and_no_sign_of_life(
        signs in prop::collection::vec(prop::option::weighted(0.4, 0u8..3), 1..60),
    ) {
        let mut story = Story::new();
        let (mut trusted, mut misses, mut begun) = (false, 0, false);
        let mut heard = true;
        for sign in signs {
            story.ask();
            if begun && !heard {
                misses += 1;
            }
            (begun, heard) = (true, sign.is_some());
            let number = story.number();
            let taken = match sign {
                Some(0) => story.answer(),
                Some(1) => story.prober.signed(Sign::Echo { number }),
                Some(_) => story.prober.signed(Sign::Refused { addr: ADDR }),
                None => true,
            };
            prop_assert!(taken);
            trusted |= sign == Some(0);
            if heard {
                misses = 0;
            }
            prop_assert_eq!(story.state() == State::Silent, trusted && misses >= 3);
            prop_assert_eq!(story.state() == State::Unheard, !trusted);
        }
    }

    #[test]
    fn questions_come_once_an_interval_give_or_take_a_tenth(count in 2usize..50) {
        let mut story = Story::new();
        story.ask();
        let mut before = story.now;
        for _ in 0..count {
            story.ask();
            let pause = story.now - before;
            prop_assert!((900..=1100).contains(&pause.as_millis()), "{:?}", pause);
            before = story.now;
        }
    }
}
