// SPDX-License-Identifier: Apache-2.0
//! The plan: from inputs to the desired state of every target. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rhumb_cni::protocol::{PortMapping, Protocol};
use rhumb_ebpf::{
    AttachPoint, Attached, Endpoint as PodEntry, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex,
    PodLink, Remote, RemotePrefix, TunnelLink, Uplink as Masquerade,
};
use rhumb_model::{AttachmentKey, Family, IfName, Prefix};
use rhumb_routing::host::Uplink;
use rhumb_routing::plan::{self, Plan};
use rhumb_routing::{
    Direction, HostAddress, HostRoute, InterfaceSpec, LinkSpec, PodAddress, PodNextHop, PodRoute, PolicyRule,
    QdiscKey, Sysctl, TableKey, TableRoute, TokenBucket, TunnelSpec, eni,
};
use rhumb_routing::{Filter, FilterKey, Hook as FilterHook};

use crate::endpoint::{Endpoint, Origin};
use crate::eni::Around;

/// Desired state, one map per target.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Desired {
    pub(crate) sysctls: BTreeMap<Sysctl, String>,
    pub(crate) tunnels: BTreeMap<IfName, TunnelSpec>,
    pub(crate) links: BTreeMap<AttachmentKey, LinkSpec>,
    pub(crate) addresses: BTreeMap<PodAddress, ()>,
    pub(crate) routes: BTreeMap<PodRoute, PodNextHop>,
    pub(crate) qdiscs: BTreeMap<QdiscKey, TokenBucket>,
    pub(crate) pod_links: BTreeMap<IfIndex, PodLink>,
    pub(crate) filters: BTreeMap<FilterKey, Filter>,
    pub(crate) attachments: BTreeMap<AttachPoint, Attached>,
    pub(crate) tunnel_links: BTreeMap<IfIndex, TunnelLink>,
    pub(crate) host_routes: BTreeMap<Prefix, HostRoute>,
    pub(crate) ipcache: BTreeMap<RemotePrefix, Remote>,
    /// What pods' packets leave with; the last to be put, as everything that keeps a source comes before.
    pub(crate) masquerade: BTreeMap<IfIndex, Masquerade>,
    pub(crate) pods: BTreeMap<EndpointAddr, PodEntry>,
    /// Of interfaces of a cloud: the links, their addresses, the routes of their tables, the rules that lead there.
    pub(crate) interfaces: BTreeMap<IfName, InterfaceSpec>,
    pub(crate) host_addresses: BTreeMap<HostAddress, ()>,
    pub(crate) table_routes: BTreeMap<TableKey, TableRoute>,
    pub(crate) rules: BTreeMap<PolicyRule, ()>,
    pub(crate) host_ports: BTreeMap<HostPort, HostPortBackend>,
}

/// The programs of an uplink.
const WIRE: [Hook; 2] = [Hook::FromWire, Hook::ToWire];

/// What is known about an endpoint's surroundings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Surroundings {
    /// Index of the host's end, once it is there.
    pub(crate) ifindex: Option<u32>,
    /// Whether the pod's namespace is open to us: only while ADD is under way.
    pub(crate) namespace: bool,
}

/// How each program is attached on this kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// Those that are put as filters, with the kernel's numbers of them; all others have tcx links.
    pub(crate) filters: BTreeMap<Hook, u32>,
}

impl Programs {
    /// Whether a program stands as a filter: on pods' links always, elsewhere where the kernel has no tcx.
    pub(crate) fn is_filter(hook: Hook, has_tcx: bool) -> bool {
        match hook {
            Hook::FromPod | Hook::ToPod => true,
            Hook::FromWire | Hook::ToWire | Hook::FromTunnel | Hook::ToTunnel => !has_tcx,
        }
    }
}

/// What every endpoint of the node shares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    /// Addresses of the node.
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) programs: &'a Programs,
    /// Interfaces of a cloud.
    pub(crate) eni: Around<'a>,
}

