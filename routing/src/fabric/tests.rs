// SPDX-License-Identifier: Apache-2.0

use super::*;

const MAIN: u32 = 254;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn gateway(addr: &str) -> Gateway {
    Gateway { addr: addr.parse().expect("valid"), ifname: "eth0".parse().expect("valid") }
}

fn route(table: u32, dst: &str, metric: u32, via: Option<&str>) -> ForeignRoute {
    let leads = via.map_or(Leads::Nowhere, |via| Leads::Out(vec![Some(gateway(via))]));
    ForeignRoute { table, dst: prefix(dst), metric, leads }
}

fn rule(priority: u32, dst: &str, table: Option<u32>) -> (Family, Rule) {
    (Family::V4, Rule { priority, dst: prefix(dst), table, suppressed: None })
}

fn found(rules: Vec<(Family, Rule)>, routes: Vec<ForeignRoute>) -> Option<String> {
    let fabric = Fabric::new(routes, rules, BTreeMap::new());
    fabric
        .route_to(prefix("10.1.2.0/24"))
        .map(|(dst, hops)| format!("{dst} {}", hops[0].as_ref().map(ToString::to_string).unwrap_or_default()))
}

#[test]
fn the_longest_route_that_covers_the_prefix_counts() {
    let routes = vec![
        route(MAIN, "10.0.0.0/8", 0, Some("192.0.2.1")),
        route(MAIN, "10.1.0.0/16", 0, Some("192.0.2.2")),
        route(MAIN, "10.1.2.0/25", 0, Some("192.0.2.3")),
        route(MAIN, "10.2.0.0/16", 0, Some("192.0.2.4")),
    ];
    let main = vec![rule(32766, "0.0.0.0/0", Some(MAIN))];
    assert_eq!(found(main, routes).as_deref(), Some("10.1.0.0/16 192.0.2.2 dev eth0"));
}

#[test]
fn of_two_routes_to_one_destination_the_lower_metric_counts() {
    let routes = vec![
        route(MAIN, "10.1.0.0/16", 20, Some("192.0.2.1")),
        route(MAIN, "10.1.0.0/16", 10, Some("192.0.2.2")),
        route(MAIN, "10.1.0.0/16", 30, None),
    ];
    let main = vec![rule(32766, "0.0.0.0/0", Some(MAIN))];
    assert_eq!(found(main, routes).as_deref(), Some("10.1.0.0/16 192.0.2.2 dev eth0"));
}

#[test]
fn a_default_route_is_no_way_to_a_prefix() {
    let routes = vec![route(MAIN, "0.0.0.0/0", 0, Some("192.0.2.1"))];
    assert_eq!(found(vec![rule(32766, "0.0.0.0/0", Some(MAIN))], routes), None);
}

#[test]
fn a_black_hole_hides_shorter_routes() {
    let routes = vec![route(MAIN, "10.0.0.0/8", 0, Some("192.0.2.1")), route(MAIN, "10.1.0.0/16", 0, None)];
    assert_eq!(found(vec![rule(32766, "0.0.0.0/0", Some(MAIN))], routes), None);
}

#[test]
fn the_first_table_with_a_match_ends_the_search_also_with_its_default_route() {
    let routes = || {
        vec![route(100, "0.0.0.0/0", 0, Some("192.0.2.1")), route(MAIN, "10.1.0.0/16", 0, Some("192.0.2.2"))]
    };
    let main = rule(32766, "0.0.0.0/0", Some(MAIN));
    assert_eq!(found(vec![rule(1, "0.0.0.0/0", Some(100)), main], routes()), None);
    let mut only_specific = rule(1, "0.0.0.0/0", Some(100));
    only_specific.1.suppressed = Some(0);
    let past_it = found(vec![only_specific, main], routes());
    assert_eq!(past_it.as_deref(), Some("10.1.0.0/16 192.0.2.2 dev eth0"));
}

#[test]
fn rules_hold_for_their_destinations_in_their_order() {
    let routes = || {
        vec![
            route(100, "10.1.0.0/16", 0, Some("192.0.2.1")),
            route(MAIN, "10.1.0.0/16", 0, Some("192.0.2.2")),
        ]
    };
    let main = rule(32766, "0.0.0.0/0", Some(MAIN));
    let via = |gateway: &str| Some(format!("10.1.0.0/16 {gateway} dev eth0"));
    assert_eq!(found(vec![main, rule(5, "10.1.0.0/16", Some(100))], routes()), via("192.0.2.1"));
    assert_eq!(found(vec![main, rule(5, "10.2.0.0/16", Some(100))], routes()), via("192.0.2.2"));
    assert_eq!(found(vec![main, rule(5, "10.0.0.0/8", None)], routes()), None);
}

#[test]
fn a_neighbour_is_dead_only_when_it_was_asked_in_vain() {
    let states = [
        (Some(Neighbour::Confirmed), Liveness::Alive),
        (Some(Neighbour::Known), Liveness::Alive),
        (Some(Neighbour::Asked), Liveness::Unknown),
        (Some(Neighbour::Failed), Liveness::Dead),
        (None, Liveness::Unknown),
    ];
    for (state, liveness) in states {
        let neighbours = state.map(|state| (gateway("192.0.2.1"), state)).into_iter().collect();
        let fabric = Fabric::new(vec![], vec![], neighbours);
        assert_eq!(fabric.liveness(&gateway("192.0.2.1")), liveness, "{state:?}");
    }
}
