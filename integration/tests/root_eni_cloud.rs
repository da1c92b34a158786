// SPDX-License-Identifier: Apache-2.0
//! A node, the operator and an EC2 in memory: pods start on addresses that EC2 gave, more of them than one interface has,
//! and what pods no longer need goes back to EC2 while none of it is in use.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rhumb_integration::lab::{AgentOptions, Lab, Pod, Spec, Wait};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// More than the nine that an interface of an m5.large has besides its own.
const PODS: usize = 11;
/// How many stay in the end: the first, and the last, which has an address of the second interface.
const STAY: usize = 2;
/// How many addresses more than its pods have the node keeps.
const READY: usize = 2;
/// What is too much has to be so for a minute before it is asked for.
const GIVEN_BACK: Duration = Duration::from_secs(150);

/// A program of ours, killed with the test.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Cloud {
    _fake: Helper,
    _operator: Helper,
    control: String,
    instance: String,
    lab: Lab,
    hooks: usize,
}

fn ask(control: &str, method: &str, path: &str, body: &Value) -> Result<Value> {
    let mut stream = TcpStream::connect(control)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.to_string();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {control}\r\nconnection: close\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    let (head, body) = told.split_once("\r\n\r\n").context("an answer has a head and a body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {told}");
    Ok(serde_json::from_str(body)?)
}

