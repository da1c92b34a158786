// SPDX-License-Identifier: Apache-2.0
//! A node in a cloud: filled, emptied, watched, and ended.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rhumb_cni::failpoint;
use rhumb_integration::ec2::Cloud;
use rhumb_integration::lab::{Lab, Process, ProgramOptions, Spec, Wait};
use rhumb_model::{EniId, Prefix};
use serde_json::{Value, json};

use crate::pods::{Deaths, PATIENCE, Place, agent};
use crate::rounds::Round;
use crate::shape::Shape;

/// What takes EC2 and the operator a minute takes the test a second.
const SPEED: u32 = 60;
/// How many calls of the plugin there are at a time.
const AT_ONCE: usize = 4;
/// More calls than a round makes.
const CALLS: u64 = 20_000;

pub(crate) struct Ground {
    shape: &'static Shape,
    cloud: Cloud,
    places: Vec<Place>,
    deaths: Deaths,
    /// Where points of the operator are armed.
    folder: PathBuf,
    /// An interface of a node that was deleted while the operator was down.
    left: EniId,
    /// Interfaces of another cluster and of nobody.
    foreign: BTreeSet<EniId>,
}

impl Ground {
    /// A node without addresses: no pool chooses it yet.
    pub(crate) fn new(shape: &'static Shape) -> Result<Self> {
        let lab = Lab::build(Spec { nodes: 1, pool_v4: None, pool_v6: None, ..Spec::named(shape.name) })?;
        let mut cloud = Cloud::around(lab, &shape.world(), SPEED)?;
        let left = loose(&cloud, &[("rhumb.io/cluster", Cloud::CLUSTER), ("rhumb.io/node", "gone")])?;
        let foreign = [
            loose(&cloud, &[("rhumb.io/cluster", "another"), ("rhumb.io/node", "n1")])?,
            loose(&cloud, &[])?,
        ];
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        cloud.lab.store().apply(&node)?;
        let folder = cloud.lab.home().join("failpoints");
        std::fs::create_dir(&folder)?;
        let words = ["--ec2-period", "5", "--ec2-deadline", "120", "--ec2-share", "100"];
        let env = vec![(failpoint::ENV.to_owned(), folder.display().to_string())];
        cloud.start_operator(ProgramOptions { args: words.map(str::to_owned).into(), env })?;
        cloud.lab.node_mut(0).start_agent_with(agent(Wait::Serving))?;
        let places = (0..shape.pods).map(|number| Place { number, pod: None }).collect();
        let (deaths, foreign) = (Deaths::default(), foreign.into());
        Ok(Self { shape, cloud, places, deaths, folder, left, foreign })
    }

    /// Fills the node and empties it, while programs die and calls fail.
    pub(crate) fn round(&mut self, round: &Round) -> Result<()> {
        self.deaths = Deaths::default();
        let before = self.last_call()?;
        for point in &round.operator {
            self.arm(point)?;
        }
        for point in &round.node {
            self.cloud.lab.node(0).arm(point, "kill")?;
        }
        self.spoil(round)?;
        self.cloud.lab.store().apply(&self.shape.pool(round.number, self.kept()?))?;
        self.schedule(|_| true)?;
        self.each("every pod has an address", |deaths, cloud, place| {
            if place.pod.is_none() { deaths.add(cloud, place) } else { Ok(true) }
        })?;
        self.is_full()?;
        if !round.node.iter().any(|point| point.starts_with("agent.")) {
            // An agent that starts on a full node has nothing to offer, and is ready all the same.
            self.cloud.lab.node_mut(0).kill_agent()?;
            self.cloud.lab.node_mut(0).start_agent_with(agent(Wait::Ready))?;
        }
        self.halve()?;
        std::fs::remove_file(self.pods())?;
        self.each("every pod is gone", |deaths, cloud, place| place.empty(deaths, cloud))?;
        self.rest(round)?;
        self.cloud.ask("DELETE", "/faults", &Value::Null)?;
        self.cloud.check()?;
        self.is_as_scripted(round, before)
    }

    /// How many /28 of the subnet are kept for prefixes.
    fn kept(&self) -> Result<u128> {
        let told = self.cloud.call("GetSubnetCidrReservations", &[("SubnetId", "subnet-1")])?;
        let parts = told.split("<cidr>").skip(1).filter_map(|rest| rest.split_once('<'));
        parts.map(|(cidr, _)| Ok(cidr.parse::<Prefix>()?.size() / 16)).sum()
    }

