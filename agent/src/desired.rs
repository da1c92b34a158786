// SPDX-License-Identifier: Apache-2.0
//! The plan: from inputs to the desired state of every target. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rhumb_cni::protocol::{PortMapping, Protocol};
use rhumb_ebpf::{
    AttachPoint, Attached, Endpoint as PodEntry, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex,
    PodLink,
};
use rhumb_model::{AttachmentKey, Family, Prefix};
use rhumb_routing::{
    Direction, HostRoute, LinkSpec, PodAddress, PodNextHop, PodRoute, QdiscKey, Sysctl, TokenBucket,
    host::Uplink, plan as next_hop,
};

use crate::endpoint::{Endpoint, Origin};
use crate::tables::Tables;

/// Desired state, one map per target.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Desired {
    pub(crate) sysctls: BTreeMap<Sysctl, String>,
    pub(crate) links: BTreeMap<AttachmentKey, LinkSpec>,
    pub(crate) addresses: BTreeMap<PodAddress, ()>,
    pub(crate) routes: BTreeMap<PodRoute, PodNextHop>,
    pub(crate) qdiscs: BTreeMap<QdiscKey, TokenBucket>,
    pub(crate) pod_links: BTreeMap<IfIndex, PodLink>,
    pub(crate) attachments: BTreeMap<AttachPoint, Attached>,
    pub(crate) host_routes: BTreeMap<Prefix, HostRoute>,
    pub(crate) pods: BTreeMap<EndpointAddr, PodEntry>,
    pub(crate) host_ports: BTreeMap<HostPort, HostPortBackend>,
}

/// What is known about an endpoint's surroundings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Surroundings {
    /// Index of the host's end, once it is there.
    pub(crate) ifindex: Option<u32>,
    /// Whether the pod's namespace is open to us: only while ADD is under way.
    pub(crate) namespace: bool,
}

impl Desired {
    /// Adds everything that one endpoint wants in its surroundings.
    pub(crate) fn add_endpoint(&mut self, endpoint: &Endpoint, around: Surroundings, node: &[IpAddr]) {
        if !endpoint.is_chained() {
            self.add_link(endpoint, around);
        }
        let Some(ifindex) = around.ifindex else { return };
        self.add_datapath(endpoint, ifindex);
        if !endpoint.is_chained() {
            self.add_delivery(endpoint, ifindex);
            self.add_host_ports(endpoint, node);
        }
    }

    /// The link and what is inside of the pod. Without the namespace a link that is there stays, and none is made.
    fn add_link(&mut self, endpoint: &Endpoint, around: Surroundings) {
        if !around.namespace && around.ifindex.is_none() {
            return;
        }
        let key = &endpoint.key;
        self.links.insert(
            key.clone(),
            LinkSpec {
                host: endpoint.host.clone(),
                mac: endpoint.mac,
                host_mac: endpoint.host_mac,
                mtu: endpoint.mtu,
            },
        );
        let limits = endpoint.bandwidth;
        if let Some(limit) = limits.and_then(|limits| limits.ingress) {
            let bucket = TokenBucket { rate_bits: limit.rate, burst_bits: limit.burst };
            self.qdiscs.insert(qdisc(key, Direction::Ingress), bucket);
        }
        if !around.namespace {
            return;
        }
        if let Some(limit) = limits.and_then(|limits| limits.egress) {
            let bucket = TokenBucket { rate_bits: limit.rate, burst_bits: limit.burst };
            self.qdiscs.insert(qdisc(key, Direction::Egress), bucket);
        }
        for address in &endpoint.addresses {
            self.addresses.insert(PodAddress { attachment: key.clone(), address: address.address }, ());
        }
        for route in &endpoint.routes {
            self.routes.insert(
                PodRoute { attachment: key.clone(), dst: route.dst },
                PodNextHop { gateway: route.gw, mtu: route.mtu, onlink: true },
            );
        }
    }

