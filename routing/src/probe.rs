// SPDX-License-Identifier: Apache-2.0
//! The light probe between agents: does the node at this address still answer? Pure; sockets are the agent's.
//!
//! ```text
//!   asker ── question: number, whom it asks ──► the agent there answers with the same bytes, but for one
//!         ── echo request, when no answer came ─► the kernel there answers, whatever became of the agent
//! ```
//! A node is silent when an answer once came from that address, and then neither an answer nor any other sign of life
//! for some questions in a row. So an agent that is old, stopped or replaced takes no way down: its kernel answers.

mod answers;
mod datagram;
mod echo;
mod fsm;

pub use answers::{Answers, Ignored};
pub use datagram::{Datagram, DatagramError, Kind, LONGEST};
pub use echo::{Sign, read, request};
pub use fsm::{Ask, Prober, Row, Settings, State};