    fn arm(&self, point: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.join(point), "kill")?)
    }

    fn pods(&self) -> PathBuf {
        self.cloud.lab.store().path().join("pods.yaml")
    }

    /// Puts the pods of these places on the node, as a scheduler would, and no others.
    fn schedule(&self, wanted: impl Fn(&Place) -> bool) -> Result<()> {
        let scheduled = self.places.iter().filter(|place| wanted(place)).map(|place| {
            let number = place.number;
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p{number}\n  namespace: default\n\
                 spec:\n  nodeName: n1\n  containers: []\n"
            )
        });
        Ok(std::fs::write(self.pods(), scheduled.collect::<String>())?)
    }

    /// Has EC2 do wrong what the round says.
    fn spoil(&self, round: &Round) -> Result<()> {
        self.cloud.ask("PUT", "/settings", &json!({"lag": [0, round.weather.lag]}))?;
        for action in round.calls() {
            if let Some((fault, times)) = &round.weather.fault {
                self.cloud.ask(
                    "POST",
                    "/faults",
                    &json!({"action": action, "times": times, "fault": fault}),
                )?;
            }
        }
        Ok(())
    }

    /// Does something for every place, some at a time, until all are done, and starts again what died meanwhile: what
    /// cannot be done now waits for that, and those behind it do.
    fn each(
        &mut self,
        what: &str,
        work: impl Fn(&Deaths, &Cloud, &mut Place) -> Result<bool> + Sync,
    ) -> Result<()> {
        let Self { cloud, places, deaths, .. } = self;
        cloud.until(what, PATIENCE, |cloud| {
            deaths.mend(cloud)?;
            let (cloud, deaths, work) = (&*cloud, &*deaths, &work);
            let each = places.len().div_ceil(AT_ONCE);
            let done: Result<Vec<usize>> = std::thread::scope(|scope| {
                let all = |part: &mut [Place]| -> Result<usize> {
                    for done in 0..part.len() {
                        if !work(deaths, cloud, &mut part[done])? {
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

    /// Every pod has addresses of its own that EC2 holds, and there are no more to have.
    fn is_full(&self) -> Result<()> {
        let (cloud, shape) = (&self.cloud, self.shape);
        let pods = self.places.iter().filter_map(|place| place.pod.as_ref());
        let used: Vec<&[IpAddr]> = pods.map(|pod| pod.addresses.as_slice()).collect();
        let distinct: BTreeSet<IpAddr> = used.iter().copied().flatten().copied().collect();
        let held = cloud.state()?.blocks(cloud.instance(0));
        let room: u128 = held.iter().filter(|block| block.addr().is_ipv4()).map(|block| block.size()).sum();
        let is_held = |address: &IpAddr| held.iter().any(|block| block.contains(*address));
        ensure!(
            used.len() == shape.pods
                && used.iter().all(|addresses| addresses.len() == shape.families)
                && distinct.len() == shape.pods * shape.families
                && distinct.iter().all(is_held)
                && room == shape.pods as u128,
            "pods have {used:?}, EC2 has {held:?}"
        );
        let config = cloud.lab.store().get("NodeConfig", "", "n1")?.context("the node was told")?;
        let most = &config["spec"]["eni"]["maxPods"];
        ensure!(*most == shape.max_pods, "at most {most} pods");
        cloud.check()
    }

    /// The pods with the higher addresses leave: what they had goes back to EC2, and the others keep what is theirs.
    fn halve(&mut self) -> Result<()> {
        let mut all: Vec<IpAddr> = self.places.iter().filter_map(Place::first).collect();
        all.sort_unstable();
        let middle = all[all.len() / 2];
        let stays = |place: &Place| place.first().is_some_and(|address| address < middle);
        self.schedule(stays)?;
        self.each("half of the pods are gone", |deaths, cloud, place| {
            if stays(place) { Ok(true) } else { place.empty(deaths, cloud) }
        })?;
        let Self { shape, cloud, places, deaths, .. } = self;
        let left: Vec<IpAddr> = places
            .iter()
            .filter_map(|place| place.pod.as_ref())
            .flat_map(|pod| pod.addresses.clone())
            .collect();
        let wanted = (all.len() / 2) as u128 + shape.spare;
        cloud.until("what half of the pods had is given back", PATIENCE, |cloud| {
            deaths.mend(cloud)?;
            let held = cloud.state()?.blocks(cloud.instance(0));
            let lost: Vec<&IpAddr> =
                left.iter().filter(|address| !held.iter().any(|block| block.contains(**address))).collect();
            ensure!(lost.is_empty(), "pods have {lost:?}, EC2 has {held:?}");
            let room: u128 =
                held.iter().filter(|block| block.addr().is_ipv4()).map(|block| block.size()).sum();
            Ok(if room == wanted { Ok(()) } else { Err(format!("EC2 has {held:?}, wanted are {wanted}")) })
        })?;
        cloud.check()
    }

    /// Waits until nothing is left of a round, and a program died at each of its points.
    fn rest(&mut self, round: &Round) -> Result<()> {
        let Self { shape, cloud, deaths, folder, left, .. } = self;
        cloud.until("nothing is left over", PATIENCE, |cloud| {
            deaths.mend(cloud)?;
            let (state, instance) = (cloud.state()?, cloud.instance(0));
            let loose: Vec<&EniId> =
                state.loose(Cloud::CLUSTER).into_iter().filter(|id| *id != left).collect();
            let held: BTreeSet<Prefix> = state.blocks(instance).into_iter().collect();
            let told: BTreeSet<Prefix> =
                cloud.lab.node(0).pod_cidrs(cloud.lab.store())?.into_iter().collect();
            let of_node = cloud.lab.node(0).failpoint_dir();
            let points = round.operator.iter().map(|point| folder.join(point));
            let points = points.chain(round.node.iter().map(|point| of_node.join(point)));
            let armed: Vec<PathBuf> = points.filter(|file| file.exists()).collect();
            let all_died = deaths.operator == round.operator.len() && deaths.node() == round.node.len();
            let done = state.of(instance).count() == 1
                && loose.is_empty()
                && held.len() == shape.ready
                && held == told
                && armed.is_empty()
                && all_died;
            Ok(if done {
                Ok(())
            } else {
                Err(format!(
                    "armed {armed:?}, died {deaths:?}, loose {loose:?}, EC2 has {held:?}, told {told:?}; {:#?}",
                    cloud.lab.store().get("NodeConfig", "", "n1")?
                ))
            })
        })
    }

    /// The number of the last call.
    fn last_call(&self) -> Result<u64> {
        let calls = self.cloud.ask("GET", "/calls", &Value::Null)?;
        calls["calls"].as_u64().context("calls are counted")
    }

    /// EC2 did wrong what the round wanted, and no interface was made twice.
    fn is_as_scripted(&self, round: &Round, before: u64) -> Result<()> {
        let calls = self.cloud.ask("GET", &format!("/ledger?last={CALLS}"), &Value::Null)?;
        let calls = calls.as_array().context("the books are a list")?.iter();
        let calls: Vec<&Value> = calls.filter(|call| call["number"].as_u64() > Some(before)).collect();
        for action in round.calls() {
            let name = action.trim_end_matches('*');
            let is_it = |call: &&&Value| call["action"].as_str().is_some_and(|it| it.starts_with(name));
            let outcomes: BTreeSet<&str> =
                calls.iter().filter(is_it).filter_map(|call| call["outcome"].as_str()).collect();
            let expected = round.weather.outcome;
            ensure!(outcomes.contains(expected), "{action} was to end once with {expected}: {outcomes:?}");
        }
        let made = calls.iter().filter(|call| {
            let outcome = call["outcome"].as_str().unwrap_or_default();
            call["action"] == "CreateNetworkInterface" && (outcome == "ok" || outcome.starts_with("done"))
        });
        let made: BTreeSet<&str> = made
            .filter_map(|call| call["subjects"].as_array())
            .flatten()
            .filter_map(Value::as_str)
            .filter(|subject| subject.starts_with("eni-"))
            .collect();
        ensure!(made.len() == self.shape.made, "made were {made:?}");
        Ok(())
    }

    /// The instance ends: with its notice and all pods, or at once, while it is filled and an interface is on its way to
    /// it. Nothing of it is left, nor of what a node left that went while the operator was down; the rest stays.
    pub(crate) fn end(mut self) -> Result<()> {
        let instance = format!("/instances/{}", self.cloud.instance(0));
        self.schedule(|_| true)?;
        if self.shape.spot {
            self.each("every pod has an address", |deaths, cloud, place| {
                if place.pod.is_none() { deaths.add(cloud, place) } else { Ok(true) }
            })?;
            self.cloud.ask("POST", &format!("{instance}/interrupt"), &Value::Null)?;
        } else {
            self.arm("operator.eni.after.CreateNetworkInterface")?;
            self.cloud.until("an interface is made", PATIENCE, |cloud| {
                let operator = cloud.lab.operator_mut().as_mut();
                let died = operator.and_then(Process::ended).is_some();
                Ok(if died { Ok(()) } else { Err("the operator runs".to_owned()) })
            })?;
            ensure!(!self.cloud.state()?.loose(Cloud::CLUSTER).is_empty(), "no interface is on its way");
            self.cloud.ask("DELETE", &instance, &Value::Null)?;
            self.cloud.restart_operator()?;
        }
        let id = self.cloud.instance(0).clone();
        self.cloud.until("the instance ends", PATIENCE, |cloud| {
            let runs = cloud.state()?.of(&id).count() > 0;
            Ok(if runs { Err("it has interfaces".to_owned()) } else { Ok(()) })
        })?;
        self.cloud.lab.node_mut(0).kill_agent()?;
        std::fs::remove_file(self.pods())?;
        self.cloud.lab.store().delete("Node", "", "n1")?;
        let foreign = &self.foreign;
        self.cloud.until("nothing is left of the instance", PATIENCE, |cloud| {
            let ids: BTreeSet<EniId> = cloud.state()?.interfaces.into_iter().map(|eni| eni.id).collect();
            ensure!(foreign.is_subset(&ids), "of {foreign:?} there are {ids:?}");
            let config = cloud.lab.store().get("NodeConfig", "", "n1")?;
            let done = ids == *foreign && config.is_none();
            Ok(if done {
                Ok(())
            } else {
                Err(format!("{ids:?} are there, of others {foreign:?}; {config:#?}"))
            })
        })?;
        self.cloud.check()?;
        self.places.clear();
        self.cloud.close()
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
