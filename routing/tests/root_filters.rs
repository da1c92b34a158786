// SPDX-License-Identifier: Apache-2.0
//! Programs at the hooks of links on the real kernel, judged by `tc` and by packets.

mod lab;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};
use lab::{Lab, name};
use rhumb_model::Target;
use rhumb_model::law::{converges, survives_any_single_failure};
use rhumb_routing::{Filter, FilterError, FilterKey, Filters, Hook, Netlink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Leaves the packet to whoever comes next (`TC_ACT_UNSPEC`).
const PASS: i32 = -1;
/// Drops the packet (`TC_ACT_SHOT`).
const DROP: i32 = 2;

/// An object file (ELF) with the program `verdict`, which returns a constant.
fn object(verdict: i32) -> Vec<u8> {
    const HEADER: usize = 64;
    const STRINGS: &[u8] = b"\0classifier\0.symtab\0.strtab\0verdict\0";
    let at = |string: &str| {
        let found = STRINGS.windows(string.len()).position(|there| there == string.as_bytes());
        u32::try_from(found.expect("one of them")).expect("short")
    };
    // r0 = verdict; exit
    let mut code = vec![0xb7, 0, 0, 0];
    code.extend(verdict.to_le_bytes());
    code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    // The second symbol is a global function at the start of the first section.
    let mut symbols = vec![0; 24];
    symbols.extend(at("verdict").to_le_bytes());
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend([0_u64, 16].map(u64::to_le_bytes).concat());
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(HEADER, 0);
    let mut sections = vec![0; HEADER];
    // Name, kind, flags, content, linked section, first global symbol, alignment, size of an entry.
    for (name, kind, flags, content, link, info, align, entry) in [
        ("classifier", 1_u32, 6_u64, &code[..], 0_u32, 0_u32, 8_u64, 0_u64),
        (".symtab", 2, 0, &symbols[..], 3, 1, 8, 24),
        (".strtab", 3, 0, STRINGS, 0, 0, 1, 0),
    ] {
        sections.extend([at(name), kind].map(u32::to_le_bytes).concat());
        sections.extend([flags, 0, file.len() as u64, content.len() as u64].map(u64::to_le_bytes).concat());
        sections.extend([link, info].map(u32::to_le_bytes).concat());
        sections.extend([align, entry].map(u64::to_le_bytes).concat());
        file.extend(content);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    // Relocatable, for BPF; where the four section headers begin; the third has the names.
    file[16..24].copy_from_slice(&[1, 0, 247, 0, 1, 0, 0, 0]);
    let start = (file.len() as u64).to_le_bytes();
    file[40..48].copy_from_slice(&start);
    file[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 4, 0, 3, 0]);
    file.extend(sections);
    file
}

/// Loads a program that returns `verdict`.
fn load(verdict: i32) -> Ebpf {
    let mut object = Ebpf::load(&object(verdict)).expect("an object file");
    program(&mut object).load().expect("loaded (these tests need root)");
    object
}

fn program(object: &mut Ebpf) -> &mut SchedClassifier {
    object.program_mut("verdict").expect("there").try_into().expect("a classifier")
}

/// The kernel's number of a program that returns `verdict`, and the program.
fn loaded(verdict: i32) -> (u32, Arc<OwnedFd>) {
    let mut object = load(verdict);
    let program = program(&mut object);
    let id = program.info().expect("told").id();
    let fd = program.fd().expect("loaded").as_fd().try_clone_to_owned();
    (id, Arc::new(fd.expect("a descriptor")))
}

fn filters(netlink: Netlink, programs: &[&(u32, Arc<OwnedFd>)]) -> Filters {
    Filters::new(netlink, programs.iter().map(|program| (*program).clone()).collect())
}

fn ifindex(lab: &Lab, ifname: &str) -> u32 {
    let told = lab.ip("host", &format!("-o link show dev {ifname}"));
    told.split(':').next().expect("a number").parse().expect("a number")
}

fn filter(lab: &Lab, ifname: &str, hook: Hook, program: u32) -> (FilterKey, Filter) {
    (FilterKey { ifname: name(ifname), hook }, Filter { ifindex: ifindex(lab, ifname), program })
}

fn told(lab: &Lab, ifname: &str, hook: Hook) -> String {
    lab.tc("host", &format!("filter show dev {ifname} {hook}"))
}

/// Does something on a thread in one of the lab's namespaces.
fn in_namespace<T: Send>(lab: &Lab, name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(lab.path(name)).expect("a namespace");
    let enter = || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter().expect("entered");
            work()
        });
        thread.join().expect("no panic")
    })
}

/// Whether a datagram gets from one socket to the other.
fn reaches(from: &UdpSocket, to: &UdpSocket) -> bool {
    // On the way over a pair of links a datagram waits for nothing but the first look for a neighbour.
    to.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    // A program that drops what is sent may make that an error.
    from.send_to(b"hello", to.local_addr().expect("bound")).ok();
    to.recv(&mut [0; 8]).is_ok()
}

