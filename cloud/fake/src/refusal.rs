// SPDX-License-Identifier: Apache-2.0
//! What EC2 says when it does not do what it is asked: code, message, HTTP status.

use std::borrow::Cow;
use std::fmt::Display;

use rhumb_model::{AttachmentId, EniId, InstanceId, SecurityGroupId, SubnetId, VpcId};
use serde::{Deserialize, Serialize};

/// An error reply of EC2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The code that clients match on.
    pub code: Cow<'static, str>,
    /// Text for people; clients also match on some of these.
    pub message: String,
    /// HTTP status.
    pub status: u16,
}

impl Refusal {
    /// A refusal of a request that is wrong or cannot be met: status 400.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), message: message.into(), status: 400 }
    }

    /// The action was asked for too often (503).
    pub fn throttled() -> Self {
        let message = "Request limit exceeded.".to_owned();
        Self { code: Cow::Borrowed("RequestLimitExceeded"), message, status: 503 }
    }

    pub(crate) fn dry_run() -> Self {
        let message = "Request would have succeeded, but DryRun flag is set.".to_owned();
        Self { code: Cow::Borrowed("DryRunOperation"), message, status: 412 }
    }

    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    pub(crate) fn combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", message)
    }

    pub(crate) fn missing(parameter: impl Display) -> Self {
        Self::new("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }

    pub(crate) fn no_interface(id: &EniId) -> Self {
        Self::new(
            "InvalidNetworkInterfaceID.NotFound",
            format!("The networkInterface ID '{id}' does not exist"),
        )
    }

    pub(crate) fn no_instance(id: &InstanceId) -> Self {
        Self::new("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
    }

    pub(crate) fn no_attachment(id: &AttachmentId) -> Self {
        Self::new("InvalidAttachmentID.NotFound", format!("The attachment ID '{id}' does not exist"))
    }

    pub(crate) fn no_subnet(id: &SubnetId) -> Self {
        Self::new("InvalidSubnetID.NotFound", format!("The subnet ID '{id}' does not exist"))
    }

    pub(crate) fn no_vpc(id: &VpcId) -> Self {
        Self::new("InvalidVpcID.NotFound", format!("The vpc ID '{id}' does not exist"))
    }

    pub(crate) fn no_group(id: &SecurityGroupId) -> Self {
        Self::new("InvalidGroup.NotFound", format!("The security group '{id}' does not exist"))
    }

    pub(crate) fn no_addresses() -> Self {
        Self::new(
            "InsufficientFreeAddressesInSubnet",
            "The specified subnet does not have enough free addresses to satisfy the request.",
        )
    }

    pub(crate) fn no_blocks() -> Self {
        Self::new(
            "InsufficientCidrBlocks",
            "The specified subnet does not have enough free cidr blocks to satisfy the request.",
        )
    }

    pub(crate) fn too_many_addresses() -> Self {
        Self::new("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
    }

    pub(crate) fn in_use(address: impl Display) -> Self {
        Self::new("InvalidIPAddress.InUse", format!("Address {address} is in use."))
    }
}
