// SPDX-License-Identifier: Apache-2.0

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn nic(index: u8) -> Nic {
    Nic {
        mac: MacAddr::from_seed(u64::from(index)),
        card: 0,
        index,
        mtu: Some(9001),
        addresses: vec![
            [10, 0, 0, 10 + index].into(),
            [0xfd00, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(index)].into(),
        ],
        gateways: vec!["10.0.0.1".parse().expect("valid"), "fe80:ec2::1".parse().expect("valid")],
        blocks: vec![
            prefix(&format!("10.0.1.{}/28", index * 16)),
            prefix(&format!("fd00:0:0:0:{index}::/80")),
        ],
    }
}

fn input(outside: Outside) -> Input {
    let link = |index: u8| {
        let name: IfName = format!("eth{index}").parse().expect("valid");
        let mac = MacAddr::from_seed(u64::from(index));
        let ifindex = u32::from(index) + 2;
        (mac, Link { ifindex, name, alias: None, mac: Some(mac), mtu: 9001, up: false, peer: None })
    };
    Input {
        nics: vec![nic(0), nic(1), nic(2)],
        links: [link(0), link(1)].into(),
        keep_source: vec![prefix("10.0.0.0/16")],
        outside,
        base: TABLE,
    }
}

fn words<T: ToString>(of: impl Iterator<Item = T>) -> Vec<String> {
    of.map(|one| one.to_string()).collect()
}

#[test]
fn there_is_one_rule_to_all_pods_and_one_from_each_block() {
    let plan = plan(&input(Outside::Node));
    let v4 = plan.rules.keys().filter(|rule| rule.family == Family::V4);
    assert_eq!(
        words(v4),
        [
            "7260: from 0.0.0.0/0 lookup 7299",
            "7261: from 0.0.0.0/0 fwmark 0x72010000/0xffff0000 lookup 7300",
            "7261: from 0.0.0.0/0 fwmark 0x72020000/0xffff0000 lookup 7301",
            "7262: from 10.0.0.11/32 lookup 7301",
            "7263: from 10.0.1.0/28 lookup 7300 suppress_prefixlength 0",
            "7263: from 10.0.1.16/28 lookup 7301 suppress_prefixlength 0",
        ]
    );
    let v6 = plan.rules.keys().filter(|rule| rule.family == Family::V6 && rule.from.is_some());
    assert_eq!(
        words(v6),
        [
            "7262: from fd00::11/128 lookup 7301",
            "7263: from fd00::/80 lookup 7300",
            "7263: from fd00::1:0:0:0/80 lookup 7301",
        ]
    );
    assert_eq!(plan.missing, [MacAddr::from_seed(2)].into());
}

#[test]
fn every_table_knows_its_router_and_all_behind_it() {
    let plan = plan(&input(Outside::Node));
    let second = plan.routes.iter().filter(|(key, _)| key.table == 7301);
    let second: Vec<String> = second
        .map(|(key, route)| match route {
            TableRoute::Link { ifname, gateway: Some(gateway) } => {
                format!("{} via {gateway} dev {ifname}", key.dst)
            }
            TableRoute::Link { ifname, gateway: None } => format!("{} dev {ifname}", key.dst),
            TableRoute::Unreachable => "unreachable".to_owned(),
        })
        .collect();
    assert_eq!(
        second,
        [
            "0.0.0.0/0 via 10.0.0.1 dev eth1",
            "10.0.0.0/16 via 10.0.0.1 dev eth1",
            "10.0.0.1/32 dev eth1",
            "::/0 via fe80:ec2::1 dev eth1",
        ]
    );
}

#[test]
fn without_masquerade_on_the_node_a_blocks_default_route_counts() {
    for outside in [Outside::Interface, Outside::External] {
        let plan = plan(&input(outside));
        assert!(plan.rules.keys().all(|rule| rule.suppress.is_none()), "{outside:?}");
        assert!(!plan.routes.keys().any(|key| key.dst == prefix("10.0.0.0/16")), "{outside:?}");
    }
}

#[test]
fn the_first_interface_keeps_its_addresses_from_the_system() {
    let plan = plan(&input(Outside::Node));
    let words = words(plan.addresses.keys());
    assert_eq!(words, ["10.0.0.11/32 on eth1", "fd00::11/128 on eth1"]);
}

#[test]
fn a_later_interface_without_an_mtu_of_its_own_has_that_of_the_first_link() {
    let mut input = input(Outside::Node);
    let asked = |input: &Input| plan(input).interfaces.into_values().map(|spec| spec.mtu).collect::<Vec<_>>();
    for nic in &mut input.nics {
        nic.mtu = None;
    }
    input.links.get_mut(&MacAddr::from_seed(1)).expect("there").mtu = 1500;
    assert_eq!(asked(&input), [None, Some(9001)], "the first one is the system's");
    input.links.get_mut(&MacAddr::from_seed(0)).expect("there").mtu = 8000;
    assert_eq!(asked(&input), [None, Some(8000)], "it follows");
    input.nics[0].mtu = Some(4000);
    assert_eq!(asked(&input), [Some(4000), Some(4000)], "what the first one is about to have");
    input.nics[1].mtu = Some(1400);
    assert_eq!(asked(&input), [Some(4000), Some(1400)], "what is asked for counts");
    input.nics.remove(0);
    input.nics[0].mtu = None;
    assert_eq!(asked(&input), [None], "nothing is known of a first one");
}

#[test]
fn a_node_without_interfaces_of_the_cloud_gets_nothing() {
    assert_eq!(plan(&Input { nics: Vec::new(), ..input(Outside::Node) }), Plan::default());
}

#[test]
fn every_interface_has_a_table_and_a_mark_of_its_own() {
    let places = (0..4_u8).flat_map(|card| (0..15_u8).map(move |index| Nic { card, index, ..nic(0) }));
    let all: Vec<Nic> = places.collect();
    let tables: BTreeSet<u32> = all.iter().map(|nic| nic.table(TABLE)).collect();
    let marks: BTreeSet<u32> = all.iter().filter_map(Nic::mark).collect();
    assert_eq!((tables.len(), marks.len()), (all.len(), all.len()));
    assert!(marks.iter().all(|mark| mark & !MARK_MASK == 0));
}
