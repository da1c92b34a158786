// SPDX-License-Identifier: Apache-2.0
//! Addresses for the pods of a whole cluster at once, on a virtual clock: our plan, and the algorithms of two other
//! networks, each on an EC2 of its own that throttles as AWS publishes.
//!
//! No attachment can be faster than EC2's bucket of them: 50 at once, then five a second.

mod ours;
mod pace;
mod rivals;
mod world;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rhumb_cloud_fake::{Fault, Rule, Span};
use rhumb_ipam::eni::{EniPolicy, Unit};
use rhumb_model::Timestamp;

use super::{Aim, Measure, Report};
use ours::Ours;
use rivals::{AwsCni, Cilium};
use world::World;

/// Pods that come to each node: one more than the first interface of an m5.large has room for.
const PODS: usize = 10;
/// Pods of each node that stay when the others leave.
const STAY: usize = 2;
/// How EC2 is, and how much of what it allows the operator takes.
#[derive(Debug, Clone, Copy)]
struct Conditions {
    /// Milliseconds until an interface is attached.
    attach: Span,
    /// Describes are behind by so many milliseconds.
    lag: Span,
    /// So many milliseconds after its creation calls do not find an interface.
    unknown: Span,
    /// Of the requests that EC2 allows.
    share: f64,
}

const USUAL: Conditions =
    Conditions { attach: Span(1_000, 5_000), lag: Span::ZERO, unknown: Span::ZERO, share: 1.0 };
const AT_ONCE: Conditions = Conditions { attach: Span::ZERO, ..USUAL };
const LATE: Conditions = Conditions { lag: Span(0, 5_000), unknown: Span(0, 2_000), ..USUAL };
/// What `--ec2-share` is when nothing is said.
const HALF: Conditions = Conditions { share: 0.5, ..USUAL };
/// A cluster that takes longer than this has failed.
const LONGEST: u64 = 4 * 3600;
/// Seconds after which idle addresses are counted: whatever is excess has been asked back by then.
const SETTLED: u64 = 900;

/// When EC2 answers again after the outage of [`ours_after_an_outage`], in seconds.
const OUTAGE_ENDS: u64 = 610;
const NOTE: &str = "ten pods come to every node (m5.large) at once, on a virtual clock, on an EC2 that throttles as AWS \
                    publishes; the peers are models of their algorithms, with the constants of their sources";

/// What came of one cluster.
#[derive(Debug, Clone)]
struct Figures {
    /// Seconds until every pod had an address on an interface that was there.
    seconds: u64,
    /// Calls until then, by action.
    calls: BTreeMap<&'static str, u64>,
    /// Addresses that nobody uses, per node, when all has settled.
    idle: f64,
    /// Calls that EC2 throttled.
    throttled: u64,
    /// Most calls of one action in a second.
    peak: u32,
}

impl Figures {
    /// All calls.
    fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }
}

/// Seconds that EC2's bucket of attachments takes for so many.
fn floor(attachments: usize) -> f64 {
    f64::from(u32::try_from(attachments.saturating_sub(50)).unwrap_or(u32::MAX)) / 5.0
}

/// Runs a cluster until every pod has an address; then, where `settle` says so, on until nothing changes.
fn run(world: &mut World, settle: u64, mut step: impl FnMut(&mut World) -> Result<()>) -> Result<Figures> {
    loop {
        step(world)?;
        world.settle();
        if world.all_served() {
            break;
        }
        ensure!(world.seconds() < LONGEST, "after {} s pods still wait", world.seconds());
        world.pass_a_second();
    }
    let (seconds, calls) = (world.seconds(), world.calls());
    let ledger = world.fake.ledger();
    let throttled = ledger.counts().values().map(|count| count.throttled).sum();
    let peak = ledger
        .counts()
        .iter()
        .filter(|(name, _)| **name != "RunInstances")
        .map(|(_, count)| count.most_in_a_second)
        .max();
    let peak = peak.unwrap_or(0);
    let idle = idle_after(world, settle, step)?;
    Ok(Figures { seconds, calls, idle, throttled, peak })
}

/// Addresses that nobody uses, per node, so many seconds later.
fn idle_after(
    world: &mut World,
    seconds: u64,
    mut step: impl FnMut(&mut World) -> Result<()>,
) -> Result<f64> {
    for _ in 0..seconds {
        world.pass_a_second();
        step(world)?;
    }
    ensure!(world.fake.violations().is_empty(), "{:?}", world.fake.violations().first());
    Ok(f64::from(u32::try_from(world.idle())?) / f64::from(u32::try_from(world.nodes.len())?))
}

/// What came of our plan.
#[derive(Debug)]
struct OurFigures {
    figures: Figures,
    /// Addresses that nobody uses, per node, after most pods left.
    left: f64,
    /// Milliseconds that one plan took of this machine, on average.
    plan: f64,
}

