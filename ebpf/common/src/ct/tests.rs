// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const UDP: u8 = 17;
const SIGNALS: [Signal; 5] = [Signal::DATA, Signal::OPEN, Signal::OPEN_ACK, Signal::CLOSE, Signal::ABORT];

/// A flow after packets, each from the opener's side or the other, one tick apart.
fn after(protocol: u8, packets: &[(From, Signal)]) -> Ct {
    let mut flow = Ct::first(protocol, Side::Low, packets[0].1, 0);
    for (now, (from, signal)) in packets.iter().enumerate().skip(1) {
        assert!(flow.note(*from, *signal, u32::try_from(now).expect("few")));
    }
    flow
}

const ASK: (From, Signal) = (From::Opener, Signal::OPEN);
const ANSWER: (From, Signal) = (From::Replier, Signal::OPEN_ACK);
const SAY: (From, Signal) = (From::Opener, Signal::DATA);
const REPLY: (From, Signal) = (From::Replier, Signal::DATA);

#[test]
fn a_connection_goes_from_opening_to_closed() {
    let steps = [
        (ASK, OPENING),
        (ANSWER, ANSWERED),
        (SAY, ESTABLISHED),
        (REPLY, ESTABLISHED),
        ((From::Replier, Signal::CLOSE), HALF_CLOSED_BY_REPLIER),
        (SAY, HALF_CLOSED_BY_REPLIER),
        ((From::Opener, Signal::CLOSE), CLOSED),
        (REPLY, CLOSED),
    ];
    for (index, (_, expected)) in steps.iter().enumerate() {
        let packets: Vec<_> = steps[..=index].iter().map(|(packet, _)| *packet).collect();
        assert_eq!(after(TCP, &packets).state, *expected, "{index}");
    }
}

#[test]
fn settled_states_are_those_that_packets_leave_as_they_are() {
    for state in 1..=STREAM {
        let flow = Ct { state, ..Ct::default() };
        let left = |from| step(state, from, Signal::DATA) == Some(state);
        if flow.is_left_by(Signal::DATA) {
            assert!(left(From::Opener) && left(From::Replier), "{}", state::text(state));
        }
        assert!(SIGNALS[1..].iter().all(|signal| !flow.is_left_by(*signal)), "{}", state::text(state));
    }
    for state in [ESTABLISHED, HALF_CLOSED_BY_OPENER, HALF_CLOSED_BY_REPLIER, CLOSED, STREAM] {
        assert!(Ct { state, ..Ct::default() }.is_left_by(Signal::DATA), "{}", state::text(state));
    }
}

#[test]
fn a_flow_of_an_earlier_layout_is_the_same_flow() {
    for flags in [Ct::MASQUERADED, Ct::MASQUERADED | Ct::OPENER_HIGH] {
        let earlier = EarlierCt {
            expires: 900,
            refresh: 500,
            state: ESTABLISHED,
            flags,
            nat_port: [1, 2],
            nat_addr: [7; 4],
            uplink: 3,
            created: 5,
            packets: [10, 20],
            bytes: [100, 200],
            ..EarlierCt::default()
        };
        let flow = earlier.carried();
        let (opener, replier) = (flow.sent(flow.opener()), flow.sent(flow.opener().other()));
        assert_eq!((opener.packets, opener.bytes, replier.packets, replier.bytes), (10, 100, 20, 200));
        assert_eq!((flow.expires, flow.refresh, flow.state, flow.flags), (900, 500, ESTABLISHED, flags));
        assert_eq!((flow.nat_port, flow.nat_addr, flow.uplink, flow.created), ([1, 2], [7; 4], 3, 5));
        assert_eq!((flow.low.next.kind, flow.high.next.kind), (0, 0));
    }
}

#[test]
fn a_next_hop_is_of_one_moment_and_one_epoch() {
    let at = |number, jiffies| crate::layout::Epoch { number, shift: 1 }.at(jiffies);
    assert_eq!(at(7, 100), at(7, 101));
    assert_ne!(at(7, 101), at(7, 102));
    assert_ne!(at(7, 100), at(8, 100));
    // Neither stands in for the other, nor do they add up to the same.
    assert_ne!(at(8, 100), at(7, 102));
}

#[test]
fn a_refused_connection_is_soon_forgotten() {
    let flow = after(TCP, &[ASK, (From::Replier, Signal::ABORT)]);
    assert_eq!((flow.state, flow.expires), (RESET_BY_REPLIER, 11));
}

