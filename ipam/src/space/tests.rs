// SPDX-License-Identifier: Apache-2.0

use super::*;

const POLICY: Policy = Policy {
    cool_down: Duration::from_secs(30),
    sticky_for: Duration::from_secs(3600),
    order: Order::LongestFree,
};

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn owner(n: u64) -> Owner {
    Owner { attachment: format!("c{n}/eth0").parse().expect("valid"), pod: None, sticky: false }
}

fn space(remembered: usize, prefix: &str) -> Space {
    let prefix: rhumb_model::Prefix = prefix.parse().expect("valid");
    let mut space = Space::new(prefix.family(), remembered);
    space.set_ranges(&[Range { prefix, reserved: Vec::new() }]);
    space
}

/// Leases and releases an address of a new owner at `second`.
fn churn(space: &mut Space, second: u64) -> IpAddr {
    let pool = PoolName::new("default").expect("valid");
    let now = at(second);
    space.settle(&POLICY, now);
    let addr = space.pick(&pool, &owner(second), None, &POLICY, now).expect("one is free");
    space.hold(addr, owner(second), now);
    space.release(addr, owner(second), now, Released { at: now, number: second });
    addr
}

#[test]
fn memory_follows_what_cools_down_not_what_was_used() {
    let mut space = space(100, "fd00::/64");
    for second in 0..10_000 {
        churn(&mut space, second);
    }
    assert!(space.entries.len() <= 101, "{} entries", space.entries.len());
    let intervals = space.fresh.iter().count() + space.forgotten.iter().count();
    assert!(intervals <= 102, "{intervals} intervals");
}

#[test]
fn addresses_beyond_memory_come_before_those_released_later() {
    let mut space = space(4, "10.0.0.0/28");
    let first_lap: Vec<IpAddr> = (0..14).map(|n| churn(&mut space, n * 100)).collect();
    let second_lap: Vec<IpAddr> = (14..28).map(|n| churn(&mut space, n * 100)).collect();
    assert_eq!(first_lap, second_lap);
}

#[test]
fn lowest_first_keeps_pods_together_once_addresses_have_rested() {
    let policy = Policy { order: Order::Lowest, ..POLICY };
    let pool = PoolName::new("default").expect("valid");
    let mut space = space(4, "10.0.0.0/26");
    let lease = |space: &mut Space, number: u64, second: u64| {
        space.settle(&policy, at(second));
        let addr = space.pick(&pool, &owner(number), None, &policy, at(second)).expect("one is free");
        space.hold(addr, owner(number), at(second));
        addr
    };
    let first: Vec<IpAddr> = (0..40).map(|number| lease(&mut space, number, 0)).collect();
    for number in [3, 30, 20, 2, 10, 35] {
        let released = Released { at: at(1), number };
        space.release(first[usize::try_from(number).expect("few")], owner(number), at(0), released);
    }
    let early = lease(&mut space, 50, 20);
    assert!(first.iter().all(|addr| *addr < early), "{early} is beside them: none has rested");
    let later: Vec<IpAddr> = (51..57).map(|number| lease(&mut space, number, 40)).collect();
    assert_eq!(later, [2, 3, 10, 20, 30, 35].map(|number| first[number]));
}

#[test]
fn what_cools_down_is_remembered_beyond_the_limit() {
    let mut space = space(0, "10.0.0.0/28");
    for n in 0..14 {
        churn(&mut space, n);
    }
    assert_eq!(space.usage(&POLICY, at(14)).cooling, 14);
    space.settle(&POLICY, at(35));
    assert_eq!((space.entries.len(), space.usage(&POLICY, at(35)).free), (8, 6));
}

#[test]
fn a_stray_leaves_no_trace_once_it_is_cool() {
    let mut space = space(100, "10.0.0.0/28");
    let addr = churn(&mut space, 0);
    space.set_ranges(&[Range { prefix: "10.9.0.0/28".parse().expect("valid"), reserved: Vec::new() }]);
    space.settle(&POLICY, at(29));
    assert!(space.get(addr).is_some());
    space.settle(&POLICY, at(30));
    assert!(space.get(addr).is_none());
    assert_eq!(space.usage(&POLICY, at(30)), Usage { ranges: 1, capacity: 14, free: 14, ..Usage::default() });
}

#[test]
fn addresses_of_a_new_range_come_before_forgotten_ones() {
    let mut space = space(0, "10.0.0.0/28");
    let first = churn(&mut space, 0);
    churn(&mut space, 100);
    let range = |prefix: &str| Range { prefix: prefix.parse().expect("valid"), reserved: Vec::new() };
    space.set_ranges(&[range("10.0.0.0/30"), range("10.0.9.0/31")]);
    let got: Vec<String> = (2..5).map(|n| churn(&mut space, n * 100).to_string()).collect();
    assert_eq!(got, ["10.0.9.0", "10.0.9.1", &first.to_string()]);
}
