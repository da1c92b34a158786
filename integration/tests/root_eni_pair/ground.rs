// SPDX-License-Identifier: Apache-2.0
//! A VPC with three nodes as the operator filled them, a pod on each of their interfaces, and whoever asks them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::{Callers, Cloud, Ear, Port, Strict, Wire, elastic, node_port};
use rhumb_integration::lab::{AgentOptions, Lab, Namespace, Pod, ProgramOptions, Spec, Wait};
use rhumb_model::Family;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
/// Somewhere in the world where no rule says that pods are known by their own addresses, IPv4 first.
const WORLD: [&str; 2] = ["9.9.9.9", "2600::9"];
const VPC: &str = "10.20.0.0/16";
/// A host of the VPC that is no node.
const HOST: [&str; 2] = ["10.20.9.9", "2001:db8:20:9::9"];
/// Where pods listen.
pub(crate) const POD_PORT: u16 = 8080;
/// Where the world, the host and nodes listen.
pub(crate) const PORT: u16 = 80;
/// Of the first pod; each has the next.
const HOST_PORT: u16 = 30_000;

/// A node, and what its pool says.
struct Shape {
    kind: &'static str,
    mode: &'static str,
    /// Lowest index of an interface that carries pods.
    first: usize,
    /// Addresses that are wanted, so many that all interfaces are needed.
    least: u64,
    interfaces: usize,
}

/// Single addresses on three interfaces; prefixes on three; prefixes on all but the first (custom networking).
const SHAPES: [Shape; 3] = [
    Shape { kind: "m5.large", mode: "addresses", first: 0, least: 27, interfaces: 3 },
    Shape { kind: "t3.small", mode: "prefixes", first: 0, least: 100, interfaces: 3 },
    Shape { kind: "m5.large", mode: "prefixes", first: 1, least: 11, interfaces: 2 },
];

pub(crate) struct Ground {
    pub(crate) cloud: Cloud,
    /// Sees every packet from when pods are there.
    pub(crate) wire: Wire,
    /// Every interface of every node.
    pub(crate) ports: Vec<Port>,
    pub(crate) seats: Vec<Seat>,
    /// The node itself at each of its addresses.
    pub(crate) nodes: Vec<(SocketAddr, Ear)>,
    /// The world and the host of the VPC, both in the client's namespace, which ask and are asked.
    pub(crate) outside: Vec<(IpAddr, Ear)>,
    /// What is known to the world by another address, with that.
    pub(crate) elastic: BTreeMap<IpAddr, IpAddr>,
}

/// A pod on an interface.
pub(crate) struct Seat {
    /// Number of the node.
    pub(crate) node: usize,
    pub(crate) pod: Pod,
    pub(crate) ear: Ear,
    /// Leads to it by rhumb.
    pub(crate) host_port: u16,
}

impl Seat {
    /// Its addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [self.pod.v4(), self.pod.v6()]
    }

    /// A port of every node that leads to it by the node's packet filter.
    pub(crate) fn node_port(&self, callers: Callers) -> u16 {
        self.host_port
            + match callers {
                Callers::Shown => 1000,
                Callers::Hidden => 2000,
            }
    }
}

impl Ground {
    pub(crate) fn build(name: &str) -> Result<Self> {
        let mut cloud = cloud(name)?;
        start(&mut cloud)?;
        let ports = cloud.ports()?;
        let mut seats = Vec::new();
        for port in &ports {
            seats.extend(seat(&cloud, port, seats.len())?);
        }
        let lab = &cloud.lab;
        for (number, node) in lab.nodes().iter().enumerate() {
            for seat in &seats {
                for pod in seat.addresses().map(|addr| (addr, POD_PORT)) {
                    node_port(node.namespace(), seat.node_port(Callers::Hidden), pod, Callers::Hidden)?;
                    // Who shows callers to pods of other nodes has no way for the answers.
                    if seat.node == number {
                        node_port(node.namespace(), seat.node_port(Callers::Shown), pod, Callers::Shown)?;
                    }
                }
            }
        }
        // Of every interface of the first node, and of a pod of each node.
        let first = ports.iter().filter(|port| port.node == 0).map(|port| port.own[0]);
        let of_pods = (0..SHAPES.len()).filter_map(|node| seats.iter().rfind(|seat| seat.node == node));
        let private = first.chain(of_pods.map(|seat| seat.pod.v4()));
        let public = (1..).map(|last| IpAddr::from([198, 51, 100, last]));
        let elastic_addresses: BTreeMap<_, _> = private.zip(public).collect();
        for (private, public) in &elastic_addresses {
            elastic(lab.router(), VPC.parse()?, *public, *private)?;
        }
        let own =
            ports.iter().flat_map(|port| port.own.iter().map(|own| (port.node, SocketAddr::new(*own, PORT))));
        let nodes = own.map(|(node, at)| Ok((at, Ear::open(lab.node(node).namespace(), at)?)));
        let nodes = nodes.collect::<Result<_>>()?;
        let outside = WORLD.into_iter().chain(HOST).map(|addr| {
            let addr = addr.parse()?;
            Ok((addr, Ear::open(lab.client(), SocketAddr::new(addr, PORT))?))
        });
        let outside = outside.collect::<Result<_>>()?;
        let wire = Wire::open(&cloud.vpc())?;
        Ok(Self { wire, ports, seats, nodes, outside, elastic: elastic_addresses, cloud })
    }

