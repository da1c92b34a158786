// SPDX-License-Identifier: Apache-2.0
//! VXLAN devices on the real kernel; judged by `ip`.

mod lab;

use std::collections::BTreeMap;
use std::time::Instant;

use lab::{Lab, name};
use rhumb_model::law::{converges, survives_any_single_failure};
use rhumb_model::{MacAddr, Target};
use rhumb_routing::{TunnelError, TunnelSpec, Tunnels};

const OURS: &str = "rhumb_vxlan";

fn spec(port: u16, mtu: u32, seed: u64) -> TunnelSpec {
    TunnelSpec { port, mtu, mac: MacAddr::from_seed(seed) }
}

/// VXLAN devices of others: one for a network of its own, one of the kind that ours is.
fn others(lab: &Lab) {
    lab.ip("host", "link add foreign0 type vxlan id 7 dstport 4789");
    lab.ip("host", "link set foreign0 up");
    lab.ip("host", "link add foreign1 type vxlan dstport 6081 external");
    lab.ip("host", "link set foreign1 up");
}

#[test]
fn tunnels_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&[]);
    others(&lab);
    let before = lab.everything("host");
    lab.run(async |netlink, _| {
        let states = [
            [(name(OURS), spec(8472, 1450, 1))].into(),
            [(name(OURS), spec(8472, 1400, 2))].into(),
            [(name(OURS), spec(8473, 1400, 2))].into(),
            BTreeMap::new(),
        ];
        let target = converges(Tunnels::new(netlink), &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(lab.everything("host"), before);
    });
}

#[test]
fn the_device_takes_its_destinations_from_packets_and_has_no_addresses() {
    let lab = Lab::new(&[]);
    lab.run(async |netlink, _| {
        let mut tunnels = Tunnels::new(netlink);
        tunnels.put(&name(OURS), &spec(8472, 1450, 1)).await.expect("made");
        let shown = lab.ip("host", &format!("-d link show {OURS}"));
        let words: Vec<&str> = shown.split_whitespace().collect();
        for part in ["<BROADCAST,MULTICAST,NOARP,UP,LOWER_UP>", "external", "nolearning", "udp6zerocsumrx"] {
            assert!(words.contains(&part), "{part}: {shown}");
        }
        for part in ["mtu 1450", "dstport 8472", "alias rhumb:vxlan"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(shown.contains(&MacAddr::from_seed(1).to_string()), "{shown}");
        assert_eq!(lab.ip("host", &format!("-o addr show dev {OURS}")), "");
        let ifindex = tunnels.ifindex(&name(OURS)).expect("known");
        assert!(shown.starts_with(&format!("{ifindex}: ")), "{shown}");
    });
}

#[test]
fn a_changed_mtu_keeps_the_device_and_a_changed_port_does_not() {
    let lab = Lab::new(&[]);
    lab.run(async |netlink, _| {
        let mut tunnels = Tunnels::new(netlink);
        tunnels.put(&name(OURS), &spec(8472, 1450, 1)).await.expect("made");
        let first = tunnels.ifindex(&name(OURS));
        tunnels.put(&name(OURS), &spec(8472, 1430, 2)).await.expect("changed");
        assert_eq!(tunnels.ifindex(&name(OURS)), first);
        lab.ip("host", &format!("link set {OURS} down"));
        let seen = tunnels.observe().await.expect("observed");
        assert_ne!(seen[&name(OURS)], spec(8472, 1430, 2), "switched off");
        tunnels.put(&name(OURS), &spec(8472, 1430, 2)).await.expect("changed");
        assert_eq!(tunnels.ifindex(&name(OURS)), first);
        tunnels.put(&name(OURS), &spec(8473, 1430, 2)).await.expect("made anew");
        assert_ne!(tunnels.ifindex(&name(OURS)), first);
        lab.ip("host", &format!("link set {OURS} arp on"));
        tunnels.put(&name(OURS), &spec(8473, 1430, 2)).await.expect("made anew");
        assert!(lab.ip("host", &format!("link show {OURS}")).contains("NOARP"));
    });
}

#[test]
fn what_is_in_the_way_is_named_and_stays() {
    let lab = Lab::new(&[]);
    others(&lab);
    lab.ip("host", &format!("link add {OURS} type veth peer name far"));
    let before = lab.everything("host");
    lab.run(async |netlink, _| {
        let mut tunnels = Tunnels::new(netlink);
        let error = tunnels.put(&name(OURS), &spec(8472, 1450, 1)).await.expect_err("a foreign interface");
        assert_eq!(error.to_string(), "the host already has an interface rhumb_vxlan that is not rhumb's");
        tunnels.remove(&name(OURS)).await.expect("not ours, so nothing to do");
        for port in [4789, 6081] {
            let error = tunnels.put(&name("other"), &spec(port, 1450, 1)).await.expect_err("a taken port");
            assert!(matches!(error, TunnelError::PortTaken { .. }), "{error}");
        }
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").expect("bound");
        let port = taken.local_addr().expect("bound").port();
        let error = tunnels.put(&name("other"), &spec(port, 1450, 1)).await.expect_err("a taken port");
        assert!(error.to_string().contains(&format!("UDP port {port} is taken")), "{error}");
        assert_eq!(lab.everything("host"), before);
    });
}
