// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::super::way::Gateway;
use super::*;

const HOLD: HoldDown = HoldDown(Duration::from_secs(5));

fn node() -> NodeName {
    "b".parse().expect("valid")
}

fn neighbour(liveness: Liveness) -> Candidate {
    let gateway = Gateway { addr: [192, 0, 2, 2].into(), ifname: "eth0".parse().expect("valid") };
    Candidate { way: Way::Neighbour(gateway), liveness }
}

fn fabric(liveness: Liveness) -> Candidate {
    let route = "10.1.0.0/16".parse().expect("valid");
    Candidate { way: Way::Fabric { route, gateway: None }, liveness }
}

fn tunnel(liveness: Liveness) -> Candidate {
    Candidate { way: Way::Tunnel { endpoint: [192, 0, 2, 2].into() }, liveness }
}

fn both(direct: Liveness) -> Candidates {
    Candidates { direct: Some(fabric(direct)), tunnel: Some(tunnel(Liveness::Alive)) }
}

fn no_direct() -> Candidates {
    Candidates { direct: None, tunnel: Some(tunnel(Liveness::Alive)) }
}

/// Chooses again and again, each time after a while.
struct Story {
    now: Instant,
    past: Option<Choice>,
}

impl Story {
    fn new() -> Self {
        Self { now: Instant::now(), past: None }
    }

    fn after(&mut self, seconds: u64, mode: Mode, candidates: Candidates) -> (&'static str, Why) {
        self.now += Duration::from_secs(seconds);
        let choice = choose(&node(), mode, candidates, self.past.as_ref(), HOLD, self.now);
        let seen = (choice.way.as_ref().map_or("none", Way::word), choice.why);
        self.past = Some(choice);
        seen
    }

    fn auto(&mut self, seconds: u64, candidates: Candidates) -> (&'static str, Why) {
        self.after(seconds, Mode::Auto, candidates)
    }

    fn returns_after(&self) -> Option<Duration> {
        self.past.as_ref()?.returns_at(HOLD).map(|at| at - self.now)
    }

    fn lose_and_find(&mut self) -> Duration {
        self.auto(0, no_direct());
        self.auto(0, both(Liveness::Alive));
        let hold = self.returns_after().expect("held down");
        self.auto(hold.as_secs(), both(Liveness::Alive));
        hold
    }
}

#[test]
fn at_first_the_direct_way_is_taken_at_once_unless_it_is_dead() {
    for liveness in [Liveness::Alive, Liveness::Unknown] {
        assert_eq!(Story::new().auto(0, both(liveness)), ("fabric", Why::FabricRoute));
    }
    assert_eq!(Story::new().auto(0, both(Liveness::Dead)), ("tunnel", Why::NoAnswer));
    assert_eq!(Story::new().auto(0, no_direct()), ("tunnel", Why::NoDirectWay));
}

#[test]
fn a_lost_direct_way_is_left_at_once_and_taken_again_after_the_hold_down() {
    let mut story = Story::new();
    story.auto(0, both(Liveness::Alive));
    assert_eq!(story.auto(1, no_direct()), ("tunnel", Why::DirectGone));
    assert_eq!(story.auto(1, both(Liveness::Alive)), ("tunnel", Why::HoldDown));
    assert_eq!(story.returns_after(), Some(HOLD.0));
    assert_eq!(story.auto(4, both(Liveness::Alive)), ("tunnel", Why::HoldDown));
    assert_eq!(story.auto(1, both(Liveness::Alive)), ("fabric", Why::HoldDownOver));
    assert_eq!(story.returns_after(), None);
}

#[test]
fn a_way_that_goes_during_its_hold_down_begins_anew() {
    let mut story = Story::new();
    story.auto(0, both(Liveness::Alive));
    story.auto(1, no_direct());
    story.auto(1, both(Liveness::Alive));
    assert_eq!(story.auto(4, no_direct()), ("tunnel", Why::DirectGone));
    story.auto(1, both(Liveness::Alive));
    assert_eq!(story.returns_after(), Some(HOLD.0));
}

