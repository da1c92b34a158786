// SPDX-License-Identifier: Apache-2.0
//! From an answer to the XML that EC2 sends.

use rhumb_model::{Eni, Instance, InstanceId, InstanceLimits, InstanceState, Prefix, Timestamp};

use super::xml::Xml;
use crate::answer::{Answer, Group, Page, Reservation, RouteTable, attachment_status, instance_state};
use crate::call::Tags;
use crate::refusal::Refusal;
use crate::state::{World, eni_status, hypervisor, reservation_kind};

const SPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// The body of an error reply.
pub fn failure(refusal: &Refusal, request: &str) -> String {
    Xml::document("Response", None, |xml| {
        xml.part("Errors", |xml| {
            xml.part("Error", |xml| {
                xml.leaf("Code", &refusal.code);
                xml.leaf("Message", &refusal.message);
            });
        });
        xml.leaf("RequestID", request);
    })
}

/// The body of a reply. What an answer only names is looked up in the world that gave it.
pub fn success(world: &World, action: &str, answer: &Answer, request: &str) -> String {
    Xml::document(&format!("{action}Response"), Some(SPACE), |xml| {
        xml.leaf("requestId", request);
        body(xml, world, action, answer);
    })
}

fn body(xml: &mut Xml, world: &World, action: &str, answer: &Answer) {
    match answer {
        Answer::Launched(id, instances) => {
            xml.leaf("reservationId", id);
            xml.leaf("ownerId", &world.settings().account);
            xml.list("instancesSet", instances, |xml, found| instance(xml, world, found));
        }
        Answer::Terminating(changes) => xml.list("instancesSet", changes, |xml, (id, before, after)| {
            xml.leaf("instanceId", id);
            state(xml, "currentState", *after);
            state(xml, "previousState", *before);
        }),
        Answer::Instances(page) => list(xml, "reservationSet", page, |xml, found| {
            xml.leaf("reservationId", world.launched(&found.id).1);
            xml.leaf("ownerId", &world.settings().account);
            xml.list("instancesSet", [found], |xml, found| instance(xml, world, found));
        }),
        Answer::InstanceTypes(page) => list(xml, "instanceTypeSet", page, |xml, (kind, limits)| {
            instance_type(xml, kind, limits);
        }),
        Answer::Subnets(page) => list(xml, "subnetSet", page, |xml, found| {
            xml.leaf("subnetId", &found.id);
            xml.leaf("state", "available");
            xml.leaf("vpcId", &found.vpc);
            xml.leaf("ownerId", &world.settings().account);
            xml.maybe("cidrBlock", found.cidr);
            xml.list("ipv6CidrBlockAssociationSet", &found.cidrs_v6, |xml, cidr| {
                association(xml, "ipv6CidrBlock", *cidr, "subnet");
            });
            xml.leaf("availableIpAddressCount", found.free);
            xml.leaf("availabilityZone", &found.zone);
            xml.leaf("defaultForAz", false);
            xml.leaf("mapPublicIpOnLaunch", false);
            xml.leaf("assignIpv6AddressOnCreation", false);
            tags(xml, &found.tags);
        }),
        Answer::Vpcs(page) => list(xml, "vpcSet", page, |xml, found| {
            xml.leaf("vpcId", &found.id);
            xml.leaf("ownerId", &world.settings().account);
            xml.leaf("state", "available");
            xml.maybe("cidrBlock", found.cidrs.first());
            xml.list("cidrBlockAssociationSet", &found.cidrs, |xml, cidr| {
                association(xml, "cidrBlock", *cidr, "vpc");
            });
            xml.list("ipv6CidrBlockAssociationSet", &found.cidrs_v6, |xml, cidr| {
                association(xml, "ipv6CidrBlock", *cidr, "vpc");
            });
            xml.leaf("instanceTenancy", "default");
            xml.leaf("isDefault", false);
            tags(xml, &found.tags);
        }),
        Answer::Groups(page) if action == "GetSecurityGroupsForVpc" => {
            list(xml, "securityGroupForVpcSet", page, |xml, found| group(xml, world, found));
        }
        Answer::Groups(page) => list(xml, "securityGroupInfo", page, |xml, found| group(xml, world, found)),
        Answer::RouteTables(page) => {
            list(xml, "routeTableSet", page, |xml, found| route_table(xml, world, found))
        }
        Answer::Zones(zones) => xml.list("availabilityZoneInfo", zones, |xml, zone| {
            xml.leaf("zoneName", zone);
            xml.leaf("zoneState", "available");
            xml.leaf("regionName", &world.settings().region);
            xml.leaf("zoneType", "availability-zone");
        }),
        Answer::Tags(page) => list(xml, "tagSet", page, |xml, found| {
            xml.leaf("resourceId", &found.id);
            xml.leaf("resourceType", found.kind);
            xml.leaf("key", &found.key);
            xml.leaf("value", &found.value);
        }),
        Answer::Interface(eni) => xml.part("networkInterface", |xml| interface(xml, world, eni)),
        Answer::Interfaces(page) => {
            list(xml, "networkInterfaceSet", page, |xml, eni| interface(xml, world, eni));
        }
        Answer::Attached(id, card) => {
            xml.leaf("attachmentId", id);
            xml.leaf("networkCardIndex", card);
        }
        Answer::Assigned(id, addresses, prefixes) => {
            xml.leaf("return", true);
            xml.leaf("networkInterfaceId", id);
            xml.list("assignedPrivateIpAddressesSet", addresses, |xml, address| {
                xml.leaf("privateIpAddress", address);
            });
            xml.list("assignedIpv4PrefixSet", prefixes, |xml, prefix| xml.leaf("ipv4Prefix", prefix));
        }
        Answer::AssignedV6(id, addresses, prefixes) => {
            xml.leaf("networkInterfaceId", id);
            texts(xml, "assignedIpv6Addresses", addresses);
            texts(xml, "assignedIpv6PrefixSet", prefixes);
        }
        Answer::UnassignedV6(id, addresses, prefixes) => {
            xml.leaf("networkInterfaceId", id);
            texts(xml, "unassignedIpv6Addresses", addresses);
            texts(xml, "unassignedIpv6PrefixSet", prefixes);
        }
        Answer::Reserved(found) => {
            xml.part("subnetCidrReservation", |xml| reservation(xml, world, found));
        }
        Answer::Unreserved(found) => {
            xml.part("deletedSubnetCidrReservation", |xml| reservation(xml, world, found));
        }
        Answer::Reservations(page) => {
            list(xml, "subnetIpv4CidrReservationSet", page, |xml, found| reservation(xml, world, found));
            xml.part("subnetIpv6CidrReservationSet", |_| ());
        }
        Answer::Done => xml.leaf("return", true),
    }
}

