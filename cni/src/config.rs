// SPDX-License-Identifier: Apache-2.0
//! The network configuration from stdin (CNI specification 1.1.0, sections 1 and 2).

use std::path::{Path, PathBuf};

use rhumb_model::{AttachmentKey, ContainerId, IfName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::call::Verb;
use crate::object::{Fault, FieldError, Object};
use crate::version::{Version, VersionError};

/// Name of our own address management in `ipam.type`.
pub const OWN_IPAM: &str = "rhumb";

/// Longest path that a Unix socket address holds, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// A network configuration whose well-known parts are checked; what only ADD or CHECK reads is read by them.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// Version of the specification in use.
    pub version: Version,
    /// Name of the network.
    pub name: String,
    /// The IPAM plugin to ask, where it is not our own.
    pub delegate: Option<String>,
    /// The agent's socket, where the configuration names it.
    pub socket: Option<PathBuf>,
    object: Map<String, Value>,
}

/// Name service settings, handed through to the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON object.
    #[error("decode the network configuration")]
    Decode(#[source] serde_json::Error),
    /// A field is not as it must be.
    #[error("network configuration, {}", .0.field)]
    Field(#[source] FieldError),
    /// A field asks for what this plugin does not offer.
    #[error("network configuration, {field}: {value} is not supported: {rule}")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What is supported.
        rule: &'static str,
    },
    /// The plugin does not speak its version.
    #[error("network configuration, cniVersion")]
    Version(#[source] VersionError),
    /// Its version does not have the operation.
    #[error("{verb} needs cniVersion {least}, the network configuration has {version}")]
    Verb {
        /// The operation.
        verb: Verb,
        /// First version that has it.
        least: Version,
        /// The configuration's version.
        version: Version,
    },
}

impl From<FieldError> for ConfigError {
    fn from(error: FieldError) -> Self {
        ConfigError::Field(error)
    }
}

impl NetConf {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] says which part is not as it must be.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let object: Map<String, Value> = serde_json::from_slice(bytes).map_err(ConfigError::Decode)?;
        let outer = Object::new("", &object);
        // The specification says that a configuration without a version is of 0.1.0.
        let asked = outer.text("cniVersion")?.unwrap_or_else(|| "0.1.0".to_owned());
        let version = Version::parse(&asked).map_err(ConfigError::Version)?;
        let name = name(&outer)?;
        let delegate = delegate(&outer)?;
        let socket = socket(&outer)?;
        Ok(Self { version, name, delegate, socket, object })
    }

    /// The version that `bytes` ask for, where the plugin speaks it: the one to answer in, also when the rest of
    /// the configuration is refused.
    pub fn version_of(bytes: &[u8]) -> Option<Version> {
        let object: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        Version::parse(&Object::new("", &object).text("cniVersion").ok()??).ok()
    }

    /// Whether the version in use has the operation.
    ///
    /// # Errors
    /// [`ConfigError::Verb`] for CHECK before 0.4.0, GC and STATUS before 1.1.0.
    pub fn allow(&self, verb: Verb) -> Result<(), ConfigError> {
        let least = match verb {
            Verb::Add | Verb::Del | Verb::Version => Version::V0_3_1,
            Verb::Check => Version::V0_4_0,
            Verb::Gc | Verb::Status => Version::V1_1_0,
        };
        if self.version < least {
            return Err(ConfigError::Verb { verb, least, version: self.version });
        }
        Ok(())
    }

    /// The name service settings, where there are any.
    ///
    /// # Errors
    /// [`ConfigError::Field`] when they have another shape.
    pub fn dns(&self) -> Result<Option<Dns>, ConfigError> {
        Ok(self.outer().get::<Dns>("dns")?.filter(|dns| *dns != Dns::default()))
    }

    /// The attachments that a GC keeps. An absent list is refused, because keeping nothing is too much to guess; a null
    /// one is empty, as the reference library writes an empty list.
    ///
    /// # Errors
    /// [`ConfigError::Field`] when the list is absent or an entry is none.
    pub fn valid_attachments(&self) -> Result<Vec<AttachmentKey>, ConfigError> {
        // The second is what the reference library sent before the first was settled.
        let Some(key) = ["cni.dev/valid-attachments", "cni.dev/attachments"]
            .into_iter()
            .find(|key| self.object.contains_key(*key))
        else {
            return Err(self.outer().fault("cni.dev/valid-attachments", Fault::Missing).into());
        };
        self.outer().objects(key)?.iter().map(|entry| Ok(attachment(entry)?)).collect()
    }

    /// The result of the plugins before this one, where there is one.
    pub(crate) fn previous(&self) -> Option<&Value> {
        self.outer().value("prevResult")
    }

    /// The refusal of a configuration without `prevResult`.
    pub(crate) fn previous_missing(&self) -> ConfigError {
        self.outer().fault("prevResult", Fault::Missing).into()
    }

    /// The whole configuration.
    pub(crate) fn outer(&self) -> Object<'_> {
        Object::new("", &self.object)
    }
}

