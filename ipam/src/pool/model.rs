// SPDX-License-Identifier: Apache-2.0
//! The pool against a model that is slow and plainly right.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use rhumb_model::PodKey;

use super::tests::{name, range};
use super::*;

const POLICY: Policy = Policy {
    cool_down: Duration::from_secs(30),
    sticky_for: Duration::from_secs(200),
    order: Order::LongestFree,
};

/// Eight containers of four pods; the pods 0 and 1 are sticky.
fn owner(container: u8) -> Owner {
    let pod = container % 4;
    Owner {
        attachment: format!("c{container}/eth0").parse().expect("valid"),
        pod: Some(PodKey { namespace: "default".to_owned(), name: format!("p{pod}") }),
        sticky: pod < 2,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Lease(u8),
    Want(u8, Vec<IpAddr>),
    Release(u8),
    Wait(u64),
    Back(u64),
    Ranges(Vec<Range>),
}

fn any_ranges() -> impl Strategy<Value = Vec<Range>> {
    let one = prop_oneof![
        Just(range("10.0.0.0/30")),
        Just(range("10.0.0.0/29")),
        Just(range("10.0.0.8/31")),
        Just(Range { reserved: vec!["10.0.0.3/32".parse().expect("valid")], ..range("10.0.0.0/29") }),
        Just(range("fd00::/126")),
        Just(range("fd00::/125")),
        Just(range("fd00::8/127")),
    ];
    vec(one, 0..4)
}

fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..16).prop_map(|n| IpAddr::from([10, 0, 0, n])),
        (0u16..16).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..8).prop_map(Step::Lease),
        3 => (0u8..8, vec(any_addr(), 1..3)).prop_map(|(o, wanted)| Step::Want(o, wanted)),
        6 => (0u8..8).prop_map(Step::Release),
        4 => (0u64..70).prop_map(Step::Wait),
        1 => (0u64..300).prop_map(Step::Wait),
        1 => any_ranges().prop_map(Step::Ranges),
    ]
}

fn any_step_of_a_bad_clock() -> impl Strategy<Value = Step> {
    prop_oneof![9 => any_step(), 1 => (1u64..400).prop_map(Step::Back)]
}

/// What the model knows of an address that was ever leased.
#[derive(Debug, Clone)]
struct Known {
    owner: Owner,
    released: Option<(Timestamp, usize)>,
    /// Whether it waits for its pod, until the time is over or a newer one waits instead.
    kept: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    ranges: Vec<Range>,
    known: BTreeMap<IpAddr, Known>,
    releases: usize,
}

