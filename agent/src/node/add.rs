// SPDX-License-Identifier: Apache-2.0
//! ADD: lease, journal, then wait for the objects.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rhumb_cni::failpoint;
use rhumb_cni::protocol::{AddRequest, AddressSource, Protocol, Refusal, RefusalKind, Reply};
use rhumb_ipam::{AllocateError, Lease};
use rhumb_model::{AttachmentKey, Family, MacAddr};
use rhumb_routing::{host, inspect};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Node, Pending, Wishes, refuse_all, wall_clock};
use crate::desired::protocol_number;
use crate::endpoint::{ChainedLink, Endpoint};

/// MTU of pods where no uplink says otherwise: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

/// An ADD that has its addresses and waits for the journal.
pub(super) struct Granted {
    endpoint: Endpoint,
    reply: oneshot::Sender<Reply>,
}

impl Node {
    /// Takes an ADD as far as memory goes; what is granted still has to be written.
    pub(super) async fn begin_add(
        &mut self,
        request: AddRequest,
        netns: OwnedFd,
        wishes: Wishes,
        reply: oneshot::Sender<Reply>,
    ) -> Option<Granted> {
        let key = request.key.clone();
        match self.grant(request, netns, &wishes).await {
            Ok(endpoint) => Some(Granted { endpoint, reply }),
            Err(refusal) => {
                info!(container = %key.container, ifname = %key.ifname, reason = %refusal, "add refused");
                if !self.pending.contains_key(&key) {
                    self.forget_namespace(&key);
                }
                refuse_all(vec![reply], &refusal);
                None
            }
        }
    }

    async fn grant(
        &mut self,
        request: AddRequest,
        netns: OwnedFd,
        wishes: &Wishes,
    ) -> Result<Endpoint, Refusal> {
        let key = &request.key;
        failpoint::pass("agent.add.before_lease", key.container.as_str()).map_err(on_purpose)?;
        if matches!(self.pending.get(key), Some(Pending::Removing { .. })) {
            return Err(refusal(RefusalKind::TryAgain, "the attachment is being removed".to_owned()));
        }
        self.namespaces.insert(key.clone(), netns);
        let inode = self
            .namespaces
            .inode(key)
            .ok_or_else(|| refusal(RefusalKind::Io, "the descriptor is no network namespace".to_owned()))?;
        if let Some(known) = self.ledger.endpoints().get(key).cloned() {
            // The same attachment again: the same answer, in whatever namespace it is now.
            return Ok(Endpoint { netns_inode: inode, netns: request.netns, ..known });
        }
        if let AddressSource::Chained { addresses, .. } = &request.addresses {
            let link = self.chained_link(key).await?;
            return Ok(Endpoint::chained(&request, inode, addresses, link));
        }
        self.free_host_ports(&request)?;
        let leases = self.lease(&request, wishes)?;
        let leased: Vec<IpAddr> = leases.iter().map(|lease| lease.addr).collect();
        let of_uplinks = self.tables.uplink_mtu(&self.eni.plan().interfaces);
        let mtu = request.mtu.or(self.settings.mtu).or(of_uplinks).unwrap_or(DEFAULT_MTU);
        Ok(Endpoint::with_own_link(&request, inode, &leased, mtu))
    }

    fn lease(&mut self, request: &AddRequest, wishes: &Wishes) -> Result<Vec<Lease>, Refusal> {
        let AddressSource::Pool { requested } = &request.addresses else { return Ok(Vec::new()) };
        if !self.tables.synced() {
            let text = "the agent has not yet seen the objects of the cluster";
            return Err(refusal(RefusalKind::TryAgain, text.to_owned()));
        }
        let wanted = if requested.is_empty() { &wishes.addresses } else { requested };
        let owner = Endpoint::owner(&request.key, request.pod.as_ref(), wishes.sticky);
        let leased = self.ledger.lease(&owner, wanted, wall_clock());
        self.shortage.note(&owner, leased.as_ref().err(), Instant::now());
        leased.map_err(|error| refused_lease(&error))
    }

