// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use proptest::prelude::*;
use rhumb_model::{AttachmentId, Eni, EniId, Prefix, SubnetId, Zone};

use super::*;
use crate::call::{
    Assign, AssignV6, Attach, Change, Detach, Launch, NewInterface, Question, Unassign, UnassignV6, Want,
    Wants,
};
use crate::invariants::Broken;
use crate::settings::Span;
use crate::state::{InterfaceChange, NewSubnet, NewVpc};

fn p(text: &str) -> Prefix {
    text.parse().expect("valid prefix")
}

fn vpc() -> VpcId {
    VpcId::new("vpc-1").expect("valid")
}

fn subnet() -> SubnetId {
    SubnetId::new("subnet-1").expect("valid")
}

/// A VPC with one subnet and as many instances as told, which run after a minute.
fn fake(settings: Settings, cidr: &str, instances: u16) -> (Fake, Vec<InstanceId>) {
    let mut fake = Fake::new(settings, Timestamp(0));
    fake.limit(Limits::none());
    let (cidrs, cidrs_v6) = (vec![p("10.0.0.0/16")], vec![p("fd00:0:0:100::/56")]);
    let world = fake.world_mut();
    world.create_vpc(NewVpc { id: Some(vpc()), cidrs, cidrs_v6, tags: Default::default() }).expect("a VPC");
    let new = NewSubnet {
        id: Some(subnet()),
        vpc: vpc(),
        zone: Zone::new("eu-central-1a").expect("valid"),
        cidr: p(cidr),
        cidr_v6: Some(p("fd00:0:0:101::/64")),
        tags: Default::default(),
    };
    world.create_subnet(new).expect("a subnet");
    if instances == 0 {
        return (fake, Vec::new());
    }
    let launch = Launch { count: instances, ..Launch::new("m5.large", subnet()) };
    let answer = fake.ask(Timestamp(0), Action::RunInstances(launch)).expect("instances");
    let Answer::Launched(_, instances) = answer else { panic!("{answer:?}") };
    fake.advance(Timestamp(60_000));
    (fake, instances.iter().map(|instance| instance.id.clone()).collect())
}

fn first(fake: &Fake, instance: &InstanceId) -> Arc<Eni> {
    Arc::clone(fake.world().interfaces_of(instance).next().expect("every instance has one"))
}

fn assign(eni: &EniId, count: u16) -> Action {
    Action::AssignPrivateIpAddresses(Assign {
        interface: eni.clone(),
        addresses: Want::Count(count),
        prefixes: Want::Count(0),
        reassign: false,
    })
}

fn rule(action: &str, fault: Fault) -> Rule {
    Rule { action: Some(action.to_owned()), times: Some(1), fault, ..Rule::default() }
}

#[test]
fn a_lost_reply_has_happened_and_a_lost_call_has_not() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 1);
    let eni = first(&fake, &instances[0]).id.clone();
    let had = |fake: &Fake| fake.world().interface(&eni).expect("there").addresses.len();
    for (fault, outcome, addresses) in [
        (Fault::LostReply, Outcome::LostReply, 1),
        (Fault::LostCall, Outcome::LostCall, 1),
        (Fault::Hang, Outcome::Hung, 2),
        (Fault::Garbage { status: 503 }, Outcome::Garbage(503), 2),
    ] {
        fake.fault(rule("AssignPrivateIpAddresses", fault));
        assert_eq!(fake.call(Timestamp(0), &assign(&eni, 1).into()).outcome, outcome);
        assert_eq!(had(&fake), addresses, "{outcome:?}");
    }
    fake.fault(rule("Assign*", Fault::Slow { millis: 700 }));
    assert_eq!(fake.call(Timestamp(0), &assign(&eni, 1).into()).after, Duration::from_millis(700));
    assert_eq!(fake.call(Timestamp(0), &assign(&eni, 1).into()).after, Duration::ZERO);
}

#[test]
fn a_fault_finds_the_calls_of_an_instance_by_its_interfaces() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 2);
    let refused =
        Fault::Error { code: "UnauthorizedOperation".to_owned(), message: String::new(), status: Some(403) };
    fake.fault(Rule { subject: Some(instances[1].to_string()), fault: refused, ..Rule::default() });
    let (one, two) = (first(&fake, &instances[0]).id.clone(), first(&fake, &instances[1]).id.clone());
    fake.ask(Timestamp(0), assign(&one, 1)).expect("another instance");
    assert_eq!(fake.ask(Timestamp(0), assign(&two, 1)).expect_err("refused").code, "UnauthorizedOperation");
    fake.clear_faults();
    fake.ask(Timestamp(0), assign(&two, 1)).expect("no faults any more");
}

