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
use rhumb_routing::host::Uplink;
use rhumb_routing::{
    Direction, HostRoute, LinkSpec, PodAddress, PodNextHop, PodRoute, QdiscKey, Sysctl, TokenBucket,
    plan as next_hop,
};
use rhumb_routing::{Filter, FilterKey, Hook as FilterHook};

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
    pub(crate) filters: BTreeMap<FilterKey, Filter>,
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

/// The kernel's numbers of the programs that stand as filters: on the host's end of a pod's link always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FilterPrograms {
    pub(crate) from_pod: u32,
    pub(crate) to_pod: u32,
    /// On uplinks where the kernel has no tcx; `None` where it has, and the program is attached by a link.
    pub(crate) from_wire: Option<u32>,
}

/// What every endpoint of the node shares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    /// Addresses of the node.
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) programs: FilterPrograms,
}

impl Desired {
    /// Adds everything that one endpoint wants in its surroundings.
    pub(crate) fn add_endpoint(&mut self, endpoint: &Endpoint, around: Surroundings, shared: Shared<'_>) {
        if !endpoint.is_chained() {
            self.add_link(endpoint, around);
        }
        let Some(ifindex) = around.ifindex else { return };
        self.add_datapath(endpoint, ifindex, shared.programs);
        if !endpoint.is_chained() {
            self.add_delivery(endpoint, ifindex);
            self.add_host_ports(endpoint, shared.addresses);
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
        if let Some(limit) = limits.and_then(|limits| limits.ingress)
            && around.ifindex.is_some()
        {
            let bucket = TokenBucket { rate_bits: limit.rate, burst_bits: limit.burst };
            self.qdiscs.insert(qdisc(key, Direction::Ingress), bucket);
        }
        // Without our link the interface of that name is somebody else's, if there is one: not to be touched.
        if !around.namespace || around.ifindex.is_none() {
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

    fn add_datapath(&mut self, endpoint: &Endpoint, ifindex: u32, programs: FilterPrograms) {
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
        let hooks = [(FilterHook::Ingress, programs.from_pod), (FilterHook::Egress, programs.to_pod)];
        for (hook, program) in hooks {
            self.filters
                .insert(FilterKey { ifname: endpoint.host.clone(), hook }, Filter { ifindex, program });
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
    pub(crate) fn add_node(
        &mut self,
        tables: &Tables,
        node: &rhumb_model::NodeName,
        programs: FilterPrograms,
    ) -> next_hop::Plan {
        for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            self.sysctls.insert(Sysctl(name.to_owned()), "1".to_owned());
        }
        for uplink in &tables.uplinks {
            self.add_uplink(uplink, programs);
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

    /// Adds the program on one uplink, in the form that this kernel has for it.
    pub(crate) fn add_uplink(&mut self, uplink: &Uplink, programs: FilterPrograms) {
        let (ifname, ifindex) = (uplink.ifname.clone(), uplink.ifindex);
        if let Some(program) = programs.from_wire {
            let key = FilterKey { ifname, hook: FilterHook::Ingress };
            self.filters.insert(key, Filter { ifindex, program });
        } else {
            self.attachments.insert(AttachPoint { ifname, hook: Hook::FromWire }, Attached { ifindex });
        }
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

#[cfg(test)]
mod tests {
    use rhumb_model::IfName;

    use super::*;
    use crate::endpoint::tests::endpoint;

    const NODE: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

    fn objects(around: Surroundings) -> Desired {
        let mut endpoint = endpoint("c1/eth0", &["10.1.0.5", "fd00::5"]);
        endpoint.port_mappings =
            vec![PortMapping { host_port: 8080, container_port: 80, protocol: Protocol::Tcp, host_ip: None }];
        let mut desired = Desired::default();
        let programs = FilterPrograms { from_pod: 11, to_pod: 12, from_wire: None };
        desired.add_endpoint(&endpoint, around, Shared { addresses: &NODE, programs });
        desired
    }

    #[test]
    fn before_its_link_is_there_an_endpoint_wants_only_the_link() {
        let desired = objects(Surroundings { ifindex: None, namespace: true });
        let link_only = Desired { links: desired.links.clone(), ..Desired::default() };
        assert_eq!((desired.links.len(), desired == link_only), (1, true));
    }

    #[test]
    fn without_link_and_namespace_an_endpoint_wants_nothing() {
        assert_eq!(objects(Surroundings::default()), Desired::default());
    }

    #[test]
    fn a_pod_that_is_up_keeps_what_is_on_the_host_and_its_inside_to_itself() {
        let desired = objects(Surroundings { ifindex: Some(7), namespace: false });
        assert_eq!((desired.addresses.len(), desired.routes.len()), (0, 0));
        let host =
            (desired.links.len(), desired.host_routes.len(), desired.pods.len(), desired.filters.len());
        assert_eq!(host, (1, 2, 2, 2));
    }

    #[test]
    fn the_program_of_an_uplink_is_a_link_or_where_there_is_no_tcx_a_filter() {
        let uplink =
            Uplink { ifname: IfName::new("eth0").expect("valid"), ifindex: 3, mtu: 1500, addresses: vec![] };
        let objects = |from_wire| {
            let mut desired = Desired::default();
            desired.add_uplink(&uplink, FilterPrograms { from_wire, ..FilterPrograms::default() });
            desired
        };
        let (link, filter) = (objects(None), objects(Some(13)));
        assert_eq!((link.attachments.len(), link.filters.len()), (1, 0));
        let key = FilterKey { ifname: uplink.ifname.clone(), hook: FilterHook::Ingress };
        assert_eq!(filter.filters, [(key, Filter { ifindex: 3, program: 13 })].into());
        assert!(filter.attachments.is_empty());
    }

    #[test]
    fn a_host_port_leads_from_every_address_of_a_family_that_the_pod_has() {
        let desired = objects(Surroundings { ifindex: Some(7), namespace: true });
        let ports: Vec<_> =
            desired.host_ports.iter().map(|(from, to)| (from.addr, from.port, to.addr, to.port)).collect();
        assert_eq!(ports, [(NODE[0], 8080, "10.1.0.5".parse().expect("valid"), 80)]);
    }

    #[test]
    fn the_unspecified_address_stands_for_its_family() {
        let mapping = |host_ip: &str| PortMapping {
            host_port: 1,
            container_port: 1,
            protocol: Protocol::Udp,
            host_ip: Some(host_ip.parse().expect("valid")),
        };
        assert!(leads_from(&mapping("0.0.0.0"), NODE[0]) && !leads_from(&mapping("::"), NODE[0]));
        assert!(leads_from(&mapping("192.0.2.1"), NODE[0]) && !leads_from(&mapping("192.0.2.2"), NODE[0]));
    }
}
