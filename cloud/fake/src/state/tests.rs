// SPDX-License-Identifier: Apache-2.0

use std::net::Ipv4Addr;

use rhumb_model::{AttachmentStatus, Eni, InstanceState, Prefix, ReservationKind, SubnetId, Zone};

use super::*;
use crate::call::{
    Assign, AssignV6, Attach, Change, Detach, Launch, NewInterface, NewReservation, Question, Unassign, Want,
    Wants,
};
use crate::settings::Span;

fn p(text: &str) -> Prefix {
    text.parse().expect("valid prefix")
}

/// A VPC with one subnet, and a running instance of a type.
struct Test {
    world: World,
    subnet: SubnetId,
}

impl Test {
    fn new(settings: Settings, cidr: &str) -> Self {
        let mut world = World::new(settings, Timestamp(0));
        let vpc = NewVpc {
            id: None,
            cidrs: vec![p("10.0.0.0/16")],
            cidrs_v6: vec![p("fd00:0:0:100::/56")],
            tags: Default::default(),
        };
        let vpc = world.create_vpc(vpc).expect("a VPC");
        let subnet = NewSubnet {
            id: None,
            vpc,
            zone: Zone::new("eu-central-1a").expect("valid"),
            cidr: p(cidr),
            cidr_v6: Some(p("fd00:0:0:101::/64")),
            tags: Default::default(),
        };
        let subnet = world.create_subnet(subnet).expect("a subnet");
        Self { world, subnet }
    }

    fn ask(&mut self, action: Action) -> Result<Answer, Refusal> {
        let answer = self.world.answer(&action.into());
        self.world.audit().expect("the books agree");
        answer
    }

    fn code(&mut self, action: Action) -> String {
        self.ask(action).expect_err("a refusal").code.into_owned()
    }

    fn launch(&mut self, kind: &str) -> InstanceId {
        let Ok(Answer::Launched(_, instances)) =
            self.ask(Action::RunInstances(Launch::new(kind, self.subnet.clone())))
        else {
            panic!("no instance");
        };
        self.world.advance(self.world.now().after(Duration::from_secs(60)));
        instances[0].id.clone()
    }

    fn create(&mut self, wants: Wants) -> Result<Eni, Refusal> {
        let new = NewInterface { wants, ..NewInterface::new(self.subnet.clone()) };
        let answer = self.ask(Action::CreateNetworkInterface(new))?;
        let Answer::Interface(eni) = answer else { panic!("{answer:?}") };
        Ok(Eni::clone(&eni))
    }

    fn attach(
        &mut self,
        eni: &Eni,
        instance: &InstanceId,
        device_index: u8,
    ) -> Result<AttachmentId, Refusal> {
        let attach = Attach { interface: eni.id.clone(), instance: instance.clone(), device_index, card: 0 };
        let answer = self.ask(Action::AttachNetworkInterface(attach))?;
        let Answer::Attached(id, 0) = answer else { panic!("{answer:?}") };
        Ok(id)
    }

    fn now_is(&self, id: &EniId) -> Eni {
        Eni::clone(self.world.interface(id).expect("it is there"))
    }

    fn after(&mut self, seconds: u64) {
        self.world.advance(self.world.now().after(Duration::from_secs(seconds)));
    }
}

fn some(count: u16) -> Wants {
    Wants { addresses: Want::Count(count), ..Wants::default() }
}

fn prefixes(count: u16) -> Wants {
    Wants { prefixes: Want::Count(count), ..Wants::default() }
}

fn assign(eni: &Eni, wants: Wants) -> Action {
    Action::AssignPrivateIpAddresses(Assign {
        interface: eni.id.clone(),
        addresses: wants.addresses,
        prefixes: wants.prefixes,
        reassign: false,
    })
}