#[test]
fn a_forged_reset_does_not_end_a_flow_that_goes_on() {
    let flow = after(TCP, &[ASK, ANSWER, SAY, (From::Replier, Signal::ABORT), SAY, REPLY, REPLY]);
    assert_eq!(flow.state, ESTABLISHED);
    // What was under way to the side that reset does not bring the flow back.
    let flow = after(TCP, &[ASK, ANSWER, SAY, (From::Replier, Signal::ABORT), SAY, SAY]);
    assert_eq!(flow.state, RESET_BY_REPLIER);
}

#[test]
fn a_closed_flow_begins_anew_when_one_side_asks_again() {
    let mut closed =
        after(TCP, &[ASK, ANSWER, SAY, (From::Opener, Signal::CLOSE), (From::Replier, Signal::CLOSE)]);
    assert!(!closed.note(From::Replier, Signal::OPEN, 9));
    let mut half = after(TCP, &[ASK, ANSWER, SAY, (From::Opener, Signal::CLOSE)]);
    assert!(half.note(From::Replier, Signal::OPEN, 9));
    assert!(!half.note(From::Opener, Signal::OPEN, 9));
    let mut live = after(TCP, &[ASK, ANSWER, SAY]);
    assert!(live.note(From::Opener, Signal::OPEN, 9));
    assert_eq!(live.state, ESTABLISHED);
}

#[test]
fn the_first_packet_tells_who_opened() {
    for (protocol, signal, side, high) in [
        (TCP, Signal::OPEN, Side::Low, false),
        (TCP, Signal::OPEN_ACK, Side::Low, true),
        (TCP, Signal::OPEN_ACK, Side::High, false),
        (TCP, Signal::DATA, Side::High, true),
        (UDP, Signal::DATA, Side::High, true),
        (1, Signal::OPEN_ACK, Side::Low, true),
    ] {
        assert_eq!(Ct::first(protocol, side, signal, 0).has(Ct::OPENER_HIGH), high, "{protocol} {signal:?}");
    }
}

#[test]
fn a_flow_seen_from_one_side_alone_is_not_kept_for_long() {
    let flow = after(TCP, &[SAY, SAY, SAY]);
    assert_eq!((flow.state, lifetime(flow.state)), (PICKED_UP, 60));
    assert_eq!(after(TCP, &[SAY, REPLY]).state, ESTABLISHED);
}

#[test]
fn one_question_with_one_answer_is_no_stream() {
    assert_eq!(after(UDP, &[SAY, SAY]).state, UNREPLIED);
    assert_eq!(after(UDP, &[SAY, REPLY, REPLY]).state, REPLIED);
    assert_eq!(after(UDP, &[SAY, REPLY, SAY]).state, STREAM);
}

#[test]
fn flags_and_chunks_are_read() {
    for (flags, signal) in [
        (2, Signal::OPEN),
        (18, Signal::OPEN_ACK),
        (16, Signal::DATA),
        (17, Signal::CLOSE),
        (20, Signal::ABORT),
        (22, Signal::ABORT),
    ] {
        assert_eq!(Signal::of_tcp(flags), signal, "{flags}");
    }
    for (chunk, signal) in [
        (0, Signal::DATA),
        (1, Signal::OPEN),
        (2, Signal::OPEN_ACK),
        (6, Signal::ABORT),
        (7, Signal::CLOSE),
        (10, Signal::DATA),
    ] {
        assert_eq!(Signal::of_sctp(chunk), signal, "{chunk}");
    }
}

#[test]
fn an_idle_flow_lives_its_seconds_wherever_it_was_left() {
    for state in OPENING..=STREAM {
        let (expires, refresh) = times(state, 100);
        // The last packet may have come right before `refresh`, and have moved nothing.
        let ticks = u64::from(expires - refresh);
        let seconds = u64::from(lifetime(state));
        assert!((ticks << TICK_SHIFT) / 1_000_000_000 >= seconds, "{}", state::text(state));
    }
}

#[test]
fn only_a_change_is_written() {
    let mut flow = after(TCP, &[ASK, ANSWER, SAY]);
    let before = flow;
    assert!(flow.note(From::Replier, Signal::DATA, 400));
    assert_eq!(flow, before);
    assert!(flow.note(From::Replier, Signal::DATA, 600));
    assert_eq!(flow.expires, 8_600);
}

