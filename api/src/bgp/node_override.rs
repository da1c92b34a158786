// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::NodeName;
use serde::{Deserialize, Serialize};

use super::{asn, at, once};
use crate::own::{named, own_kind};
use crate::{FieldError, ObjectMeta};

/// What is otherwise on one node than its [`crate::BGPClusterConfig`] says; its name is the node's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BGPNodeOverride {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What a person wants.
    pub spec: BGPNodeOverrideSpec,
}

own_kind!(BGPNodeOverride, "bgpnodeoverrides", spec: BGPNodeOverrideSpec);

/// What is otherwise on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPNodeOverrideSpec {
    /// Instances by name; one that the node does not have means nothing.
    pub instances: Vec<InstanceOverride>,
}

/// What is otherwise of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceOverride {
    /// The instance's name.
    pub name: String,
    /// Its BGP identifier.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Ipv4Addr>,
    /// Its AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// The TCP port at which its peers may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Peers by name; one that the instance does not have means nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerOverride>,
}

/// What is otherwise of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerOverride {
    /// The peer's name.
    pub name: String,
    /// The address to connect from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// The TCP port to connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl BGPNodeOverride {
    /// What is otherwise on this node.
    pub fn new(node: &NodeName, spec: BGPNodeOverrideSpec) -> Self {
        Self { metadata: named(node.as_str()), spec }
    }

    /// What is otherwise of the instance of this name.
    pub fn instance(&self, name: &str) -> Option<&InstanceOverride> {
        self.spec.instances.iter().find(|instance| instance.name == name)
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let instances = &self.spec.instances;
        for (i, instance) in instances.iter().enumerate() {
            at(&format!("spec.instances[{i}]"), || {
                once(&instance.name, instances[..i].iter().map(|other| other.name.as_str()))?;
                instance.check()
            })?;
        }
        Ok(())
    }
}

impl InstanceOverride {
    /// What is otherwise of the peer of this name.
    pub fn peer(&self, name: &str) -> Option<&PeerOverride> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    fn check(&self) -> Result<(), FieldError> {
        if self.router_id == Some(Ipv4Addr::UNSPECIFIED) {
            return Err(FieldError::new("routerID", "0.0.0.0 is no router id"));
        }
        if let Some(number) = self.asn {
            asn("asn", number)?;
        }
        if self.listen_port == Some(0) {
            return Err(FieldError::new("listenPort", "0 is no port"));
        }
        for (i, peer) in self.peers.iter().enumerate() {
            at(&format!("peers[{i}]"), || {
                once(&peer.name, self.peers[..i].iter().map(|other| other.name.as_str()))?;
                if peer.port == Some(0) {
                    return Err(FieldError::new("port", "0 is no port"));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
