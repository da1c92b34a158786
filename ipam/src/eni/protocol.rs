// SPDX-License-Identifier: Apache-2.0
//! All interleavings, up to a bound, of an operator, agents and EC2 that hand addresses and interfaces to and fro.
//!
//! Operator and agents are the real ones ([`super::plan()`], [`super::agent::share`]). What they do in the normal course
//! (plans, deliveries, looks, the ends of calls and of pods, time) happens in every order, any number of times. The bound
//! is a number of *events*, each of any kind at any point: a node wants more or less, a pod gets an address, operator or
//! agent dies, a reply is lost (of a call that had its effect, or had none), a look shows EC2 as it was within
//! [`super::LAG`], an older version of an object is delivered, somebody detaches an interface, an instance ends, a Node
//! object goes or comes back. Within it nothing is left out: the search ends when there is no further state.
//!
//! In each state no pod has, and no agent leases, what EC2 does not hold for that node, and nothing is there twice. From
//! each state, when no more events come and everybody does his part, every node has what it wants, or its reason why
//! not, and nobody holds more.
//!
//! Time goes in steps of [`super::LAG`]; times and numbers count by what they are compared with, so that the states are
//! finite ([`key`]).

mod ec2;
mod fair;
mod key;
mod search;
mod state;
mod steps;

use super::Unit;
use search::explore;
use state::{Events, Setting, State, Without};

/// None of them.
const NONE: Events = Events {
    demands: false,
    leases: false,
    crashes: false,
    lost: false,
    stale: false,
    thefts: false,
    turns: false,
};
/// What goes wrong.
const FAULTS: Events = Events { crashes: true, lost: true, stale: true, ..NONE };
/// And what pods do.
const EVENTS: Events = Events { demands: true, leases: true, ..FAULTS };

/// One interface with two addresses of which any number is wanted.
const ONE: Setting = Setting {
    nodes: 1,
    interfaces: 1,
    slots: 2,
    unit: Unit::Address,
    ipv6: false,
    end: 7,
    most: 2,
    events: EVENTS,
    without: Without::Nothing,
};
/// Two interfaces with a /28 each, the second of which somebody may take away.
const TWO: Setting = Setting { interfaces: 2, slots: 1, unit: Unit::Prefix, end: 48, events: FAULTS, ..ONE };
/// The same with addresses, and a /80.
const DUAL: Setting = Setting { unit: Unit::Address, ipv6: true, end: 8, ..TWO };
/// Two nodes, and one address for both.
const RIVALS: Setting = Setting { nodes: 2, slots: 1, most: 1, ..ONE };
/// The node goes and comes again.
const TURNS: Setting = Setting { events: Events { turns: true, crashes: true, ..NONE }, ..TWO };

/// No test has as many. One that comes to so many fails, instead of taking all memory.
const STATES: usize = 120_000;

/// Everything that so many events can lead to, from where the nodes want so many blocks.
fn holds(state: State, events: u8, wanted: &[u32]) {
    let found = explore(State { left: events, ..state }.wanting(wanted), STATES);
    println!("{} states, {} steps, {} fair", found.states, found.steps, found.fair);
    assert_eq!(found.wrong, None);
    assert!(found.is_whole, "something was left");
}

/// Nodes that have what they want.
fn served(setting: Setting, wanted: &[u32]) -> State {
    State::first(setting, 0).wanting(wanted).settled()
}

#[test]
fn whatever_three_events_do_to_a_new_node_it_gets_what_it_wants_and_keeps_what_it_uses() {
    holds(State::first(ONE, 0), 3, &[0]);
}

#[test]
fn no_address_that_is_given_back_is_unassigned_in_use() {
    holds(served(Setting { events: FAULTS, ..ONE }, &[2]), 3, &[0]);
    holds(served(ONE, &[2]), 1, &[0]);
}

#[test]
fn an_interface_with_a_prefix_comes_whatever_happens_meanwhile() {
    let events = Events { crashes: true, lost: true, ..NONE };
    holds(served(Setting { events, ..TWO }, &[1]), 2, &[2]);
}