#[test]
fn a_neighbour_that_was_lost_has_to_answer_before_it_is_trusted() {
    let mut story = Story::new();
    story.auto(0, both(Liveness::Unknown));
    assert_eq!(story.auto(1, both(Liveness::Dead)), ("tunnel", Why::NoAnswer));
    assert_eq!(story.auto(60, both(Liveness::Unknown)), ("tunnel", Why::NoAnswer));
    assert_eq!(story.returns_after(), None);
    assert_eq!(story.auto(0, both(Liveness::Alive)), ("tunnel", Why::HoldDown));
}

#[test]
fn a_node_that_falls_silent_is_left_and_its_answer_is_the_reason_to_return() {
    let mut story = Story::new();
    story.auto(0, both(Liveness::Alive));
    assert_eq!(story.auto(1, both(Liveness::Silent)), ("tunnel", Why::ProbeLost));
    assert_eq!(story.auto(60, both(Liveness::Silent)), ("tunnel", Why::ProbeLost));
    assert_eq!(story.auto(1, both(Liveness::Alive)), ("tunnel", Why::HoldDown));
    assert_eq!(story.auto(5, both(Liveness::Alive)), ("fabric", Why::ProbeAnswered));
    assert_eq!(story.auto(1, both(Liveness::Alive)), ("fabric", Why::ProbeAnswered));
    // The last of several reasons is the one to return by.
    story.auto(60, both(Liveness::Silent));
    assert_eq!(story.auto(1, no_direct()), ("tunnel", Why::DirectGone));
    story.auto(1, both(Liveness::Alive));
    assert_eq!(story.auto(5, both(Liveness::Alive)), ("fabric", Why::HoldDownOver));
    let silent = Candidates { tunnel: Some(tunnel(Liveness::Silent)), ..both(Liveness::Silent) };
    assert_eq!(story.auto(1, silent), ("fabric", Why::NothingBetter));
}

#[test]
fn the_hold_down_doubles_up_to_its_bound_and_is_forgiven_after_a_calm_time() {
    let mut story = Story::new();
    story.auto(0, both(Liveness::Alive));
    let holds: Vec<u64> = (0..6).map(|_| story.lose_and_find().as_secs()).collect();
    assert_eq!(holds, [5, 10, 20, 40, 40, 40]);
    story.auto(HOLD.longest().as_secs(), both(Liveness::Alive));
    assert_eq!(story.lose_and_find(), HOLD.0);
}

#[test]
fn a_dead_tunnel_is_no_reason_to_wait() {
    let mut story = Story::new();
    let dead_tunnel = Candidates { tunnel: Some(tunnel(Liveness::Dead)), ..both(Liveness::Alive) };
    story.auto(0, both(Liveness::Alive));
    story.auto(1, no_direct());
    assert_eq!(story.auto(1, dead_tunnel), ("fabric", Why::HoldDownOver));
}

#[test]
fn when_everything_is_dead_nothing_moves() {
    let all_dead =
        Candidates { direct: Some(neighbour(Liveness::Dead)), tunnel: Some(tunnel(Liveness::Dead)) };
    assert_eq!(Story::new().auto(0, all_dead.clone()), ("direct", Why::NothingBetter));
    let mut story = Story::new();
    story.auto(0, no_direct());
    assert_eq!(story.auto(1, all_dead), ("tunnel", Why::NoAnswer));
}

#[test]
fn a_policy_that_ends_is_no_loss() {
    let mut story = Story::new();
    assert_eq!(story.after(0, Mode::Tunnel, both(Liveness::Alive)), ("tunnel", Why::Policy));
    assert_eq!(story.auto(1, both(Liveness::Alive)), ("fabric", Why::FabricRoute));
    assert_eq!(story.after(1, Mode::Tunnel, both(Liveness::Alive)), ("tunnel", Why::Policy));
    assert_eq!(story.after(1, Mode::Direct, both(Liveness::Dead)), ("fabric", Why::Policy));
}

