// SPDX-License-Identifier: Apache-2.0
//! A node with single addresses on its interfaces and one with prefixes, both with a /80, as the operator gave them: pods
//! of either reach those of the other and the world, in both families, and EC2 would drop none of it.

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::{Cloud, exchange, listen};
use rhumb_integration::lab::{AgentOptions, Lab, Pod, ProgramOptions, Spec, Wait};
use rhumb_model::Prefix;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
/// Somewhere in the world where no rule says that pods are known by their own addresses.
const WORLD: &str = "9.9.9.9";
const WORLD_V6: &str = "2600::9";
/// On either node; the first has them on two interfaces.
const PODS: usize = 11;
/// Of them, those on either node that speak: on the first node one of either interface.
const SPEAK: [usize; 2] = [0, PODS - 1];

struct Ground {
    cloud: Cloud,
    /// Of each node.
    pods: [Vec<Pod>; 2],
}

fn ground() -> Result<Ground> {
    let lab = Lab::build(Spec { pool_v4: None, pool_v6: None, ..Spec::named("enipar") })?;
    let (client, router) = (lab.client(), lab.router());
    client.ip(&format!("address add {WORLD}/32 dev eth0\naddress add {WORLD_V6}/128 dev eth0"))?;
    router.ip(&format!("route add {WORLD} via 203.0.113.10\nroute add {WORLD_V6} via 2001:db8:cc::10"))?;
    let subnet = |number: usize| {
        json!({"id": format!("subnet-{number}"), "vpc": "vpc-1", "zone": "eu-central-1a",
            "cidr": format!("10.20.{number}.0/24"), "cidrV6": format!("2001:db8:20:{number}::/64")})
    };
    let instance = |number: usize| {
        json!({"kind": "m5.large", "subnet": format!("subnet-{number}"), "addressesV6": 1,
            "tags": {"node": format!("n{number}")}})
    };
    let config = json!({
        "settings": {"attach": [50, 200], "detach": [50, 200], "start": [0, 0], "choice": "lowest"},
        "world": {
            "vpcs": [{"id": "vpc-1", "cidrs": ["10.20.0.0/16"], "cidrsV6": ["2001:db8:20::/56"]}],
            "subnets": [subnet(1), subnet(2)],
            "instances": [instance(1), instance(2)],
        },
    });
    let mut cloud = Cloud::around(lab, &config, 1)?;
    for (node, mode, first) in [("n1", "addresses", 0), ("n2", "prefixes", 1)] {
        cloud.lab.store().apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"mode": mode}},
        }))?;
        cloud.lab.store().apply(&json!({
            "apiVersion": "rhumb.io/v1alpha1", "kind": "ENIPool", "metadata": {"name": mode},
            "spec": {"nodeSelector": {"matchLabels": {"mode": mode}}, "mode": mode, "ipv6": true,
                "minAllocate": PODS, "preAllocate": 0, "firstInterfaceIndex": first},
        }))?;
    }
    let words = ["--ec2-period", "1", "--ec2-deadline", "3", "--ec2-share", "100"];
    cloud.start_operator(ProgramOptions { args: words.map(str::to_owned).into(), ..Default::default() })?;
    for number in 0..2 {
        for key in ["all", "default", "eth0"] {
            cloud.lab.node(number).namespace().sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "1")?;
        }
        let args = ["--cloud", "aws"].map(str::to_owned).into();
        let options = AgentOptions { wait: Wait::Ready, args, ..Default::default() };
        cloud.lab.node_mut(number).start_agent_with(options)?;
    }
    for number in 0..2 {
        cloud.until("every address can be leased", PATIENCE, |cloud| {
            let status = cloud.lab.node(number).show("status")?;
            let free =
                status["pools"].as_array().context("a list of pools")?.iter().map(|pool| &pool["free"]);
            let few = free.clone().any(|free| free.as_u64() < Some(PODS as u64));
            Ok(if few || free.count() < 2 { Err(status["pools"].to_string()) } else { Ok(()) })
        })?;
    }
    let mut pods = [Vec::new(), Vec::new()];
    for (node, pods) in pods.iter_mut().enumerate() {
        for number in 0..PODS {
            let pod = cloud.lab.node(node).add_pod("default", &format!("p{node}-{number}"))?;
            cloud.claim("POST", node, &pod.container, &pod.addresses)?;
            pods.push(pod);
        }
    }
    cloud.route()?;
    Ok(Ground { cloud, pods })
}

