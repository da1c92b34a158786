// SPDX-License-Identifier: Apache-2.0
//! An attachment as the agent keeps it: everything that is needed to make its kernel objects again.

use std::net::IpAddr;

use rhumb_cni::protocol::{
    AddRequest, Address, AddressSource, Attachment, Bandwidth, Interface, PortMapping, Route,
};
use rhumb_ipam::Owner;
use rhumb_model::{AttachmentKey, Family, IfName, MacAddr, PodKey, Prefix};
use serde::{Deserialize, Serialize};

/// Gateway of every pod for IPv4: answered by the datapath, on no interface (RFC 3927 link-local).
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 1, 1));

/// Gateway of every pod for IPv6: the host's end of its link.
pub(crate) const GATEWAY_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// One attachment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) key: AttachmentKey,
    pub(crate) network: String,
    /// Path of the network namespace as the runtime gave it.
    pub(crate) netns: String,
    /// Inode of the namespace: tells whether the path still leads to the same one.
    pub(crate) netns_inode: u64,
    pub(crate) pod: Option<PodKey>,
    pub(crate) origin: Origin,
    /// Addresses of the container interface, IPv4 first.
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) host: IfName,
    pub(crate) host_mac: MacAddr,
    pub(crate) mac: MacAddr,
    pub(crate) mtu: u32,
    pub(crate) port_mappings: Vec<PortMapping>,
    pub(crate) bandwidth: Option<Bandwidth>,
}

/// Who made the interface and gave the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// rhumb made the link; addresses from the node's pool.
    Pool,
    /// rhumb made the link; addresses from another IPAM plugin.
    Delegated,
    /// Another plugin made the link and gave the addresses.
    Chained {
        /// Index of the host's end.
        ifindex: u32,
    },
}

impl Endpoint {
    /// An endpoint with a link of our own. Addresses of the pool come as single addresses.
    pub(crate) fn with_own_link(request: &AddRequest, netns_inode: u64, leased: &[IpAddr], mtu: u32) -> Self {
        let (origin, addresses, extra) = match &request.addresses {
            AddressSource::Delegated { addresses, routes } => {
                (Origin::Delegated, addresses.clone(), routes.clone())
            }
            AddressSource::Pool { .. } | AddressSource::Chained { .. } => {
                (Origin::Pool, leased.iter().map(|addr| Prefix::host(*addr).into()).collect(), Vec::new())
            }
        };
        let mut addresses: Vec<Address> = addresses
            .into_iter()
            .map(|address| Address { address, gateway: Some(gateway(Family::of(address.ip()))) })
            .collect();
        addresses.sort_by_key(|address| Family::of(address.address.ip()));
        let families = Family::BOTH.into_iter().filter(|family| has(&addresses, *family));
        let mut routes: Vec<Route> = families
            .map(|family| Route { dst: family.default_route(), gw: Some(gateway(family)), mtu: None })
            .collect();
        // Every way out of a pod is the gateway: a delegate's route keeps its destination only.
        for route in extra {
            if routes.iter().all(|known| known.dst != route.dst) {
                routes.push(Route { gw: Some(gateway(route.dst.family())), ..route });
            }
        }
        let seed = seed(&request.key);
        Self {
            key: request.key.clone(),
            network: request.network.clone(),
            netns: request.netns.clone(),
            netns_inode,
            pod: request.pod.clone(),
            origin,
            addresses,
            routes,
            host: host_name(seed),
            host_mac: MacAddr::from_seed(!seed),
            mac: request.mac.unwrap_or(MacAddr::from_seed(seed)),
            mtu,
            port_mappings: request.port_mappings.clone(),
            bandwidth: request.bandwidth,
        }
    }

    /// An endpoint on a link that another plugin made.
    pub(crate) fn chained(
        request: &AddRequest,
        netns_inode: u64,
        addresses: &[ipnetwork::IpNetwork],
        link: ChainedLink,
    ) -> Self {
        Self {
            key: request.key.clone(),
            network: request.network.clone(),
            netns: request.netns.clone(),
            netns_inode,
            pod: request.pod.clone(),
            origin: Origin::Chained { ifindex: link.ifindex },
            addresses: addresses.iter().map(|address| Address { address: *address, gateway: None }).collect(),
            routes: Vec::new(),
            host: link.host,
            host_mac: link.host_mac,
            mac: link.mac,
            mtu: link.mtu,
            port_mappings: Vec::new(),
            bandwidth: None,
        }
    }

