// SPDX-License-Identifier: Apache-2.0
//! What the cloud's error codes mean for the one who asked.
//!
//! Sources: the EC2 API reference (Error codes for the Amazon EC2 API), its guide to throttling, and the VPC guide
//! for Network Address Usage. What is not here is decided by the HTTP status: 5xx is transient, 4xx is terminal.

use Class::{
    Gone, RefreshAndRetry as Refresh, StopAndReport as Stop, Terminal, Transient, TrySiblingSubnet as Sibling,
};

use crate::Class;

/// Code and class, by code.
pub(crate) const CODES: &[(&str, Class)] = &[
    ("AddressLimitExceeded", Stop),
    ("AttachmentLimitExceeded", Refresh),
    ("AuthFailure", Terminal),
    ("Blocked", Terminal),
    ("DependencyViolation", Refresh),
    ("DryRunOperation", Terminal),
    ("EC2ThrottledException", Transient),
    ("ExpiredToken", Terminal),
    ("ExpiredTokenException", Terminal),
    // Something was made by this token, by a request that differs.
    ("IdempotentParameterMismatch", Refresh),
    ("IncorrectInstanceState", Refresh),
    ("IncorrectState", Refresh),
    ("IncompleteSignature", Terminal),
    ("InsufficientCapacity", Transient),
    ("InsufficientCidrBlocks", Sibling),
    ("InsufficientFreeAddressesInSubnet", Sibling),
    ("InternalError", Transient),
    ("InternalFailure", Transient),
    ("InternalServerError", Transient),
    ("InvalidAction", Terminal),
    ("InvalidAttachment.NotFound", Gone),
    ("InvalidAttachmentID.NotFound", Gone),
    ("InvalidClientTokenId", Terminal),
    ("InvalidGroup.NotFound", Stop),
    ("InvalidIPAddress.InUse", Refresh),
    ("InvalidInstance", Refresh),
    ("InvalidInstanceID", Refresh),
    ("InvalidInstanceID.NotFound", Gone),
    ("InvalidInstanceType", Gone),
    ("InvalidNetworkInterface.InUse", Refresh),
    ("InvalidNetworkInterface.NotFound", Gone),
    ("InvalidNetworkInterfaceAttachmentId.NotFound", Gone),
    ("InvalidNetworkInterfaceId.NotFound", Gone),
    ("InvalidNetworkInterfaceID.NotFound", Gone),
    ("InvalidParameterCombination", Terminal),
    ("InvalidParameterValue", Terminal),
    ("InvalidSecurityGroupID.NotFound", Stop),
    ("InvalidSubnet.Conflict", Sibling),
    ("InvalidSubnetID.NotFound", Stop),
    ("InvalidVpcID.NotFound", Stop),
    ("MissingParameter", Terminal),
    ("NetworkAddressUsageLimitExceeded", Stop),
    ("NetworkAddressUsagePeeredLimitExceeded", Stop),
    ("NetworkInterfaceLimitExceeded", Stop),
    ("NotInitialized", Transient),
    ("OperationNotPermitted", Refresh),
    ("OptInRequired", Terminal),
    ("PrivateIpAddressLimitExceeded", Refresh),
    ("PrivateIpAddressNotFound", Refresh),
    ("RequestExpired", Transient),
    ("RequestLimitExceeded", Transient),
    ("RequestThrottled", Transient),
    ("RequestTimeout", Transient),
    ("ResourceLimitExceeded", Stop),
    ("SecurityGroupsPerInterfaceLimitExceeded", Stop),
    ("ServerInternal", Transient),
    ("ServiceUnavailable", Transient),
    ("SignatureDoesNotMatch", Terminal),
    ("SlowDown", Transient),
    ("SubnetCidrReservationLimitExceeded", Stop),
    ("Throttling", Transient),
    ("ThrottlingException", Transient),
    ("UnauthorizedOperation", Terminal),
    ("Unavailable", Transient),
    ("UnknownParameter", Terminal),
    ("UnsupportedOperation", Terminal),
    ("ValidationError", Terminal),
];

/// Codes that say that too much was asked.
pub(crate) const THROTTLE: &[&str] = &[
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
];

/// Codes of which the text decides: part of it in lower case, and the class.
pub(crate) const TEXTS: &[(&str, &str, Class)] = &[
    ("InvalidParameterValue", "insufficient free", Sibling),
    ("InvalidParameterValue", "not enough free", Sibling),
    ("InvalidParameterValue", "no free", Sibling),
    ("InvalidParameterValue", "insufficient cidr", Sibling),
    ("InvalidParameterValue", "device index", Refresh),
    ("InvalidParameterValue", "already attached", Refresh),
    ("InvalidParameterValue", "in use", Refresh),
    ("InvalidParameterValue", "is currently in use", Refresh),
    ("InvalidParameterValue", "not assigned", Refresh),
    ("InvalidParameterValue", "are not assigned", Refresh),
    ("InvalidParameterValue", "is not available", Refresh),
];

/// What would help, for the person on call; by code.
pub(crate) const HELP: &[(&str, &str)] = &[
    ("AttachmentLimitExceeded", "a larger instance type: this one has no place for another interface"),
    ("AuthFailure", "check the operator's credentials"),
    ("ExpiredToken", "renew the operator's credentials"),
    (
        "InsufficientCidrBlocks",
        "reserve a part of the subnet for prefixes (subnet CIDR reservation), or add a subnet: this one has no aligned block of 16 free addresses",
    ),
    ("InsufficientFreeAddressesInSubnet", "add a subnet of the same zone to the ENIPool: this one is full"),
    ("InvalidGroup.NotFound", "correct securityGroups of the ENIPool"),
    ("InvalidSecurityGroupID.NotFound", "correct securityGroups of the ENIPool"),
    ("InvalidSubnetID.NotFound", "correct subnets of the ENIPool"),
    (
        "NetworkAddressUsageLimitExceeded",
        "have the VPC's quota of Network Address Usage raised, or use mode: prefixes, which takes one unit for 16 addresses",
    ),
    (
        "NetworkAddressUsagePeeredLimitExceeded",
        "have the quota of Network Address Usage of the peered VPCs raised, or use mode: prefixes",
    ),
    (
        "NetworkInterfaceLimitExceeded",
        "have the account's quota of network interfaces in this Region raised (Service Quotas, Amazon VPC)",
    ),
    ("OptInRequired", "allow the account to use EC2 in this Region"),
    (
        "PrivateIpAddressLimitExceeded",
        "a larger instance type: the interface has as many addresses as this one allows",
    ),
    (
        "SecurityGroupsPerInterfaceLimitExceeded",
        "name fewer security groups in the ENIPool, or have the account's quota of them raised",
    ),
    (
        "UnauthorizedOperation",
        "allow the action in the operator's IAM policy (docs/operations.md has the list)",
    ),
];
