// SPDX-License-Identifier: Apache-2.0
//! The documents name every field that people may write, and no other.

use std::collections::BTreeSet;

use rhumb_api::{
    Aggregation, BGPAdvertisementSpec, BGPClusterConfigSpec, BGPNodeOverrideSpec, BGPPeerConfigSpec,
    BgpAttributes, BgpBfd, BgpFamily, BgpGracefulRestart, BgpInstance, BgpMonitoring, BgpPeer, BgpPolicy,
    BgpPolicyMatch, BgpPolicyRule, BgpPrefixRange, BgpRoutes, BgpSet, BgpTimers, ENIPoolSpec, EniMasquerade,
    EniWarm, FamilyPool, GatewayPeers, GroupChoice, InstanceOverride, MeshPeers, PeerOverride, PodPoolSpec,
    ReflectorPeers, Routing, RoutingException, SecretReference, ServiceRoutes, SubnetChoice,
};
use serde::de::DeserializeOwned;

const BGP: &str = include_str!("../../docs/reference/bgp-kinds.md");
const ENI: &str = include_str!("../../docs/reference/eni-kinds.md");
const POOL: &str = include_str!("../../docs/reference/pool-kinds.md");

/// The fields of a type that refuses others: it says them when it meets one.
fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
    let refused =
        serde_json::from_value::<T>(serde_json::json!({"": 0})).err().expect("no field has this name");
    let refused = refused.to_string();
    let (_, expected) = refused.split_once("expected").expect("what is expected instead");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The part of a document under the heading that begins so.
fn part<'a>(document: &'a str, heading: &str) -> &'a str {
    let mut parts = document.split("\n## ").filter(|part| part.starts_with(heading));
    parts.next().expect("the document has the heading")
}

/// Every word between backticks, cut where a name ends.
fn words(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.flat_map(|quoted| quoted.split(|c: char| !c.is_ascii_alphanumeric())).collect()
}

/// The words in the first column of tables of fields.
fn told(part: &str) -> BTreeSet<&str> {
    let mut told = BTreeSet::new();
    let mut within = false;
    for line in part.lines() {
        within = line.starts_with("| field of") || (within && line.starts_with('|'));
        if let Some(cell) = line.split('|').nth(1).filter(|_| within && !line.starts_with("| field of")) {
            told.extend(words(cell));
        }
    }
    told.remove("");
    told
}

#[track_caller]
fn agree(part: &str, fields: &[BTreeSet<String>]) {
    let fields: BTreeSet<&str> = fields.iter().flatten().map(String::as_str).collect();
    let lacking: Vec<_> = fields.difference(&words(part)).copied().collect();
    assert_eq!(lacking, [""; 0], "fields that the document lacks");
    let unknown: Vec<_> = told(part).difference(&fields).copied().collect();
    assert_eq!(unknown, [""; 0], "fields that there are not");
}

#[test]
fn the_fields_of_pools_are_told() {
    agree(
        part(POOL, "PodPool"),
        &[fields::<PodPoolSpec>(), fields::<FamilyPool>(), fields::<Routing>(), fields::<RoutingException>()],
    );
    agree(
        part(ENI, "ENIPool"),
        &[
            fields::<ENIPoolSpec>(),
            fields::<SubnetChoice>(),
            fields::<GroupChoice>(),
            fields::<EniWarm>(),
            fields::<EniMasquerade>(),
        ],
    );
}

#[test]
fn the_fields_of_bgp_are_told() {
    agree(
        part(BGP, "BGPClusterConfig"),
        &[
            fields::<BGPClusterConfigSpec>(),
            fields::<BgpInstance>(),
            fields::<BgpMonitoring>(),
            fields::<BgpPeer>(),
            fields::<GatewayPeers>(),
            fields::<MeshPeers>(),
            fields::<ReflectorPeers>(),
        ],
    );
    agree(
        part(BGP, "BGPPeerConfig"),
        &[
            fields::<BGPPeerConfigSpec>(),
            fields::<BgpTimers>(),
            fields::<SecretReference>(),
            fields::<BgpGracefulRestart>(),
            fields::<BgpFamily>(),
            fields::<BgpBfd>(),
            fields::<BgpPolicy>(),
            fields::<BgpPolicyRule>(),
            fields::<BgpPolicyMatch>(),
            fields::<BgpPrefixRange>(),
            fields::<BgpSet>(),
        ],
    );
    agree(
        part(BGP, "BGPAdvertisement"),
        &[
            fields::<BGPAdvertisementSpec>(),
            fields::<BgpRoutes>(),
            fields::<ServiceRoutes>(),
            fields::<Aggregation>(),
            fields::<BgpAttributes>(),
        ],
    );
    agree(
        part(BGP, "BGPNodeOverride"),
        &[fields::<BGPNodeOverrideSpec>(), fields::<InstanceOverride>(), fields::<PeerOverride>()],
    );
}

#[test]
fn a_word_that_is_no_field_is_found() {
    let part = "Some\n| field of `spec` | |\n|---|---|\n| `one.two[]: {three}` | `four` |\n\n| `five` | |\n";
    assert_eq!(told(part), BTreeSet::from(["one", "two", "three"]));
    assert_eq!(fields::<EniWarm>(), ["adaptive", "horizonSeconds"].map(str::to_owned).into());
}