fn list<T>(xml: &mut Xml, name: &str, page: &Page<T>, content: impl FnMut(&mut Xml, &T)) {
    xml.list(name, &page.items, content);
    xml.maybe("nextToken", page.next.as_ref());
}

/// A list whose members are texts.
fn texts<T: std::fmt::Display>(xml: &mut Xml, name: &str, items: &[T]) {
    xml.part(name, |xml| items.iter().for_each(|item| xml.leaf("item", item)));
}

fn tags(xml: &mut Xml, tags: &Tags) {
    if tags.is_empty() {
        return;
    }
    xml.list("tagSet", tags, |xml, (key, value)| {
        xml.leaf("key", key);
        xml.leaf("value", value);
    });
}

fn state(xml: &mut Xml, name: &str, state: InstanceState) {
    let (code, word) = instance_state(state);
    xml.part(name, |xml| {
        xml.leaf("code", code);
        xml.leaf("name", word);
    });
}

fn association(xml: &mut Xml, name: &str, cidr: Prefix, of: &str) {
    xml.leaf(name, cidr);
    xml.leaf("associationId", format!("{of}-cidr-assoc-{:x}", u64::from(cidr.len())));
    let state = if name == "cidrBlock" { "cidrBlockState" } else { "ipv6CidrBlockState" };
    xml.part(state, |xml| xml.leaf("state", "associated"));
}