#[test]
fn every_state_takes_every_packet() {
    for state in OPENING..=STREAM {
        for from in [From::Opener, From::Replier] {
            for signal in SIGNALS {
                let next = step(state, from, signal).unwrap_or(OPENING);
                assert!((OPENING..=STREAM).contains(&next));
                assert_ne!(state::text(next), "unknown");
            }
        }
    }
}

#[test]
fn translation_and_diversion_are_of_one_side() {
    let mut flow = Ct::first(TCP, Side::High, Signal::OPEN, 0);
    assert!(!flow.is_diverted(Side::Low) && !flow.is_diverted(Side::High));
    flow.translate(Ct::HOST_PORT, [1; 4], [0, 80]);
    assert!(flow.is_diverted(Side::Low) && !flow.is_diverted(Side::High));
    flow.divert(Side::High);
    assert!(flow.is_diverted(Side::High) && flow.has(Ct::STACK_HIGH));
}

#[test]
fn a_flow_seen_by_an_answer_is_one_that_was_picked_up_and_answered() {
    for signal in SIGNALS {
        for (protocol, side) in [(TCP, Side::Low), (SCTP, Side::High), (UDP, Side::Low), (1, Side::High)] {
            let mut flow = Ct::first(protocol, side, Signal::DATA, 7);
            let _another = flow.note(From::Replier, signal, 7);
            assert_eq!(Ct::answered(protocol, side, signal, 7), flow, "{protocol} {signal:?}");
        }
    }
}

prop_compose! {
    fn ports()(protocol: u8, src: [u8; 2], dst: [u8; 2]) -> Ports {
        Ports { protocol, src, dst, ..Ports::NONE }
    }
}

proptest! {
    #[test]
    fn both_directions_have_one_key(a: u32, b: u32, c: [u32; 4], d: [u32; 4], ports in ports()) {
        let back = Ports { src: ports.dst, dst: ports.src, ..ports };
        let (key, side) = CtKey::new::<V4>(a, b, &ports);
        let (other_key, other) = CtKey::new::<V4>(b, a, &back);
        prop_assert_eq!(key, other_key);
        let to_itself = a == b && ports.src == ports.dst;
        prop_assert!(to_itself || side != other);
        prop_assert_eq!(key.side(side), (V4::key(a), ports.src));
        let (key, side) = CtKey::new::<V6>(c, d, &ports);
        prop_assert_eq!(CtKey::new::<V6>(d, c, &back).0, key);
        prop_assert_eq!(key.side(side), (c, ports.src));
        prop_assert_eq!(key.side(side.other()), (d, ports.dst));
    }

    #[test]
    fn the_ends_of_a_packet_have_the_key_of_its_flow(a: u32, b: u32, c: [u32; 4], d: [u32; 4], ports in ports()) {
        prop_assert_eq!(Ends::new::<V4>(a, b, &ports).key(), CtKey::new::<V4>(a, b, &ports));
        prop_assert_eq!(Ends::new::<V6>(c, d, &ports).key(), CtKey::new::<V6>(c, d, &ports));
    }

    #[test]
    fn the_user_side_finds_the_key_of_the_kernel_side(a: u32, b: u32, c: [u32; 4], ports in ports()) {
        let of = |x, y| CtKey::of_sides((x, ports.src), (y, ports.dst), ports.protocol);
        prop_assert_eq!(of(V4::key(a), V4::key(b)), CtKey::new::<V4>(a, b, &ports));
        prop_assert_eq!(of(c, V4::key(b)), CtKey::new::<V6>(c, V4::key(b), &ports));
    }

    #[test]
    fn a_flow_with_packets_never_expires(packets: Vec<(bool, u8, u8)>, tcp: bool) {
        let mut now = 5;
        let mut flow = Ct::first(if tcp { TCP } else { UDP }, Side::Low, Signal::DATA, now);
        for (opener, signal, wait) in packets {
            now += u32::from(wait) % lifetime(flow.state).min(55);
            let signal = SIGNALS[usize::from(signal) % SIGNALS.len()];
            let from = if opener { From::Opener } else { From::Replier };
            let soon = lifetime(flow.state) == 10;
            if flow.is_expired(now) {
                prop_assert!(soon, "{}", state::text(flow.state));
                break;
            }
            flow.count(if opener { Side::Low } else { Side::High }, 100);
            if !flow.note(from, signal, now) {
                flow = Ct::first(TCP, Side::Low, signal, now);
            }
            prop_assert!(flow.expires > now && flow.expires <= now + 8_000);
        }
    }
}