fn name(outer: &Object<'_>) -> Result<String, ConfigError> {
    let name = outer.text("name")?.ok_or_else(|| outer.fault("name", Fault::Missing))?;
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    if name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(outer.refuse("name", name, "a letter or digit, then letters, digits, '_', '.' or '-'").into())
}

fn delegate(outer: &Object<'_>) -> Result<Option<String>, ConfigError> {
    let Some(ipam) = outer.object("ipam")? else { return Ok(None) };
    let kind = ipam.text("type")?.filter(|kind| kind != OWN_IPAM);
    // A plugin that names itself would start itself for ever.
    let Some(kind) = kind.filter(|kind| outer.value("type").and_then(Value::as_str) != Some(kind)) else {
        return Ok(None);
    };
    if kind.contains('/') || kind == "." || kind == ".." {
        return Err(ipam.refuse("type", kind, "the name of a program, without '/'").into());
    }
    Ok(Some(kind))
}

fn socket(outer: &Object<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = outer.text("agentSocket")? else { return Ok(None) };
    if Path::new(&path).is_absolute() && path.len() <= LONGEST_SOCKET_PATH && !path.contains('\0') {
        return Ok(Some(path.into()));
    }
    Err(outer.refuse("agentSocket", path, "an absolute path of at most 107 bytes").into())
}

