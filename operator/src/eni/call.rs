// SPDX-License-Identifier: Apache-2.0
//! One planned call, made: the plan's words to the cloud's, and what came of it back to the plan's.

use std::net::{IpAddr, Ipv4Addr};

use rhumb_cloud::{
    Amount, Assigned, AttachEni, AttachmentRef, Class, CloudError, CreateEni, Priority, Provider,
    UnassignAddresses, V4Slots,
};
use rhumb_ipam::eni::{self, Action, Addresses, Fault, Planned, Reply, TAG_NODE};
use rhumb_model::{Prefix, ReservationKind};

use crate::failpoint;

/// Makes the call, once.
///
/// # Errors
/// What the cloud said; [`fault`] makes of it what the plan is to know.
pub(crate) async fn make<P: Provider>(provider: &P, planned: &Planned) -> Result<Reply, CloudError> {
    let (before, after) = points(&planned.action);
    failpoint::pass(before);
    let result = ask(provider, priority(planned.priority), &planned.action).await;
    failpoint::pass(after);
    match (&planned.action, result) {
        // What was to go is gone.
        (Action::Delete { .. } | Action::Detach { .. }, Err(error)) if error.class == Class::Gone => {
            Ok(Reply::Done)
        }
        (_, result) => result,
    }
}

/// Where a test makes the operator die: before the call, and when it has ended. The names are whole here, so that the
/// test of all of them finds them in the source.
fn points(action: &Action) -> (&'static str, &'static str) {
    match action {
        Action::Create { .. } => {
            ("operator.eni.before.CreateNetworkInterface", "operator.eni.after.CreateNetworkInterface")
        }
        Action::Attach { .. } => {
            ("operator.eni.before.AttachNetworkInterface", "operator.eni.after.AttachNetworkInterface")
        }
        Action::SetDeleteOnTermination { .. } => (
            "operator.eni.before.ModifyNetworkInterfaceAttribute.DeleteOnTermination",
            "operator.eni.after.ModifyNetworkInterfaceAttribute.DeleteOnTermination",
        ),
        Action::SwitchOffSourceDestCheck { .. } => (
            "operator.eni.before.ModifyNetworkInterfaceAttribute.SourceDestCheck",
            "operator.eni.after.ModifyNetworkInterfaceAttribute.SourceDestCheck",
        ),
        Action::SetGroups { .. } => (
            "operator.eni.before.ModifyNetworkInterfaceAttribute.Groups",
            "operator.eni.after.ModifyNetworkInterfaceAttribute.Groups",
        ),
        Action::Assign { .. } => {
            ("operator.eni.before.AssignPrivateIpAddresses", "operator.eni.after.AssignPrivateIpAddresses")
        }
        Action::AssignV6 { .. } => {
            ("operator.eni.before.AssignIpv6Addresses", "operator.eni.after.AssignIpv6Addresses")
        }
        Action::Unassign { .. } => (
            "operator.eni.before.UnassignPrivateIpAddresses",
            "operator.eni.after.UnassignPrivateIpAddresses",
        ),
        Action::Detach { .. } => {
            ("operator.eni.before.DetachNetworkInterface", "operator.eni.after.DetachNetworkInterface")
        }
        Action::Delete { .. } => {
            ("operator.eni.before.DeleteNetworkInterface", "operator.eni.after.DeleteNetworkInterface")
        }
        Action::Reserve { .. } => (
            "operator.eni.before.CreateSubnetCidrReservation",
            "operator.eni.after.CreateSubnetCidrReservation",
        ),
    }
}

