// SPDX-License-Identifier: Apache-2.0
//! A node is filled to its last address, emptied and filled again, twenty times, while operator, agent and plugin die at
//! every named step: after each round EC2 has what it had before the first, no address was two pods', and none was a
//! pod's that EC2 did not hold. What another operator left behind goes, what others left stays.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use rhumb_cni::failpoint;
use rhumb_integration::ec2::Cloud;
use rhumb_integration::lab::{AgentOptions, Lab, Pod, ProgramOptions, Spec, Wait};
use rhumb_model::{EniId, Prefix};
use serde_json::{Value, json};

const ROUNDS: usize = 20;
/// Three interfaces with as many addresses each besides their own.
const KIND: &str = "m5.large";
const PODS: usize = 27;
/// Those, and two that need none.
const MAX_PODS: u64 = 29;
/// What an empty node has.
const READY: usize = 2;
/// What takes EC2 and the operator a minute takes the test a second.
const SPEED: u32 = 60;
/// One step of a round on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many calls of the plugin there are at a time.
const AT_ONCE: usize = 4;

/// Every named point of the operator that a round passes.
const OPERATOR: [&str; 17] = [
    "operator.eni.after.look",
    "operator.eni.before.config",
    "operator.eni.after.config",
    "operator.eni.before.CreateNetworkInterface",
    "operator.eni.after.CreateNetworkInterface",
    "operator.eni.before.AttachNetworkInterface",
    "operator.eni.after.AttachNetworkInterface",
    "operator.eni.before.AssignPrivateIpAddresses",
    "operator.eni.after.AssignPrivateIpAddresses",
    "operator.eni.before.ModifyNetworkInterfaceAttribute",
    "operator.eni.after.ModifyNetworkInterfaceAttribute",
    "operator.eni.before.UnassignPrivateIpAddresses",
    "operator.eni.after.UnassignPrivateIpAddresses",
    "operator.eni.before.DetachNetworkInterface",
    "operator.eni.after.DetachNetworkInterface",
    "operator.eni.before.DeleteNetworkInterface",
    "operator.eni.after.DeleteNetworkInterface",
];

/// A place for a pod on the node.
struct Place {
    number: usize,
    pod: Option<Pod>,
}

struct Ground {
    cloud: Cloud,
    places: Vec<Place>,
    /// Where points of the operator are armed.
    folder: PathBuf,
    /// An interface of a node that was deleted while the operator was down.
    left: EniId,
    /// Interfaces of another cluster and of nobody.
    foreign: [EniId; 2],
}

fn with_failpoints() -> AgentOptions {
    let args = ["--cloud", "aws"].map(str::to_owned).into();
    AgentOptions { failpoints: true, wait: Wait::Ready, args, ..AgentOptions::default() }
}

impl Ground {
    fn new() -> Result<Self> {
        let lab = Lab::build(Spec { nodes: 1, pool_v4: None, pool_v6: None, ..Spec::named("enirnd") })?;
        let config = json!({
            "settings": {"attach": [1_000, 10_000], "detach": [1_000, 10_000], "start": [0, 0]},
            "world": {
                "vpcs": [{"id": "vpc-1", "cidrs": ["10.20.0.0/16"]}],
                "subnets": [{"id": "subnet-1", "vpc": "vpc-1", "zone": "eu-central-1a", "cidr": "10.20.0.0/24"}],
                "instances": [{"kind": KIND, "subnet": "subnet-1", "tags": {"node": "n1"}}],
            },
        });
        let mut cloud = Cloud::around(lab, &config, SPEED)?;
        let left = loose(&cloud, &[("rhumb.io/cluster", Cloud::CLUSTER), ("rhumb.io/node", "gone")])?;
        let foreign = [
            loose(&cloud, &[("rhumb.io/cluster", "another"), ("rhumb.io/node", "n1")])?,
            loose(&cloud, &[])?,
        ];
        for object in [
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
            json!({"apiVersion": "rhumb.io/v1alpha1", "kind": "ENIPool", "metadata": {"name": "vpc"},
                "spec": {"preAllocate": READY, "settleSeconds": 5, "coolDownSeconds": 1, "releaseDelaySeconds": 5,
                    "interfaceBudgetPerHour": 1000}}),
        ] {
            cloud.lab.store().apply(&object)?;
        }
        let folder = cloud.lab.home().join("failpoints");
        std::fs::create_dir(&folder)?;
        let words = ["--ec2-period", "5", "--ec2-deadline", "120", "--ec2-share", "100"];
        let env = vec![(failpoint::ENV.to_owned(), folder.display().to_string())];
        cloud.start_operator(ProgramOptions { args: words.map(str::to_owned).into(), env })?;
        cloud.lab.node_mut(0).start_agent_with(with_failpoints())?;
        let places = (0..PODS).map(|number| Place { number, pod: None }).collect();
        let mut ground = Self { cloud, places, folder, left, foreign };
        ground.rest(&[])?;
        Ok(ground)
    }

