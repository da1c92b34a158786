// SPDX-License-Identifier: Apache-2.0
//! A node, the operator and an EC2 in memory: pods start on addresses that EC2 gave, more of them than one interface has,
//! and what pods no longer need goes back to EC2 while none of it is in use.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::Cloud;
use rhumb_integration::lab::{AgentOptions, Lab, Pod, ProgramOptions, Spec, Wait};
use rhumb_model::Prefix;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// More than the nine that an interface of an m5.large has besides its own.
const PODS: usize = 11;
/// How many stay in the end: the first, and the last, which has an address of the second interface.
const STAY: usize = 2;
/// How many addresses more than its pods have the node keeps.
const READY: usize = 2;
/// How far the metadata service is behind, in milliseconds.
const METADATA_LAG: u64 = 3_000;

/// A node of a cluster with one pool. Its instance starts as its agent does: at first the metadata service knows neither
/// interface nor address.
fn cloud(name: &str) -> Result<Cloud> {
    let lab = Lab::build(Spec { nodes: 1, pool_v4: None, pool_v6: None, ..Spec::named(name) })?;
    let config = json!({
        "settings": {
            "attach": [50, 200], "detach": [50, 200], "start": [0, 0], "choice": "lowest",
            "metadataMemory": METADATA_LAG,
        },
        "metadata": {"lagOfOthers": METADATA_LAG},
        "world": {
            "vpcs": [{"id": "vpc-1", "cidrs": ["10.20.0.0/16"]}],
            "subnets": [{"id": "subnet-1", "vpc": "vpc-1", "zone": "eu-central-1a", "cidr": "10.20.0.0/24"}],
            "instances": [{"kind": "m5.large", "subnet": "subnet-1", "tags": {"node": "n1"}}],
        },
    });
    let mut cloud = Cloud::around(lab, &config, 1)?;
    for object in [
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
        json!({"apiVersion": "rhumb.io/v1alpha1", "kind": "ENIPool", "metadata": {"name": "vpc"},
            "spec": {"preAllocate": READY, "minAllocate": 0, "maxAboveWatermark": 0,
                "settleSeconds": 1, "coolDownSeconds": 1, "releaseDelaySeconds": 1}}),
    ] {
        cloud.lab.store().apply(&object)?;
    }
    let words = ["--ec2-period", "1", "--ec2-deadline", "3", "--ec2-share", "100"];
    cloud.start_operator(ProgramOptions { args: words.map(str::to_owned).into(), ..Default::default() })?;
    let args = ["--cloud", "aws"].map(str::to_owned).into();
    cloud.lab.node_mut(0).start_agent_with(AgentOptions { wait: Wait::Ready, args, ..Default::default() })?;
    Ok(cloud)
}

/// Starts a pod, again and again until there is an address, as the kubelet does.
fn pod(cloud: &Cloud, number: usize) -> Result<Pod> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cloud.lab.node(0).add_pod("default", &format!("p{number}")) {
            Ok(pod) => {
                cloud.claim("POST", 0, &pod.container, &pod.addresses)?;
                return Ok(pod);
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[test]
fn pods_have_addresses_that_ec2_gave_and_what_they_no_longer_need_goes_back_unused() {
    let mut cloud = cloud("enicld").expect("a lab with a cloud");
    let mut work = || -> Result<()> {
        let mut pods = Vec::new();
        for number in 0..PODS {
            pods.push(pod(&cloud, number).with_context(|| format!("pod {number}"))?);
        }
        cloud.check()?;
        let most = cloud.state()?.blocks(cloud.instance(0));
        ensure!(most.len() >= PODS, "{most:?}");
        for pod in pods.drain(1..PODS + 1 - STAY) {
            let (container, addresses) = (pod.container.clone(), pod.addresses.clone());
            cloud.lab.node(0).del_pod(pod)?;
            cloud.claim("DELETE", 0, &container, &addresses)?;
        }
        cloud.until("what pods do not need goes back", PATIENCE, |cloud| {
            let held: BTreeSet<Prefix> = cloud.state()?.blocks(cloud.instance(0)).into_iter().collect();
            let told = cloud.lab.node(0).pod_cidrs(cloud.lab.store())?.into_iter().collect();
            for pod in &pods {
                ensure!(held.contains(&Prefix::host(pod.v4())), "{} is used, {held:?}", pod.v4());
            }
            let as_wanted = held.len() == STAY + READY && held.is_subset(&told);
            Ok(if as_wanted { Ok(()) } else { Err(format!("EC2 has {held:?}, the node was told {told:?}")) })
        })?;
        let calls = cloud.ask("GET", "/calls", &Value::Null)?;
        ensure!(calls.to_string().contains("UnassignPrivateIpAddresses"), "{calls}");
        cloud.check()
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    cloud.close().expect("closed");
}

#[test]
fn a_node_that_nobody_named_is_known_by_a_metadata_service_that_lags() {
    let began = Instant::now();
    let cloud = cloud("eniids").expect("a lab with a cloud");
    let work = || -> Result<()> {
        // The interface by whose address its subnet is asked for was not known before.
        ensure!(began.elapsed() >= Duration::from_millis(METADATA_LAG), "ready after {:?}", began.elapsed());
        let state = cloud.lab.store().get("NodeState", "", "n1")?.context("the agent tells of itself")?;
        let told = &state["status"]["instance"];
        let known = json!({"id": cloud.instance(0), "kind": "m5.large", "zone": "eu-central-1a",
            "subnet": "subnet-1", "vpc": "vpc-1"});
        ensure!(*told == known, "{told}");
        let log = std::fs::read_to_string(cloud.lab.node(0).log())?;
        ensure!(log.contains("instance not known yet"), "the metadata service did not lag: {log}");
        cloud.check()
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    cloud.close().expect("closed");
}