#[test]
fn a_throttled_call_changes_nothing_and_is_counted() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 1);
    fake.limit(Limits { scale: Some(0.01), ..Limits::default() });
    let eni = first(&fake, &instances[0]).id.clone();
    fake.ask(Timestamp(60_000), assign(&eni, 1)).expect("one passes");
    let refused = fake.ask(Timestamp(60_000), assign(&eni, 1)).expect_err("the next does not");
    assert_eq!((refused.code.as_ref(), refused.status), ("RequestLimitExceeded", 503));
    assert_eq!(fake.world().interface(&eni).expect("there").addresses.len(), 1);
    let count = &fake.ledger().counts()["AssignPrivateIpAddresses"];
    assert_eq!((count.calls, count.throttled, count.failed, count.most_in_a_second), (2, 1, 0, 2));
}

#[test]
fn an_address_that_a_pod_uses_must_stay() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 2);
    let eni = first(&fake, &instances[0]);
    let prefixes = Action::AssignPrivateIpAddresses(Assign {
        interface: eni.id.clone(),
        addresses: Want::Count(0),
        prefixes: Want::Count(1),
        reassign: false,
    });
    fake.ask(Timestamp(0), assign(&eni.id, 1)).expect("an address");
    fake.ask(Timestamp(0), prefixes).expect("a prefix");
    let eni = first(&fake, &instances[0]);
    let user = |pod: &str, instance: &InstanceId| User { pod: pod.to_owned(), instance: instance.clone() };
    let inside = eni.prefixes[0].nth(7).expect("one of sixteen");
    fake.claim(&vpc(), inside, user("a", &instances[0]));
    fake.claim(&vpc(), eni.addresses[0].into(), user("b", &instances[0]));
    assert_eq!(fake.violations(), []);
    let unassign = |prefixes, addresses| {
        Action::UnassignPrivateIpAddresses(Unassign { interface: eni.id.clone(), addresses, prefixes })
    };
    fake.disclaim(&vpc(), eni.addresses[0].into());
    fake.ask(Timestamp(0), unassign(Vec::new(), eni.addresses.clone())).expect("nobody uses it");
    assert_eq!(fake.violations(), []);
    fake.ask(Timestamp(0), unassign(eni.prefixes.clone(), Vec::new())).expect("EC2 does not know pods");
    let violation = &fake.violations()[0];
    assert_eq!(violation.rule, Broken::InUseUnassigned);
    assert!(
        violation.text.contains(&inside.to_string()) && violation.text.contains("while a on"),
        "{violation}"
    );
    assert!(
        violation.history.last().expect("a history").contains("UnassignPrivateIpAddresses"),
        "{violation}"
    );
    fake.claim(&vpc(), first(&fake, &instances[1]).primary.into(), user("c", &instances[0]));
    assert_eq!(fake.violations()[1].rule, Broken::NotHeld);
    fake.claim(&vpc(), inside, user("d", &instances[0]));
    let rules: Vec<Broken> = fake.violations()[2..].iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Broken::NotHeld, Broken::UsedTwice]);
}

#[test]
fn pods_of_an_instance_go_with_it() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 1);
    let eni = first(&fake, &instances[0]);
    fake.claim(&vpc(), eni.primary.into(), User { pod: "a".to_owned(), instance: instances[0].clone() });
    fake.ask(Timestamp(60_000), Action::TerminateInstances(instances)).expect("terminates");
    fake.advance(Timestamp(60_001));
    assert_eq!(fake.world().interface(&eni.id), None);
    assert_eq!(fake.violations(), []);
}

#[test]
fn an_interface_that_nobody_takes_is_leaked_after_a_while() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 1);
    fake.longest_idle(Some(Duration::from_secs(300)));
    let mut make =
        |now| match fake.ask(Timestamp(now), Action::CreateNetworkInterface(NewInterface::new(subnet()))) {
            Ok(Answer::Interface(eni)) => eni.id.clone(),
            other => panic!("{other:?}"),
        };
    let (taken, left) = (make(60_000), make(60_000));
    let attach = Attach { interface: taken, instance: instances[0].clone(), device_index: 1, card: 0 };
    fake.ask(Timestamp(61_000), Action::AttachNetworkInterface(attach)).expect("attaches");
    fake.advance(Timestamp(360_000));
    assert_eq!(fake.violations(), []);
    fake.advance(Timestamp(360_001));
    let violations: Vec<_> =
        fake.violations().iter().map(|found| (found.rule, found.text.contains(left.as_str()))).collect();
    assert_eq!(violations, [(Broken::Leaked, true)]);
    fake.advance(Timestamp(900_000));
    assert_eq!(fake.violations().len(), 1, "said once");
}

