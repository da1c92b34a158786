// SPDX-License-Identifier: Apache-2.0
//! What the verifier walks through, and what a packet costs.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use futures::executor::block_on;
use ground::frame::Frame;
use ground::{Ground, Namespace};
use rhumb_ebpf::{Endpoint, EndpointAddr, Hook, IfIndex, PodLink, Reason, Trial, Wish, boot_clock};
use rhumb_model::{MacAddr, Target as _};
use rustix::system::uname;

/// Programs may grow or shrink by this share between compilers and kernels before somebody looks.
const TOLERANCE: f64 = 0.15;

/// The committed counts: a line per program, a column per kernel.
struct Counts {
    kernels: Vec<String>,
    rows: BTreeMap<String, Vec<u32>>,
}

impl Counts {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let kernels = lines.next().expect("a header").split(' ').skip(1).map(str::to_owned).collect();
        let row = |line: &str| {
            let mut words = line.split(' ');
            let hook = words.next().expect("a program").to_owned();
            (hook, words.map(|count| count.parse().expect("a number")).collect())
        };
        Self { kernels, rows: lines.map(row).collect() }
    }

    /// The column of the newest kernel that is not newer than this one: what it walks through is nearest.
    fn column(&self, kernel: (u32, u32)) -> usize {
        let older = self.kernels.iter().enumerate().filter(|(_, name)| version(name) <= kernel);
        older.max_by_key(|(_, name)| version(name)).expect("no kernel is older than the oldest").0
    }

    fn text(&self, order: &[Hook]) -> String {
        let mut text = format!("program {}\n", self.kernels.join(" "));
        for hook in order {
            let counts: Vec<String> = self.rows[hook.as_str()].iter().map(u32::to_string).collect();
            writeln!(text, "{hook} {}", counts.join(" ")).expect("a string takes it");
        }
        text
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().expect("a number"), numbers.next().expect("a number"))
}

/// `UPDATE=1` writes the running kernel's column anew; `UPDATE=1 cargo xtask vm root_verifier` that of 6.1.
#[test]
fn programs_do_not_grow_unseen() {
    let ground = Ground::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verified.txt");
    let text = std::fs::read_to_string(&path).expect("the committed counts");
    let mut committed = Counts::read(&text);
    let kernel = version(uname().release().to_str().expect("text"));
    let column = committed.column(kernel);
    let seen = ground.datapath().verified_instructions().expect("programs are loaded");
    if std::env::var_os("UPDATE").is_some() {
        assert_eq!(version(&committed.kernels[column]), kernel, "there is no column for this kernel");
        for (hook, count) in &seen {
            let columns = committed.kernels.len();
            committed.rows.entry(hook.to_string()).or_insert_with(|| vec![*count; columns])[column] = *count;
        }
        std::fs::write(&path, committed.text(&Hook::ALL)).expect("written");
    }
    for (hook, count) in seen {
        let row = committed.rows.get(hook.as_str()).expect("every program is committed; UPDATE=1 adds one");
        let before = row[column];
        let change = (f64::from(count) - f64::from(before)) / f64::from(before);
        println!("{hook}: {count}");
        assert!(
            change.abs() <= TOLERANCE,
            "{hook}: {before} instructions committed, {count} now; UPDATE=1 accepts"
        );
    }
}

#[test]
fn a_kernel_is_compared_with_the_nearest_that_is_not_newer() {
    let counts = Counts::read("program 6.1 6.18\nfrom_pod 1 2\n");
    let column = |release| counts.column(version(release));
    assert_eq!(["6.1.0-41-cloud-amd64", "6.12.3", "6.18.44", "7.0.1"].map(column), [0, 0, 1, 1]);
    assert_eq!(counts.rows["from_pod"], [1, 2]);
}

/// Far above what a packet costs, so that only a blunder is found here; `cargo xtask bench path` measures.
const BLUNDER: Duration = Duration::from_micros(2);

#[test]
fn a_packet_costs_no_more_than_a_few_lookups() {
    let (ground, namespace) = (Ground::new(), Namespace::new());
    let (mac, host_mac) = (MacAddr::from_seed(1), MacAddr::from_seed(2));
    namespace.ip(&format!("link add one address {host_mac} type veth peer name two"));
    let ifindex = namespace.ifindex("one");
    let mut targets = ground.targets();
    let link = PodLink {
        v4: Some([10, 0, 0, 1].into()),
        v6: Some("fd00::1".parse().expect("an address")),
        mac,
        host_mac,
        chained: false,
        host_ports: false,
        interface: None,
    };
    block_on(targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
    for addr in ["10.0.0.2", "fd00::2"] {
        let endpoint = Endpoint { ifindex, mac, host_mac, shaped: false };
        block_on(targets.endpoints.put(&EndpointAddr(addr.parse().expect("an address")), &endpoint))
            .expect("put");
    }
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let packet = Frame::tcp(src, dst, (1, 80)).hops(255).macs(host_mac.octets(), mac.octets()).bytes();
        for hook in Hook::ALL {
            let trial = Trial::new(&packet, ifindex);
            let cost =
                namespace.inside(|| ground.datapath().cost(hook, &trial, 400).expect("the kernel runs it"));
            println!("{hook} {src}: {cost:?}");
            assert!(cost < BLUNDER, "{hook} {src}: {cost:?}");
        }
        let mut events = ground.datapath().events().expect("opened");
        let spoofed = Frame::tcp(dst, dst, (1, 80)).hops(255).bytes();
        let watching = boot_clock() + Duration::from_secs(60);
        for (what, frame, wish) in [
            ("dropped", &spoofed, None),
            ("told", &packet, Some(Wish::default())),
            ("watched, not wanted", &packet, Some(Wish { addrs: Vec::new(), reason: Some(Reason::ToStack) })),
        ] {
            events.watch(wish.as_ref(), watching).expect("written");
            let trial = Trial::new(frame, ifindex);
            let cost = namespace
                .inside(|| ground.datapath().cost(Hook::FromPod, &trial, 400).expect("the kernel runs it"));
            println!("{} {src}, {what}: {cost:?}", Hook::FromPod);
            assert!(cost < BLUNDER, "{src}, {what}: {cost:?}");
            while events.next().is_some() {}
        }
        events.watch(None, watching).expect("written");
    }
}
