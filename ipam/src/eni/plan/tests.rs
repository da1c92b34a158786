// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{AttachmentId, Eni, EniStatus, InstanceState, Prefix, ReservationKind, SecurityGroupId};

use super::super::testing::{
    CLUSTER, attached, eni, eni_id, facts, inputs, instance_id, m5_large, node, ours, pool, report,
    reservation, subnet, subnet_id,
};
use super::super::{
    Addresses, Code, EniBlock, Fault, Groups, Key, LAG, Record, Reply, Subnets, Unit, View, Word,
};
use super::*;

mod crowd;
mod reasons;
mod told;

/// One node `a` of type m5.large: its primary interface `p` is in subnet `a`.
struct World {
    inputs: Inputs,
    memory: Memory,
    view: View,
    now: Timestamp,
}

impl World {
    fn new(policy: EniPolicy) -> Self {
        let mut view = View::default();
        view.subnets.insert(subnet_id("a"), subnet("a", "10.0.0.0/24"));
        view.groups
            .insert(SecurityGroupId::new("sg-1").expect("valid"), [("net".into(), "pods".into())].into());
        let primary = attached(eni("p", "a", "10.0.0.4"), "a", 0);
        view.enis.insert(primary.id.clone(), primary);
        let inputs = inputs(policy, [("a", facts("a", m5_large()))]);
        let mut world = Self { inputs, memory: Memory::default(), view, now: Timestamp(1_000_000) };
        world.look();
        world
    }

    fn node(&mut self) -> &mut NodeFacts {
        self.inputs.nodes.get_mut(&node("a")).expect("there")
    }

    fn policy(&mut self) -> &mut EniPolicy {
        self.inputs.pools.get_mut(&pool()).expect("there")
    }

    fn add(&mut self, eni: Eni) {
        self.view.enis.insert(eni.id.clone(), eni);
        self.look();
    }

