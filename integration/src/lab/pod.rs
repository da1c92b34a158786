// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{CniCall, CniOutput, Namespace};

/// A container that the plugin gave an interface.
#[derive(Debug)]
pub struct Pod {
    /// The container's id.
    pub container: String,
    /// Namespace of the pod in the cluster's sense.
    pub pod_namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Name of its interface.
    pub ifname: String,
    /// Addresses that ADD gave it, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What ADD printed.
    pub result: Value,
    /// How long ADD took.
    pub added_in: Duration,
}

impl Pod {
    pub(super) fn new(pod_namespace: &str, name: &str, namespace: Namespace) -> Self {
        Self {
            // Namespaces are named uniquely on this machine, so containers are as well.
            container: namespace.name().to_owned(),
            pod_namespace: pod_namespace.to_owned(),
            name: name.to_owned(),
            namespace,
            ifname: "eth0".to_owned(),
            addresses: Vec::new(),
            result: Value::Null,
            added_in: Duration::ZERO,
        }
    }

    /// A call of the plugin about this pod.
    pub fn call(&self, command: &str, network: &Value) -> CniCall {
        let netns = self.namespace.path().display().to_string();
        let mut call =
            CniCall::new(command, network.to_string()).about(&self.container, &netns, &self.ifname);
        call.args = Some(format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={}",
            self.pod_namespace, self.name, self.container
        ));
        call.path = Some("/opt/cni/bin".to_owned());
        call
    }

    /// Takes addresses over from the result of ADD.
    pub(super) fn read(&mut self, output: &CniOutput) -> Result<()> {
        self.result = output.json()?;
        self.added_in = output.elapsed;
        let ips = self.result.get("ips").and_then(Value::as_array).context("the result has no ips")?;
        self.addresses = ips
            .iter()
            .map(|ip| {
                let text = ip.get("address").and_then(Value::as_str).context("an ip has no address")?;
                let network: IpNetwork = text.parse().with_context(|| format!("read the address {text}"))?;
                Ok(network.ip())
            })
            .collect::<Result<_>>()?;
        self.addresses.sort();
        Ok(())
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// When ADD gave it none.
    pub fn v4(&self) -> IpAddr {
        *self.addresses.iter().find(|address| address.is_ipv4()).expect("the pod has an IPv4 address")
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    /// When ADD gave it none.
    pub fn v6(&self) -> IpAddr {
        *self.addresses.iter().find(|address| address.is_ipv6()).expect("the pod has an IPv6 address")
    }
}
