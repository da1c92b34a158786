// SPDX-License-Identifier: Apache-2.0
//! Interfaces of a cloud on the real kernel: rules, tables, addresses; judged by `ip`.

mod lab;

use std::collections::BTreeMap;
use std::time::Instant;

use lab::{Lab, name, prefix};
use rhumb_model::law::{converges, survives_any_single_failure};
use rhumb_model::{Family, MacAddr, Target};
use rhumb_routing::eni::{self, Input, Nic, Outside};
use rhumb_routing::{
    Events, HostAddress, HostAddresses, InterfaceSpec, Interfaces, Netlink, Notices, PolicyRule, Rules,
    TableKey, TableRoute, TableRoutes,
};

/// Two interfaces, and what AWS's own plugin, Calico and people put beside ours.
fn interfaces(lab: &Lab) {
    for (at, link) in ["eth0", "eth1"].into_iter().enumerate() {
        lab.ip("host", &format!("link add {link} type veth peer name far{at}"));
        lab.ip("host", &format!("link set far{at} up"));
        lab.ip("host", &format!("link set {link} address 02:00:00:00:00:0{at}"));
    }
    lab.ip("host", "link set eth0 up");
    lab.ip("host", "link set lo up");
    lab.ip("host", "addr add 10.0.0.10/24 dev eth0");
    lab.ip("host", "addr add fd00::10/64 dev eth0 nodad");
    lab.ip("host", "route add default via 10.0.0.1");
    lab.ip("host", "rule add to 10.0.1.5 lookup main priority 512");
    lab.ip("host", "rule add fwmark 0x80/0x80 lookup main priority 1024");
    lab.ip("host", "rule add from 10.0.1.5 lookup 2 priority 1536");
    lab.ip("host", "rule add from 10.0.1.16/28 lookup 7301 priority 7263 proto static");
    lab.ip("host", "-6 rule add from fd00::5 lookup 2 priority 110 proto kernel");
    lab.ip("host", "route add 10.7.0.0/16 dev eth0 table 7301 proto static");
}

fn rule(priority: u32, from: Option<&str>, table: u32) -> PolicyRule {
    let from = from.map(prefix);
    let family = from.map_or(Family::V4, |from| from.family());
    PolicyRule { family, priority, from, mark: None, table, suppress: None }
}

fn everything(lab: &Lab) -> [String; 4] {
    let mut all =
        ["rule", "-6 rule", "route show table 7301", "addr show dev eth1"].map(|words| lab.ip("host", words));
    all[3] = all[3].lines().filter(|line| line.contains("inet")).collect();
    all
}

/// What the cloud says of the two interfaces, and the node's links as they are.
async fn input(netlink: &Netlink) -> Input {
    let nic = |index: u8| Nic {
        mac: MacAddr::new([2, 0, 0, 0, 0, index]).expect("an address of one station"),
        card: 0,
        index,
        mtu: None,
        addresses: vec![[10, 0, 0, 10 + index].into()],
        gateways: vec!["10.0.0.1".parse().expect("valid"), "fe80:ec2::1".parse().expect("valid")],
        blocks: vec![prefix(&format!("10.0.2.{}/28", index * 16)), prefix(&format!("fd00:0:0:{index}::/80"))],
    };
    Input {
        nics: vec![nic(0), nic(1)],
        links: eni::links(netlink).await.expect("told"),
        keep_source: vec![prefix("10.0.0.0/8")],
        outside: Outside::Node,
        base: eni::TABLE,
    }
}

/// Rules of one priority are told in the order in which they came.
fn sorted(rules: &str) -> Vec<String> {
    let mut lines: Vec<String> = rules.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn rules_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    let before = everything(&lab);
    let marked = PolicyRule { mark: Some((0x7202_0000, eni::MARK_MASK)), ..rule(7261, None, 7301) };
    let at_home = PolicyRule { suppress: Some(0), ..rule(7263, Some("10.0.1.16/28"), 7301) };
    lab.run(async |netlink, _| {
        let states = [
            [(rule(7260, None, 7299), ()), (marked, ()), (at_home, ())].into(),
            [(rule(7260, None, 7299), ()), (rule(7263, Some("10.0.1.32/28"), 7302), ())].into(),
            [(rule(7262, Some("fd00::11/128"), 7301), ()), (rule(7263, Some("fd00:0:0:1::/80"), 7301), ())]
                .into(),
            BTreeMap::new(),
        ];
        let target = converges(Rules::new(netlink), &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(everything(&lab), before);
    });
}

#[test]
fn a_foreign_rule_that_does_the_same_stays() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    lab.run(async |netlink, _| {
        let mut target = Rules::new(netlink);
        let ours = rule(7263, Some("10.0.1.16/28"), 7301);
        target.remove(&ours).await.expect("nothing of ours is there");
        target.put(&ours, &()).await.expect("beside it");
        target.put(&ours, &()).await.expect("there already");
        target.remove(&ours).await.expect("removed");
        assert!(lab.ip("host", "rule").contains("from 10.0.1.16/28 lookup 7301 proto static"));
    });
}