fn group(xml: &mut Xml, world: &World, group: &Group) {
    xml.leaf("ownerId", &world.settings().account);
    xml.leaf("groupId", &group.id);
    xml.leaf("groupName", &group.name);
    xml.leaf("groupDescription", &group.name);
    xml.leaf("vpcId", &group.vpc);
    tags(xml, &group.tags);
}

fn route_table(xml: &mut Xml, world: &World, table: &RouteTable) {
    xml.leaf("routeTableId", &table.id);
    xml.leaf("vpcId", &table.vpc);
    xml.leaf("ownerId", &world.settings().account);
    xml.list("routeSet", &table.local, |xml, cidr| {
        let v4 = cidr.family() == rhumb_model::Family::V4;
        xml.leaf(if v4 { "destinationCidrBlock" } else { "destinationIpv6CidrBlock" }, cidr);
        xml.leaf("gatewayId", "local");
        xml.leaf("state", "active");
        xml.leaf("origin", "CreateRouteTable");
    });
    let digits = table.id.trim_start_matches("rtb-");
    let main = table.main.then_some(None);
    xml.list("associationSet", main.into_iter().chain(table.subnets.iter().map(Some)), |xml, subnet| {
        xml.leaf("routeTableAssociationId", format!("rtbassoc-{digits}"));
        xml.leaf("routeTableId", &table.id);
        xml.maybe("subnetId", subnet);
        xml.leaf("main", subnet.is_none());
        xml.part("associationState", |xml| xml.leaf("state", "associated"));
    });
    tags(xml, &table.tags);
}

fn reservation(xml: &mut Xml, world: &World, found: &Reservation) {
    xml.leaf("subnetCidrReservationId", &found.id);
    xml.leaf("subnetId", &found.subnet);
    xml.leaf("cidr", found.cidr);
    xml.leaf("reservationType", reservation_kind(found.kind));
    xml.leaf("ownerId", &world.settings().account);
    xml.leaf("description", &found.description);
    tags(xml, &found.tags);
}

fn interface(xml: &mut Xml, world: &World, eni: &Eni) {
    xml.leaf("networkInterfaceId", &eni.id);
    xml.leaf("subnetId", &eni.subnet);
    xml.leaf("vpcId", &eni.vpc);
    xml.leaf("availabilityZone", &eni.zone);
    xml.leaf("description", &eni.description);
    xml.leaf("ownerId", &world.settings().account);
    xml.leaf("requesterManaged", eni.requester_managed);
    xml.leaf("status", eni_status(eni.status));
    xml.leaf("interfaceType", "interface");
    addresses(xml, world, eni);
    attachment(xml, world, eni, Whose::Told);
    tags(xml, &eni.tags);
}

/// What `DescribeNetworkInterfaces` and `DescribeInstances` say alike.
fn addresses(xml: &mut Xml, world: &World, eni: &Eni) {
    xml.leaf("macAddress", eni.mac);
    xml.leaf("privateIpAddress", eni.primary);
    xml.leaf("sourceDestCheck", eni.source_dest_check);
    xml.list("groupSet", &eni.security_groups, |xml, group| {
        xml.leaf("groupId", group);
        xml.leaf("groupName", world.group_name(group));
    });
    let all = std::iter::once(&eni.primary).chain(&eni.addresses);
    xml.list("privateIpAddressesSet", all, |xml, address| {
        xml.leaf("privateIpAddress", address);
        xml.leaf("primary", *address == eni.primary);
    });
    xml.list("ipv6AddressesSet", &eni.addresses_v6, |xml, address| xml.leaf("ipv6Address", address));
    xml.list("ipv4PrefixSet", &eni.prefixes, |xml, prefix| xml.leaf("ipv4Prefix", prefix));
    xml.list("ipv6PrefixSet", &eni.prefixes_v6, |xml, prefix| xml.leaf("ipv6Prefix", prefix));
}

/// Within an instance, an attachment does not say whose it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Told,
    Clear,
}

