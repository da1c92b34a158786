// SPDX-License-Identifier: Apache-2.0
//! Names from outside, checked once where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is not allowed: which kind of name, the value, and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?}: {rule}")]
pub struct NameError {
    /// What the name was to be, for example `interface name`.
    pub kind: &'static str,
    /// The value that was refused.
    pub value: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// Declares a name. A clone costs no memory: plans are full of them.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// Checks `value` and takes it.
            ///
            /// # Errors
            /// [`NameError`] says which rule the value breaks.
            pub fn new(value: impl Into<String>) -> Result<Self, $crate::NameError> {
                let value = value.into();
                let check: fn(&str) -> bool = $check;
                if check(&value) {
                    Ok(Self(value.into()))
                } else {
                    Err($crate::NameError { kind: $kind, value, rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = $crate::NameError;
            fn try_from(value: String) -> Result<Self, $crate::NameError> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::NameError;
            fn from_str(value: &str) -> Result<Self, $crate::NameError> {
                Self::new(value)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                (*name.0).to_owned()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use name;

/// Lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit (RFC 1123 subdomain).
fn is_subdomain(value: &str) -> bool {
    (1..=253).contains(&value.len())
        && value.split('.').all(|label| {
            let alnum = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            alnum(label.bytes().next())
                && alnum(label.bytes().last())
                && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        })
}

name!(
    /// Name of a node, as its Kubernetes Node object carries it.
    NodeName,
    "node name",
    "lower-case letters, digits, '-' and '.', at most 253 characters (RFC 1123 subdomain)",
    is_subdomain
);

name!(
    /// Name of a pool of addresses.
    PoolName,
    "pool name",
    "lower-case letters, digits, '-' and '.', at most 253 characters (RFC 1123 subdomain)",
    is_subdomain
);

name!(
    /// Container id: the runtime's word for a pod sandbox (CNI specification 1.1.0, section 2, Parameters).
    ContainerId,
    "container id",
    "a letter or digit, then letters, digits, '_', '.' or '-', at most 200 characters",
    |value| {
        value.len() <= 200
            && value.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
            && value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
    }
);

name!(
    /// Name of a network interface, as the kernel allows it.
    IfName,
    "interface name",
    "1 to 15 characters, no '/', ':' or white space, not '.' or '..'",
    |value| {
        (1..=15).contains(&value.len())
            && value != "."
            && value != ".."
            && value.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'/' | b':'))
    }
);

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One interface of one container: what CNI calls an attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// Container id given by the runtime.
    pub container: ContainerId,
    /// Interface name inside the container.
    pub ifname: IfName,
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.ifname)
    }
}

impl FromStr for AttachmentKey {
    type Err = NameError;

    fn from_str(value: &str) -> Result<Self, NameError> {
        let (container, ifname) = value.split_once('/').ok_or_else(|| NameError {
            kind: "attachment",
            value: value.to_owned(),
            rule: "a container id, '/' and an interface name",
        })?;
        Ok(Self { container: ContainerId::new(container)?, ifname: IfName::new(ifname)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "abcdefghijklmno", "a.b", "net-1"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "eth:0", "a/b", "a b", "abcdefghijklmnop", "ä"] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn container_ids_follow_the_specification() {
        for good in ["a1._-Z", "0", "cni-1234"] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-leading-dash", ".hidden", "has space", "a/b"] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn node_names_are_subdomains() {
        assert!(NodeName::new("node-1.example").is_ok());
        for bad in ["", "Node", "-a", "a-", "a..b"] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_attachment_survives_its_text_form() {
        let key: AttachmentKey = "c1/eth0".parse().expect("valid");
        assert_eq!(key.to_string().parse::<AttachmentKey>(), Ok(key));
    }

    #[test]
    fn a_refusal_names_the_value_and_the_rule() {
        let error = IfName::new("eth:0").expect_err("refused").to_string();
        assert!(error.contains("eth:0") && error.contains("no '/'"), "{error}");
    }
}
