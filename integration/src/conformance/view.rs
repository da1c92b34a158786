// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::lab::Node;

/// What the agent of a node shows of its attachments, addresses and endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Addresses that are leased, each with the attachment that holds it.
    pub(crate) leases: BTreeMap<IpAddr, String>,
    /// Attachments, `CONTAINER/IFNAME`.
    pub(crate) attachments: BTreeMap<String, Shown>,
    /// Addresses that the datapath delivers to pods.
    pub(crate) endpoints: BTreeSet<IpAddr>,
}

/// An attachment as the agent shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Shown {
    attachment: String,
    /// Pod, `NAMESPACE/NAME`.
    pub(crate) pod: Option<String>,
    /// Its addresses.
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Leased {
    address: IpAddr,
    state: String,
    attachment: String,
}

#[derive(Deserialize)]
struct Delivered {
    address: IpAddr,
}

impl View {
    /// Asks the agent.
    ///
    /// # Errors
    /// When it does not answer as the command line promises.
    pub(crate) fn take(node: &Node) -> Result<Self> {
        let leases: Vec<Leased> = read(node, "ip list")?;
        let attachments: Vec<Shown> = read(node, "pod list")?;
        let endpoints: Vec<Delivered> = read(node, "bpf endpoints")?;
        Ok(Self {
            leases: leases
                .into_iter()
                .filter(|lease| lease.state == "leased")
                .map(|lease| (lease.address, lease.attachment))
                .collect(),
            attachments: attachments.into_iter().map(|shown| (shown.attachment.clone(), shown)).collect(),
            endpoints: endpoints.into_iter().map(|endpoint| endpoint.address).collect(),
        })
    }

    /// Everything that it says about one container.
    pub(crate) fn about(&self, container: &str) -> Vec<String> {
        let ours = |attachment: &str| attachment.split('/').next() == Some(container);
        let leases = self.leases.iter().filter(|(_, holder)| ours(holder));
        let leases = leases.map(|(address, holder)| format!("lease {address} of {holder}"));
        let attachments = self.attachments.keys().filter(|attachment| ours(attachment));
        leases.chain(attachments.map(|attachment| format!("attachment {attachment}"))).collect()
    }
}

fn read<T: for<'de> Deserialize<'de>>(node: &Node, what: &str) -> Result<T> {
    serde_json::from_value(node.show(what)?).with_context(|| format!("read what rhumb {what} shows"))
}
