// SPDX-License-Identifier: Apache-2.0
//! What graceful restart means for a peer's routes and for ours (RFC 4724, RFC 8538, RFC 9494), decided without clock
//! and socket.
//!
//! ```text
//!                 ┌──── kept as they are ─────┐┌───── kept as a last resort ──────┐
//!   session over ─┴─ the peer's restart time ─┴┴─ its stale time, ours at most ───┴─ routes go
//!   the peer is back: End-of-RIB is waited for, no longer than before where routes are a last resort already
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::Snapshot;
use rhumb_model::Family;

use crate::fsm::Cause;
use crate::wire::{Cease, GracefulRestart, LongLived, Negotiated, Notification};

/// How long stale routes of a peer that is back wait for its End-of-RIB.
const STALE_FOR: Duration = Duration::from_secs(360);

/// For how long routes of a family stay although their session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// When what is stale goes, or becomes a last resort.
    pub(crate) until: Instant,
    /// How long it is a last resort then.
    pub(crate) then: Option<Duration>,
    /// It is one already (RFC 9494 §4.2).
    pub(crate) is_last_resort: bool,
}

impl Kept {
    /// What follows when the time is over; `None`: the routes go.
    pub(crate) fn next(self) -> Option<Kept> {
        let then = self.then?;
        Some(Kept { until: self.until + then, then: None, is_last_resort: true })
    }
}

/// What stays when a session is over, and for how long: the routes of families for which the peer said so, where the end
/// was a failure and not a decision. `before` is what was still kept of earlier sessions, `over` the families whose last
/// time ran out in the session that ended, before the peer had told everything again: they are not kept once more
/// (RFC 9494 §4.2). `longest` is the longest time in seconds that we keep routes as a last resort.
pub(crate) fn keep(
    negotiated: &Negotiated,
    cause: &Cause,
    before: &BTreeMap<Family, Kept>,
    over: &BTreeSet<Family>,
    longest: u32,
    now: Instant,
) -> BTreeMap<Family, Kept> {
    let Some(restart) = &negotiated.graceful_restart else {
        return BTreeMap::new();
    };
    let long = long_lived(negotiated, longest);
    let plain = kept(negotiated, cause);
    let offered = if is_failure(restart, cause) { negotiated.families.clone() } else { BTreeSet::new() };
    let mut all = BTreeMap::new();
    for family in offered.difference(over).copied() {
        let then = long.get(&family).copied();
        let restart_time = match plain.contains(&family) {
            true => Duration::from_secs(restart.restart_time.into()),
            false => Duration::ZERO,
        };
        // The time does not begin anew before the peer has told everything again (RFC 9494 §4.2).
        if let Some(before) = before.get(&family).filter(|before| before.is_last_resort && then.is_some()) {
            all.insert(family, *before);
        } else if plain.contains(&family) || then.is_some() {
            all.insert(family, Kept { until: now + restart_time, then, is_last_resort: false });
        }
    }
    all
}

/// How long routes are a last resort, of families where they are: for the peer's time, `longest` seconds at most.
pub(crate) fn long_lived(negotiated: &Negotiated, longest: u32) -> BTreeMap<Family, Duration> {
    let seconds = |offer: &LongLived| offer.stale_time.min(longest);
    let all = negotiated.long_lived.iter().map(|(family, offer)| (*family, seconds(offer)));
    all.filter(|(_, seconds)| *seconds > 0)
        .map(|(family, seconds)| (family, Duration::from_secs(seconds.into())))
        .collect()
}

/// What of the kept routes still waits for its End-of-RIB when the peer is back. What is not in it goes, because the peer
/// has lost its own: the F bit is not set, or the family is not offered (RFC 4724 §4.2, RFC 9494 §4.2).
pub(crate) fn keep_on(
    negotiated: &Negotiated,
    before: &BTreeMap<Family, Kept>,
    now: Instant,
) -> BTreeMap<Family, Kept> {
    let plain = negotiated.graceful_restart.as_ref().map(|restart| &restart.families);
    let is_preserved = |family: &Family, kept: &Kept| match kept.is_last_resort {
        true => negotiated.long_lived.get(family).is_some_and(|offer| offer.forwarding),
        false => plain.and_then(|families| families.get(family)) == Some(&true),
    };
    let wait = |kept: &Kept| match kept.is_last_resort {
        true => *kept,
        false => Kept { until: now + STALE_FOR, then: None, is_last_resort: false },
    };
    let preserved = before.iter().filter(|(family, kept)| is_preserved(family, kept));
    preserved.map(|(family, kept)| (*family, wait(kept))).collect()
}