impl Model {
    fn usable(&self, family: Family) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = Vec::new();
        let mine = || self.ranges.iter().filter(|range| range.prefix.family() == family);
        for range in mine() {
            all.extend((0..range.prefix.size()).filter_map(|n| range.prefix.nth(n)));
        }
        all.retain(|&addr| {
            !mine().any(|range| {
                let edge =
                    range.prefix.size() > 2 && [range.prefix.addr(), range.prefix.last()].contains(&addr);
                edge || range.reserved.iter().any(|reserved| reserved.contains(addr))
            })
        });
        all.sort();
        all.dedup();
        all
    }

    fn held_by(&self, owner: &Owner) -> Vec<IpAddr> {
        let held = |known: &Known| known.released.is_none() && known.owner.attachment == owner.attachment;
        self.known.iter().filter(|(_, known)| held(known)).map(|(addr, _)| *addr).collect()
    }

    fn is_kept(known: &Known, now: Timestamp) -> bool {
        known.kept && known.released.is_some_and(|(at, _)| now < at.after(POLICY.sticky_for))
    }

    fn is_cool(known: &Known, now: Timestamp) -> bool {
        known.released.is_some_and(|(at, _)| at.after(POLICY.cool_down) <= now)
    }

    /// What the pool is to answer; `None` for a refusal.
    fn lease(&self, owner: &Owner, wanted: &[IpAddr], now: Timestamp) -> Option<Vec<IpAddr>> {
        let held = self.held_by(owner);
        if !held.is_empty() {
            return Some(held);
        }
        let mut picked = Vec::new();
        for family in Family::BOTH {
            let mut wanted = wanted.iter().copied().filter(|addr| Family::of(*addr) == family);
            match (wanted.next(), wanted.next()) {
                (Some(first), Some(second)) if first != second => return None,
                (Some(addr), _) => picked.push(self.wanted(owner, addr, now)?),
                (None, _) if self.ranges.iter().any(|range| range.prefix.family() == family) => {
                    picked.push(self.any(owner, family, now)?);
                }
                (None, _) => {}
            }
        }
        (!picked.is_empty()).then_some(picked)
    }

    fn wanted(&self, owner: &Owner, addr: IpAddr, now: Timestamp) -> Option<IpAddr> {
        let usable = self.usable(Family::of(addr)).contains(&addr);
        let free = self.known.get(&addr).is_none_or(|known| {
            let same = known.owner.pod == owner.pod;
            known.released.is_some() && (same || (Self::is_cool(known, now) && !Self::is_kept(known, now)))
        });
        (usable && free).then_some(addr)
    }

    fn any(&self, owner: &Owner, family: Family, now: Timestamp) -> Option<IpAddr> {
        let usable = self.usable(family);
        let known = || usable.iter().filter_map(|addr| Some((*addr, self.known.get(addr)?)));
        let own = known().find(|(_, k)| owner.sticky && Self::is_kept(k, now) && k.owner.pod == owner.pod);
        let unused = || usable.iter().copied().find(|addr| !self.known.contains_key(addr));
        let oldest = |kept: bool| {
            let free = known().filter(|(_, k)| Self::is_cool(k, now) && Self::is_kept(k, now) == kept);
            free.min_by_key(|(_, k)| k.released).map(|(addr, _)| addr)
        };
        own.map(|(addr, _)| addr).or_else(unused).or_else(|| oldest(false)).or_else(|| oldest(true))
    }

    fn hold(&mut self, owner: &Owner, addrs: &[IpAddr]) {
        for addr in addrs {
            self.known.insert(*addr, Known { owner: owner.clone(), released: None, kept: false });
        }
    }

    fn release(&mut self, owner: &Owner, now: Timestamp) -> Vec<IpAddr> {
        let held = self.held_by(owner);
        for addr in &held {
            let same = |other: &Known| other.owner.pod == owner.pod && other.released.is_some();
            self.known
                .iter_mut()
                .filter(|(other, known)| Family::of(**other) == Family::of(*addr) && same(known))
                .for_each(|(_, known)| known.kept = false);
            self.releases += 1;
            let released = Some((now, self.releases));
            self.known.insert(*addr, Known { owner: owner.clone(), released, kept: owner.sticky });
        }
        held
    }

    /// A pool forgets what is outside of its ranges and cool, once it is asked while it has ranges of the family.
    fn settle(&mut self, now: Timestamp) {
        for family in Family::BOTH {
            if !self.ranges.iter().any(|range| range.prefix.family() == family) {
                continue;
            }
            let usable = self.usable(family);
            self.known.retain(|addr, known| {
                Family::of(*addr) != family
                    || usable.contains(addr)
                    || Self::is_kept(known, now)
                    || known.released.is_none()
                    || !Self::is_cool(known, now)
            });
        }
        for known in self.known.values_mut() {
            if let Some((at, _)) = &mut known.released {
                known.kept &= now < at.after(POLICY.sticky_for);
            }
        }
    }

    fn clock_back_to(&mut self, now: Timestamp) {
        for (at, _) in self.known.values_mut().filter_map(|known| known.released.as_mut()) {
            *at = (*at).min(now);
        }
    }

    fn usage(&self, family: Family, now: Timestamp) -> Usage {
        let usable = self.usable(family);
        let count = |wanted: &dyn Fn(&Known) -> bool| {
            usable.iter().filter(|addr| self.known.get(addr).is_some_and(wanted)).count() as u64
        };
        let held = count(&|k| k.released.is_none());
        let kept = count(&|k| Self::is_kept(k, now));
        let cooling = count(&|k| k.released.is_some() && !Self::is_kept(k, now) && !Self::is_cool(k, now));
        let draining = self
            .known
            .iter()
            .filter(|(addr, k)| {
                Family::of(**addr) == family && k.released.is_none() && !usable.contains(addr)
            })
            .count() as u64;
        let capacity = usable.len() as u64;
        let ranges = self.ranges.iter().filter(|range| range.prefix.family() == family).count() as u32;
        Usage { ranges, capacity, held, cooling, kept, free: capacity - held - cooling - kept, draining }
    }
}