#[test]
fn filters_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&[]);
    lab.ip("host", "link add rh0 type veth peer name rh1");
    lab.ip("host", "link add uplink type veth peer name far");
    lab.run(async |netlink, _| {
        let mut foreign = load(PASS);
        lab.tc("host", "qdisc add dev uplink clsact");
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            for (priority, handle) in [(1, 0x7268_u32), (0x7268, 1)] {
                let place =
                    TcAttachOptions::Netlink(NlOptions { priority, handle: handle.into(), classid: None });
                program(&mut foreign).attach_with_options("uplink", side, place).expect("attached");
            }
        }
        let look = || [Hook::Ingress, Hook::Egress].map(|hook| told(&lab, "uplink", hook));
        let (before, rest) = (look(), lab.ip("host", "-o link"));
        assert_eq!(before[0].matches(" handle ").count(), 2, "{before:?}");
        let (pass, drop) = (loaded(PASS), loaded(DROP));
        let states = [
            [
                filter(&lab, "rh0", Hook::Ingress, pass.0),
                filter(&lab, "rh0", Hook::Egress, drop.0),
                filter(&lab, "uplink", Hook::Ingress, drop.0),
                filter(&lab, "uplink", Hook::Egress, drop.0),
            ]
            .into(),
            [
                filter(&lab, "rh0", Hook::Ingress, drop.0),
                filter(&lab, "rh1", Hook::Egress, drop.0),
                filter(&lab, "uplink", Hook::Egress, pass.0),
            ]
            .into(),
            BTreeMap::new(),
        ];
        let filters = filters(netlink, &[&pass, &drop]);
        let filters = converges(filters, &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(filters, &states, Instant::now()).await.expect("lawful");
        assert_eq!((look(), lab.ip("host", "-o link")), (before, rest));
        for hook in [Hook::Ingress, Hook::Egress] {
            assert_eq!(told(&lab, "rh0", hook), "");
        }
    });
}

#[test]
fn a_filter_is_what_tc_calls_a_direct_action_of_our_priority_and_handle() {
    let lab = Lab::new(&[]);
    lab.ip("host", "link add rh0 type veth peer name rh1");
    lab.run(async |netlink, _| {
        let pass = loaded(PASS);
        let mut filters = filters(netlink, &[&pass]);
        for hook in [Hook::Ingress, Hook::Egress] {
            let (key, value) = filter(&lab, "rh0", hook, pass.0);
            filters.put(&key, &value).await.expect("put");
            filters.put(&key, &value).await.expect("present is success");
            let told = told(&lab, "rh0", hook);
            let id = format!("id {} ", pass.0);
            for words in ["protocol all pref 29288 bpf", "handle 0x7268 rhumb direct-action", &id] {
                assert!(told.contains(words), "{words}: {told}");
            }
            assert_eq!(told.matches("handle").count(), 1, "{told}");
        }
    });
}

#[test]
fn a_program_sees_packets_of_its_hook_alone_until_it_is_removed() {
    let lab = Lab::new(&["a"]);
    lab.link_into("host", "rh0", "a", "eth0");
    lab.ip("host", "addr add 10.0.0.1/24 dev rh0");
    lab.ip("a", "addr add 10.0.0.2/24 dev eth0");
    lab.run(async |netlink, _| {
        let (pass, drop) = (loaded(PASS), loaded(DROP));
        let mut filters = filters(netlink, &[&pass, &drop]);
        let host = UdpSocket::bind("10.0.0.1:0").expect("a socket");
        let pod = in_namespace(&lab, "a", || UdpSocket::bind("10.0.0.2:0").expect("a socket"));
        assert!(reaches(&pod, &host) && reaches(&host, &pod), "a way there and back");
        for (hook, from, to) in [(Hook::Ingress, &pod, &host), (Hook::Egress, &host, &pod)] {
            let (key, dropping) = filter(&lab, "rh0", hook, drop.0);
            let passing = Filter { program: pass.0, ..dropping };
            for (value, passes) in [(dropping, false), (passing, true), (dropping, false)] {
                filters.put(&key, &value).await.expect("put");
                assert_eq!(reaches(from, to), passes, "{key}");
                assert!(reaches(to, from), "{key}: the other way");
            }
            filters.remove(&key).await.expect("removed");
            filters.remove(&key).await.expect("absent is success");
            assert!(reaches(from, to), "{key}");
        }
    });
}

#[test]
fn what_ours_leaves_to_the_next_is_seen_by_a_filter_of_others() {
    let lab = Lab::new(&["a"]);
    lab.link_into("host", "rh0", "a", "eth0");
    lab.ip("host", "addr add 10.0.0.1/24 dev rh0");
    lab.ip("a", "addr add 10.0.0.2/24 dev eth0");
    lab.run(async |netlink, _| {
        let pass = loaded(PASS);
        let mut filters = filters(netlink, &[&pass]);
        let (key, value) = filter(&lab, "rh0", Hook::Ingress, pass.0);
        filters.put(&key, &value).await.expect("put");
        let host = UdpSocket::bind("10.0.0.1:0").expect("a socket");
        let pod = in_namespace(&lab, "a", || UdpSocket::bind("10.0.0.2:0").expect("a socket"));
        assert!(reaches(&pod, &host), "a way");
        let mut foreign = load(DROP);
        let place = NlOptions { priority: 0x7269, handle: 1.into(), classid: None };
        let place = TcAttachOptions::Netlink(place);
        program(&mut foreign).attach_with_options("rh0", TcAttachType::Ingress, place).expect("attached");
        assert!(!reaches(&pod, &host), "the other one drops");
        filters.remove(&key).await.expect("removed");
        assert!(!reaches(&pod, &host), "and stays");
    });
}