#[test]
fn too_many_calls_in_a_second_are_a_violation() {
    let (mut fake, _) = fake(Settings::at_once(), "10.0.0.0/24", 0);
    fake.most_calls(BTreeMap::from([("DescribeSubnets".to_owned(), 2)]));
    let ask = |fake: &mut Fake, now| {
        fake.ask(Timestamp(now), Action::DescribeSubnets(Question::default())).map(|_| ())
    };
    for now in [0, 999, 1_000, 1_999] {
        ask(&mut fake, now).expect("shown");
    }
    assert_eq!(fake.violations(), []);
    ask(&mut fake, 1_999).expect("shown");
    ask(&mut fake, 1_999).expect("shown");
    assert_eq!(fake.violations().len(), 1, "once a second");
    assert_eq!(fake.violations()[0].rule, Broken::TooManyCalls);
}

#[test]
fn an_address_that_two_have_is_seen_by_the_books() {
    let (mut fake, instances) = fake(Settings::at_once(), "10.0.0.0/24", 2);
    let (one, two) = (first(&fake, &instances[0]), first(&fake, &instances[1]));
    let mut same = Eni::clone(&two);
    same.prefixes.push(Prefix::containing(one.primary.into(), 28));
    let change = InterfaceChange { before: Some(two), after: Some(Arc::new(same)) };
    fake.invariants.check(&fake.world, &fake.ledger, vec![change]);
    assert_eq!(fake.violations()[0].rule, Broken::AddressTwice, "an address within another's prefix");
}

#[test]
fn a_thousand_nodes_are_filled_without_a_violation() {
    let settings = Settings { usage_quota: 100_000, ..Settings::default() };
    let (mut fake, instances) = fake(settings, "10.0.0.0/16", 1_000);
    fake.limit(Limits::default());
    let (mut now, mut waiting) = (60_000, Vec::new());
    for instance in &instances {
        let wants = Wants { prefixes: Want::Count(2), ..Wants::default() };
        loop {
            let new = NewInterface { wants: wants.clone(), ..NewInterface::new(subnet()) };
            match fake.ask(Timestamp(now), Action::CreateNetworkInterface(new)) {
                Ok(Answer::Interface(eni)) => break waiting.push((eni.id.clone(), instance.clone())),
                Ok(other) => panic!("{other:?}"),
                Err(refusal) => assert_eq!(refusal.code, "RequestLimitExceeded"),
            }
            now += 200;
        }
    }
    // 100 at once and five a second: the bucket itself decides how long this takes.
    assert_eq!(now, 60_000 + 900 * 200);
    let begin = now;
    for (interface, instance) in waiting {
        let attach = Attach { interface, instance, device_index: 1, card: 0 };
        while fake.ask(Timestamp(now), Action::AttachNetworkInterface(attach.clone())).is_err() {
            now += 200;
        }
    }
    assert_eq!(now - begin, 950 * 200);
    fake.advance(Timestamp(now + 10_000));
    let full =
        fake.world().instances().filter(|found| fake.world().interfaces_of(&found.id).count() == 2).count();
    assert_eq!((full, fake.violations()), (1_000, [].as_slice()));
    fake.world().audit().expect("the books agree");
}

