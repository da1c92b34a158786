// SPDX-License-Identifier: Apache-2.0
//! The agent and the plugin die at every named step of ADD and DEL, while two pods talk: nothing is left over, no
//! address is lost or given twice, and the talk is not disturbed.

use std::time::Duration;

use rhumb_cni::failpoint;
use rhumb_integration::lab::{AgentOptions, Footprint, Lab, Node, Pinger, Pod, Spec, Stream, Wait};

const ROUNDS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);

/// When the runtime repeats DEL after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// While the agent is still down.
    BeforeRestart,
    /// When the agent is back.
    AfterRestart,
}

fn with_failpoints(wait: Wait) -> AgentOptions {
    AgentOptions { failpoints: true, wait, ..AgentOptions::default() }
}

#[test]
fn a_crash_at_any_step_leaves_nothing_and_disturbs_nobody() {
    let mut lab = Lab::build(Spec::named("crash")).expect("the lab is built");
    lab.start().expect("started");
    lab.node_mut(0).stop_agent().expect("stopped");
    lab.node_mut(0).start_agent_with(with_failpoints(Wait::Ready)).expect("started");
    let here = lab.node(0).add_pod("default", "here").expect("added");
    let there = lab.node(1).add_pod("default", "there").expect("added");
    let pings = [there.v4(), there.v6()]
        .map(|to| Pinger::start(&here.namespace, to, Duration::from_millis(10)).expect("answered"));
    let streams = [
        Stream::start(&here.namespace, &there.namespace, there.v4()).expect("connected"),
        Stream::start(&there.namespace, &here.namespace, here.v6()).expect("connected"),
    ];
    let before = Footprint::of(lab.node(0)).expect("looked");

    for round in 0..ROUNDS {
        let point = failpoint::ALL[round % failpoint::ALL.len()];
        let repeat = if (round / failpoint::ALL.len()).is_multiple_of(2) {
            Repeat::AfterRestart
        } else {
            Repeat::BeforeRestart
        };
        crash(lab.node_mut(0), point, repeat, round)
            .unwrap_or_else(|error| panic!("round {round}, {point}: {error:#}"));
        if (round + 1) % failpoint::ALL.len() == 0 || round + 1 == ROUNDS {
            before
                .returns(lab.node(0), PATIENCE)
                .unwrap_or_else(|error| panic!("after round {round}, {point}, {repeat:?}: {error:#}"));
        }
    }

    for ping in pings {
        let report = ping.stop().expect("stopped");
        report.all_answered().expect("no packet is lost");
        assert!(report.sent > 100, "{report:?}");
    }
    for stream in streams {
        stream.stop().expect("the stream holds").nothing_lost().expect("no packet is lost");
    }
    lab.node(0).del_pod(here).expect("deleted");
    lab.node(1).del_pod(there).expect("deleted");
    lab.close().expect("closed");
}

/// One pod's life with a crash at `point`, seen from a runtime: what failed is deleted, and so is what worked.
fn crash(node: &mut Node, point: &str, repeat: Repeat, round: usize) -> anyhow::Result<()> {
    let mut pod = node.make_container("default", &format!("crash-{round}"))?;
    let target = format!("{point}@{}", pod.container);
    if point.contains(".add.") {
        node.arm(&target, "kill")?;
        call(node, &pod, "ADD")?;
    } else {
        pod = node.attach(pod)?;
        node.arm(&target, "kill")?;
        call(node, &pod, "DEL")?;
    }
    let armed = node.disarm()?;
    anyhow::ensure!(armed.is_empty(), "nobody passed {armed:?}");
    if point.starts_with("agent.") {
        node.agent()?.wait(PATIENCE)?;
        if repeat == Repeat::BeforeRestart {
            node.cni(&pod.call("DEL", &node.network()))?.success()?;
        }
        node.start_agent_with(with_failpoints(Wait::Ready))?;
    }
    if repeat == Repeat::AfterRestart || !point.starts_with("agent.") {
        node.cni(&pod.call("DEL", &node.network()))?.success()?;
    }
    Ok(())
}

/// A call that may end in any way.
fn call(node: &Node, pod: &Pod, command: &str) -> anyhow::Result<()> {
    node.cni(&pod.call(command, &node.network())).map(drop)
}
