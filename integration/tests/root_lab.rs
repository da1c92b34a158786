// SPDX-License-Identifier: Apache-2.0
//! The lab itself: its topology carries packets, and nothing of it stays behind.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rhumb_integration::lab::{self, HttpServer, Lab, Pinger, Spec, Stream};

const PATIENCE: Duration = Duration::from_secs(3);
/// Names the lab that the re-executed test makes before it dies.
const VICTIM: &str = "RHUMB_TEST_VICTIM";

fn address(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// Runs one test of this file again in a process of its own, which owns a lab of that name.
fn run_as_owner(test: &str, name: &str) -> (String, std::process::ExitStatus) {
    let mut child = Command::new(std::env::current_exe().expect("the running program"))
        .args(["--exact", test])
        .env(VICTIM, name)
        .spawn()
        .expect("started");
    let id = format!("rhl{}-{name}", child.id());
    (id, child.wait().expect("ended"))
}

fn leftovers(id: &str) -> Vec<String> {
    let folders = ["/run/netns", "/sys/fs/bpf", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let labs = std::env::temp_dir().join("rhumb-lab");
    folders
        .into_iter()
        .chain([labs.as_path()])
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(id))
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[test]
fn nodes_router_and_client_reach_each_other() {
    let lab = Lab::build(Spec::named("reach")).expect("the lab is built");
    for (from, to) in [
        (lab.node(0).namespace(), lab.node(1).addresses.clone()),
        (lab.client(), lab.node(1).addresses.clone()),
        (lab.node(1).namespace(), Lab::CLIENT.map(address).to_vec()),
        (lab.node(1).namespace(), Lab::ROUTER.map(address).to_vec()),
    ] {
        for to in to {
            lab::ping(from, to, PATIENCE).expect("answered");
        }
    }
    lab.close().expect("closed");
}

#[test]
fn probes_notice_what_they_are_for() {
    let lab = Lab::build(Spec::named("probe")).expect("the lab is built");
    let (client, node) = (lab.client(), lab.node(0));
    let server = HttpServer::start(node.namespace(), 80, "/v1", "hello").expect("listens");
    for to in &node.addresses {
        let reply = lab::http_post(client, (*to, 80).into(), "/v1", PATIENCE).expect("answered");
        assert_eq!((reply.status, reply.body.as_str()), (200, "hello"));
        let reply = lab::http_post(client, (*to, 80).into(), "/v2", PATIENCE).expect("answered");
        assert_eq!(reply.status, 404);
    }
    server.stop().expect("stopped");
    assert!(!lab::tcp_reaches(client, (node.addresses[0], 80).into(), PATIENCE).expect("tried"));

    let stream = Stream::start(client, node.namespace(), node.addresses[1]).expect("connected");
    let pinger = Pinger::start(client, node.addresses[0], Duration::from_millis(10)).expect("answered");
    lab::ping(client, node.addresses[1], PATIENCE).expect("answered");
    let quiet =
        Stream::start(lab.router(), lab.node(1).namespace(), lab.node(1).addresses[0]).expect("connected");
    let holes = |verb: &str| {
        let routes =
            ["192.168.100.1/32", "fd00:192::1/128"].map(|to| format!("route {verb} blackhole {to}\n"));
        lab.router().ip(&routes.concat())
    };
    holes("add").expect("added");
    assert!(lab::ping(client, node.addresses[1], Duration::from_millis(600)).is_err());
    holes("del").expect("deleted");
    lab::ping(client, node.addresses[0], PATIENCE).expect("answered again");
    let report = pinger.stop().expect("stopped");
    assert!(report.all_answered().is_err(), "{report:?}");
    assert!(stream.stop().expect("stopped").nothing_lost().is_err());
    quiet.stop().expect("stopped").nothing_lost().expect("nothing lost");
    lab.close().expect("closed");
}

#[test]
fn nothing_stays_when_a_test_panics() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let lab = Lab::build(Spec::named("panic")).expect("the lab is built");
        sender.send(lab.id().to_owned()).expect("somebody listens");
        panic!("on purpose");
    });
    let id = receiver.recv().expect("the lab was built");
    assert!(thread.join().is_err());
    assert_eq!(leftovers(&id), [""; 0]);
}

#[test]
fn nothing_stays_when_the_owner_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let _lab = Lab::build(Spec::named("victim")).expect("the lab is built");
        std::process::abort();
    }
    let (id, status) = run_as_owner("nothing_stays_when_the_owner_is_killed", "victim");
    assert!(!status.success());
    let home = std::env::temp_dir().join("rhumb-lab").join(&id);
    assert!(lab::gone_within(&home, Duration::from_secs(10)).expect("watched"), "the reaper did nothing");
    assert_eq!(leftovers(&id), [""; 0]);
}

#[test]
fn a_kept_lab_outlives_its_owner_until_it_is_taken_down() {
    if std::env::var_os(VICTIM).is_some() {
        let lab = Lab::build_to_keep(Spec::named("kept")).expect("the lab is built");
        lab.keep().expect("let go");
        return;
    }
    let (id, status) = run_as_owner("a_kept_lab_outlives_its_owner_until_it_is_taken_down", "kept");
    assert!(status.success());
    let bystander = Lab::build(Spec::named("stays")).expect("the lab is built");
    assert!(Path::new("/run/netns").join(format!("{id}-n2")).exists());
    lab::down_all().expect("taken down");
    assert_eq!(leftovers(&id), [""; 0]);
    lab::ping(bystander.client(), bystander.node(0).addresses[0], PATIENCE)
        .expect("the lab of a live owner stays");
    bystander.close().expect("closed");
}