    async fn chained_link(&mut self, key: &AttachmentKey) -> Result<ChainedLink, Refusal> {
        let view = inspect::pod(&self.namespaces, key)
            .await
            .map_err(|error| refusal(RefusalKind::Io, format!("look into the pod's namespace: {error}")))?;
        let missing = |text: &str| refusal(RefusalKind::InvalidConfig, format!("chained: {text}"));
        if !view.exists {
            return Err(missing("the interface of prevResult is not in the container"));
        }
        let (name, ifindex) = inspect::host_end(&self.namespaces, key)
            .await
            .map_err(|error| refusal(RefusalKind::Io, format!("find the host's end of the link: {error}")))?
            .ok_or_else(|| missing("the container's interface is no veth with its other end on this node"))?;
        let host_mac = host::link(&self.host, &name).await.ok().flatten().and_then(|link| link.mac);
        self.chained_links.insert(key.clone(), ifindex);
        let unknown = MacAddr::from_seed(u64::from(ifindex));
        Ok(ChainedLink {
            host: name,
            ifindex,
            host_mac: host_mac.unwrap_or(unknown),
            mac: view.mac.unwrap_or(unknown),
            mtu: view.mtu,
        })
    }

    /// Two pods cannot have the same port of the same address.
    fn free_host_ports(&self, request: &AddRequest) -> Result<(), Refusal> {
        for wanted in &request.port_mappings {
            // The checksum of SCTP covers the ports, and the datapath cannot make it anew (RFC 9260, appendix A).
            if wanted.protocol == Protocol::Sctp && wanted.host_port != wanted.container_port {
                let text = format!(
                    "portMappings: SCTP host port {} must equal the container port, not {}",
                    wanted.host_port, wanted.container_port
                );
                return Err(refusal(RefusalKind::InvalidConfig, text));
            }
            let holder = self.ledger.endpoints().values().find(|other| {
                other.port_mappings.iter().any(|held| {
                    held.host_port == wanted.host_port
                        && protocol_number(held.protocol) == protocol_number(wanted.protocol)
                        && overlap(held.host_ip, wanted.host_ip)
                })
            });
            if let Some(holder) = holder {
                let text = format!("host port {} is held by {}", wanted.host_port, holder.key);
                return Err(refusal(RefusalKind::TryAgain, text));
            }
        }
        Ok(())
    }

    /// Writes all ADDs of a batch in one step, and lets them wait for their objects.
    pub(super) fn write_adds(&mut self, adds: Vec<Granted>) {
        if adds.is_empty() {
            return;
        }
        let batch = adds.iter().map(|add| add.endpoint.clone()).collect();
        if let Err(error) = self.ledger.attach(batch) {
            warn!(error = &error as &dyn std::error::Error, "attachments not written");
            let refusal = refusal(RefusalKind::Io, format!("write the journal of attachments: {error}"));
            for add in adds {
                self.ledger.unlease(&add.endpoint.key, wall_clock());
                self.forget_namespace(&add.endpoint.key);
                refuse_all(vec![add.reply], &refusal);
            }
            return;
        }
        for add in adds {
            let key = add.endpoint.key.clone();
            self.tables.touch();
            for address in &add.endpoint.addresses {
                info!(container = %key.container, ifname = %key.ifname, addr = %address.address, "address given");
            }
            if let Err(hit) = failpoint::pass("agent.add.after_journal", key.container.as_str()) {
                self.begin_removal(&key, Reply::Refused(on_purpose(hit)), vec![add.reply]);
                continue;
            }
            match self.pending.get_mut(&key) {
                Some(Pending::Adding { replies }) => replies.push(add.reply),
                Some(Pending::Removing { .. }) | None => {
                    self.pending.insert(key, Pending::Adding { replies: vec![add.reply] });
                }
            }
        }
    }
}

/// Whether two port mappings can mean the same address of the node.
fn overlap(held: Option<IpAddr>, wanted: Option<IpAddr>) -> bool {
    let (Some(held), Some(wanted)) = (held, wanted) else { return true };
    held == wanted
        || (Family::of(held) == Family::of(wanted) && (held.is_unspecified() || wanted.is_unspecified()))
}

pub(super) fn refusal(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, message, details: String::new() }
}

pub(super) fn on_purpose(hit: failpoint::Hit) -> Refusal {
    refusal(RefusalKind::Io, hit.to_string())
}

fn refused_lease(error: &AllocateError) -> Refusal {
    let kind = if error.is_retryable() { RefusalKind::TryAgain } else { RefusalKind::AddressUnavailable };
    refusal(kind, error.to_string())
}

/// Families for which the node has addresses to lease.
pub(super) fn families(ranges: &[rhumb_ipam::Range]) -> Vec<Family> {
    Family::BOTH.into_iter().filter(|family| ranges.iter().any(|r| r.prefix.family() == *family)).collect()
}
