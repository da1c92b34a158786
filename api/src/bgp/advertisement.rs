// SPDX-License-Identifier: Apache-2.0

use rhumb_model::{Family, IfName};
use serde::{Deserialize, Serialize};

use super::{BgpCommunity, at};
use crate::own::{named, own_kind};
use crate::{FieldError, ObjectMeta, Selector};

/// What nodes tell their peers about. The labels of the object are what a [`crate::BGPPeerConfig`] chooses by.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BGPAdvertisement {
    /// Name, labels and version.
    pub metadata: ObjectMeta,
    /// What a person wants.
    pub spec: BGPAdvertisementSpec,
}

own_kind!(BGPAdvertisement, "bgpadvertisements", spec: BGPAdvertisementSpec);

/// What nodes tell their peers about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPAdvertisementSpec {
    /// Each says some routes.
    pub advertisements: Vec<BgpRoutes>,
}

/// Routes of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpRoutes {
    /// What they are about.
    #[serde(rename = "type")]
    pub about: AdvertisementType,
    /// Which pools (`PodCIDR`, `PodPool`), pods (`Pod`) or services (`Service`), by their labels. All of them when
    /// nothing is said; a `Pod` or `Service` advertisement has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// The interface whose addresses are meant (`Interface`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<IfName>,
    /// Which addresses of services (`Service`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRoutes>,
    /// With what they are told.
    #[serde(default)]
    pub attributes: BgpAttributes,
}

/// What routes are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdvertisementType {
    /// The node's blocks of pod addresses.
    PodCIDR,
    /// Whole pools of which the node has a block. What of it no longer route has is dropped by the node.
    PodPool,
    /// Addresses of single pods of the node.
    Pod,
    /// Addresses of an interface of the node.
    Interface,
    /// Addresses of services.
    Service,
    /// The node's blocks of pod addresses that its cloud interfaces have.
    ENI,
}

/// Which addresses of services are told, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRoutes {
    /// Which of their addresses.
    pub addresses: Vec<ServiceAddress>,
    /// Told as blocks of these lengths instead of single addresses; a service with traffic policy `Local` is always
    /// told by its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,
    /// Whether addresses of a service without a ready endpoint anywhere are told as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_endpoints: bool,
}

/// A kind of a service's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServiceAddress {
    /// `spec.clusterIPs`.
    ClusterIP,
    /// `spec.externalIPs`.
    ExternalIP,
    /// `status.loadBalancer.ingress[].ip`.
    LoadBalancerIP,
}

/// Lengths of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Aggregation {
    /// Of IPv4, 1 to 31.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u8>,
    /// Of IPv6, 1 to 127.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u8>,
}

impl Aggregation {
    /// The length for one family; `None` is single addresses.
    pub fn length(&self, family: Family) -> Option<u8> {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// With what a route is told. Where several advertisements say the same prefix, it is told once: with the communities of
/// all, the largest local preference and the smallest metric.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpAttributes {
    /// Communities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<BgpCommunity>,
    /// Local preference; only internal peers hear of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// Metric (MULTI_EXIT_DISC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
}

impl BGPAdvertisement {
    /// An object with this name.
    pub fn new(name: impl Into<String>, spec: BGPAdvertisementSpec) -> Self {
        Self { metadata: named(name), spec }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        if self.spec.advertisements.is_empty() {
            return Err(FieldError::new("spec.advertisements", "want at least one"));
        }
        for (i, routes) in self.spec.advertisements.iter().enumerate() {
            at(&format!("spec.advertisements[{i}]"), || routes.check())?;
        }
        Ok(())
    }
}

impl BgpRoutes {
    fn check(&self) -> Result<(), FieldError> {
        use AdvertisementType::{ENI, Interface, Pod, PodCIDR, PodPool, Service};
        let no = |field: &str| Err(FieldError::new(field, format!("says nothing about {:?}", self.about)));
        match (self.about, &self.selector) {
            (Pod | Service, None) => return Err(FieldError::new("selector", "say which; {} is all of them")),
            (Interface | ENI, Some(_)) => return no("selector"),
            (_, Some(selector)) => at("selector", || selector.check())?,
            (PodCIDR | PodPool | Interface | ENI, None) => {}
        }
        match (self.about, &self.interface) {
            (Interface, None) => return Err(FieldError::new("interface", "say which")),
            (PodCIDR | PodPool | Pod | Service | ENI, Some(_)) => return no("interface"),
            (_, Some(_)) | (_, None) => {}
        }
        match (self.about, &self.service) {
            (Service, None) => Err(FieldError::new("service", "say which addresses")),
            (PodCIDR | PodPool | Pod | Interface | ENI, Some(_)) => no("service"),
            (Service, Some(service)) => at("service", || service.check()),
            (_, None) => Ok(()),
        }
    }
}

impl ServiceRoutes {
    fn check(&self) -> Result<(), FieldError> {
        if self.addresses.is_empty() {
            return Err(FieldError::new("addresses", "want ClusterIP, ExternalIP or LoadBalancerIP"));
        }
        for (i, address) in self.addresses.iter().enumerate() {
            if self.addresses[..i].contains(address) {
                return Err(FieldError::new(
                    format!("addresses[{i}]"),
                    format!("{address:?} is there already"),
                ));
            }
        }
        for family in Family::BOTH {
            let length = self.aggregation.and_then(|aggregation| aggregation.length(family));
            if length.is_some_and(|length| length == 0 || length >= family.bits()) {
                let message = format!("want 1 to {}", family.bits() - 1);
                return Err(FieldError::new(format!("aggregation.{family}"), message));
            }
        }
        Ok(())
    }
}
