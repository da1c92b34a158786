// SPDX-License-Identifier: Apache-2.0

use super::*;
use rhumb_model::PodKey;

const COOL: u64 = 30;
const STICKY: u64 = 24 * 60 * 60;

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp(1_000_000_000 + seconds * 1000)
}

pub(super) fn name() -> PoolName {
    PoolName::new("default").expect("valid")
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

pub(super) fn range(prefix: &str) -> Range {
    Range { prefix: prefix.parse().expect("valid"), reserved: Vec::new() }
}

pub(super) fn owner(container: &str) -> Owner {
    Owner { attachment: format!("{container}/eth0").parse().expect("valid"), pod: None, sticky: false }
}

fn pod(container: &str, pod: &str) -> Owner {
    let pod = PodKey { namespace: "default".to_owned(), name: pod.to_owned() };
    Owner { pod: Some(pod), ..owner(container) }
}

fn sticky(container: &str, name: &str) -> Owner {
    Owner { sticky: true, ..pod(container, name) }
}

fn pool(prefixes: &[&str]) -> Pool {
    let mut pool = Pool::new(name(), Policy::default());
    pool.set_ranges(&prefixes.iter().map(|prefix| range(prefix)).collect::<Vec<_>>());
    pool
}

fn lease(pool: &mut Pool, owner: &Owner, second: u64) -> Vec<String> {
    let leases = pool.lease(owner, &Request::default(), at(second)).expect("leased");
    leases.iter().map(|lease| lease.addr.to_string()).collect()
}

fn request(
    pool: &mut Pool,
    owner: &Owner,
    wanted: &[&str],
    second: u64,
) -> Result<Vec<IpAddr>, AllocateError> {
    let request = Request { wanted: wanted.iter().map(|addr| ip(addr)).collect() };
    Ok(pool.lease(owner, &request, at(second))?.into_iter().map(|lease| lease.addr).collect())
}

fn release(pool: &mut Pool, owner: &Owner, second: u64) -> usize {
    pool.release(&owner.attachment, at(second)).len()
}

fn refused(pool: &mut Pool, owner: &Owner, wanted: &[&str], second: u64) -> AllocateError {
    pool.settle(at(second));
    let before = pool.snapshot();
    let error = request(pool, owner, wanted, second).expect_err("refused");
    assert_eq!(pool.snapshot(), before, "a refusal changed the pool");
    error
}

#[test]
fn of_a_family_that_was_named_everybody_gets_an_address_or_nobody_gets_any() {
    let mut pool = pool(&["fd00::/80"]);
    pool.set_families(&Family::BOTH);
    let AllocateError::Exhausted { family, capacity, .. } = refused(&mut pool, &owner("a"), &[], 0) else {
        panic!("there is nothing to lease")
    };
    assert_eq!((family, capacity), (Family::V4, 0));
    pool.set_ranges(&[range("fd00::/80"), range("10.0.0.16/28")]);
    assert_eq!(lease(&mut pool, &owner("a"), 0), ["10.0.0.17", "fd00::1"]);
    pool.set_families(&[]);
    pool.set_ranges(&[range("fd00::/80")]);
    assert_eq!(lease(&mut pool, &owner("b"), 0), ["fd00::2"]);
}

#[test]
fn a_lease_has_one_address_of_every_family_ipv4_first() {
    let mut both = pool(&["fd00::/64", "10.0.0.0/24"]);
    assert_eq!(lease(&mut both, &owner("a"), 0), ["10.0.0.1", "fd00::1"]);
    assert_eq!(lease(&mut pool(&["fd00::/64"]), &owner("a"), 0), ["fd00::1"]);
}

#[test]
fn the_same_attachment_again_gets_the_same_answer() {
    let mut pool = pool(&["10.0.0.0/24", "fd00::/64"]);
    let first = pool.lease(&owner("a"), &Request::default(), at(0)).expect("leased");
    let again = pool.lease(&owner("a"), &Request { wanted: vec![ip("10.0.0.9")] }, at(60)).expect("leased");
    assert_eq!(first, again);
    assert_eq!(first, pool.leases_of(&owner("a").attachment));
}

#[test]
fn a_family_that_ran_out_leaves_the_other_untouched() {
    let mut pool = pool(&["10.0.0.0/24", "fd00::/128"]);
    lease(&mut pool, &owner("a"), 0);
    let error = refused(&mut pool, &owner("b"), &[], 0);
    assert!(matches!(error, AllocateError::Exhausted { family: Family::V6, capacity: 1, .. }), "{error:?}");
}

#[test]
fn a_pool_of_a_29_leases_six_addresses_and_neither_end() {
    let mut pool = pool(&["10.0.0.8/29"]);
    let got: Vec<String> = (0..6).flat_map(|n| lease(&mut pool, &owner(&format!("c{n}")), 0)).collect();
    assert_eq!(got, ["10.0.0.9", "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"]);
    let error = refused(&mut pool, &owner("late"), &[], 0);
    assert_eq!(error.to_string(), "lease an ipv4 address from pool default: none of its 6 is free");
    assert!(error.is_retryable());
    for end in ["10.0.0.8", "10.0.0.15"] {
        let error = refused(&mut pool, &owner("late"), &[end], 0);
        assert!(matches!(error, AllocateError::Reserved { .. }), "{error:?}");
    }
}

#[test]
fn exhaustion_says_when_the_next_address_is_free() {
    let mut pool = pool(&["10.0.0.0/31"]);
    lease(&mut pool, &owner("a"), 0);
    lease(&mut pool, &owner("b"), 0);
    release(&mut pool, &owner("b"), 5);
    release(&mut pool, &owner("a"), 7);
    let error = refused(&mut pool, &owner("c"), &[], 10);
    assert_eq!(
        error.to_string(),
        "lease an ipv4 address from pool default: none of its 2 is free; free in 25.0 s"
    );
    assert_eq!(lease(&mut pool, &owner("c"), 35), ["10.0.0.1"]);
}

#[test]
fn released_address_is_not_reused_within_its_cool_down() {
    let mut pool = pool(&["10.0.0.0/32"]);
    lease(&mut pool, &pod("a", "x"), 0);
    assert_eq!(release(&mut pool, &owner("a"), 10), 1);
    for wanted in [&[][..], &["10.0.0.0"]] {
        assert!(refused(&mut pool, &pod("b", "y"), wanted, 10 + COOL - 1).is_retryable());
    }
    assert_eq!(lease(&mut pool, &pod("b", "y"), 10 + COOL), ["10.0.0.0"]);
}

#[test]
fn the_last_owner_may_have_its_address_back_within_the_cool_down() {
    let mut pool = pool(&["10.0.0.0/24"]);
    lease(&mut pool, &pod("a", "x"), 0);
    release(&mut pool, &owner("a"), 1);
    assert_eq!(request(&mut pool, &pod("b", "x"), &["10.0.0.1"], 2), Ok(vec![ip("10.0.0.1")]));
    release(&mut pool, &owner("b"), 3);
    assert_eq!(request(&mut pool, &owner("b"), &["10.0.0.1"], 4), Ok(vec![ip("10.0.0.1")]));
}

#[test]
fn the_address_that_was_unused_for_longest_comes_first() {
    let mut pool = pool(&["10.0.0.0/29"]);
    for n in ["a", "b", "c"] {
        lease(&mut pool, &owner(n), 0);
    }
    release(&mut pool, &owner("c"), 1);
    release(&mut pool, &owner("a"), 2);
    release(&mut pool, &owner("b"), 3);
    let got: Vec<String> = (0..6).flat_map(|n| lease(&mut pool, &owner(&format!("n{n}")), 100)).collect();
    assert_eq!(got, ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.1", "10.0.0.2"]);
}

#[test]
fn release_of_nothing_is_success() {
    assert_eq!(release(&mut pool(&["10.0.0.0/24"]), &owner("a"), 0), 0);
}

#[test]
fn refusals_of_a_wanted_address_say_why() {
    let mut pool = pool(&["10.0.0.0/24"]);
    lease(&mut pool, &pod("a", "x"), 0);
    let mut why = |wanted: &[&str]| refused(&mut pool, &owner("b"), wanted, 1).to_string();
    assert_eq!(why(&["10.0.0.1"]), "lease 10.0.0.1 from pool default: a/eth0 has it");
    assert_eq!(why(&["10.1.0.1"]), "lease 10.1.0.1 from pool default: it is in no range of this node");
    assert_eq!(why(&["fd00::1"]), "lease fd00::1 from pool default: it is in no range of this node");
    assert_eq!(why(&["10.0.0.255"]), "lease 10.0.0.255 from pool default: it is reserved");
    assert_eq!(
        why(&["10.0.0.2", "10.0.0.3"]),
        "lease 10.0.0.2 and 10.0.0.3 from pool default: an interface gets one address of a family"
    );
    release(&mut pool, &owner("a"), 2);
    let error = refused(&mut pool, &owner("b"), &["10.0.0.1"], 12).to_string();
    assert_eq!(error, "lease 10.0.0.1 from pool default: it cools down; free in 20.0 s");
}

#[test]
fn a_wanted_address_is_leased_and_its_family_only() {
    let mut pool = pool(&["10.0.0.0/24", "fd00::/64"]);
    let got = request(&mut pool, &owner("a"), &["fd00::77"], 0);
    assert_eq!(got, Ok(vec![ip("10.0.0.1"), ip("fd00::77")]));
    let got = request(&mut pool, &owner("b"), &["10.0.0.2", "10.0.0.2"], 0);
    assert_eq!(got, Ok(vec![ip("10.0.0.2"), ip("fd00::1")]));
    assert_eq!(lease(&mut pool, &owner("c"), 0), ["10.0.0.3", "fd00::2"]);
}

#[test]
fn a_pool_without_ranges_says_so() {
    let error = refused(&mut pool(&[]), &owner("a"), &["10.0.0.1"], 0);
    assert_eq!(error.to_string(), "lease an address from pool default: the node has no range of it");
    assert!(error.is_retryable());
}

#[test]
fn a_sticky_pod_gets_its_address_back_at_once_and_after_a_day() {
    let mut pool = pool(&["10.0.0.0/24", "fd00::/64"]);
    let first = lease(&mut pool, &sticky("a", "db-0"), 0);
    release(&mut pool, &owner("a"), 10);
    assert_eq!(lease(&mut pool, &sticky("b", "db-0"), 10), first);
    release(&mut pool, &owner("b"), 20);
    assert_eq!(lease(&mut pool, &sticky("c", "db-0"), 20 + STICKY - 1), first);
    release(&mut pool, &owner("c"), 20 + STICKY);
    assert_ne!(lease(&mut pool, &sticky("d", "db-0"), 20 + 2 * STICKY), first);
}

#[test]
fn a_kept_address_is_for_its_pod_only_while_others_are_free() {
    let mut pool = pool(&["10.0.0.0/30"]);
    lease(&mut pool, &sticky("a", "db-0"), 0);
    lease(&mut pool, &owner("b"), 0);
    release(&mut pool, &owner("a"), 1);
    release(&mut pool, &owner("b"), 60);
    let error = refused(&mut pool, &owner("c"), &["10.0.0.1"], 100);
    assert!(matches!(&error, AllocateError::Kept { pod, .. } if pod.name == "db-0"), "{error:?}");
    assert_eq!(lease(&mut pool, &owner("c"), 100), ["10.0.0.2"]);
    assert_eq!(lease(&mut pool, &owner("d"), 100), ["10.0.0.1"]);
    refused(&mut pool, &sticky("e", "db-0"), &[], 100);
}

#[test]
fn of_kept_addresses_the_one_that_waits_longest_is_given_away_first_but_cool() {
    let mut pool = pool(&["10.0.0.0/30"]);
    lease(&mut pool, &sticky("a", "db-0"), 0);
    lease(&mut pool, &sticky("b", "db-1"), 0);
    release(&mut pool, &owner("b"), 1);
    release(&mut pool, &owner("a"), 2);
    let error = refused(&mut pool, &owner("c"), &[], 3);
    let next = Some(Duration::from_secs(28));
    assert!(
        matches!(error, AllocateError::Exhausted { next_free_in, .. } if next_free_in == next),
        "{error}"
    );
    assert_eq!(lease(&mut pool, &owner("c"), 31), ["10.0.0.2"]);
    assert_eq!(lease(&mut pool, &sticky("d", "db-0"), 31), ["10.0.0.1"]);
}

#[test]
fn every_interface_of_a_sticky_pod_gets_its_own_address_back() {
    let mut pool = pool(&["10.0.0.0/24"]);
    let second = |container: &str| Owner {
        attachment: format!("{container}/net1").parse().expect("valid"),
        ..sticky(container, "db-0")
    };
    lease(&mut pool, &sticky("a", "db-0"), 0);
    lease(&mut pool, &second("a"), 0);
    release(&mut pool, &owner("a"), 1);
    release(&mut pool, &second("a"), 1);
    assert_eq!(lease(&mut pool, &second("b"), 2), ["10.0.0.2"]);
    assert_eq!(lease(&mut pool, &sticky("b", "db-0"), 2), ["10.0.0.1"]);
}

#[test]
fn only_the_latest_address_of_a_sticky_pod_is_kept() {
    let mut pool = pool(&["10.0.0.0/24"]);
    lease(&mut pool, &sticky("a", "db-0"), 0);
    lease(&mut pool, &sticky("b", "db-0"), 0);
    release(&mut pool, &owner("a"), 1);
    release(&mut pool, &owner("b"), 2);
    let usage = pool.usage(Family::V4, at(3));
    assert_eq!((usage.kept, usage.cooling), (1, 1));
    assert_eq!(lease(&mut pool, &sticky("c", "db-0"), 3), ["10.0.0.2"]);
    assert_eq!(pool.usage(Family::V4, at(3)).kept, 0);
}

#[test]
fn addresses_outside_of_every_range_drain() {
    let mut pool = pool(&["10.0.0.0/24"]);
    lease(&mut pool, &owner("a"), 0);
    pool.set_ranges(&[range("10.0.1.0/24")]);
    assert_eq!(lease(&mut pool, &owner("a"), 1), ["10.0.0.1"]);
    let usage = pool.usage(Family::V4, at(1));
    assert_eq!((usage.held, usage.draining, usage.free, usage.capacity), (0, 1, 254, 254));
    release(&mut pool, &owner("a"), 2);
    assert_eq!(lease(&mut pool, &owner("b"), 3), ["10.0.1.1"]);
    assert_eq!(pool.usage(Family::V4, at(3)).draining, 0);
}

#[test]
fn a_range_that_returns_still_knows_what_cools_down() {
    let mut pool = pool(&["10.0.0.0/31"]);
    lease(&mut pool, &owner("a"), 0);
    release(&mut pool, &owner("a"), 10);
    pool.set_ranges(&[range("10.0.1.0/31")]);
    pool.set_ranges(&[range("10.0.0.0/31")]);
    assert_eq!(lease(&mut pool, &owner("b"), 11), ["10.0.0.1"]);
    refused(&mut pool, &owner("c"), &[], 11);
    assert_eq!(lease(&mut pool, &owner("c"), 40), ["10.0.0.0"]);
}

#[test]
fn leases_and_cool_downs_are_restored_before_the_ranges_are_known() {
    let mut live = pool(&["10.0.0.0/30"]);
    live.lease(&owner("a"), &Request::default(), at(0)).expect("leased");
    lease(&mut live, &owner("b"), 0);
    release(&mut live, &owner("b"), 5);
    let mut restored = Pool::new(name(), Policy::default());
    for record in live.snapshot() {
        restored.replay(record).expect("consistent");
    }
    assert_eq!(release(&mut restored, &owner("nobody"), 100), 0);
    restored.set_ranges(&[range("10.0.0.0/30")]);
    assert_eq!(lease(&mut restored, &owner("a"), 6), ["10.0.0.1"]);
    refused(&mut restored, &owner("c"), &[], 34);
    assert_eq!(lease(&mut restored, &owner("c"), 35), ["10.0.0.2"]);
}

#[test]
fn a_double_lease_is_not_restored() {
    let lease =
        |container: &str| Lease { addr: ip("10.0.0.1"), pool: name(), owner: owner(container), since: at(0) };
    let mut pool = pool(&["10.0.0.0/24"]);
    assert_eq!(pool.restore(lease("a")), Ok(()));
    assert_eq!(pool.restore(lease("a")), Ok(()));
    let error = pool.restore(lease("b")).expect_err("refused");
    assert_eq!(error.to_string(), "restore the lease of 10.0.0.1 to b/eth0: a/eth0 has it");
    pool.restore_released(lease("b"), at(0));
    assert_eq!(release(&mut pool, &owner("a"), 1), 1);
    let other = Lease { pool: PoolName::new("other").expect("valid"), ..lease("a") };
    assert!(matches!(pool.restore(other), Err(RestoreError::OtherPool { .. })));
}

#[test]
fn a_clock_that_goes_back_prolongs_no_wait_beyond_one_cool_down() {
    let mut pool = pool(&["10.0.0.0/31"]);
    lease(&mut pool, &owner("a"), 1_000_000);
    lease(&mut pool, &owner("b"), 1_000_000);
    release(&mut pool, &owner("b"), 1_000_000);
    release(&mut pool, &owner("a"), 1_000_001);
    let error = refused(&mut pool, &owner("c"), &[], 0);
    let next = Some(Duration::from_secs(COOL));
    assert!(
        matches!(error, AllocateError::Exhausted { next_free_in, .. } if next_free_in == next),
        "{error}"
    );
    assert_eq!(lease(&mut pool, &owner("c"), COOL), ["10.0.0.1"]);
    assert_eq!(lease(&mut pool, &owner("d"), COOL), ["10.0.0.0"]);
}

#[test]
fn a_release_in_the_future_cools_down_from_now_on() {
    let mut pool = pool(&["10.0.0.0/32"]);
    let lease_of_a = Lease { addr: ip("10.0.0.0"), pool: name(), owner: owner("a"), since: at(0) };
    pool.restore_released(lease_of_a, at(1_000_000));
    refused(&mut pool, &owner("b"), &[], 0);
    refused(&mut pool, &owner("b"), &[], COOL - 1);
    assert_eq!(lease(&mut pool, &owner("b"), COOL), ["10.0.0.0"]);
}

#[test]
fn entries_tell_the_state_of_what_is_not_free() {
    let mut pool = pool(&["10.0.0.0/24"]);
    for o in [owner("a"), owner("b"), sticky("c", "db-0")] {
        lease(&mut pool, &o, 0);
    }
    release(&mut pool, &owner("b"), 1);
    release(&mut pool, &owner("c"), 2);
    let states = |pool: &Pool, second| -> Vec<State> {
        pool.entries(at(second)).map(|(_, state, ..)| state).collect()
    };
    let (cool, kept) = (State::Cooling { until: at(31) }, State::Kept { until: at(2 + STICKY) });
    assert_eq!(states(&pool, 30), [State::Held, cool, kept]);
    assert_eq!(states(&pool, 31), [State::Held, kept]);
    assert_eq!(states(&pool, 2 + STICKY), [State::Held]);
    let since: Vec<Timestamp> = pool.entries(at(30)).map(|(.., since)| since).collect();
    assert_eq!(since, [at(0), at(1), at(2)]);
}

#[test]
fn a_large_range_leases_its_last_addresses_too() {
    let mut pool = pool(&["fd00::/64"]);
    let last = "fd00::ffff:ffff:ffff:fffe";
    assert_eq!(request(&mut pool, &owner("a"), &[last], 0), Ok(vec![ip(last)]));
    assert_eq!(lease(&mut pool, &owner("b"), 0), ["fd00::1"]);
    assert_eq!(pool.usage(Family::V6, at(0)).free, u64::MAX - 3);
}

#[test]
fn records_have_a_form_that_stays() {
    let lease = Lease { addr: ip("fd00::1"), pool: name(), owner: sticky("a", "db-0"), since: at(0) };
    let json = serde_json::to_string(&Record::Released { lease, released: at(1) }).expect("serializable");
    let owner = concat!(
        r#"{"attachment":{"container":"a","ifname":"eth0"},"#,
        r#""pod":{"namespace":"default","name":"db-0"},"sticky":true}"#
    );
    assert_eq!(
        json,
        format!(
            r#"{{"record":"released","lease":{{"addr":"fd00::1","pool":"default","owner":{owner},"since":1000000000}},"released":1000001000}}"#
        )
    );
}
