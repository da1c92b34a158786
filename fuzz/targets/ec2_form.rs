// SPDX-License-Identifier: Apache-2.0
//! Whatever a client sends to the EC2 double, it is answered: by a call that the world survives, or by a refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_cloud_fake::query::{Form, failure, parse, success};
use rhumb_cloud_fake::{Call, NewSubnet, NewVpc, Settings, World};
use rhumb_model::{SubnetId, Timestamp, VpcId, Zone};

fn world() -> World {
    let mut world = World::new(Settings::at_once(), Timestamp(0));
    let vpc = VpcId::new("vpc-1").expect("valid");
    let new = NewVpc {
        id: Some(vpc.clone()),
        cidrs: vec!["10.0.0.0/16".parse().expect("valid")],
        cidrs_v6: Vec::new(),
        tags: Default::default(),
    };
    world.create_vpc(new).expect("a VPC");
    let new = NewSubnet {
        id: Some(SubnetId::new("subnet-1").expect("valid")),
        vpc,
        zone: Zone::new("eu-central-1a").expect("valid"),
        cidr: "10.0.0.0/26".parse().expect("valid"),
        cidr_v6: None,
        tags: Default::default(),
    };
    world.create_subnet(new).expect("a subnet");
    world
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut world = world();
    // Several requests, one a line: what one makes the next may name.
    for line in text.lines().take(8) {
        let Ok(form) = Form::parse(line) else { continue };
        let call: Result<Call, _> = parse(&form);
        match call.and_then(|call| Ok((call.action.name(), world.answer(&call)?))) {
            Ok((name, answer)) => assert!(success(&world, name, &answer, "id").ends_with("Response>")),
            Err(refusal) => assert!(failure(&refusal, "id").contains("<Code>")),
        }
        world.audit().expect("the books agree");
    }
});
