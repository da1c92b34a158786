// SPDX-License-Identifier: Apache-2.0
//! Objects from outside: the kinds that rhumb reads and writes, the [`Store`] trait, and its directory form
//! [`DirStore`].
//!
//! Agent and operator are generic over [`Store`] and never learn which form they run on. [`follow()`] is the way to
//! read: a snapshot, then every change. Adding a kind is one line in the table in `kinds.rs`.
#![warn(missing_docs)]

mod annotations;
mod bgp;
mod dir;
mod eni_pool;
mod error;
mod follow;
mod key;
mod kind;
mod kinds;
mod node_config;
mod node_state;
mod own;
mod pod_pool;
mod problem;
mod selector;
mod store;

pub use annotations::{ADDRESSES, AnnotationError, PodAddressing, STICKY_ADDRESSES, pod_addressing};
pub use bgp::{
    AdvertisementType, Aggregation, BGPAdvertisement, BGPAdvertisementSpec, BGPClusterConfig,
    BGPClusterConfigSpec, BGPClusterConfigStatus, BGPNodeOverride, BGPNodeOverrideSpec, BGPPeerConfig,
    BGPPeerConfigSpec, BgpAttributes, BgpBfd, BgpCommunity, BgpCommunityError, BgpFamily, BgpGracefulRestart,
    BgpInstance, BgpMonitoring, BgpPeer, BgpPeerAsn, BgpPolicy, BgpPolicyAction, BgpPolicyMatch,
    BgpPolicyRule, BgpPrefixRange, BgpRouteKind, BgpRoutes, BgpSet, BgpTimers, BgpView, GatewayPeers,
    InstanceOverride, MeshPeers, PeerOverride, ReflectorPeers, SecretReference, ServiceAddress,
    ServiceRoutes,
};
pub use dir::DirStore;
pub use eni_pool::{ENIPool, ENIPoolSpec, EniMasquerade, EniMode, EniWarm, GroupChoice, SubnetChoice};
pub use error::{StoreError, WatchError};
pub use follow::{Follow, Update, follow};
pub use key::{ObjectKey, ResourceVersion};
pub use kind::{FieldError, HasStatus, Kind, KindScope};
pub use node_config::{EniConfig, EniInterface, EniWaiting, NodeConfig, NodeConfigSpec, PodCidr};
pub use node_state::{
    BgpPeerStatus, BlockWord, Condition, ConditionStatus, INTERFACES_LEFT_ALONE, InstanceIdentity, NodeState,
    NodeStateStatus, PoolUsage, READY,
};
pub use pod_pool::{FamilyPool, PodPool, PodPoolSpec, Routing, RoutingException, RoutingMode};
pub use problem::Problem;
pub use selector::{LabelExpression, LabelOperator, Selector};
pub use store::{List, Problems, Store, WatchEvent, WatchStream};

pub use k8s_openapi::api::core::v1::{Namespace, Node, NodeSpec, NodeStatus, Pod, Secret, Service, Taint};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
