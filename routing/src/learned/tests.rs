// SPDX-License-Identifier: Apache-2.0

use super::*;

fn addr(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

fn way(dst: &str, metric: u32, via: &[(u32, Option<&str>)]) -> WayOut {
    let via = via.iter().map(|(ifindex, gateway)| Via { ifindex: *ifindex, gateway: gateway.map(addr) });
    WayOut { dst: dst.parse().expect("valid"), metric, via: via.collect() }
}

fn host(carriers: &[u32]) -> Surroundings {
    let ways = vec![
        way("192.0.2.0/24", 0, &[(2, None)]),
        way("192.0.2.0/24", 50, &[(3, None)]),
        way("0.0.0.0/0", 100, &[(2, Some("192.0.2.1"))]),
        way("198.51.100.0/24", 20, &[(2, Some("192.0.2.1")), (3, Some("fe80::1"))]),
        way("203.0.113.0/24", 0, &[]),
        way("2001:db8::/64", 256, &[(2, None)]),
    ];
    Surroundings::new(ways, carriers.iter().copied().collect(), [addr("192.0.2.9")].into())
}

/// Distance and neighbours.
fn reached(host: &Surroundings, text: &str, scope: Option<u32>) -> Option<(u32, Vec<String>)> {
    let reached = host.reach(addr(text), scope)?;
    let word = |via: &Via| format!("{}%{}", via.gateway.expect("has one"), via.ifindex);
    Some((reached.distance, reached.via.iter().map(word).collect()))
}

fn one(distance: u32, word: &str) -> Option<(u32, Vec<String>)> {
    Some((distance, vec![word.to_owned()]))
}

#[test]
fn the_longest_route_with_the_lowest_metric_leads_to_a_next_hop() {
    let host = host(&[2, 3]);
    assert_eq!(reached(&host, "192.0.2.7", None), one(0, "192.0.2.7%2"));
    assert_eq!(reached(&host, "2001:db8::7", None), one(0, "2001:db8::7%2"));
    assert_eq!(reached(&host, "10.0.0.1", None), one(101, "192.0.2.1%2"));
    let both = Some((21, vec!["192.0.2.1%2".to_owned(), "fe80::1%3".to_owned()]));
    assert_eq!(reached(&host, "198.51.100.7", None), both);
}

#[test]
fn a_link_without_a_carrier_leads_nowhere() {
    let host = host(&[3]);
    assert_eq!(reached(&host, "198.51.100.7", None), one(21, "fe80::1%3"));
    assert_eq!(reached(&host, "10.0.0.1", None), None);
    assert_eq!(reached(&host, "fe80::7", Some(2)), None);
    assert_eq!(reached(&host, "fe80::7", Some(3)), one(0, "fe80::7%3"));
}

#[test]
fn black_holes_unknown_networks_and_the_host_itself_are_no_next_hops() {
    let host = host(&[2, 3]);
    assert_eq!(reached(&host, "203.0.113.7", None), None);
    assert_eq!(reached(&host, "2001:db8:1::7", None), None);
    assert_eq!(reached(&host, "192.0.2.9", None), None);
}