/// Runs the steps on both and compares every answer; gives the pool, its records, and the time at the end.
fn run(steps: Vec<Step>) -> Result<(Pool, Vec<Record>, Timestamp), TestCaseError> {
    let mut pool = Pool::new(name(), POLICY);
    let mut model = Model::default();
    let mut records = Vec::new();
    let mut now = Timestamp(1_000_000);
    for step in steps {
        match step {
            Step::Wait(seconds) => now = now.after(Duration::from_secs(seconds)),
            Step::Back(seconds) => {
                now = Timestamp(now.0 - seconds.min(900) * 1000 / 4);
                model.clock_back_to(now);
                pool.settle(now);
                model.settle(now);
            }
            Step::Ranges(ranges) => {
                pool.set_ranges(&ranges);
                model.ranges = ranges;
            }
            Step::Release(container) => {
                model.settle(now);
                let owner = owner(container);
                let released = pool.release(&owner.attachment, now);
                let addrs: Vec<IpAddr> = released.iter().map(|lease| lease.addr).collect();
                prop_assert_eq!(addrs, model.release(&owner, now));
                records.extend(released.into_iter().map(|lease| Record::Released { lease, released: now }));
            }
            Step::Lease(container) => try_lease(&mut pool, &mut model, &mut records, container, vec![], now)?,
            Step::Want(container, wanted) => {
                try_lease(&mut pool, &mut model, &mut records, container, wanted, now)?;
            }
        }
        for family in Family::BOTH {
            prop_assert_eq!(pool.usage(family, now), model.usage(family, now));
        }
    }
    Ok((pool, records, now))
}

fn try_lease(
    pool: &mut Pool,
    model: &mut Model,
    records: &mut Vec<Record>,
    container: u8,
    wanted: Vec<IpAddr>,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    model.settle(now);
    let owner = owner(container);
    let expected = model.lease(&owner, &wanted, now);
    pool.settle(now);
    let before = pool.snapshot();
    let Ok(leases) = pool.lease(&owner, &Request { wanted }, now) else {
        prop_assert_eq!(None, expected);
        prop_assert_eq!(pool.snapshot(), before);
        return Ok(());
    };
    let addrs: Vec<IpAddr> = leases.iter().map(|lease| lease.addr).collect();
    prop_assert_eq!(Some(&addrs), expected.as_ref());
    if model.held_by(&owner).is_empty() {
        model.hold(&owner, &addrs);
        records.extend(leases.into_iter().map(|lease| Record::Leased { lease }));
    }
    Ok(())
}