/// Our plan, for so many nodes.
///
/// # Errors
/// When pods never get addresses, or EC2 saw something that must not be.
fn ours(nodes: usize, conditions: Conditions, policy: EniPolicy) -> Result<OurFigures> {
    let mut world = World::new(nodes, PODS, conditions)?;
    let mut ours = Ours::new(&world, policy, conditions.share)?;
    let mut step = |world: &mut World| {
        ours.step(world);
        Ok(())
    };
    let figures = run(&mut world, SETTLED, &mut step)?;
    world.set_pods(STAY);
    let left = idle_after(&mut world, SETTLED, &mut step)?;
    Ok(OurFigures { figures, left, plan: ours.milliseconds_per_plan() })
}

/// Our plan where EC2 answers nothing but errors for ten minutes, and how many calls it made meanwhile.
///
/// # Errors
/// As for [`ours`].
fn ours_after_an_outage(nodes: usize) -> Result<(Figures, u64)> {
    let mut world = World::new(nodes, PODS, USUAL)?;
    let from = Timestamp(world.now.0 + 10_000);
    let until = Timestamp(from.0 + 600_000);
    world.fake.fault(Rule {
        from: Some(from),
        until: Some(until),
        fault: Fault::default(),
        ..Rule::default()
    });
    let mut ours = Ours::new(&world, EniPolicy::default(), 1.0)?;
    let (mut before, mut during) = (None, 0);
    let figures = run(&mut world, 0, |world| {
        let count = |world: &World| world.calls().values().sum::<u64>();
        if world.now >= from && before.is_none() {
            before = Some(count(world));
        }
        ours.step(world);
        if let Some(before) = before.filter(|_| world.now < until) {
            during = count(world) - before;
        }
        Ok(())
    })?;
    Ok((figures, during))
}

/// amazon-vpc-cni-k8s's algorithm.
///
/// # Errors
/// As for [`ours`].
fn aws_cni(nodes: usize) -> Result<Figures> {
    let mut world = World::new(nodes, PODS, USUAL)?;
    let mut rival = AwsCni::new(&world)?;
    run(&mut world, SETTLED, |world| {
        rival.step(world);
        Ok(())
    })
}

/// Cilium's algorithm.
///
/// # Errors
/// As for [`ours`].
fn cilium(nodes: usize) -> Result<Figures> {
    let mut world = World::new(nodes, PODS, USUAL)?;
    let mut rival = Cilium::new(&world);
    run(&mut world, 0, |world| rival.step(world))
}

/// `cargo xtask bench eni`: clusters of so many nodes each, 1,000 and 5,000 where nothing is said.
///
/// # Errors
/// As for [`ours`].
pub fn eni(sizes: &[usize]) -> Result<Report> {
    let mut report = Report::new("eni", NOTE);
    for nodes in if sizes.is_empty() { &[1_000, 5_000] } else { sizes } {
        tell(*nodes, &mut report)?;
    }
    Ok(report)
}

