// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rhumb_model::{IfName, NodeName, PoolName};
use rhumb_routing::{eni, learned};

use crate::metrics;

/// Whether there is a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tunnel {
    Auto,
    Off,
}

/// In which cloud the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cloud {
    None,
    Aws,
}

/// With whose address packets of pods with addresses of a cloud's network leave that network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EniMasquerade {
    Node,
    Interface,
}

/// Whether pods reach the cloud's metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MetadataService {
    Allow,
    Deny,
}

/// Whether agents ask each other if they answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Probe {
    On,
    Off,
}

const LONGEST_HOLD_DOWN: Duration = Duration::from_secs(60 * 60);

/// The rhumb node agent: gives pods addresses, programs routes, and keeps the datapath.
#[derive(Debug, Clone, Parser)]
#[command(name = "rhumb-agent", version)]
pub(crate) struct Args {
    /// Name of this node, as its Node object carries it.
    #[arg(long)]
    pub(crate) node: NodeName,

    /// Directory of YAML objects: the cluster's object store.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,

    /// Directory that survives a reboot: the journal of attachments.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rhumb")]
    pub(crate) state_dir: PathBuf,

    /// Directory of the sockets and of the plugin's queue.
    #[arg(long, value_name = "DIR", default_value = "/run/rhumb")]
    pub(crate) run_dir: PathBuf,

    /// Directory on a BPF file system for this node's maps, programs and links.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/rhumb")]
    pub(crate) bpffs: PathBuf,

    /// How many flows the datapath remembers, and how many of them masqueraded; about 384 bytes of memory for each,
    /// taken at once. Another number than before keeps the flows that there are.
    #[arg(long, value_name = "N", default_value_t = rhumb_ebpf::Config::FLOWS,
        value_parser = clap::value_parser!(u32).range(1024..=1 << 24))]
    pub(crate) flows: u32,

    /// Directory in which the container runtime looks for CNI configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,

    /// Name of the network in the CNI configuration.
    #[arg(long, value_name = "NAME", default_value = "rhumb")]
    pub(crate) cni_network: String,

    /// Interface that leads out of the node; may be repeated. Without it: those with a default route.
    #[arg(long, value_name = "IFNAME")]
    pub(crate) uplink: Vec<IfName>,

    /// Address at which other nodes reach this one; may be repeated. Without it: those of the uplinks.
    #[arg(long, value_name = "IP")]
    pub(crate) node_address: Vec<IpAddr>,

    /// MTU of pod interfaces in bytes. Without it: the smallest of the uplinks.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    pub(crate) mtu: Option<u32>,

    /// Pool from which pods of this node get their addresses. Without it: the ENIPool whose blocks the node has, else
    /// `default`.
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<PoolName>,

    /// Seconds for which a released address stays out of use.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) cool_down: Duration,

    /// Whether packets to other nodes may be encapsulated: `auto` as the pools' policies say, `off` never.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) tunnel: Tunnel,

    /// UDP port of the tunnel (VXLAN); the same on every node.
    #[arg(long, value_name = "PORT", default_value = "8472", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) tunnel_port: u16,

    /// Whether pods reach the cloud's metadata service (169.254.169.254 and fd00:ec2::254), which hands out the node's
    /// own credentials to whoever asks. The node and hostNetwork pods always do.
    #[arg(long, value_enum, default_value = "allow")]
    pub(crate) metadata_service: MetadataService,

    /// In which cloud the node is: with `aws`, its metadata service is asked which instance this is.
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) cloud: Cloud,

    /// Address and port of the cloud's metadata service; without it 169.254.169.254:80, then [fd00:ec2::254]:80.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) imds_endpoint: Option<SocketAddr>,

    /// With whose address packets of pods that have addresses of a VPC leave the VPC, where their ENIPool lets the node
    /// translate: that of the node's first interface, by which they leave then, or of the pod's own interface.
    #[arg(long, value_enum, default_value = "node")]
    pub(crate) eni_masquerade: EniMasquerade,

    /// Number of the routing table of the node's first network interface (ENI); those of the others follow it, and the one
    /// before it is for routes to pods. Only nodes with such interfaces have these tables.
    #[arg(long, value_name = "TABLE", default_value_t = eni::TABLE, value_parser = first_table)]
    pub(crate) eni_tables: u32,

    /// Seconds for which a direct way to another node has to be back before packets return to it from the tunnel;
    /// doubled up to eight times when the way keeps going. May have a fraction.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = fraction)]
    pub(crate) route_hold_down: Duration,

    /// Whether the agents ask each other if they answer, and take a direct way for lost when a node that answered once
    /// has fallen silent.
    #[arg(long, value_enum, default_value = "on")]
    pub(crate) probe: Probe,

    /// UDP port at which agents ask each other; the same on every node.
    #[arg(long, value_name = "PORT", default_value = "7269", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) probe_port: u16,

    /// File in the format of ip-masq-agent that says where the source of pods' packets stays. Without it, or while
    /// it is not there: private, reserved and link-local blocks.
    #[arg(long, value_name = "FILE")]
    pub(crate) ip_masq_config: Option<PathBuf>,

    /// Address and port at which Prometheus gets metrics, over HTTP at the path /metrics; empty: nowhere.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7268")]
    pub(crate) metrics_address: metrics::Address,

    /// Socket of the BGP speaker of this node. Without it: bgp.sock in the directory of the sockets.
    #[arg(long, value_name = "PATH")]
    pub(crate) bgp_socket: Option<PathBuf>,

    /// Create the Node object of this node when there is none, as the kubelet does.
    #[arg(long)]
    pub(crate) register_node: bool,

    /// Open descriptor that receives the line `serving` when the socket listens, and `ready` when ADD can be served.
    #[arg(long, value_name = "FD")]
    pub(crate) ready_fd: Option<i32>,
}

