// SPDX-License-Identifier: Apache-2.0
//! Four times as many masqueraded flows as the maps have room for: what is forgotten breaks alone, and an answer reaches
//! the flow that left with its port, or nobody.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use ground::frame::{Frame, octets};
use ground::router::{FAR, HOST_A, HOST_B, MAC_A, MAC_B, NODE, POD_A, POD_B, ROUTER, Router, WIRE, address};
use rhumb_ebpf::{Code, Course, Evictions, Flow, Hook, Mapping, Reason, Trial};

/// How many flows the maps of a test have room for.
const ROOM: u32 = 4_096;
const FLOWS: u32 = 4 * ROOM;
/// How long after a flow's question its answers come, counted in other flows' questions: at once, while it is surely
/// remembered, when it may be forgotten, and when it surely is.
const DELAYS: [u32; 4] = [0, 1_000, 5_000, 12_000];

type Make = fn(&str, &str, (u16, u16)) -> Frame;

/// A flow of a pod, known by its number.
struct Asked {
    pod: (&'static str, u32),
    macs: ([u8; 6], [u8; 6]),
    port: u16,
    far_port: u16,
    make: Make,
}

/// The flow with this number: both pods use the same ports to the same servers.
fn flow(node: &Router, number: u32, v6: bool) -> Asked {
    let first = number.is_multiple_of(2);
    let (pod, ifindex, macs) =
        if first { (POD_A, node.pod_a, (HOST_A, MAC_A)) } else { (POD_B, node.pod_b, (HOST_B, MAC_B)) };
    Asked {
        pod: (if v6 { pod.1 } else { pod.0 }, ifindex),
        macs,
        port: u16::try_from(20_000 + number / 2).expect("a port"),
        far_port: if number.is_multiple_of(3) { 53 } else { 443 },
        make: if number % 4 < 2 { Frame::udp } else { Frame::tcp },
    }
}

impl Asked {
    fn question(&self, far: &str, number: u32) -> Vec<u8> {
        let mut frame =
            (self.make)(self.pod.0, far, (self.port, self.far_port)).macs(self.macs.0, self.macs.1);
        frame.payload = number.to_be_bytes().to_vec();
        frame.bytes()
    }
}

/// Sends the question of a flow; the answer of an honest server: what it got, with the flow's number inside.
fn ask(node: &Router, number: u32, v6: bool) -> Vec<u8> {
    let (host, far) = if v6 { (NODE.1, FAR.1) } else { (NODE.0, FAR.0) };
    let asked = flow(node, number, v6);
    let datapath = node.ground.datapath();
    let trial = |packet: &[u8], hook, ifindex| {
        datapath.run(hook, &Trial::new(packet, ifindex)).expect("the kernel runs it")
    };
    let out = trial(&asked.question(far, number), Hook::FromPod, asked.pod.1).packet;
    let ran = trial(&out, Hook::ToWire, node.wire);
    assert_eq!(ran.code, Code::Next, "flow {number} finds no port");
    let ports = if v6 { 54 } else { 34 };
    let source = if v6 { &ran.packet[22..38] } else { &ran.packet[26..30] };
    assert_eq!(source, octets(address(host)), "flow {number} leaves as it is");
    let payload = ran.packet[ran.packet.len() - 4..].to_vec();
    assert_eq!(payload, number.to_be_bytes());
    let port = u16::from_be_bytes([ran.packet[ports], ran.packet[ports + 1]]);
    let mut answer = (asked.make)(far, host, (asked.far_port, port)).macs(WIRE, ROUTER);
    answer.payload = payload;
    let expected = (asked.make)(host, far, (port, asked.far_port)).macs(ROUTER, WIRE).hops(63);
    let expected = Frame { payload: number.to_be_bytes().to_vec(), ..expected };
    assert_eq!(ran.packet, expected.bytes(), "flow {number} is not as the server should see it");
    answer.bytes()
}

/// Whether an answer reaches a pod, with every byte right: that of the flow `number`, which was the last to leave with the
/// port that the answer is for. `said` is the number in the answer.
fn returns(node: &Router, (number, said): (u32, u32), v6: bool, answer: &[u8]) -> bool {
    let far = if v6 { FAR.1 } else { FAR.0 };
    let ran = node.ground.datapath().run(Hook::FromWire, &Trial::new(answer, node.wire)).expect("it runs");
    if ran.code == Code::Next {
        assert_eq!(ran.packet, answer, "flow {number}: left to the stack, and changed");
        return false;
    }
    assert_eq!(ran.code, Code::Redirect);
    let asked = flow(node, number, v6);
    let expected = (asked.make)(far, asked.pod.0, (asked.far_port, asked.port));
    let expected = expected.macs(asked.macs.1, asked.macs.0).hops(63);
    let expected = Frame { payload: said.to_be_bytes().to_vec(), ..expected };
    assert_eq!(ran.packet, expected.bytes(), "what is for flow {number} goes elsewhere");
    true
}

/// Protocol and ports of a frame.
fn wire(packet: &[u8]) -> [u8; 5] {
    let (protocol, at) = if packet[12] == 8 { (packet[23], 34) } else { (packet[20], 54) };
    [protocol, packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]
}

/// Every mapping belongs to the pod's flow that has its port, or to none that is remembered.
fn no_mapping_contradicts_its_flow(flows: &[Flow], mappings: &[Mapping]) -> usize {
    let sources: BTreeMap<(u8, SocketAddr, SocketAddr), SocketAddr> = flows
        .iter()
        .filter_map(|flow| match flow.course[..] {
            [Course::Masqueraded(source)] => Some(((flow.protocol, flow.opener, flow.replier), source)),
            _ => None,
        })
        .collect();
    let mut whole = 0;
    for mapping in mappings {
        if let Some(source) = sources.get(&(mapping.protocol, mapping.pod, mapping.remote)) {
            assert_eq!(*source, mapping.node, "{mapping:?}");
            whole += 1;
        }
    }
    whole
}

#[test]
fn four_times_the_flows_that_there_is_room_for_break_alone_and_are_counted() {
    for v6 in [false, true] {
        let mut node = Router::new();
        node.ground.config.flows = ROOM;
        node.ground.reopen();
        node.ground.datapath().finish_migration().expect("finished");
        let datapath = node.ground.datapath();
        let mut evictions = Evictions::default();
        let mut sweep = || -> BTreeMap<&'static str, u64> {
            let swept = datapath.sweep().round(1_000, || ControlFlow::Continue(())).expect("swept");
            swept.iter().map(|swept| (swept.map, evictions.note(swept))).collect()
        };
        assert_eq!(sweep(), [("ct", 0), ("nat", 0)].into());
        let mut returned = [0_u32; DELAYS.len()];
        node.namespace.inside(|| {
            let mut answers: Vec<Vec<u8>> = Vec::new();
            // By protocol and ports: which flow had them last. To the server both are one client.
            let mut owners: BTreeMap<[u8; 5], u32> = BTreeMap::new();
            for number in 0..FLOWS + DELAYS[3] {
                if number < FLOWS {
                    let answer = ask(&node, number, v6);
                    owners.insert(wire(&answer), number);
                    answers.push(answer);
                }
                for (delay, returned) in DELAYS.iter().zip(&mut returned) {
                    if let Some(of) = number.checked_sub(*delay)
                        && let Some(answer) = answers.get(usize::try_from(of).expect("small"))
                        && (*delay == 0 || of.is_multiple_of(7))
                        && number < FLOWS.max(of + 1)
                    {
                        let owner = owners[&wire(answer)];
                        let came = returns(&node, (owner, of), v6, answer);
                        *returned += u32::from(came && owner == of);
                    }
                }
            }
        });
        assert_eq!(returned[0], FLOWS, "an answer that comes at once is lost");
        assert!(returned[1] > 0 && returned[3] < FLOWS / 7, "{returned:?}");

        let evicted = sweep();
        let table = datapath.flow_table();
        let (flows, _) = table.flows(usize::MAX, |_| true).expect("read");
        let (mappings, _) = table.mappings(usize::MAX, |_| true).expect("read");
        // What an old answer brought back was put again, so at least so many went.
        let (flows_left, mappings_left) = (flows.len() as u64, mappings.len() as u64);
        assert!(flows_left <= u64::from(ROOM) && mappings_left <= u64::from(ROOM));
        assert!(evicted["ct"] >= u64::from(FLOWS) - flows_left, "{evicted:?} {flows_left}");
        assert!(evicted["nat"] >= u64::from(FLOWS) - mappings_left, "{evicted:?} {mappings_left}");
        let whole = no_mapping_contradicts_its_flow(&flows, &mappings);
        assert!(whole > 0);

        // Every flow that anything is remembered of, and some that nothing is, goes on with its next question.
        node.namespace.inside(|| {
            for number in (0..FLOWS).step_by(5) {
                let answer = ask(&node, number, v6);
                assert!(returns(&node, (number, number), v6, &answer), "flow {number} does not go on");
            }
        });
        for reason in [Reason::NatExhausted, Reason::NotMasqueradable, Reason::Malformed] {
            assert_eq!(node.ground.count(Hook::ToWire, reason), 0, "{reason:?}");
        }
    }
}
