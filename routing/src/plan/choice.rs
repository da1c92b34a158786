// SPDX-License-Identifier: Apache-2.0
//! The choice among the ways to one prefix, and what of earlier choices it depends on.
//!
//! ```text
//!              direct way gone, its neighbour does not answer, or the node does not
//!    ┌────────┐ ───────────────────────────────────────────────► ┌────────┐ ◄─┐ direct way gone again:
//!    │ direct │                                                  │ tunnel │ ──┘ the hold-down begins anew
//!    └────────┘ ◄─────────────────────────────────────────────── └────────┘
//!              direct way there and answering for the hold-down
//! ```
//! The hold-down doubles when a direct way is lost that stood for less than the longest hold-down, and is as short
//! as in the beginning when it stood for longer.

use std::time::{Duration, Instant};

use rhumb_model::NodeName;

use super::way::{Mode, Way, Why};
use crate::fabric::Liveness;

/// The longest hold-down in terms of the shortest.
const LONGEST: u32 = 8;

/// For how long a direct way has to be there before packets return to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldDown(pub Duration);

impl Default for HoldDown {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl HoldDown {
    /// The bound of its doubling.
    pub fn longest(self) -> Duration {
        self.0 * LONGEST
    }
}

/// A way that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The way.
    pub way: Way,
    /// Whether it takes packets.
    pub liveness: Liveness,
}

/// The ways to one prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The best direct way.
    pub direct: Option<Candidate>,
    /// The tunnel.
    pub tunnel: Option<Candidate>,
}

/// What was chosen for one prefix, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The node that has the prefix.
    pub node: NodeName,
    /// The way; `None` where there is none.
    pub way: Option<Way>,
    /// Why this way.
    pub why: Why,
    /// When packets began to go this way.
    pub since: Instant,
    /// When they last changed between direct and encapsulated.
    turned: Instant,
    /// While they are encapsulated: since when a direct way has been there and answered.
    direct_since: Option<Instant>,
    /// For how long that has to last; `None` while no direct way was ever lost.
    hold: Option<Duration>,
    /// While they are encapsulated: why the direct way was last left or not taken.
    left: Option<Why>,
}

impl Choice {
    /// Until when a direct way that is there is still waited for.
    pub fn returns_at(&self, shortest: HoldDown) -> Option<Instant> {
        self.direct_since.map(|since| since + self.hold.unwrap_or(shortest.0))
    }

    fn is_tunnel(&self) -> bool {
        self.way.as_ref().is_some_and(|way| !way.is_direct())
    }

    fn is_direct(&self) -> bool {
        self.way.as_ref().is_some_and(Way::is_direct)
    }
}

/// Chooses a way for a prefix of `node`. `past` is what was chosen before, for the same prefix of the same node.
pub fn choose(
    node: &NodeName,
    mode: Mode,
    candidates: Candidates,
    past: Option<&Choice>,
    shortest: HoldDown,
    now: Instant,
) -> Choice {
    let (way, why, direct_since) = match mode {
        Mode::Auto => automatic(candidates, past, shortest, now),
        Mode::Direct => only(candidates.direct),
        Mode::Tunnel => only(candidates.tunnel),
    };
    let left = match why {
        Why::DirectGone | Why::NoAnswer | Why::ProbeLost => Some(why),
        Why::HoldDown => past.and_then(|past| past.left),
        Why::Policy
        | Why::Neighbour
        | Why::FabricRoute
        | Why::NoDirectWay
        | Why::NothingBetter
        | Why::HoldDownOver
        | Why::ProbeAnswered
        | Why::NoWay
        | Why::Unclaimed => None,
    };
    let mut choice =
        Choice { node: node.clone(), way, why, since: now, turned: now, direct_since, hold: None, left };
    let Some(past) = past else { return choice };
    if choice.way == past.way {
        choice.since = past.since;
    }
    choice.hold = past.hold;
    if choice.is_tunnel() == past.is_tunnel() && choice.is_direct() == past.is_direct() {
        choice.turned = past.turned;
    } else if mode == Mode::Auto && past.is_direct() && choice.is_tunnel() {
        choice.hold = Some(hold_after_loss(past, shortest, now));
    }
    choice
}

