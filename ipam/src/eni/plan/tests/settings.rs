// SPDX-License-Identifier: Apache-2.0
//! What interfaces that are there are told.

use super::*;

/// A second interface of ours beside the primary one, told to go with its instance.
fn with_a_second(policy: EniPolicy) -> World {
    let mut world = World::new(policy);
    world.add(with(attached(ours("b", "a", "10.0.0.20", "a"), "a", 1), "10.0.0.21", 1));
    world
}

#[test]
fn groups_that_change_in_the_pool_change_on_its_interfaces_and_on_no_other() {
    let mut world = with_a_second(pods(0));
    world.add(attached(eni("f", "a", "10.0.0.30"), "a", 2));
    assert_eq!(world.actions(), [], "they have what the primary one has");
    world.policy().groups = Groups::Ids(vec![group("sg-8"), group("sg-9")]);
    let set =
        |name: &str| Action::SetGroups { eni: eni_id(name), groups: vec![group("sg-8"), group("sg-9")] };
    assert_eq!(world.actions(), [set("b")]);
    world.policy().groups_of_primary = true;
    assert_eq!(world.actions(), [set("p"), set("b")]);
    world.policy().groups_of_primary = false;
    world.memory.start(&set("b"), world.now);
    world.memory.finish(&set("b"), &Ok(Reply::Done), world.now);
    assert_eq!(world.actions(), []);
    world.look();
    assert_eq!(world.actions(), [], "a look that lags is no reason to ask again");
    let other_way_round = vec![group("sg-9"), group("sg-8")];
    world.view.enis.get_mut(&eni_id("b")).expect("there").security_groups = other_way_round;
    world.pass(LAG);
    world.look();
    assert_eq!(world.actions(), []);
}

#[test]
fn groups_follow_tags_and_the_primary_interface_and_stay_where_nothing_is_chosen() {
    let mut world = with_a_second(pods(0));
    world.view.enis.get_mut(&eni_id("p")).expect("there").security_groups = vec![group("sg-5")];
    world.look();
    assert_eq!(world.actions(), [Action::SetGroups { eni: eni_id("b"), groups: vec![group("sg-5")] }]);
    world.policy().groups = Groups::Tags([("net".into(), "pods".into())].into());
    assert_eq!(world.actions(), []);
    world.view.groups.insert(group("sg-7"), [("net".into(), "pods".into())].into());
    world.look();
    let both = vec![group("sg-1"), group("sg-7")];
    assert_eq!(world.actions(), [Action::SetGroups { eni: eni_id("b"), groups: both }]);
    world.policy().groups = Groups::Tags([("net".into(), "none".into())].into());
    assert_eq!(world.actions(), []);
}

#[test]
fn a_setting_that_ec2_refuses_is_not_asked_for_again_at_once() {
    let mut world = with_a_second(pods(0));
    world.policy().groups = Groups::Ids(vec![group("sg-9")]);
    world.fail(Fault::Refused { code: "InvalidGroup.NotFound".into() });
    assert_eq!((world.actions(), world.code()), (vec![], None), "it keeps no pod waiting");
    world.pass(LAG);
    world.look();
    assert!(matches!(world.actions().as_slice(), [Action::SetGroups { .. }]));
}

#[test]
fn what_is_there_already_is_told_to_go_with_its_instance() {
    let mut world = with_a_second(pods(0));
    let second = world.view.enis.get_mut(&eni_id("b")).expect("there");
    let attachment = second.attachment.as_mut().expect("attached");
    attachment.delete_on_termination = false;
    let id = attachment.id.clone();
    world.look();
    assert_eq!(world.actions(), [Action::SetDeleteOnTermination { eni: eni_id("b"), attachment: id }]);
    world.policy().delete_on_termination = false;
    assert_eq!(world.actions(), []);
}
