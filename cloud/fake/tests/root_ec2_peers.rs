// SPDX-License-Identifier: Apache-2.0
//! The double beside AWS's own client for Python, and beside moto, another double of EC2, where moto is faithful.
//! `cargo xtask setup` puts both where this test finds them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rhumb_cloud_fake::server::{Handle, Listen, Servers};
use rhumb_cloud_fake::{Config, Limits, Settings, Things};
use rhumb_model::Timestamp;

/// Where `cargo xtask setup` puts the Python of the peers.
fn python() -> PathBuf {
    let folder = std::env::var_os("RHUMB_EC2_PEERS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
        Some(cache?.join("rhumb/ec2-peers"))
    });
    let python = folder.expect("HOME or RHUMB_EC2_PEERS").join("bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
    python
}

fn world() -> Config {
    let world: Things = serde_yaml_ng::from_str(
        "
        vpcs: [{ id: vpc-1, cidrs: [10.0.0.0/16, 100.64.0.0/16], cidrsV6: ['fd00:0:0:100::/56'] }]
        subnets:
        - { id: subnet-1, vpc: vpc-1, zone: eu-central-1a, cidr: 10.0.0.0/20, cidrV6: 'fd00:0:0:101::/64' }
        ",
    )
    .expect("a world");
    Config {
        world,
        limits: Limits::none(),
        settings: Settings { usage_quota: 1_000, ..Settings::default() },
        ..Config::default()
    }
}

/// Runs a script of `tests/peers` against a new double.
fn run(script: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begin = Timestamp(1_795_000_000_000);
    let fake = world().build(begin).expect("a double");
    let servers = runtime.block_on(Servers::start(Handle::new(fake), Listen::loopback())).expect("servers");
    let url = |address: SocketAddr| format!("http://{address}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
    let mut peer = Command::new(python());
    peer.arg(&script)
        .env("EC2", url(servers.ec2()))
        .env("CONTROL", url(servers.control()))
        .env("SUBNET", "subnet-1")
        .env("VPC", "vpc-1")
        // Nothing but loopback is asked, whatever the machine's environment says.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("AWS_PROFILE")
        .env("no_proxy", "*");
    let done = runtime.block_on(async { tokio::task::spawn_blocking(move || peer.output()).await });
    let done = done.expect("the thread ends").expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}\n{}{}", script.display(), text(&done.stdout), text(&done.stderr));
    servers.handle().with(|fake, _| {
        assert_eq!(fake.violations(), []);
        fake.world().audit().expect("the books agree");
        assert!(fake.ledger().calls() > 20, "the script asked this double");
    });
}

#[test]
fn boto3_understands_every_action() {
    run("boto.py");
}

#[test]
fn moto_answers_the_same_where_it_is_faithful() {
    run("moto_differential.py");
}