#[test]
fn where_others_have_an_ingress_qdisc_there_is_no_room_for_egress() {
    let lab = Lab::new(&[]);
    lab.ip("host", "link add rh0 type veth peer name rh1");
    lab.tc("host", "qdisc add dev rh0 ingress");
    let before = lab.everything("host");
    lab.run(async |netlink, _| {
        let pass = loaded(PASS);
        let mut filters = filters(netlink, &[&pass]);
        let batch = [Hook::Egress, Hook::Ingress].map(|hook| filter(&lab, "rh0", hook, pass.0));
        let results = filters.put_all(&batch).await;
        assert!(matches!(results[..], [Err(FilterError::Foreign { .. }), Ok(())]), "{results:?}");
        let ours: BTreeMap<_, _> = [batch[1].clone()].into();
        assert_eq!(filters.observe().await.expect("observed"), ours);
        filters.remove(&batch[0].0).await.expect("absent is success");
        assert_eq!(filters.observe().await.expect("observed"), ours, "the other hook is as before");
        filters.remove(&batch[1].0).await.expect("removed");
        assert_eq!(lab.everything("host"), before);
    });
}

#[test]
fn an_interface_that_was_replaced_or_is_gone_gets_no_filter() {
    let lab = Lab::new(&[]);
    lab.ip("host", "link add rh0 type veth peer name rh1");
    lab.run(async |netlink, _| {
        let pass = loaded(PASS);
        let mut filters = filters(netlink, &[&pass]);
        let (key, value) = filter(&lab, "rh0", Hook::Ingress, pass.0);
        let other = Filter { ifindex: ifindex(&lab, "rh1"), ..value };
        let error = filters.put(&key, &other).await.expect_err("another interface has this index");
        assert!(matches!(error, FilterError::LinkGone { .. }), "{error}");
        assert!(!lab.tc("host", "qdisc").contains("clsact"), "nothing was touched");
        let misled = FilterKey { ifname: name("rh1"), hook: Hook::Egress };
        let results = filters.put_all(&[(misled, value), (key.clone(), value)]).await;
        assert!(matches!(results[..], [Err(FilterError::LinkGone { .. }), Ok(())]), "{results:?}");
        assert_eq!(filters.observe().await.expect("observed"), [(key.clone(), value)].into());
        lab.ip("host", "link del rh0");
        lab.ip("host", "link add rh0 type veth peer name rh1");
        let error = filters.put(&key, &value).await.expect_err("another interface has this name");
        assert!(matches!(error, FilterError::LinkGone { .. }), "{error}");
        assert_eq!(filters.observe().await.expect("observed"), BTreeMap::new());
        filters.remove(&key).await.expect("a link without a qdisc for filters");
        let egress = FilterKey { hook: Hook::Egress, ..key.clone() };
        filters.remove(&egress).await.expect("a link without a qdisc for filters");
        lab.ip("host", "link del rh0");
        filters.remove(&key).await.expect("no link");
    });
}

#[test]
fn a_number_that_is_no_classifier_is_refused_and_the_others_of_the_batch_are_put() {
    let lab = Lab::new(&[]);
    let pairs = (0..100).step_by(2).map(|at| format!("link add rh{at} type veth peer name rh{}\n", at + 1));
    lab.batch("host", &pairs.collect::<String>());
    lab.run(async |netlink, _| {
        let pass = loaded(PASS);
        let none = (0, Arc::new(File::open("/dev/null").expect("there").into()));
        let mut filters = filters(netlink, &[&pass, &none]);
        let hooks = (0..100).flat_map(|at| [Hook::Ingress, Hook::Egress].map(|hook| (at, hook)));
        let mut batch: Vec<_> =
            hooks.map(|(at, hook)| filter(&lab, &format!("rh{at}"), hook, pass.0)).collect();
        batch[99].1.program = none.0;
        for (at, result) in filters.put_all(&batch).await.into_iter().enumerate() {
            match result {
                Err(FilterError::Put { .. }) => assert_eq!(at, 99),
                result => result.expect("put"),
            }
        }
        batch.remove(99);
        assert_eq!(filters.observe().await.expect("observed"), batch.iter().cloned().collect());
        let keys: Vec<_> = batch.into_iter().map(|(key, _)| key).collect();
        for result in filters.remove_all(&keys).await {
            result.expect("removed");
        }
        assert_eq!(filters.observe().await.expect("observed"), BTreeMap::new());
    });
}
