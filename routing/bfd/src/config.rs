// SPDX-License-Identifier: Apache-2.0
//! What a session is told: whom it watches and how fast.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use rhumb_model::IfName;

use crate::packet::{Diagnostic, State};

/// Whether the other end is on the same link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hops {
    /// On the same link: port 3784, and packets that were forwarded are not taken (RFC 5881).
    Single,
    /// Anywhere: port 4784 (RFC 5883).
    Multi,
}

/// Whom a session watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The other end's address.
    pub peer: IpAddr,
    /// Our own address; any when there is none.
    pub local: Option<IpAddr>,
    /// The link that packets leave by and come by; any when there is none. A link-local peer needs one.
    pub interface: Option<IfName>,
    /// Whether the other end is on the same link.
    pub hops: Hops,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        if let Some(interface) = &self.interface {
            write!(f, "%{interface}")?;
        }
        match self.hops {
            Hops::Single => Ok(()),
            Hops::Multi => f.write_str(" multihop"),
        }
    }
}

/// How fast a session is, as its owner wishes; the other end may slow it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    desired_min_tx: Duration,
    required_min_rx: Duration,
    multiplier: NonZeroU8,
}

/// A configuration that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An interval out of range.
    #[error("BFD interval {0:?}: must be from 10 ms to 60 s")]
    Interval(Duration),
    /// A multiplier of 0.
    #[error("BFD multiplier 0: at least one packet must be missing")]
    Multiplier,
}

impl Config {
    /// The shortest and the longest interval that is taken.
    pub const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

    /// Checks the values: how often to send at most, how often to be sent to at most, and how many packets may be
    /// missing in a row.
    ///
    /// # Errors
    /// [`ConfigError`] names the value that is out of range.
    pub fn new(
        desired_min_tx: Duration,
        required_min_rx: Duration,
        multiplier: u8,
    ) -> Result<Self, ConfigError> {
        for interval in [desired_min_tx, required_min_rx] {
            if !(Self::INTERVALS.0..=Self::INTERVALS.1).contains(&interval) {
                return Err(ConfigError::Interval(interval));
            }
        }
        let multiplier = NonZeroU8::new(multiplier).ok_or(ConfigError::Multiplier)?;
        Ok(Self { desired_min_tx, required_min_rx, multiplier })
    }

    /// The shortest time between packets sent while the session is up.
    pub fn desired_min_tx(&self) -> Duration {
        self.desired_min_tx
    }

    /// The shortest time between packets that is asked of the other end.
    pub fn required_min_rx(&self) -> Duration {
        self.required_min_rx
    }

    /// Packets of ours that may be missing in a row before the other end gives us up.
    pub fn multiplier(&self) -> NonZeroU8 {
        self.multiplier
    }
}

/// What the owner of a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Both ends hear each other.
    Up,
    /// A session that was up is down: the path, or the other end's BFD, has failed.
    Down(Diagnostic),
    /// The other end holds its session down by somebody's will. That says nothing about the path, and a client does not
    /// fail on it (RFC 5882 §3.2).
    AdminDown,
}

/// A change, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The session.
    pub key: SessionKey,
    /// What became of it.
    pub change: Change,
    /// What the other end's BFD goes with.
    pub fate: Fate,
}

/// Whether the other end's BFD fails together with its control plane (RFC 5880 §4.1, the C bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does: silence can be a restart of the control plane.
    Shared,
    /// It does not: silence is the path's.
    Independent,
}

/// A session as it stands, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The session.
    pub key: SessionKey,
    /// Its state.
    pub state: State,
    /// Why it is in this state; none while it is up.
    pub diagnostic: Diagnostic,
    /// The other end's state, as it last said.
    pub remote_state: State,
    /// Why the other end's session is in its state, as it said.
    pub remote_diagnostic: Diagnostic,
    /// What the other end's BFD goes with, as it said when it was last up.
    pub remote_fate: Fate,
    /// Our name for the session.
    pub discriminator: u32,
    /// The other end's; 0 when it is not heard.
    pub remote_discriminator: u32,
    /// Time between packets sent, before jitter; none when nothing is sent periodically.
    pub transmit_interval: Option<Duration>,
    /// Time without packets after which the other end is given up; none when it is not heard.
    pub detection_time: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_out_of_range_and_a_multiplier_of_none_are_refused() {
        let ms = Duration::from_millis;
        assert!(Config::new(ms(50), ms(50), 3).is_ok());
        assert_eq!(Config::new(ms(9), ms(50), 3), Err(ConfigError::Interval(ms(9))));
        assert_eq!(Config::new(ms(50), ms(60_001), 3), Err(ConfigError::Interval(ms(60_001))));
        assert_eq!(Config::new(ms(50), ms(50), 0), Err(ConfigError::Multiplier));
    }
}