/// The pool of nodes that have no blocks of an ENIPool, where no flag names another.
pub(crate) fn usual_pool() -> PoolName {
    PoolName::new("default").expect("the word is a name")
}

fn seconds(value: &str) -> Result<Duration, std::num::ParseIntError> {
    value.parse().map(Duration::from_secs)
}

fn fraction(value: &str) -> Result<Duration, String> {
    let seconds: f64 = value.parse().map_err(|_| "want a number of seconds".to_owned())?;
    let length = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if length > LONGEST_HOLD_DOWN { Err("want at most an hour".to_owned()) } else { Ok(length) }
}

/// The last of the kernel's own tables, which is that of local addresses.
const LOCAL_TABLE: u32 = 255;
/// Some programs take the number of a table for a signed one.
const LAST_FIRST_TABLE: u32 = 0x7fff_0000;

/// The tables from there on are nobody else's.
fn first_table(value: &str) -> Result<u32, String> {
    let base: u32 = value.parse().map_err(|_| "want a number".to_owned())?;
    if base > LAST_FIRST_TABLE {
        return Err(format!("want at most {LAST_FIRST_TABLE}"));
    }
    let tables = eni::tables(base);
    if *tables.start() <= LOCAL_TABLE {
        return Err(format!(
            "want at least {}: up to {LOCAL_TABLE} tables are the kernel's",
            LOCAL_TABLE + 2
        ));
    }
    if tables.contains(&learned::TABLE) {
        let (first, last, taken) = (tables.start(), tables.end(), learned::TABLE);
        return Err(format!("{first} to {last} would be in use, and {taken} is that of learned routes"));
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_interfaces_are_nobody_elses() {
        for base in [257, 1000, 7269 + 1, eni::TABLE, 100_000] {
            assert_eq!(first_table(&base.to_string()), Ok(base));
        }
        for base in ["0", "255", "256", "7000", "7268", "7269", "-1", "x", "4294967295"] {
            assert!(first_table(base).is_err(), "{base}");
        }
    }
}
