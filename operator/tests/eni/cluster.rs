// SPDX-License-Identifier: Apache-2.0
//! A cluster of one node, with the operator as a process, objects in a directory and an EC2 in memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rhumb_api::{
    DirStore, ENIPool, ENIPoolSpec, EniWaiting, Node, NodeConfig, NodeState, NodeStateStatus, ObjectKey,
    PoolUsage, Store,
};
use rhumb_cloud_fake::server::{Handle, Listen, Pace, Servers};
use rhumb_cloud_fake::{
    Action as Call, Answer, Fake, Fault, Launch, NewInterface, NewSubnet, NewVpc, Rule, Settings, Span,
};
use rhumb_model::{
    Eni, EniId, Family, InstanceId, NodeName, PoolName, Prefix, SubnetId, Timestamp, VpcId, Zone,
};

/// The name of the cluster, which its interfaces carry.
pub(crate) const CLUSTER: &str = "test";
/// Everything that is waited for happens within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(150);

/// A node `a` of type m5.large in one subnet, whose pool wants 15 addresses: 9 on its first interface, the others on
/// another.
pub(crate) struct Cluster {
    pub(crate) servers: Servers,
    pub(crate) store: DirStore,
    pub(crate) subnet: SubnetId,
    pub(crate) instance: InstanceId,
    /// Further arguments of the operator.
    pub(crate) args: Vec<String>,
    dir: tempfile::TempDir,
    operator: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn vpc() -> VpcId {
    VpcId::new("vpc-1").expect("valid")
}

pub(crate) fn node() -> ObjectKey {
    ObjectKey::cluster("a")
}

/// `true` when they have an attachment to this instance.
pub(crate) fn is_on(eni: &Eni, instance: &InstanceId) -> bool {
    eni.attachment.as_ref().is_some_and(|attachment| attachment.instance.as_ref() == Some(instance))
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::of("m5.large").await
    }

    /// With another type of instance; one that EC2 does not have is made up.
    pub(crate) async fn of(kind: &str) -> Self {
        let settings = Settings { attach: Span(50, 200), detach: Span(50, 200), ..Settings::at_once() };
        let mut fake = Fake::new(settings, Timestamp::from(SystemTime::now()));
        let prefix = |text: &str| text.parse::<Prefix>().expect("valid");
        let world = fake.world_mut();
        if world.limits(kind).is_none() {
            let limits = world.limits("m5.large").expect("known").clone();
            world.put_kind(kind, limits);
        }
        let new = NewVpc {
            id: Some(vpc()),
            cidrs: vec![prefix("10.0.0.0/16")],
            cidrs_v6: Vec::new(),
            tags: Default::default(),
        };
        let vpc = world.create_vpc(new).expect("made");
        let new = NewSubnet {
            id: None,
            vpc,
            zone: Zone::new("eu-central-1a").expect("valid"),
            cidr: prefix("10.0.4.0/24"),
            cidr_v6: None,
            tags: Default::default(),
        };
        let subnet = world.create_subnet(new).expect("made");
        world.answer(&Call::RunInstances(Launch::new(kind, subnet.clone())).into()).expect("launched");
        let instance = world.instances().next().expect("launched").id.clone();
        let servers = Servers::start(Handle::new(fake), Listen::loopback()).await.expect("listening");
        servers.handle().pace(Pace::Running(1.0));

        let dir = tempfile::Builder::new().prefix("rh-operator-eni").tempdir().expect("made");
        for part in ["store", "failpoints"] {
            std::fs::create_dir(dir.path().join(part)).expect("made");
        }
        let store = DirStore::open(dir.path().join("store")).await.expect("opened");
        let cluster = Self { servers, dir, store, subnet, instance, args: Vec::new(), operator: None };
        cluster.write_node("a", &cluster.instance);
        let spec = ENIPoolSpec { min_allocate: 15, ..ENIPoolSpec::default() };
        cluster.store.create(&ENIPool::new("vpc", spec)).await.expect("created");
        cluster
    }

