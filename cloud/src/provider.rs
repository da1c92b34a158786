// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::future::Future;

use rhumb_model::{
    AttachmentId, Eni, EniId, Instance, InstanceLimits, Prefix, ReservationId, ReservationKind,
    SecurityGroupId, Subnet, SubnetId, SubnetReservation, VpcId,
};

use crate::{
    Assigned, AttachEni, AttachmentRef, CloudError, CreateEni, EniFilter, InstanceFilter, Priority,
    SecurityGroup, UnassignAddresses, V4Slots, Vpc,
};

/// A cloud, as the operator needs it.
///
/// Every request waits for its turn ([`crate::Pacer`]), has a deadline, and is sent once: what a failure allows is the
/// error's [`crate::Class`]. What is read may lag behind what was done by seconds. Cancelling a call that changes
/// something leaves open whether it took effect.
pub trait Provider: Send + Sync + 'static {
    /// Instances (`DescribeInstances`), those that are terminated too for as long as the cloud shows them.
    ///
    /// # Errors
    /// [`CloudError`].
    fn instances(
        &self,
        priority: Priority,
        filter: &InstanceFilter,
    ) -> impl Future<Output = Result<Vec<Instance>, CloudError>> + Send;

    /// Network interfaces (`DescribeNetworkInterfaces`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn enis(
        &self,
        priority: Priority,
        filter: &EniFilter,
    ) -> impl Future<Output = Result<Vec<Eni>, CloudError>> + Send;

    /// Subnets of these VPCs (`DescribeSubnets`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn subnets(
        &self,
        priority: Priority,
        vpcs: &[VpcId],
    ) -> impl Future<Output = Result<Vec<Subnet>, CloudError>> + Send;

    /// Security groups of these VPCs (`DescribeSecurityGroups`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn security_groups(
        &self,
        priority: Priority,
        vpcs: &[VpcId],
    ) -> impl Future<Output = Result<Vec<SecurityGroup>, CloudError>> + Send;

    /// VPCs with their blocks (`DescribeVpcs`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn vpcs(
        &self,
        priority: Priority,
        ids: &[VpcId],
    ) -> impl Future<Output = Result<Vec<Vpc>, CloudError>> + Send;

    /// What instances of these types can have (`DescribeInstanceTypes`); types that the cloud does not know are left
    /// out. For types that [`crate::limits::of`] does not have.
    ///
    /// # Errors
    /// [`CloudError`].
    fn instance_limits(
        &self,
        priority: Priority,
        kinds: &[String],
    ) -> impl Future<Output = Result<BTreeMap<String, InstanceLimits>, CloudError>> + Send;

    /// Makes a network interface (`CreateNetworkInterface`). The same token gives the same interface again.
    ///
    /// # Errors
    /// [`CloudError`].
    fn create_eni(
        &self,
        priority: Priority,
        request: &CreateEni,
    ) -> impl Future<Output = Result<Eni, CloudError>> + Send;

    /// Attaches an interface to an instance (`AttachNetworkInterface`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn attach_eni(
        &self,
        priority: Priority,
        request: &AttachEni,
    ) -> impl Future<Output = Result<AttachmentId, CloudError>> + Send;

    /// Takes an interface from its instance (`DetachNetworkInterface`). It takes seconds until it is available.
    ///
    /// # Errors
    /// [`CloudError`].
    fn detach_eni(
        &self,
        priority: Priority,
        attachment: &AttachmentRef,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Deletes an interface that nobody has (`DeleteNetworkInterface`).
    ///
    /// # Errors
    /// [`CloudError`]; of class [`crate::Class::Gone`] when it is not there.
    fn delete_eni(
        &self,
        priority: Priority,
        eni: &EniId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Lets an attached interface go with its instance, or not (`ModifyNetworkInterfaceAttribute`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn set_delete_on_termination(
        &self,
        priority: Priority,
        eni: &EniId,
        attachment: &AttachmentId,
        delete: bool,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Has the VPC drop packets with addresses that the interface does not have, or not
    /// (`ModifyNetworkInterfaceAttribute`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn set_source_dest_check(
        &self,
        priority: Priority,
        eni: &EniId,
        check: bool,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Puts these security groups in place of an interface's (`ModifyNetworkInterfaceAttribute`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn set_security_groups(
        &self,
        priority: Priority,
        eni: &EniId,
        groups: &[SecurityGroupId],
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Gives an interface more addresses or prefixes (`AssignPrivateIpAddresses`); answers those that are new.
    ///
    /// # Errors
    /// [`CloudError`]; with explicit ones a repetition does no harm.
    fn assign_v4(
        &self,
        priority: Priority,
        eni: &EniId,
        slots: &V4Slots,
    ) -> impl Future<Output = Result<Assigned, CloudError>> + Send;

    /// Takes addresses and prefixes of IPv4 from an interface (`UnassignPrivateIpAddresses`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn unassign(
        &self,
        priority: Priority,
        eni: &EniId,
        what: &UnassignAddresses,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Gives an interface so many /80 (`AssignIpv6Addresses`); answers those that are new.
    ///
    /// # Errors
    /// [`CloudError`].
    fn assign_v6(
        &self,
        priority: Priority,
        eni: &EniId,
        prefixes: u16,
    ) -> impl Future<Output = Result<Assigned, CloudError>> + Send;

    /// The parts of a subnet that are kept for prefixes or for explicit addresses (`GetSubnetCidrReservations`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn reservations(
        &self,
        priority: Priority,
        subnet: &SubnetId,
    ) -> impl Future<Output = Result<Vec<SubnetReservation>, CloudError>> + Send;

    /// Keeps a part of a subnet (`CreateSubnetCidrReservation`).
    ///
    /// # Errors
    /// [`CloudError`].
    fn reserve(
        &self,
        priority: Priority,
        subnet: &SubnetId,
        cidr: Prefix,
        kind: ReservationKind,
        tags: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<ReservationId, CloudError>> + Send;
}
