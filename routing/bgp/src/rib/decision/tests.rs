// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::wire::AsPath;

/// A route of an external peer whose number is in its router id and address.
fn attributes(systems: &[u32]) -> Attributes {
    Attributes { as_path: AsPath::sequence(systems.iter().copied().map(Asn)), ..Attributes::default() }
}

fn external(number: u8) -> Source {
    let address = [192, 0, 2, number].into();
    Source::Peer { external: true, router_id: RouterId(number.into()), address }
}

fn internal(number: u8) -> Source {
    let address = [192, 0, 2, number].into();
    Source::Peer { external: false, router_id: RouterId(number.into()), address }
}

type Route = (Attributes, Source, u32, u32);

/// A route that loses only the last comparison against the others.
fn usual(number: u8) -> Route {
    (attributes(&[65001, 65009]), external(number), 0, 0)
}

fn rules(always_compare_med: bool) -> Rules {
    Rules { asn: Asn(65000), always_compare_med }
}

/// The order of those that are left, and where each of the others was lost.
fn run(routes: &[Route], rules: Rules) -> (Vec<usize>, Vec<(usize, Step)>) {
    let contenders = routes.iter().enumerate().map(|(index, (attributes, origin, metric, path_id))| {
        Contender { index, attributes, origin: *origin, metric: *metric, path_id: *path_id }
    });
    let mut lost = Vec::new();
    let left = decide(contenders, rules, |index, step| lost.push((index, step)));
    (left.iter().map(|one| one.index).collect(), lost)
}

/// The better of two routes, whichever way round they come, and the step that decided.
fn duel(better: &Route, worse: &Route) -> Step {
    let mut steps = Vec::new();
    for (routes, first) in [([better.clone(), worse.clone()], 0), ([worse.clone(), better.clone()], 1)] {
        let (left, lost) = run(&routes, rules(false));
        assert_eq!(left[0], first, "{routes:?}");
        steps.push(lost.first().map_or_else(
            || {
                let one = |index: usize| {
                    let (attributes, origin, metric, path_id) = &routes[index];
                    Contender { index, attributes, origin: *origin, metric: *metric, path_id: *path_id }
                };
                last_step(&one(left[0]), &one(left[1]))
            },
            |(_, step)| *step,
        ));
    }
    assert_eq!(steps[0], steps[1]);
    steps[0]
}

#[test]
fn each_step_decides_when_all_before_are_equal() {
    let with = |number, change: &dyn Fn(&mut Route)| {
        let mut route = usual(number);
        change(&mut route);
        route
    };
    // In each pair the second would win by every later step.
    let table: Vec<(Step, Route, Route)> = vec![
        (
            Step::LongLivedStale,
            usual(9),
            with(1, &|r| {
                r.0.communities = vec![Community::LLGR_STALE];
                r.0.local_pref = Some(900);
            }),
        ),
        (Step::Own, with(9, &|r| r.1 = Source::Own), with(1, &|r| r.0.local_pref = Some(900))),
        (
            Step::LocalPreference,
            with(9, &|r| r.0.local_pref = Some(101)),
            with(1, &|r| {
                r.0.as_path = AsPath::sequence([Asn(65001)]);
            }),
        ),
        (
            Step::PathLength,
            usual(9),
            with(1, &|r| {
                r.0.as_path = r.0.as_path.prepend(Asn(65001), 1);
                r.0.med = None;
            }),
        ),
        (Step::Origin, usual(9), with(1, &|r| r.0.origin = Origin::Egp)),
        (Step::Origin, with(9, &|r| r.0.origin = Origin::Egp), with(1, &|r| r.0.origin = Origin::Incomplete)),
        (Step::Med, usual(9), with(1, &|r| r.0.med = Some(1))),
        (Step::External, usual(9), with(1, &|r| r.1 = internal(1))),
        (Step::Distance, with(9, &|r| r.2 = 4), with(1, &|r| r.2 = 5)),
        (Step::RouterId, usual(1), usual(2)),
        (Step::RouterId, with(9, &|r| r.0.originator_id = Some(RouterId(1))), usual(2)),
        (
            Step::ClusterList,
            with(1, &|r| {
                r.0.originator_id = Some(RouterId(1));
                r.0.cluster_list = vec![RouterId(7)];
            }),
            with(1, &|r| {
                r.0.originator_id = Some(RouterId(1));
                r.0.cluster_list = vec![RouterId(7), RouterId(8)];
            }),
        ),
        (
            Step::PeerAddress,
            with(1, &|r| r.0.originator_id = Some(RouterId(5))),
            with(2, &|r| {
                r.0.originator_id = Some(RouterId(5));
            }),
        ),
        (Step::PathId, with(1, &|r| r.3 = 1), with(1, &|r| r.3 = 2)),
    ];
    for (step, better, worse) in &table {
        assert_eq!(duel(better, worse), *step, "{better:?} {worse:?}");
    }
}

#[test]
fn a_set_in_a_path_counts_as_one_system() {
    use crate::wire::Segment;
    let mut set = usual(1);
    let systems = (1..9).map(Asn).collect();
    set.0.as_path = AsPath(vec![Segment::Sequence(vec![Asn(65001)]), Segment::Set(systems)]);
    assert_eq!(duel(&set, &usual(2)), Step::RouterId);
}

#[test]
fn med_is_compared_only_within_one_neighbouring_system() {
    let route = |number, neighbour, med| {
        (Attributes { med, ..attributes(&[neighbour, 65009]) }, external(number), 0, 0)
    };
    let routes = [route(3, 65001, Some(10)), route(2, 65001, Some(20)), route(1, 65002, Some(30))];
    // The second goes although nothing but MED speaks against it, and the third stays with the highest.
    assert_eq!(run(&routes, rules(false)), (vec![2, 0], vec![(1, Step::Med)]));
    assert_eq!(run(&routes, rules(true)), (vec![0], vec![(1, Step::Med), (2, Step::Med)]));
}

