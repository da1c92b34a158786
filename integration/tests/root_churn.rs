// SPDX-License-Identifier: Apache-2.0
//! Many pods come and go at once: none fails, and the agent does not grow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rhumb_integration::lab::{AgentOptions, Footprint, Lab, Spec};

const PARALLEL: usize = 16;
/// Until everything that is bounded is full: addresses that are remembered for their turn, the store's past changes.
const WARM: usize = 2000;
const ALL: usize = 4000;
/// What the agent may grow by between the two, for holes between pieces of memory: half a KiB a pod would show.
const MARGIN_KIB: u64 = 1024;

#[test]
fn thousands_of_pods_come_and_go_and_the_agent_does_not_grow() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("churn") }).expect("the lab is built");
    lab.start_operator().expect("started");
    // Addresses are few and rest shortly, so that each is leased again and again: what the agent remembers of an
    // address then takes the place of what it remembered before.
    let args = ["--cool-down", "1"].map(str::to_owned).to_vec();
    lab.node_mut(0).start_agent_with(AgentOptions { args, ..AgentOptions::default() }).expect("started");
    let before = Footprint::of(lab.node(0)).expect("looked");
    cycles(&lab, WARM);
    let warm = lab.node(0).agent_rss_kib().expect("read");
    cycles(&lab, ALL - WARM);
    let after = lab.node(0).agent_rss_kib().expect("read");
    eprintln!("resident memory of the agent: {warm} KiB after {WARM} cycles, {after} KiB after {ALL}");
    assert!(after <= warm + MARGIN_KIB, "grew from {warm} to {after} KiB");
    before.returns(lab.node(0), Duration::from_secs(10)).expect("nothing is left over");
    lab.close().expect("closed");
}

fn cycles(lab: &Lab, count: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let node = lab.node(0);
                    let pod = node.add_pod("default", "churn").expect("added");
                    assert_eq!(pod.addresses.len(), 2, "{:?}", pod.result);
                    node.del_pod(pod).expect("deleted");
                }
            });
        }
    });
}