/// Lets a pool that forgets early choose by itself, and checks that it may.
fn run_forgetful(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let spaces = Family::BOTH.map(|family| Space::new(family, 1));
    let mut pool = Pool { spaces, ..Pool::new(name(), POLICY) };
    let mut model = Model::default();
    let mut now = Timestamp(1_000_000);
    for step in steps {
        match step {
            Step::Wait(seconds) => now = now.after(Duration::from_secs(seconds)),
            Step::Ranges(ranges) => {
                pool.set_ranges(&ranges);
                model.ranges = ranges;
            }
            Step::Release(container) => {
                model.settle(now);
                let released = pool.release(&owner(container).attachment, now);
                prop_assert_eq!(released.len(), model.release(&owner(container), now).len());
            }
            Step::Lease(container) => {
                model.settle(now);
                let owner = owner(container);
                let expected = model.lease(&owner, &[], now);
                let answer = pool.lease(&owner, &Request::default(), now);
                prop_assert_eq!(answer.is_ok(), expected.is_some());
                let addrs: Vec<IpAddr> = answer.into_iter().flatten().map(|lease| lease.addr).collect();
                if model.held_by(&owner).is_empty() {
                    for &addr in &addrs {
                        let known = model.known.get(&addr);
                        let may = known.is_none_or(|k| Model::is_cool(k, now) || k.owner.pod == owner.pod);
                        prop_assert!(may && model.usable(Family::of(addr)).contains(&addr), "{addr}");
                        prop_assert!(known.is_none_or(|k| k.released.is_some()), "{addr} is leased twice");
                    }
                    model.hold(&owner, &addrs);
                }
            }
            Step::Want(..) | Step::Back(_) => {}
        }
        for family in Family::BOTH {
            prop_assert_eq!(pool.usage(family, now), model.usage(family, now));
        }
    }
    Ok(())
}

/// What two pools say and do from now on, to the last address.
fn future(mut pool: Pool, now: Timestamp) -> Vec<(Vec<IpAddr>, Option<String>)> {
    pool.set_ranges(&[range("10.0.0.0/28"), range("fd00::/124")]);
    let mut answers = Vec::new();
    for (n, wait) in (0..40).zip([0, 1, 29, 60, 150].iter().cycle()) {
        let owner = match n {
            0..8 => owner(n),
            _ => Owner { pod: None, sticky: false, ..owner(100 + n) },
        };
        let answer = pool.lease(&owner, &Request::default(), now.after(Duration::from_secs(*wait)));
        answers.push(match answer {
            Ok(leases) => (leases.into_iter().map(|lease| lease.addr).collect(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        });
    }
    answers
}

fn replayed(records: Vec<Record>) -> Result<Pool, TestCaseError> {
    let mut pool = Pool::new(name(), POLICY);
    for record in records {
        pool.replay(record).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
    Ok(pool)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_pool_answers_as_the_model_does(steps in vec(any_step(), 0..80)) {
        run(steps)?;
    }

    #[test]
    fn the_pool_answers_as_the_model_does_when_the_clock_jumps(
        steps in vec(any_step_of_a_bad_clock(), 0..80),
    ) {
        run(steps)?;
    }

    #[test]
    fn a_pool_that_forgets_the_order_forgets_nothing_else(steps in vec(any_step(), 0..80)) {
        run_forgetful(steps)?;
    }

    #[test]
    fn a_pool_made_from_its_snapshot_goes_on_like_the_live_one(steps in vec(any_step(), 0..80)) {
        let (pool, _, now) = run(steps)?;
        let restored = replayed(pool.snapshot())?;
        prop_assert_eq!(restored.snapshot(), pool.snapshot());
        prop_assert!(restored.entries(now).eq(pool.entries(now)));
        prop_assert_eq!(future(restored, now), future(pool, now));
    }

    #[test]
    fn a_pool_made_from_its_records_goes_on_like_the_live_one(
        ranges in any_ranges(),
        steps in vec(any_step().prop_filter("ranges stay", |s| !matches!(s, Step::Ranges(_))), 0..80),
    ) {
        let (pool, records, now) = run([vec![Step::Ranges(ranges.clone())], steps].concat())?;
        let mut restored = replayed(records)?;
        restored.set_ranges(&ranges);
        prop_assert!(restored.entries(now).eq(pool.entries(now)));
        prop_assert_eq!(future(restored, now), future(pool, now));
    }
}
