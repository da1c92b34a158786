// SPDX-License-Identifier: Apache-2.0

use std::num::NonZeroU8;
use std::time::Duration;

use super::*;
use crate::packet::Diagnostic;

const MS: Duration = Duration::from_millis(1);

fn addr(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

fn key(peer: &str, hops: Hops) -> SessionKey {
    SessionKey { peer: addr(peer), local: None, interface: None, hops }
}

fn name(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not 0")
}

fn packet(state: State, your_discriminator: u32) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        final_answer: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: NonZeroU8::new(3).expect("not 0"),
        my_discriminator: name(7),
        your_discriminator,
        desired_min_tx: MS * 50,
        required_min_rx: MS * 50,
        required_min_echo_rx: Duration::ZERO,
    }
}

fn arrival(from: &str) -> Arrival {
    let to = if addr(from).is_ipv4() { "10.0.0.1" } else { "fd00::1" };
    Arrival { from: addr(from), to: addr(to), ifindex: 4, ttl: 255, hops: Hops::Single }
}

fn config() -> Config {
    Config::new(MS * 50, MS * 50, 3).expect("in range")
}

fn table(keys: &[SessionKey]) -> Table<()> {
    let mut table = Table::new();
    for (number, key) in (1..).zip(keys) {
        assert!(table.add(key.clone(), config(), name(number)));
    }
    table
}

/// The name of the session that a packet is for.
fn found(table: &mut Table<()>, your: u32, arrival: &Arrival) -> Result<u32, Unwanted> {
    let state = if your == 0 { State::Down } else { State::Up };
    table.find(&packet(state, your), arrival).map(|entry| entry.session.discriminator().get())
}

#[test]
fn a_first_packet_is_found_by_its_source_and_a_later_one_by_our_name_alone() {
    let mut table = table(&[key("10.0.0.2", Hops::Single), key("fe80::2", Hops::Single)]);
    assert_eq!(found(&mut table, 0, &arrival("10.0.0.2")), Ok(1));
    assert_eq!(found(&mut table, 0, &arrival("fe80::2")), Ok(2));
    assert_eq!(found(&mut table, 0, &arrival("10.0.0.3")), Err(Unwanted::Unknown));
    assert_eq!(found(&mut table, 1, &arrival("10.0.0.3")), Ok(1), "the other end may change its address");
    assert_eq!(found(&mut table, 3, &arrival("10.0.0.2")), Err(Unwanted::Unknown));
    assert_eq!(found(&mut table, 2, &arrival("10.0.0.2")), Err(Unwanted::Elsewhere), "another family");
}

#[test]
fn a_packet_that_was_forwarded_is_not_taken_over_one_hop_and_is_over_several() {
    let mut table = table(&[key("10.0.0.2", Hops::Single), key("10.9.0.2", Hops::Multi)]);
    for ttl in [0, 1, 64, 254] {
        let forwarded = Arrival { ttl, ..arrival("10.0.0.2") };
        assert_eq!(found(&mut table, 0, &forwarded), Err(Unwanted::Forwarded));
        assert_eq!(found(&mut table, 1, &forwarded), Err(Unwanted::Forwarded));
        let far = Arrival { ttl, hops: Hops::Multi, ..arrival("10.9.0.2") };
        assert_eq!(found(&mut table, 0, &far), Ok(2));
    }
}

#[test]
fn sessions_of_one_hop_and_of_several_do_not_mix() {
    let mut table = table(&[key("10.0.0.2", Hops::Single), key("10.9.0.2", Hops::Multi)]);
    assert_eq!(found(&mut table, 2, &arrival("10.9.0.2")), Err(Unwanted::Elsewhere));
    assert_eq!(found(&mut table, 0, &arrival("10.9.0.2")), Err(Unwanted::Unknown));
    let far = Arrival { hops: Hops::Multi, ..arrival("10.0.0.2") };
    assert_eq!(found(&mut table, 1, &far), Err(Unwanted::Elsewhere));
}

#[test]
fn a_session_of_a_link_takes_packets_of_that_link_only() {
    let link = |name: &str| SessionKey {
        interface: Some(name.parse().expect("valid")),
        ..key("fe80::2", Hops::Single)
    };
    let mut table = table(&[link("eth0"), link("eth1")]);
    assert_eq!(found(&mut table, 0, &arrival("fe80::2")), Err(Unwanted::Unknown), "no link is known yet");
    for (entry, ifindex) in table.entries().zip([3, 4]) {
        entry.ifindex = Some(ifindex);
    }
    assert_eq!(found(&mut table, 0, &arrival("fe80::2")), Ok(2));
    assert_eq!(found(&mut table, 0, &Arrival { ifindex: 3, ..arrival("fe80::2") }), Ok(1));
    assert_eq!(found(&mut table, 1, &arrival("fe80::2")), Err(Unwanted::Elsewhere));
}

#[test]
fn a_session_of_a_local_address_takes_first_packets_to_it_only() {
    let mut table = table(&[SessionKey { local: Some(addr("10.0.0.9")), ..key("10.0.0.2", Hops::Single) }]);
    assert_eq!(found(&mut table, 0, &arrival("10.0.0.2")), Err(Unwanted::Unknown));
    assert_eq!(found(&mut table, 0, &Arrival { to: addr("10.0.0.9"), ..arrival("10.0.0.2") }), Ok(1));
}

#[test]
fn a_removed_session_says_so_and_is_forgotten_when_that_was_heard() {
    let now = Instant::now();
    let the_key = key("10.0.0.2", Hops::Single);
    let mut table = table(std::slice::from_ref(&the_key));
    table.remove(&the_key, now);
    assert_eq!(table.report(), [], "its owner is told of it no more");
    let entry = table.entries().next().expect("still there");
    assert_eq!(entry.session.transmit(now, 0).expect("told at once").state, State::AdminDown);
    table.sweep(now + MS * 149);
    assert_eq!(table.entries().count(), 1);
    assert_eq!(table.deadline(now), Some(now + MS * 150));
    table.sweep(now + MS * 150);
    assert_eq!(table.entries().count(), 0);
}

#[test]
fn a_session_that_is_added_again_while_it_leaves_stays() {
    let now = Instant::now();
    let the_key = key("10.0.0.2", Hops::Single);
    let mut table = table(std::slice::from_ref(&the_key));
    table.remove(&the_key, now);
    assert!(table.add(the_key, config(), name(9)));
    table.sweep(now + MS * 1000);
    assert_eq!(table.report()[0].state, State::Down);
    assert_eq!(table.report()[0].discriminator, 1, "it keeps its name");
}

#[test]
fn no_two_sessions_have_one_name() {
    let mut table = table(&[key("10.0.0.2", Hops::Single)]);
    assert!(!table.add(key("10.0.0.3", Hops::Single), config(), name(1)));
    assert!(table.add(key("10.0.0.3", Hops::Single), config(), name(2)));
}
