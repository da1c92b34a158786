// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde_json::Value;

use super::call::{Outcome, execute};
use super::result;
use crate::lab::Namespace;

/// An attachment that ADD made.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    /// Container id.
    pub(crate) container: String,
    /// Interface name.
    pub(crate) ifname: String,
    /// `CNI_NETNS`.
    pub(crate) netns: String,
    /// What ADD printed.
    pub(crate) result: Value,
    /// The configuration of ADD.
    pub(crate) config: Value,
    /// Whether DEL removed it.
    pub(crate) removed: bool,
}

impl Attachment {
    /// Container and interface as the agent names them.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.container, self.ifname)
    }

    /// Its addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = result::addresses(&self.result).iter().map(IpNetwork::ip).collect();
        addresses.sort();
        addresses
    }

    /// Its IPv4 address, else its first one.
    ///
    /// # Errors
    /// When the result has none.
    pub(crate) fn address(&self) -> Result<IpAddr> {
        self.addresses()
            .first()
            .copied()
            .with_context(|| format!("the result of {} has no address", self.key()))
    }
}

/// One run of the plugin within a step.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// Its `CNI_*` environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Its configuration, where it was JSON.
    pub(crate) config: Option<Value>,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

impl Made {
    /// A variable of its environment, empty when absent.
    pub(crate) fn var(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// Container and interface as the agent names them.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.var("CNI_CONTAINERID"), self.var("CNI_IFNAME"))
    }
}

/// Runs the plugin on a node.
#[derive(Debug)]
pub(crate) struct Launcher<'a> {
    /// The plugin.
    pub(crate) program: PathBuf,
    /// Where it runs.
    pub(crate) host: &'a Namespace,
    /// What it needs beside `CNI_*`.
    pub(crate) env: [(String, String); 2],
}

impl Launcher<'_> {
    /// Runs the plugin with this environment and input.
    ///
    /// # Errors
    /// When the plugin cannot be started.
    pub(crate) fn run(&self, env: BTreeMap<String, String>, stdin: &Value) -> Result<Made> {
        let text = stdin.as_str().map_or_else(|| stdin.to_string(), str::to_owned);
        let mut whole = env.clone();
        whole.extend(self.env.clone());
        let outcome = execute(&self.program, self.host, &whole, &text)?;
        Ok(Made { env, config: serde_json::from_str(&text).ok(), outcome })
    }
}
