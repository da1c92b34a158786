// SPDX-License-Identifier: Apache-2.0
//! What the metadata service of an instance says (IMDSv2), from the same world, each item behind by a time of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{Attachment, AttachmentStatus, Eni, EniId, InstanceId, InstanceState, Timestamp};
use serde::{Deserialize, Serialize};

use crate::query::time;
use crate::state::World;

/// How the metadata service lies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Metadata {
    /// How far an item is behind, in milliseconds, by its name, for example `ipv4-prefix`; `macs` is the list of
    /// interfaces. At most [`crate::Settings::metadata_memory`].
    pub lag: BTreeMap<String, u64>,
    /// How far all other items are behind.
    pub lag_of_others: u64,
    /// Times in which items are answered by an error.
    pub windows: Vec<Window>,
}

/// A time in which an item is answered by an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Whose; `None` for all.
    #[serde(default)]
    pub instance: Option<InstanceId>,
    /// Part of the path, for example `ipv4-prefix`.
    pub path: String,
    /// From when, in milliseconds of the virtual clock.
    pub from: Timestamp,
    /// Until when, this moment not included.
    pub until: Timestamp,
    /// HTTP status, for example 404.
    pub status: u16,
}

impl Metadata {
    /// The status that a path is answered by instead of its value.
    pub(crate) fn window(&self, now: Timestamp, instance: &InstanceId, path: &str) -> Option<u16> {
        let inside = |window: &&Window| {
            window.instance.as_ref().is_none_or(|id| id == instance)
                && path.contains(&window.path)
                && window.from <= now
                && now < window.until
        };
        self.windows.iter().find(inside).map(|window| window.status)
    }

    fn lag(&self, item: &str) -> Duration {
        Duration::from_millis(self.lag.get(item).copied().unwrap_or(self.lag_of_others))
    }
}

/// The value of a path below `/latest/`; `None` is 404.
pub(crate) fn value(world: &World, metadata: &Metadata, instance: &InstanceId, path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let view = View { world, metadata, instance };
    match parts.as_slice() {
        ["dynamic", "instance-identity", "document"] => view.document(),
        ["meta-data", rest @ ..] => view.meta_data(rest),
        _ => None,
    }
}

const MAC_ITEMS: &[&str] = &[
    "device-number",
    "interface-id",
    "ipv4-prefix",
    "ipv6-prefix",
    "ipv6s",
    "local-ipv4s",
    "mac",
    "network-card",
    "owner-id",
    "security-group-ids",
    "security-groups",
    "subnet-id",
    "subnet-ipv4-cidr-block",
    "subnet-ipv6-cidr-blocks",
    "vpc-id",
    "vpc-ipv4-cidr-block",
    "vpc-ipv4-cidr-blocks",
    "vpc-ipv6-cidr-blocks",
];

const TOP: &[&str] = &[
    "autoscaling/",
    "instance-id",
    "instance-life-cycle",
    "instance-type",
    "local-ipv4",
    "mac",
    "network/",
    "placement/",
    "tags/",
];

struct View<'a> {
    world: &'a World,
    metadata: &'a Metadata,
    instance: &'a InstanceId,
}