    /// From now on nobody repairs anything; packets go on as they did.
    pub(crate) fn kill_agents(&mut self) -> Result<()> {
        (0..SHAPES.len()).try_for_each(|number| self.cloud.lab.node_mut(number).kill_agent())
    }

    /// Ends everything and removes it.
    pub(crate) fn close(self) -> Result<()> {
        let Self { cloud, seats, .. } = self;
        drop(seats);
        cloud.close()
    }

    pub(crate) fn client(&self) -> &Namespace {
        self.cloud.lab.client()
    }

    /// Whether an address of outside is one of the VPC.
    pub(crate) fn is_of_the_vpc(addr: IpAddr) -> bool {
        HOST.iter().any(|host| host.parse() == Ok(addr))
    }

    /// Each node has what its pool says, and a pod on each interface that may have one.
    pub(crate) fn is_as_the_pools_say(&self) -> Result<()> {
        let state = self.cloud.state()?;
        for (number, Shape { mode, first, interfaces, .. }) in SHAPES.iter().enumerate() {
            let enis: Vec<_> = state.of(self.cloud.instance(number)).collect();
            ensure!(enis.len() == *interfaces, "{enis:#?}");
            for (index, eni) in enis.iter().enumerate() {
                let blocks = (eni.addresses.is_empty(), eni.prefixes.is_empty());
                let wanted = match *mode {
                    _ if index < *first => (true, true),
                    "prefixes" => (true, false),
                    _ => (false, true),
                };
                ensure!(blocks == wanted, "{eni:#?}");
            }
            ensure!(enis.iter().map(|eni| eni.prefixes_v6.len()).sum::<usize>() == 1, "{enis:#?}");
            let seats = self.seats.iter().filter(|seat| seat.node == number);
            ensure!(seats.count() == interfaces - first, "a pod on each interface of {number}");
        }
        self.cloud.check()
    }

    /// How many packets EC2 would have dropped, and after that, how many each node because of where they came in.
    pub(crate) fn dropped(&self) -> Result<Vec<u64>> {
        let mut dropped = vec![self.cloud.vpc().dropped()?];
        for (node, Shape { interfaces, .. }) in self.cloud.lab.nodes().iter().zip(SHAPES) {
            let links = (0..interfaces).map(|index| format!("eth{index}"));
            dropped.extend(Strict::at(node.namespace()).dropped(links)?);
        }
        Ok(dropped)
    }
}

fn cloud(name: &str) -> Result<Cloud> {
    let lab = Lab::build(Spec { nodes: SHAPES.len(), pool_v4: None, pool_v6: None, ..Spec::named(name) })?;
    for addr in WORLD.into_iter().chain(HOST) {
        let (length, via) = if addr.contains(':') { (128, Lab::CLIENT[1]) } else { (32, Lab::CLIENT[0]) };
        lab.client().ip(&format!("address add {addr}/{length} dev eth0"))?;
        lab.router().ip(&format!("route add {addr} via {via}"))?;
    }
    let subnet = |number: usize| {
        json!({"id": format!("subnet-{number}"), "vpc": "vpc-1", "zone": "eu-central-1a",
            "cidr": format!("10.20.{number}.0/24"), "cidrV6": format!("2001:db8:20:{number}::/64")})
    };
    let instance = |(number, shape): (usize, &Shape)| {
        json!({"kind": shape.kind, "subnet": format!("subnet-{number}"), "addressesV6": 1,
            "tags": {"node": format!("n{number}")}})
    };
    let config = json!({
        "settings": {"attach": [50, 200], "detach": [50, 200], "start": [0, 0], "choice": "lowest"},
        "world": {
            "vpcs": [{"id": "vpc-1", "cidrs": [VPC], "cidrsV6": ["2001:db8:20::/56"]}],
            "subnets": (1..=SHAPES.len()).map(subnet).collect::<Vec<_>>(),
            "instances": (1..).zip(&SHAPES).map(instance).collect::<Vec<_>>(),
        },
    });
    let cloud = Cloud::around(lab, &config, 1)?;
    for (number, Shape { mode, first, least, .. }) in (1..).zip(SHAPES) {
        let name = format!("n{number}");
        cloud.lab.store().apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"node": name}},
        }))?;
        cloud.lab.store().apply(&json!({
            "apiVersion": "rhumb.io/v1alpha1", "kind": "ENIPool", "metadata": {"name": format!("{mode}{first}")},
            "spec": {"nodeSelector": {"matchLabels": {"node": name}}, "mode": mode, "ipv6": true,
                "minAllocate": least, "preAllocate": 0, "firstInterfaceIndex": first},
        }))?;
    }
    Ok(cloud)
}

