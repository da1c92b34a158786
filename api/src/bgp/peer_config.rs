// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use rhumb_model::{Family, IfName};
use serde::{Deserialize, Serialize};

use super::{BgpPolicy, asn, at, label};
use crate::own::{named, own_kind};
use crate::{FieldError, ObjectMeta, Selector};

/// How nodes speak with a peer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BGPPeerConfig {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What a person wants.
    pub spec: BGPPeerConfigSpec,
}

own_kind!(BGPPeerConfig, "bgppeerconfigs", spec: BGPPeerConfigSpec);

/// How nodes speak with a peer. Without a word: both families, graceful restart, nothing taken, and told what every
/// [`crate::BGPAdvertisement`] says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BGPPeerConfigSpec {
    /// TCP port to connect to; 179 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Our AS towards the peer, where it is not the instance's.
    #[serde(rename = "localASN", skip_serializing_if = "Option::is_none")]
    pub local_asn: Option<u32>,
    /// Interface whose address to connect from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_interface: Option<IfName>,
    /// Whether to wait for the peer to connect.
    #[serde(skip_serializing_if = "is_false")]
    pub passive: bool,
    /// Timers.
    pub timers: BgpTimers,
    /// Where the key of the TCP MD5 option (RFC 2385) is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_secret: Option<SecretReference>,
    /// An external peer may be this many hops away, 1 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multihop: Option<u8>,
    /// The peer is at most this many hops away, and what comes from further is dropped (RFC 5082), 1 to 254.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: BgpGracefulRestart,
    /// What is exchanged; both families when nothing is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<BgpFamily>,
    /// What is taken from the peer; nothing when nothing is said (RFC 8212).
    #[serde(skip_serializing_if = "BgpPolicy::is_empty")]
    pub import: BgpPolicy,
    /// What it is told of what advertisements say and of what was learned; all that advertisements say, and nothing that was learned, when
    /// nothing is said.
    #[serde(skip_serializing_if = "BgpPolicy::is_empty")]
    pub export: BgpPolicy,
    /// BFD beside the session (RFC 5882).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BgpBfd>,
    /// Keeps the session closed; the peer is told why (RFC 9003), in at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Timers of a session, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpTimers {
    /// After how long without a word the peer is down; 0 is never, 1 and 2 are refused (RFC 4271 §4.2).
    pub hold_seconds: u16,
    /// Time between keepalives, at most a third of the hold time.
    pub keepalive_seconds: u16,
    /// Time between tries to connect.
    pub connect_retry_seconds: u16,
}

impl Default for BgpTimers {
    fn default() -> Self {
        Self { hold_seconds: 90, keepalive_seconds: 30, connect_retry_seconds: 20 }
    }
}

/// Where a key is: an entry of a Secret object, or a file of the node. Exactly one of `name` and `file` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretReference {
    /// Namespace of the Secret; `kube-system` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Entry of the Secret; `password` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Path of a file on the node that holds the key and nothing else but perhaps a newline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpGracefulRestart {
    /// Whether it is offered.
    pub enabled: bool,
    /// For how long peers keep our routes while the speaker restarts, 1 to 4095 seconds.
    pub restart_seconds: u16,
    /// For how long they keep them as a last resort after that, and for how long at most we keep theirs if they ask
    /// (RFC 9494), in seconds; 0 is not at all.
    pub long_lived_stale_seconds: u32,
}

impl Default for BgpGracefulRestart {
    fn default() -> Self {
        Self { enabled: true, restart_seconds: 120, long_lived_stale_seconds: 0 }
    }
}

/// What is exchanged of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFamily {
    /// The family.
    pub family: Family,
    /// The session is closed when the peer tells of more prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
    /// Whether IPv4 prefixes may have IPv6 next hops (RFC 8950); when nothing is said, on sessions over IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_next_hop: Option<bool>,
    /// Whether learned routes are passed on with this node as their next hop.
    #[serde(default, skip_serializing_if = "is_false")]
    pub next_hop_self: bool,
    /// How many paths to a destination, the best ones, the peer is told if it takes several (RFC 7911); 0 is all.
    #[serde(default = "one")]
    pub send_paths: u16,
    /// Whether the peer may tell several paths to a destination (RFC 7911).
    #[serde(default)]
    pub receive_paths: bool,
    /// The BGPAdvertisement objects that the peer hears of, by their labels; all of them when nothing is said.
    #[serde(default)]
    pub advertisements: Selector,
}

/// BFD beside a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpBfd {
    /// Time between packets that we send, 10 to 60000 milliseconds.
    pub transmit_milliseconds: u32,
    /// Time between packets that we can take, 10 to 60000 milliseconds.
    pub receive_milliseconds: u32,
    /// After how many missing packets the peer is down, 1 to 255.
    pub multiplier: u8,
    /// Whether the peer is more than one hop away (RFC 5883); when nothing is said, as `multihop` and `ttlSecurity` say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multihop: Option<bool>,
    /// Whether the session waits until BFD is up.
    pub hold: bool,
}

impl Default for BgpBfd {
    fn default() -> Self {
        Self {
            transmit_milliseconds: 300,
            receive_milliseconds: 300,
            multiplier: 3,
            multihop: None,
            hold: false,
        }
    }
}

