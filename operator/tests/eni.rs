// SPDX-License-Identifier: Apache-2.0
//! The operator as a process, with objects in a directory and an EC2 in memory: nodes get their interfaces, and a kill
//! at any step leaves nothing over and makes nothing twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rhumb_api::{DirStore, NodeConfig, ObjectKey, Store};
use rhumb_cloud_fake::server::{Handle, Listen, Pace, Servers};
use rhumb_cloud_fake::{Action as Call, Fake, Fault, Launch, NewSubnet, NewVpc, Rule, Settings, Span};
use rhumb_model::{Eni, InstanceId, NodeName, Prefix, SubnetId, Timestamp, VpcId, Zone};

const CLUSTER: &str = "test";
/// Everything that is waited for happens within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster of one node, whose pool wants 15 addresses: 9 on its first interface, the others on another.
struct Cluster {
    servers: Servers,
    dir: tempfile::TempDir,
    store: DirStore,
    subnet: SubnetId,
    instance: InstanceId,
    operator: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Cluster {
    async fn new() -> Self {
        let settings = Settings { attach: Span(50, 200), detach: Span(50, 200), ..Settings::at_once() };
        let mut fake = Fake::new(settings, Timestamp::from(SystemTime::now()));
        let prefix = |text: &str| text.parse::<Prefix>().expect("valid");
        let new = NewVpc {
            id: Some(VpcId::new("vpc-1").expect("valid")),
            cidrs: vec![prefix("10.0.0.0/16")],
            cidrs_v6: Vec::new(),
            tags: Default::default(),
        };
        let vpc = fake.world_mut().create_vpc(new).expect("made");
        let new = NewSubnet {
            id: None,
            vpc,
            zone: Zone::new("eu-central-1a").expect("valid"),
            cidr: prefix("10.0.4.0/24"),
            cidr_v6: None,
            tags: Default::default(),
        };
        let subnet = fake.world_mut().create_subnet(new).expect("made");
        let launch = Launch::new("m5.large", subnet.clone());
        fake.world_mut().answer(&Call::RunInstances(launch).into()).expect("launched");
        let instance = fake.world().instances().next().expect("launched").id.clone();
        let servers = Servers::start(Handle::new(fake), Listen::loopback()).await.expect("listening");
        servers.handle().pace(Pace::Running(1.0));

        let dir = tempfile::Builder::new().prefix("rh-operator-eni").tempdir().expect("made");
        for part in ["store", "failpoints"] {
            std::fs::create_dir(dir.path().join(part)).expect("made");
        }
        let objects = format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: a\nspec:\n  providerID: aws:///eu-central-1a/{instance}\n\
             ---\napiVersion: rhumb.io/v1alpha1\nkind: ENIPool\nmetadata:\n  name: vpc\nspec:\n  minAllocate: 15\n"
        );
        std::fs::write(dir.path().join("store/objects.yaml"), objects).expect("written");
        let store = DirStore::open(dir.path().join("store")).await.expect("opened");
        Self { servers, dir, store, subnet, instance, operator: None }
    }

    fn path(&self, part: &str) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(part)
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("opened");
        let child = Command::new(env!("CARGO_BIN_EXE_rhumb-operator"))
            .arg("--store")
            .arg(self.path("store"))
            .args(["--cloud", "aws", "--cluster-name", CLUSTER, "--region", "eu-central-1"])
            .args(["--ec2-period", "1", "--ec2-deadline", "3", "--ec2-share", "100"])
            .args(["--ec2-endpoint", &format!("http://{}", self.servers.ec2())])
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

