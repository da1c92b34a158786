// SPDX-License-Identifier: Apache-2.0
//! From the parameters of a request to a call.

use std::collections::BTreeMap;
use std::str::FromStr;

use rhumb_model::{NameError, ReservationKind, SubnetId};

use super::Form;
use crate::call::{
    Action, Assign, AssignV6, Attach, Call, Change, Detach, Filter, Launch, NewInterface, NewReservation,
    Question, Tags, Unassign, UnassignV6, Want, Wants,
};
use crate::refusal::Refusal;

const VERSION: &str = "2016-11-15";

/// Reads a request.
///
/// # Errors
/// The [`Refusal`] that EC2 gives: `InvalidAction`, `MissingParameter`, `InvalidParameterValue`, an `….Malformed` id.
pub fn parse(form: &Form) -> Result<Call, Refusal> {
    let name = form
        .text("Action")
        .ok_or_else(|| Refusal::new("MissingAction", "The request must contain the parameter Action"))?;
    if form.text("Version") != Some(VERSION) {
        let message = format!("The action {name} is not valid for this web service: want version {VERSION}.");
        return Err(Refusal::new("InvalidAction", message));
    }
    let action = match name {
        "RunInstances" => Action::RunInstances(launch(form)?),
        "TerminateInstances" => Action::TerminateInstances(some_ids(form, "InstanceId")?),
        "DescribeInstances" => Action::DescribeInstances(question(form, "InstanceId")?),
        "DescribeInstanceTypes" => Action::DescribeInstanceTypes(question_of_texts(form, "InstanceType")?),
        "DescribeSubnets" => Action::DescribeSubnets(question(form, "SubnetId")?),
        "DescribeVpcs" => Action::DescribeVpcs(question(form, "VpcId")?),
        "DescribeSecurityGroups" => Action::DescribeSecurityGroups(question(form, "GroupId")?),
        "GetSecurityGroupsForVpc" => Action::GetSecurityGroupsForVpc(id(form, "VpcId")?, question(form, "")?),
        "DescribeRouteTables" => Action::DescribeRouteTables(question_of_texts(form, "RouteTableId")?),
        "DescribeAvailabilityZones" => Action::DescribeAvailabilityZones,
        "DescribeTags" => Action::DescribeTags(question_of_texts(form, "")?),
        "CreateTags" => Action::CreateTags(resources(form)?, tags(form, "Tag")),
        "DeleteTags" => Action::DeleteTags(resources(form)?, gone_tags(form)),
        "CreateNetworkInterface" => Action::CreateNetworkInterface(new_interface(form)?),
        "DeleteNetworkInterface" => Action::DeleteNetworkInterface(id(form, "NetworkInterfaceId")?),
        "DescribeNetworkInterfaces" => {
            Action::DescribeNetworkInterfaces(question(form, "NetworkInterfaceId")?)
        }
        "AttachNetworkInterface" => Action::AttachNetworkInterface(Attach {
            interface: id(form, "NetworkInterfaceId")?,
            instance: id(form, "InstanceId")?,
            device_index: number(form, "DeviceIndex")?.ok_or_else(|| Refusal::missing("deviceIndex"))?,
            card: number(form, "NetworkCardIndex")?.unwrap_or(0),
        }),
        "DetachNetworkInterface" => Action::DetachNetworkInterface(Detach {
            attachment: id(form, "AttachmentId")?,
            force: flag(form, "Force")?.unwrap_or(false),
        }),
        "ModifyNetworkInterfaceAttribute" => {
            Action::ModifyNetworkInterfaceAttribute(id(form, "NetworkInterfaceId")?, change(form)?)
        }
        "AssignPrivateIpAddresses" => Action::AssignPrivateIpAddresses(Assign {
            interface: id(form, "NetworkInterfaceId")?,
            addresses: want(form, "PrivateIpAddress", "SecondaryPrivateIpAddressCount", None)?,
            prefixes: want(form, "Ipv4Prefix", "Ipv4PrefixCount", None)?,
            reassign: flag(form, "AllowReassignment")?.unwrap_or(false),
        }),
        "UnassignPrivateIpAddresses" => Action::UnassignPrivateIpAddresses(Unassign {
            interface: id(form, "NetworkInterfaceId")?,
            addresses: values(form, "PrivateIpAddress", None)?,
            prefixes: values(form, "Ipv4Prefix", None)?,
        }),
        "AssignIpv6Addresses" => Action::AssignIpv6Addresses(AssignV6 {
            interface: id(form, "NetworkInterfaceId")?,
            addresses: want(form, "Ipv6Addresses", "Ipv6AddressCount", None)?,
            prefixes: want(form, "Ipv6Prefix", "Ipv6PrefixCount", None)?,
        }),
        "UnassignIpv6Addresses" => Action::UnassignIpv6Addresses(UnassignV6 {
            interface: id(form, "NetworkInterfaceId")?,
            addresses: values(form, "Ipv6Addresses", None)?,
            prefixes: values(form, "Ipv6Prefix", None)?,
        }),
        "CreateSubnetCidrReservation" => Action::CreateSubnetCidrReservation(NewReservation {
            subnet: id(form, "SubnetId")?,
            cidr: value(required(form, "Cidr")?)?,
            kind: match required(form, "ReservationType")? {
                "prefix" => ReservationKind::Prefix,
                "explicit" => ReservationKind::Explicit,
                other => {
                    return Err(Refusal::value(format!(
                        "Value ({other}) for parameter reservationType is invalid."
                    )));
                }
            },
            description: form.text("Description").unwrap_or_default().to_owned(),
            tags: tags_for(form, "subnet-cidr-reservation"),
        }),
        "DeleteSubnetCidrReservation" => {
            Action::DeleteSubnetCidrReservation(id(form, "SubnetCidrReservationId")?)
        }
        "GetSubnetCidrReservations" => {
            Action::GetSubnetCidrReservations(id(form, "SubnetId")?, question(form, "")?)
        }
        _ => {
            let message = format!("The action {name} is not valid for this web service.");
            return Err(Refusal::new("InvalidAction", message));
        }
    };
    Ok(Call { action, dry_run: flag(form, "DryRun")?.unwrap_or(false) })
}

