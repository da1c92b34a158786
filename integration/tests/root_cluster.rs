// SPDX-License-Identifier: Apache-2.0
//! A cluster from a user's seat: who reaches whom, and what holds when programs, nodes and machines come and go.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rhumb_integration::lab::{
    self, AgentOptions, Footprint, HttpServer, Lab, Namespace, Node, Pinger, Pod, Spec, Stream,
};
use rhumb_model::Prefix;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);
const PATH: &str = "/v1";

fn started(spec: Spec) -> Lab {
    let mut lab = Lab::build(spec).expect("the lab is built");
    lab.start().expect("started");
    lab
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a literal prefix")
}

#[test]
fn everybody_reaches_every_pod_and_pods_reach_everybody() {
    let lab = started(Spec::named("all"));
    let pods: Vec<Pod> = [(0, "a"), (0, "b"), (1, "c"), (1, "d")]
        .map(|(node, name)| lab.node(node).add_pod("default", name).expect("added"))
        .into();
    let _servers: Vec<HttpServer> = pods
        .iter()
        .map(|pod| HttpServer::start(&pod.namespace, 80, PATH, &pod.name).expect("listens"))
        .collect();
    let mut places: Vec<(&str, &Namespace, Vec<IpAddr>)> =
        pods.iter().map(|pod| (pod.name.as_str(), &pod.namespace, pod.addresses.clone())).collect();
    for node in lab.nodes() {
        places.push((&node.name, node.namespace(), node.addresses.clone()));
    }
    let fixed = |addresses: [&str; 2]| addresses.map(|text| text.parse().expect("an address")).to_vec();
    places.push(("router", lab.router(), fixed(Lab::ROUTER)));
    places.push(("client", lab.client(), fixed(Lab::CLIENT)));

    let mut failures = Vec::new();
    for (from, namespace, _) in &places {
        for (to, _, addresses) in &places {
            for address in addresses {
                if let Err(error) = lab::ping(namespace, *address, PATIENCE) {
                    failures.push(format!("ping from {from} to {to}: {error:#}"));
                }
                if !pods.iter().any(|pod| pod.name == *to) {
                    continue;
                }
                match lab::http_post(namespace, SocketAddr::new(*address, 80), PATH, PATIENCE) {
                    Ok(reply) if reply.body == *to => {}
                    Ok(reply) => failures.push(format!("{from} asked {to} and {:?} answered", reply.body)),
                    Err(error) => failures.push(format!("request from {from} to {to}: {error:#}")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    lab.close().expect("closed");
}

#[test]
fn agents_stop_die_and_return_without_losing_a_packet() {
    let mut lab = started(Spec::named("calm"));
    let [a, b] = ["a", "b"].map(|name| lab.node(0).add_pod("default", name).expect("added"));
    let c = lab.node(1).add_pod("default", "c").expect("added");
    let every = Duration::from_millis(10);
    let pings: Vec<Pinger> = [
        (&a.namespace, b.v4()),
        (&a.namespace, c.v4()),
        (&c.namespace, b.v6()),
        (lab.client(), a.v6()),
        (lab.node(1).namespace(), a.v4()),
    ]
    .into_iter()
    .map(|(from, to)| Pinger::start(from, to, every).expect("answered"))
    .collect();
    let streams = [(&a, &b, b.v6()), (&a, &c, c.v6()), (&c, &b, b.v4())].map(|(from, to, address)| {
        Stream::start(&from.namespace, &to.namespace, address).expect("connected")
    });
    let before: Vec<Footprint> =
        lab.nodes().iter().map(|node| Footprint::of(node).expect("looked")).collect();
    for round in 0..6 {
        let node = lab.node_mut(round % 2);
        if round < 4 {
            node.stop_agent().expect("stopped")
        } else {
            node.kill_agent().expect("killed")
        }
        node.start_agent().expect("started");
        before[round % 2].returns(node, PATIENCE).expect("the agent is back where it was");
    }
    for ping in pings {
        ping.stop().expect("stopped").all_answered().expect("no packet is lost");
    }
    for stream in streams {
        stream.stop().expect("the stream holds").nothing_lost().expect("no packet is lost");
    }
    lab.close().expect("closed");
}

#[test]
fn a_full_node_gets_another_cidr_and_its_pods_are_reached() {
    let lab = started(Spec {
        pool_v4: Some((prefix("10.244.0.0/16"), 29)),
        pool_v6: Some((prefix("fd00:10:244::/112"), 125)),
        ..Spec::named("grow")
    });
    let node = lab.node(0);
    let mut pods = Vec::new();
    while pods.len() < 12 {
        let cidrs = node.pod_cidrs(lab.store()).expect("read");
        let pod = node.make_container("default", &format!("grow-{}", pods.len())).expect("made");
        let output = node.cni(&pod.call("ADD", &node.network())).expect("called");
        if output.status.success() {
            drop(output);
            pods.push(node.attach(pod).expect("the same ADD again gives the same answer"));
            continue;
        }
        let error = output.json().expect("an error is JSON");
        assert_eq!(error["code"], 11, "{error}");
        node.del_pod(pod).expect("deleted");
        let more = |store: &lab::Store| Ok((node.pod_cidrs(store)? != cidrs).then_some(()));
        lab.store().wait_until("another CIDR", PATIENCE, more).expect("the operator gives more");
        node.until_free(PATIENCE).expect("the agent takes it over");
    }
    let cidrs = node.pod_cidrs(lab.store()).expect("read");
    assert!(cidrs.iter().filter(|cidr| cidr.addr().is_ipv4()).count() >= 2, "{cidrs:?}");
    lab.route_world().expect("routed");
    for pod in &pods {
        for address in &pod.addresses {
            assert!(cidrs.iter().any(|cidr| cidr.contains(*address)), "{address} is of none of {cidrs:?}");
            lab::ping(lab.node(1).namespace(), *address, PATIENCE).expect("reached from the other node");
            lab::ping(lab.client(), *address, PATIENCE).expect("reached from outside");
        }
    }
    lab.close().expect("closed");
}

#[test]
fn a_deleted_node_gives_its_cidrs_back_after_the_grace_period() {
    let grace = Duration::from_secs(2);
    let mut lab = started(Spec { grace: Some(grace), ..Spec::named("grace") });
    let cidrs = lab.node(1).pod_cidrs(lab.store()).expect("read");
    assert_eq!(cidrs.len(), 2);
    let routes = |lab: &Lab| lab.node(0).show("route list").expect("shown").to_string();
    let names_them = |lab: &Lab| cidrs.iter().any(|cidr| routes(lab).contains(&cidr.to_string()));
    assert!(names_them(&lab));
    lab.node_mut(1).stop_agent().expect("stopped");
    let deleted = Instant::now();
    lab.store().delete("Node", "", "n2").expect("deleted");
    let none = |store: &lab::Store| Ok(lab.node(1).pod_cidrs(store)?.is_empty().then_some(()));
    lab.store().wait_until("that the CIDRs are free", PATIENCE, none).expect("released");
    assert!(deleted.elapsed() >= grace, "released after {:?}", deleted.elapsed());
    let deadline = Instant::now() + PATIENCE;
    while names_them(&lab) {
        assert!(Instant::now() < deadline, "{}", routes(&lab));
    }
    lab.close().expect("closed");
}

#[test]
fn del_is_queued_while_the_agent_is_down() {
    let mut lab = started(Spec { nodes: 1, ..Spec::named("queue") });
    let before = Footprint::of(lab.node(0)).expect("looked");
    let pod = lab.node(0).add_pod("default", "a").expect("added");
    assert!(before.returns(lab.node(0), Duration::ZERO).is_err(), "a pod leaves no footprint");
    lab.node_mut(0).stop_agent().expect("stopped");
    lab.node(0).del_pod(pod).expect("DEL succeeds without the agent");
    let queue = lab.node(0).run_dir().join(rhumb_cni::protocol::QUEUE_DIR);
    assert_eq!(std::fs::read_dir(&queue).expect("listed").count(), 1);
    lab.node_mut(0).start_agent().expect("started");
    before.returns(lab.node(0), PATIENCE).expect("done at the start");
    lab.close().expect("closed");
}

#[test]
fn a_reboot_drops_every_lease() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("boot") }).expect("the lab is built");
    let boot_id = lab.home().join("boot_id");
    let options = AgentOptions {
        env: vec![("RHUMB_BOOT_ID_FILE".to_owned(), boot_id.display().to_string())],
        ..AgentOptions::default()
    };
    std::fs::write(&boot_id, "6d0c3f2e-0000-4000-8000-000000000001\n").expect("written");
    lab.start_operator().expect("started");
    lab.node_mut(0).start_agent_with(options.clone()).expect("started");
    let before = Footprint::of(lab.node(0)).expect("looked");
    let pods = ["a", "b"].map(|name| lab.node(0).add_pod("default", name).expect("added"));
    lab.node_mut(0).kill_agent().expect("killed");
    lab.node(0).forget_what_a_reboot_forgets().expect("forgotten");
    drop(pods);
    std::fs::write(&boot_id, "6d0c3f2e-0000-4000-8000-000000000002\n").expect("written");
    lab.node_mut(0).start_agent_with(options).expect("started");
    before.returns(lab.node(0), PATIENCE).expect("all leases are gone");
    let leased = lab.node(0).show("ip list").expect("shown");
    assert!(leased.as_array().expect("a list").iter().all(|ip| ip["state"] != "leased"), "{leased}");
    lab.node(0).add_pod("default", "c").expect("added");
    lab.close().expect("closed");
}

/// What is on a node that rhumb did not make.
fn everything(node: &Node) -> Vec<String> {
    let shows = [
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule show",
        "-6 rule show",
        "-o address show",
        "-o -d link show",
        "neighbour show nud permanent",
    ];
    shows
        .iter()
        .flat_map(|show| {
            let text = node.namespace().ip_show(show).expect("shown");
            text.lines().map(|line| format!("{show}: {}", line.trim())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn foreign_objects_survive_everything() {
    let mut lab = Lab::build(Spec { nodes: 2, ..Spec::named("guest") }).expect("the lab is built");
    let foreign = "link add foreign0 type veth peer name rhforeign1
        link set foreign0 up
        link set rhforeign1 up
        link add rh0123456789 type bridge
        link property add dev foreign0 altname other
        link set dev rhforeign1 alias rhumbly:mine
        address add 198.51.100.1/24 dev foreign0
        address add 2001:db8:f::1/64 dev foreign0 nodad
        address add fe80::77/64 dev foreign0 nodad
        route add 198.51.101.0/24 via 198.51.100.2
        route add unreachable 10.244.9.0/24 proto 77 metric 5
        route add 10.200.0.0/16 via 198.51.100.2 table 114
        route add 2001:db8:f1::/48 via 2001:db8:f::2 proto static
        rule add fwmark 7 lookup 114 priority 114
        -6 rule add fwmark 7 lookup 114 priority 114
        neighbour add 198.51.100.2 lladdr 02:00:00:00:00:02 dev foreign0 nud permanent
        neighbour add 2001:db8:f::2 lladdr 02:00:00:00:00:02 dev foreign0 nud permanent";
    // `ip -batch` takes options of the program only on its command line.
    let (six, rest): (Vec<&str>, Vec<&str>) =
        foreign.lines().partition(|line| line.trim().starts_with("-6 "));
    lab.node(0).namespace().ip(&rest.join("\n")).expect("made");
    for line in six {
        lab.node(0).namespace().ip_show(line.trim()).expect("made");
    }
    let before = everything(lab.node(0));
    lab.start().expect("started");
    let survive = |lab: &Lab, when: &str| {
        let now = everything(lab.node(0));
        let gone: Vec<&String> = before.iter().filter(|line| !now.contains(line)).collect();
        assert!(gone.is_empty(), "{when}, these are gone: {gone:#?}");
    };
    survive(&lab, "after the start");
    let a = lab.node(0).add_pod("default", "a").expect("added");
    survive(&lab, "after ADD");
    lab.node_mut(0).stop_agent().expect("stopped");
    lab.node_mut(0).start_agent().expect("started");
    survive(&lab, "after a restart");
    lab.node_mut(0).kill_agent().expect("killed");
    lab.node_mut(0).start_agent().expect("started");
    survive(&lab, "after a crash");
    lab.node(0).del_pod(a).expect("deleted");
    survive(&lab, "after DEL");
    let mut network = lab.node(0).network();
    network["cni.dev/valid-attachments"] = json!([]);
    let mut gc = lab::CniCall::new("GC", network.to_string());
    gc.path = Some("/opt/cni/bin".to_owned());
    lab.node(0).cni(&gc).expect("called").success().expect("collected");
    survive(&lab, "after GC");
    lab.close().expect("closed");
}

fn pod_object(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]},
    })
}

#[test]
fn a_pod_gets_the_addresses_that_its_annotation_asks_for() {
    let lab = started(Spec { nodes: 1, ..Spec::named("wish") });
    let mut wanted: Vec<IpAddr> = lab
        .node(0)
        .pod_cidrs(lab.store())
        .expect("read")
        .iter()
        .map(|cidr| cidr.nth(77).expect("the CIDR is as large"))
        .collect();
    wanted.sort();
    let list = wanted.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    lab.store().apply(&pod_object("wish", json!({"rhumb.io/addresses": list}))).expect("applied");
    let pod = lab.node(0).add_pod("default", "wish").expect("added");
    assert_eq!(pod.addresses, wanted);
    let second = lab.node(0).make_container("default", "wish").expect("made");
    let output = lab.node(0).cni(&second.call("ADD", &lab.node(0).network())).expect("called");
    assert!(!output.status.success(), "an address was given twice: {}", output.stdout);
    lab.close().expect("closed");
}

#[test]
fn a_sticky_pod_gets_its_addresses_again() {
    let mut lab = started(Spec { nodes: 1, ..Spec::named("sticky") });
    lab.store().apply(&pod_object("stays", json!({"rhumb.io/sticky-addresses": "true"}))).expect("applied");
    let first = lab.node(0).add_pod("default", "stays").expect("added");
    let addresses = first.addresses.clone();
    lab.node(0).del_pod(first).expect("deleted");
    let other = lab.node(0).add_pod("default", "other").expect("added");
    assert!(other.addresses.iter().all(|address| !addresses.contains(address)));
    let second = lab.node(0).add_pod("default", "stays").expect("added");
    assert_eq!(second.addresses, addresses);
    lab.node(0).del_pod(second).expect("deleted");
    lab.node_mut(0).kill_agent().expect("killed");
    lab.node_mut(0).start_agent().expect("started");
    let third = lab.node(0).add_pod("default", "stays").expect("added");
    assert_eq!(third.addresses, addresses);
    lab.close().expect("closed");
}

#[test]
fn reserved_addresses_are_given_to_nobody() {
    let reserved = [prefix("10.244.0.0/29"), prefix("fd00:10:244::/125")];
    let lab = started(Spec {
        nodes: 1,
        pool_v4: Some((prefix("10.244.0.0/28"), 28)),
        pool_v6: Some((prefix("fd00:10:244::/124"), 124)),
        reserved: reserved.to_vec(),
        ..Spec::named("rsvd")
    });
    let node = lab.node(0);
    let mut pods = Vec::new();
    loop {
        let pod = node.make_container("default", &format!("p{}", pods.len())).expect("made");
        let output = node.cni(&pod.call("ADD", &node.network())).expect("called");
        if !output.status.success() {
            assert_eq!(output.json().expect("an error is JSON")["code"], 11, "{}", output.stdout);
            break;
        }
        let pod = node.attach(pod).expect("the same ADD again gives the same answer");
        for address in &pod.addresses {
            assert!(reserved.iter().all(|block| !block.contains(*address)), "{address} is reserved");
        }
        pods.push(pod);
    }
    assert!(pods.len() >= 5, "only {} of 8 addresses were given", pods.len());
    lab.close().expect("closed");
}