/// Starts operator and agents, and waits until all interfaces are there, each with an address of its own of each family.
fn start(cloud: &mut Cloud) -> Result<()> {
    let words = ["--ec2-period", "1", "--ec2-deadline", "3", "--ec2-share", "100"];
    cloud.start_operator(ProgramOptions { args: words.map(str::to_owned).into(), ..Default::default() })?;
    // The last node knows by IPv6 alone which instance it is.
    let last = cloud.lab.node(SHAPES.len() - 1).namespace();
    last.ip("route add unreachable 169.254.169.254/32")?;
    for number in 0..SHAPES.len() {
        Strict::put(cloud.lab.node(number).namespace())?;
        let args = ["--cloud", "aws"].map(str::to_owned).into();
        let options = AgentOptions { wait: Wait::Ready, args, ..Default::default() };
        cloud.lab.node_mut(number).start_agent_with(options)?;
    }
    cloud.until("every address can be leased", PATIENCE, |cloud| {
        for (node, Shape { least, .. }) in cloud.lab.nodes().iter().zip(SHAPES) {
            let status = node.show("status")?;
            let pools = status["pools"].as_array().context("a list of pools")?;
            let free: Vec<_> = pools.iter().filter_map(|pool| pool["free"].as_u64()).collect();
            if free.len() < 2 || free.iter().any(|free| *free < least) {
                return Ok(Err(status["pools"].to_string()));
            }
        }
        Ok(Ok(()))
    })?;
    let state = cloud.state()?;
    for eni in (0..SHAPES.len()).flat_map(|number| state.of(cloud.instance(number)).skip(1)) {
        let words = [("NetworkInterfaceId", eni.id.as_str()), ("Ipv6AddressCount", "1")];
        cloud.call("AssignIpv6Addresses", &words)?;
    }
    cloud.until("interfaces have their own addresses", PATIENCE, |cloud| {
        let ports = cloud.ports()?;
        for port in &ports {
            let shown = cloud.lab.node(port.node).namespace().ip_show("-o address show")?;
            for own in &port.own {
                let here = shown.lines().find(|line| line.contains(&format!(" {own}/")));
                if here.is_none_or(|line| line.contains("tentative")) || port.own.len() < 2 {
                    return Ok(Err(format!("{own} of {port:?} in {shown}")));
                }
            }
        }
        Ok(Ok(()))
    })?;
    cloud.route()
}

/// A pod on an interface that carries some: with an IPv4 address of it, and one of the node's block of IPv6.
fn seat(cloud: &Cloud, port: &Port, number: usize) -> Result<Option<Seat>> {
    let node = cloud.lab.node(port.node);
    let Some(v4) = port.blocks.iter().rfind(|block| block.family() == Family::V4) else { return Ok(None) };
    let all = cloud.ports()?;
    let mut of_node = all.iter().filter(|other| other.node == port.node).flat_map(|other| &other.blocks);
    let v6 = of_node.find(|block| block.family() == Family::V6).context("a block of IPv6")?;
    let place = u128::try_from(number)? + 2;
    let v4 = v4.nth(place.min(v4.size() - 1)).context("a block has addresses")?;
    let v6 = v6.nth(place + 0x100).context("a block has addresses")?;
    let host_port = HOST_PORT + u16::try_from(number)?;
    let mapping = ["tcp", "udp"]
        .map(|protocol| json!({"hostPort": host_port, "containerPort": POD_PORT, "protocol": protocol}));
    let mut network = node.network();
    network["capabilities"] = json!({"ips": true, "portMappings": true});
    network["runtimeConfig"] = json!({"ips": [v4, v6], "portMappings": mapping});
    let pod = node.attach_as(node.make_container("default", &format!("p{number}"))?, &network)?;
    cloud.claim("POST", port.node, &pod.container, &pod.addresses)?;
    let ear = Ear::open(&pod.namespace, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), POD_PORT))?;
    Ok(Some(Seat { node: port.node, pod, ear, host_port }))
}
