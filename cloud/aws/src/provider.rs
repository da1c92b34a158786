// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use aws_sdk_ec2::types;
use rhumb_cloud::{
    Action, Amount, Assigned, AttachEni, AttachmentRef, CloudError, CreateEni, EniFilter, InstanceFilter,
    Priority, Provider, SecurityGroup, UnassignAddresses, V4Slots, Vpc,
};
use rhumb_model::{
    AttachmentId, Eni, EniId, Instance, InstanceLimits, Prefix, ReservationId, ReservationKind,
    SecurityGroupId, Subnet, SubnetId, SubnetReservation, VpcId,
};

use crate::client::Aws;
use crate::convert;

/// Things of one answer: the most that EC2 gives. Without a size, a large account's describes are refused
/// (`OperationNotPermitted`), and cost more of the allowance.
const PAGE: i32 = 1000;
/// The most instance types of one answer.
const TYPES_PAGE: i32 = 100;
/// The most values of one filter.
const VALUES: usize = 200;

/// Asks for page after page: `$next` is bound to the token, the rest is the builder, the items of an answer, and what
/// becomes of one.
macro_rules! pages {
    ($self:ident, $action:expr, $priority:ident, $builder:expr, |$answer:ident| $items:expr, $read:expr) => {{
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let request = $builder.set_next_token(next.take()).send();
            let $answer = $self.ask($action, $priority, request).await?;
            found.extend($items.filter_map($read));
            next = $answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                break found;
            }
        }
    }};
}

impl Provider for Aws {
    async fn instances(
        &self,
        priority: Priority,
        filter: &InstanceFilter,
    ) -> Result<Vec<Instance>, CloudError> {
        let mut found = Vec::new();
        for ids in batches(&filter.ids) {
            let filters: Vec<types::Filter> =
                values("instance-id", ids).into_iter().chain(values("vpc-id", &filter.vpcs)).collect();
            found.extend(pages!(
                self,
                Action::DescribeInstances,
                priority,
                self.ec2.describe_instances().max_results(PAGE).set_filters(Some(filters.clone())),
                |answer| answer.reservations().iter().flat_map(|reservation| reservation.instances()),
                convert::instance
            ));
        }
        Ok(found)
    }

    async fn enis(&self, priority: Priority, filter: &EniFilter) -> Result<Vec<Eni>, CloudError> {
        let mut filters = tag_filters(&filter.tags);
        filters.extend(values("vpc-id", &filter.vpcs));
        Ok(pages!(
            self,
            Action::DescribeNetworkInterfaces,
            priority,
            self.ec2.describe_network_interfaces().max_results(PAGE).set_filters(Some(filters.clone())),
            |answer| answer.network_interfaces().iter(),
            convert::eni
        ))
    }

    async fn subnets(&self, priority: Priority, vpcs: &[VpcId]) -> Result<Vec<Subnet>, CloudError> {
        let filters: Vec<types::Filter> = values("vpc-id", vpcs).into_iter().collect();
        Ok(pages!(
            self,
            Action::DescribeSubnets,
            priority,
            self.ec2.describe_subnets().max_results(PAGE).set_filters(Some(filters.clone())),
            |answer| answer.subnets().iter(),
            convert::subnet
        ))
    }

    async fn security_groups(
        &self,
        priority: Priority,
        vpcs: &[VpcId],
    ) -> Result<Vec<SecurityGroup>, CloudError> {
        let filters: Vec<types::Filter> = values("vpc-id", vpcs).into_iter().collect();
        Ok(pages!(
            self,
            Action::DescribeSecurityGroups,
            priority,
            self.ec2.describe_security_groups().max_results(PAGE).set_filters(Some(filters.clone())),
            |answer| answer.security_groups().iter(),
            convert::security_group
        ))
    }

    async fn vpcs(&self, priority: Priority, ids: &[VpcId]) -> Result<Vec<Vpc>, CloudError> {
        let filters: Vec<types::Filter> = values("vpc-id", ids).into_iter().collect();
        Ok(pages!(
            self,
            Action::DescribeVpcs,
            priority,
            self.ec2.describe_vpcs().max_results(PAGE).set_filters(Some(filters.clone())),
            |answer| answer.vpcs().iter(),
            convert::vpc
        ))
    }

    async fn instance_limits(
        &self,
        priority: Priority,
        kinds: &[String],
    ) -> Result<BTreeMap<String, InstanceLimits>, CloudError> {
        if kinds.is_empty() {
            return Ok(BTreeMap::new());
        }
        // As a filter, not as a list: one type that is not there would refuse them all.
        let filters: Vec<types::Filter> = values("instance-type", kinds).into_iter().collect();
        let found = pages!(
            self,
            Action::DescribeInstanceTypes,
            priority,
            self.ec2.describe_instance_types().max_results(TYPES_PAGE).set_filters(Some(filters.clone())),
            |answer| answer.instance_types().iter(),
            convert::limits
        );
        Ok(found.into_iter().collect())
    }

