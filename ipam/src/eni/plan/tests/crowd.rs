// SPDX-License-Identifier: Apache-2.0
//! Many nodes at once: who chooses first, and what waits for its turn.

use super::*;

/// So many nodes of type m5.large whose only interface is in subnet `a` and has nothing for pods.
fn crowd(policy: EniPolicy, count: u32, cidr: &str) -> World {
    let mut world = World::new(policy);
    world.view.subnets.insert(subnet_id("a"), subnet("a", cidr));
    let first: std::net::Ipv4Addr = "10.0.0.4".parse().expect("valid");
    (world.view.enis, world.inputs.nodes) = Default::default();
    for number in 0..count {
        let name = format!("n{number:03}");
        let addr = std::net::Ipv4Addr::from_bits(first.to_bits() + number);
        let primary = attached(eni(&name, "a", &addr.to_string()), &name, 0);
        world.view.enis.insert(primary.id.clone(), primary);
        let facts = NodeFacts { report: Some(report(0, 0, 0)), ..facts(&name, m5_large()) };
        world.inputs.nodes.insert(node(&name), facts);
    }
    world.look();
    world
}

fn calls(actions: &[Action], call: &str) -> usize {
    actions.iter().filter(|action| action.call() == call).count()
}

#[test]
fn pods_that_wait_get_the_last_addresses_of_a_subnet_before_what_is_only_to_be_ready() {
    // Of the sixteen one is the first node's, one the second's, and five are reserved: nine are left.
    let mut world = crowd(EniPolicy::default(), 2, "10.0.0.0/28");
    let last = world.inputs.nodes.get_mut(&node("n001")).expect("there");
    last.report = Some(report(0, 0, 9));
    let plan = world.plan();
    let calls: Vec<_> = plan.actions.iter().map(|planned| &planned.action).collect();
    assert!(
        matches!(calls.as_slice(), [Action::Assign { node: to, addresses, .. }]
            if *to == node("n001") && addresses.count() == 9),
        "{calls:?}"
    );
    let other = plan.nodes[&node("n000")].verdict.as_ref().expect("told");
    assert_eq!(other.code, Code::SubnetExhausted);
}

#[test]
fn a_long_line_of_one_call_holds_up_no_other_and_the_rest_follows() {
    let mut world = crowd(EniPolicy::default(), 500, "10.0.0.0/16");
    // The first three hundred have all that their first interface holds, and want another.
    for number in 0..300 {
        let name = format!("n{number:03}");
        let eni = world.view.enis.get_mut(&eni_id(&name)).expect("there");
        *eni = with(eni.clone(), &format!("10.0.{}.{}", 4 + number / 25, 10 * (number % 25)), 9);
        world.inputs.nodes.get_mut(&node(&name)).expect("there").report = Some(report(9, 0, 0));
    }
    world.look();
    let actions = world.actions();
    assert_eq!(calls(&actions, "CreateNetworkInterface"), 100);
    assert_eq!(calls(&actions, "AssignPrivateIpAddresses"), 100, "of other nodes");
    let waits = |plan: &Plan| plan.nodes.values().filter(|node| node.waits_for.is_some()).count();
    assert_eq!(waits(&world.plan()), 300);

    for action in &actions {
        world.memory.start(action, world.now);
    }
    assert_eq!(world.actions(), [], "both lines are full");
    let first = actions.iter().find(|action| action.call() == "CreateNetworkInterface").expect("there");
    world.memory.finish(first, &Err(Fault::Throttled), world.now);
    assert_eq!(calls(&world.actions(), "CreateNetworkInterface"), 1);
}

#[test]
fn a_refusal_is_told_to_those_as_well_whose_call_is_not_planned_yet() {
    let mut world = crowd(EniPolicy::default(), 300, "10.0.0.0/16");
    let first = world.actions().swap_remove(0);
    world.memory.start(&first, world.now);
    let refused = Err(Fault::Refused { code: "UnauthorizedOperation".to_owned() });
    world.memory.finish(&first, &refused, world.now);
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    let told = plan
        .nodes
        .values()
        .filter(|node| node.verdict.as_ref().is_some_and(|verdict| verdict.code == Code::Refused));
    assert_eq!(told.count(), 300);
}
