// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::wire::{Asn, RouterId};

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        connect_retry: 120 * SECOND,
        keepalive: None,
        delay_open: None,
        passive: false,
        idle_hold: Some(60 * SECOND),
        seed: 1,
    }
}

fn shut() -> Notification {
    Notification::cease(Cease::AdministrativeShutdown)
}

fn bad() -> Notification {
    Notification { code: 2, subcode: 2, data: Vec::new() }
}

/// Every event, by the name of its row.
fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("1 ManualStart", Event::ManualStart),
        ("2 ManualStop", Event::ManualStop(shut())),
        ("3 AutomaticStart", Event::AutomaticStart),
        ("8 AutomaticStop", Event::AutomaticStop(shut(), SECOND)),
        ("9 ConnectRetryTimer", Event::ConnectRetryTimerExpires),
        ("10 HoldTimer", Event::HoldTimerExpires),
        ("11 KeepaliveTimer", Event::KeepaliveTimerExpires),
        ("12 DelayOpenTimer", Event::DelayOpenTimerExpires),
        ("13 IdleHoldTimer", Event::IdleHoldTimerExpires),
        ("14 TcpValid", Event::TcpConnectionValid),
        ("15 TcpInvalid", Event::TcpConnectionInvalid),
        ("16 TcpAcked", Event::TcpConnectionAcked),
        ("17 TcpConfirmed", Event::TcpConnectionConfirmed),
        ("18 TcpFails", Event::TcpConnectionFails),
        ("19 Open", Event::Open { hold_time: 9 * SECOND }),
        ("21 HeaderErr", Event::HeaderError(bad())),
        ("22 OpenErr", Event::OpenError(bad())),
        ("23 CollisionDump", Event::OpenCollisionDump),
        ("24 NotifVersionErr", Event::NotificationVersionError(bad())),
        ("25 Notif", Event::Notification(bad())),
        ("26 Keepalive", Event::Keepalive),
        ("27 Update", Event::Update),
        ("28 UpdateErr", Event::UpdateError(bad())),
        ("- RouteRefresh", Event::RouteRefresh),
    ]
}

fn machine_in(state: State, now: Instant) -> Machine {
    let mut machine = Machine::new(settings());
    let path: &[Event] = match state {
        State::Idle => &[],
        State::Connect => &[Event::ManualStart],
        State::Active => &[Event::ManualStart, Event::TcpConnectionFails],
        State::OpenSent => &[Event::ManualStart, Event::TcpConnectionAcked],
        State::OpenConfirm => &[
            Event::ManualStart,
            Event::TcpConnectionAcked,
            Event::Open { hold_time: Duration::from_secs(9) },
        ],
        State::Established => &[
            Event::ManualStart,
            Event::TcpConnectionAcked,
            Event::Open { hold_time: Duration::from_secs(9) },
            Event::Keepalive,
        ],
    };
    for event in path {
        machine.step(event.clone(), now);
    }
    assert_eq!(machine.state(), state);
    machine
}

/// Next state and actions: C connect, O open, K keepalive, N notification, D drop, U up, X down.
fn cell(machine: &Machine, event: Event, now: Instant) -> String {
    let before = machine.state();
    let mut machine = machine.clone();
    let mut actions = String::new();
    for action in machine.step(event, now) {
        actions.push_str(&match action {
            Action::Connect => "C".to_owned(),
            Action::SendOpen => "O".to_owned(),
            Action::SendKeepalive => "K".to_owned(),
            Action::SendNotification(text) => format!("N{}/{}", text.code, text.subcode),
            Action::Drop => "D".to_owned(),
            Action::Up => "U".to_owned(),
            Action::Down(_) => "X".to_owned(),
        });
    }
    consistent(&machine);
    let next = if machine.state() == before { "=" } else { machine.state().name() };
    if actions.is_empty() { next.to_owned() } else { format!("{next} {actions}") }
}