    /// Writes the Node object, as another part of the cluster would.
    pub(crate) fn write_node(&self, name: &str, instance: &InstanceId) {
        let text = format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  providerID: aws:///eu-central-1a/{instance}\n"
        );
        std::fs::write(self.path("store").join(format!("{name}.yaml")), text).expect("written");
    }

    /// Launches another instance in the subnet.
    pub(crate) fn launch(&self) -> InstanceId {
        let launch = Launch::new("m5.large", self.subnet.clone());
        let Answer::Launched(_, instances) = self.ask(Call::RunInstances(launch)) else {
            panic!("an instance is answered")
        };
        instances[0].id.clone()
    }

    /// Has somebody else make an interface.
    pub(crate) fn create(&self, new: NewInterface) -> EniId {
        let Answer::Interface(eni) = self.ask(Call::CreateNetworkInterface(new)) else {
            panic!("an interface is answered")
        };
        eni.id.clone()
    }

    /// Has somebody else ask EC2.
    pub(crate) fn ask(&self, call: Call) -> Answer {
        self.servers.handle().with(|fake, _| fake.world_mut().answer(&call.into()).expect("allowed"))
    }

    /// What came of all calls of this name, in order.
    pub(crate) fn outcomes(&self, action: &str) -> Vec<String> {
        self.servers.handle().with(|fake, _| {
            let entries = fake.ledger().entries().filter(|entry| entry.action == action);
            entries.map(|entry| entry.outcome.clone()).collect()
        })
    }

    /// Lets calls of this name fail with this code, as often as said.
    pub(crate) fn refuse(&self, action: &str, code: &str, status: u16, times: Option<u32>) {
        let fault =
            Fault::Error { code: code.to_owned(), message: "told so".to_owned(), status: Some(status) };
        let rule = Rule { action: Some(action.to_owned()), times, fault, ..Rule::default() };
        self.servers.handle().with(|fake, _| fake.fault(rule));
    }

    pub(crate) async fn change_pool(&self, mut change: impl FnMut(&mut ENIPoolSpec) + Send) {
        let key = ObjectKey::cluster("vpc");
        self.store.modify::<ENIPool, _>(&key, |pool| change(&mut pool.spec)).await.expect("changed");
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        Path::new(self.dir.path()).join(part)
    }

    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("opened");
        let child = Command::new(env!("CARGO_BIN_EXE_rhumb-operator"))
            .arg("--store")
            .arg(self.path("store"))
            .args(["--cloud", "aws", "--cluster-name", CLUSTER, "--region", "eu-central-1"])
            .args(["--ec2-period", "1", "--ec2-deadline", "3", "--ec2-share", "100", "--grace", "1"])
            .args(["--ec2-endpoint", &format!("http://{}", self.servers.ec2())])
            .args(&self.args)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("RHUMB_FAILPOINTS", self.path("failpoints"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("started");
        self.operator = Some(child);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            operator.kill().expect("ours");
            operator.wait().expect("ours");
        }
    }

    /// Starts the operator, which dies at this point, and another after it.
    pub(crate) async fn start_twice(&mut self, point: &str) {
        std::fs::write(self.path("failpoints").join(point), "kill").expect("armed");
        self.start();
        self.until(point, |cluster, _| {
            let operator = cluster.operator.as_mut().expect("started");
            operator.try_wait().expect("ours").is_some()
        })
        .await;
        self.operator = None;
        self.start();
    }

    /// Waits until `done` says so. Neither EC2 nor a dead process can be awaited from here without polling.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self, Option<&NodeConfig>) -> bool,
    ) {
        let end = Instant::now() + PATIENCE;
        loop {
            let config = self.config().await;
            if done(self, config.as_ref()) {
                return;
            }
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < end, "{what}: {config:#?}\n{:#?}\n{}", self.interfaces(), log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the Node object is as `done` wants it.
    pub(crate) async fn until_node(&mut self, what: &str, done: impl Fn(&Node) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let there = self.store.get::<Node>(&node()).await.expect("readable").expect("there");
            if done(&there) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {there:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_served(&mut self) {
        self.until("the node has its addresses", |cluster, config| {
            let Some(eni) = config.and_then(|config| config.spec.eni.as_ref()) else { return false };
            let blocks = config.map_or(0, |config| config.spec.pod_cidrs.len());
            let settled = cluster.interfaces().iter().all(|eni| {
                eni.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination)
            });
            eni.interfaces.len() == 2 && blocks >= 15 && settled
        })
        .await;
    }

    /// Waits until the node is said to wait for this reason, and answers what it is told.
    pub(crate) async fn until_said(&mut self, code: &str) -> String {
        let mut said = None;
        self.until(code, |_, config| {
            said = config.and_then(reason).filter(|reason| reason.code == code);
            said.is_some()
        })
        .await;
        said.expect("told").message
    }

    /// What `rhumb ip explain` prints about the node.
    ///
    /// The command line is another crate's, of the same build.
    pub(crate) fn explained(&self) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_rhumb-operator")).with_file_name("rhumb");
        let modified = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified());
        let built =
            modified(&program).unwrap_or_else(|_| panic!("run `cargo build --workspace --bins` first"));
        let sources = std::fs::read_to_string(program.with_extension("d")).unwrap_or_default();
        let newer = |source: &&str| modified(Path::new(source)).is_ok_and(|at| at > built);
        let stale = sources.split_whitespace().skip(1).find(newer);
        assert_eq!(stale, None, "newer than {program:?}: run `cargo build --workspace --bins` first");
        let words = ["ip", "explain", "a", "--store"];
        let said = Command::new(program).args(words).arg(self.path("store")).output().expect("started");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("text")
    }

    pub(crate) async fn config(&self) -> Option<NodeConfig> {
        self.store.get::<NodeConfig>(&node()).await.expect("readable")
    }

    pub(crate) fn interfaces(&self) -> Vec<Eni> {
        self.servers.handle().with(|fake, _| fake.world().interfaces().map(|eni| (**eni).clone()).collect())
    }

    pub(crate) fn calls(&self, action: &str) -> u64 {
        self.servers
            .handle()
            .with(|fake, _| fake.ledger().counts().get(action).map_or(0, |count| count.calls))
    }

    /// Says what the node's agent would: it has read everything, and pods have so many addresses.
    pub(crate) async fn report(&self, used: u64) {
        let config = self.config().await;
        let generation = config.and_then(|config| config.spec.eni).map_or(0, |eni| eni.generation);
        let usage = PoolUsage {
            pool: PoolName::new("vpc").expect("valid"),
            family: Family::V4,
            pod_cidrs: Vec::new(),
            idle: Vec::new(),
            capacity: used,
            used,
            cooling: 0,
            free: 0,
        };
        let status = NodeStateStatus {
            pools: vec![usage],
            observed_generation: generation,
            ..NodeStateStatus::default()
        };
        let state = NodeState::new(&NodeName::new("a").expect("valid"));
        self.store.publish_status(&state, &status).await.expect("written");
    }

    /// What EC2 holds for the node and what the node was told are the same, on so many interfaces, and nothing else is
    /// there. Blocks that are on their way back stay told until EC2 surely has them.
    pub(crate) async fn check(&mut self, count: usize) {
        let interfaces = self.interfaces();
        assert_eq!(interfaces.len(), count, "{interfaces:#?}");
        assert!(interfaces.iter().all(|eni| is_on(eni, &self.instance)), "{interfaces:#?}");
        let config = self.config().await.expect("there");
        let told = config.spec.pod_cidrs.iter().filter(|block| !block.unassigning);
        let told: BTreeSet<Prefix> = told.map(|block| block.cidr).collect();
        let held = interfaces.iter().flat_map(|eni| &eni.addresses);
        let held: BTreeSet<Prefix> = held.map(|address| Prefix::host((*address).into())).collect();
        assert_eq!(told, held);
        self.servers
            .handle()
            .with(|fake, _| assert!(fake.violations().is_empty(), "{:#?}", fake.violations()));
    }
}

/// Why the node waits, as `rhumb ip explain` says it.
pub(crate) fn reason(config: &NodeConfig) -> Option<EniWaiting> {
    let waiting = || config.spec.eni.as_ref()?.waiting.clone();
    config.spec.unserved.clone().or_else(waiting)
}
