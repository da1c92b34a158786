// SPDX-License-Identifier: Apache-2.0
//! Taking leave of all peers on purpose, without a packet lost: first the routes are told with the community
//! GRACEFUL_SHUTDOWN, so that others are preferred (RFC 8326 §4.2), then they are withdrawn, then sessions are closed.
//!
//! ```text
//!   request ─► Shun ── 3 s ──► Withdraw ── 3 s ──► Closed ── all sessions are over ──► answered
//!                 ◄──────────────── end of the drain ───────────┘
//! ```

use std::time::{Duration, Instant};

use rhumb_bgp_feed::Answer;
use tokio::sync::oneshot;
use tracing::info;

use super::peer::Peer;
use super::{Speaker, answer};
use crate::fsm::State;
use crate::rib::Leave;
use crate::wire::{Cease, Notification};

/// How long peers have to prefer others, and to take withdrawals.
const STEP: Duration = Duration::from_secs(3);

/// A drain under way, or at its end.
#[derive(Debug)]
pub(super) struct Drain {
    step: Step,
    until: Instant,
    reason: String,
    waiting: Vec<oneshot::Sender<Answer>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Shun,
    Withdraw,
    Closed,
}

impl Drain {
    pub(super) fn next(&self) -> Option<Instant> {
        (self.step != Step::Closed).then_some(self.until)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.step == Step::Closed
    }

    /// How a peer is taken leave of at this point.
    pub(super) fn leave(&self) -> Leave {
        match self.step {
            Step::Shun => Leave::Shutdown,
            Step::Withdraw | Step::Closed => Leave::Withdraw,
        }
    }
}

impl Speaker {
    pub(super) fn drain(&mut self, reason: String, reply: oneshot::Sender<Answer>) {
        match &mut self.drain {
            Some(drain) => {
                drain.waiting.push(reply);
                self.drained();
            }
            None => {
                info!(%reason, "drain begins");
                let until = Instant::now() + STEP;
                self.drain = Some(Drain { step: Step::Shun, until, reason, waiting: vec![reply] });
                self.take_leave(Leave::Shutdown);
            }
        }
    }

    pub(super) fn undrain(&mut self) {
        let Some(drain) = self.drain.take() else { return };
        info!("drain ends");
        for reply in drain.waiting {
            answer(reply, Answer::Refused("the drain was ended".to_owned()));
        }
        self.take_leave(Leave::Stay);
        let keys: Vec<_> = self.peers.keys().cloned().collect();
        for key in keys {
            self.start_peer(&key);
        }
    }

    /// The next step when its time has come.
    pub(super) fn drain_on(&mut self, now: Instant) {
        let Some(drain) = self.drain.as_mut().filter(|drain| drain.until <= now) else { return };
        match drain.step {
            Step::Shun => {
                (drain.step, drain.until) = (Step::Withdraw, now + STEP);
                info!("routes are withdrawn");
                self.take_leave(Leave::Withdraw);
            }
            Step::Withdraw => {
                drain.step = Step::Closed;
                info!("sessions are closed");
                for peer in self.peers.values() {
                    peer.stop(farewell(peer, &drain.reason), None);
                }
                self.drained();
            }
            Step::Closed => {}
        }
    }

    /// Answers when every session is over: who then ends the speaker cuts no farewell short.
    pub(super) fn drained(&mut self) {
        let Some(drain) = self.drain.as_mut().filter(|drain| drain.is_closed()) else { return };
        if self.peers.values().all(|peer| peer.session.is_none() && peer.state != State::Established) {
            for reply in std::mem::take(&mut drain.waiting) {
                answer(reply, Answer::Done);
            }
        }
    }

    fn take_leave(&mut self, leave: Leave) {
        for peer in self.peers.values() {
            if let Some(rib) = self.ribs.get_mut(&peer.instance) {
                rib.set_leave(peer.id, leave);
            }
        }
    }
}

/// A peer that would keep our routes over a NOTIFICATION is told not to (RFC 8538 §3.1).
fn farewell(peer: &Peer, reason: &str) -> Notification {
    let text = Notification::cease_because(Cease::AdministrativeShutdown, reason);
    let restart = peer.session.as_ref().and_then(|session| session.negotiated.graceful_restart.as_ref());
    if restart.is_some_and(|restart| restart.notification) { Notification::hard_reset(&text) } else { text }
}