async fn ask<P: Provider>(provider: &P, priority: Priority, action: &Action) -> Result<Reply, CloudError> {
    match action {
        Action::Create { subnet, groups, primary, addresses, prefixes_v6, tags, token, .. } => {
            let node = tags.get(TAG_NODE).map_or("", String::as_str);
            let request = CreateEni {
                token: token.clone(),
                subnet: subnet.clone(),
                groups: groups.clone(),
                description: format!("rhumb: pods of node {node}"),
                primary: *primary,
                v4: slots(addresses),
                prefixes_v6: *prefixes_v6,
                tags: tags.clone(),
            };
            let made = provider.create_eni(priority, &request).await?;
            Ok(Reply::Created(Box::new(made)))
        }
        Action::Attach { eni, instance, device_index, card, .. } => {
            let (eni, instance) = (eni.clone(), instance.clone());
            let request = AttachEni { eni, instance, device_index: *device_index, card: *card };
            provider.attach_eni(priority, &request).await.map(Reply::Attached)
        }
        Action::SetDeleteOnTermination { eni, attachment } => {
            provider.set_delete_on_termination(priority, eni, attachment, true).await.map(|()| Reply::Done)
        }
        Action::SwitchOffSourceDestCheck { eni } => {
            provider.set_source_dest_check(priority, eni, false).await.map(|()| Reply::Done)
        }
        Action::SetGroups { eni, groups } => {
            provider.set_security_groups(priority, eni, groups).await.map(|()| Reply::Done)
        }
        Action::Assign { eni, addresses, .. } => match slots(addresses) {
            Some(slots) => provider.assign_v4(priority, eni, &slots).await.map(assigned),
            None => Ok(Reply::Assigned(Vec::new())),
        },
        Action::AssignV6 { eni, .. } => provider.assign_v6(priority, eni, 1).await.map(assigned),
        Action::Unassign { eni, blocks, .. } => {
            let (addresses, prefixes) = parts(blocks);
            let what = UnassignAddresses { addresses, prefixes };
            provider.unassign(priority, eni, &what).await.map(|()| Reply::Done)
        }
        Action::Detach { eni, attachment, .. } => {
            let attachment = AttachmentRef { id: attachment.clone(), eni: eni.clone() };
            provider.detach_eni(priority, &attachment).await.map(|()| Reply::Done)
        }
        Action::Delete { eni } => provider.delete_eni(priority, eni).await.map(|()| Reply::Done),
        Action::Reserve { subnet, cidr, tags } => {
            let kind = ReservationKind::Prefix;
            provider.reserve(priority, subnet, *cidr, kind, tags).await.map(Reply::Reserved)
        }
    }
}

/// One request takes addresses or prefixes: of both, prefixes first; the plan asks for what is still missing.
fn slots(addresses: &Addresses) -> Option<V4Slots> {
    match addresses {
        Addresses::These(blocks) => match parts(blocks) {
            (addresses, prefixes) if prefixes.is_empty() => {
                (!addresses.is_empty()).then_some(V4Slots::Addresses(Amount::Exactly(addresses)))
            }
            (_, prefixes) => Some(V4Slots::Prefixes(Amount::Exactly(prefixes))),
        },
        Addresses::Any { prefixes, .. } if *prefixes > 0 => Some(V4Slots::Prefixes(Amount::Count(*prefixes))),
        Addresses::Any { addresses, .. } => {
            (*addresses > 0).then_some(V4Slots::Addresses(Amount::Count(*addresses)))
        }
    }
}

/// Single addresses, and blocks, of IPv4.
fn parts(blocks: &[Prefix]) -> (Vec<Ipv4Addr>, Vec<Prefix>) {
    let mut parts = (Vec::new(), Vec::new());
    for block in blocks {
        match (block.addr(), block.len()) {
            (IpAddr::V4(address), 32) => parts.0.push(address),
            (IpAddr::V4(_), _) => parts.1.push(*block),
            (IpAddr::V6(_), _) => {}
        }
    }
    parts
}

fn assigned(assigned: Assigned) -> Reply {
    let addresses = assigned.addresses.into_iter().map(|address| Prefix::host(address.into()));
    let blocks = addresses.chain(assigned.prefixes).chain(assigned.prefixes_v6);
    Reply::Assigned(blocks.collect())
}

fn priority(priority: eni::Priority) -> Priority {
    match priority {
        eni::Priority::Waiting => Priority::PodsWaiting,
        eni::Priority::BelowMinimum => Priority::BelowMinimum,
        eni::Priority::Warm => Priority::Warm,
        eni::Priority::Release => Priority::Release,
        eni::Priority::Garbage => Priority::Sweep,
    }
}

/// What the plan is to know of a call that failed.
pub(crate) fn fault(error: &CloudError) -> Fault {
    let code = || error.code.clone();
    match error.class {
        Class::Transient if error.is_throttle() => Fault::Throttled,
        Class::Transient if error.is_refused() => Fault::Unavailable,
        // Also where repeating would do no harm: a look is cheaper than an interface made for nothing.
        Class::Transient | Class::UnknownOutcome => Fault::Unknown,
        Class::TrySiblingSubnet => Fault::SubnetShort,
        Class::RefreshAndRetry if is_taken(error) => Fault::Taken,
        Class::RefreshAndRetry | Class::Gone => Fault::Stale { code: code() },
        Class::StopAndReport if is_for_all(&error.code) => Fault::Quota { code: code() },
        Class::StopAndReport | Class::Terminal => Fault::Refused { code: code() },
    }
}