fn required<'a>(form: &'a Form, name: &str) -> Result<&'a str, Refusal> {
    form.text(name).ok_or_else(|| {
        let lower: String =
            name.chars().take(1).flat_map(char::to_lowercase).chain(name.chars().skip(1)).collect();
        Refusal::missing(lower)
    })
}

/// An id of a type of ours; EC2 has a code of its own for ids that are none.
trait Id: FromStr<Err = NameError> {}
impl<T: FromStr<Err = NameError>> Id for T {}

fn as_id<T: Id>(name: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| {
        let code = match name {
            "NetworkInterfaceId" => "InvalidNetworkInterfaceId.Malformed",
            "InstanceId" => "InvalidInstanceID.Malformed",
            "AttachmentId" => "InvalidAttachmentID.Malformed",
            "SubnetId" => "InvalidSubnetID.Malformed",
            "VpcId" => "InvalidVpcID.Malformed",
            "GroupId" | "SecurityGroupId" => "InvalidGroupId.Malformed",
            _ => "InvalidParameterValue",
        };
        Refusal::new(code, format!("Invalid id: \"{text}\""))
    })
}

fn id<T: Id>(form: &Form, name: &str) -> Result<T, Refusal> {
    as_id(name, required(form, name)?)
}

fn ids<T: Id>(form: &Form, name: &str) -> Result<Vec<T>, Refusal> {
    form.texts(name).map(|text| as_id(name, text)).collect()
}

fn some_ids<T: Id>(form: &Form, name: &str) -> Result<Vec<T>, Refusal> {
    let ids = ids(form, name)?;
    if ids.is_empty() { Err(Refusal::missing(name)) } else { Ok(ids) }
}

fn resources(form: &Form) -> Result<Vec<String>, Refusal> {
    let ids: Vec<String> = form.texts("ResourceId").map(str::to_owned).collect();
    if ids.is_empty() { Err(Refusal::missing("resourceIdSet")) } else { Ok(ids) }
}

fn value<T: FromStr>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::value(format!("Value ({text}) is invalid.")))
}

fn number<T: FromStr>(form: &Form, name: &str) -> Result<Option<T>, Refusal> {
    let invalid = |text: &str| Refusal::value(format!("Value ({text}) for parameter {name} is invalid."));
    form.text(name).map(|text| text.parse().map_err(|_| invalid(text))).transpose()
}

fn flag(form: &Form, name: &str) -> Result<Option<bool>, Refusal> {
    number(form, name)
}

/// The members of a list; with `field`, each is a structure with the value in that field.
fn values<T: FromStr>(form: &Form, name: &str, field: Option<&str>) -> Result<Vec<T>, Refusal> {
    match field {
        None => form.texts(name).map(value).collect(),
        Some(field) => form.list(name).filter_map(|item| item.text(field)).map(value).collect(),
    }
}