#[test]
fn a_route_without_med_has_the_lowest() {
    let mut with = usual(1);
    with.0.med = Some(1);
    assert_eq!(duel(&usual(2), &with), Step::Med);
    with.0.med = Some(0);
    assert_eq!(duel(&with, &usual(2)), Step::RouterId);
}

#[test]
fn med_of_routes_from_within_is_compared_by_the_empty_path() {
    let route = |number, med| (Attributes { med, ..attributes(&[]) }, internal(number), 0, 0);
    assert_eq!(duel(&route(2, Some(1)), &route(1, Some(2))), Step::Med);
}

#[test]
fn what_is_left_after_the_distance_is_equal_enough_to_share_packets() {
    let mut shared = [usual(3), usual(1), usual(2)];
    shared[0].0.as_path = AsPath::sequence([Asn(65005), Asn(65006)]);
    assert_eq!(run(&shared, rules(false)), (vec![1, 2, 0], vec![]));
}

#[test]
fn without_a_route_nothing_is_left() {
    assert_eq!(run(&[], rules(false)), (vec![], vec![]));
    assert_eq!(run(&[usual(1)], rules(false)), (vec![0], vec![]));
}

/// The decision as one can write it down without thinking of speed: sort, group by neighbouring system, sort.
fn by_hand(routes: &[Route], always_compare_med: bool) -> Vec<usize> {
    let preference = |(attributes, origin, ..): &Route| {
        let stale = attributes.communities.contains(&Community::LLGR_STALE);
        let own = *origin == Source::Own;
        let less = -i64::from(attributes.local_pref.unwrap_or(100));
        (stale, !own, less, attributes.as_path.len(), attributes.origin)
    };
    let Some(best) = routes.iter().map(preference).min() else { return Vec::new() };
    let mut neighbours: BTreeMap<Asn, Vec<(u32, usize)>> = BTreeMap::new();
    for (number, route) in routes.iter().enumerate().filter(|(_, route)| preference(route) == best) {
        let of = if always_compare_med { Asn(0) } else { route.0.as_path.neighbour(Asn(65000)) };
        neighbours.entry(of).or_default().push((route.0.med.unwrap_or(0), number));
    }
    let lowest = |group: &Vec<(u32, usize)>| group.iter().map(|(med, _)| *med).min().unwrap_or(0);
    let rest: Vec<usize> = neighbours
        .values()
        .flat_map(|group| group.iter().filter(|(med, _)| *med == lowest(group)).map(|(_, number)| *number))
        .collect();
    let far = |number: &usize| {
        let (_, origin, metric, _) = &routes[*number];
        (!matches!(origin, Source::Peer { external: true, .. }), *metric)
    };
    let Some(nearest) = rest.iter().map(far).min() else { return Vec::new() };
    let mut left: Vec<usize> = rest.iter().filter(|number| far(number) == nearest).copied().collect();
    left.sort_by_key(|number| {
        let (attributes, origin, _, path_id) = &routes[*number];
        let (id, address) = match origin {
            Source::Own => (RouterId(0), None),
            Source::Peer { router_id, address, .. } => (*router_id, Some(*address)),
        };
        (attributes.originator_id.unwrap_or(id), attributes.cluster_list.len(), address, *path_id)
    });
    left
}

fn any_route() -> impl Strategy<Value = Route> {
    let path = prop::collection::vec(65001u32..65004, 0..3);
    let parts = (path, 0u8..3, prop::option::of(0u32..3), prop::option::of(99u32..102), 0u8..8, 0usize..2);
    let set = parts.prop_map(|(path, origin, med, local_pref, rare, clusters)| Attributes {
        origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(origin)],
        med,
        local_pref,
        communities: if rare == 0 { vec![Community::LLGR_STALE] } else { Vec::new() },
        originator_id: (rare == 1).then_some(RouterId(2)),
        cluster_list: vec![RouterId(7); clusters],
        ..attributes(&path)
    });
    let source = (0u8..7, 1u8..5).prop_map(|(kind, number)| match kind {
        0 => Source::Own,
        1..4 => external(number),
        _ => internal(number),
    });
    (set, source, 0u32..2, 0u32..3)
}

/// Routes to one prefix: one peer gives a path id only once, and so do we.
fn any_routes() -> impl Strategy<Value = Vec<Route>> {
    prop::collection::vec(any_route(), 0..7).prop_map(|mut routes| {
        let mut seen = BTreeSet::new();
        routes.retain(|(_, source, _, path_id)| {
            let peer = match source {
                Source::Own => None,
                Source::Peer { address, .. } => Some(*address),
            };
            seen.insert((peer, *path_id))
        });
        routes
    })
}

proptest! {
    #[test]
    fn the_decision_is_the_one_by_hand(
        routes in any_routes(), always_compare_med: bool,
    ) {
        let (left, lost) = run(&routes, rules(always_compare_med));
        let hand = by_hand(&routes, always_compare_med);
        prop_assert_eq!(&left, &hand);
        prop_assert_eq!(left.len() + lost.len(), routes.len(), "each is left or lost, once");
    }

    #[test]
    fn the_order_in_which_routes_came_does_not_matter(
        (routes, shuffled) in any_routes()
            .prop_flat_map(|routes| (Just(routes.clone()), Just(routes).prop_shuffle())),
    ) {
        let value = |routes: &[Route]| {
            let (left, _) = run(routes, rules(false));
            left.iter().map(|number| routes[*number].clone()).collect::<Vec<_>>()
        };
        prop_assert_eq!(value(&routes), value(&shuffled));
    }
}