/// Families whose routes stay in use although the session is over: those for which the peer said so, where the end
/// was a failure and not a decision (RFC 4724 §4.2, RFC 8538 §4).
fn kept(negotiated: &Negotiated, cause: &Cause) -> BTreeSet<Family> {
    let Some(restart) = &negotiated.graceful_restart else {
        return BTreeSet::new();
    };
    if !is_failure(restart, cause) {
        return BTreeSet::new();
    }
    let families = restart.families.keys().copied().collect();
    negotiated.families.intersection(&families).copied().collect()
}

/// Whether a session that ended so was meant to go on (RFC 4724 §4.2, RFC 8538 §4).
fn is_failure(restart: &GracefulRestart, cause: &Cause) -> bool {
    match cause {
        Cause::ConnectionFailed => true,
        Cause::HoldTimerExpired => restart.notification,
        Cause::Received(text) => restart.notification && !text.is_hard_reset(),
        Cause::Sent(text) => restart.notification && !ends_for_good(text),
        Cause::Collision => false,
    }
}

/// Whether a NOTIFICATION of ours means that the peer's routes are not wanted any more.
fn ends_for_good(text: &Notification) -> bool {
    let cease = |reason: Cease| (text.code, text.subcode) == (6, reason as u8);
    text.is_hard_reset()
        || cease(Cease::MaximumPrefixes)
        || cease(Cease::AdministrativeShutdown)
        || cease(Cease::PeerDeconfigured)
        || cease(Cease::BfdDown)
}

/// How long a session of ours may wait for its BFD, which is half of the shortest time that peers with BFD keep our
/// routes, and the longest time that any peer does; `None` where there are no such peers.
pub(crate) fn times(saved: &Snapshot) -> (Option<Duration>, Option<Duration>) {
    let peers = || saved.instances.iter().flat_map(|instance| &instance.peers);
    let time = |peer: &feed::Peer| Some(Duration::from_secs(peer.graceful_restart?.restart_time.into()));
    let first = peers().filter(|peer| peer.bfd.is_some()).filter_map(time).min();
    (first.map(|first| first / 2), peers().filter_map(time).max())
}

/// Whether a peer that is up is to be waited for before routes are chosen after a restart of ours: it does graceful
/// restart, has not restarted itself, and has families whose end was not heard (RFC 4724 §4.1).
pub(crate) fn is_awaited(negotiated: &Negotiated, ended: &BTreeSet<Family>) -> bool {
    let restarted = negotiated.graceful_restart.as_ref().is_none_or(|restart| restart.restarting);
    !restarted && !negotiated.families.is_subset(ended)
}

/// Whether routes can still come from a peer that is up, of which the kernel may have those of our last run: it does
/// graceful restart, and has families whose end was not heard. One that has restarted itself is none that others wait
/// for, so as not to wait for each other; but its routes come.
pub(crate) fn is_unfinished(negotiated: &Negotiated, ended: &BTreeSet<Family>) -> bool {
    negotiated.graceful_restart.is_some() && !negotiated.families.is_subset(ended)
}

/// What we know of our own last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LastRun {
    /// There was one, and peers may still keep its routes.
    pub(crate) restarted: bool,
    /// Packets were forwarded all the time.
    pub(crate) forwarding: bool,
}

/// Our graceful restart capability (RFC 4724 §3, RFC 8538 §2).
pub(crate) fn offer(restart_time: u16, families: &BTreeSet<Family>, last: LastRun) -> GracefulRestart {
    GracefulRestart {
        restarting: last.restarted,
        notification: true,
        restart_time: restart_time.min(4095),
        families: families.iter().map(|family| (*family, last.restarted && last.forwarding)).collect(),
    }
}

