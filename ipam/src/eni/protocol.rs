// SPDX-License-Identifier: Apache-2.0
//! All interleavings, up to a bound, of an operator, an agent and EC2 that hand addresses and interfaces to and fro.
//!
//! Operator and agent are the real ones ([`super::plan()`], [`super::agent::share`]). Either may die at any step and loses
//! what it has in memory; a call may have its effect late, or have it and lose its reply; a look shows EC2 as it was at
//! any time within [`super::LAG`]; what one side wrote reaches the other late, twice, or in another order. Whoever starts
//! reads the store as it is. Somebody else may detach an interface; the instance may end, and the Node object may go and
//! come back, with the same instance or with another, before or after the NodeConfig was deleted.
//!
//! Time goes in steps of [`super::LAG`]; numbers that only grow are compared by their distance, so that the states are
//! finite.

mod ec2;
mod search;
mod state;

use ec2::{Ec2, address};
use search::explore;
use state::{Bounds, End, State, Step, Without};

/// How many states are looked at from each beginning.
const STATES: usize = 12_000;

/// One interface with two addresses of which any number is wanted.
const ONE: Bounds =
    Bounds { interfaces: 1, slots: 2, wanted: 2, crashes: 1, thefts: 0, turns: 0, without: Without::Nothing };
/// Two interfaces with an address each, the second of which somebody may take away.
const TWO: Bounds = Bounds { interfaces: 2, slots: 1, thefts: 1, ..ONE };
/// The same, where the node goes and comes again.
const TURNS: Bounds = Bounds { thefts: 0, turns: 2, ..TWO };

/// A published address that the agent has just let go, which the operator has read.
fn let_go(bounds: Bounds) -> State {
    let state = State::first(Ec2::new(&[address(5)], 7), Bounds { wanted: 1, ..bounds });
    let state = State { left: bounds, ..state };
    state.does(&[Step::Plan(0), Step::Hear(1), Step::Say, Step::Read(1)])
}

/// Both interfaces are there, and the agent leases from both.
fn with_two(bounds: Bounds) -> State {
    let state = State::first(Ec2::new(&[address(5)], 9), Bounds { wanted: 1, ..bounds });
    let state = State { left: bounds, ..state };
    let done = Step::Call(0, End::Done);
    let create = [Step::Plan(2), done.clone(), Step::Plan(2), done.clone(), Step::Plan(2)];
    let told = [Step::Plan(2), done, Step::Hear(1), Step::Say, Step::Read(1)];
    let state = state.does(&create).does(&told);
    let look = Step::Look(state.ec2.clone());
    state.does(&[Step::Tick, look])
}

/// The second interface is asked back and let go.
fn half_given_back(bounds: Bounds) -> State {
    with_two(bounds).does(&[Step::Plan(1), Step::Hear(1), Step::Say, Step::Read(1)])
}

fn holds(first: State, states: usize) {
    let found = explore(first, states, 50);
    assert_eq!(found.wrong, None);
    assert!(found.states >= states, "only {} states", found.states);
}

fn finds(first: State, sample: usize, text: &str) {
    let found = explore(first, 4 * STATES, sample);
    let wrong = found.wrong.expect("found");
    assert!(wrong.contains(text), "{wrong}");
}

#[test]
fn no_address_is_unassigned_in_use_or_stuck_whoever_dies_whenever() {
    holds(State::first(Ec2::new(&[address(5)], 7), ONE), STATES);
}

#[test]
fn nor_from_the_middle_of_handing_one_back() {
    holds(let_go(ONE), STATES);
}

#[test]
fn an_interface_comes_and_goes_and_may_be_taken_by_somebody_else_at_any_time() {
    holds(with_two(TWO), STATES);
    holds(half_given_back(TWO), STATES);
}

#[test]
fn a_node_that_is_forgotten_or_comes_back_as_another_instance_leaves_nothing_behind() {
    holds(with_two(TURNS), STATES);
    holds(half_given_back(TURNS), STATES);
}

#[test]
fn without_generations_the_model_finds_an_address_unassigned_in_use() {
    finds(let_go(Bounds { without: Without::Generations, ..ONE }), usize::MAX, "EC2 does not hold");
}

#[test]
fn without_order_the_model_finds_an_address_unassigned_in_use() {
    finds(let_go(Bounds { without: Without::Order, ..ONE }), usize::MAX, "EC2 does not hold");
}

#[test]
fn where_looks_lag_more_than_allowed_the_model_finds_an_address_that_ec2_does_not_hold() {
    finds(let_go(Bounds { without: Without::BoundedLag, ..ONE }), usize::MAX, "EC2 does not hold");
}

#[test]
fn where_numbers_begin_anew_the_model_finds_an_agent_that_hears_nothing_more() {
    let forgotten = [Step::NodeGoes, Step::ReadNode, Step::Tick, Step::Tick, Step::Forget, Step::NodeReturns];
    let bounds = Bounds { without: Without::Epochs, ..TURNS };
    finds(with_two(bounds).does(&forgotten), 1, "the NodeConfig says");
}
