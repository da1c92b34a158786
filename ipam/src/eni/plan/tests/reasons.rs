// SPDX-License-Identifier: Apache-2.0
//! Why a node gets no more, as it is told.

use super::*;

#[test]
fn every_other_reason_is_named_with_what_would_help() {
    type Change = fn(&mut World);
    let cases: [(Code, &str, Change); 7] = [
        (Code::NoSubnet, "eu-central-1a", |world| {
            world.policy().subnets = Subnets::Ids(vec![subnet_id("elsewhere")]);
        }),
        (Code::NoSecurityGroup, "securityGroups", |world| {
            world.policy().groups = Groups::Tags([("net".into(), "none".into())].into());
        }),
        (Code::InstanceFull, "larger type, or mode: prefixes", |world| {
            // Three interfaces of nine: the fourth is of nobody's making.
            for (name, index) in [("x", 1), ("y", 2)] {
                world.add(attached(eni(name, "a", "10.0.0.200"), "a", index));
            }
        }),
        (Code::NoPrefixes, "Nitro", |world| {
            world.policy().unit = Some(Unit::Prefix);
            world.node().limits.as_mut().expect("known").prefixes = false;
        }),
        (Code::UnknownType, "DescribeInstanceTypes", |world| {
            world.node().limits = None;
            world.add(attached(eni("x", "a", "10.0.0.200"), "a", 1));
            let mut primary = attached(eni("p", "a", "10.0.0.4"), "a", 0);
            primary.primary = "10.0.0.4".parse().expect("valid");
            world.add(primary);
        }),
        (Code::MaxAllocate, "maxAllocate", |world| {
            world.policy().max_allocate = Some(4);
            world.policy().min_allocate = 0;
            world.node().report = Some(report(4, 0, 0));
        }),
        (Code::KubeletLimit, "maxPods", |world| {
            world.policy().min_allocate = 0;
            world.node().kubelet_pods = Some(4);
            world.node().report = Some(report(4, 0, 0));
        }),
    ];
    for (code, words, change) in cases {
        let mut world = World::new(pods(20));
        change(&mut world);
        let (found, text) = world.code().unwrap_or_else(|| panic!("{code}"));
        assert!(found == code && text.contains(words), "{code}: {found} {text}");
    }
}

#[test]
fn a_node_that_has_all_that_its_type_allows_is_told_so() {
    let mut world = World::new(EniPolicy::default());
    for (name, index) in [("p", 0), ("x", 1), ("y", 2)] {
        let first = format!("10.0.0.{}", 10 + 20 * index);
        world.add(with(
            attached(ours(name, "a", &first, "a"), "a", index),
            &format!("10.0.0.{}", 11 + 20 * index),
            9,
        ));
    }
    world.node().report = Some(report(26, 0, 0));
    let planned = world.node_plan();
    assert_eq!((planned.verdict, planned.has, planned.most, planned.free), (None, 27, 27, 1));
    world.node().report = Some(report(26, 1, 0));
    assert_eq!(world.node_plan().free, 0, "one rests");
    world.node().report = Some(report(27, 0, 3));
    let (code, text) = world.code().expect("full");
    assert!(code == Code::InstanceFull && text.contains("All 3 interfaces of 10 slots"), "{code} {text}");
    world.node().kubelet_pods = Some(20);
    assert_eq!(world.node_plan().most, 20);
}

#[test]
fn what_goes_with_its_instance_is_not_lost() {
    let mut world = with_excess();
    world.view.enis.clear();
    world.node().instance.state = InstanceState::Terminated;
    world.look();
    world.pass(LAG);
    world.look();
    assert_eq!(world.code().expect("said").0, Code::InstanceState);
}

#[test]
fn a_reason_reads_the_same_as_long_as_it_is_the_same() {
    let mut world = World::new(pods(12));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    world.fail(Fault::SubnetShort);
    let said = world.code().expect("short");
    world.pass(Duration::from_secs(7));
    assert_eq!(world.code(), Some(said));
}