    /// Fills the node and empties it, while each of the two points ends a program.
    fn round(&mut self, operator: &str, other: &str) -> Result<()> {
        std::fs::write(self.folder.join(operator), "kill")?;
        self.cloud.lab.node(0).arm(other, "kill")?;
        let scheduled = (0..PODS).map(|number| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p{number}\n  namespace: default\n\
                 spec:\n  nodeName: n1\n  containers: []\n"
            )
        });
        let file = self.cloud.lab.store().path().join("pods.yaml");
        std::fs::write(&file, scheduled.collect::<String>())?;
        self.each("every pod has an address", |cloud, place| {
            if place.pod.is_none() { add(cloud, place) } else { Ok(true) }
        })?;
        self.is_full()?;
        if other.starts_with("plugin.") {
            // An agent that starts on a full node has nothing to offer, and is ready all the same.
            self.cloud.lab.node_mut(0).kill_agent()?;
            mend(&mut self.cloud)?;
        }
        std::fs::remove_file(&file)?;
        self.each("every pod is gone", |cloud, place| {
            let Some(pod) = &place.pod else { return Ok(true) };
            let gone = del(cloud, pod)?;
            place.pod.take_if(|_| gone);
            Ok(gone)
        })?;
        self.rest(&[operator])?;
        let armed = self.cloud.lab.node(0).disarm()?;
        ensure!(armed.is_empty(), "nobody passed {armed:?}");
        self.cloud.check()
    }

    /// Does something for every place, some at a time, until all are done, and starts again what died meanwhile: what
    /// cannot be done now waits for that, and those behind it do.
    fn each(&mut self, what: &str, work: impl Fn(&Cloud, &mut Place) -> Result<bool> + Sync) -> Result<()> {
        let places = &mut self.places;
        self.cloud.until(what, PATIENCE, |cloud| {
            mend(cloud)?;
            let (cloud, work) = (&*cloud, &work);
            let each = places.len().div_ceil(AT_ONCE);
            let done: Result<Vec<usize>> = std::thread::scope(|scope| {
                let all = |part: &mut [Place]| -> Result<usize> {
                    for done in 0..part.len() {
                        if !work(cloud, &mut part[done])? {
                            return Ok(part.len() - done);
                        }
                    }
                    Ok(0)
                };
                let threads: Vec<_> =
                    places.chunks_mut(each).map(|part| scope.spawn(move || all(part))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let left: usize = done?.into_iter().sum();
            let config = || cloud.lab.store().get("NodeConfig", "", "n1");
            Ok(if left == 0 { Ok(()) } else { Err(format!("{left} are left; {:#?}", config()?)) })
        })
    }

    /// Every pod has an address of its own that EC2 holds, and there are no more to have.
    fn is_full(&self) -> Result<()> {
        let cloud = &self.cloud;
        let pods = self.places.iter().filter_map(|place| place.pod.as_ref());
        let used: Vec<Prefix> = pods.map(|pod| Prefix::host(pod.v4())).collect();
        let distinct: BTreeSet<Prefix> = used.iter().copied().collect();
        let held: BTreeSet<Prefix> = cloud.state()?.blocks(cloud.instance(0)).into_iter().collect();
        ensure!(used.len() == PODS && distinct == held, "pods have {used:?}, EC2 has {held:?}");
        let config = cloud.lab.store().get("NodeConfig", "", "n1")?.context("the node was told")?;
        let most = &config["spec"]["eni"]["maxPods"];
        ensure!(*most == MAX_PODS, "at most {most} pods");
        cloud.check()
    }

    /// Waits until nothing is left of a round, and the points in question ended the operator.
    fn rest(&mut self, points: &[&str]) -> Result<()> {
        let (left, folder) = (self.left.clone(), self.folder.clone());
        self.cloud.until("nothing is left over", PATIENCE, |cloud| {
            mend(cloud)?;
            let (state, instance) = (cloud.state()?, cloud.instance(0));
            let loose: Vec<&EniId> =
                state.loose(Cloud::CLUSTER).into_iter().filter(|id| **id != left).collect();
            let held: BTreeSet<Prefix> = state.blocks(instance).into_iter().collect();
            let told: BTreeSet<Prefix> =
                cloud.lab.node(0).pod_cidrs(cloud.lab.store())?.into_iter().collect();
            let armed: Vec<&&str> = points.iter().filter(|point| folder.join(point).exists()).collect();
            let done = state.of(instance).count() == 1
                && loose.is_empty()
                && held.len() == READY
                && held == told
                && armed.is_empty();
            Ok(if done {
                Ok(())
            } else {
                Err(format!(
                    "armed {armed:?}, loose {loose:?}, EC2 has {held:?}, told {told:?}; {:#?}",
                    cloud.lab.store().get("NodeConfig", "", "n1")?
                ))
            })
        })
    }

    /// What a crash left behind goes once it is old enough, and nothing else.
    fn collects(&mut self) -> Result<()> {
        let (left, foreign) = (self.left.clone(), self.foreign.clone());
        self.cloud.until("what was left behind is deleted", PATIENCE, |cloud| {
            let ids: Vec<EniId> = cloud.state()?.interfaces.into_iter().map(|eni| eni.id).collect();
            ensure!(foreign.iter().all(|id| ids.contains(id)), "of {foreign:?} there are {ids:?}");
            Ok(if ids.contains(&left) { Err(format!("{left} is there")) } else { Ok(()) })
        })
    }
}

/// Makes an interface that nobody has, with these tags.
fn loose(cloud: &Cloud, tags: &[(&str, &str)]) -> Result<EniId> {
    let mut words = vec![("SubnetId".to_owned(), "subnet-1".to_owned())];
    if !tags.is_empty() {
        words.push(("TagSpecification.1.ResourceType".to_owned(), "network-interface".to_owned()));
    }
    for (number, (key, value)) in (1..).zip(tags) {
        let tag = format!("TagSpecification.1.Tag.{number}");
        words.push((format!("{tag}.Key"), (*key).to_owned()));
        words.push((format!("{tag}.Value"), (*value).to_owned()));
    }
    let words: Vec<(&str, &str)> = words.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let made = cloud.call("CreateNetworkInterface", &words)?;
    let id = made.split_once("<networkInterfaceId>").and_then(|(_, rest)| rest.split_once('<'));
    Ok(id.with_context(|| format!("no interface was made: {made}"))?.0.parse()?)
}

/// Starts operator and agent again where they died.
fn mend(cloud: &mut Cloud) -> Result<()> {
    cloud.restart_operator()?;
    let node = cloud.lab.node_mut(0);
    if !node.agent_running() {
        node.start_agent_with(with_failpoints())?;
    }
    Ok(())
}

/// One attempt to start a pod; as a runtime does, what failed is deleted, and the next attempt is another container.
fn add(cloud: &Cloud, place: &mut Place) -> Result<bool> {
    let node = cloud.lab.node(0);
    let mut pod = node.make_container("default", &format!("p{}", place.number))?;
    let output = node.cni(&pod.call("ADD", &node.network()))?;
    if !output.status.success() {
        let deadline = Instant::now() + PATIENCE;
        while !del(cloud, &pod)? {
            ensure!(Instant::now() < deadline, "{} is not deleted", pod.container);
        }
        return Ok(false);
    }
    let told: Value = output.json()?;
    let all = told["ips"].as_array().context("the result has no ips")?.iter();
    let all = all.map(|ip| Ok(ip["address"].as_str().context("an address")?.parse::<IpNetwork>()?.ip()));
    pod.addresses = all.collect::<Result<Vec<IpAddr>>>()?;
    cloud.claim("POST", 0, &pod.container, &pod.addresses)?;
    place.pod = Some(pod);
    Ok(true)
}

/// One attempt to delete a pod, whose processes ended before.
fn del(cloud: &Cloud, pod: &Pod) -> Result<bool> {
    cloud.claim("DELETE", 0, &pod.container, &pod.addresses)?;
    let node = cloud.lab.node(0);
    Ok(node.cni(&pod.call("DEL", &node.network()))?.status.success())
}

#[test]
fn a_node_that_is_filled_and_emptied_while_its_programs_die_has_nothing_left_over() {
    let mut ground = Ground::new().expect("a lab with a cloud");
    for round in 0..ROUNDS {
        let operator = OPERATOR[round % OPERATOR.len()];
        let other = failpoint::ALL[round % failpoint::ALL.len()];
        ground
            .round(operator, other)
            .unwrap_or_else(|error| panic!("round {round}, {operator}, {other}: {error:#}"));
    }
    ground.collects().unwrap_or_else(|error| panic!("{error:#}"));
    ground.cloud.check().expect("nothing is broken");
    ground.cloud.close().expect("closed");
}