fn attachment(xml: &mut Xml, world: &World, eni: &Eni, whose: Whose) {
    let Some(found) = &eni.attachment else { return };
    xml.part("attachment", |xml| {
        xml.leaf("attachmentId", &found.id);
        if whose == Whose::Told {
            xml.maybe("instanceId", found.instance.as_ref());
            xml.leaf("instanceOwnerId", &world.settings().account);
        }
        xml.leaf("deviceIndex", found.device_index);
        xml.leaf("networkCardIndex", found.card);
        xml.leaf("status", attachment_status(found.status));
        xml.leaf("attachTime", time(world.attached_at(&eni.id)));
        xml.leaf("deleteOnTermination", found.delete_on_termination);
    });
}

fn instance(xml: &mut Xml, world: &World, found: &Instance) {
    let interfaces = world.shown_interfaces_of(&found.id);
    xml.leaf("instanceId", &found.id);
    xml.leaf("imageId", "ami-00000000000000000");
    state(xml, "instanceState", found.state);
    xml.leaf("instanceType", &found.kind);
    xml.leaf("launchTime", time(world.launched(&found.id).0));
    xml.part("placement", |xml| {
        xml.leaf("availabilityZone", &found.zone);
        xml.leaf("tenancy", "default");
    });
    xml.maybe("subnetId", found.subnet.as_ref());
    xml.maybe("vpcId", found.vpc.as_ref());
    xml.maybe("privateIpAddress", first_address(&found.id, &interfaces));
    xml.leaf("architecture", "x86_64");
    xml.maybe("instanceLifecycle", world.is_spot(&found.id).then_some("spot"));
    xml.list("networkInterfaceSet", &interfaces, |xml, eni| {
        xml.leaf("networkInterfaceId", &eni.id);
        xml.leaf("subnetId", &eni.subnet);
        xml.leaf("vpcId", &eni.vpc);
        xml.leaf("description", &eni.description);
        xml.leaf("ownerId", &world.settings().account);
        xml.leaf("status", eni_status(eni.status));
        xml.leaf("interfaceType", "interface");
        addresses(xml, world, eni);
        attachment(xml, world, eni, Whose::Clear);
    });
    tags(xml, &found.tags);
}

fn first_address(id: &InstanceId, interfaces: &[std::sync::Arc<Eni>]) -> Option<std::net::Ipv4Addr> {
    let first = |eni: &&std::sync::Arc<Eni>| {
        eni.attachment.as_ref().is_some_and(|found| {
            (found.card, found.device_index) == (0, 0) && found.instance.as_ref() == Some(id)
        })
    };
    interfaces.iter().find(first).map(|eni| eni.primary)
}

fn instance_type(xml: &mut Xml, kind: &str, limits: &InstanceLimits) {
    xml.leaf("instanceType", kind);
    xml.leaf("hypervisor", hypervisor(limits));
    xml.leaf("bareMetal", kind.contains(".metal"));
    xml.part("vCpuInfo", |xml| xml.leaf("defaultVCpus", limits.vcpus));
    xml.part("networkInfo", |xml| {
        xml.leaf("maximumNetworkInterfaces", limits.interfaces);
        xml.leaf("maximumNetworkCards", limits.cards.len());
        xml.leaf("defaultNetworkCardIndex", 0);
        xml.list("networkCards", &limits.cards, |xml, card| {
            xml.leaf("networkCardIndex", card.card);
            xml.leaf("maximumNetworkInterfaces", card.interfaces);
        });
        xml.leaf("ipv4AddressesPerInterface", limits.v4_per_interface);
        xml.leaf("ipv6AddressesPerInterface", limits.v6_per_interface);
        xml.leaf("ipv6Supported", limits.v6_per_interface > 0);
    });
}

/// A time as XML Schema writes it, in UTC (RFC 3339).
pub(crate) fn time(at: Timestamp) -> String {
    let (days, seconds) = ((at.0 / 86_400_000) as i64, at.0 / 1000 % 86_400);
    // Days since 1970 to a date: years begin in March, so that the leap day is the last (Hinnant).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        assert_eq!(time(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(Timestamp(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(Timestamp(1_795_219_199_000)), "2026-11-20T23:59:59.000Z");
    }
}
