// SPDX-License-Identifier: Apache-2.0
//! The kinds by which people say with whom nodes speak BGP, and what about.

mod advertisement;
mod cluster_config;
mod community;
mod node_override;
mod peer_config;
mod policy;

pub use advertisement::{
    AdvertisementType, Aggregation, BGPAdvertisement, BGPAdvertisementSpec, BgpAttributes, BgpRoutes,
    ServiceAddress, ServiceRoutes,
};
pub use cluster_config::{
    BGPClusterConfig, BGPClusterConfigSpec, BGPClusterConfigStatus, BgpInstance, BgpMonitoring, BgpPeer,
    BgpPeerAsn, BgpView, GatewayPeers, MeshPeers, ReflectorPeers,
};
pub use community::{BgpCommunity, BgpCommunityError};
pub use node_override::{BGPNodeOverride, BGPNodeOverrideSpec, InstanceOverride, PeerOverride};
pub use peer_config::{
    BGPPeerConfig, BGPPeerConfigSpec, BgpBfd, BgpFamily, BgpGracefulRestart, BgpTimers, SecretReference,
};
pub use policy::{
    BgpPolicy, BgpPolicyAction, BgpPolicyMatch, BgpPolicyRule, BgpPrefixRange, BgpRouteKind, BgpSet,
};

use crate::FieldError;

/// The field `inner` of what stands at `path`.
pub(crate) fn at(path: &str, inner: impl FnOnce() -> Result<(), FieldError>) -> Result<(), FieldError> {
    inner().map_err(|error| {
        let field = match error.field.as_str() {
            "" => path.to_owned(),
            field => format!("{path}.{field}"),
        };
        FieldError { field, ..error }
    })
}

/// Checks that `name` is there once among those before it.
fn once<'a>(name: &str, mut before: impl Iterator<Item = &'a str>) -> Result<(), FieldError> {
    if before.any(|other| other == name) {
        return Err(FieldError::new("name", format!("{name:?} is there already")));
    }
    label(name)
}

/// Checks a name that becomes a part of other names.
fn label(name: &str) -> Result<(), FieldError> {
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 63 || !name.chars().all(sound) {
        let message = format!("{name:?}: want 1 to 63 lower-case letters, digits, '-' and '.'");
        return Err(FieldError::new("name", message));
    }
    Ok(())
}

/// Checks a number of an AS: 0 (RFC 7607), AS_TRANS and the last ones of both spaces (RFC 7300) name none.
fn asn(field: &str, asn: u32) -> Result<(), FieldError> {
    if matches!(asn, 0 | 23456 | 65535 | u32::MAX) {
        return Err(FieldError::new(field, format!("{asn} is reserved and names no AS")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