impl Ground {
    /// Each node has what its pool says, and no more of it than one /80.
    fn is_as_the_pools_say(&self) -> Result<()> {
        let state = self.cloud.state()?;
        let enis = |node: usize| state.of(self.cloud.instance(node)).collect::<Vec<_>>();
        let (single, prefixed) = (enis(0), enis(1));
        ensure!(single.len() == 2 && prefixed.len() == 2, "{single:#?} {prefixed:#?}");
        ensure!(single.iter().all(|eni| eni.prefixes.is_empty() && !eni.addresses.is_empty()), "{single:#?}");
        ensure!(prefixed[0].slots_v4() == 1 && prefixed[0].prefixes_v6.is_empty(), "{prefixed:#?}");
        ensure!(prefixed[1].addresses.is_empty() && prefixed[1].prefixes.len() == 1, "{prefixed:#?}");
        for enis in [&single, &prefixed] {
            ensure!(enis.iter().map(|eni| eni.prefixes_v6.len()).sum::<usize>() == 1, "{enis:#?}");
        }
        let speak = SPEAK.map(|number| self.pods[0][number].v4());
        let on = |addr: IpAddr| {
            single
                .iter()
                .position(|eni| eni.addresses.iter().any(|held| Prefix::host((*held).into()).contains(addr)))
        };
        ensure!(on(speak[0]) != on(speak[1]), "{speak:?} are of one interface: {single:#?}");
        self.cloud.check()
    }

    fn speak(&self) -> Result<()> {
        let lab = &self.cloud.lab;
        let world: [IpAddr; 2] = [WORLD.parse()?, WORLD_V6.parse()?];
        let all = self.pods.iter().enumerate();
        let all = all.flat_map(|(node, pods)| SPEAK.map(|number| (node, &pods[number])));
        let served = listen(lab.client(), 80)?;
        let listeners: Vec<(&str, TcpListener)> = all
            .clone()
            .map(|(_, pod)| Ok((pod.container.as_str(), listen(&pod.namespace, 8080)?)))
            .collect::<Result<_>>()?;
        let at = |pod: &Pod| {
            let mut listeners = listeners.iter();
            listeners
                .find(|(container, _)| *container == pod.container)
                .map(|(_, at)| at)
                .context("it listens")
        };
        for (node, from) in all.clone() {
            for (_, to) in all.clone().filter(|(_, to)| to.container != from.container) {
                for (own, addr) in [(from.v4(), to.v4()), (from.v6(), to.v6())] {
                    let seen = exchange(&from.namespace, None, (addr, 8080).into(), at(to)?)
                        .with_context(|| format!("from {own} to {addr}"))?;
                    ensure!(seen == own, "{own} is known to {addr} as {seen}");
                }
            }
            for (known, addr) in [(lab.node(node).addresses[0], world[0]), (from.v6(), world[1])] {
                let seen = exchange(&from.namespace, None, (addr, 80).into(), &served)
                    .with_context(|| format!("from {:?} to {addr}", from.addresses))?;
                ensure!(seen == known, "{:?} is known to the world as {seen}", from.addresses);
            }
            for (caller, addr) in [(world[0], from.v4()), (world[1], from.v6())] {
                exchange(lab.client(), Some(caller), (addr, 8080).into(), at(from)?)
                    .with_context(|| format!("from {caller} to {addr}"))?;
            }
        }
        Ok(())
    }
}

#[test]
fn pods_on_single_addresses_and_on_prefixes_speak_to_each_other_and_to_the_world() {
    let ground = ground().expect("a lab with a cloud");
    let work = || -> Result<()> {
        ground.is_as_the_pools_say()?;
        let before = ground.cloud.vpc().dropped()?;
        ground.speak().with_context(|| format!("{:?}", ground.cloud.vpc().counters()))?;
        let dropped = ground.cloud.vpc().dropped()? - before;
        ensure!(dropped == 0, "EC2 would drop {dropped} packets: {:?}", ground.cloud.vpc().counters());
        ground.cloud.check()
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    let Ground { cloud, pods } = ground;
    drop(pods);
    cloud.close().expect("closed");
}