    fn add_datapath(&mut self, endpoint: &Endpoint, ifindex: u32) {
        let v4 = match endpoint.address(Family::V4) {
            Some(IpAddr::V4(addr)) => Some(addr),
            Some(IpAddr::V6(_)) | None => None,
        };
        let v6 = match endpoint.address(Family::V6) {
            Some(IpAddr::V6(addr)) => Some(addr),
            Some(IpAddr::V4(_)) | None => None,
        };
        self.pod_links.insert(
            IfIndex(ifindex),
            PodLink {
                v4,
                v6,
                mac: endpoint.mac,
                host_mac: endpoint.host_mac,
                chained: endpoint.is_chained(),
                host_ports: !endpoint.port_mappings.is_empty(),
            },
        );
        for hook in [Hook::FromPod, Hook::ToPod] {
            self.attachments
                .insert(AttachPoint { ifname: endpoint.host.clone(), hook }, Attached { ifindex });
        }
    }

    fn add_delivery(&mut self, endpoint: &Endpoint, ifindex: u32) {
        let shaped = endpoint.bandwidth.is_some_and(|limits| limits.ingress.is_some());
        for address in &endpoint.addresses {
            let addr = address.address.ip();
            self.host_routes.insert(Prefix::host(addr), HostRoute::Device { ifname: endpoint.host.clone() });
            self.pods.insert(
                EndpointAddr(addr),
                PodEntry { ifindex, mac: endpoint.mac, host_mac: endpoint.host_mac, shaped },
            );
        }
    }

    fn add_host_ports(&mut self, endpoint: &Endpoint, node: &[IpAddr]) {
        for mapping in &endpoint.port_mappings {
            for addr in node.iter().filter(|addr| leads_from(mapping, **addr)) {
                let Some(pod) = endpoint.address(Family::of(*addr)) else { continue };
                self.host_ports.insert(
                    HostPort {
                        addr: *addr,
                        port: mapping.host_port,
                        protocol: protocol_number(mapping.protocol),
                    },
                    HostPortBackend { addr: pod, port: mapping.container_port },
                );
            }
        }
    }

    /// Adds what the node itself wants: forwarding, uplinks, and routes to other nodes' pods.
    pub(crate) fn add_node(&mut self, tables: &Tables, node: &rhumb_model::NodeName) -> next_hop::Plan {
        for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            self.sysctls.insert(Sysctl(name.to_owned()), "1".to_owned());
        }
        for uplink in &tables.uplinks {
            self.attachments.insert(
                AttachPoint { ifname: uplink.ifname.clone(), hook: Hook::FromWire },
                Attached { ifindex: uplink.ifindex },
            );
        }
        let plan = next_hop::plan(&next_hop::PlanInput {
            own_pod_cidrs: tables.pod_cidrs_of(node),
            uplinks: tables.uplinks.iter().map(Uplink::reach).collect(),
            nodes: tables.remote_nodes(node),
        });
        for (prefix, route) in &plan.routes {
            self.host_routes.entry(*prefix).or_insert_with(|| route.clone());
        }
        plan
    }
}

/// Whether a port mapping is for this address of the node; the unspecified address stands for all of its family.
fn leads_from(mapping: &PortMapping, addr: IpAddr) -> bool {
    mapping.host_ip.is_none_or(|wanted| {
        wanted == addr || (wanted.is_unspecified() && Family::of(wanted) == Family::of(addr))
    })
}

fn qdisc(attachment: &AttachmentKey, direction: Direction) -> QdiscKey {
    QdiscKey { attachment: attachment.clone(), direction }
}

/// Protocol number as IP headers carry it (IANA).
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Index of the host's end of a chained endpoint, as ADD found it.
pub(crate) fn chained_ifindex(endpoint: &Endpoint) -> Option<u32> {
    match endpoint.origin {
        Origin::Chained { ifindex } => Some(ifindex),
        Origin::Pool | Origin::Delegated => None,
    }
}