/// Which timers may run in which state.
fn consistent(machine: &Machine) {
    let timers = machine.timers();
    let state = machine.state();
    match state {
        State::Idle => assert!(!machine.is_connected()),
        State::Connect | State::Active => assert!(timers.hold.is_none() && timers.idle_hold.is_none()),
        State::OpenSent | State::OpenConfirm | State::Established => {
            assert!(machine.is_connected(), "{state:?}")
        }
    }
    assert!(timers.idle_hold.is_none() || state == State::Idle, "{state:?}");
    if matches!(state, State::OpenConfirm | State::Established) {
        assert_eq!(timers.hold.is_some(), timers.keepalive.is_some(), "{state:?}");
    } else {
        assert!(timers.keepalive.is_none(), "{state:?}");
    }
    if state == State::OpenSent {
        assert!(timers.hold.is_some());
    }
    if timers.delay_open.is_some() {
        assert!(machine.is_connected() && matches!(state, State::Connect | State::Active));
    }
    if timers.connect_retry.is_some() {
        assert!(matches!(state, State::Connect | State::Active) && !machine.is_connected());
    }
}

/// One row an event, one column a state in the order of `State::ALL`; "=" stays.
const TABLE: &[(&str, [&str; 6])] = &[
    ("1 ManualStart", ["Connect C", "=", "=", "=", "=", "="]),
    ("2 ManualStop", ["=", "Idle D", "Idle", "Idle N6/2D", "Idle N6/2D", "Idle N6/2XD"]),
    ("3 AutomaticStart", ["Connect C", "=", "=", "=", "=", "="]),
    ("8 AutomaticStop", ["=", "Idle D", "Idle", "Idle N6/2D", "Idle N6/2D", "Idle XN6/2D"]),
    ("9 ConnectRetryTimer", ["=", "= DC", "Connect C", "Idle N5/0D", "Idle N5/0D", "Idle XN5/0D"]),
    ("10 HoldTimer", ["=", "Idle D", "Idle", "Idle N4/0D", "Idle N4/0D", "Idle XN4/0D"]),
    ("11 KeepaliveTimer", ["=", "Idle D", "Idle", "Idle N5/0D", "= K", "= K"]),
    ("12 DelayOpenTimer", ["=", "Idle D", "Idle", "Idle N5/0D", "Idle N5/0D", "Idle XN5/0D"]),
    ("13 IdleHoldTimer", ["Connect C", "Idle D", "Idle", "Idle N5/0D", "Idle N5/0D", "Idle XN5/0D"]),
    ("14 TcpValid", ["=", "=", "=", "=", "=", "="]),
    ("15 TcpInvalid", ["=", "=", "=", "=", "=", "="]),
    ("16 TcpAcked", ["=", "OpenSent O", "OpenSent O", "=", "=", "="]),
    ("17 TcpConfirmed", ["=", "OpenSent O", "OpenSent O", "=", "=", "="]),
    ("18 TcpFails", ["=", "Active D", "=", "Active D", "Idle D", "Idle XD"]),
    ("19 Open", ["=", "Idle D", "Idle", "OpenConfirm K", "Idle N5/2D", "Idle XN5/3D"]),
    ("21 HeaderErr", ["=", "Idle D", "Idle", "Idle N2/2D", "Idle N2/2D", "Idle XN2/2D"]),
    ("22 OpenErr", ["=", "Idle D", "Idle", "Idle N2/2D", "Idle N2/2D", "Idle XN5/3D"]),
    ("23 CollisionDump", ["=", "Idle D", "Idle", "Idle N6/7D", "Idle N6/7D", "Idle XN6/7D"]),
    ("24 NotifVersionErr", ["=", "Idle D", "Idle", "Idle D", "Idle D", "Idle XD"]),
    ("25 Notif", ["=", "Idle D", "Idle", "Idle D", "Idle D", "Idle XD"]),
    ("26 Keepalive", ["=", "Idle D", "Idle", "Idle N5/1D", "Established U", "="]),
    ("27 Update", ["=", "Idle D", "Idle", "Idle N5/1D", "Idle N5/2D", "="]),
    ("28 UpdateErr", ["=", "Idle D", "Idle", "Idle N5/1D", "Idle N5/2D", "Idle XN2/2D"]),
    ("- RouteRefresh", ["=", "Idle D", "Idle", "Idle N5/1D", "Idle N5/2D", "="]),
];

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let now = Instant::now();
    let events = events();
    assert_eq!(events.len(), TABLE.len());
    for ((name, event), (row, cells)) in events.into_iter().zip(TABLE) {
        assert_eq!(name, *row);
        for (state, expected) in State::ALL.into_iter().zip(cells) {
            assert_eq!(cell(&machine_in(state, now), event.clone(), now), *expected, "{name} in {state:?}");
        }
    }
}