    /// The first address of a family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().map(|address| address.address.ip()).find(|addr| Family::of(*addr) == family)
    }

    /// Whether another plugin made the link.
    pub(crate) fn is_chained(&self) -> bool {
        matches!(self.origin, Origin::Chained { .. })
    }

    /// What ADD answers.
    pub(crate) fn attachment(&self) -> Attachment {
        let interface = |name: &IfName, mac| Interface { name: name.clone(), mac, mtu: self.mtu };
        Attachment {
            host: interface(&self.host, self.host_mac),
            container: interface(&self.key.ifname, self.mac),
            addresses: self.addresses.clone(),
            routes: self.routes.clone(),
        }
    }

    /// Who holds the leases.
    pub(crate) fn owner(key: &AttachmentKey, pod: Option<&PodKey>, sticky: bool) -> Owner {
        Owner { attachment: key.clone(), pod: pod.cloned(), sticky }
    }
}

/// The link that another plugin made.
#[derive(Debug, Clone)]
pub(crate) struct ChainedLink {
    pub(crate) host: IfName,
    pub(crate) ifindex: u32,
    pub(crate) host_mac: MacAddr,
    pub(crate) mac: MacAddr,
    pub(crate) mtu: u32,
}

fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => GATEWAY_V4,
        Family::V6 => GATEWAY_V6,
    }
}

fn has(addresses: &[Address], family: Family) -> bool {
    addresses.iter().any(|address| Family::of(address.address.ip()) == family)
}

/// Sixty-four bits that stand for the attachment: FNV-1a with a final mix, the same in every release.
fn seed(key: &AttachmentKey) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

fn host_name(seed: u64) -> IfName {
    IfName::new(format!("rh{:010x}", seed & 0xff_ffff_ffff)).expect("twelve plain characters")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(key: &str) -> AddRequest {
        AddRequest {
            key: key.parse().expect("valid"),
            network: "podnet".to_owned(),
            netns: "/run/netns/x".to_owned(),
            pod: None,
            addresses: AddressSource::Pool { requested: Vec::new() },
            mac: None,
            mtu: None,
            port_mappings: Vec::new(),
            bandwidth: None,
        }
    }

    pub(crate) fn endpoint(key: &str, addresses: &[&str]) -> Endpoint {
        let leased: Vec<IpAddr> = addresses.iter().map(|addr| addr.parse().expect("valid")).collect();
        Endpoint::with_own_link(&request(key), 1, &leased, 1500)
    }

    #[test]
    fn a_dual_stack_endpoint_has_a_default_route_for_each_family() {
        let endpoint = endpoint("c1/eth0", &["fd00::5", "10.1.0.5"]);
        let shown: Vec<String> = endpoint.addresses.iter().map(|a| a.address.to_string()).collect();
        assert_eq!(shown, ["10.1.0.5/32", "fd00::5/128"]);
        let routes: Vec<String> = endpoint.routes.iter().map(|r| r.dst.to_string()).collect();
        assert_eq!(routes, ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn names_and_addresses_of_links_are_stable_and_distinct() {
        let a = endpoint("c1/eth0", &["10.1.0.5"]);
        let b = endpoint("c1/net1", &["10.1.0.6"]);
        assert_eq!(a, endpoint("c1/eth0", &["10.1.0.5"]));
        assert_ne!((&a.host, a.mac, a.host_mac), (&b.host, b.mac, b.host_mac));
        assert_ne!(a.mac, a.host_mac);
    }

    #[test]
    fn routes_of_a_delegate_go_through_the_gateway() {
        let mut request = request("c1/eth0");
        request.addresses = AddressSource::Delegated {
            addresses: vec!["10.9.0.5/24".parse().expect("valid")],
            routes: vec![Route {
                dst: "192.0.2.0/24".parse().expect("valid"),
                gw: Some("10.9.0.1".parse().expect("valid")),
                mtu: None,
            }],
        };
        let endpoint = Endpoint::with_own_link(&request, 1, &[], 1500);
        assert_eq!(endpoint.addresses[0].address.to_string(), "10.9.0.5/24");
        assert!(endpoint.routes.iter().all(|route| route.gw == Some(GATEWAY_V4)));
        assert_eq!(endpoint.routes.len(), 2);
    }
}