#[test]
fn direct_ways_change_among_themselves_at_once() {
    let mut story = Story::new();
    let next_to = Candidates { direct: Some(neighbour(Liveness::Alive)), ..no_direct() };
    story.auto(0, both(Liveness::Alive));
    assert_eq!(story.auto(1, next_to), ("direct", Why::Neighbour));
}

/// Every combination of what is there.
fn every_candidates() -> Vec<Candidates> {
    let liveness = [Liveness::Dead, Liveness::Silent, Liveness::Unknown, Liveness::Alive];
    let direct = || std::iter::once(None).chain(liveness.into_iter().map(|alive| Some(fabric(alive))));
    let tunnels = || std::iter::once(None).chain(liveness.into_iter().map(|alive| Some(tunnel(alive))));
    direct()
        .flat_map(|direct| tunnels().map(move |tunnel| Candidates { direct: direct.clone(), tunnel }))
        .collect()
}

#[test]
fn from_every_choice_to_every_other_there_is_a_way_exactly_when_one_is_allowed() {
    let modes = [Mode::Auto, Mode::Direct, Mode::Tunnel];
    let now = Instant::now();
    for (before, then) in modes.iter().flat_map(|one| modes.map(|other| (*one, other))) {
        for (first, second) in every_candidates()
            .iter()
            .flat_map(|a| every_candidates().into_iter().map(move |b| (a.clone(), b)))
        {
            let past = choose(&node(), before, first, None, HOLD, now);
            let later = now + Duration::from_secs(1);
            let choice = choose(&node(), then, second.clone(), Some(&past), HOLD, later);
            let allowed = [
                second.direct.filter(|_| then != Mode::Tunnel),
                second.tunnel.filter(|_| then != Mode::Direct),
            ];
            let ways: Vec<Way> = allowed.into_iter().flatten().map(|candidate| candidate.way).collect();
            assert_eq!(choice.way.is_some(), !ways.is_empty(), "{past:?} {then:?} {choice:?}");
            assert!(choice.way.iter().all(|way| ways.contains(way)), "{past:?} {then:?} {choice:?}");
            assert_eq!(choice.why == Why::NoWay, ways.is_empty());
        }
    }
}

fn any_candidates() -> impl Strategy<Value = Candidates> {
    prop::sample::select(every_candidates())
}

proptest! {
    #[test]
    fn asked_twice_at_one_moment_the_answer_is_the_same(steps in prop::collection::vec((0u64..12, any_candidates()), 1..30)) {
        let mut story = Story::new();
        for (seconds, candidates) in steps {
            story.auto(seconds, candidates.clone());
            let once = story.past.clone();
            story.auto(0, candidates);
            prop_assert_eq!(&story.past, &once);
        }
    }

    #[test]
    fn after_a_loss_nobody_returns_before_the_hold_down(steps in prop::collection::vec((0u64..12, any::<bool>()), 1..60)) {
        let mut story = Story::new();
        let mut there_since = None;
        story.auto(0, both(Liveness::Alive));
        for (seconds, there) in steps {
            let tunnelled = story.past.as_ref().is_some_and(Choice::is_tunnel);
            let (word, _) = story.auto(seconds, if there { both(Liveness::Alive) } else { no_direct() });
            prop_assert!(there || word == "tunnel");
            there_since = there.then(|| there_since.unwrap_or(story.now));
            if tunnelled && word == "fabric" {
                prop_assert!(story.now - there_since.expect("it is there") >= HOLD.0);
            }
            if word == "tunnel" {
                let waits = story.returns_after();
                prop_assert_eq!(waits.is_some(), there);
                prop_assert!(waits.is_none_or(|waits| waits <= HOLD.longest() && !waits.is_zero()));
            }
        }
    }

    #[test]
    fn a_direct_way_that_stays_is_taken_within_the_longest_hold_down(steps in prop::collection::vec((0u64..12, any_candidates()), 0..30)) {
        let mut story = Story::new();
        for (seconds, candidates) in steps {
            story.auto(seconds, candidates);
        }
        story.auto(1, both(Liveness::Alive));
        let (word, _) = story.auto(HOLD.longest().as_secs(), both(Liveness::Alive));
        prop_assert_eq!(word, "fabric");
    }
}
