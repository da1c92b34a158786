// SPDX-License-Identifier: Apache-2.0
//! A VPC around a lab that EC2's double decides: what it attaches appears, and who asks for metadata is answered.
//!
//! ```text
//!   rhumb-fake-ec2, rhumb-operator: in the router's namespace
//!     hooks ─► links of interfaces come and go
//!     metadata service of node n1 ◄── 169.254.169.254:80 and [fd00:ec2::254]:80 as asked on port n1
//!     interfaces of the state ─► routes to what they have, and what may come from them
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rhumb_model::{AttachmentStatus, Eni, EniId, EniStatus, Instance, InstanceId, Prefix, VpcId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Port, ROUTER_V6, Vpc, nft};
use crate::lab::{DOUBLE, Lab, Namespace, Process, ProgramOptions, ip};

const PATIENCE: Duration = Duration::from_secs(20);
/// The tag by which an instance of the double's file is known as a node of the lab.
const TAG_NODE: &str = "node";
/// The metadata service by IPv6.
const METADATA_V6: &str = "fd00:ec2::254";
/// The first port on which metadata are served.
const METADATA: usize = 8001;

/// What EC2's double has.
#[derive(Debug, Clone, Deserialize)]
pub struct State {
    /// Every instance.
    pub instances: Vec<Instance>,
    /// Every interface.
    pub interfaces: Vec<Eni>,
    subnets: Vec<Subnet>,
}

#[derive(Debug, Clone, Deserialize)]
struct Subnet {
    id: String,
    cidrs: (Prefix, Option<Prefix>),
}

/// A lab in a VPC, with EC2's double and an operator that asks it.
#[derive(Debug)]
pub struct Cloud {
    double: Process,
    links: Option<JoinHandle<Result<()>>>,
    control: SocketAddr,
    ec2: SocketAddr,
    vpc: VpcId,
    /// Of each node.
    instances: Vec<InstanceId>,
    operator: ProgramOptions,
    speed: u32,
    /// When the double's clock began to run.
    since: Instant,
    /// The nodes, and the router that is the VPC.
    pub lab: Lab,
    // Dropped after the operator, whose files they are.
    shared: Option<Shared>,
}

/// What libfaketime makes for a program to share with its children, and leaves behind when it is killed.
#[derive(Debug)]
struct Shared(u32);

impl Drop for Shared {
    fn drop(&mut self) {
        for name in ["faketime_shm", "sem.faketime_sem"] {
            // Not there where the clock ran as all others.
            drop(std::fs::remove_file(format!("/dev/shm/{name}_{}", self.0)));
        }
    }
}

impl Cloud {
    /// The name of the cluster in the tags of interfaces.
    pub const CLUSTER: &'static str = "lab";

