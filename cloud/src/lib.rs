// SPDX-License-Identifier: Apache-2.0
//! What rhumb needs of a cloud: interfaces and addresses, and how often it may ask.
//!
//! ```text
//!   operator ─► Provider (a trait; cloud/aws is EC2 behind it)
//!                  │ every request of every page
//!                  ▼
//!               Pacer: one Bucket per Action, those that pods wait for first ─► the cloud
//!                  ▲                                                              │
//!                  └────────── Outcome, by the table of codes ◄───────────────────┘
//! ```
//!
//! [`imds`] tells an agent which instance it runs on, [`limits`] what an instance type can have.
#![warn(missing_docs)]

mod action;
mod bucket;
mod codes;
mod error;
pub mod imds;
pub mod limits;
mod pacer;
mod provider;
mod request;

pub use action::{Action, Rate};
pub use bucket::Bucket;
pub use error::{Class, CloudError};
pub use pacer::{ActionReport, Outcome, Pacer, Priority};
pub use provider::Provider;
pub use request::{
    Amount, Assigned, AttachEni, AttachmentRef, CreateEni, EniFilter, InstanceFilter, SecurityGroup,
    UnassignAddresses, V4Slots, Vpc,
};
