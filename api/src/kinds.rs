// SPDX-License-Identifier: Apache-2.0
//! The table of all kinds.

use std::any::{Any, TypeId};
use std::sync::Arc;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{NamespaceStatus, NodeStatus, PodStatus, ServiceStatus};

use crate::dir::{Fault, read_kind};
use crate::kind::{FieldError, HasStatus, Kind, KindScope};
use crate::{
    BGPAdvertisement, BGPClusterConfig, BGPClusterConfigStatus, BGPNodeOverride, BGPPeerConfig, ENIPool,
    EndpointSlice, Namespace, Node, NodeConfig, NodeState, NodeStateStatus, Pod, PodPool, Secret, Service,
};

/// An object of any kind.
pub(crate) type AnyObject = Arc<dyn Any + Send + Sync>;

macro_rules! kinds {
    (
        kubernetes { $($theirs:ident $(=> $their_status:ty)?,)* }
        own { $($ours:ident $(=> $our_status:ty)?,)* }
    ) => {
        $(kinds!(@kind $theirs, |_object| Ok(()) $(, $their_status)?);)*
        $(kinds!(@kind $ours, |object| object.check() $(, $our_status)?);)*

        /// Every kind that a store holds.
        pub(crate) static ALL: &[KindInfo] = &[$(KindInfo::of::<$theirs>(),)* $(KindInfo::of::<$ours>(),)*];
    };
    (@kind $type:ident, $check:expr $(, $status:ty)?) => {
        impl Kind for $type {
            const HAS_STATUS: bool = kinds!(@has $($status)?);

            fn validate(&self) -> Result<(), FieldError> {
                crate::kind::check_metadata(self)?;
                let check: fn(&Self) -> Result<(), FieldError> = $check;
                check(self)
            }
        }
        $(impl HasStatus for $type {
            type Status = $status;
        })?
    };
    (@has) => { false };
    (@has $status:ty) => { true };
}

// A new kind is one line here. One whose status is written apart from the rest names it after the arrow.
kinds! {
    kubernetes {
        Namespace => NamespaceStatus,
        Node => NodeStatus,
        Pod => PodStatus,
        Secret,
        Service => ServiceStatus,
        EndpointSlice,
    }
    own {
        BGPAdvertisement,
        BGPClusterConfig => BGPClusterConfigStatus,
        BGPNodeOverride,
        BGPPeerConfig,
        ENIPool,
        NodeConfig,
        NodeState => NodeStateStatus,
        PodPool,
    }
}

/// What a store needs to know of a kind without its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KindInfo {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    /// Reads a document as an object of this kind, which then has this version.
    pub(crate) read: fn(document: &str, version: &str) -> Result<AnyObject, Fault>,
    type_id: fn() -> TypeId,
}

impl KindInfo {
    const fn of<K: Kind>() -> Self {
        Self {
            api_version: <K as Resource>::API_VERSION,
            kind: <K as Resource>::KIND,
            namespaced: <K::Scope as KindScope>::NAMESPACED,
            read: read_kind::<K>,
            type_id: TypeId::of::<K>,
        }
    }
}

/// A kind, as its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KindId(usize);

impl KindId {
    pub(crate) fn of<K: Kind>() -> Self {
        let place = ALL.iter().position(|info| (info.type_id)() == TypeId::of::<K>());
        Self(place.expect("the table that implements Kind lists every kind"))
    }

    pub(crate) fn find(api_version: &str, kind: &str) -> Option<Self> {
        ALL.iter().position(|info| info.api_version == api_version && info.kind == kind).map(Self)
    }

    pub(crate) fn info(self) -> &'static KindInfo {
        &ALL[self.0]
    }
}