impl Desired {
    /// Adds everything that one endpoint wants in its surroundings.
    pub(crate) fn add_endpoint(&mut self, endpoint: &Endpoint, around: Surroundings, shared: Shared<'_>) {
        if !endpoint.is_chained() {
            self.add_link(endpoint, around);
        }
        let Some(ifindex) = around.ifindex else { return };
        self.add_datapath(endpoint, ifindex, shared);
        if !endpoint.is_chained() {
            self.add_delivery(endpoint, ifindex, shared.eni);
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

    fn add_datapath(&mut self, endpoint: &Endpoint, ifindex: u32, shared: Shared<'_>) {
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
                interface: v4.and_then(|addr| shared.eni.interface(addr.into())),
            },
        );
        for hook in [Hook::FromPod, Hook::ToPod] {
            self.attach(&endpoint.host, ifindex, hook, shared.programs);
        }
    }

    /// Adds a program at its hook of an interface, in the form that this kernel has for it.
    pub(crate) fn attach(&mut self, ifname: &IfName, ifindex: u32, hook: Hook, programs: &Programs) {
        let ifname = ifname.clone();
        if let Some(program) = programs.filters.get(&hook) {
            let key = FilterKey { ifname, hook: side(hook) };
            self.filters.insert(key, Filter { ifindex, program: *program });
        } else {
            self.attachments.insert(AttachPoint { ifname, hook }, Attached { ifindex });
        }
    }

    /// Adds the programs of an uplink.
    pub(crate) fn add_uplink(&mut self, uplink: &Uplink, programs: &Programs) {
        for hook in WIRE {
            self.attach(&uplink.ifname, uplink.ifindex, hook, programs);
        }
    }

    fn add_delivery(&mut self, endpoint: &Endpoint, ifindex: u32, eni: Around<'_>) {
        let shaped = endpoint.bandwidth.is_some_and(|limits| limits.ingress.is_some());
        for address in &endpoint.addresses {
            let addr = address.address.ip();
            self.host_routes.insert(Prefix::host(addr), HostRoute::Device { ifname: endpoint.host.clone() });
            if let Some(table) = eni.pods_table {
                let route = TableRoute::Link { ifname: endpoint.host.clone(), gateway: None };
                self.table_routes.insert(TableKey { table, dst: Prefix::host(addr) }, route);
            }
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

    /// Adds what the node itself wants: forwarding, uplinks, and the ways to other nodes' pods.
    pub(crate) fn add_node(&mut self, uplinks: &[Uplink], programs: &Programs, ways: &Plan) {
        for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            self.sysctls.insert(Sysctl(name.to_owned()), "1".to_owned());
        }
        for uplink in uplinks {
            self.add_uplink(uplink, programs);
            self.masquerade.insert(IfIndex(uplink.ifindex), masquerade(uplink));
        }
        for (prefix, route) in &ways.routes {
            self.host_routes.entry(*prefix).or_insert_with(|| route.clone());
        }
        let entry = |remote: &plan::Remote| Remote {
            tunnel: remote.tunnel,
            identity: 0,
            mtu: remote.mtu,
            keep_source: remote.keep_source,
            node: remote.node,
            denied: false,
            stack: remote.stack,
            owner: remote.owner,
        };
        self.ipcache
            .extend(ways.remotes.iter().map(|(prefix, remote)| (RemotePrefix(*prefix), entry(remote))));
    }
}

impl Desired {
    /// Adds what interfaces of a cloud want; `mark` is the firewall mark of what comes in by one of them.
    pub(crate) fn add_interfaces(&mut self, plan: &eni::Plan, mark: impl Fn(u32) -> Option<u32>) {
        for (ifindex, uplink) in &mut self.masquerade {
            uplink.mark = mark(ifindex.0);
        }
        for ifname in plan.interfaces.keys() {
            // Strict filters by reverse path then look for the way back that the mark leads.
            let name = format!("net.ipv4.conf.{}.src_valid_mark", ifname.as_str().replace('.', "/"));
            self.sysctls.insert(Sysctl(name), "1".to_owned());
        }
        self.interfaces.extend(plan.interfaces.clone());
        self.host_addresses.extend(plan.addresses.clone());
        self.table_routes.extend(plan.routes.clone());
        self.rules.extend(plan.rules.clone());
    }
}

/// Where clouds have their metadata service: AWS, GCP, Azure, OpenStack and others; the second AWS alone.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Desired {
    /// Keeps the cloud's metadata service from pods.
    pub(crate) fn deny_metadata(&mut self) {
        for addr in METADATA {
            let denied = Remote { denied: true, ..Remote::default() };
            self.ipcache.insert(RemotePrefix(Prefix::host(addr)), denied);
        }
    }
}