#[test]
fn an_interface_with_a_prefix_goes_or_is_taken_away_by_somebody_else() {
    let events = Events { stale: true, crashes: true, ..NONE };
    holds(served(Setting { events, ..TWO }, &[2]), 2, &[1]);
    let events = Events { thefts: true, crashes: true, ..NONE };
    holds(served(Setting { events, ..TWO }, &[2]), 2, &[1]);
}

#[test]
fn a_node_with_an_80_gets_and_gives_back_addresses_beside_it() {
    holds(served(DUAL, &[1]), 1, &[2]);
    holds(served(DUAL, &[2]), 2, &[1]);
}

#[test]
fn the_last_address_of_a_subnet_is_one_nodes_at_a_time() {
    let events = Events { stale: false, ..FAULTS };
    holds(served(Setting { events, ..RIVALS }, &[1, 0]), 2, &[0, 1]);
    holds(served(RIVALS, &[1, 0]), 1, &[0, 1]);
}

#[test]
fn the_last_prefix_of_a_subnet_is_one_nodes_at_a_time() {
    let events = Events { lost: false, ..FAULTS };
    holds(served(Setting { unit: Unit::Prefix, end: 32, events, ..RIVALS }, &[1, 0]), 2, &[0, 1]);
}

#[test]
fn a_node_that_is_forgotten_or_comes_back_as_another_instance_leaves_nothing_behind() {
    holds(served(TURNS, &[2]), 2, &[1]);
    let events = Events { turns: true, thefts: true, lost: true, ..NONE };
    holds(served(Setting { events, ..TURNS }, &[2]), 2, &[1]);
}

/// What breaks when the model leaves something out, from a node that has so many blocks and wants others.
fn finds(setting: Setting, events: u8, (has, wanted): (u32, u32), text: &str) {
    let first = State { left: events, ..served(setting, &[has]) }.wanting(&[wanted]);
    let wrong = explore(first, STATES).wrong.expect("found");
    println!("{wrong}");
    assert!(wrong.contains(text), "{wrong}");
}

/// One interface with an address.
fn without(without: Without, events: Events) -> Setting {
    Setting { slots: 1, most: 1, end: 6, without, events, ..ONE }
}

#[test]
fn without_generations_an_answer_to_an_older_question_takes_an_address_in_use() {
    let events = Events { demands: true, stale: true, ..NONE };
    finds(without(Without::Generations, events), 3, (1, 0), "EC2 does not hold");
}

#[test]
fn without_order_an_agent_leases_what_it_let_go() {
    finds(without(Without::Order, Events { stale: true, ..NONE }), 1, (1, 0), "EC2 does not hold");
}

#[test]
fn with_longer_lag_a_node_is_told_of_what_is_gone() {
    let events = Events { stale: true, ..NONE };
    finds(without(Without::BoundedLag, events), 1, (1, 0), "EC2 does not hold");
}

#[test]
fn an_agent_that_answers_before_it_lets_go_leases_what_is_gone() {
    finds(without(Without::DropFirst, NONE), 0, (1, 0), "EC2 does not hold");
}

#[test]
fn an_agent_that_forgets_leases_lets_go_of_addresses_in_use() {
    let events = Events { leases: true, crashes: true, ..NONE };
    finds(without(Without::Journal, events), 2, (1, 0), "");
}

#[test]
fn an_agent_that_starts_with_an_older_object_leases_what_it_let_go() {
    finds(without(Without::FreshRead, Events { crashes: true, ..NONE }), 1, (1, 0), "EC2 does not hold");
}

#[test]
fn after_one_look_a_block_is_forgotten_and_told_again_by_an_older_one() {
    let events = Events { crashes: true, stale: true, ..NONE };
    finds(without(Without::SecondLook, events), 2, (1, 0), "EC2 does not hold");
}

#[test]
fn where_numbers_begin_anew_an_agent_hears_nothing_more() {
    finds(
        Setting { without: Without::Epochs, events: Events { turns: true, ..NONE }, ..TURNS },
        2,
        (2, 1),
        "for ever",
    );
}
