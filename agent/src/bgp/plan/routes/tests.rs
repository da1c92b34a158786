// SPDX-License-Identifier: Apache-2.0
//! What holds of overlapping advertisements, whatever they say.

use proptest::prelude::*;
use rhumb_api::{BGPAdvertisementSpec, BgpCommunity, ObjectKey};
use rhumb_bgp_feed::{Peer, PeerAddress, PeerAsn, Policy, Timers, Ttl};

use super::*;
use crate::bgp::inputs::PoolFacts;

fn peer(number: u8, group: Option<u8>) -> Known {
    let label = |group: u8| Labels::from([("group".to_owned(), group.to_string())]);
    let selector = Selector { match_labels: group.map(label).unwrap_or_default(), ..Selector::default() };
    let peer = Peer {
        key: PeerKey(format!("p{number}")),
        address: PeerAddress::Ip("192.0.2.1".parse().expect("valid")),
        asn: PeerAsn::External,
        port: 179,
        local_asn: None,
        local_address: None,
        source_interface: None,
        md5: None,
        ttl: Ttl::Direct,
        passive: false,
        timers: Timers { hold_time: 90, keepalive: 30, connect_retry: 20 },
        families: Vec::new(),
        graceful_restart: None,
        import: Policy::default(),
        export: Policy::default(),
        route_reflector_client: false,
        bfd: None,
        shutdown: None,
    };
    Known { peer, hears: vec![(Family::V4, selector)] }
}

#[derive(Debug, Clone)]
struct Advert {
    group: u8,
    pool: bool,
    communities: Vec<u32>,
    local_preference: Option<u32>,
    med: Option<u32>,
}

fn advert() -> impl Strategy<Value = Advert> {
    let communities = proptest::collection::vec(0..4_u32, 0..3);
    (0..3_u8, any::<bool>(), communities, proptest::option::of(0..4_u32), proptest::option::of(0..4_u32))
        .prop_map(|(group, pool, communities, local_preference, med)| Advert {
            group,
            pool,
            communities,
            local_preference,
            med,
        })
}

/// A node with one block, which is its whole pool where `whole`.
fn inputs(adverts: &[Advert], whole: bool) -> Inputs {
    let (pool, block) =
        ("a".parse::<rhumb_model::PoolName>().expect("valid"), "10.1.0.0/24".parse().expect("valid"));
    let cidr = if whole { block } else { "10.0.0.0/8".parse().expect("valid") };
    let object = |(number, advert): (usize, &Advert)| {
        let attributes = BgpAttributes {
            communities: advert.communities.iter().map(|value| BgpCommunity::Standard(*value)).collect(),
            local_preference: advert.local_preference,
            med: advert.med,
        };
        let about = if advert.pool { AdvertisementType::PodPool } else { AdvertisementType::PodCIDR };
        let routes = BgpRoutes { about, selector: None, interface: None, service: None, attributes };
        let labels = Labels::from([("group".to_owned(), advert.group.to_string())]);
        (format!("a{number}"), (labels, BGPAdvertisementSpec { advertisements: vec![routes] }))
    };
    Inputs {
        pod_cidrs: vec![(pool.clone(), block)],
        pools: [(pool, PoolFacts { labels: Labels::new(), cidrs: vec![cidr] })].into(),
        advertisements: adverts.iter().enumerate().map(object).collect(),
        ..Inputs::default()
    }
}

proptest! {
    #[test]
    fn a_prefix_is_told_with_all_communities_the_largest_preference_and_the_smallest_metric(
        adverts in proptest::collection::vec(advert(), 0..6),
        groups in proptest::collection::vec(proptest::option::of(0..3_u8), 0..4),
        whole: bool,
    ) {
        let peers: Vec<Known> =
            groups.iter().zip(0..).map(|(group, number)| peer(number, *group)).collect();
        let routes = of(&peers, &inputs(&adverts, whole));
        for (peer, group) in peers.iter().zip(&groups) {
            for (prefix, pools) in [("10.1.0.0/24", false), ("10.0.0.0/8", true)] {
                let prefix: Prefix = prefix.parse().expect("valid");
                let said: Vec<&Advert> = adverts
                    .iter()
                    .filter(|advert| group.is_none_or(|group| advert.group == group))
                    .filter(|advert| if whole { !pools } else { advert.pool == pools })
                    .collect();
                let route = routes.iter().find(|route| route.prefix == prefix);
                let told = route.and_then(|route| route.attributes_for(&peer.peer.key));
                let expected = (!said.is_empty()).then(|| RouteAttributes {
                    communities: said.iter().flat_map(|advert| advert.communities.clone()).collect(),
                    large_communities: BTreeSet::new(),
                    local_pref: said.iter().filter_map(|advert| advert.local_preference).max(),
                    med: said.iter().filter_map(|advert| advert.med).min(),
                });
                prop_assert_eq!(told, expected.as_ref());
            }
        }
    }

    #[test]
    fn the_order_in_which_advertisements_come_means_nothing(
        mut adverts in proptest::collection::vec(advert(), 0..6),
    ) {
        let peers = [peer(0, None), peer(1, Some(1))];
        let forward = of(&peers, &inputs(&adverts, true));
        adverts.reverse();
        prop_assert_eq!(of(&peers, &inputs(&adverts, true)), forward);
    }
}

/// A service with one address of each kind.
fn service(external_local: bool, ready_anywhere: bool, ready_here: bool) -> ServiceFacts {
    let address = |text: &str| text.parse().expect("valid");
    ServiceFacts {
        addresses: vec![
            (ServiceAddress::ClusterIP, address("10.96.0.1")),
            (ServiceAddress::LoadBalancerIP, address("203.0.113.1")),
        ],
        external_local,
        ready_anywhere,
        ready_here,
        ..ServiceFacts::default()
    }
}

#[test]
fn a_service_is_told_where_its_packets_find_an_endpoint() {
    use ServiceAddress::{ClusterIP, LoadBalancerIP};
    for (facts, without_endpoints, kind, told) in [
        (service(false, true, false), false, LoadBalancerIP, true),
        (service(false, false, false), false, LoadBalancerIP, false),
        (service(false, false, false), true, LoadBalancerIP, true),
        (service(true, true, false), false, LoadBalancerIP, false),
        (service(true, true, false), true, LoadBalancerIP, false),
        (service(true, true, true), false, LoadBalancerIP, true),
        (service(true, true, false), false, ClusterIP, true),
    ] {
        let wanted = ServiceRoutes { addresses: vec![kind], aggregation: None, without_endpoints };
        let inputs = Inputs {
            services: [(ObjectKey::namespaced("default", "web"), facts.clone())].into(),
            ..Inputs::default()
        };
        let said = services(&wanted, None, &inputs);
        assert_eq!(said.len(), usize::from(told), "{facts:?} {without_endpoints} {kind:?}");
    }
}