fn attachment(entry: &Object<'_>) -> Result<AttachmentKey, FieldError> {
    let text = |key: &str| entry.text(key)?.ok_or_else(|| entry.fault(key, Fault::Missing));
    let (container, ifname) = (text("containerID")?, text("ifname")?);
    Ok(AttachmentKey {
        container: ContainerId::new(container).map_err(|e| entry.refuse("containerID", e.value, e.rule))?,
        ifname: IfName::new(ifname).map_err(|e| entry.refuse("ifname", e.value, e.rule))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<NetConf, ConfigError> {
        NetConf::parse(value.to_string().as_bytes())
    }

    fn conf(extra: Value) -> Result<NetConf, ConfigError> {
        let mut value = json!({"cniVersion": "1.1.0", "name": "podnet", "type": "rhumb-cni"});
        value.as_object_mut().expect("object").append(&mut extra.as_object().expect("object").clone());
        parse(value)
    }

    fn refused_field<T>(result: Result<T, ConfigError>) -> String {
        let error = result.err().expect("refused");
        let ConfigError::Field(error) = error else { panic!("{error}") };
        error.field
    }

    #[test]
    fn what_is_no_object_is_not_decoded() {
        for bad in ["", "[]", "{", "null", "1", "\"x\"", "{}{}", "\u{feff}{}"] {
            assert!(matches!(NetConf::parse(bad.as_bytes()), Err(ConfigError::Decode(_))), "{bad}");
        }
        assert!(matches!(NetConf::parse(&[b'['; 10_000]), Err(ConfigError::Decode(_))));
    }

    #[test]
    fn names_follow_the_specification() {
        for good in ["podnet", "0", "a1._-Z"] {
            assert_eq!(conf(json!({"name": good})).expect("valid").name, good);
        }
        for bad in ["-dash", ".dot", "_x", "a b", "a/b", "ä"] {
            assert_eq!(refused_field(conf(json!({"name": bad}))), "name", "{bad}");
        }
        assert_eq!(refused_field(parse(json!({"cniVersion": "1.1.0"}))), "name");
        assert_eq!(refused_field(conf(json!({"name": 3}))), "name");
    }

    #[test]
    fn a_configuration_without_version_is_of_an_unsupported_one() {
        let error = parse(json!({"name": "podnet"})).expect_err("refused");
        assert!(matches!(error, ConfigError::Version(VersionError { asked }) if asked == "0.1.0"));
        assert_eq!(refused_field(conf(json!({"cniVersion": 1}))), "cniVersion");
    }

    #[test]
    fn operations_have_their_first_version() {
        let allowed =
            |version: &str, verb| conf(json!({"cniVersion": version})).expect("valid").allow(verb).is_ok();
        assert!(!allowed("0.3.1", Verb::Check) && allowed("0.4.0", Verb::Check));
        assert!(!allowed("1.0.0", Verb::Gc) && allowed("1.1.0", Verb::Gc));
        assert!(!allowed("1.0.0", Verb::Status) && allowed("1.1.0", Verb::Status));
        assert!(allowed("0.3.1", Verb::Add) && allowed("0.3.1", Verb::Del));
    }

    #[test]
    fn unknown_keys_are_tolerated() {
        assert!(conf(json!({"bridge": "cni0", "capabilities": {"x": true}, "args": {"x": 1}})).is_ok());
    }

    #[test]
    fn another_ipam_type_is_a_delegate() {
        let delegate = |ipam: Value| conf(json!({"ipam": ipam})).expect("valid").delegate;
        assert_eq!(delegate(json!({"type": "host-local"})).as_deref(), Some("host-local"));
        for own in [
            json!({}),
            json!({"type": ""}),
            json!({"type": "rhumb"}),
            json!({"type": "rhumb-cni"}),
            json!(null),
        ] {
            assert_eq!(delegate(own), None);
        }
        assert_eq!(refused_field(conf(json!({"ipam": {"type": "../x"}}))), "ipam.type");
        assert_eq!(refused_field(conf(json!({"ipam": "x"}))), "ipam");
    }

    #[test]
    fn the_socket_is_an_absolute_path_that_fits() {
        assert!(conf(json!({"agentSocket": "/run/x.sock"})).expect("valid").socket.is_some());
        for bad in [json!("run/x.sock"), json!(format!("/{}", "x".repeat(107))), json!(1), json!("/a\u{0}b")]
        {
            assert_eq!(refused_field(conf(json!({"agentSocket": bad}))), "agentSocket");
        }
    }

    #[test]
    fn a_gc_without_its_list_is_refused_and_the_older_key_is_read() {
        let keep = |extra| conf(extra).expect("valid").valid_attachments();
        assert_eq!(refused_field(keep(json!({}))), "cni.dev/valid-attachments");
        let list = json!([{"containerID": "c", "ifname": "eth0"}]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            assert_eq!(keep(json!({key: list})).expect("valid")[0].to_string(), "c/eth0");
            assert!(keep(json!({key: null})).expect("valid").is_empty());
        }
        for (bad, field) in [
            (json!([{"containerID": "c"}]), "cni.dev/valid-attachments[0].ifname"),
            (json!([{"containerID": "-c", "ifname": "eth0"}]), "cni.dev/valid-attachments[0].containerID"),
            (json!([1]), "cni.dev/valid-attachments[0]"),
            (json!({}), "cni.dev/valid-attachments"),
        ] {
            assert_eq!(refused_field(keep(json!({"cni.dev/valid-attachments": bad}))), field);
        }
    }

    #[test]
    fn empty_name_service_settings_are_none() {
        assert_eq!(conf(json!({"dns": {}})).expect("valid").dns().expect("valid"), None);
        assert_eq!(refused_field(conf(json!({"dns": {"search": 1}})).expect("valid").dns()), "dns");
    }
}
