// SPDX-License-Identifier: Apache-2.0
//! The control packet (RFC 5880 §4.1) and the checks that need nothing but its bytes (§6.8.6).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! | Vers|  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! |                       My Discriminator                        |
//! |                      Your Discriminator                       |
//! |              Desired Min TX Interval, microseconds            |
//! |             Required Min RX Interval, microseconds            |
//! |          Required Min Echo RX Interval, microseconds          |
//! ```

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// Octets of a control packet without an authentication section.
pub const LENGTH: usize = 24;

/// Octets that a packet with an authentication section has at least (RFC 5880 §6.8.6).
const LENGTH_AUTHENTICATED: u8 = 26;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session (RFC 5880 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by somebody's will.
    AdminDown,
    /// Nothing is heard, or the session has just been made.
    Down,
    /// The other end is heard, and does not hear us yet.
    Init,
    /// Both ends hear each other.
    Up,
}

impl State {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    fn code(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "admin down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        })
    }
}

/// Why a session last left a state: five bits (RFC 5880 §4.1); those above 8 are reserved and kept as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// No diagnostic.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The other end says that it is down.
    pub const NEIGHBOUR_SIGNALED_DOWN: Self = Self(3);
    /// Held down by somebody's will.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);

    /// The code in a packet; only its five low bits count.
    pub const fn from_code(code: u8) -> Self {
        Self(code & 0x1f)
    }

    /// The code in a packet, 0 to 31.
    pub const fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbour signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => return write!(f, "diagnostic {}", self.0),
        })
    }
}

/// A control packet that passed every check of its own bytes. Intervals are whole microseconds below 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last changed its state.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender asks for an answer with `final_answer` set.
    pub poll: bool,
    /// The answer to a poll.
    pub final_answer: bool,
    /// The sender's BFD does not share the fate of its control plane (the C bit).
    pub control_plane_independent: bool,
    /// The sender asks not to be sent packets periodically.
    pub demand: bool,
    /// Packets that may be missing in a row before the sender is given up.
    pub detect_multiplier: NonZeroU8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// Our name for the session, as the sender has heard it; 0 when it has not.
    pub your_discriminator: u32,
    /// The shortest time between packets at which the sender would like to send.
    pub desired_min_tx: Duration,
    /// The shortest time between packets that the sender can take; 0: none at all, periodically.
    pub required_min_rx: Duration,
    /// The same for echo packets; 0: none.
    pub required_min_echo_rx: Duration,
}

/// Why a packet is not read (RFC 5880 §6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its header, or its length field is shorter than a packet can be.
    #[error("read a BFD packet: too short")]
    Short,
    /// The length field is greater than what came.
    #[error("read a BFD packet: its length field is greater than the packet")]
    Length,
    /// A version other than 1.
    #[error("read a BFD packet: version {0} instead of 1")]
    Version(u8),
    /// The detect multiplier is 0.
    #[error("read a BFD packet: detect multiplier 0")]
    DetectMultiplier,
    /// The multipoint bit is set.
    #[error("read a BFD packet: the multipoint bit is set")]
    Multipoint,
    /// The sender's discriminator is 0.
    #[error("read a BFD packet: the sender has no discriminator")]
    MyDiscriminator,
    /// Our discriminator is 0 although the sender says it hears us.
    #[error("read a BFD packet: in state {0} without our discriminator")]
    YourDiscriminator(State),
    /// The sender authenticates; rhumb offers no authentication.
    #[error("read a BFD packet: authentication is not offered")]
    Authentication,
}

impl Packet {
    /// Reads a packet from what a datagram carried; octets behind its length field are passed over.
    ///
    /// # Errors
    /// The first check of RFC 5880 §6.8.6 that the bytes do not pass.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        let Some((head, _)) = bytes.split_first_chunk::<LENGTH>() else { return Err(PacketError::Short) };
        let [first, flags, multiplier, length, ..] = *head;
        if first >> 5 != VERSION {
            return Err(PacketError::Version(first >> 5));
        }
        let authenticated = flags & AUTHENTICATION != 0;
        if usize::from(length) < LENGTH || (authenticated && length < LENGTH_AUTHENTICATED) {
            return Err(PacketError::Short);
        }
        if usize::from(length) > bytes.len() {
            return Err(PacketError::Length);
        }
        let detect_multiplier = NonZeroU8::new(multiplier).ok_or(PacketError::DetectMultiplier)?;
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let my_discriminator = NonZeroU32::new(word(4)).ok_or(PacketError::MyDiscriminator)?;
        let state = State::ALL[usize::from(flags >> 6)];
        let your_discriminator = word(8);
        if your_discriminator == 0 && matches!(state, State::Init | State::Up) {
            return Err(PacketError::YourDiscriminator(state));
        }
        if authenticated {
            return Err(PacketError::Authentication);
        }
        let interval = |at| Duration::from_micros(u64::from(word(at)));
        Ok(Self {
            diagnostic: Diagnostic::from_code(first),
            state,
            poll: flags & POLL != 0,
            final_answer: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: interval(12),
            required_min_rx: interval(16),
            required_min_echo_rx: interval(20),
        })
    }

    /// The packet's bytes. An interval that does not fit is sent as the longest that does, 71 minutes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let micros =
            |interval: Duration| u32::try_from(interval.as_micros()).unwrap_or(u32::MAX).to_be_bytes();
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION << 5 | self.diagnostic.code();
        bytes[1] = self.state.code() << 6
            | bit(self.poll, POLL)
            | bit(self.final_answer, FINAL)
            | bit(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | bit(self.demand, DEMAND);
        bytes[2] = self.detect_multiplier.get();
        bytes[3] = LENGTH as u8;
        bytes[4..8].copy_from_slice(&self.my_discriminator.get().to_be_bytes());
        bytes[8..12].copy_from_slice(&self.your_discriminator.to_be_bytes());
        bytes[12..16].copy_from_slice(&micros(self.desired_min_tx));
        bytes[16..20].copy_from_slice(&micros(self.required_min_rx));
        bytes[20..24].copy_from_slice(&micros(self.required_min_echo_rx));
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests;
