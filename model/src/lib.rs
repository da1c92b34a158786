// SPDX-License-Identifier: Apache-2.0
//! The shared words of rhumb.
//!
//! Every room speaks in these types, and only in these: a value that crosses from one room to another is either
//! defined here or turned into one of these at the edge. Nothing here reads a clock, a file or the environment.

mod cloud;
mod diff;
pub mod law;
mod mac;
mod names;
mod prefix;
mod reconcile;
mod revision;
mod target;
mod time;

pub use cloud::{
    Attachment, AttachmentId, AttachmentStatus, CardLimit, Eni, EniId, EniStatus, Instance, InstanceId,
    InstanceLimits, InstanceState, ReservationId, ReservationKind, SecurityGroupId, Subnet, SubnetId,
    SubnetReservation, VpcId, Zone,
};
pub use diff::{Diff, diff};
pub use mac::MacAddr;
pub use names::{AttachmentKey, ContainerId, IfName, NameError, NodeName, PodKey, PoolName};
pub use prefix::{Family, Prefix, PrefixError};
pub use reconcile::{Failure, Outcome, Reconciler};
pub use revision::Revision;
pub use target::Target;
pub use time::Timestamp;
