// SPDX-License-Identifier: Apache-2.0
//! CHECK: does the attachment still look as its result says?
//!
//! Everything is read anew. What later plugins may add (addresses, routes) or change (the MAC address) is no
//! difference; what we made and is gone is one.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rhumb_cni::protocol::{CheckRequest, Refusal, RefusalKind};
use rhumb_routing::inspect::{self, PodView};

use super::add::refusal;
use super::{Node, Pending};
use crate::endpoint::Endpoint;

impl Node {
    pub(super) async fn check(
        &mut self,
        request: &CheckRequest,
        netns: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        let key = &request.key;
        let endpoint = self.ledger.endpoints().get(key).cloned().ok_or_else(|| {
            refusal(RefusalKind::UnknownContainer, format!("no attachment {key} on this node"))
        })?;
        if matches!(self.pending.get(key), Some(Pending::Removing { .. })) {
            return Err(differs("the attachment is being removed"));
        }
        if endpoint.network != request.network {
            return Err(differs(&format!("the attachment belongs to network {}", endpoint.network)));
        }
        let Some(netns) = netns else { return Err(differs("the network namespace is gone")) };
        self.namespaces.insert(key.clone(), netns);
        let inode = self.namespaces.inode(key);
        let view = inspect::pod(&self.namespaces, key).await;
        self.forget_namespace(key);
        if inode != Some(endpoint.netns_inode) {
            return Err(differs("the path leads to another network namespace"));
        }
        let view = view
            .map_err(|error| refusal(RefusalKind::Io, format!("look into the pod's namespace: {error}")))?;
        check_pod(&endpoint, request, &view)?;
        self.check_host(&endpoint).await
    }

    async fn check_host(&mut self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let now = Instant::now();
        self.kernel.invalidate();
        self.kernel.look(now).await;
        let Some(ifindex) = self.surroundings(endpoint).ifindex else {
            return Err(differs(&format!("the host interface {} is gone", endpoint.host)));
        };
        let objects = self.objects_of(endpoint);
        if let Some(missing) = self.kernel.first_difference(&objects) {
            return Err(differs(&format!("{missing} (host interface {}, index {ifindex})", endpoint.host)));
        }
        Ok(())
    }
}

fn check_pod(endpoint: &Endpoint, request: &CheckRequest, view: &PodView) -> Result<(), Refusal> {
    let name = &endpoint.key.ifname;
    if !view.exists {
        return Err(differs(&format!("interface {name} is missing")));
    }
    if !view.up {
        return Err(differs(&format!("interface {name} is down")));
    }
    for wanted in &request.addresses {
        if !view.addresses.contains(wanted) {
            return Err(differs(&format!("interface {name} lacks the address {wanted}")));
        }
    }
    for own in &endpoint.addresses {
        if !request.addresses.contains(&own.address) {
            return Err(differs(&format!("the result lacks the address {}", own.address)));
        }
    }
    for route in request.routes.iter().chain(&endpoint.routes) {
        if !view.routes.iter().any(|(dst, _)| *dst == route.dst) {
            return Err(differs(&format!("the route to {} is missing", route.dst)));
        }
    }
    Ok(())
}

fn differs(text: &str) -> Refusal {
    refusal(RefusalKind::Differs, text.to_owned())
}
