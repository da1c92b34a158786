// SPDX-License-Identifier: Apache-2.0
//! `CNI_ARGS`: pairs `KEY=VALUE` with `;` between them (CNI specification 1.1.0, section 2, Parameters).

use std::net::IpAddr;

use rhumb_model::{Family, MacAddr, NameError, PodKey};

/// What `CNI_ARGS` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// The pod, when both of its names are given.
    pub pod: Option<PodKey>,
    /// `IP`: wanted addresses, at most one per family.
    pub ips: Vec<IpAddr>,
    /// `MAC`: wanted MAC address.
    pub mac: Option<MacAddr>,
}

/// Why `CNI_ARGS` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A part is no pair.
    #[error("CNI_ARGS: {pair:?} is not KEY=VALUE")]
    Pair {
        /// The part.
        pair: String,
    },
    /// Keys are unknown, and `IgnoreUnknown` is not set.
    #[error("CNI_ARGS: unknown keys {} without IgnoreUnknown=1", keys.join(", "))]
    Unknown {
        /// The keys.
        keys: Vec<String>,
    },
    /// A value is not of its key's kind.
    #[error("CNI_ARGS: {key}={value}: want {want}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        want: &'static str,
    },
    /// The MAC address is none.
    #[error("CNI_ARGS: MAC")]
    Mac(#[source] NameError),
}

impl Args {
    /// Reads the value of the variable; the empty text asks for nothing.
    ///
    /// # Errors
    /// [`ArgsError`] on a part without exactly one `=`, on an unknown key without `IgnoreUnknown`, and on a bad value.
    pub fn parse(text: &str) -> Result<Self, ArgsError> {
        let mut args = Args::default();
        let (mut namespace, mut name) = (String::new(), String::new());
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.contains('='))
                .ok_or_else(|| ArgsError::Pair { pair: pair.to_owned() })?;
            match key {
                "IgnoreUnknown" => ignore_unknown = boolean(value)?,
                "K8S_POD_NAMESPACE" => value.clone_into(&mut namespace),
                "K8S_POD_NAME" => value.clone_into(&mut name),
                "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
                "IP" if !value.is_empty() => args.ips = addresses(value)?,
                "MAC" if !value.is_empty() => args.mac = Some(value.parse().map_err(ArgsError::Mac)?),
                "IP" | "MAC" => {}
                other => unknown.push(other.to_owned()),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            return Err(ArgsError::Unknown { keys: unknown });
        }
        args.pod = (!namespace.is_empty() && !name.is_empty()).then_some(PodKey { namespace, name });
        Ok(args)
    }
}

fn boolean(value: &str) -> Result<bool, ArgsError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgsError::Value {
            key: "IgnoreUnknown",
            value: value.to_owned(),
            want: "1, 0, true or false",
        }),
    }
}

fn addresses(value: &str) -> Result<Vec<IpAddr>, ArgsError> {
    let refused = |want: &'static str| ArgsError::Value { key: "IP", value: value.to_owned(), want };
    let ips = value
        .split(',')
        .map(|ip| address(ip).ok_or_else(|| refused("addresses with ',' between them")))
        .collect::<Result<Vec<_>, _>>()?;
    if one_per_family(&ips) { Ok(ips) } else { Err(refused("at most one address per family")) }
}

/// An address, with or without the length of its subnet.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let Some((ip, len)) = text.split_once('/') else { return text.parse().ok() };
    let ip: IpAddr = ip.parse().ok()?;
    let len: u8 = len.parse().ok()?;
    (len <= Family::of(ip).bits()).then_some(ip)
}

/// Whether no family has more than one address.
pub(crate) fn one_per_family(ips: &[IpAddr]) -> bool {
    Family::BOTH.into_iter().all(|family| ips.iter().filter(|ip| Family::of(**ip) == family).count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kubelet_style_names_the_pod() {
        let args = Args::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=c;\
             K8S_POD_UID=11111111-2222-3333-4444-555555555555",
        )
        .expect("valid");
        assert_eq!(args.pod.expect("named").to_string(), "x/a");
    }

    #[test]
    fn half_a_pod_name_is_no_pod() {
        assert_eq!(Args::parse("K8S_POD_NAME=a").expect("valid").pod, None);
        assert_eq!(Args::parse("K8S_POD_NAMESPACE=;K8S_POD_NAME=a").expect("valid").pod, None);
    }

    #[test]
    fn malformed_pairs_are_refused() {
        for bad in ["FOO", "IgnoreUnknown=1;FOO", "A=B=C", "=B", ";", "IgnoreUnknown=1;"] {
            assert!(matches!(Args::parse(bad), Err(ArgsError::Pair { .. })), "{bad}");
        }
    }

    #[test]
    fn unknown_keys_are_all_named_unless_ignored() {
        let error = Args::parse("FOO=BAR;IP=10.0.0.1;BAZ=1").expect_err("unknown").to_string();
        assert!(error.contains("FOO") && error.contains("BAZ") && !error.contains("IP"), "{error}");
        assert!(Args::parse("FOO=BAR;IgnoreUnknown=0").is_err());
        for yes in ["1", "true", "True"] {
            assert_eq!(Args::parse(&format!("FOO=BAR;IgnoreUnknown={yes}")), Ok(Args::default()));
        }
        assert!(Args::parse("IgnoreUnknown=maybe").is_err());
    }

    #[test]
    fn addresses_come_with_or_without_a_length() {
        let args = Args::parse("IP=10.0.0.5/24,fd00::5;MAC=c2:11:22:33:44:55").expect("valid");
        assert_eq!(args.ips, ["10.0.0.5".parse::<IpAddr>().expect("v4"), "fd00::5".parse().expect("v6")]);
        assert!(args.mac.is_some());
        for bad in ["IP=x", "IP=10.0.0.1/33", "IP=10.0.0.1,10.0.0.2", "MAC=01:00:00:00:00:00", "MAC=x"] {
            assert!(Args::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Args::parse("IP=;MAC="), Ok(Args::default()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([A-Za-z_=;,./:0-9]|IP|MAC|IgnoreUnknown=1|;){0,40}|.{0,60}") {
            drop(Args::parse(&text));
        }
    }
}