fn want<T: FromStr>(form: &Form, list: &str, count: &str, field: Option<&str>) -> Result<Want<T>, Refusal> {
    let these: Vec<T> = values(form, list, field)?;
    match number(form, count)? {
        Some(_) if !these.is_empty() => Err(Refusal::combination(format!(
            "The parameter {list} cannot be used with the parameter {count}"
        ))),
        Some(count) => Ok(Want::Count(count)),
        None if these.is_empty() => Ok(Want::Count(0)),
        None => Ok(Want::These(these)),
    }
}

fn wants(form: &Form) -> Result<Wants, Refusal> {
    Ok(Wants {
        addresses: want(form, "", "SecondaryPrivateIpAddressCount", None)?,
        prefixes: want(form, "Ipv4Prefix", "Ipv4PrefixCount", Some("Ipv4Prefix"))?,
        addresses_v6: want(form, "Ipv6Addresses", "Ipv6AddressCount", Some("Ipv6Address"))?,
        prefixes_v6: want(form, "Ipv6Prefix", "Ipv6PrefixCount", Some("Ipv6Prefix"))?,
    })
}

fn tags(form: &Form, name: &str) -> Tags {
    let pair =
        |tag: &Form| Some((tag.text("Key")?.to_owned(), tag.text("Value").unwrap_or_default().to_owned()));
    form.list(name).filter_map(pair).collect()
}

fn gone_tags(form: &Form) -> BTreeMap<String, Option<String>> {
    let value = |tag: &Form| tag.has("Value").then(|| tag.text("Value").unwrap_or_default().to_owned());
    form.list("Tag").filter_map(|tag| Some((tag.text("Key")?.to_owned(), value(tag)))).collect()
}

/// Tags of the call for what it makes of `kind`.
fn tags_for(form: &Form, kind: &str) -> Tags {
    let of_kind = form.list("TagSpecification").filter(|spec| spec.text("ResourceType") == Some(kind));
    of_kind.flat_map(|spec| tags(spec, "Tag")).collect()
}

fn question<T: Id>(form: &Form, name: &str) -> Result<Question<T>, Refusal> {
    let rest = question_of_texts(form, "")?;
    Ok(Question { ids: ids(form, name)?, filters: rest.filters, page: rest.page, token: rest.token })
}

fn question_of_texts(form: &Form, name: &str) -> Result<Question<String>, Refusal> {
    let filter = |filter: &Form| {
        let name = filter.text("Name").ok_or_else(|| Refusal::missing("Filter.Name"))?;
        Ok(Filter { name: name.to_owned(), values: filter.texts("Value").map(str::to_owned).collect() })
    };
    Ok(Question {
        ids: form.texts(name).map(str::to_owned).collect(),
        filters: form.list("Filter").map(filter).collect::<Result<_, Refusal>>()?,
        page: number(form, "MaxResults")?,
        token: form.text("NextToken").map(str::to_owned),
    })
}

fn new_interface(form: &Form) -> Result<NewInterface, Refusal> {
    if form.text("InterfaceType").is_some_and(|kind| kind != "interface") {
        return Err(Refusal::value("Only interfaces of type 'interface' are supported here."));
    }
    let mut wants = wants(form)?;
    let mut primary = number(form, "PrivateIpAddress")?;
    let mut secondary = Vec::new();
    for item in form.list("PrivateIpAddresses") {
        let address = value(required(item, "PrivateIpAddress")?)?;
        if flag(item, "Primary")?.unwrap_or(false) {
            primary = Some(address);
        } else {
            secondary.push(address);
        }
    }
    if !secondary.is_empty() {
        if !wants.addresses.is_empty() {
            return Err(Refusal::combination(
                "The parameter PrivateIpAddresses cannot be used with the parameter SecondaryPrivateIpAddressCount",
            ));
        }
        wants.addresses = Want::These(secondary);
    }
    if !wants.addresses.is_empty() && !wants.prefixes.is_empty() {
        return Err(Refusal::combination("You may specify secondary addresses or prefixes, not both."));
    }
    Ok(NewInterface {
        subnet: id(form, "SubnetId")?,
        description: form.text("Description").unwrap_or_default().to_owned(),
        groups: ids(form, "SecurityGroupId")?,
        primary,
        wants,
        tags: tags_for(form, "network-interface"),
        token: form.text("ClientToken").map(str::to_owned),
    })
}