fn tell(nodes: usize, report: &mut Report) -> Result<()> {
    let (aws, cilium) = (aws_cni(nodes)?, cilium(nodes)?);
    let at_once = ours(nodes, AT_ONCE, EniPolicy::default())?.figures;
    let late = ours(nodes, LATE, EniPolicy::default())?.figures;
    let half = ours(nodes, HALF, EniPolicy::default())?.figures;
    let policy = EniPolicy { unit: Some(Unit::Prefix), ..EniPolicy::default() };
    let ready = f64::from(policy.pre_allocate);
    let prefixed = ours(nodes, USUAL, policy)?;
    let OurFigures { figures: ours, left, plan } = ours(nodes, USUAL, EniPolicy::default())?;
    let mut add = |name: &str, unit, mine: f64, peer: Option<(&'static str, f64)>, aim| {
        let name = format!("{nodes} nodes: {name}");
        report.add(match peer {
            Some((who, peer)) => Measure::beside(name, unit, &[mine], (who, &[peer]), aim),
            None => Measure::alone(&name, unit, &[mine], aim),
        });
    };
    let floor = floor(nodes);
    let all = "all pods have addresses, where interfaces are attached at once";
    add(all, "s", number(at_once.seconds), Some(("EC2's floor", floor)), Aim::RatioAtMost(1.15));
    let served = "all pods have addresses";
    add(served, "s", number(ours.seconds), Some(("EC2's floor", floor)), Aim::RatioAtMost(1.15));
    add(served, "s", number(ours.seconds), Some(("aws-cni", number(aws.seconds))), Aim::None);
    add(served, "s", number(ours.seconds), Some(("cilium", number(cilium.seconds))), Aim::None);
    let calls = number(ours.all_calls());
    add("calls", "calls", calls, Some(("aws-cni", number(aws.all_calls()))), Aim::RatioAtMost(0.5));
    add("calls", "calls", calls, Some(("cilium", number(cilium.all_calls()))), Aim::RatioAtMost(1.0));
    for (action, count) in &ours.calls {
        let of_aws = aws.calls.get(action).copied().unwrap_or(0);
        add(action, "calls", number(*count), Some(("aws-cni", number(of_aws))), Aim::None);
    }
    let name = "all pods have addresses, where describes lag 0-5 s and new interfaces are unknown for 0-2 s";
    add(name, "s", number(late.seconds), Some(("EC2's floor", floor)), Aim::RatioAtMost(1.15));
    let name = "all pods have addresses, at half of EC2's pace (--ec2-share 50)";
    add(name, "s", number(half.seconds), Some(("EC2's floor", floor)), Aim::None);
    let idle = "idle addresses of a node";
    add(idle, "addresses", ours.idle, Some(("aws-cni", aws.idle)), Aim::AtMost(15.0));
    add("idle addresses of a node after eight of ten pods left", "addresses", left, None, Aim::AtMost(15.0));
    add(
        "throttled calls",
        "calls",
        number(ours.throttled),
        Some(("aws-cni", number(aws.throttled))),
        Aim::None,
    );
    add("one plan for all of them", "ms", plan, None, Aim::None);
    let peak = "most calls of one action in a second";
    add(peak, "calls", f64::from(ours.peak), Some(("aws-cni", f64::from(aws.peak))), Aim::None);
    let prefixes = "prefixes: idle addresses of a node beyond those that are to be ready";
    add(prefixes, "addresses", prefixed.figures.idle - ready, None, Aim::AtMost(15.0));
    let prefixes = "prefixes: the same after eight of ten pods left";
    add(prefixes, "addresses", prefixed.left - ready, None, Aim::AtMost(15.0));
    let (after, during) = ours_after_an_outage(nodes)?;
    let seconds = number(after.seconds.saturating_sub(OUTAGE_ENDS));
    add(
        "served after an outage of 10 min",
        "s",
        seconds,
        Some(("EC2's floor", floor)),
        Aim::RatioAtMost(1.15),
    );
    add("calls during the outage", "calls", number(during), None, Aim::AtMost(600.0));
    Ok(())
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> EniPolicy {
        EniPolicy::default()
    }

    #[test]
    fn a_hundred_nodes_are_served_at_the_pace_that_ec2_allows_with_half_of_the_calls() {
        let at_once = ours(100, AT_ONCE, addresses()).expect("served").figures;
        assert!(number(at_once.seconds) <= 1.15 * floor(100), "{at_once:?}");
        let OurFigures { figures: ours, left, .. } = ours(100, USUAL, addresses()).expect("served");
        // Besides the bucket there is the time that EC2 takes for the last attachments.
        assert!(number(ours.seconds) <= 1.15 * (floor(100) + 5.0), "{ours:?}");
        let (aws, cilium) = (aws_cni(100).expect("served"), cilium(100).expect("served"));
        assert!(ours.all_calls() * 2 <= aws.all_calls(), "{ours:?} {aws:?}");
        assert!(ours.all_calls() <= cilium.all_calls(), "{ours:?} {cilium:?}");
        assert!(ours.idle < 16.0 && left < 16.0 && ours.throttled == 0, "{ours:?} {left}");
    }

    #[test]
    fn an_ec2_that_knows_late_what_it_did_costs_seconds_and_no_call_twice() {
        let late = ours(100, LATE, addresses()).expect("served").figures;
        // The bucket's first 50 attachments may all come too early, and come again at its pace.
        assert!(number(late.seconds) <= 1.15 * (floor(100) + 50.0 / 5.0 + 5.0), "{late:?}");
        assert_eq!(late.calls.get("CreateNetworkInterface"), Some(&100), "{late:?}");
        let half = ours(100, HALF, addresses()).expect("served").figures;
        // A bucket of 25, and 2.5 a second.
        assert!(number(half.seconds) <= 1.15 * (75.0 / 2.5 + 5.0), "{half:?}");
    }

    #[test]
    fn of_prefixes_less_than_one_is_idle_beside_what_is_to_be_ready() {
        let policy = EniPolicy { unit: Some(Unit::Prefix), ..addresses() };
        let ready = f64::from(policy.pre_allocate);
        let OurFigures { figures: ours, left, .. } = ours(100, USUAL, policy).expect("served");
        assert!(ours.seconds == 0 && ours.throttled == 0, "{ours:?}");
        assert!(ours.idle < 16.0 + ready && left < 16.0 + ready, "{ours:?} {left}");
    }

    #[test]
    fn after_ten_minutes_without_ec2_there_is_no_storm() {
        let usual = ours(100, USUAL, addresses()).expect("served").figures;
        let (after, during) = ours_after_an_outage(100).expect("served");
        assert!(during < 200, "{during} calls to an EC2 that does not answer");
        assert!(after.seconds <= OUTAGE_ENDS + 60, "{after:?}");
        // What was refused is asked again once, a few probes and looks beside it, and never more at a time than EC2 allows.
        assert!(after.all_calls() <= 2 * usual.all_calls() + during, "{after:?} {usual:?}");
        assert!(after.throttled == 0 && after.peak <= 100, "{after:?}");
    }
}