#[test]
fn a_delayed_open_is_sent_when_its_time_has_come_or_the_peer_was_first() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings { delay_open: Some(5 * SECOND), ..settings() });
    machine.step(Event::ManualStart, now);
    assert_eq!(machine.step(Event::TcpConnectionAcked, now), []);
    assert_eq!((machine.state(), machine.timers().connect_retry), (State::Connect, None));
    let mut hurried = machine.clone();
    let actions = hurried.step(Event::Open { hold_time: 90 * SECOND }, now);
    assert_eq!(
        (actions, hurried.state()),
        (vec![Action::SendOpen, Action::SendKeepalive], State::OpenConfirm)
    );
    let later = now + 5 * SECOND;
    let event = machine.expire(later).unwrap();
    assert_eq!(event, Event::DelayOpenTimerExpires);
    assert_eq!((machine.step(event, later), machine.state()), (vec![Action::SendOpen], State::OpenSent));
}

#[test]
fn a_passive_peer_never_connects() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings { passive: true, ..settings() });
    assert_eq!(machine.step(Event::ManualStart, now), []);
    assert_eq!((machine.state(), machine.timers().next()), (State::Active, None));
    assert_eq!(machine.step(Event::TcpConnectionConfirmed, now), [Action::SendOpen]);
}

#[test]
fn a_hold_time_of_zero_runs_no_timer() {
    let now = Instant::now();
    let mut machine = machine_in(State::OpenSent, now);
    assert_eq!(machine.step(Event::Open { hold_time: Duration::ZERO }, now), [Action::SendKeepalive]);
    machine.step(Event::Keepalive, now);
    assert_eq!((machine.state(), machine.timers().next()), (State::Established, None));
}

#[test]
fn keepalives_come_three_times_in_a_hold_time_or_as_often_as_wished() {
    let now = Instant::now();
    for (keepalive, longest) in [(None, 3), (Some(SECOND), 1), (Some(60 * SECOND), 3)] {
        let mut machine = Machine::new(Settings { keepalive, ..settings() });
        for event in [
            Event::ManualStart,
            Event::TcpConnectionAcked,
            Event::Open { hold_time: 9 * SECOND },
            Event::Keepalive,
        ] {
            machine.step(event, now);
        }
        let longest = longest * SECOND;
        let wait = machine.timers().keepalive.unwrap() - now;
        assert!(wait <= longest && wait >= longest * 3 / 4, "{wait:?} for {keepalive:?}");
    }
}

#[test]
fn the_first_failure_waits_for_nothing_and_the_next_ever_longer() {
    let mut now = Instant::now();
    let mut machine = Machine::new(settings());
    machine.step(Event::ManualStart, now);
    let mut waits = Vec::new();
    for _ in 0..9 {
        machine.step(Event::TcpConnectionAcked, now);
        machine.step(Event::OpenError(bad()), now);
        let until = machine.timers().idle_hold.unwrap();
        waits.push((until - now).as_secs_f32().ceil());
        now = until;
        let event = machine.expire(now).unwrap();
        assert_eq!(machine.step(event, now), [Action::Connect]);
    }
    assert_eq!(waits[0], 0.0);
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1] || pair[0] > 40.0), "{waits:?}");
    assert!(waits[8] > 40.0 && waits[8] <= 60.0, "{waits:?}");
}

#[test]
fn whoever_is_told_of_a_collision_waits_for_the_other_connection() {
    let now = Instant::now();
    for state in [State::OpenSent, State::OpenConfirm] {
        let mut machine = machine_in(state, now);
        let told = Event::Notification(Notification::cease(Cease::ConnectionCollision));
        assert_eq!((machine.step(told, now), machine.state()), (vec![Action::Drop], State::Active));
        assert_eq!(machine.step(Event::TcpConnectionConfirmed, now), [Action::SendOpen]);
    }
}

