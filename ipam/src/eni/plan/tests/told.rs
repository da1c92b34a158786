// SPDX-License-Identifier: Apache-2.0
//! What a node was told: given back, put right, or taken away by others.

use super::*;

#[test]
fn an_interface_that_somebody_detached_is_attached_again_with_all_that_the_node_was_told() {
    let mut world = World::new(pods(12));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    let second = with(ours("b", "a", "10.0.0.40", "a"), "10.0.0.41", 3);
    world.add(attached(second.clone(), "a", 1));
    assert_eq!(world.write().blocks.len(), 12);
    world.add(second);
    let actions = world.actions();
    assert!(matches!(actions.as_slice(), [Action::Attach { eni, .. }] if *eni == eni_id("b")), "{actions:?}");
    world.pass(LAG);
    world.look();
    assert!(releasing(&world.node_plan().record).is_empty(), "it is still the node's");
}

#[test]
fn what_another_instance_of_the_same_name_had_is_no_longer_leased_and_then_swept() {
    let mut world = World::new(pods(1));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 1));
    let old = with(ours("old", "a", "10.0.0.40", "a"), "10.0.0.41", 2);
    world.add(attached(old.clone(), "a", 1));
    let record = world.write();
    assert_eq!(record.blocks.len(), 3);
    let instance = instance_id("new");
    let mut primary = attached(eni("q", "a", "10.0.0.50"), "new", 0);
    primary.addresses = vec!["10.0.0.51".parse().expect("valid")];
    world.node().instance.id = instance;
    world.node().report = Some(report(0, 0, 0));
    world.view.enis.remove(&eni_id("p"));
    world.add(primary);
    world.add(old);
    world.pass(LAG);
    world.look();
    let record = world.write();
    assert_eq!(releasing(&record).len(), 3);
    world.policy().release_delay = Duration::ZERO;
    let_go(&mut world, &record);
    world.write();
    assert_eq!(world.actions(), [Action::Delete { eni: eni_id("old") }]);
    let record = world.write();
    assert_eq!(
        record.blocks.iter().map(|block| block.cidr.to_string()).collect::<Vec<_>>(),
        ["10.0.0.51/32"]
    );
}

#[test]
fn an_instance_on_its_way_out_has_lost_nothing() {
    let mut world = with_excess();
    world.view.enis.clear();
    world.node().instance.state = InstanceState::ShuttingDown;
    world.look();
    world.pass(LAG);
    world.look();
    let planned = world.node_plan();
    assert_eq!(planned.verdict.expect("said").code, Code::InstanceState);
    assert!(releasing(&planned.record).is_empty());
}

#[test]
fn a_node_config_that_is_made_anew_is_newer_than_any_before() {
    let mut world = with_excess();
    let before = world.write().generation;
    world.pass(Duration::from_secs(1));
    world.node().record = Record::default();
    assert!(world.write().generation > before);
}

#[test]
fn where_the_pool_gives_no_time_ec2_has_a_block_back_as_soon_as_the_agent_let_it_go() {
    let mut world = with_excess();
    (world.policy().settle, world.policy().release_delay) = (Duration::ZERO, Duration::ZERO);
    let record = world.write();
    assert_eq!(releasing(&record).len(), 8);
    let_go(&mut world, &record);
    assert!(world.write().blocks.iter().skip(1).all(|block| block.unassigning));
    assert!(matches!(world.actions().as_slice(), [Action::Unassign { .. }]));
}

#[test]
fn excess_settles_while_its_addresses_rest() {
    let mut world = with_excess();
    let idle = std::mem::take(&mut world.node().report.as_mut().expect("there").idle);
    let plan = world.plan();
    assert_eq!(plan.wake_at, None, "the agent's word is waited for, not time");
    world.pass(Duration::from_secs(60));
    assert!(releasing(&world.write()).is_empty());
    world.node().report.as_mut().expect("there").idle = idle;
    assert_eq!(releasing(&world.write()).len(), 8);
}

