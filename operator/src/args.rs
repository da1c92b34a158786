// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// The rhumb operator: gives nodes their pod CIDRs, and on AWS their network interfaces.
#[derive(Debug, Clone, Parser)]
#[command(name = "rhumb-operator", version)]
pub(crate) struct Args {
    /// Directory of YAML objects: the cluster's object store.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,

    /// Seconds for which a node that is gone keeps its pod CIDRs.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(crate) grace: Duration,

    /// A node with fewer free addresses in a pool gets another CIDR of it.
    #[arg(long, value_name = "ADDRESSES", default_value = "8")]
    pub(crate) min_free: u32,

    /// Cloud whose addresses the nodes chosen by an ENIPool get.
    #[arg(long, value_name = "CLOUD", default_value = "none")]
    pub(crate) cloud: Cloud,

    /// Name of this cluster, which no other cluster of the account has: interfaces carry it as the tag rhumb.io/cluster.
    #[arg(long, value_name = "NAME", default_value = "", required_if_eq("cloud", "aws"))]
    pub(crate) cluster_name: String,

    /// EC2's endpoint, where it is not the Region's own.
    #[arg(long, value_name = "URL")]
    pub(crate) ec2_endpoint: Option<String>,

    /// Region; without it, that of the SDK's chain (AWS_REGION, profile, instance metadata).
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,

    /// Percentage that rhumb takes of the requests that EC2 allows the account; others need theirs.
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) ec2_share: u8,

    /// Seconds from one look at EC2 for the whole cluster to the next.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) ec2_period: Duration,

    /// Seconds for which an interface of this cluster that nobody has is left alone; never less than 30.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(crate) ec2_orphan_age: Duration,

    /// Seconds after which a request to EC2 without an answer is given up.
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub(crate) ec2_deadline: Duration,

    /// Address and port at which Prometheus gets metrics, over HTTP at the path /metrics; without it, nowhere.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// Open descriptor that receives the line `ready` when this operator leads and has seen all objects.
    #[arg(long, value_name = "FD")]
    pub(crate) ready_fd: Option<i32>,
}

/// A cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cloud {
    /// No cloud: addresses come from PodPools alone.
    None,
    /// Amazon Web Services.
    Aws,
}

fn seconds(value: &str) -> Result<Duration, std::num::ParseIntError> {
    value.parse().map(Duration::from_secs)
}