    /// Starts the double with `config`, of which every node of the lab is the instance that has its name as the tag
    /// `node`, and puts the nodes where the double has them. The clocks of the double and of the operator run `speed`
    /// times as fast as the others.
    ///
    /// # Errors
    /// When the double does not start, or the kernel refuses.
    pub fn around(lab: Lab, config: &Value, speed: u32) -> Result<Self> {
        lab.binaries().check_with_double()?;
        lab.store().delete("PodPool", "", "default")?;
        let file = lab.home().join("ec2.yaml");
        std::fs::write(&file, config.to_string())?;
        let words = ["--config", &file.display().to_string(), "--speed", &speed.to_string()];
        let options = ProgramOptions { args: words.map(str::to_owned).into(), ..ProgramOptions::default() };
        let since = Instant::now();
        let mut double = lab.launch(DOUBLE, options, lab.router(), "ec2.log")?;
        let line = double.line(PATIENCE)?.context("the double says where it listens")?;
        let told: BTreeMap<String, SocketAddr> =
            serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))?;
        let address = |of: &str| told.get(of).copied().with_context(|| format!("it said {line:?}"));
        let (control, ec2, hooks) = (address("control")?, address("ec2")?, address("hooks")?);
        Vpc::around(&lab)?;
        let state = asked(lab.router(), control, "GET", "/state", &Value::Null)?;
        let state: State = serde_json::from_value(state)?;
        let vpc = state.interfaces.first().context("an instance has an interface")?.vpc.clone();
        let operator = ProgramOptions::default();
        let instances = Vec::new();
        let mut cloud = Self {
            double,
            links: None,
            control,
            ec2,
            vpc,
            instances,
            operator,
            speed,
            since,
            lab,
            shared: None,
        };
        for number in 0..cloud.lab.nodes().len() {
            cloud.seat(number, &state)?;
        }
        cloud.serve_metadata()?;
        cloud.links = Some(cloud.follow(hooks)?);
        cloud.route()?;
        Ok(cloud)
    }

    /// Puts a node where the double has its instance.
    fn seat(&mut self, number: usize, state: &State) -> Result<()> {
        let name = self.lab.node(number).name.clone();
        let mut instances = state.instances.iter();
        let instance = instances
            .find(|instance| instance.tags.get(TAG_NODE) == Some(&name))
            .with_context(|| format!("no instance is {name}"))?;
        let primary = state
            .of(&instance.id)
            .find(|eni| place(eni) == Some(0))
            .context("an instance has an interface")?;
        let subnet = state.subnet(primary)?;
        let node = self.lab.node_mut(number);
        let mut batch = format!("link set eth0 address {}\n", primary.mac);
        for (old, length) in node.addresses.iter().zip([24, 64]) {
            batch.push_str(&format!("address del {old}/{length} dev eth0\n"));
        }
        let (cidr, gateway) = (subnet.cidrs.0, gateway(subnet)?);
        batch.push_str(&format!("address add {}/{} dev eth0\n", primary.primary, cidr.len()));
        batch.push_str(&format!("route replace default via {gateway} dev eth0\n"));
        node.addresses = vec![primary.primary.into()];
        for own in &primary.addresses_v6 {
            batch.push_str(&format!("address add {own}/128 dev eth0\n"));
            batch.push_str(&format!("route replace default via {ROUTER_V6} dev eth0\n"));
            node.addresses.push((*own).into());
        }
        node.namespace().ip(&batch)?;
        port(primary, number).open(self.lab.router(), &[format!("{gateway}/32")])?;
        self.instances.push(instance.id.clone());
        Ok(())
    }

    /// Answers each node by the metadata service of its own instance, by the port on which it asks.
    fn serve_metadata(&self) -> Result<()> {
        let [mut rules, mut rules_v6] = [String::new(), String::new()];
        for (number, instance) in self.instances.iter().enumerate() {
            let port = METADATA + number;
            let listen = json!({ "listen": format!("[::]:{port}") });
            self.ask("POST", &format!("/instances/{instance}/imds"), &listen)?;
            let asked = format!("iifname \"n{}\"", number + 1);
            rules.push_str(&format!("{asked} ip daddr 169.254.169.254 tcp dport 80 redirect to :{port}\n"));
            rules_v6.push_str(&format!(
                "{asked} ip6 daddr {METADATA_V6} tcp dport 80 dnat to [{METADATA_V6}]:{port}\n"
            ));
        }
        self.lab.router().ip(&format!("link set lo up\naddress add {METADATA_V6}/128 dev lo"))?;
        let table = |family: &str, rules: &str| {
            format!(
                "table {family} metadata {{
                    chain asked {{ type nat hook prerouting priority -100;
                        {rules}
                    }}
                }}
                "
            )
        };
        nft(self.lab.router(), &(table("ip", &rules) + &table("ip6", &rules_v6)))
    }

    /// Makes and removes links as the double's hooks say, until the double ends.
    fn follow(&self, hooks: SocketAddr) -> Result<JoinHandle<Result<()>>> {
        let stream = self.lab.router().run(|| Ok(TcpStream::connect(hooks)?))?;
        let router = self.lab.router().name().to_owned();
        let nodes: Vec<(InstanceId, String)> = self
            .instances
            .iter()
            .zip(self.lab.nodes())
            .map(|(instance, node)| (instance.clone(), node.namespace().name().to_owned()))
            .collect();
        Ok(std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let hook: Hook = serde_json::from_str(&line).with_context(|| format!("read {line:?}"))?;
                let found = nodes.iter().enumerate().find(|(_, (instance, _))| *instance == hook.instance);
                let (index, Some((number, (_, node)))) = (hook.device_index, found) else { continue };
                let name = port_name(number, index);
                match hook.event.as_str() {
                    _ if index == 0 => {}
                    "attached" => {
                        let mac = &hook.mac;
                        let peer = format!("peer name eth{index} address {mac} netns {node}");
                        ip(&format!("-n {router} link add {name} type veth {peer}"))?;
                        ip(&format!("-n {router} link set {name} up"))?;
                    }
                    "detached" => drop(ip(&format!("-n {router} link del {name}"))?),
                    other => bail!("the double told of {other}"),
                }
            }
            Ok(())
        }))
    }

    /// Makes the VPC deliver to what interfaces have now, and drop what comes from others.
    ///
    /// # Errors
    /// When the kernel refuses: mostly because an interface came or went meanwhile.
    pub fn route(&self) -> Result<()> {
        let (state, router) = (self.state()?, self.lab.router());
        Port::forget_routes(router)?;
        for (number, instance) in self.instances.iter().enumerate() {
            for eni in state.of(instance) {
                let (port, gateway) = (port(eni, number), gateway(state.subnet(eni)?)?);
                port.open(router, &[format!("{gateway}/32")])?;
                port.route(router)?;
            }
        }
        Ok(())
    }

    /// The router's ends of the links of all interfaces that nodes have now, those of a node in their order.
    ///
    /// # Errors
    /// When the double does not answer.
    pub fn ports(&self) -> Result<Vec<Port>> {
        let state = self.state()?;
        let nodes = self.instances.iter().enumerate();
        Ok(nodes.flat_map(|(number, id)| state.of(id).map(move |eni| port(eni, number))).collect())
    }

    /// Starts the operator.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_operator(&mut self, options: ProgramOptions) -> Result<()> {
        self.operator = options;
        let endpoint = format!("http://{}", self.ec2);
        let own = ["--cloud", "aws", "--cluster-name", Self::CLUSTER, "--region", "eu-central-1"];
        let own = own.into_iter().chain(["--ec2-endpoint", &endpoint]).map(str::to_owned);
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|key| (key, "test".to_owned()));
        let alone = ("AWS_EC2_METADATA_DISABLED", "true".to_owned());
        let env = keys.into_iter().chain([alone]).chain(self.hurry()?);
        let env = env.map(|(key, value)| (key.to_owned(), value));
        let options = ProgramOptions {
            args: own.chain(self.operator.args.iter().cloned()).collect(),
            env: env.chain(self.operator.env.iter().cloned()).collect(),
        };
        let started = self.lab.start_operator_with(&options);
        // Those of the one before are removed.
        self.shared = self.lab.operator_mut().as_ref().map(|operator| Shared(operator.pid()));
        started
    }

    /// The environment of a program whose clock is to show what the double's does.
    fn hurry(&self) -> Result<Vec<(&'static str, String)>> {
        if self.speed == 1 {
            return Ok(Vec::new());
        }
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        ensure!(Path::new(&library).is_file(), "{library} is not there: install libfaketime");
        let ahead = self.since.elapsed() * (self.speed - 1);
        Ok(vec![
            ("LD_PRELOAD", library),
            ("FAKETIME", format!("+{:.3} x{}", ahead.as_secs_f64(), self.speed)),
        ])
    }

    /// Starts the operator again, as before, if it has ended; whether it had.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn restart_operator(&mut self) -> Result<bool> {
        let ended = !self.lab.operator_mut().as_mut().is_some_and(Process::is_running);
        if ended {
            self.start_operator(self.operator.clone())?;
        }
        Ok(ended)
    }

    /// The instance that a node is, counted from 0.
    ///
    /// # Panics
    /// When there are fewer nodes.
    pub fn instance(&self, node: usize) -> &InstanceId {
        &self.instances[node]
    }

    /// The VPC as the router of the lab plays it.
    pub fn vpc(&self) -> Vpc<'_> {
        Vpc::at(&self.lab)
    }

    /// Asks the double's control endpoint.
    ///
    /// # Errors
    /// With what it says, when that is not what was asked for.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        asked(self.lab.router(), self.control, method, path, body)
    }

    /// Makes a call of EC2's Query protocol beside the operator, as another program of the account; gives the XML.
    ///
    /// # Errors
    /// With EC2's refusal.
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let all = [("Action", action), ("Version", "2016-11-15")];
        let words: Vec<String> =
            all.iter().chain(parameters).map(|(name, value)| format!("{name}={value}")).collect();
        post(self.lab.router(), self.ec2, "POST", "/", &words.join("&"))
    }

    /// What EC2 has, as it is.
    ///
    /// # Errors
    /// When the double does not answer.
    pub fn state(&self) -> Result<State> {
        Ok(serde_json::from_value(self.ask("GET", "/state", &Value::Null)?)?)
    }

    /// Says to EC2's books that a pod of a node uses its addresses (`POST`), or does no more (`DELETE`).
    ///
    /// # Errors
    /// When the double does not answer.
    pub fn claim(&self, method: &str, node: usize, pod: &str, addresses: &[IpAddr]) -> Result<()> {
        let instance = self.instance(node);
        for address in addresses {
            let claim = json!({"vpc": self.vpc, "address": address, "pod": pod, "instance": instance});
            self.ask(method, "/claims", &claim)?;
        }
        Ok(())
    }

    /// Checks that nothing was ever against EC2's books, and that links still follow it.
    ///
    /// # Errors
    /// Names what is broken.
    pub fn check(&self) -> Result<()> {
        let broken = self.ask("GET", "/violations", &Value::Null)?;
        ensure!(broken == json!([]), "{broken:#}");
        ensure!(self.links.as_ref().is_some_and(|links| !links.is_finished()), "no links are made any more");
        Ok(())
    }

    /// Waits until `done` finds nothing missing. EC2 cannot be awaited.
    ///
    /// # Errors
    /// With what was missing last, when `patience` is over before; or `done` fails.
    pub fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&mut Self) -> Result<Result<(), String>>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while let Err(missing) = done(self)? {
            ensure!(Instant::now() < deadline, "{what}: not within {patience:?}: {missing}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends everything and removes it.
    ///
    /// # Errors
    /// What could not be ended or removed, and what kept links from being made.
    pub fn close(self) -> Result<()> {
        let Self { double, links, lab, shared: _shared, .. } = self;
        double.kill()?;
        let followed = links.map(JoinHandle::join);
        lab.close()?;
        match followed {
            None => Ok(()),
            Some(Ok(followed)) => followed.context("make and remove links"),
            Some(Err(_)) => bail!("the thread that makes links panicked"),
        }
    }
}

impl State {
    /// The interfaces that an instance has, the first one first.
    pub fn of(&self, instance: &InstanceId) -> impl Iterator<Item = &Eni> {
        let here = |eni: &&Eni| {
            let attachment = eni.attachment.as_ref();
            attachment.is_some_and(|attachment| {
                attachment.instance.as_ref() == Some(instance)
                    && attachment.status == AttachmentStatus::Attached
            })
        };
        let mut found: Vec<&Eni> = self.interfaces.iter().filter(here).collect();
        found.sort_by_key(|eni| place(eni));
        found.into_iter()
    }

    /// What interfaces of an instance have for pods.
    pub fn blocks(&self, instance: &InstanceId) -> Vec<Prefix> {
        self.of(instance).flat_map(blocks).collect()
    }

    /// Interfaces that nobody has and that carry the tag of a cluster.
    pub fn loose(&self, cluster: &str) -> Vec<&EniId> {
        let tagged = |eni: &&Eni| eni.tags.get("rhumb.io/cluster").is_some_and(|tag| tag == cluster);
        let loose = self.interfaces.iter().filter(|eni| eni.status == EniStatus::Available);
        loose.filter(tagged).map(|eni| &eni.id).collect()
    }

    fn subnet(&self, eni: &Eni) -> Result<&Subnet> {
        let found = self.subnets.iter().find(|subnet| subnet.id == eni.subnet.as_str());
        found.with_context(|| format!("{} is in no subnet", eni.id))
    }
}

/// What came to an instance or left it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    event: String,
    instance: InstanceId,
    mac: String,
    device_index: u8,
}

