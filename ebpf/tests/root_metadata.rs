// SPDX-License-Identifier: Apache-2.0
//! The cloud's metadata service, for pods of a node that keeps it from them and of one that does not.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use futures::executor::block_on;
use ground::frame::{Frame, SCTP, ip, summed, with_options};
use ground::router::{HOST_A, MAC_A, NODE, POD_A, ROUTER, Router, WIRE, address};
use rhumb_ebpf::{Code, Hook, Reason, Remote, RemotePrefix};
use rhumb_model::{Prefix, Target as _};

const METADATA: (&str, &str) = ("169.254.169.254", "fd00:ec2::254");
/// Another service of the link.
const IDENTITY: (&str, &str) = ("169.254.170.23", "fd00:ec2::23");

/// A node with routes to the services.
fn node() -> Router {
    let node = Router::new();
    for (service, gateway) in [
        (METADATA.0, "192.0.2.254"),
        (IDENTITY.0, "192.0.2.254"),
        (METADATA.1, "2001:db8::fe"),
        (IDENTITY.1, "2001:db8::fe"),
    ] {
        node.namespace.ip(&format!("route add {service} via {gateway}"));
    }
    node
}

/// Puts what an agent puts to keep the service from pods.
fn deny(node: &mut Router) {
    for service in [METADATA.0, METADATA.1] {
        let denied = Remote { denied: true, ..Remote::default() };
        let key = RemotePrefix(Prefix::host(address(service)));
        block_on(node.targets.ipcache.put(&key, &denied)).expect("put");
    }
}

/// Packets of pod A to `to`: of every protocol, cut up, and with options.
fn packets(pod: &str, to: &str) -> Vec<Vec<u8>> {
    let ports = (40_000, 80);
    let streams = [Frame::tcp(pod, to, ports), Frame::udp(pod, to, ports)];
    let mut all: Vec<Vec<u8>> = streams.map(|frame| frame.macs(HOST_A, MAC_A).bytes()).into();
    let sctp = Frame { protocol: SCTP, ..Frame::tcp(pod, to, (40_000, 80)) };
    all.push(sctp.macs(HOST_A, MAC_A).bytes());
    all.push(ip(HOST_A, MAC_A, address(pod), address(to), 64, 47, &[0; 20]));
    if pod.contains(':') {
        let later = [&[17, 0, 0, 80, 0, 0, 0, 9][..], &[0; 16]].concat();
        all.push(ip(HOST_A, MAC_A, address(pod), address(to), 64, 44, &later));
    } else {
        let mut later = all[1].clone();
        later[20..22].copy_from_slice(&[0, 10]);
        all.push(summed(later));
        for of in [0, 1] {
            all.push(with_options(&all[of]));
        }
    }
    all
}

#[test]
fn a_pod_reaches_the_metadata_service_unless_the_node_keeps_it_to_itself() {
    let mut node = node();
    for (pod, service) in [(POD_A.0, METADATA.0), (POD_A.1, METADATA.1)] {
        for packet in packets(pod, service) {
            let (_, code, _) = node.run(Hook::FromPod, node.pod_a, &packet);
            assert_ne!(code, Code::Drop);
        }
    }
    deny(&mut node);
    for (pod, service, host) in [(POD_A.0, METADATA.0, NODE.0), (POD_A.1, METADATA.1, NODE.1)] {
        let packets = packets(pod, service);
        assert!(packets.len() >= 5);
        // Also of flows that were under way.
        for packet in packets {
            let ended = node.run(Hook::FromPod, node.pod_a, &packet);
            assert_eq!(ended, (Reason::MetadataService, Code::Drop, packet));
        }
        let own = Frame::tcp(host, service, (40_000, 80)).macs(ROUTER, WIRE).bytes();
        assert_eq!(node.run(Hook::ToWire, node.wire, &own), (Reason::HostSent, Code::Next, own.clone()));
    }
    for (pod, service) in [(POD_A.0, IDENTITY.0), (POD_A.1, IDENTITY.1)] {
        let packet = Frame::tcp(pod, service, (40_000, 80)).macs(HOST_A, MAC_A).bytes();
        assert_eq!(node.run(Hook::FromPod, node.pod_a, &packet).0, Reason::ForwardedRemote);
    }
}