/// The program for life: it ends with the thread that starts it.
fn bound(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

impl Cloud {
    fn new() -> Result<Self> {
        let mut lab = Lab::build(Spec { nodes: 1, pool_v4: None, pool_v6: None, ..Spec::named("enicld") })?;
        lab.binaries().check()?;
        lab.store().delete("PodPool", "", "default")?;
        let folder = tempfile::Builder::new().prefix("rh-eni-cloud").tempdir()?;
        let config = json!({
            "settings": {"attach": [50, 200], "detach": [50, 200], "start": [0, 0], "choice": "lowest"},
            "world": {
                "vpcs": [{"id": "vpc-1", "cidrs": ["10.20.0.0/16"]}],
                "subnets": [{"id": "subnet-1", "vpc": "vpc-1", "zone": "eu-central-1a", "cidr": "10.20.0.0/24"}],
                "instances": [{"kind": "m5.large", "subnet": "subnet-1"}],
            },
        });
        std::fs::write(folder.path().join("world.yaml"), config.to_string())?;
        let program = lab.binaries().path("rhumb-fake-ec2");
        let mut fake = bound(&program)
            .arg("--config")
            .arg(folder.path().join("world.yaml"))
            .stdout(Stdio::piped())
            .spawn()
            .context("start rhumb-fake-ec2")?;
        let output = fake.stdout.take().context("the pipe was asked for")?;
        let fake = Helper(fake);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))?;
        let address = |key: &str| told[key].as_str().map(str::to_owned).context("an address");
        let control = address("control")?;

        let state = ask(&control, "GET", "/state", &Value::Null)?;
        let instance = state["instances"][0]["id"].as_str().context("an instance")?.to_owned();
        let mac = state["interfaces"][0]["mac"].as_str().context("its interface")?;
        lab.node(0).namespace().ip(&format!("link set eth0 address {mac}"))?;
        let provider = format!("aws:///eu-central-1a/{instance}");
        for object in [
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": lab.node(0).name},
                "spec": {"providerID": provider}}),
            json!({"apiVersion": "rhumb.io/v1alpha1", "kind": "ENIPool", "metadata": {"name": "vpc"},
                "spec": {"preAllocate": READY, "minAllocate": 0, "maxAboveWatermark": 0,
                    "coolDownSeconds": 1, "releaseDelaySeconds": 1}}),
        ] {
            lab.store().apply(&object)?;
        }
        let operator = bound(&lab.binaries().path("rhumb-operator"))
            .arg("--store")
            .arg(lab.store().path())
            .args(["--cloud", "aws", "--cluster-name", "lab", "--region", "eu-central-1"])
            .args(["--ec2-period", "1", "--ec2-deadline", "3", "--ec2-share", "100"])
            .args(["--ec2-endpoint", &format!("http://{}", address("ec2")?)])
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stderr(std::fs::File::create(lab.store().path().with_extension("operator.log"))?)
            .spawn()
            .context("start rhumb-operator")?;
        let operator = Helper(operator);
        lab.node_mut(0).start_agent_with(AgentOptions { wait: Wait::Ready, ..AgentOptions::default() })?;
        Ok(Self { _fake: fake, _operator: operator, control, instance, lab, hooks: 0 })
    }

    /// Makes the links of interfaces that EC2 attached since, and removes those of others.
    fn plug(&mut self) -> Result<()> {
        let path = format!("/hooks?from={}", self.hooks);
        let told = ask(&self.control, "GET", &path, &Value::Null)?;
        for hook in told.as_array().context("a list of hooks")? {
            self.hooks += 1;
            let index = hook["deviceIndex"].as_u64().context("a place")?;
            if index > 0 && hook["event"] == "attached" {
                let mac = hook["mac"].as_str().context("a MAC address")?;
                let node = self.lab.node(0).namespace().name();
                self.lab.router().ip(&format!(
                    "link add n1e{index} type veth peer name eth{index} address {mac} netns {node}
                    link set n1e{index} up"
                ))?;
            } else if index > 0 {
                self.lab.router().ip(&format!("link del n1e{index}"))?;
            }
        }
        Ok(())
    }

    /// Starts a pod, again and again until there is an address, as the kubelet does.
    fn pod(&mut self, number: usize) -> Result<Pod> {
        let deadline = Instant::now() + PATIENCE;
        for attempt in 0.. {
            self.plug()?;
            match self.lab.node(0).add_pod("default", &format!("p{number}-{attempt}")) {
                Ok(pod) => {
                    self.claim("POST", &pod.container, pod.v4())?;
                    return Ok(pod);
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        bail!("attempts do not end")
    }

    /// Says to EC2's books that a pod uses its address, or does no more.
    fn claim(&self, method: &str, pod: &str, address: IpAddr) -> Result<()> {
        let claim = json!({"vpc": "vpc-1", "address": address, "pod": pod, "instance": self.instance});
        ask(&self.control, method, "/claims", &claim).map(drop)
    }

    /// The secondary addresses that EC2 has on interfaces of the instance.
    fn held(&self) -> Result<BTreeSet<String>> {
        let state = ask(&self.control, "GET", "/state", &Value::Null)?;
        let interfaces = state["interfaces"].as_array().context("a list of interfaces")?.iter();
        let ours = interfaces.filter(|eni| eni["attachment"]["instance"] == *self.instance);
        let held = ours.filter_map(|eni| eni["addresses"].as_array()).flatten();
        Ok(held.filter_map(|address| Some(format!("{}/32", address.as_str()?))).collect())
    }

    fn check(&self) -> Result<()> {
        let broken = ask(&self.control, "GET", "/violations", &Value::Null)?;
        ensure!(broken == json!([]), "{broken:#}");
        Ok(())
    }
}

#[test]
fn pods_have_addresses_that_ec2_gave_and_what_they_no_longer_need_goes_back_unused() {
    let mut cloud = Cloud::new().expect("a lab with a cloud");
    let mut work = || -> Result<()> {
        let mut pods = Vec::new();
        for number in 0..PODS {
            pods.push(cloud.pod(number).with_context(|| format!("pod {number}"))?);
        }
        cloud.check()?;
        let most = cloud.held()?;
        ensure!(most.len() >= PODS, "{most:?}");
        for pod in pods.drain(1..PODS + 1 - STAY) {
            let (container, addr) = (pod.container.clone(), pod.v4());
            cloud.lab.node(0).del_pod(pod)?;
            cloud.claim("DELETE", &container, addr)?;
        }
        let deadline = Instant::now() + GIVEN_BACK;
        loop {
            cloud.plug()?;
            let held = cloud.held()?;
            let own = cloud.lab.node(0).pod_cidrs(cloud.lab.store())?;
            let told: BTreeSet<String> = own.iter().map(ToString::to_string).collect();
            if held.len() == STAY + READY && held.is_subset(&told) {
                for pod in &pods {
                    ensure!(held.contains(&format!("{}/32", pod.v4())), "{} is used, {held:?}", pod.v4());
                }
                break;
            }
            ensure!(Instant::now() < deadline, "EC2 has {held:?}, the node was told {told:?}");
            // EC2 cannot be awaited.
            std::thread::sleep(Duration::from_millis(100));
        }
        let calls = ask(&cloud.control, "GET", "/calls", &Value::Null)?;
        ensure!(calls.to_string().contains("UnassignPrivateIpAddresses"), "{calls}");
        cloud.check()
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    cloud.check().expect("nothing is broken");
    let Cloud { lab, _fake, _operator, .. } = cloud;
    drop((_operator, _fake));
    lab.close().expect("closed");
}
