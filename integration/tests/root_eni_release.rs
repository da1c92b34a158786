// SPDX-License-Identifier: Apache-2.0
//! A node gives blocks of its interface back: what no pod has at once, what a pod has once its address has rested, and
//! what a pod has not left not at all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::{Interface, Vpc, node_config};
use rhumb_integration::lab::{Lab, Pod, Spec};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long an address rests; the agent's own round, which would find the end of it late, comes every 30 s.
const COOL_DOWN: Duration = Duration::from_secs(3);
/// By how much the end of the rest may be missed.
const LATE: Duration = Duration::from_secs(2);

fn interface() -> Interface {
    let blocks = (21..24).map(|last| format!("192.168.100.{last}/32"));
    Interface {
        node: 0,
        index: 0,
        primary: "192.168.100.1".to_owned(),
        primary_v6: "fd00:192::1".to_owned(),
        blocks: blocks.chain(["fd00:192:0:0:10::/80".to_owned()]).collect(),
    }
}

struct Ground {
    lab: Lab,
}

impl Ground {
    fn new(name: &str, pool: &str) -> Result<Self> {
        let lab = Lab::build(Spec { nodes: 1, pool_v4: None, pool_v6: None, ..Spec::named(name) })?;
        lab.store().delete("PodPool", "", "default")?;
        Vpc::around(&lab)?.attach(lab.node(0), &interface())?;
        let mut ground = Self { lab };
        ground.decide(pool, 1, &[])?;
        ground.lab.node_mut(0).start_agent()?;
        Ok(ground)
    }

    /// Writes the NodeConfig as the operator would; `wanted` are blocks that it wants back, each since a change.
    fn decide(&mut self, pool: &str, generation: u64, wanted: &[(&str, u64)]) -> Result<()> {
        let mut config = node_config(self.lab.node(0), &[interface()], true, generation);
        config["spec"]["eni"]["coolDownSeconds"] = json!(COOL_DOWN.as_secs());
        for block in config["spec"]["podCIDRs"].as_array_mut().context("a list of blocks")? {
            block["pool"] = json!(pool);
            if let Some((_, since)) = wanted.iter().find(|(cidr, _)| block["cidr"] == **cidr) {
                block["releasing"] = json!(since);
            }
        }
        self.lab.store().apply(&config)
    }

    /// Makes a pod that asks for an address.
    fn pod(&self, name: &str, addr: &str) -> Result<Pod> {
        let node = self.lab.node(0);
        let mut network = node.network();
        network["capabilities"] = json!({"ips": true});
        network["runtimeConfig"] = json!({"ips": [addr]});
        node.attach_as(node.make_container("default", name)?, &network)
    }

    /// Waits until the agent has seen a change, and says about blocks exactly this.
    fn says(&self, generation: u64, released: &[(&str, u64)], declined: &[(&str, u64)]) -> Result<()> {
        let words = |words: &[(&str, u64)]| {
            let word = |(cidr, since): &(&str, u64)| json!({"cidr": cidr, "generation": since});
            Value::from(words.iter().map(word).collect::<Vec<_>>())
        };
        let (released, declined) = (words(released), words(declined));
        let what = format!("generation {generation}, released {released}, declined {declined}");
        let mut last = Value::Null;
        let found = self.lab.store().wait_until(&what, PATIENCE, |store| {
            let state = store.get("NodeState", "", &self.lab.node(0).name)?.unwrap_or_default();
            last = state["status"].clone();
            let told = |key: &str| last.get(key).cloned().unwrap_or_else(|| json!([]));
            let holds = last["observedGeneration"] == generation
                && told("released") == released
                && told("declined") == declined;
            Ok(holds.then_some(()))
        });
        found.with_context(|| format!("{last}"))
    }
}

#[test]
fn a_block_that_is_wanted_back_goes_once_its_pod_went_and_its_address_rested() {
    let mut ground = Ground::new("enirel", "default").expect("a lab");
    let mut work = || -> Result<()> {
        let pod = ground.pod("a", "192.168.100.22")?;
        // One that a pod has, and one that is free.
        let wanted = [("192.168.100.22/32", 2), ("192.168.100.23/32", 2)];
        ground.decide("default", 2, &wanted)?;
        ground.says(2, &wanted[1..], &wanted[..1])?;
        ensure!(
            ground.pod("b", "192.168.100.23").is_err(),
            "an address was leased of a block that was given back"
        );

        let gone = Instant::now();
        ground.lab.node(0).del_pod(pod)?;
        let deleted = gone.elapsed();
        ground.says(2, &wanted[1..], &[])?;
        ground.says(2, &wanted, &[])?;
        let rested = gone.elapsed();
        ensure!(rested >= COOL_DOWN, "given back after {rested:?}");
        ensure!(
            rested <= deleted + COOL_DOWN + LATE,
            "given back after {rested:?}, deleted after {deleted:?}"
        );

        // Taken back before the cloud was asked: the same addresses are leased again.
        ground.decide("default", 3, &[])?;
        ground.says(3, &[], &[])?;
        for (name, addr) in [("c", "192.168.100.22"), ("d", "192.168.100.23")] {
            let pod = ground.pod(name, addr)?;
            ensure!(pod.v4().to_string() == addr, "{addr} was asked for, {} was leased", pod.v4());
            ground.lab.node(0).del_pod(pod)?;
        }
        Ok(())
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    ground.lab.close().expect("closed");
}

#[test]
fn addresses_are_leased_from_the_pool_of_the_nodes_interfaces_whatever_its_name() {
    let mut ground = Ground::new("eninam", "vpc").expect("a lab");
    let mut work = || -> Result<()> {
        let pools = |ground: &Ground| -> Result<Vec<Value>> {
            let status = ground.lab.node(0).show("status")?;
            let pools = status["pools"].as_array().context("a list of pools")?.iter();
            Ok(pools.map(|pool| json!([pool["pool"], pool["family"], pool["used"]])).collect())
        };
        let pod = ground.pod("a", "192.168.100.21")?;
        let both = [json!(["vpc", "ipv4", 1]), json!(["vpc", "ipv6", 1])];
        let told = pools(&ground)?;
        ensure!(told == both, "{told:?}");
        // The journal names the pool to an agent that starts.
        ground.lab.node_mut(0).stop_agent()?;
        ground.lab.node_mut(0).start_agent()?;
        let told = pools(&ground)?;
        ensure!(told == both, "{told:?} after a restart");
        ground.lab.node(0).del_pod(pod)
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    ground.lab.close().expect("closed");
}