#[test]
fn an_attachment_takes_its_time_in_each_direction() {
    let settings =
        Settings { attach: Span::exactly(5_000), detach: Span::exactly(9_000), ..Settings::default() };
    let mut test = Test::new(settings, "10.0.0.0/24");
    let instance = test.launch("m5.large");
    let eni = test.create(some(0)).expect("an interface");
    assert_eq!(eni.status, EniStatus::Available);
    let attachment = test.attach(&eni, &instance, 1).expect("attaches");
    test.world.take_hooks();
    assert_eq!(test.now_is(&eni.id).status, EniStatus::Attaching);
    let detach = |force| Action::DetachNetworkInterface(Detach { attachment: attachment.clone(), force });
    assert_eq!(test.code(detach(false)), "IncorrectState");
    test.after(4);
    assert_eq!(test.world.take_hooks(), []);
    test.after(1);
    assert_eq!(test.now_is(&eni.id).status, EniStatus::InUse);
    let hooks = test.world.take_hooks();
    assert_eq!((hooks.len(), hooks[0].event, hooks[0].mac), (1, HookEvent::Attached, eni.mac));
    assert_eq!(test.code(Action::DeleteNetworkInterface(eni.id.clone())), "InvalidParameterValue");
    test.ask(detach(false)).expect("detaches");
    assert_eq!(test.code(Action::DeleteNetworkInterface(eni.id.clone())), "InvalidNetworkInterface.InUse");
    assert_eq!(test.code(detach(true)), "IncorrectState");
    test.after(9);
    assert_eq!(test.now_is(&eni.id).attachment, None);
    assert_eq!(test.world.take_hooks()[0].event, HookEvent::Detached);
    assert_eq!(test.code(detach(false)), "InvalidAttachmentID.NotFound");
    test.ask(Action::DeleteNetworkInterface(eni.id.clone())).expect("deletes");
    assert_eq!(test.code(Action::DeleteNetworkInterface(eni.id)), "InvalidNetworkInterfaceID.NotFound");
}

#[test]
fn an_instance_takes_as_many_interfaces_as_its_type() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let instance = test.launch("m5.large");
    let enis: Vec<Eni> = (0..4).map(|_| test.create(some(0)).expect("an interface")).collect();
    test.attach(&enis[0], &instance, 1).expect("the second");
    let used = test.attach(&enis[1], &instance, 1).expect_err("index in use");
    assert_eq!(used.code, "InvalidParameterValue");
    assert!(used.message.contains("device index '1'"), "{used}");
    let twice = test.attach(&enis[0], &instance, 2).expect_err("in use");
    assert_eq!(twice.code, "InvalidNetworkInterface.InUse");
    test.attach(&enis[1], &instance, 2).expect("the third");
    let fourth = test.attach(&enis[2], &instance, 3).expect_err("m5.large has three");
    assert_eq!(fourth.code, "AttachmentLimitExceeded");
    let primary = test.world.interfaces_of(&instance).next().expect("the first").clone();
    let detach = Detach { attachment: primary.attachment.clone().expect("attached").id, force: false };
    assert_eq!(test.code(Action::DetachNetworkInterface(detach)), "OperationNotPermitted");
}

#[test]
fn a_slot_holds_an_address_or_a_prefix_and_the_primary_takes_one() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/20");
    let instance = test.launch("m5.large");
    let primary = test.world.interfaces_of(&instance).next().expect("the first").as_ref().clone();
    test.ask(assign(&primary, some(5))).expect("five addresses");
    test.ask(assign(&primary, prefixes(4))).expect("and four prefixes");
    assert_eq!(test.code(assign(&primary, some(1))), "PrivateIpAddressLimitExceeded");
    assert_eq!(test.code(assign(&primary, prefixes(1))), "PrivateIpAddressLimitExceeded");
    let v6 = |prefixes_v6| {
        Action::AssignIpv6Addresses(AssignV6 {
            interface: primary.id.clone(),
            addresses: Want::Count(0),
            prefixes: prefixes_v6,
        })
    };
    test.ask(v6(Want::Count(10))).expect("slots of IPv6 are others");
    assert_eq!(test.code(v6(Want::Count(1))), "PrivateIpAddressLimitExceeded");
    let full = test.create(some(14)).expect("larger than an m5.large has slots");
    assert_eq!(test.attach(&full, &instance, 1).expect_err("too many").code, "PrivateIpAddressLimitExceeded");
}