    async fn create_eni(&self, priority: Priority, request: &CreateEni) -> Result<Eni, CloudError> {
        let mut call = self
            .ec2
            .create_network_interface()
            .client_token(&request.token)
            .subnet_id(request.subnet.as_str())
            .description(&request.description)
            .set_groups(convert::texts(&request.groups))
            .set_private_ip_address(request.primary.map(|primary| primary.to_string()));
        if !request.tags.is_empty() {
            let tags = types::TagSpecification::builder()
                .resource_type(types::ResourceType::NetworkInterface)
                .set_tags(Some(convert::sdk_tags(&request.tags)));
            call = call.tag_specifications(tags.build());
        }
        call = match &request.v4 {
            None => call,
            Some(V4Slots::Addresses(Amount::Count(count))) => {
                call.secondary_private_ip_address_count(i32::from(*count))
            }
            Some(V4Slots::Addresses(Amount::Exactly(addresses))) => {
                let all = addresses.iter().map(|address| {
                    let one = types::PrivateIpAddressSpecification::builder();
                    one.private_ip_address(address.to_string()).primary(false).build()
                });
                call.set_private_ip_addresses(Some(all.collect()))
            }
            Some(V4Slots::Prefixes(Amount::Count(count))) => call.ipv4_prefix_count(i32::from(*count)),
            Some(V4Slots::Prefixes(Amount::Exactly(prefixes))) => {
                let all = prefixes.iter().map(|prefix| {
                    types::Ipv4PrefixSpecificationRequest::builder().ipv4_prefix(prefix.to_string()).build()
                });
                call.set_ipv4_prefixes(Some(all.collect()))
            }
        };
        if request.prefixes_v6 > 0 {
            call = call.ipv6_prefix_count(i32::from(request.prefixes_v6));
        }
        let action = Action::CreateNetworkInterface;
        let answer = self.ask(action, priority, call.send()).await?;
        answer.network_interface().and_then(convert::eni).ok_or_else(|| incomplete(action, "the interface"))
    }

    async fn attach_eni(&self, priority: Priority, request: &AttachEni) -> Result<AttachmentId, CloudError> {
        let call = self
            .ec2
            .attach_network_interface()
            .network_interface_id(request.eni.as_str())
            .instance_id(request.instance.as_str())
            .device_index(i32::from(request.device_index))
            // Instances with one card refuse the parameter on some types.
            .set_network_card_index((request.card > 0).then(|| i32::from(request.card)));
        let action = Action::AttachNetworkInterface;
        let answer = self.ask(action, priority, call.send()).await?;
        let id = answer.attachment_id().and_then(|id| AttachmentId::new(id).ok());
        id.ok_or_else(|| incomplete(action, "the attachment"))
    }

    async fn detach_eni(&self, priority: Priority, attachment: &AttachmentRef) -> Result<(), CloudError> {
        let call = self.ec2.detach_network_interface().attachment_id(attachment.id.as_str());
        self.ask(Action::DetachNetworkInterface, priority, call.send()).await.map(drop)
    }

    async fn delete_eni(&self, priority: Priority, eni: &EniId) -> Result<(), CloudError> {
        let call = self.ec2.delete_network_interface().network_interface_id(eni.as_str());
        self.ask(Action::DeleteNetworkInterface, priority, call.send()).await.map(drop)
    }

    async fn set_delete_on_termination(
        &self,
        priority: Priority,
        eni: &EniId,
        attachment: &AttachmentId,
        delete: bool,
    ) -> Result<(), CloudError> {
        let change = types::NetworkInterfaceAttachmentChanges::builder()
            .attachment_id(attachment.as_str())
            .delete_on_termination(delete);
        let call = self.ec2.modify_network_interface_attribute().network_interface_id(eni.as_str());
        let call = call.attachment(change.build());
        self.ask(Action::ModifyNetworkInterfaceAttribute, priority, call.send()).await.map(drop)
    }

    async fn set_source_dest_check(
        &self,
        priority: Priority,
        eni: &EniId,
        check: bool,
    ) -> Result<(), CloudError> {
        let value = types::AttributeBooleanValue::builder().value(check).build();
        let call = self.ec2.modify_network_interface_attribute().network_interface_id(eni.as_str());
        let call = call.source_dest_check(value);
        self.ask(Action::ModifyNetworkInterfaceAttribute, priority, call.send()).await.map(drop)
    }

    async fn set_security_groups(
        &self,
        priority: Priority,
        eni: &EniId,
        groups: &[SecurityGroupId],
    ) -> Result<(), CloudError> {
        let call = self.ec2.modify_network_interface_attribute().network_interface_id(eni.as_str());
        let call = call.set_groups(convert::texts(groups));
        self.ask(Action::ModifyNetworkInterfaceAttribute, priority, call.send()).await.map(drop)
    }