    fn look(&mut self) {
        self.memory.see(View { at: self.now, ..self.view.clone() }, &self.inputs);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    fn plan(&mut self) -> Plan {
        plan(&self.inputs, &mut self.memory, self.now)
    }

    fn actions(&mut self) -> Vec<Action> {
        self.plan().actions.into_iter().map(|planned| planned.action).collect()
    }

    fn node_plan(&mut self) -> NodePlan {
        self.plan().nodes.remove(&node("a")).expect("planned")
    }

    /// Writes what was planned; the agent hears of it and says so.
    fn write(&mut self) -> Record {
        let record = self.node_plan().record;
        self.node().record = record.clone();
        if let Some(report) = &mut self.node().report {
            report.observed = record.generation;
        }
        record
    }

    fn code(&mut self) -> Option<(Code, String)> {
        self.node_plan().verdict.map(|verdict| (verdict.code, verdict.text))
    }

    fn fail(&mut self, fault: Fault) {
        let action = self.actions().into_iter().next().expect("something to do");
        self.memory.start(&action, self.now);
        self.memory.finish(&action, &Err(fault), self.now);
    }
}

fn pods(used: u32) -> EniPolicy {
    EniPolicy { min_allocate: used, pre_allocate: 0, ..EniPolicy::default() }
}

fn prefixes(policy: EniPolicy) -> EniPolicy {
    EniPolicy { unit: Some(Unit::Prefix), ..policy }
}

fn blocks(addresses: &Addresses) -> String {
    match addresses {
        Addresses::These(blocks) => blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Addresses::Any { addresses, prefixes } => format!("any {addresses}+{prefixes}"),
    }
}

/// The interface with so many addresses from this one on.
fn with(mut eni: Eni, first: &str, count: u32) -> Eni {
    let first: Prefix = format!("{first}/32").parse().expect("valid");
    let IpAddr::V4(first) = first.addr() else { panic!("want IPv4") };
    eni.addresses = (0..count).map(|i| (first.to_bits() + i).into()).collect();
    eni
}

#[test]
fn a_new_node_gets_one_call_for_what_is_to_be_ready() {
    let mut world = World::new(EniPolicy::default());
    let actions = world.actions();
    let [Action::Assign { addresses, eni, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(*eni, eni_id("p"));
    assert_eq!(addresses.count(), 8);
    assert!(blocks(addresses).starts_with("10.0.0.5/32 10.0.0.6/32 "), "{addresses:?}");
}

#[test]
fn all_interfaces_that_it_takes_are_made_at_once_each_with_all_its_addresses() {
    let mut world = World::new(pods(25));
    let actions = world.actions();
    let [
        Action::Assign { addresses: first, .. },
        Action::Create { addresses: second, device_index: 1, primary: Some(_), tags, .. },
        Action::Create { addresses: third, device_index: 2, .. },
    ] = actions.as_slice()
    else {
        panic!("{actions:?}")
    };
    assert_eq!([first.count(), second.count(), third.count()], [9, 9, 7]);
    assert_eq!(tags["rhumb.io/cluster"], CLUSTER);
    // Nothing is planned twice while it is under way.
    for action in &actions {
        world.memory.start(action, world.now);
    }
    assert_eq!(world.actions(), []);
}

#[test]
fn an_interface_that_is_made_is_attached_told_to_go_with_its_instance_and_published() {
    let mut world = World::new(pods(12));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    let create = world.actions().remove(0);
    let made = with(ours("b", "a", "10.0.0.20", "a"), "10.0.0.21", 3);
    world.memory.start(&create, world.now);
    world.memory.finish(&create, &Ok(Reply::Created(Box::new(made))), world.now);
    let actions = world.actions();
    let [attach @ Action::Attach { device_index: 1, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    world.memory.start(attach, world.now);
    let id = AttachmentId::new("eni-attach-b").expect("valid");
    world.memory.finish(attach, &Ok(Reply::Attached(id.clone())), world.now);
    assert_eq!(world.actions(), [Action::SetDeleteOnTermination { eni: eni_id("b"), attachment: id }]);
    let record = world.write();
    assert_eq!((record.blocks.len(), record.interfaces), (12, vec![eni_id("p"), eni_id("b")]));
    // A look that is older than the calls does not make it forget them.
    world.pass(Duration::from_secs(5));
    world.look();
    assert_eq!((world.node_plan().record.blocks.len(), world.actions().len()), (12, 1));
}

#[test]
fn after_a_crash_the_interface_is_found_by_its_tags_and_no_other_is_made() {
    let mut world = World::new(pods(12));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    world.add(with(ours("b", "a", "10.0.0.20", "a"), "10.0.0.21", 3));
    world.memory = Memory::default();
    world.look();
    assert!(matches!(world.actions().as_slice(), [Action::Attach { .. }]));
}

#[test]
fn the_same_create_call_has_the_same_token() {
    let token = |world: &mut World| match world.actions().pop() {
        Some(Action::Create { token, .. }) => token,
        other => panic!("{other:?}"),
    };
    let (mut one, mut other) = (World::new(pods(12)), World::new(pods(12)));
    other.pass(Duration::from_secs(9));
    assert_eq!(token(&mut one), token(&mut other));
    other.node().record.generation += 1;
    assert_ne!(token(&mut one), token(&mut other));
}

#[test]
fn prefixes_are_whole_blocks_and_a_create_call_takes_as_many_as_are_needed() {
    let mut world = World::new(prefixes(pods(33)));
    let actions = world.actions();
    let [Action::Assign { addresses, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(blocks(addresses), "10.0.0.16/28 10.0.0.32/28 10.0.0.48/28");
}

#[test]
fn with_custom_networking_the_primary_interface_stays_free_of_pods() {
    let mut world = World::new(EniPolicy { first_interface_index: 1, ..pods(9) });
    let actions = world.actions();
    assert!(matches!(actions.as_slice(), [Action::Create { device_index: 1, .. }]), "{actions:?}");
    assert_eq!(world.node_plan().record.interfaces, [eni_id("p")]);
}

#[test]
fn excluded_and_foreign_interfaces_are_left_alone_and_counted() {
    let policy = EniPolicy { exclude_tags: [("no".into(), "manage".into())].into(), ..pods(20) };
    let mut world = World::new(policy);
    let mut excluded = with(attached(ours("x", "a", "10.0.0.60", "a"), "a", 1), "10.0.0.61", 2);
    excluded.tags.insert("no".into(), "manage".into());
    world.add(excluded);
    let foreign = with(attached(eni("f", "a", "10.0.0.70"), "a", 2), "10.0.0.71", 2);
    world.add(foreign);
    let actions = world.actions();
    assert!(matches!(actions.as_slice(), [Action::Assign { .. }]), "{actions:?}");
    let planned = world.node_plan();
    assert_eq!((planned.record.interfaces, planned.record.blocks), (vec![eni_id("p")], vec![]));
    assert_eq!(planned.verdict.expect("full").code, Code::InstanceFull);
}

#[test]
fn one_80_is_enough_for_a_node() {
    let mut world = World::new(EniPolicy { ipv6: true, ..pods(0) });
    assert_eq!(world.code().expect("no IPv6").0, Code::NoIpv6);
    assert!(!world.node_plan().ipv6);
    world.node().leaving = true;
    assert!(!world.node_plan().ipv6, "also where it is not what is said");
    world.node().leaving = false;
    let with_v6 = world.view.subnets.get_mut(&subnet_id("a")).expect("there");
    with_v6.cidrs_v6 = vec!["fd00::/64".parse().expect("valid")];
    world.look();
    assert!(world.node_plan().ipv6);
    let actions = world.actions();
    let [action @ Action::AssignV6 { .. }] = actions.as_slice() else { panic!("{actions:?}") };
    let block: Prefix = "fd00::1:0:0:0/80".parse().expect("valid");
    world.memory.start(action, world.now);
    world.memory.finish(action, &Ok(Reply::Assigned(vec![block])), world.now);
    assert_eq!(world.actions(), []);
    assert_eq!(world.write().blocks[0].cidr, block);
}

#[test]
fn where_no_80_is_to_be_had_single_addresses_are_still_given_and_it_is_said() {
    let v6 = EniPolicy { ipv6: true, ..pods(3) };
    let mut world = World::new(v6);
    world.view.subnets.get_mut(&subnet_id("a")).expect("there").cidrs_v6 =
        vec!["fd00::/64".parse().expect("valid")];
    world.look();
    world.fail(Fault::SubnetShort);
    let actions = world.actions();
    assert!(matches!(actions.as_slice(), [Action::Assign { .. }]), "{actions:?}");
    let (code, text) = world.code().expect("said");
    assert!(code == Code::SubnetExhausted && text.contains("no /80 left"), "{code} {text}");
    world.pass(Duration::from_secs(120));
    assert!(world.actions().iter().any(|action| matches!(action, Action::AssignV6 { .. })), "asked again");

    // A type of instance that cannot have prefixes has no /80 either.
    world.node().limits.as_mut().expect("known").prefixes = false;
    let actions = world.actions();
    assert!(matches!(actions.as_slice(), [Action::Assign { .. }]), "{actions:?}");
    assert_eq!(world.code().expect("said").0, Code::NoPrefixes);
}

#[test]
fn with_custom_networking_the_80_comes_with_the_first_interface() {
    let mut world = World::new(EniPolicy { ipv6: true, unit: None, first_interface_index: 1, ..pods(0) });
    world.view.subnets.get_mut(&subnet_id("a")).expect("there").cidrs_v6 =
        vec!["fd00::/64".parse().expect("valid")];
    world.look();
    let actions = world.actions();
    assert!(matches!(actions.as_slice(), [Action::Create { prefixes_v6: 1, .. }]), "{actions:?}");
}

#[test]
fn the_check_of_addresses_is_switched_off_only_where_that_is_wanted() {
    let mut world = World::new(pods(0));
    assert_eq!(world.actions(), []);
    world.policy().switch_off_source_dest_check = true;
    assert_eq!(world.actions(), [Action::SwitchOffSourceDestCheck { eni: eni_id("p") }]);
}

#[test]
fn where_one_subnet_is_short_a_sibling_serves_and_the_first_is_tried_again_later() {
    let mut world =
        World::new(EniPolicy { subnets: Subnets::Tags([("pods".into(), "yes".into())].into()), ..pods(12) });
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    for (name, cidr) in [("b", "10.0.1.0/24"), ("c", "10.0.2.0/24")] {
        let mut sibling = subnet(name, cidr);
        sibling.tags.insert("pods".into(), "yes".into());
        world.view.subnets.insert(sibling.id.clone(), sibling);
    }
    world.look();
    let chosen = |world: &mut World| match world.actions().as_slice() {
        [Action::Create { subnet, .. }] => subnet.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen(&mut world), subnet_id("b"));
    world.fail(Fault::SubnetShort);
    assert!(world.memory.is_cooling(&subnet_id("b"), Unit::Address, world.now));
    assert_eq!(chosen(&mut world), subnet_id("c"));
    world.fail(Fault::SubnetShort);
    let (code, text) = world.code().expect("nothing left");
    assert!(code == Code::SubnetExhausted && text.contains("tried again at 00:18:40 UTC"), "{code} {text}");
    assert_eq!(world.actions(), []);
    world.pass(Duration::from_secs(120));
    assert_eq!(chosen(&mut world), subnet_id("b"));
    assert_eq!(world.code(), None);
}

#[test]
fn a_fragmented_subnet_gives_single_addresses_only_when_told_and_prefixes_again_later() {
    let mut world = World::new(prefixes(pods(16)));
    // One address of every /28 is somebody's.
    for block in 0..16u32 {
        let mut foreign = eni(&format!("f{block}"), "a", "10.0.0.1");
        foreign.primary = (0x0a00_0008 + 16 * block).into();
        world.view.enis.insert(foreign.id.clone(), foreign);
    }
    world.look();
    let (code, text) = world.code().expect("no whole block");
    assert!(code == Code::SubnetFragmented && text.contains("no whole /28"), "{code} {text}");
    assert_eq!(world.actions(), []);
    world.policy().addresses_in_prefix_subnets = true;
    let actions = world.actions();
    let [Action::Assign { addresses, .. }, Action::Create { .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(addresses.count(), 9, "as many as the interface has slots");
    world.view.enis.remove(&eni_id("f3"));
    world.look();
    let actions = world.actions();
    let [Action::Assign { addresses, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(blocks(addresses), "10.0.0.48/28");
}

#[test]
fn a_reservation_for_prefixes_is_used_first() {
    let mut world = World::new(prefixes(pods(16)));
    world.view.reservations = vec![reservation("10.0.0.128/25", ReservationKind::Prefix)];
    world.look();
    let actions = world.actions();
    let [Action::Assign { addresses, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(blocks(addresses), "10.0.0.128/28");
}

#[test]
fn where_the_pool_says_so_a_part_of_each_subnet_is_kept_for_prefixes_until_it_is_enough() {
    let mut world = World::new(prefixes(EniPolicy { reserve_prefixes: 6, ..pods(16) }));
    let reserve = |world: &mut World| {
        let actions = world.actions().into_iter().filter(|action| matches!(action, Action::Reserve { .. }));
        actions.collect::<Vec<_>>()
    };
    let mut made = Vec::new();
    for number in 0..3 {
        let Some(action) = reserve(&mut world).pop() else { break };
        let Action::Reserve { cidr, tags, .. } = &action else { panic!("{action:?}") };
        assert_eq!(tags["rhumb.io/cluster"], CLUSTER);
        made.push(cidr.to_string());
        world.memory.start(&action, world.now);
        assert_eq!(reserve(&mut world), [], "one at a time");
        let id = rhumb_model::ReservationId::new(format!("scr-{number}")).expect("valid");
        world.memory.finish(&action, &Ok(Reply::Reserved(id)), world.now);
    }
    assert_eq!(made, ["10.0.0.128/26", "10.0.0.192/27"]);
    let actions = world.actions();
    let [Action::Assign { addresses, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(blocks(addresses), "10.0.0.128/28", "prefixes come from there");
}

#[test]
fn a_reservation_that_is_not_to_be_had_stops_nothing_else_and_is_asked_for_later() {
    let mut world = World::new(prefixes(EniPolicy { reserve_prefixes: 2, ..pods(16) }));
    let action = Action::Reserve {
        subnet: subnet_id("a"),
        cidr: "10.0.0.224/27".parse().expect("valid"),
        tags: BTreeMap::new(),
    };
    let code = "SubnetCidrReservationLimitExceeded".to_owned();
    world.memory.finish(&action, &Err(Fault::Quota { code }), world.now);
    assert!(matches!(world.actions().as_slice(), [Action::Assign { .. }]));
    assert_eq!(world.code(), None);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.actions().len(), 2);
}

#[test]
fn an_address_that_somebody_took_first_is_chosen_by_ec2_after_a_look() {
    let mut world = World::new(pods(3));
    world.fail(Fault::Taken);
    assert_eq!(world.actions(), [], "a look comes first");
    world.pass(LAG);
    world.look();
    let actions = world.actions();
    let [Action::Assign { addresses, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(blocks(addresses), "any 3+0");
}

#[test]
fn a_call_of_which_nobody_knows_the_end_is_followed_by_a_look_never_by_another() {
    let mut world = World::new(pods(12));
    let actions = world.actions();
    for action in &actions {
        world.memory.start(action, world.now);
        world.memory.finish(action, &Err(Fault::Unknown), world.now);
    }
    world.pass(Duration::from_secs(5));
    world.look();
    assert_eq!(world.actions(), [], "this look may be older than the calls");
    world.pass(LAG);
    world.look();
    assert_eq!(world.actions().len(), actions.len(), "nothing happened");
}

#[test]
fn what_pods_wait_for_comes_first() {
    let policy = EniPolicy { min_allocate: 2, pre_allocate: 6, ..EniPolicy::default() };
    let mut world = World::new(policy);
    for name in ["b", "c"] {
        let primary = attached(eni(&format!("p{name}"), "a", "10.0.0.4"), name, 0);
        world.view.enis.insert(primary.id.clone(), primary);
        let facts = facts(name, m5_large());
        world.inputs.nodes.insert(node(name), facts);
    }
    let c = world.inputs.nodes.get_mut(&node("c")).expect("there");
    c.report = Some(report(0, 0, 3));
    let warm = world.view.enis.get_mut(&eni_id("pb")).expect("there");
    *warm = with(warm.clone(), "10.0.0.100", 4);
    world.look();
    let plan = world.plan();
    let order: Vec<_> =
        plan.actions.iter().map(|planned| (planned.priority, planned.action.node())).collect();
    assert_eq!(
        order,
        [
            (Priority::Waiting, Some(&node("c"))),
            (Priority::BelowMinimum, Some(&node("a"))),
            (Priority::Warm, Some(&node("b"))),
        ]
    );
}

/// Nine addresses, eight of them idle, and none wanted but one.
fn with_excess() -> World {
    let mut world = World::new(EniPolicy { pre_allocate: 0, ..EniPolicy::default() });
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.16", 9));
    world.node().report = Some(report(9, 0, 0));
    let record = world.write();
    let mut report = report(1, 0, 0);
    report.observed = record.generation;
    report.idle = record.blocks.iter().skip(1).map(|block| block.cidr).collect();
    world.node().report = Some(report);
    world
}

fn releasing(record: &Record) -> Vec<&EniBlock> {
    record.blocks.iter().filter(|block| block.releasing.is_some()).collect()
}

#[test]
fn excess_is_asked_back_acknowledged_unassigned_and_gone_after_two_looks() {
    let mut world = with_excess();
    assert!(releasing(&world.write()).is_empty(), "not at once");
    world.pass(Duration::from_secs(60));
    let record = world.write();
    assert_eq!(releasing(&record).len(), 8);
    let number = record.generation;
    assert!(releasing(&record).iter().all(|block| block.releasing == Some(number)));
    assert_eq!(world.actions(), [], "nothing is taken before the agent's word");
    let word = |block: &&EniBlock| Word { cidr: block.cidr, generation: number };
    let words: Vec<Word> = releasing(&record).iter().map(word).collect();
    world.node().report.as_mut().expect("there").released = words;
    assert_eq!(world.plan().wake_at, Some(world.now.after(Duration::from_secs(180))));
    world.pass(Duration::from_secs(180));
    assert_eq!(world.actions(), [], "the intent is written first");
    assert!(world.write().blocks.iter().skip(1).all(|block| block.unassigning));
    let actions = world.actions();
    let [unassign @ Action::Unassign { blocks, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(blocks.len(), 8);
    world.memory.start(unassign, world.now);
    world.memory.finish(unassign, &Ok(Reply::Done), world.now);
    world.view.enis.insert(eni_id("p"), with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.16", 1));
    world.look();
    assert_eq!(world.write().blocks.len(), 9, "one look is not enough");
    world.pass(LAG);
    world.look();
    assert_eq!(world.write().blocks.len(), 1);
}

#[test]
fn a_block_that_is_assigned_again_before_the_next_look_is_not_missed() {
    let mut world = World::new(pods(1));
    let block: Prefix = "10.0.0.16/32".parse().expect("valid");
    let interface = eni_id("p");
    world.node().record = Record {
        generation: 5,
        blocks: vec![EniBlock { cidr: block, interface, releasing: Some(4), unassigning: true }],
        interfaces: vec![eni_id("p")],
    };
    world.look();
    world.pass(LAG);
    world.look();
    assert!(world.write().blocks.is_empty(), "two looks agree that it is gone");
    let assign = world.actions().remove(0);
    world.memory.start(&assign, world.now);
    world.memory.finish(&assign, &Ok(Reply::Assigned(vec![block])), world.now);
    for _ in 0..2 {
        assert_eq!(world.code(), None);
        let record = world.write();
        assert!(releasing(&record).is_empty() && record.blocks[0].cidr == block, "{record:?}");
    }
}

#[test]
fn a_block_that_is_declined_or_wanted_again_is_taken_back() {
    let mut world = with_excess();
    world.plan();
    world.pass(Duration::from_secs(60));
    let record = world.write();
    let first = releasing(&record)[0].clone();
    let word = Word { cidr: first.cidr, generation: record.generation };
    world.node().report.as_mut().expect("there").declined = vec![word];
    world.node().report.as_mut().expect("there").idle.remove(&first.cidr);
    assert_eq!(releasing(&world.node_plan().record).len(), 7);
    world.node().report.as_mut().expect("there").used = 4;
    assert_eq!(releasing(&world.node_plan().record).len(), 5);
}

#[test]
fn a_word_about_an_older_question_counts_for_nothing() {
    let mut world = with_excess();
    world.plan();
    world.pass(Duration::from_secs(60));
    let record = world.write();
    let old = |block: &&EniBlock| Word { cidr: block.cidr, generation: record.generation - 1 };
    world.node().report.as_mut().expect("there").released = releasing(&record).iter().map(old).collect();
    world.plan();
    world.pass(Duration::from_secs(3600));
    assert!(world.write().blocks.iter().all(|block| !block.unassigning));
}

#[test]
fn of_the_excess_whole_interfaces_go_first_and_are_detached_and_deleted() {
    let mut world =
        World::new(EniPolicy { pre_allocate: 0, release_delay: Duration::ZERO, ..EniPolicy::default() });
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.16", 9));
    let second = with(attached(ours("b", "a", "10.0.0.40", "a"), "a", 1), "10.0.0.41", 4);
    world.add(second.clone());
    world.node().report = Some(report(13, 0, 0));
    let record = world.write();
    let mut idle = report(7, 0, 0);
    idle.observed = record.generation;
    idle.idle = record.blocks.iter().skip(7).map(|block| block.cidr).collect();
    world.node().report = Some(idle);
    world.plan();
    world.pass(Duration::from_secs(60));
    let record = world.write();
    assert_eq!(releasing(&record).iter().filter(|block| block.interface == eni_id("b")).count(), 4);
    let number = record.generation;
    let words =
        releasing(&record).iter().map(|block| Word { cidr: block.cidr, generation: number }).collect();
    world.node().report.as_mut().expect("there").released = words;
    world.write();
    let actions = world.actions();
    assert!(actions.iter().any(|action| matches!(action, Action::Detach { eni, .. } if *eni == eni_id("b"))));
    world.view.enis.insert(eni_id("b"), Eni { status: EniStatus::Available, attachment: None, ..second });
    world.look();
    assert!(world.actions().contains(&Action::Delete { eni: eni_id("b") }), "nobody waits for a second look");
}

/// What the agent says when it lets go all that it is asked for.
fn let_go(world: &mut World, record: &Record) {
    let word = |block: &&EniBlock| Some(Word { cidr: block.cidr, generation: block.releasing? });
    let words = releasing(record).iter().filter_map(word).collect();
    world.node().report.as_mut().expect("there").released = words;
}

#[test]
fn interfaces_that_nobody_has_are_deleted_when_they_are_ours_old_and_seen_twice() {
    let mut world = World::new(pods(0));
    world.add(ours("gone", "a", "10.0.0.50", "long-gone"));
    world.add(eni("foreign", "a", "10.0.0.51"));
    let mut other = ours("other", "a", "10.0.0.52", "x");
    other.tags.insert("rhumb.io/cluster".into(), "c2".into());
    world.add(other);
    world.pass(Duration::from_secs(299));
    world.look();
    assert_eq!(world.actions(), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.actions(), [], "the second look is missing");
    world.look();
    assert_eq!(world.actions(), [Action::Delete { eni: eni_id("gone") }]);
}

#[test]
fn a_drained_node_is_left_alone() {
    let mut world = World::new(EniPolicy::default());
    world.node().leaving = true;
    assert_eq!((world.actions(), world.code().expect("said").0), (vec![], Code::Leaving));
    world.node().leaving = false;
    world.node().instance.state = InstanceState::ShuttingDown;
    assert_eq!((world.actions(), world.code().expect("said").0), (vec![], Code::InstanceState));
}

#[test]
fn the_budget_of_interfaces_ends_and_comes_again() {
    let mut world = World::new(EniPolicy { interfaces_per_hour: 1, ..pods(12) });
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    world.fail(Fault::Unavailable);
    assert_eq!(world.actions().len(), 1, "nothing was made");
    world.fail(Fault::Unknown);
    world.pass(LAG);
    world.look();
    let (code, text) = world.code().expect("used up");
    assert!(code == Code::Budget && text.contains("again at 01:16:40 UTC"), "{code} {text}");
    assert_eq!(world.actions(), []);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.actions().len(), 1);
}

#[test]
fn a_budget_outlives_the_operator_as_long_as_the_interfaces_are_there() {
    let mut world = World::new(EniPolicy { interfaces_per_hour: 1, ..pods(20) });
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    let mut second = with(attached(ours("b", "a", "10.0.0.40", "a"), "a", 1), "10.0.0.41", 9);
    second.tags.insert("rhumb.io/created".into(), (world.now.0 - 1000).to_string());
    world.add(second);
    assert_eq!((world.actions(), world.code().expect("used up").0), (vec![], Code::Budget));
    world.pass(Duration::from_secs(3599));
    assert_eq!(world.actions().len(), 1);
}

#[test]
fn a_node_whose_calls_fail_again_and_again_waits_longer_each_time() {
    let mut world = World::new(pods(3));
    let mut waits = Vec::new();
    for _ in 0..5 {
        world.fail(Fault::Stale { code: "IncorrectState".into() });
        world.pass(LAG);
        world.look();
        let mut waited = 30;
        while world.actions().is_empty() {
            let (code, text) = world.code().expect("said");
            assert!(
                code == Code::Backoff && text.contains("AssignPrivateIpAddresses answered IncorrectState")
            );
            world.pass(Duration::from_secs(10));
            waited += 10;
        }
        waits.push(waited);
    }
    assert_eq!(waits, [30, 30, 30, 30, 40]);
}

#[test]
fn while_ec2_is_silent_one_call_at_a_time_asks_and_then_all_go_on() {
    let mut world = World::new(EniPolicy::default());
    for number in 0..20 {
        let name = format!("n{number}");
        let primary = attached(eni(&format!("p{number}"), "a", "10.0.0.4"), &name, 0);
        world.view.enis.insert(primary.id.clone(), primary);
        world.inputs.nodes.insert(node(&name), facts(&name, m5_large()));
    }
    world.look();
    let all = world.actions();
    assert_eq!(all.len(), 21);
    for action in &all {
        world.memory.start(action, world.now);
        world.memory.finish(action, &Err(Fault::Unavailable), world.now);
    }
    let mut calls = 0;
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
        let plan = world.plan();
        assert!(plan.wake_at.is_none_or(|at| at > world.now), "a plan that wakes at once never sleeps");
        for action in plan.actions.into_iter().map(|planned| planned.action) {
            calls += 1;
            world.memory.start(&action, world.now);
            world.memory.finish(&action, &Err(Fault::Unavailable), world.now);
        }
    }
    assert!((15..=40).contains(&calls), "{calls} calls in ten minutes");
    assert_eq!(world.code().expect("said").0, Code::Unreachable);
    world.pass(Duration::from_secs(30));
    let probe = world.actions();
    let [action @ Action::Assign { .. }] = probe.as_slice() else { panic!("{probe:?}") };
    world.memory.start(action, world.now);
    world.memory.finish(action, &Ok(Reply::Assigned(Vec::new())), world.now);
    assert_eq!(world.actions().len(), 21);
}

#[test]
fn a_quota_stops_no_more_than_it_limits() {
    let mut world = World::new(pods(12));
    world.add(ours("made", "a", "10.0.0.40", "a"));
    let calls = |world: &mut World| {
        let names = world.actions().iter().map(Action::call).collect::<BTreeSet<_>>();
        names.into_iter().map(|name| name.split_at(6).0).collect::<Vec<_>>()
    };
    assert_eq!(calls(&mut world), ["Assign", "Attach", "Create"]);
    let create = world.actions().into_iter().find(|action| matches!(action, Action::Create { .. }));
    let create = create.expect("planned");
    let fail = |world: &mut World, code: &str| {
        world.memory.start(&create, world.now);
        world.memory.finish(&create, &Err(Fault::Quota { code: code.into() }), world.now);
    };
    fail(&mut world, "NetworkInterfaceLimitExceeded");
    assert_eq!(calls(&mut world), ["Assign", "Attach"], "what is there takes addresses still");
    assert_eq!(world.code().expect("said").0, Code::Quota);
    fail(&mut world, "NetworkAddressUsageLimitExceeded");
    assert_eq!(calls(&mut world), ["Attach"], "it has its addresses already");
    world.pass(Duration::from_secs(300));
    assert_eq!(calls(&mut world), ["Assign", "Attach", "Create"]);
}

#[test]
fn a_quota_stops_what_takes_and_a_refusal_the_one_call_for_all_nodes() {
    let mut world = World::new(pods(3));
    world.fail(Fault::Quota { code: "NetworkAddressUsageLimitExceeded".into() });
    let (code, text) = world.code().expect("said");
    assert!(code == Code::Quota && text.contains("Network Address Usage"), "{code} {text}");
    world.pass(Duration::from_secs(300));
    world.fail(Fault::Refused { code: "UnauthorizedOperation".into() });
    let (code, text) = world.code().expect("said");
    assert!(code == Code::Refused && text.contains("ec2:AssignPrivateIpAddresses"), "{code} {text}");
    assert_eq!(world.actions(), []);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.actions().len(), 1);
}

#[test]
fn security_groups_are_those_of_the_primary_the_named_or_the_tagged() {
    for (groups, wanted) in [
        (Groups::OfPrimary, "sg-1"),
        (Groups::Ids(vec![group("sg-9")]), "sg-9"),
        (Groups::Tags([("net".into(), "pods".into())].into()), "sg-1"),
    ] {
        let mut world = World::new(EniPolicy { groups, first_interface_index: 1, ..pods(1) });
        let actions = world.actions();
        let [Action::Create { groups, .. }] = actions.as_slice() else { panic!("{actions:?}") };
        assert_eq!(*groups, [group(wanted)]);
    }
}

fn group(name: &str) -> SecurityGroupId {
    SecurityGroupId::new(name).expect("valid")
}

#[test]
fn the_places_of_attachments_under_way_are_not_given_twice() {
    let mut world = World::new(pods(27));
    world.add(with(attached(eni("p", "a", "10.0.0.4"), "a", 0), "10.0.0.5", 9));
    world.add(with(ours("b", "a", "10.0.0.40", "a"), "10.0.0.41", 9));
    let attach = world.actions().remove(0);
    world.memory.start(&attach, world.now);
    world.add(with(ours("c", "a", "10.0.0.60", "a"), "10.0.0.61", 9));
    let actions = world.actions();
    assert!(
        matches!(actions.as_slice(), [Action::Attach { device_index: 2, instance, .. }] if *instance == instance_id("a")),
        "{actions:?}"
    );
}

mod settings;