#[test]
fn a_xen_instance_has_no_prefixes() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let instance = test.launch("m4.large");
    let primary = test.world.interfaces_of(&instance).next().expect("the first").as_ref().clone();
    assert_eq!(test.code(assign(&primary, prefixes(1))), "InvalidParameterValue");
    let eni = test.create(prefixes(1)).expect("an interface");
    assert_eq!(test.attach(&eni, &instance, 1).expect_err("xen").code, "InvalidParameterValue");
}

#[test]
fn a_refused_call_has_taken_nothing() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/27");
    let free = test.world.free(&test.subnet);
    assert_eq!(free, Some(27));
    // One aligned block of 16 is whole at most: the last holds the broadcast address, the first four reserved ones.
    assert_eq!(test.create(prefixes(1)).expect_err("no whole block").code, "InsufficientCidrBlocks");
    assert_eq!(test.create(some(27)).expect_err("one too many").code, "InsufficientFreeAddressesInSubnet");
    let named = |text: &str| Wants {
        addresses: Want::These(vec!["10.0.0.9".parse().expect("valid"), text.parse().expect("valid")]),
        ..Wants::default()
    };
    for (bad, code) in [
        ("10.0.0.9", "InvalidIPAddress.InUse"),
        ("10.0.0.3", "InvalidParameterValue"),
        ("10.0.0.31", "InvalidParameterValue"),
        ("10.0.1.9", "InvalidParameterValue"),
    ] {
        assert_eq!(test.create(named(bad)).expect_err("refused").code, code, "{bad}");
    }
    assert_eq!(test.world.free(&test.subnet), free);
    test.create(some(26)).expect("all of them");
    assert_eq!(test.world.free(&test.subnet), Some(0));
}

#[test]
fn what_is_unassigned_must_be_had_and_not_primary() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let eni = test.create(some(2)).expect("an interface");
    let unassign = |addresses: Vec<Ipv4Addr>| {
        Action::UnassignPrivateIpAddresses(Unassign {
            interface: eni.id.clone(),
            addresses,
            prefixes: Vec::new(),
        })
    };
    assert_eq!(test.code(unassign(vec![eni.primary])), "InvalidParameterValue");
    assert_eq!(
        test.code(unassign(vec![eni.addresses[0], "10.0.0.200".parse().expect("valid")])),
        "InvalidParameterValue"
    );
    assert_eq!(test.now_is(&eni.id).addresses.len(), 2);
    test.ask(unassign(eni.addresses.clone())).expect("had");
    assert_eq!(test.now_is(&eni.id).addresses, Vec::<Ipv4Addr>::new());
    assert_eq!(test.code(unassign(eni.addresses.clone())), "InvalidParameterValue");
}

#[test]
fn termination_takes_what_is_to_go_and_leaves_the_rest() {
    let mut test = Test::new(Settings::default(), "10.0.0.0/24");
    let instance = test.launch("m5.large");
    let (goes, stays) = (test.create(some(1)).expect("one"), test.create(some(1)).expect("another"));
    let attachment = test.attach(&goes, &instance, 1).expect("attaches");
    test.ask(Action::ModifyNetworkInterfaceAttribute(
        goes.id.clone(),
        Change::DeleteOnTermination(attachment, true),
    ))
    .expect("while it attaches");
    test.attach(&stays, &instance, 2).expect("attaches");
    test.ask(Action::TerminateInstances(vec![instance.clone()])).expect("terminates");
    assert_eq!(test.world.instance(&instance).expect("shown").state, InstanceState::ShuttingDown);
    let refused = test.create(some(0)).and_then(|eni| test.attach(&eni, &instance, 3));
    assert_eq!(refused.expect_err("on its way out").code, "IncorrectInstanceState");
    test.after(60);
    assert_eq!(test.world.interface(&goes.id), None);
    assert_eq!(test.now_is(&stays.id).status, EniStatus::Available);
    assert_eq!(test.world.instance(&instance).expect("shown").state, InstanceState::Terminated);
    test.after(3_600);
    assert_eq!(test.world.instance(&instance), None);
    test.world.audit().expect("the books agree");
}

