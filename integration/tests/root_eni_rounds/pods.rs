// SPDX-License-Identifier: Apache-2.0
//! Pods as a runtime starts and ends them, and the deaths of programs on the way.

use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use rhumb_integration::ec2::Cloud;
use rhumb_integration::lab::{AgentOptions, Pod, Process, Wait};
use serde_json::Value;

/// One step of a round on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The signal by which a program dies at a step.
const KILL: i32 = 9;

/// A place for a pod on the node.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) pod: Option<Pod>,
}

impl Place {
    /// The IPv4 address of its pod.
    pub(crate) fn first(&self) -> Option<IpAddr> {
        self.pod.as_ref()?.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// One attempt to delete its pod, if there is one.
    pub(crate) fn empty(&mut self, deaths: &Deaths, cloud: &Cloud) -> Result<bool> {
        let Some(pod) = &self.pod else { return Ok(true) };
        let gone = deaths.del(cloud, pod)?;
        self.pod.take_if(|_| gone);
        Ok(gone)
    }
}

/// How many programs died at a step.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    pub(crate) operator: usize,
    pub(crate) agent: usize,
    plugin: AtomicUsize,
}

impl Deaths {
    /// Of agent and plugin.
    pub(crate) fn node(&self) -> usize {
        self.agent + self.plugin.load(Ordering::Relaxed)
    }

    /// Starts operator and agent again where they died.
    pub(crate) fn mend(&mut self, cloud: &mut Cloud) -> Result<()> {
        self.operator += ended(cloud.lab.operator_mut().as_mut(), "operator")?;
        if let Err(error) = cloud.restart_operator() {
            // It may die before it is ready; that is found the next time.
            ended(cloud.lab.operator_mut().as_mut(), "operator").map_err(|_| error)?;
        }
        let node = cloud.lab.node_mut(0);
        self.agent += ended(node.agent().ok(), "agent")?;
        if !node.agent_running()
            && let Err(error) = node.start_agent_with(agent(Wait::Serving))
        {
            ended(node.agent().ok(), "agent").map_err(|_| error)?;
        }
        Ok(())
    }

    /// One attempt to start a pod; as a runtime does, what failed is deleted, and the next attempt is another container.
    pub(crate) fn add(&self, cloud: &Cloud, place: &mut Place) -> Result<bool> {
        let node = cloud.lab.node(0);
        let mut pod = node.make_container("default", &format!("p{}", place.number))?;
        let output = node.cni(&pod.call("ADD", &node.network()))?;
        if !output.status.success() {
            self.note(output.status);
            let deadline = Instant::now() + PATIENCE;
            while !self.del(cloud, &pod)? {
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
    pub(crate) fn del(&self, cloud: &Cloud, pod: &Pod) -> Result<bool> {
        cloud.claim("DELETE", 0, &pod.container, &pod.addresses)?;
        let node = cloud.lab.node(0);
        let output = node.cni(&pod.call("DEL", &node.network()))?;
        self.note(output.status);
        Ok(output.status.success())
    }

    fn note(&self, plugin: ExitStatus) {
        self.plugin.fetch_add(usize::from(plugin.signal() == Some(KILL)), Ordering::Relaxed);
    }
}

/// 1 when a program died at a step, 0 while it runs.
fn ended(program: Option<&mut Process>, name: &str) -> Result<usize> {
    let Some(status) = program.and_then(Process::ended) else { return Ok(0) };
    ensure!(status.signal() == Some(KILL), "the {name} ended with {status}");
    Ok(1)
}

/// How the agent of the node is started. It is ready once there are addresses, for which the operator may have to live.
pub(crate) fn agent(wait: Wait) -> AgentOptions {
    let args = ["--cloud", "aws"].map(str::to_owned).into();
    AgentOptions { failpoints: true, wait, args, ..AgentOptions::default() }
}
