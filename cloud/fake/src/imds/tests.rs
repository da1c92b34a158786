// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::call::{Action, Assign, Want};
use crate::config::{Config, NewInstance, Things};
use crate::fake::Fake;
use crate::settings::{Settings, Span};
use crate::throttle::Limits;

fn fake() -> (Fake, InstanceId) {
    let world: Things = serde_json::from_str(
        r#"{"vpcs":[{"id":"vpc-1","cidrs":["10.0.0.0/16","100.64.0.0/16"],"cidrsV6":["fd00:0:0:100::/56"]}],
            "subnets":[{"id":"subnet-1","vpc":"vpc-1","zone":"eu-central-1a","cidr":"10.0.0.0/24"}]}"#,
    )
    .expect("a world");
    let settings = Settings { metadata_memory: 60_000, start: Span::ZERO, ..Settings::default() };
    let mut fake = Config { world, settings, limits: Limits::none(), ..Config::default() }
        .build(Timestamp(1_000_000))
        .expect("a double");
    let new: NewInstance = serde_json::from_str(
        r#"{"kind":"m5.large","subnet":"subnet-1","spot":true,"tags":{"Name":"a","kubernetes.io/role/node":"1"}}"#,
    )
    .expect("an instance");
    let ids = new.launch(fake.world_mut()).expect("launched");
    fake.advance(Timestamp(1_060_000));
    (fake, ids[0].clone())
}

fn primary(fake: &Fake, id: &InstanceId) -> Eni {
    Eni::clone(fake.world().interfaces_of(id).next().expect("the first"))
}

fn assign(fake: &mut Fake, at: u64, eni: &Eni, addresses: u16, prefixes: u16) {
    let assign = Assign {
        interface: eni.id.clone(),
        addresses: Want::Count(addresses),
        prefixes: Want::Count(prefixes),
        reassign: false,
    };
    fake.ask(Timestamp(at), Action::AssignPrivateIpAddresses(assign)).expect("assigned");
}

#[test]
fn an_instance_is_told_who_it_is() {
    let (fake, id) = fake();
    let ask = |path: &str| fake.ask_metadata(&id, path);
    let eni = primary(&fake, &id);
    let of_mac = |item: &str| ask(&format!("meta-data/network/interfaces/macs/{}/{item}", eni.mac));
    assert_eq!(ask("meta-data/instance-id"), Some(id.to_string()));
    assert_eq!(ask("meta-data/instance-type").as_deref(), Some("m5.large"));
    assert_eq!(ask("meta-data/placement/availability-zone").as_deref(), Some("eu-central-1a"));
    assert_eq!(ask("meta-data/placement/region").as_deref(), Some("eu-central-1"));
    assert_eq!(ask("meta-data/mac"), Some(eni.mac.to_string()));
    assert_eq!(ask("meta-data/local-ipv4"), Some(eni.primary.to_string()));
    assert_eq!(ask("meta-data/tags/instance/kubernetes.io/role/node").as_deref(), Some("1"));
    assert_eq!(ask("meta-data/network/interfaces/macs/"), Some(format!("{}/", eni.mac)));
    assert_eq!(of_mac("subnet-ipv4-cidr-block").as_deref(), Some("10.0.0.0/24"));
    assert_eq!(of_mac("vpc-ipv4-cidr-blocks").as_deref(), Some("10.0.0.0/16\n100.64.0.0/16"));
    assert_eq!(of_mac("interface-id"), Some(eni.id.to_string()));
    assert_eq!(of_mac("device-number").as_deref(), Some("0"));
    for absent in ["ipv4-prefix", "ipv6s", "ipv6-prefix", "subnet-ipv6-cidr-blocks", "colour"] {
        assert_eq!(of_mac(absent), None, "{absent} is 404 while there is nothing");
    }
    let document: serde_json::Value =
        serde_json::from_str(&ask("dynamic/instance-identity/document").expect("a document")).expect("JSON");
    assert_eq!(
        (document["instanceId"].as_str(), document["region"].as_str()),
        (Some(id.as_str()), Some("eu-central-1"))
    );
}

#[test]
fn each_item_is_behind_by_its_own_time() {
    let (mut fake, id) = fake();
    fake.metadata_mut().lag.insert("local-ipv4s".to_owned(), 30_000);
    let eni = primary(&fake, &id);
    assign(&mut fake, 1_100_000, &eni, 1, 0);
    assign(&mut fake, 1_110_000, &eni, 0, 1);
    let lines = |fake: &Fake, item: &str| {
        let path = format!("meta-data/network/interfaces/macs/{}/{item}", eni.mac);
        fake.ask_metadata(&id, &path).map_or(0, |text| text.lines().count())
    };
    assert_eq!((lines(&fake, "local-ipv4s"), lines(&fake, "ipv4-prefix")), (1, 1));
    fake.advance(Timestamp(1_129_999));
    assert_eq!(lines(&fake, "local-ipv4s"), 1);
    fake.advance(Timestamp(1_130_000));
    assert_eq!(lines(&fake, "local-ipv4s"), 2);
}

#[test]
fn an_interface_is_listed_once_it_is_attached_and_its_window_over() {
    let (mut fake, id) = fake();
    let window = Window {
        instance: None,
        path: "ipv4-prefix".to_owned(),
        from: Timestamp(5),
        until: Timestamp(9),
        status: 404,
    };
    fake.metadata_mut().windows.push(window);
    let status = |at| fake.metadata().window(Timestamp(at), &id, "/latest/meta-data/x/ipv4-prefix");
    assert_eq!([status(4), status(5), status(8), status(9)], [None, Some(404), Some(404), None]);
    assert_eq!(fake.metadata().window(Timestamp(6), &id, "/latest/meta-data/mac"), None);
}

#[test]
fn a_spot_instance_reads_of_its_end() {
    let (mut fake, id) = fake();
    assert_eq!(fake.ask_metadata(&id, "meta-data/spot/instance-action"), None);
    fake.world_mut().interrupt(&id).expect("a spot instance");
    let action = fake.ask_metadata(&id, "meta-data/spot/instance-action").expect("a notice");
    assert_eq!(action, r#"{"action":"terminate","time":"1970-01-01T00:19:40.000Z"}"#);
    assert_eq!(
        fake.ask_metadata(&id, "meta-data/autoscaling/target-lifecycle-state").as_deref(),
        Some("InService")
    );
}