#[test]
fn a_spot_instance_goes_two_minutes_after_its_notice() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let launch = Launch { spot: true, ..Launch::new("m5.large", test.subnet.clone()) };
    let Ok(Answer::Launched(_, instances)) = test.ask(Action::RunInstances(launch)) else {
        panic!("no instance")
    };
    test.after(1);
    let id = &instances[0].id;
    assert_eq!(test.world.interruption(id), None);
    let ends = test.world.interrupt(id).expect("a notice");
    assert_eq!((ends, test.world.interruption(id)), (Timestamp(121_000), Some(ends)));
    test.after(119);
    assert_eq!(test.world.instance(id).expect("there").state, InstanceState::Running);
    test.after(1);
    assert_eq!(test.world.instance(id).expect("shown").state, InstanceState::Terminated);
    let other = test.launch("m5.large");
    assert_eq!(test.world.interrupt(&other).expect_err("not spot").code, "IncorrectInstanceState");
}

#[test]
fn a_token_makes_one_interface_and_no_other_with_it() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let new = NewInterface { token: Some("t".to_owned()), ..NewInterface::new(test.subnet.clone()) };
    let first = test.ask(Action::CreateNetworkInterface(new.clone()));
    assert_eq!(test.ask(Action::CreateNetworkInterface(new.clone())), first);
    assert_eq!(test.world.interfaces().count(), 1);
    let other = NewInterface { description: "other".to_owned(), ..new };
    assert_eq!(test.code(Action::CreateNetworkInterface(other)), "IdempotentParameterMismatch");
}

#[test]
fn describes_are_late_and_calls_may_not_know_what_is_new() {
    let settings =
        Settings { lag: Span::exactly(3_000), unknown: Span::exactly(2_000), ..Settings::at_once() };
    let mut test = Test::new(settings, "10.0.0.0/24");
    let eni = test.create(some(0)).expect("an interface");
    let by_id = Question { ids: vec![eni.id.clone()], ..Question::default() };
    assert_eq!(
        test.code(Action::DescribeNetworkInterfaces(by_id.clone())),
        "InvalidNetworkInterfaceID.NotFound"
    );
    assert_eq!(test.code(assign(&eni, some(1))), "InvalidNetworkInterfaceID.NotFound");
    test.after(2);
    test.ask(assign(&eni, some(1))).expect("known");
    test.after(1);
    let shown = |test: &mut Test| match test.ask(Action::DescribeNetworkInterfaces(by_id.clone())) {
        Ok(Answer::Interfaces(page)) => page.items[0].addresses.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&mut test), 0, "the address comes later");
    test.after(2);
    assert_eq!(shown(&mut test), 1);
    test.ask(Action::DeleteNetworkInterface(eni.id.clone())).expect("deletes");
    assert_eq!(shown(&mut test), 1, "still shown");
    test.after(3);
    assert_eq!(test.code(Action::DescribeNetworkInterfaces(by_id)), "InvalidNetworkInterfaceID.NotFound");
    assert!(test.world.interfaces.is_empty(), "and forgotten");
}