    async fn assign_v4(
        &self,
        priority: Priority,
        eni: &EniId,
        slots: &V4Slots,
    ) -> Result<Assigned, CloudError> {
        let call = self.ec2.assign_private_ip_addresses().network_interface_id(eni.as_str());
        // What another interface has is not to be taken from it.
        let call = call.allow_reassignment(false);
        let call = match slots {
            V4Slots::Addresses(Amount::Count(count)) => {
                call.secondary_private_ip_address_count(i32::from(*count))
            }
            V4Slots::Addresses(Amount::Exactly(all)) => {
                call.set_private_ip_addresses(convert::addresses(all))
            }
            V4Slots::Prefixes(Amount::Count(count)) => call.ipv4_prefix_count(i32::from(*count)),
            V4Slots::Prefixes(Amount::Exactly(all)) => call.set_ipv4_prefixes(convert::texts(all)),
        };
        let answer = self.ask(Action::AssignPrivateIpAddresses, priority, call.send()).await?;
        Ok(convert::assigned_v4(answer.assigned_private_ip_addresses(), answer.assigned_ipv4_prefixes()))
    }

    async fn unassign(
        &self,
        priority: Priority,
        eni: &EniId,
        what: &UnassignAddresses,
    ) -> Result<(), CloudError> {
        let call = self
            .ec2
            .unassign_private_ip_addresses()
            .network_interface_id(eni.as_str())
            .set_private_ip_addresses(convert::addresses(&what.addresses))
            .set_ipv4_prefixes(convert::texts(&what.prefixes));
        self.ask(Action::UnassignPrivateIpAddresses, priority, call.send()).await.map(drop)
    }

    async fn assign_v6(
        &self,
        priority: Priority,
        eni: &EniId,
        prefixes: u16,
    ) -> Result<Assigned, CloudError> {
        let call = self.ec2.assign_ipv6_addresses().network_interface_id(eni.as_str());
        let call = call.ipv6_prefix_count(i32::from(prefixes));
        let answer = self.ask(Action::AssignIpv6Addresses, priority, call.send()).await?;
        Ok(convert::assigned_v6(answer.assigned_ipv6_prefixes()))
    }

    async fn reservations(
        &self,
        priority: Priority,
        subnet: &SubnetId,
    ) -> Result<Vec<SubnetReservation>, CloudError> {
        Ok(pages!(
            self,
            Action::GetSubnetCidrReservations,
            priority,
            self.ec2.get_subnet_cidr_reservations().subnet_id(subnet.as_str()).max_results(PAGE),
            |answer| {
                let v6 = answer.subnet_ipv6_cidr_reservations();
                answer.subnet_ipv4_cidr_reservations().iter().chain(v6)
            },
            convert::reservation
        ))
    }

    async fn reserve(
        &self,
        priority: Priority,
        subnet: &SubnetId,
        cidr: Prefix,
        kind: ReservationKind,
        tags: &BTreeMap<String, String>,
    ) -> Result<ReservationId, CloudError> {
        let kind = match kind {
            ReservationKind::Prefix => types::SubnetCidrReservationType::Prefix,
            ReservationKind::Explicit => types::SubnetCidrReservationType::Explicit,
        };
        let mut call = self
            .ec2
            .create_subnet_cidr_reservation()
            .subnet_id(subnet.as_str())
            .cidr(cidr.to_string())
            .reservation_type(kind);
        if !tags.is_empty() {
            let tags = types::TagSpecification::builder()
                .resource_type(types::ResourceType::SubnetCidrReservation)
                .set_tags(Some(convert::sdk_tags(tags)));
            call = call.tag_specifications(tags.build());
        }
        let action = Action::CreateSubnetCidrReservation;
        let answer = self.ask(action, priority, call.send()).await?;
        let made = answer.subnet_cidr_reservation().and_then(convert::reservation);
        made.map(|made| made.id).ok_or_else(|| incomplete(action, "the reservation"))
    }
}

fn incomplete(action: Action, what: &str) -> CloudError {
    CloudError::unanswered(action, CloudError::ANSWER, format!("{what} is not in the answer, or malformed"))
}

/// Ids in as many parts as filters take; one empty part when there are none, which filters nothing.
fn batches<T>(ids: &[T]) -> Vec<&[T]> {
    if ids.is_empty() { vec![ids] } else { ids.chunks(VALUES).collect() }
}

/// A filter for any of these values; none for no values.
fn values<T: ToString>(name: &str, values: &[T]) -> Option<types::Filter> {
    convert::texts(values).map(|values| types::Filter::builder().name(name).set_values(Some(values)).build())
}

fn one(name: &str, value: &str) -> types::Filter {
    types::Filter::builder().name(name).values(value).build()
}

fn tag_filters(tags: &BTreeMap<String, String>) -> Vec<types::Filter> {
    tags.iter().map(|(key, value)| one(&format!("tag:{key}"), value)).collect()
}