impl BGPPeerConfig {
    /// An object with this name.
    pub fn new(name: impl Into<String>, spec: BGPPeerConfigSpec) -> Self {
        Self { metadata: named(name), spec }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        at("spec", || self.spec.check())
    }
}

impl BGPPeerConfigSpec {
    fn check(&self) -> Result<(), FieldError> {
        if self.port == Some(0) {
            return Err(FieldError::new("port", "0 is no port"));
        }
        if let Some(number) = self.local_asn {
            asn("localASN", number)?;
        }
        at("timers", || self.timers.check())?;
        if let Some(secret) = &self.auth_secret {
            at("authSecret", || secret.check())?;
        }
        match (self.multihop, self.ttl_security) {
            (Some(_), Some(_)) => {
                return Err(FieldError::new(
                    "ttlSecurity",
                    "not together with multihop: it says how many hops as well",
                ));
            }
            (Some(0), None) => return Err(FieldError::new("multihop", "0: want 1 to 255")),
            (None, Some(0 | 255)) => return Err(FieldError::new("ttlSecurity", "want 1 to 254")),
            (Some(_), None) | (None, Some(_) | None) => {}
        }
        at("gracefulRestart", || self.graceful_restart.check())?;
        for (i, family) in self.families.iter().enumerate() {
            at(&format!("families[{i}]"), || {
                if self.families[..i].iter().any(|other| other.family == family.family) {
                    return Err(FieldError::new("family", format!("{} is there already", family.family)));
                }
                family.check()
            })?;
        }
        at("import", || self.import.check(false))?;
        at("export", || self.export.check(true))?;
        if let Some(bfd) = &self.bfd {
            at("bfd", || bfd.check())?;
        }
        match &self.shutdown {
            Some(reason) if reason.len() > 255 => {
                Err(FieldError::new("shutdown", format!("{} bytes, at most 255 are told", reason.len())))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl BgpTimers {
    fn check(&self) -> Result<(), FieldError> {
        let Self { hold_seconds: hold, keepalive_seconds: keepalive, connect_retry_seconds: retry } = *self;
        if matches!(hold, 1 | 2) {
            return Err(FieldError::new("holdSeconds", format!("{hold}: want 0, or 3 and more")));
        }
        if hold > 0 && !(1..=hold / 3).contains(&keepalive) {
            let message = format!("{keepalive}: want 1 to {} (a third of holdSeconds)", hold / 3);
            return Err(FieldError::new("keepaliveSeconds", message));
        }
        if retry == 0 {
            return Err(FieldError::new("connectRetrySeconds", "0: want 1 and more"));
        }
        Ok(())
    }
}

impl SecretReference {
    fn check(&self) -> Result<(), FieldError> {
        match (&self.name, &self.file) {
            (Some(name), None) => {
                label(name)?;
                match &self.namespace {
                    Some(namespace) => {
                        label(namespace).map_err(|error| FieldError { field: "namespace".into(), ..error })
                    }
                    None => Ok(()),
                }
            }
            (None, Some(file)) => {
                if !file.is_absolute() {
                    let message = format!("{}: want an absolute path", file.display());
                    return Err(FieldError::new("file", message));
                }
                match (&self.namespace, &self.key) {
                    (None, None) => Ok(()),
                    (Some(_), _) => Err(FieldError::new("namespace", "a file is in none")),
                    (None, Some(_)) => Err(FieldError::new("key", "a file has none")),
                }
            }
            (Some(_), Some(_)) | (None, None) => {
                Err(FieldError::new("", "want exactly one of name and file"))
            }
        }
    }
}

fn one() -> u16 {
    1
}

impl BgpGracefulRestart {
    fn check(&self) -> Result<(), FieldError> {
        if !(1..=4095).contains(&self.restart_seconds) {
            return Err(FieldError::new(
                "restartSeconds",
                format!("{}: want 1 to 4095", self.restart_seconds),
            ));
        }
        let long = self.long_lived_stale_seconds;
        if long > 0x00ff_ffff || (long > 0 && !self.enabled) {
            let why = format!("{long}: want 0 to 16777215, and none without graceful restart");
            return Err(FieldError::new("longLivedStaleSeconds", why));
        }
        Ok(())
    }
}

impl BgpFamily {
    fn check(&self) -> Result<(), FieldError> {
        if self.max_prefixes == Some(0) {
            return Err(FieldError::new("maxPrefixes", "0: an empty import takes nothing"));
        }
        if self.family == Family::V6 && self.extended_next_hop.is_some() {
            return Err(FieldError::new("extendedNextHop", "is about ipv4 prefixes"));
        }
        at("advertisements", || self.advertisements.check())
    }
}

impl BgpBfd {
    fn check(&self) -> Result<(), FieldError> {
        for (field, value) in [
            ("transmitMilliseconds", self.transmit_milliseconds),
            ("receiveMilliseconds", self.receive_milliseconds),
        ] {
            if !(10..=60_000).contains(&value) {
                return Err(FieldError::new(field, format!("{value}: want 10 to 60000")));
            }
        }
        if self.multiplier == 0 {
            return Err(FieldError::new("multiplier", "0: want 1 to 255"));
        }
        Ok(())
    }
}