fn change(form: &Form) -> Result<Change, Refusal> {
    let mut changes = Vec::new();
    if let Some(attachment) = form.at("Attachment") {
        let value = flag(attachment, "DeleteOnTermination")?
            .ok_or_else(|| Refusal::missing("deleteOnTermination"))?;
        changes.push(Change::DeleteOnTermination(id(attachment, "AttachmentId")?, value));
    }
    if let Some(check) = form.at("SourceDestCheck") {
        let value = flag(check, "Value")?.ok_or_else(|| Refusal::missing("sourceDestCheck"))?;
        changes.push(Change::SourceDestCheck(value));
    }
    if form.has("SecurityGroupId") {
        changes.push(Change::Groups(ids(form, "SecurityGroupId")?));
    }
    if let Some(description) = form.at("Description") {
        changes.push(Change::Description(description.text("Value").unwrap_or_default().to_owned()));
    }
    match changes.len() {
        0 => Err(Refusal::missing("attribute")),
        1 => Ok(changes.remove(0)),
        _ => Err(Refusal::combination("Fields for multiple attribute types specified")),
    }
}

/// The subnet and the groups may stand at the top or in the specification of the first interface.
fn launch(form: &Form) -> Result<Launch, Refusal> {
    let most = number(form, "MaxCount")?.ok_or_else(|| Refusal::missing("MaxCount"))?;
    required(form, "ImageId")?;
    let empty = Form::default();
    let interface = form.list("NetworkInterface").next();
    let at = interface.unwrap_or(form);
    let subnet: SubnetId = id(at, "SubnetId")?;
    let spot = form.at("InstanceMarketOptions").unwrap_or(&empty).text("MarketType") == Some("spot");
    Ok(Launch {
        kind: form.text("InstanceType").unwrap_or("m1.small").to_owned(),
        count: most,
        subnet,
        groups: ids(at, "SecurityGroupId")?,
        wants: interface.map(wants).transpose()?.unwrap_or_default(),
        delete_on_termination: flag(at, "DeleteOnTermination")?.unwrap_or(true),
        spot,
        tags: tags_for(form, "instance"),
        interface_tags: tags_for(form, "network-interface"),
        token: form.text("ClientToken").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhumb_model::Timestamp;

    use super::*;
    use crate::query::{failure, success};
    use crate::settings::Settings;
    use crate::state::{NewSubnet, NewVpc, World};

    fn read(text: &str) -> Result<Call, Refusal> {
        parse(&Form::parse(text).expect("a form"))
    }

    fn code(text: &str) -> String {
        read(&format!("Version=2016-11-15&{text}")).expect_err("refused").code.into_owned()
    }

    #[test]
    fn a_request_must_be_of_this_service_and_whole() {
        assert_eq!(read("Version=2016-11-15").expect_err("refused").code, "MissingAction");
        assert_eq!(
            read("Action=DescribeVpcs&Version=2015-01-01").expect_err("refused").code,
            "InvalidAction"
        );
        assert_eq!(code("Action=DescribeMoon"), "InvalidAction");
        assert_eq!(code("Action=DeleteNetworkInterface"), "MissingParameter");
        assert_eq!(
            code("Action=DeleteNetworkInterface&NetworkInterfaceId=x"),
            "InvalidNetworkInterfaceId.Malformed"
        );
        assert_eq!(code("Action=DescribeSubnets&SubnetId.1=eni-1"), "InvalidSubnetID.Malformed");
        assert_eq!(code("Action=DescribeSubnets&MaxResults=many"), "InvalidParameterValue");
    }

    #[test]
    fn counts_and_lists_exclude_each_other() {
        let assign = "Action=AssignPrivateIpAddresses&NetworkInterfaceId=eni-1";
        assert_eq!(
            code(&format!("{assign}&Ipv4PrefixCount=1&Ipv4Prefix.1=10.0.0.16/28")),
            "InvalidParameterCombination"
        );
        assert_eq!(code(&format!("{assign}&Ipv4Prefix.1=10.0.0.17/28")), "InvalidParameterValue");
        let modify = "Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId=eni-1";
        assert_eq!(
            code(&format!("{modify}&SourceDestCheck.Value=true&Description.Value=x")),
            "InvalidParameterCombination"
        );
        let create = "Action=CreateNetworkInterface&SubnetId=subnet-1";
        assert_eq!(
            code(&format!("{create}&SecondaryPrivateIpAddressCount=1&Ipv4PrefixCount=1")),
            "InvalidParameterCombination"
        );
    }

    fn world() -> World {
        let mut world = World::new(Settings::at_once(), Timestamp(0));
        let vpc = "vpc-1".parse().expect("valid");
        let cidrs = vec!["10.0.0.0/16".parse().expect("valid")];
        world
            .create_vpc(NewVpc {
                id: Some("vpc-1".parse().expect("valid")),
                cidrs,
                cidrs_v6: Vec::new(),
                tags: Tags::new(),
            })
            .expect("a VPC");
        let new = NewSubnet {
            id: Some("subnet-1".parse().expect("valid")),
            vpc,
            zone: "eu-central-1a".parse().expect("valid"),
            cidr: "10.0.0.0/26".parse().expect("valid"),
            cidr_v6: None,
            tags: Tags::new(),
        };
        world.create_subnet(new).expect("a subnet");
        world
    }

    const ACTIONS: &[&str] = &[
        "RunInstances",
        "TerminateInstances",
        "DescribeInstances",
        "DescribeInstanceTypes",
        "DescribeSubnets",
        "DescribeVpcs",
        "DescribeSecurityGroups",
        "GetSecurityGroupsForVpc",
        "DescribeRouteTables",
        "DescribeAvailabilityZones",
        "DescribeTags",
        "CreateTags",
        "DeleteTags",
        "CreateNetworkInterface",
        "DeleteNetworkInterface",
        "DescribeNetworkInterfaces",
        "AttachNetworkInterface",
        "DetachNetworkInterface",
        "ModifyNetworkInterfaceAttribute",
        "AssignPrivateIpAddresses",
        "UnassignPrivateIpAddresses",
        "AssignIpv6Addresses",
        "UnassignIpv6Addresses",
        "CreateSubnetCidrReservation",
        "DeleteSubnetCidrReservation",
        "GetSubnetCidrReservations",
    ];

    const NAMES: &[&str] = &[
        "SubnetId",
        "SubnetId.1",
        "VpcId",
        "VpcId.1",
        "InstanceId",
        "InstanceId.1",
        "NetworkInterfaceId",
        "NetworkInterfaceId.1",
        "AttachmentId",
        "DeviceIndex",
        "NetworkCardIndex",
        "PrivateIpAddress",
        "PrivateIpAddress.1",
        "Ipv4Prefix.1",
        "Ipv4PrefixCount",
        "Ipv6AddressCount",
        "SecondaryPrivateIpAddressCount",
        "AllowReassignment",
        "Filter.1.Name",
        "Filter.1.Value.1",
        "MaxResults",
        "NextToken",
        "MaxCount",
        "ImageId",
        "InstanceType",
        "ResourceId.1",
        "Tag.1.Key",
        "Tag.1.Value",
        "Cidr",
        "ReservationType",
        "ClientToken",
        "DryRun",
        "Attachment.AttachmentId",
        "Attachment.DeleteOnTermination",
        "SourceDestCheck.Value",
        "SecurityGroupId.1",
        "GroupId.1",
        "InstanceType.1",
    ];

    const VALUES: &[&str] = &[
        "",
        "0",
        "1",
        "3",
        "5",
        "100",
        "65535",
        "-1",
        "true",
        "false",
        "x",
        "*",
        "vpc-1",
        "subnet-1",
        "eni-1",
        "i-1",
        "sg-1",
        "rtb-1",
        "10.0.0.9",
        "10.0.0.16/28",
        "10.0.0.32/27",
        "fd00::1",
        "m5.large",
        "prefix",
        "explicit",
        "status",
        "tag:a",
        "attachment.instance-id",
        "%C3%A4%26",
        "7a",
    ];

    fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        prop::sample::select(from)
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_answered_in_xml(
            requests in prop::collection::vec((pick(ACTIONS), prop::collection::vec((pick(NAMES), pick(VALUES)), 0..8)), 1..12),
        ) {
            let mut world = world();
            for (action, parameters) in requests {
                let mut text = format!("Version=2016-11-15&Action={action}");
                parameters.iter().for_each(|(name, value)| text += &format!("&{name}={value}"));
                let call = read(&text);
                let reply = match call.and_then(|call| world.answer(&call)) {
                    Ok(answer) => success(&world, action, &answer, "id"),
                    Err(refusal) => failure(&refusal, "id"),
                };
                prop_assert!(reply.ends_with("Response>"), "{}", reply);
                prop_assert_eq!(world.audit(), Ok(()), "{}", text);
            }
        }
    }
}