fn blocks(eni: &Eni) -> impl Iterator<Item = Prefix> {
    let single = eni.addresses.iter().map(|address| Prefix::host(IpAddr::V4(*address)));
    single.chain(eni.prefixes.iter().copied()).chain(eni.prefixes_v6.iter().copied())
}

fn place(eni: &Eni) -> Option<u8> {
    eni.attachment.as_ref().map(|attachment| attachment.device_index)
}

fn port_name(node: usize, index: u8) -> String {
    if index == 0 { format!("n{}", node + 1) } else { format!("n{}e{index}", node + 1) }
}

fn port(eni: &Eni, node: usize) -> Port {
    let own_v6 = eni.addresses_v6.iter().map(|own| IpAddr::V6(*own));
    Port {
        name: port_name(node, place(eni).unwrap_or_default()),
        node,
        mac: eni.mac,
        own: [IpAddr::V4(eni.primary)].into_iter().chain(own_v6).collect(),
        blocks: blocks(eni).collect(),
    }
}

/// The router of a subnet: the address after its first.
fn gateway(subnet: &Subnet) -> Result<IpAddr> {
    subnet.cidrs.0.nth(1).with_context(|| format!("{} is too small", subnet.id))
}

fn asked(inside: &Namespace, to: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Ok(serde_json::from_str(&post(inside, to, method, path, &body)?)?)
}

/// A request with its answer's body, from inside of a namespace.
fn post(inside: &Namespace, to: SocketAddr, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = inside.run(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    let (head, body) = told.split_once("\r\n\r\n").context("an answer has a head and a body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {told}");
    Ok(body.to_owned())
}
