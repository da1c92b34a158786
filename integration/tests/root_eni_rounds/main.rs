// SPDX-License-Identifier: Apache-2.0
//! Nodes are filled to their last address, emptied and filled again, twenty times, while operator, agent and plugin die at
//! every named step and EC2 loses replies, throttles, hangs and lags: after each round EC2 has what it had before the
//! first, no address was two pods', and none was a pod's that EC2 did not hold. In the end the instance goes, and nothing
//! of it stays. What another operator left behind goes, what others left stays.

mod ground;
mod pods;
mod points;
mod rounds;
mod shape;

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use ground::Ground;
use rounds::Round;
use shape::{ADDRESSES, PREFIXES, Shape};

fn walk(shape: &'static Shape, rounds: &[Round]) -> Result<()> {
    let mut ground = Ground::new(shape).context("a lab with a cloud")?;
    for round in rounds {
        ground.round(round).with_context(|| format!("{round:?}"))?;
    }
    ground.end().context("the instance ends")
}

#[test]
fn nodes_that_are_filled_and_emptied_while_their_programs_die_have_nothing_left_over() {
    let named = points::named().expect("the sources are readable");
    let shapes = [&ADDRESSES, &PREFIXES];
    let rounds = shapes.map(|shape| Round::all(shape, &named));
    let walked: BTreeSet<&String> =
        rounds.iter().flatten().flat_map(|round| round.operator.iter().chain(&round.node)).collect();
    assert_eq!(walked, named.iter().collect(), "each named step is one where a program dies");
    // Most of it is waiting, so that both take hardly longer than one.
    let failed: Vec<String> = std::thread::scope(|scope| {
        let walks = shapes.into_iter().zip(&rounds).map(|(shape, rounds)| {
            let name = shape.name;
            (name, scope.spawn(move || walk(shape, rounds)))
        });
        let walks: Vec<_> = walks.collect();
        let ends = walks.into_iter().map(|(name, walk)| (name, walk.join().expect("no panic")));
        ends.filter_map(|(name, end)| end.err().map(|error| format!("{name}: {error:#}"))).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