/// Quotas of which every node takes; others are those of one interface, by what its pool asks for.
fn is_for_all(code: &str) -> bool {
    matches!(
        code,
        "NetworkInterfaceLimitExceeded"
            | "NetworkAddressUsageLimitExceeded"
            | "NetworkAddressUsagePeeredLimitExceeded"
            | "ResourceLimitExceeded"
    )
}

fn is_taken(error: &CloudError) -> bool {
    let text = error.message.to_lowercase();
    error.code == "InvalidIPAddress.InUse"
        || (error.code == "InvalidParameterValue"
            && (text.contains("in use") || text.contains("device index")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_cloud::Action as Asked;

    fn fault_of(code: &str, message: &str) -> Fault {
        fault(&CloudError::answered(Asked::AttachNetworkInterface, 400, Some(code), message, None))
    }

    #[test]
    fn every_kind_of_trouble_becomes_the_plans_word() {
        let stale = |code: &str| Fault::Stale { code: code.to_owned() };
        for (code, message, expected) in [
            ("RequestLimitExceeded", "", Fault::Throttled),
            ("InsufficientFreeAddressesInSubnet", "", Fault::SubnetShort),
            ("InsufficientCidrBlocks", "", Fault::SubnetShort),
            ("InvalidIPAddress.InUse", "", Fault::Taken),
            ("InvalidParameterValue", "attached at device index '1'", Fault::Taken),
            ("AttachmentLimitExceeded", "", stale("AttachmentLimitExceeded")),
            ("InvalidInstanceID.NotFound", "", stale("InvalidInstanceID.NotFound")),
            (
                "NetworkAddressUsageLimitExceeded",
                "",
                Fault::Quota { code: "NetworkAddressUsageLimitExceeded".to_owned() },
            ),
            (
                "SecurityGroupsPerInterfaceLimitExceeded",
                "",
                Fault::Refused { code: "SecurityGroupsPerInterfaceLimitExceeded".to_owned() },
            ),
            ("InvalidGroup.NotFound", "", Fault::Refused { code: "InvalidGroup.NotFound".to_owned() }),
            ("UnauthorizedOperation", "", Fault::Refused { code: "UnauthorizedOperation".to_owned() }),
        ] {
            assert_eq!(fault_of(code, message), expected, "{code}");
        }
    }

    #[test]
    fn silence_asks_for_a_look_whatever_was_asked() {
        for asked in [Asked::CreateNetworkInterface, Asked::AttachNetworkInterface] {
            let lost = CloudError::unanswered(asked, CloudError::TIMEOUT, "no answer");
            assert_eq!(fault(&lost), Fault::Unknown);
        }
    }

    #[test]
    fn only_where_nobody_took_the_request_nothing_happened_for_certain() {
        for asked in [Asked::CreateNetworkInterface, Asked::AttachNetworkInterface] {
            assert_eq!(fault(&CloudError::refused(asked, "nobody listens")), Fault::Unavailable);
            for code in ["Unavailable", "ServiceUnavailable", "InternalError"] {
                let broken = CloudError::answered(asked, 503, Some(code), "", None);
                assert_eq!(fault(&broken), Fault::Unknown, "{code}");
            }
        }
    }

    #[test]
    fn a_request_takes_one_kind_of_slots() {
        let block = |text: &str| text.parse::<Prefix>().expect("valid");
        let both = Addresses::These(vec![block("10.0.0.5/32"), block("10.0.0.16/28")]);
        assert_eq!(slots(&both), Some(V4Slots::Prefixes(Amount::Exactly(vec![block("10.0.0.16/28")]))));
        let address = Ipv4Addr::new(10, 0, 0, 5);
        let single = Addresses::These(vec![block("10.0.0.5/32")]);
        assert_eq!(slots(&single), Some(V4Slots::Addresses(Amount::Exactly(vec![address]))));
        assert_eq!(slots(&Addresses::none()), None);
        let any = Addresses::Any { addresses: 3, prefixes: 0 };
        assert_eq!(slots(&any), Some(V4Slots::Addresses(Amount::Count(3))));
    }
}