/// Our capability of long-lived stale routes: that they are known, and for how long ours are to be kept, where they are
/// (RFC 9494 §3.1).
pub(crate) fn offer_long(
    stale_time: u32,
    families: &BTreeSet<Family>,
    last: LastRun,
) -> BTreeMap<Family, LongLived> {
    let forwarding = last.restarted && last.forwarding;
    let family = |family: &Family| (*family, LongLived { forwarding, stale_time });
    if stale_time == 0 { BTreeMap::new() } else { families.iter().map(family).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Asn, RouterId};

    fn negotiated(notification: bool, families: &[(Family, bool)]) -> Negotiated {
        Negotiated {
            asn: Asn(1),
            peer_asn: Asn(2),
            peer_router_id: RouterId(3),
            hold_time: 90,
            families: Family::BOTH.into(),
            asn4: true,
            extended_message: false,
            extended_next_hop: BTreeSet::new(),
            add_path_receive: BTreeSet::new(),
            add_path_send: BTreeSet::new(),
            route_refresh: true,
            enhanced_route_refresh: false,
            graceful_restart: Some(GracefulRestart {
                restarting: false,
                notification,
                restart_time: 120,
                families: families.iter().copied().collect(),
            }),
            long_lived: BTreeMap::new(),
            knows_long_lived: false,
        }
    }

    #[test]
    fn a_lost_connection_keeps_what_the_peer_offered_and_nothing_else() {
        let session = negotiated(false, &[(Family::V4, false)]);
        assert_eq!(kept(&session, &Cause::ConnectionFailed), BTreeSet::from([Family::V4]));
        let without = Negotiated { graceful_restart: None, ..session };
        assert!(kept(&without, &Cause::ConnectionFailed).is_empty());
    }

    #[test]
    fn words_and_silence_keep_routes_only_where_both_said_so() {
        let failure = Notification { code: 3, subcode: 1, data: Vec::new() };
        let causes =
            [Cause::HoldTimerExpired, Cause::Received(failure.clone()), Cause::Sent(failure.clone())];
        for cause in causes {
            let plain = negotiated(false, &[(Family::V4, false)]);
            assert!(kept(&plain, &cause).is_empty(), "{cause:?}");
            let with_n = negotiated(true, &[(Family::V4, false)]);
            assert_eq!(kept(&with_n, &cause), BTreeSet::from([Family::V4]), "{cause:?}");
        }
    }

    #[test]
    fn a_hard_reset_and_an_end_for_good_keep_nothing() {
        let session = negotiated(true, &[(Family::V4, true), (Family::V6, true)]);
        let reset = Notification::hard_reset(&Notification::cease(Cease::AdministrativeReset));
        for cause in [
            Cause::Received(reset.clone()),
            Cause::Sent(reset),
            Cause::Sent(Notification::cease(Cease::MaximumPrefixes)),
            Cause::Sent(Notification::cease(Cease::PeerDeconfigured)),
            Cause::Sent(Notification::cease_because(Cease::AdministrativeShutdown, "bye")),
            Cause::Sent(Notification::cease(Cease::BfdDown)),
            Cause::Collision,
        ] {
            assert!(kept(&session, &cause).is_empty(), "{cause:?}");
        }
    }

    #[test]
    fn a_peer_that_comes_back_without_forwarding_has_lost_its_routes() {
        let now = Instant::now();
        let session = negotiated(true, &[(Family::V4, true), (Family::V6, false)]);
        let before = keep(&session, &Cause::ConnectionFailed, &BTreeMap::new(), &BTreeSet::new(), 0, now);
        assert_eq!(before.len(), 2);
        let still = keep_on(&session, &before, now);
        let waits = Kept { until: now + STALE_FOR, then: None, is_last_resort: false };
        assert_eq!(still, BTreeMap::from([(Family::V4, waits)]));
        assert!(keep_on(&Negotiated { graceful_restart: None, ..session }, &before, now).is_empty());
    }

    fn long(session: Negotiated, forwarding: bool, stale_time: u32) -> Negotiated {
        let long_lived = BTreeMap::from([(Family::V4, LongLived { forwarding, stale_time })]);
        Negotiated { long_lived, knows_long_lived: true, ..session }
    }

    #[test]
    fn routes_become_a_last_resort_for_the_shorter_of_both_times_and_then_go() {
        let now = Instant::now();
        let session = long(negotiated(false, &[(Family::V4, true), (Family::V6, true)]), true, 600);
        for (longest, seconds) in [(3600, Some(600)), (60, Some(60)), (0, None)] {
            let kept =
                keep(&session, &Cause::ConnectionFailed, &BTreeMap::new(), &BTreeSet::new(), longest, now);
            let first = kept[&Family::V4];
            assert_eq!((first.until, first.is_last_resort), (now + Duration::from_secs(120), false));
            let next = first.next().map(|next| (next.until - first.until, next.is_last_resort, next.next()));
            assert_eq!(next, seconds.map(|seconds| (Duration::from_secs(seconds), true, None)));
            assert_eq!(kept[&Family::V6].next(), None, "the peer did not ask for it");
        }
    }

    #[test]
    fn a_family_without_graceful_restart_is_a_last_resort_at_once() {
        let now = Instant::now();
        let session = long(negotiated(false, &[]), true, 600);
        let kept = keep(&session, &Cause::ConnectionFailed, &BTreeMap::new(), &BTreeSet::new(), 600, now);
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&Family::V4]);
        assert_eq!(kept[&Family::V4].until, now);
        let ended = Cause::Received(Notification { code: 3, subcode: 1, data: Vec::new() });
        assert!(keep(&session, &ended, &BTreeMap::new(), &BTreeSet::new(), 600, now).is_empty());
    }

    #[test]
    fn a_last_resort_lasts_no_longer_because_the_peer_came_and_went() {
        let now = Instant::now();
        let later = now + Duration::from_secs(200);
        let session = long(negotiated(false, &[(Family::V4, false)]), true, 600);
        let last_resort = Kept { until: now + Duration::from_secs(500), then: None, is_last_resort: true };
        let before = BTreeMap::from([(Family::V4, last_resort)]);
        assert_eq!(keep_on(&session, &before, later), before, "F of the other capability does not count");
        assert_eq!(keep(&session, &Cause::ConnectionFailed, &before, &BTreeSet::new(), 600, later), before);
        assert!(keep_on(&long(session, false, 600), &before, later).is_empty());
    }

    #[test]
    fn what_the_peer_told_again_after_the_last_time_ran_out_is_not_kept_once_more() {
        let now = Instant::now();
        let session = long(negotiated(false, &[(Family::V4, true), (Family::V6, true)]), true, 600);
        let over = BTreeSet::from([Family::V4]);
        let kept = keep(&session, &Cause::ConnectionFailed, &BTreeMap::new(), &over, 600, now);
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&Family::V6]);
    }

    #[test]
    fn a_speaker_that_keeps_none_says_that_it_knows_them() {
        let last = LastRun { restarted: true, forwarding: true };
        assert!(offer_long(0, &Family::BOTH.into(), last).is_empty());
        let offer = offer_long(90, &BTreeSet::from([Family::V6]), last);
        assert_eq!(offer, BTreeMap::from([(Family::V6, LongLived { forwarding: true, stale_time: 90 })]));
    }

    #[test]
    fn a_peer_is_awaited_until_it_has_told_the_end_of_every_family() {
        let session = negotiated(true, &[(Family::V4, true)]);
        assert!(is_awaited(&session, &BTreeSet::from([Family::V4])));
        assert!(!is_awaited(&session, &Family::BOTH.into()));
        assert!(!is_awaited(&Negotiated { graceful_restart: None, ..session }, &BTreeSet::new()));
    }

    #[test]
    fn the_end_of_a_peer_that_restarted_itself_is_not_awaited_and_its_routes_still_come() {
        let mut session = negotiated(true, &[(Family::V4, true)]);
        session.graceful_restart.as_mut().unwrap().restarting = true;
        assert!(!is_awaited(&session, &BTreeSet::new()) && is_unfinished(&session, &BTreeSet::new()));
        assert!(!is_unfinished(&session, &Family::BOTH.into()));
    }

    #[test]
    fn forwarding_is_claimed_only_after_a_restart_that_kept_it() {
        let families = BTreeSet::from([Family::V4]);
        for (restarted, forwarding, bit) in
            [(false, false, false), (false, true, false), (true, false, false), (true, true, true)]
        {
            let offer = offer(120, &families, LastRun { restarted, forwarding });
            assert_eq!((offer.restarting, offer.families[&Family::V4]), (restarted, bit));
        }
    }
}