#[test]
fn a_look_is_asked_for_when_it_will_show_what_is_waited_for_and_at_no_other_time() {
    let mut world = with_excess();
    (world.policy().settle, world.policy().release_delay) = (Duration::ZERO, Duration::ZERO);
    let record = world.write();
    let_go(&mut world, &record);
    world.write();
    assert_eq!(world.plan().look_at, None, "the agent and our own calls are waited for, no look");
    let unassign = world.actions().remove(0);
    world.memory.start(&unassign, world.now);
    world.memory.finish(&unassign, &Err(Fault::Unknown), world.now);
    assert_eq!(world.plan().look_at, Some(world.now.after(LAG)), "what became of the call");
    world.pass(LAG);
    world.view.enis.insert(eni_id("p"), with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.16", 1));
    world.look();
    assert_eq!(world.plan().look_at, Some(world.now.after(LAG)), "the second look that does not show them");
    world.pass(LAG);
    world.look();
    world.write();
    let going = attached(ours("b", "a", "10.0.0.40", "a"), "a", 1);
    world.add(Eni { status: EniStatus::Detaching, ..going.clone() });
    assert_eq!(world.plan().look_at, Some(world.now.after(Duration::from_secs(5))), "it is soon detached");
    world.add(Eni { status: EniStatus::Available, attachment: None, ..going });
    assert_eq!(world.plan().look_at, None);
}

#[test]
fn a_block_that_ec2_lost_is_named_and_no_longer_leased() {
    let mut world = with_excess();
    world.view.enis.insert(eni_id("p"), with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.17", 8));
    world.look();
    assert_eq!(world.code(), None, "one look is not enough");
    world.pass(LAG);
    world.look();
    let planned = world.node_plan();
    let verdict = planned.verdict.expect("said");
    assert!(verdict.code == Code::BlockLost && verdict.text.contains("10.0.0.16/32"), "{verdict:?}");
    assert!(planned.record.blocks[0].releasing.is_some());
}

#[test]
fn an_interface_that_is_to_be_left_alone_is_drained_and_then_nobody_touches_it() {
    let exclude_tags = BTreeMap::from([("keep".to_owned(), "out".to_owned())]);
    let mut world = World::new(EniPolicy { exclude_tags: exclude_tags.clone(), pre_allocate: 0, ..pods(10) });
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    let second = with(attached(ours("b", "a", "10.0.0.40", "a"), "a", 1), "10.0.0.41", 1);
    world.add(second.clone());
    world.node().report = Some(report(0, 0, 0));
    assert_eq!(world.write().blocks.len(), 10);
    world.node().report.as_mut().expect("there").used = 10;

    world.add(Eni { tags: second.tags.into_iter().chain(exclude_tags).collect(), ..second });
    let record = world.write();
    let [asked] = releasing(&record)[..] else { panic!("{record:?}") };
    let generation = asked.releasing.expect("a number");
    assert_eq!(asked.interface, eni_id("b"));
    let word = Word { cidr: asked.cidr, generation };
    world.node().report.as_mut().expect("there").declined = vec![word];
    assert_eq!(world.write(), record, "a pod has its address, and keeps it");
    assert_eq!(world.code(), None, "nothing is lost");

    let report = world.node().report.as_mut().expect("there");
    (report.declined, report.released, report.used) = (vec![], vec![word], 9);
    world.write();
    world.pass(Duration::from_secs(180));
    assert!(releasing(&world.write())[0].unassigning);
    let record = world.write();
    assert_eq!((record.blocks.len(), record.interfaces), (9, vec![eni_id("p")]));
    let about_it = |actions: Vec<Action>| actions.into_iter().any(|it| it.key() == Key::Eni(eni_id("b")));
    assert!(!about_it(world.actions()), "EC2 is asked for nothing about it");

    // Nor when somebody took it away from the node.
    let mut free = world.view.enis[&eni_id("b")].clone();
    (free.attachment, free.status) = (None, EniStatus::Available);
    world.add(free);
    world.pass(Duration::from_secs(1000));
    world.look();
    assert!(!about_it(world.actions()));
}

#[test]
fn an_interface_that_ec2_does_not_know_yet_is_asked_about_again_in_a_moment() {
    let mut world = World::new(pods(12));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    let create = world.actions().swap_remove(0);
    world.memory.start(&create, world.now);
    let made = with(ours("b", "a", "10.0.0.40", "a"), "10.0.0.41", 3);
    world.memory.finish(&create, &Ok(Reply::Created(Box::new(made))), world.now);
    for _ in 0..5 {
        let attach = world.actions().swap_remove(0);
        assert!(matches!(attach, Action::Attach { .. }), "{attach:?}");
        world.memory.start(&attach, world.now);
        let unknown = Err(Fault::Stale { code: "InvalidNetworkInterfaceID.NotFound".to_owned() });
        world.memory.finish(&attach, &unknown, world.now);
        let plan = world.plan();
        assert_eq!((plan.actions, plan.wake_at), (vec![], Some(world.now.after(Duration::from_secs(1)))));
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.code(), None, "no failure of the node");

    // Once looks cannot be older than the call that made it, it is gone.
    world.pass(LAG);
    world.look();
    assert!(!world.memory.view().enis.contains_key(&eni_id("b")));
}

#[test]
fn that_a_setting_is_refused_is_told_to_the_node() {
    let mut world = World::new(EniPolicy { switch_off_source_dest_check: true, ..pods(0) });
    world.fail(Fault::Refused { code: "UnauthorizedOperation".to_owned() });
    let (code, text) = world.code().expect("told");
    assert!(code == Code::Refused && text.contains("ModifyNetworkInterfaceAttribute"), "{code} {text}");
}