fn only(candidate: Option<Candidate>) -> (Option<Way>, Why, Option<Instant>) {
    match candidate {
        Some(candidate) => (Some(candidate.way), Why::Policy, None),
        None => (None, Why::NoWay, None),
    }
}

fn automatic(
    candidates: Candidates,
    past: Option<&Choice>,
    shortest: HoldDown,
    now: Instant,
) -> (Option<Way>, Why, Option<Instant>) {
    // Packets that a policy encapsulated until now have lost no direct way.
    let fallen = past.filter(|past| past.is_tunnel() && past.why != Why::Policy);
    match (candidates.direct, candidates.tunnel) {
        (None, None) => (None, Why::NoWay, None),
        (Some(direct), None) => {
            let why = if direct.liveness.is_lost() { Why::NothingBetter } else { found(&direct.way) };
            (Some(direct.way), why, None)
        }
        (None, Some(tunnel)) => (Some(tunnel.way), lost(past), None),
        (Some(direct), Some(tunnel)) => match (fallen, direct.liveness) {
            (Some(_), lost @ (Liveness::Dead | Liveness::Silent)) => (Some(tunnel.way), silence(lost), None),
            // Nobody sends to it, so nobody knows: it has to answer first.
            (Some(fallen), Liveness::Unknown) => {
                let why = if fallen.why == Why::HoldDown { Why::NoAnswer } else { fallen.why };
                (Some(tunnel.way), why, None)
            }
            (Some(fallen), Liveness::Alive) => {
                let since = fallen.direct_since.unwrap_or(now);
                let over = now >= since + fallen.hold.unwrap_or(shortest.0);
                if over || tunnel.liveness.is_lost() {
                    let silent = fallen.left == Some(Why::ProbeLost);
                    let why = if silent { Why::ProbeAnswered } else { Why::HoldDownOver };
                    (Some(direct.way), why, None)
                } else {
                    (Some(tunnel.way), Why::HoldDown, Some(since))
                }
            }
            (None, Liveness::Dead | Liveness::Silent) if tunnel.liveness.is_lost() => {
                (Some(direct.way), Why::NothingBetter, None)
            }
            (None, lost @ (Liveness::Dead | Liveness::Silent)) => (Some(tunnel.way), silence(lost), None),
            (None, Liveness::Unknown | Liveness::Alive) => {
                let why = past
                    .filter(|past| matches!(past.why, Why::HoldDownOver | Why::ProbeAnswered))
                    .filter(|past| past.way.as_ref() == Some(&direct.way));
                (Some(direct.way.clone()), why.map_or(found(&direct.way), |past| past.why), None)
            }
        },
    }
}

/// Who does not answer on a way that is lost.
fn silence(liveness: Liveness) -> Why {
    if liveness == Liveness::Silent { Why::ProbeLost } else { Why::NoAnswer }
}

fn found(way: &Way) -> Why {
    match way {
        Way::Neighbour(_) => Why::Neighbour,
        Way::Fabric { .. } => Why::FabricRoute,
        Way::Tunnel { .. } => Why::NoDirectWay,
    }
}

/// Why packets are encapsulated when no direct way is there.
fn lost(past: Option<&Choice>) -> Why {
    match past {
        Some(past) if past.is_direct() || past.hold.is_some() => Why::DirectGone,
        Some(_) | None => Why::NoDirectWay,
    }
}

fn hold_after_loss(past: &Choice, shortest: HoldDown, now: Instant) -> Duration {
    let stood = now.saturating_duration_since(past.turned);
    match past.hold {
        Some(hold) if stood < shortest.longest() => (hold * 2).min(shortest.longest()),
        Some(_) | None => shortest.0,
    }
}

#[cfg(test)]
mod tests;
