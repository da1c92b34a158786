// SPDX-License-Identifier: Apache-2.0

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const POLICY: CarvePolicy = CarvePolicy { grace: Duration::from_secs(300), min_free: 8 };

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn p(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn named(name: &str) -> NodeName {
    NodeName::new(name).expect("valid")
}

fn pool_name(name: &str) -> PoolName {
    PoolName::new(name).expect("valid")
}

fn pool(name: &str, blocks: &[(&str, u8)]) -> ClusterPool {
    let blocks = blocks.iter().map(|&(cidr, node_len)| Block { cidr: p(cidr), node_len }).collect();
    ClusterPool { name: pool_name(name), blocks }
}

fn node(assigned: &[&str]) -> NodeInput {
    let assigned = assigned.iter().map(|prefix| (pool_name("default"), p(prefix))).collect();
    NodeInput { assigned, ..NodeInput::default() }
}

fn reporting(mut node: NodeInput, ranges: u32, in_use: u32, free: u32) -> NodeInput {
    node.demand.push(NodeUse { pool: pool_name("default"), family: Family::V4, ranges, in_use, free });
    node
}

fn gone(node: NodeInput, second: u64) -> NodeInput {
    NodeInput { gone_since: Some(at(second)), ..node }
}

type Nodes = BTreeMap<NodeName, NodeInput>;

fn nodes(all: &[(&str, NodeInput)]) -> Nodes {
    all.iter().map(|(name, node)| (named(name), node.clone())).collect()
}

fn run(pools: &[ClusterPool], all: &[(&str, NodeInput)]) -> Carving {
    carve(pools, &nodes(all), &POLICY, at(1000))
}

fn text(changes: &[(NodeName, PoolName, Prefix)]) -> Vec<String> {
    changes.iter().map(|(node, pool, prefix)| format!("{node} {pool} {prefix}")).collect()
}

fn problems(carving: &Carving) -> Vec<String> {
    carving.problems.iter().map(ToString::to_string).collect()
}

fn apply(nodes: &mut Nodes, carving: &Carving) {
    for (node, pool, prefix) in &carving.release {
        let node = nodes.get_mut(node).expect("known");
        node.assigned.retain(|held| *held != (pool.clone(), *prefix));
        node.demand.clear();
    }
    for (node, pool, prefix) in &carving.assign {
        nodes.get_mut(node).expect("known").assigned.push((pool.clone(), *prefix));
    }
}

#[test]
fn every_node_gets_one_cidr_of_every_pool_and_family() {
    let pools =
        [pool("default", &[("10.0.0.0/16", 24), ("fd00::/48", 64)]), pool("special", &[("10.9.0.0/24", 28)])];
    let carving = run(&pools, &[("a", node(&[])), ("b", node(&["10.0.0.0/24"]))]);
    assert_eq!(
        text(&carving.assign),
        [
            "a default 10.0.1.0/24",
            "a default fd00::/64",
            "b default fd00:0:0:1::/64",
            "a special 10.9.0.0/28",
            "b special 10.9.0.16/28",
        ]
    );
    assert_eq!((carving.release, carving.problems, carving.wake_at), (vec![], vec![], None));
}

#[test]
fn a_node_that_runs_short_gets_another() {
    let pools = [pool("default", &[("10.0.0.0/16", 24)])];
    let one = || node(&["10.0.0.0/24"]);
    let carve_for = |node| text(&run(&pools, &[("a", node)]).assign);
    assert_eq!(carve_for(reporting(one(), 1, 247, 7)), ["a default 10.0.1.0/24"]);
    assert_eq!(carve_for(reporting(one(), 1, 246, 8)), [""; 0]);
    assert_eq!(carve_for(one()), [""; 0]);
    assert_eq!(carve_for(reporting(one(), 0, 247, 7)), [""; 0], "the report is older than the assignment");
    assert_eq!(carve_for(gone(reporting(one(), 1, 247, 7), 999)), [""; 0]);
}

#[test]
fn an_idle_node_of_small_cidrs_does_not_grow() {
    let pools = [pool("default", &[("10.0.0.0/16", 30)])];
    let carve_for = |node| run(&pools, &[("a", node)]).assign.len();
    assert_eq!(carve_for(reporting(node(&["10.0.0.0/30"]), 1, 0, 2)), 0);
    assert_eq!(carve_for(reporting(node(&["10.0.0.0/30"]), 1, 1, 1)), 1);
    assert_eq!(carve_for(reporting(node(&["10.0.0.0/30"]), 1, 0, 0)), 1);
}

#[test]
fn nodes_without_any_come_before_nodes_that_grow() {
    let pools = [pool("default", &[("10.0.0.0/23", 24)])];
    let short = reporting(node(&["10.0.0.0/24"]), 1, 254, 0);
    let carving = run(&pools, &[("a", short), ("b", node(&[])), ("c", node(&[]))]);
    assert_eq!(text(&carving.assign), ["b default 10.0.1.0/24"]);
    assert_eq!(problems(&carving), ["pool default: no ipv4 CIDR is left; 1 nodes have none, 1 want another"]);
}

#[test]
fn the_next_block_serves_when_the_first_is_used_up() {
    let pools = [pool("default", &[("10.0.0.0/24", 24), ("10.9.0.0/16", 26)])];
    let carving = run(&pools, &[("a", node(&[])), ("b", node(&[])), ("c", node(&[]))]);
    assert_eq!(
        text(&carving.assign),
        ["a default 10.0.0.0/24", "b default 10.9.0.0/26", "c default 10.9.0.64/26"]
    );
}

#[test]
fn a_gone_node_keeps_its_cidrs_for_the_grace_period() {
    let pools = [pool("default", &[("10.0.0.0/24", 24)])];
    let all = |since| [("a", gone(node(&["10.0.0.0/24"]), since)), ("b", node(&[]))];
    let carving = run(&pools, &all(701));
    assert_eq!((text(&carving.release), carving.wake_at), (vec![], Some(at(1001))));
    assert_eq!((carving.assign.len(), carving.problems.len()), (0, 1));

    let mut nodes = nodes(&all(700));
    let carving = carve(&pools, &nodes, &POLICY, at(1000));
    assert_eq!((text(&carving.release), carving.wake_at), (vec!["a default 10.0.0.0/24".to_owned()], None));
    assert_eq!(carving.assign, [], "nobody gets a CIDR in the call that releases it");
    apply(&mut nodes, &carving);
    assert_eq!(text(&carve(&pools, &nodes, &POLICY, at(1000)).assign), ["b default 10.0.0.0/24"]);
}

#[test]
fn the_earliest_grace_period_wakes() {
    let all = [
        ("a", gone(node(&["10.0.0.0/24"]), 950)),
        ("b", gone(node(&["10.0.1.0/24"]), 900)),
        ("c", gone(node(&[]), 800)),
    ];
    assert_eq!(run(&[], &all).wake_at, Some(at(1200)));
}

#[test]
fn cidrs_of_other_lengths_and_former_pools_are_not_overlapped() {
    let pools = [pool("default", &[("10.0.0.0/16", 24)])];
    let all = [
        ("a", node(&["10.0.0.128/25", "10.0.1.0/30"])),
        ("b", node(&[])),
        ("c", NodeInput { assigned: vec![(pool_name("old"), p("10.0.2.0/23"))], ..NodeInput::default() }),
    ];
    let carving = run(&pools, &all);
    assert_eq!(text(&carving.assign), ["b default 10.0.4.0/24", "c default 10.0.5.0/24"]);
    assert_eq!(problems(&carving), ["node c: 10.0.2.0/23 is in no block of pool old"]);
}

#[test]
fn a_cidr_that_its_pool_has_no_longer_is_replaced_and_stays() {
    let pools = [pool("default", &[("10.1.0.0/16", 24)])];
    let carving = run(&pools, &[("a", node(&["10.0.0.0/24"]))]);
    assert_eq!((text(&carving.assign), carving.release.len()), (vec!["a default 10.1.0.0/24".to_owned()], 0));
    assert_eq!(problems(&carving), ["node a: 10.0.0.0/24 is in no block of pool default"]);
}

#[test]
fn overlapping_assignments_are_told_and_left() {
    let pools = [pool("default", &[("10.0.0.0/16", 24)])];
    let all = [("a", node(&["10.0.0.0/24", "10.0.1.0/24"])), ("b", node(&["10.0.1.0/24"]))];
    let carving = run(&pools, &all);
    assert_eq!((carving.assign.len(), carving.release.len()), (0, 0));
    assert_eq!(problems(&carving), ["node b: 10.0.1.0/24 overlaps 10.0.1.0/24 of node a"]);
}

#[test]
fn a_bad_block_does_not_stop_the_others() {
    let pools = [
        pool("default", &[("10.0.0.0/24", 16), ("10.1.0.0/16", 24)]),
        pool("second", &[("10.1.0.0/17", 24)]),
    ];
    let carving = run(&pools, &[("a", node(&[]))]);
    assert_eq!(text(&carving.assign), ["a default 10.1.0.0/24", "a second 10.1.1.0/24"]);
    assert_eq!(
        problems(&carving),
        [
            "pool default, blocks[0].nodeLen: 16 is shorter than the length of the block, 10.0.0.0/24",
            "pool second: 10.1.0.0/17 overlaps 10.1.0.0/16 of pool default",
        ]
    );
}

#[test]
fn the_last_block_of_a_family_ends_without_overflow() {
    let pools = [pool("default", &[("223.255.255.254/31", 32), ("fdff:ffff::/127", 128)])];
    let carving = run(&pools, &[("a", node(&[])), ("b", node(&[])), ("c", node(&[]))]);
    assert_eq!((carving.assign.len(), carving.problems.len()), (4, 2));
}

#[test]
fn five_thousand_nodes_are_served_out_of_one_block() {
    let pools = [pool("default", &[("10.0.0.0/8", 24), ("fd00::/40", 64)])];
    let mut nodes: Nodes = (0..5000).map(|n| (named(&format!("node-{n}")), NodeInput::default())).collect();
    // Every other CIDR of the first half is taken already.
    for (n, node) in nodes.values_mut().enumerate().filter(|(n, _)| n % 2 == 0) {
        let (high, low) = (n / 256, n % 256);
        node.assigned = vec![(pool_name("default"), p(&format!("10.{high}.{low}.0/24")))];
    }
    let carving = carve(&pools, &nodes, &POLICY, at(0));
    assert_eq!((carving.assign.len(), carving.problems.len()), (7500, 0));
    apply(&mut nodes, &carving);
    assert_eq!(carve(&pools, &nodes, &POLICY, at(0)), Carving::default());
    assert_eq!(overlaps(&nodes), 0);
}

#[test]
fn a_cursor_steps_over_what_is_taken_at_once() {
    let mut taken = Intervals::default();
    let (first, last) = ends(p("fd00::/48"));
    taken.insert(first, last - 1);
    let mut cursor = Cursor::new(Block { cidr: p("fd00::/48"), node_len: 128 });
    assert_eq!(cursor.next(&mut taken), Some(p("fd00:0:0:ffff:ffff:ffff:ffff:ffff/128")));
    assert_eq!(cursor.next(&mut taken), None);
}

/// How many pairs of assigned CIDRs share an address, found the slow way.
fn overlaps(nodes: &Nodes) -> usize {
    let mut all: Vec<Prefix> = nodes.values().flat_map(|n| &n.assigned).map(|(_, prefix)| *prefix).collect();
    all.sort();
    // Sorted prefixes that overlap have one that overlaps its neighbour.
    all.windows(2).filter(|pair| pair[0].overlaps(pair[1])).count()
}

#[derive(Debug, Clone)]
enum Event {
    Join(u8),
    Leave(u8),
    Forget(u8),
    Report { node: u8, in_use: u32, free: u32 },
    Wait(u64),
    Pools(Vec<ClusterPool>),
}

fn any_pools() -> impl Strategy<Value = Vec<ClusterPool>> {
    let block = (0u8..6, 24u8..29, 0u8..4, any::<bool>()).prop_map(|(third, len, extra, v6)| {
        let (addr, len) = if v6 {
            (format!("fd00::{third}:0").parse().expect("valid"), 88 + len)
        } else {
            (format!("10.0.{third}.64").parse().expect("valid"), len)
        };
        Block { cidr: Prefix::containing(addr, len), node_len: len + extra }
    });
    let pool = vec(block, 0..4);
    vec(pool, 0..3).prop_map(|pools| {
        let names = ["default", "second", "third"].map(pool_name);
        names.into_iter().zip(pools).map(|(name, blocks)| ClusterPool { name, blocks }).collect()
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u8..12).prop_map(Event::Join),
        2 => (0u8..12).prop_map(Event::Leave),
        1 => (0u8..12).prop_map(Event::Forget),
        4 => (0u8..12, 0u32..4, 0u32..12)
            .prop_map(|(node, in_use, free)| Event::Report { node, in_use, free }),
        2 => (0u64..400).prop_map(Event::Wait),
        1 => any_pools().prop_map(Event::Pools),
    ]
}

fn happen(event: Event, nodes: &mut Nodes, pools: &mut Vec<ClusterPool>, now: &mut Timestamp) {
    let name = |n: u8| named(&format!("n{n}"));
    match event {
        Event::Join(n) => nodes.entry(name(n)).or_default().gone_since = None,
        Event::Leave(n) => {
            if let Some(node) = nodes.get_mut(&name(n)) {
                node.gone_since.get_or_insert(*now);
            }
        }
        // The operator forgets a gone node once it has nothing.
        Event::Forget(n) => {
            if nodes.get(&name(n)).is_some_and(|n| n.gone_since.is_some() && n.assigned.is_empty()) {
                nodes.remove(&name(n));
            }
        }
        Event::Report { node, in_use, free } => {
            let Some(node) = nodes.get_mut(&name(node)) else { return };
            node.demand.clear();
            for pool in pools.iter() {
                for family in Family::BOTH {
                    let mine = |(name, prefix): &&(PoolName, Prefix)| {
                        *name == pool.name && prefix.family() == family
                    };
                    let ranges = u32::try_from(node.assigned.iter().filter(mine).count()).expect("few");
                    let pool = pool.name.clone();
                    node.demand.push(NodeUse { pool, family, ranges, in_use, free });
                }
            }
        }
        Event::Wait(seconds) => *now = now.after(Duration::from_secs(seconds)),
        Event::Pools(new) => *pools = new,
    }
}

/// What must hold of every carving.
fn check(
    pools: &[ClusterPool],
    nodes: &Nodes,
    carving: &Carving,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    for (name, pool, prefix) in &carving.assign {
        prop_assert!(nodes[name].gone_since.is_none());
        let pool = pools.iter().find(|other| other.name == *pool).expect("a pool of the cluster");
        let fits = |block: &Block| block.cidr.covers(*prefix) && block.node_len == prefix.len();
        prop_assert!(pool.blocks.iter().any(fits), "{prefix} of {pool:?}");
        let same = |(other, name_of_pool, other_prefix): &&(NodeName, PoolName, Prefix)| {
            other == name && *name_of_pool == pool.name && other_prefix.family() == prefix.family()
        };
        prop_assert_eq!(carving.assign.iter().filter(same).count(), 1, "more than one at a time");
    }
    for (name, _, _) in &carving.release {
        prop_assert!(nodes[name].gone_since.is_some_and(|since| since.after(POLICY.grace) <= now));
    }
    for (name, node) in nodes.iter().filter(|(_, node)| node.gone_since.is_none()) {
        for pool in pools {
            for index in (0..pool.blocks.len()).filter(|index| pool.problem(*index).is_none()) {
                let family = pool.blocks[index].cidr.family();
                let served = pool.serves(node, family);
                let given = carving
                    .assign
                    .iter()
                    .any(|(n, p, prefix)| n == name && *p == pool.name && prefix.family() == family);
                let told = carving.problems.iter().any(|problem| {
                    matches!(problem, Problem::Exhausted { pool: p, family: f, without, .. }
                        if *p == pool.name && *f == family && without.contains(name))
                });
                prop_assert!(served || given || told, "{} has nothing of {}", name, pool.name);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_ever_overlaps_and_everything_is_of_its_pool(
        mut pools in any_pools(),
        events in vec(any_event(), 0..60),
    ) {
        let mut nodes = Nodes::new();
        let mut now = at(1000);
        for event in events {
            happen(event, &mut nodes, &mut pools, &mut now);
            let carving = carve(&pools, &nodes, &POLICY, now);
            check(&pools, &nodes, &carving, now)?;
            apply(&mut nodes, &carving);
            prop_assert_eq!(overlaps(&nodes), 0);
            let again = carve(&pools, &nodes, &POLICY, now);
            prop_assert!(again.release.is_empty());
            if carving.release.is_empty() {
                prop_assert!(again.assign.is_empty(), "{again:?}");
            }
        }
    }
}