#[test]
fn table_routes_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    lab.ip("host", "link set eth1 up");
    let before = everything(&lab);
    let key = |table, dst: &str| TableKey { table, dst: prefix(dst) };
    let via = |link: &str, gateway: Option<&str>| TableRoute::Link {
        ifname: name(link),
        gateway: gateway.map(|gateway| gateway.parse().expect("valid")),
    };
    lab.run(async |netlink, _| {
        let states = [
            [
                (key(7301, "10.0.0.1/32"), via("eth1", None)),
                (key(7301, "0.0.0.0/0"), via("eth1", Some("10.0.0.1"))),
                (key(7301, "::/0"), via("eth1", Some("fe80:ec2::1"))),
                (key(7299, "10.0.1.5/32"), via("eth0", None)),
                (key(7299, "fd00::5/128"), via("eth0", None)),
            ]
            .into(),
            [
                (key(7301, "0.0.0.0/0"), via("eth0", Some("10.0.0.1"))),
                (key(7301, "::/0"), via("eth0", Some("fe80:ec2::1"))),
                (key(7299, "10.0.1.5/32"), TableRoute::Unreachable),
                (key(7299, "fd00::5/128"), TableRoute::Unreachable),
            ]
            .into(),
            BTreeMap::new(),
        ];
        let target = converges(TableRoutes::new(netlink), &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(everything(&lab), before);
    });
}

#[test]
fn addresses_and_interfaces_obey_the_law() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    lab.ip("host", "link set eth1 up");
    lab.ip("host", "addr add 10.0.0.12/32 dev eth1");
    let before = everything(&lab);
    let address = |text: &str| HostAddress { ifname: name("eth1"), address: text.parse().expect("valid") };
    lab.run(async |netlink, _| {
        let states = [
            [(address("10.0.0.11/32"), ()), (address("10.0.0.12/32"), ()), (address("fd00::11/128"), ())]
                .into(),
            [(address("10.0.0.13/32"), ())].into(),
            BTreeMap::new(),
        ];
        let target = HostAddresses::new(netlink.clone());
        let target = converges(target, &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(everything(&lab), before, "an address of others stays");
        let states = [
            [(name("eth0"), InterfaceSpec { mtu: Some(9001) }), (name("eth1"), InterfaceSpec { mtu: None })]
                .into(),
            [(name("eth1"), InterfaceSpec { mtu: Some(1400) })].into(),
            BTreeMap::new(),
        ];
        let target = converges(Interfaces::new(netlink), &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert!(lab.ip("host", "link show eth1").contains("mtu 1400"));
    });
}

#[test]
fn what_is_planned_leads_each_source_out_of_its_interface() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    lab.run(async |netlink, _| {
        let plan = eni::plan(&input(&netlink).await);
        assert!(plan.missing.is_empty());
        let now = Instant::now();
        converges(Interfaces::new(netlink.clone()), &[plan.interfaces], now).await.expect("lawful");
        converges(HostAddresses::new(netlink.clone()), &[plan.addresses], now).await.expect("lawful");
        converges(TableRoutes::new(netlink.clone()), &[plan.routes], now).await.expect("lawful");
        converges(Rules::new(netlink), &[plan.rules], now).await.expect("lawful");
        lab.exec("host", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let way = |words: &str| {
            let said = lab.ip("host", &format!("route get {words}"));
            said.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap_or("none").to_owned()
        };
        // The host's end of a pod's link stands in for the interface that the packet comes in by.
        assert_eq!(way("10.0.9.9 from 10.0.2.5 iif far0"), "eth0");
        assert_eq!(way("10.0.9.9 from 10.0.2.21 iif far0"), "eth1");
        assert_eq!(way("9.9.9.9 from 10.0.2.21 iif far0"), "eth0", "to be translated there");
        assert_eq!(way("9.9.9.9 from 10.0.0.11"), "eth1", "an address of the node itself");
        assert_eq!(way("2001:db8::9 from fd00:0:0:1::5 iif far0"), "eth1");
    });
}

#[test]
fn repair_and_removal_leave_rules_of_others_beside_ours() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    let twins = [
        "rule add lookup 7299 priority 7260 proto static",
        "rule add fwmark 0x72020000/0xffff0000 lookup 7301 priority 7261 proto boot",
        "rule add from 10.0.0.11 lookup 7301 priority 7262",
        "rule add from 10.0.2.16/28 lookup 7301 suppress_prefixlength 0 priority 7263 proto 115",
        "-6 rule add from fd00:0:0:1::/80 lookup 7301 priority 7263 proto static",
    ];
    for words in twins.into_iter().chain([
        // Of our protocol, and yet asking for more than ours do.
        "rule add from 10.0.2.16/28 iif lo lookup 7301 priority 7263 proto 114",
        "rule add from 10.0.2.16/28 lookup 7301 priority 7300",
    ]) {
        lab.ip("host", words);
    }
    let rules = || ["rule", "-6 rule"].map(|words| sorted(&lab.ip("host", words)));
    let before = rules();
    lab.run(async |netlink, _| {
        let wanted = [eni::plan(&input(&netlink).await).rules];
        let now = Instant::now();
        converges(Rules::new(netlink.clone()), &wanted, now).await.expect("lawful");
        let whole = rules();
        let ours: Vec<&String> = whole.iter().flatten().filter(|line| line.ends_with("proto 114")).collect();
        assert_eq!(ours.len(), wanted[0].len() + 1, "{ours:?}");
        for words in twins {
            let words = words.split(" proto").next().expect("the first").replace(" add ", " del ");
            lab.ip("host", &format!("{words} proto 114"));
        }
        assert_ne!(rules(), whole, "ours are gone");
        converges(Rules::new(netlink.clone()), &wanted, now).await.expect("lawful");
        assert_eq!(rules(), whole, "and there again");
        survives_any_single_failure(Rules::new(netlink), &wanted, now).await.expect("lawful");
        assert_eq!(rules(), before);
    });
}