impl View<'_> {
    fn meta_data(&self, parts: &[&str]) -> Option<String> {
        let instance = self.world.instance(self.instance)?;
        let late = |item: &str| self.world.instance_behind(self.instance, self.metadata.lag(item));
        match parts {
            [] => Some(TOP.join("\n")),
            ["instance-id"] => Some(instance.id.to_string()),
            ["instance-type"] => Some(instance.kind.clone()),
            ["instance-life-cycle"] => {
                Some(if self.world.is_spot(self.instance) { "spot" } else { "on-demand" }.to_owned())
            }
            ["mac"] => Some(self.first()?.mac.to_string()),
            ["local-ipv4"] => Some(self.first()?.primary.to_string()),
            ["placement"] => Some("availability-zone\nregion".to_owned()),
            ["placement", "availability-zone"] => Some(instance.zone.to_string()),
            ["placement", "region"] => Some(self.world.settings().region.clone()),
            ["tags"] => Some("instance/".to_owned()),
            ["tags", "instance"] => Some(late("tags")?.tags.keys().cloned().collect::<Vec<_>>().join("\n")),
            // A key may have slashes of its own.
            ["tags", "instance", key @ ..] => late("tags")?.tags.get(&key.join("/")).cloned(),
            ["autoscaling", "target-lifecycle-state"] => Some(
                match late("target-lifecycle-state")?.state {
                    InstanceState::Pending | InstanceState::Running => "InService",
                    InstanceState::ShuttingDown
                    | InstanceState::Terminated
                    | InstanceState::Stopping
                    | InstanceState::Stopped => "Terminated",
                }
                .to_owned(),
            ),
            ["spot", "instance-action"] => {
                let at = self.world.interruption(self.instance)?;
                Some(format!("{{\"action\":\"terminate\",\"time\":\"{}\"}}", time(at)))
            }
            ["spot", "termination-time"] => self.world.interruption(self.instance).map(time),
            ["network"] => Some("interfaces/".to_owned()),
            ["network", "interfaces"] => Some("macs/".to_owned()),
            ["network", "interfaces", "macs"] => {
                let macs = self.interfaces("macs").map(|(eni, _)| format!("{}/", eni.mac));
                Some(macs.collect::<Vec<_>>().join("\n"))
            }
            ["network", "interfaces", "macs", mac] => {
                self.of_mac(mac, "macs")?;
                let items = MAC_ITEMS.iter().filter(|item| self.item(mac, item).is_some());
                Some(items.copied().collect::<Vec<_>>().join("\n"))
            }
            ["network", "interfaces", "macs", mac, item] => self.item(mac, item),
            _ => None,
        }
    }

    /// The interfaces that the instance had as long ago as `item` is behind, the first one first.
    fn interfaces(&self, item: &str) -> impl Iterator<Item = (&Eni, &Attachment)> {
        let lag = self.metadata.lag(item);
        let had = |id: &EniId| {
            let eni = self.world.interface_behind(id, lag)?;
            let attachment = eni.attachment.as_ref()?;
            let there = match attachment.status {
                AttachmentStatus::Attached | AttachmentStatus::Detaching => true,
                AttachmentStatus::Attaching | AttachmentStatus::Detached => false,
            };
            (there && attachment.instance.as_ref() == Some(self.instance)).then_some((&**eni, attachment))
        };
        let mut found: Vec<_> = self.world.touched(self.instance).filter_map(had).collect();
        found.sort_by_key(|(_, attachment)| (attachment.card, attachment.device_index));
        found.into_iter()
    }

    fn first(&self) -> Option<&Eni> {
        self.interfaces("macs").next().map(|(eni, _)| eni)
    }

    fn of_mac(&self, mac: &str, item: &str) -> Option<(&Eni, &Attachment)> {
        self.interfaces(item).find(|(eni, _)| eni.mac.to_string() == mac)
    }

    fn item(&self, mac: &str, item: &str) -> Option<String> {
        // An item of an interface that is not listed yet is not there either.
        self.of_mac(mac, "macs")?;
        let (eni, attachment) = self.of_mac(mac, item)?;
        let (cidr, cidr_v6) = self.world.cidrs_of_subnet(&eni.subnet)?;
        let vpc = |v4: bool| {
            let cidrs = self.world.cidrs_of(&eni.vpc).filter(move |cidr| cidr.addr().is_ipv4() == v4);
            lines(cidrs)
        };
        match item {
            "device-number" => Some(attachment.device_index.to_string()),
            "network-card" => Some(attachment.card.to_string()),
            "interface-id" => Some(eni.id.to_string()),
            "mac" => Some(eni.mac.to_string()),
            "owner-id" => Some(self.world.settings().account.clone()),
            "subnet-id" => Some(eni.subnet.to_string()),
            "vpc-id" => Some(eni.vpc.to_string()),
            "local-ipv4s" => {
                lines(std::iter::once(&eni.primary).chain(&eni.addresses).map(|a| IpAddr::V4(*a)))
            }
            "ipv4-prefix" => lines(eni.prefixes.iter()),
            "ipv6s" => lines(eni.addresses_v6.iter()),
            "ipv6-prefix" => lines(eni.prefixes_v6.iter()),
            "security-group-ids" => lines(eni.security_groups.iter()),
            "security-groups" => lines(eni.security_groups.iter().map(|id| self.world.group_name(id))),
            "subnet-ipv4-cidr-block" => Some(cidr.to_string()),
            "subnet-ipv6-cidr-blocks" => lines(cidr_v6.into_iter()),
            "vpc-ipv4-cidr-block" => {
                self.world.cidrs_of(&eni.vpc).find(|cidr| cidr.addr().is_ipv4()).map(|cidr| cidr.to_string())
            }
            "vpc-ipv4-cidr-blocks" => vpc(true),
            "vpc-ipv6-cidr-blocks" => vpc(false),
            _ => None,
        }
    }

    fn document(&self) -> Option<String> {
        let instance = self.world.instance(self.instance)?;
        let document = serde_json::json!({
            "accountId": self.world.settings().account,
            "architecture": "x86_64",
            "availabilityZone": instance.zone,
            "imageId": "ami-00000000000000000",
            "instanceId": instance.id,
            "instanceType": instance.kind,
            "pendingTime": time(self.world.launched(self.instance).0),
            "privateIp": self.first().map(|eni| eni.primary),
            "region": self.world.settings().region,
            "version": "2017-09-30",
        });
        Some(document.to_string())
    }
}

/// One a line; nothing at all is 404.
fn lines(items: impl Iterator<Item = impl std::fmt::Display>) -> Option<String> {
    let text = items.map(|item| item.to_string()).collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
