// SPDX-License-Identifier: Apache-2.0
//! What graceful restart means for a peer's routes and for ours (RFC 4724, RFC 8538), decided without clock and socket.

use std::collections::BTreeSet;
use std::time::Duration;

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::Snapshot;
use rhumb_model::Family;

use crate::fsm::Cause;
use crate::wire::{Cease, GracefulRestart, Negotiated, Notification};

/// Families whose routes stay in use although the session is over: those for which the peer said so, where the end
/// was a failure and not a decision (RFC 4724 §4.2, RFC 8538 §4).
pub(crate) fn kept(negotiated: &Negotiated, cause: &Cause) -> BTreeSet<Family> {
    let Some(restart) = &negotiated.graceful_restart else {
        return BTreeSet::new();
    };
    let is_kept = match cause {
        Cause::ConnectionFailed => true,
        Cause::HoldTimerExpired => restart.notification,
        Cause::Received(text) => restart.notification && !text.is_hard_reset(),
        Cause::Sent(text) => restart.notification && !ends_for_good(text),
        Cause::Collision => false,
    };
    let families = if is_kept { restart.families.keys().copied().collect() } else { BTreeSet::new() };
    negotiated.families.intersection(&families).copied().collect()
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

/// How long the routes of a peer are kept that does not come back.
pub(crate) fn restart_time(negotiated: &Negotiated) -> Duration {
    Duration::from_secs(negotiated.graceful_restart.as_ref().map_or(0, |restart| restart.restart_time).into())
}

/// How long a session of ours may wait for its BFD, which is half of the shortest time that peers with BFD keep our
/// routes, and the longest time that any peer does; `None` where there are no such peers.
pub(crate) fn times(saved: &Snapshot) -> (Option<Duration>, Option<Duration>) {
    let peers = || saved.instances.iter().flat_map(|instance| &instance.peers);
    let time = |peer: &feed::Peer| Some(Duration::from_secs(peer.graceful_restart?.restart_time.into()));
    let first = peers().filter(|peer| peer.bfd.is_some()).filter_map(time).min();
    (first.map(|first| first / 2), peers().filter_map(time).max())
}

/// Families whose kept routes go at once when the peer is back, because it has lost its own (RFC 4724 §4.2: the F bit
/// is not set, or the family is not offered).
pub(crate) fn lost(negotiated: &Negotiated) -> BTreeSet<Family> {
    let preserved = negotiated.graceful_restart.as_ref().map(|restart| &restart.families);
    let is_lost = |family: &Family| preserved.and_then(|families| families.get(family)) != Some(&true);
    Family::BOTH.into_iter().filter(is_lost).collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let session = negotiated(true, &[(Family::V4, true), (Family::V6, false)]);
        assert_eq!(lost(&session), BTreeSet::from([Family::V6]));
        assert_eq!(lost(&Negotiated { graceful_restart: None, ..session }), Family::BOTH.into());
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