#[test]
fn a_later_link_follows_the_mtu_of_the_first() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    let mtu = |link: &str| {
        let said = lab.ip("host", &format!("link show {link}"));
        said.split_whitespace().skip_while(|word| *word != "mtu").nth(1).expect("told").to_owned()
    };
    assert_eq!(mtu("eth1"), "1500", "as its driver has it");
    lab.run(async |netlink, _| {
        let mut interfaces = Interfaces::new(netlink.clone());
        for first in ["9001", "8000"] {
            lab.ip("host", &format!("link set eth0 mtu {first}"));
            let plan = eni::plan(&input(&netlink).await);
            interfaces = converges(interfaces, &[plan.interfaces], Instant::now()).await.expect("lawful");
            assert_eq!((mtu("eth0").as_str(), mtu("eth1").as_str()), (first, first));
        }
        let mut asked = input(&netlink).await;
        asked.nics[1].mtu = Some(1400);
        let interfaces =
            converges(interfaces, &[eni::plan(&asked).interfaces], Instant::now()).await.expect("lawful");
        assert_eq!(mtu("eth1"), "1400");
        lab.ip("host", "link set eth1 mtu 1500");
        converges(interfaces, &[eni::plan(&asked).interfaces], Instant::now()).await.expect("lawful");
        assert_eq!(mtu("eth1"), "1400", "put right");
    });
}

#[test]
fn a_rule_that_another_program_removes_is_noticed() {
    let lab = Lab::new(&[]);
    interfaces(&lab);
    lab.run(async |netlink, _| {
        let mut rules = Rules::new(netlink.clone());
        let ours = rule(7263, Some("10.0.1.48/28"), 7301);
        rules.put(&ours, &()).await.expect("put");
        let mut events = Events::open(&netlink).await.expect("opened");
        lab.ip("host", "rule del from 10.0.1.48/28 lookup 7301 priority 7263");
        let heard = tokio::time::timeout(std::time::Duration::from_secs(5), events.next()).await;
        let heard = heard.expect("in time").expect("heard");
        assert!(heard.routes && heard != Notices::default());
        assert_eq!(rules.observe().await.expect("observed"), BTreeMap::new());
    });
}
