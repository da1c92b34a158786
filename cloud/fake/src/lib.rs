// SPDX-License-Identifier: Apache-2.0
//! An EC2 in memory that refuses what the real one refuses.

mod answer;
mod call;
mod config;
mod fake;
mod faults;
mod filter;
mod imds;
mod invariants;
mod kinds;
mod ledger;
pub mod query;
mod random;
mod refusal;
pub mod server;
mod settings;
mod state;
mod throttle;

pub use answer::*;
pub use call::*;
pub use config::{Config, NewGroup, NewInstance, NewRange, Things};
pub use fake::{Fake, Outcome, Reply};
pub use faults::{Fault, Rule};
pub use imds::{Metadata, Window};
pub use invariants::{Broken, User, Violation};
pub use ledger::{Count, Entry, Ledger};
pub use refusal::Refusal;
pub use settings::{Choice, Settings, Span};
pub use state::{Hook, HookEvent, NewSubnet, NewVpc, World};
pub use throttle::{Limits, Rate};