    fn stop(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            operator.kill().expect("ours");
            operator.wait().expect("ours");
        }
    }

    /// Waits until `done` says so. Neither EC2 nor a dead process can be awaited from here without polling.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self, Option<&NodeConfig>) -> bool) {
        let end = Instant::now() + PATIENCE;
        let key = ObjectKey::from(&NodeName::new("a").expect("valid"));
        loop {
            let config = self.store.get::<NodeConfig>(&key).await.expect("readable");
            if done(self, config.as_ref()) {
                return;
            }
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < end, "{what}: {config:#?}\n{:#?}\n{}", self.interfaces(), log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_served(&mut self) {
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

    fn interfaces(&self) -> Vec<Eni> {
        self.servers.handle().with(|fake, _| fake.world().interfaces().map(|eni| (**eni).clone()).collect())
    }

    fn calls(&self, action: &str) -> u64 {
        self.servers
            .handle()
            .with(|fake, _| fake.ledger().counts().get(action).map_or(0, |count| count.calls))
    }

    /// What EC2 holds and what the node was told are the same, and nothing else is there.
    async fn check(&mut self) {
        let interfaces = self.interfaces();
        assert_eq!(interfaces.len(), 2, "{interfaces:#?}");
        let owner = |eni: &Eni| eni.attachment.as_ref().and_then(|attachment| attachment.instance.clone());
        assert!(interfaces.iter().all(|eni| owner(eni).as_ref() == Some(&self.instance)), "{interfaces:#?}");
        let key = ObjectKey::from(&NodeName::new("a").expect("valid"));
        let config = self.store.get::<NodeConfig>(&key).await.expect("readable").expect("there");
        let told: BTreeSet<Prefix> = config.spec.pod_cidrs.iter().map(|block| block.cidr).collect();
        let held = interfaces.iter().flat_map(|eni| &eni.addresses);
        let held: BTreeSet<Prefix> = held.map(|address| Prefix::host((*address).into())).collect();
        assert_eq!(told.len(), config.spec.pod_cidrs.len(), "each once");
        assert_eq!(told, held);
        self.servers
            .handle()
            .with(|fake, _| assert!(fake.violations().is_empty(), "{:#?}", fake.violations()));
    }
}

#[tokio::test]
async fn a_node_gets_its_addresses_by_as_few_calls_as_there_can_be() {
    let mut cluster = Cluster::new().await;
    cluster.start();
    cluster.until_served().await;
    cluster.check().await;
    for (action, calls) in [
        ("CreateNetworkInterface", 1),
        ("AttachNetworkInterface", 1),
        ("AssignPrivateIpAddresses", 1),
        ("ModifyNetworkInterfaceAttribute", 1),
    ] {
        assert_eq!(cluster.calls(action), calls, "{action}");
    }
    let made = cluster.interfaces().into_iter().find(|eni| !eni.tags.is_empty()).expect("made by us");
    for (tag, value) in [("rhumb.io/cluster", CLUSTER), ("rhumb.io/node", "a")] {
        assert_eq!(made.tags.get(tag).map(String::as_str), Some(value), "{:?}", made.tags);
    }
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_nothing_over_and_makes_nothing_twice() {
    for point in [
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
    ] {
        let mut cluster = Cluster::new().await;
        std::fs::write(cluster.path("failpoints").join(point), "kill").expect("armed");
        cluster.start();
        cluster
            .until(point, |cluster, _| {
                let operator = cluster.operator.as_mut().expect("started");
                operator.try_wait().expect("ours").is_some()
            })
            .await;
        cluster.operator = None;
        cluster.start();
        cluster.until_served().await;
        cluster.check().await;
        assert!(cluster.calls("CreateNetworkInterface") <= 2, "{point}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_followed_by_a_look_and_not_by_another_interface() {
    let mut cluster = Cluster::new().await;
    cluster.servers.handle().with(|fake, _| {
        for action in ["CreateNetworkInterface", "AssignPrivateIpAddresses"] {
            let fault = Fault::LostReply;
            fake.fault(Rule { action: Some(action.to_owned()), times: Some(1), fault, ..Rule::default() });
        }
    });
    cluster.start();
    cluster.until_served().await;
    cluster.check().await;
    assert_eq!(cluster.calls("CreateNetworkInterface"), 1);
    assert_eq!(cluster.calls("AssignPrivateIpAddresses"), 1);
}

#[tokio::test]
async fn a_full_subnet_is_named_in_the_nodes_config_with_what_would_help() {
    let mut cluster = Cluster::new().await;
    let subnet = cluster.subnet.clone();
    cluster.servers.handle().with(|fake, _| fake.world_mut().fill(&subnet, 4).expect("there"));
    cluster.start();
    let waiting = |config: Option<&NodeConfig>| config?.spec.eni.as_ref()?.waiting.clone();
    let mut said = None;
    cluster
        .until("the reason is told", |_, config| {
            said = waiting(config);
            said.as_ref().is_some_and(|waiting| waiting.code == "SubnetExhausted")
        })
        .await;
    let message = said.expect("told").message;
    assert!(message.contains(subnet.as_str()) || message.contains("subnet"), "{message}");
}