#[test]
fn a_session_that_held_for_long_is_tried_again_at_once() {
    let now = Instant::now();
    let mut machine = machine_in(State::Established, now);
    machine.step(Event::TcpConnectionFails, now);
    for event in [
        Event::IdleHoldTimerExpires,
        Event::TcpConnectionAcked,
        Event::Open { hold_time: 9 * SECOND },
        Event::Keepalive,
    ] {
        machine.step(event, now);
    }
    let later = now + 61 * SECOND;
    assert_eq!(machine.step(Event::TcpConnectionFails, later)[0], Action::Down(Cause::ConnectionFailed));
    assert_eq!(machine.timers().idle_hold, Some(later));
}

#[test]
fn a_stop_that_starts_again_waits_at_least_as_long_as_it_says() {
    let now = Instant::now();
    let mut machine = machine_in(State::Established, now);
    machine.step(Event::AutomaticStop(shut(), 300 * SECOND), now);
    assert_eq!(machine.timers().idle_hold, Some(now + 300 * SECOND));
}

const LOW: Identity = Identity { router_id: RouterId(1), asn: Asn(65001) };
const HIGH: Identity = Identity { router_id: RouterId(2), asn: Asn(65002) };

/// Both sides have connected, and both connections wait for an OPEN.
fn collision(now: Instant) -> Pair {
    let mut pair = Pair::new(settings());
    pair.administer(Event::ManualStart, now);
    pair.step(Lane::Ours, Event::TcpConnectionAcked, now);
    let (taken, actions) = pair.incoming(Replaces::Nothing, now);
    assert_eq!((taken, actions), (Incoming::Taken, vec![(Lane::Theirs, Action::SendOpen)]));
    pair
}

#[test]
fn of_two_connections_the_one_of_the_higher_identifier_is_kept() {
    let now = Instant::now();
    let equal = Identity { router_id: RouterId(2), asn: Asn(65001) };
    for (ours, theirs, kept) in [
        (LOW, HIGH, Lane::Theirs),
        (HIGH, LOW, Lane::Ours),
        (equal, HIGH, Lane::Theirs),
        (HIGH, equal, Lane::Ours),
    ] {
        for order in [[Lane::Ours, Lane::Theirs], [Lane::Theirs, Lane::Ours]] {
            let mut pair = collision(now);
            let mut closed = Vec::new();
            for lane in order {
                let actions = pair.open(lane, 9 * SECOND, ours, theirs, now);
                closed
                    .extend(actions.into_iter().filter(|(_, action)| *action == Action::Drop).map(|it| it.0));
            }
            let other = if kept == Lane::Ours { Lane::Theirs } else { Lane::Ours };
            assert_eq!(closed, [other], "{ours:?} {theirs:?} {order:?}");
            assert_eq!(pair.machine(kept).map(Machine::state), Some(State::OpenConfirm));
            assert!(pair.machine(other).is_none_or(|machine| !machine.is_connected()));
            assert_eq!(pair.step(kept, Event::Keepalive, now), [(kept, Action::Up)]);
        }
    }
}

#[test]
fn a_connection_of_the_peer_ends_the_own_attempt() {
    let now = Instant::now();
    let mut pair = Pair::new(settings());
    pair.administer(Event::ManualStart, now);
    let (_, actions) = pair.incoming(Replaces::Nothing, now);
    assert_eq!(actions, [(Lane::Ours, Action::Drop), (Lane::Theirs, Action::SendOpen)]);
}

#[test]
fn an_idle_peer_takes_no_connection() {
    let mut pair = Pair::new(settings());
    assert_eq!(pair.incoming(Replaces::Nothing, Instant::now()), (Incoming::Refused, vec![]));
}