#[test]
fn quotas_of_the_account_and_of_the_vpc_are_kept() {
    let settings = Settings { interface_quota: 3, usage_quota: 6, ..Settings::at_once() };
    let mut test = Test::new(settings, "10.0.0.0/24");
    let instance = test.launch("m5.large");
    let (one, two) = (test.create(some(3)).expect("one"), test.create(some(0)).expect("another"));
    assert_eq!(test.create(some(0)).expect_err("three").code, "NetworkInterfaceLimitExceeded");
    assert_eq!(test.attach(&one, &instance, 1).map(|_| test.world.usage_of(&one.vpc)), Ok(6));
    let over = test.attach(&two, &instance, 2).expect_err("over the quota");
    assert_eq!(over.code, "NetworkAddressUsageLimitExceeded");
    assert_eq!(test.code(assign(&one, some(1))), "NetworkAddressUsageLimitExceeded");
}

#[test]
fn prefixes_come_from_their_reservation_and_single_addresses_do_not() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let reserve = |cidr: &str, kind| {
        Action::CreateSubnetCidrReservation(NewReservation {
            subnet: test.subnet.clone(),
            cidr: p(cidr),
            kind,
            description: String::new(),
            tags: Default::default(),
        })
    };
    let (range, other) = (
        reserve("10.0.0.64/27", ReservationKind::Prefix),
        reserve("10.0.0.80/28", ReservationKind::Explicit),
    );
    let explicit = reserve("10.0.0.128/25", ReservationKind::Explicit);
    assert_eq!(test.world.free(&test.subnet), Some(251));
    test.ask(range).expect("reserves");
    assert_eq!(test.world.free(&test.subnet), Some(219));
    assert_eq!(test.code(other), "InvalidSubnetCidrReservation.Overlap");
    let eni = test.create(prefixes(2)).expect("both blocks of the reservation");
    assert!(eni.prefixes.iter().all(|block| p("10.0.0.64/27").covers(*block)), "{:?}", eni.prefixes);
    test.ask(explicit).expect("reserves");
    let eni = test.create(some(30)).expect("addresses");
    for address in std::iter::once(&eni.primary).chain(&eni.addresses) {
        let address = std::net::IpAddr::V4(*address);
        assert!(!p("10.0.0.64/27").contains(address) && !p("10.0.0.128/25").contains(address), "{address}");
    }
    let named =
        Wants { addresses: Want::These(vec!["10.0.0.200".parse().expect("valid")]), ..Wants::default() };
    test.create(named).expect("an address that is named comes from a reservation too");
}

#[test]
fn a_fragmented_subnet_has_addresses_and_no_prefix() {
    let mut test = Test::new(Settings::at_once(), "10.0.0.0/24");
    let subnet = test.subnet.clone();
    assert_eq!(test.world.fragment(&subnet, 100).expect("known"), 14);
    assert_eq!(test.create(prefixes(1)).expect_err("fragmented").code, "InsufficientCidrBlocks");
    test.create(some(40)).expect("addresses are there");
    assert_eq!(test.world.fill(&subnet, 3).expect("known"), 251 - 14 - 41 - 3);
    assert_eq!(test.create(some(3)).expect_err("three left").code, "InsufficientFreeAddressesInSubnet");
    test.world.defragment(&subnet).expect("known");
    test.create(prefixes(1)).expect("whole blocks again");
    test.world.audit().expect("the books agree");
}

#[test]
fn attached_status_follows_every_step_of_the_picture() {
    let mut test = Test::new(Settings::default(), "10.0.0.0/24");
    let instance = test.launch("m5.large");
    let eni = test.create(some(0)).expect("an interface");
    test.attach(&eni, &instance, 1).expect("attaches");
    let mut seen = vec![test.now_is(&eni.id).attachment.expect("attached").status];
    if let Some(next) = test.world.next_event() {
        test.world.advance(next);
        seen.extend(test.now_is(&eni.id).attachment.map(|found| found.status));
    }
    assert_eq!(seen, [AttachmentStatus::Attaching, AttachmentStatus::Attached]);
}