/// The first address of each family of an uplink: that is what pods' packets leave with.
fn masquerade(uplink: &Uplink) -> Masquerade {
    let mut found = Masquerade::default();
    for network in &uplink.addresses {
        match network.ip() {
            IpAddr::V4(v4) => _ = found.v4.get_or_insert(v4),
            IpAddr::V6(v6) => _ = found.v6.get_or_insert(v6),
        }
    }
    found
}

/// Whether a port mapping is for this address of the node; the unspecified address stands for all of its family.
fn leads_from(mapping: &PortMapping, addr: IpAddr) -> bool {
    mapping.host_ip.is_none_or(|wanted| {
        wanted == addr || (wanted.is_unspecified() && Family::of(wanted) == Family::of(addr))
    })
}

/// Which packets of an interface a program sees.
fn side(hook: Hook) -> FilterHook {
    match hook {
        Hook::FromPod | Hook::FromWire | Hook::FromTunnel => FilterHook::Ingress,
        Hook::ToPod | Hook::ToWire | Hook::ToTunnel => FilterHook::Egress,
    }
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
pub(crate) mod tests {
    use super::*;
    use crate::endpoint::tests::endpoint;

    const NODE: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))];

    pub(crate) fn programs(has_tcx: bool) -> Programs {
        let filters = Hook::ALL.into_iter().filter(|hook| Programs::is_filter(*hook, has_tcx));
        Programs { filters: filters.zip(11..).collect() }
    }

    fn objects(around: Surroundings) -> Desired {
        let mut endpoint = endpoint("c1/eth0", &["10.1.0.5", "fd00::5"]);
        endpoint.port_mappings =
            vec![PortMapping { host_port: 8080, container_port: 80, protocol: Protocol::Tcp, host_ip: None }];
        let mut desired = Desired::default();
        let programs = programs(true);
        let shared = Shared { addresses: &NODE, programs: &programs, eni: Around::NONE };
        desired.add_endpoint(&endpoint, around, shared);
        desired
    }

    #[test]
    fn the_metadata_service_is_denied_in_both_families_and_nothing_else_is() {
        let mut desired = Desired::default();
        desired.deny_metadata();
        let denied: Vec<String> = desired.ipcache.keys().map(ToString::to_string).collect();
        assert_eq!(denied, ["169.254.169.254/32", "fd00:ec2::254/128"]);
        assert!(desired.ipcache.values().all(|remote| remote.denied && !remote.node));
        let others = Desired { ipcache: BTreeMap::new(), ..desired.clone() };
        assert_eq!(others, Desired::default());
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
    fn the_programs_of_an_uplink_have_links_or_where_there_is_no_tcx_are_filters() {
        let ifname = IfName::new("eth0").expect("valid");
        let uplink = Uplink { ifname: ifname.clone(), ifindex: 3, mtu: 1500, addresses: vec![] };
        let objects = |has_tcx| {
            let mut desired = Desired::default();
            desired.add_uplink(&uplink, &programs(has_tcx));
            desired
        };
        let (link, filter) = (objects(true), objects(false));
        assert_eq!((link.attachments.len(), link.filters.len()), (2, 0));
        let wanted = WIRE.map(|hook| {
            let program = programs(false).filters[&hook];
            (FilterKey { ifname: ifname.clone(), hook: side(hook) }, Filter { ifindex: 3, program })
        });
        assert_eq!(filter.filters, wanted.into());
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
