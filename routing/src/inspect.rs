// SPDX-License-Identifier: Apache-2.0
//! A look at what is in a pod's namespace, whoever put it there.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhumb_model::{AttachmentKey, IfName, MacAddr, Prefix};

use crate::kernel::KernelError;
use crate::namespaces::Namespaces;
use crate::netlink::pods;

/// The interface of an attachment as it is in its namespace. Everything is empty when it is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodView {
    /// Whether there is an interface of that name.
    pub exists: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses with the lengths of their subnets.
    pub addresses: Vec<IpNetwork>,
    /// The routes of the namespace's main table by destination and gateway.
    pub routes: Vec<(Prefix, Option<IpAddr>)>,
}

/// Looks at the interface of an attachment.
///
/// # Errors
/// [`KernelError::NotOpen`] when its namespace is not registered; others when the kernel does not tell.
pub async fn pod(namespaces: &Namespaces, key: &AttachmentKey) -> Result<PodView, KernelError> {
    pods::view(namespaces, key).await
}

/// Name and index of the host's end of the pair whose other end is the attachment's interface, whoever made it;
/// `None` when there is no such interface, or its other end is not in the namespace of the calling thread.
///
/// # Errors
/// [`KernelError::NotOpen`] when its namespace is not registered; others when the kernel does not tell.
pub async fn host_end(
    namespaces: &Namespaces,
    key: &AttachmentKey,
) -> Result<Option<(IfName, u32)>, KernelError> {
    pods::host_end(namespaces, key).await
}