#[derive(Debug, Clone)]
enum Step {
    Create { addresses: u16, prefixes: u16, prefixes_v6: u16 },
    Attach { eni: usize, instance: usize, index: u8 },
    Detach { eni: usize, force: bool },
    Delete(usize),
    Assign { eni: usize, addresses: u16, prefixes: u16 },
    AssignV6 { eni: usize, addresses: u16, prefixes: u16 },
    Unassign { eni: usize, address: usize },
    Reassign { from: usize, to: usize },
    Goes(usize, bool),
    Terminate(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any = || 0usize..64;
    let either = || proptest::bool::ANY;
    prop_oneof![
        (0u16..4, 0u16..2, 0u16..2).prop_map(|(addresses, prefixes, prefixes_v6)| Step::Create {
            addresses,
            prefixes,
            prefixes_v6
        }),
        (any(), any(), 0u8..4).prop_map(|(eni, instance, index)| Step::Attach { eni, instance, index }),
        (any(), any(), 0u8..4).prop_map(|(eni, instance, index)| Step::Attach { eni, instance, index }),
        (any(), either()).prop_map(|(eni, force)| Step::Detach { eni, force }),
        any().prop_map(Step::Delete),
        (any(), 0u16..5, 0u16..2).prop_map(|(eni, addresses, prefixes)| Step::Assign {
            eni,
            addresses,
            prefixes
        }),
        (any(), 0u16..3, 0u16..2).prop_map(|(eni, addresses, prefixes)| Step::AssignV6 {
            eni,
            addresses,
            prefixes
        }),
        (any(), any()).prop_map(|(eni, address)| Step::Unassign { eni, address }),
        (any(), any()).prop_map(|(from, to)| Step::Reassign { from, to }),
        (any(), either()).prop_map(|(eni, goes)| Step::Goes(eni, goes)),
        any().prop_map(Step::Terminate),
        (0u64..20_000).prop_map(Step::Wait),
    ]
}

/// The action of a step on the objects that there are.
fn action(step: &Step, enis: &[Arc<Eni>], instances: &[InstanceId]) -> Option<Action> {
    let eni = |number: &usize| enis.get(number % enis.len().max(1));
    let attachment =
        |number: &usize| -> Option<AttachmentId> { Some(eni(number)?.attachment.as_ref()?.id.clone()) };
    Some(match step {
        Step::Create { addresses, prefixes, prefixes_v6 } => Action::CreateNetworkInterface(NewInterface {
            wants: Wants {
                addresses: Want::Count(*addresses),
                prefixes: Want::Count(*prefixes),
                prefixes_v6: Want::Count(*prefixes_v6),
                ..Wants::default()
            },
            ..NewInterface::new(subnet())
        }),
        Step::Attach { eni: number, instance, index } => Action::AttachNetworkInterface(Attach {
            interface: eni(number)?.id.clone(),
            instance: instances[instance % instances.len()].clone(),
            device_index: *index,
            card: 0,
        }),
        Step::Detach { eni, force } => {
            Action::DetachNetworkInterface(Detach { attachment: attachment(eni)?, force: *force })
        }
        Step::Delete(number) => Action::DeleteNetworkInterface(eni(number)?.id.clone()),
        Step::Assign { eni: number, addresses, prefixes } => Action::AssignPrivateIpAddresses(Assign {
            interface: eni(number)?.id.clone(),
            addresses: Want::Count(*addresses),
            prefixes: Want::Count(*prefixes),
            reassign: false,
        }),
        Step::AssignV6 { eni: number, addresses, prefixes } => Action::AssignIpv6Addresses(AssignV6 {
            interface: eni(number)?.id.clone(),
            addresses: Want::Count(*addresses),
            prefixes: Want::Count(*prefixes),
        }),
        Step::Unassign { eni: number, address } => {
            let eni = eni(number)?;
            if address % 2 == 1 && !eni.prefixes_v6.is_empty() {
                return Some(Action::UnassignIpv6Addresses(UnassignV6 {
                    interface: eni.id.clone(),
                    addresses: eni.addresses_v6.clone(),
                    prefixes: eni.prefixes_v6.clone(),
                }));
            }
            let all: Vec<_> = std::iter::once(eni.primary).chain(eni.addresses.iter().copied()).collect();
            Action::UnassignPrivateIpAddresses(Unassign {
                interface: eni.id.clone(),
                addresses: vec![all[address % all.len()]],
                prefixes: eni.prefixes.clone(),
            })
        }
        Step::Reassign { from, to } => Action::AssignPrivateIpAddresses(Assign {
            interface: eni(to)?.id.clone(),
            addresses: Want::These(eni(from)?.addresses.clone()),
            prefixes: Want::Count(0),
            reassign: true,
        }),
        Step::Goes(number, goes) => Action::ModifyNetworkInterfaceAttribute(
            eni(number)?.id.clone(),
            Change::DeleteOnTermination(attachment(number)?, *goes),
        ),
        Step::Terminate(number) => {
            Action::TerminateInstances(vec![instances[number % instances.len()].clone()])
        }
        Step::Wait(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_is_called_the_books_agree_and_a_refusal_changes_nothing(
        steps in prop::collection::vec(step(), 1..120), seed: u64, lag in 0u64..5_000,
    ) {
        let settings = Settings { seed, lag: Span(0, lag), terminated_shown: 30_000, ..Settings::default() };
        let (mut fake, instances) = fake(settings, "10.0.0.0/25", 4);
        let mut now = 60_000;
        for step in steps {
            if let Step::Wait(millis) = step {
                now += millis;
                fake.advance(Timestamp(now));
            }
            let enis: Vec<Arc<Eni>> = fake.world().interfaces().cloned().collect();
            let Some(action) = action(&step, &enis, &instances) else { continue };
            let before = fake.world().free(&subnet());
            if fake.ask(Timestamp(now), action).is_err() {
                prop_assert_eq!(fake.world().interfaces().cloned().collect::<Vec<_>>(), enis);
                prop_assert_eq!(fake.world().free(&subnet()), before);
            }
            prop_assert_eq!(fake.world().audit(), Ok(()));
            prop_assert_eq!(fake.violations(), []);
            for instance in fake.world().instances() {
                let places = fake.world().interfaces_of(&instance.id).filter_map(|eni| eni.attachment.clone());
                let places: std::collections::BTreeSet<u8> = places.map(|found| found.device_index).collect();
                prop_assert!(places.len() <= 3, "{} has {:?}", instance.id, places);
                prop_assert_eq!(places.len(), fake.world().interfaces_of(&instance.id).count());
            }
        }
    }
}
