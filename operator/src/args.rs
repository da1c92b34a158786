// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The rhumb operator: gives nodes their pod CIDRs.
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

    /// Open descriptor that receives the line `ready` when this operator leads and has seen all objects.
    #[arg(long, value_name = "FD")]
    pub(crate) ready_fd: Option<i32>,
}

fn seconds(value: &str) -> Result<Duration, std::num::ParseIntError> {
    value.parse().map(Duration::from_secs)
}