#[test]
fn a_new_connection_replaces_an_established_session_only_with_graceful_restart() {
    let now = Instant::now();
    let mut pair = Pair::new(settings());
    pair.administer(Event::ManualStart, now);
    pair.step(Lane::Ours, Event::TcpConnectionAcked, now);
    pair.open(Lane::Ours, 9 * SECOND, LOW, HIGH, now);
    pair.step(Lane::Ours, Event::Keepalive, now);
    assert_eq!(pair.incoming(Replaces::Nothing, now), (Incoming::Refused, vec![]));
    assert_eq!(pair.incoming(Replaces::Session, now), (Incoming::Refused, vec![]), "made beside it");
    let (taken, actions) = pair.incoming(Replaces::Session, now + 2 * SECOND);
    assert_eq!(taken, Incoming::Taken);
    assert!(actions.contains(&(Lane::Ours, Action::Down(Cause::ConnectionFailed))));
    assert_eq!(actions.last(), Some(&(Lane::Theirs, Action::SendOpen)));
    assert_eq!(pair.state(), State::OpenSent);
}

/// What a proptest does to a pair.
#[derive(Clone, Debug)]
enum Deed {
    Administer(usize),
    Step(Lane, usize),
    Open(Lane, bool),
    Incoming(Replaces),
    Wait(u64),
}

/// Where OPEN stands among the events.
const OPEN: usize = 14;

fn lanes() -> impl Strategy<Value = Lane> {
    prop_oneof![Just(Lane::Ours), Just(Lane::Theirs)]
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        1 => (0..4usize).prop_map(Deed::Administer),
        // An OPEN goes to `Pair::open`, the others to `Pair::step`.
        4 => (lanes(), (9..24usize).prop_filter("OPEN", |event| *event != OPEN))
            .prop_map(|(lane, event)| Deed::Step(lane, event)),
        3 => (lanes(), any::<bool>()).prop_map(|(lane, low)| Deed::Open(lane, low)),
        3 => prop_oneof![Just(Replaces::Nothing), Just(Replaces::Session)].prop_map(Deed::Incoming),
        2 => (0..300u64).prop_map(Deed::Wait),
    ]
}

proptest! {
    /// Whatever happens: no panic, timers fit the state, one connection at most is beyond OpenSent, and what goes up
    /// comes down before it goes up again.
    #[test]
    fn whatever_happens_a_peer_has_one_session_at_most(
        deeds in proptest::collection::vec(deeds(), 1..60),
        passive: bool,
        delayed: bool,
    ) {
        let mut now = Instant::now();
        let delay_open = delayed.then_some(5 * SECOND);
        let mut pair = Pair::new(Settings { passive, delay_open, ..settings() });
        let mut up = None;
        for deed in deeds {
            let actions = match deed {
                Deed::Administer(event) => pair.administer(events()[event].1.clone(), now),
                Deed::Step(lane, event) => pair.step(lane, events()[event].1.clone(), now),
                Deed::Open(lane, low) => {
                    let (ours, theirs) = if low { (LOW, HIGH) } else { (HIGH, LOW) };
                    pair.open(lane, 9 * SECOND, ours, theirs, now)
                }
                Deed::Incoming(replaces) => pair.incoming(replaces, now).1,
                Deed::Wait(seconds) => {
                    now += SECOND * u32::try_from(seconds).unwrap();
                    pair.tick(now)
                }
            };
            for (lane, action) in actions {
                match action {
                    Action::Up => {
                        prop_assert_eq!(up, None);
                        up = Some(lane);
                    }
                    Action::Down(_) => {
                        prop_assert_eq!(up, Some(lane));
                        up = None;
                    }
                    Action::Connect => prop_assert!(!passive),
                    Action::SendOpen
                    | Action::SendKeepalive
                    | Action::SendNotification(_)
                    | Action::Drop => {}
                }
            }
            let machines: Vec<_> =
                [Lane::Ours, Lane::Theirs].iter().filter_map(|lane| pair.machine(*lane)).collect();
            machines.iter().for_each(|machine| consistent(machine));
            let far = machines.iter().filter(|machine| machine.state() > State::OpenSent).count();
            prop_assert!(far <= 1, "{pair:?}");
            prop_assert_eq!(up.is_some(), pair.state() == State::Established);
        }
    }
}
