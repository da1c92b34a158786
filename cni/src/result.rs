// SPDX-License-Identifier: Apache-2.0
//! What the plugin prints: the result of ADD in each version, versions, errors (CNI specification 1.1.0, section 5).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhumb_model::{IfName, MacAddr, Prefix};
use serde::Serialize;

use crate::config::Dns;
use crate::protocol::{Address, Attachment, Interface, Route};
use crate::version::Version;

/// Index of the container interface in the result: the host's end is first.
const CONTAINER_INDEX: u32 = 1;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddResult<'a> {
    cni_version: &'static str,
    interfaces: [ResultInterface<'a>; 2],
    ips: Vec<ResultIp>,
    routes: Vec<ResultRoute>,
    dns: &'a Dns,
}

#[derive(Debug, Serialize)]
struct ResultInterface<'a> {
    name: &'a IfName,
    mac: MacAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ResultIp {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    interface: u32,
    address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
struct ResultRoute {
    dst: Prefix,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
}

/// The answer to VERSION.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionResult {
    cni_version: &'static str,
    supported_versions: [&'static str; 4],
}

/// The answer to what was not done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorResult {
    pub(crate) cni_version: &'static str,
    pub(crate) code: u32,
    pub(crate) msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) details: String,
}

impl<'a> AddResult<'a> {
    /// The result of an ADD in version `version`, for a container interface in `netns`.
    pub(crate) fn new(attachment: &'a Attachment, netns: &'a str, dns: &'a Dns, version: Version) -> Self {
        let interface = |end: &'a Interface, sandbox| ResultInterface {
            name: &end.name,
            mac: end.mac,
            mtu: version.has_details().then_some(end.mtu),
            sandbox,
        };
        Self {
            cni_version: version.as_str(),
            interfaces: [interface(&attachment.host, None), interface(&attachment.container, Some(netns))],
            ips: attachment.addresses.iter().map(|a| ResultIp::new(a, version)).collect(),
            routes: attachment.routes.iter().map(|r| ResultRoute::new(r, version)).collect(),
            dns,
        }
    }
}

impl ResultIp {
    fn new(address: &Address, version: Version) -> Self {
        let family = if address.address.is_ipv6() { "6" } else { "4" };
        Self {
            version: version.names_family().then_some(family),
            interface: CONTAINER_INDEX,
            address: address.address,
            gateway: address.gateway,
        }
    }
}

impl ResultRoute {
    fn new(route: &Route, version: Version) -> Self {
        Self { dst: route.dst, gw: route.gw, mtu: route.mtu.filter(|_| version.has_details()) }
    }
}

impl VersionResult {
    /// Every version that the plugin speaks. It answers in the highest without reading what is on stdin, as the
    /// reference library does: a runtime that probes need not send anything.
    pub(crate) fn new() -> Self {
        Self { cni_version: Version::HIGHEST.as_str(), supported_versions: Version::names() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn attachment() -> Attachment {
        let interface = |name: &str, mac: &str| Interface {
            name: IfName::new(name).expect("name"),
            mac: mac.parse().expect("mac"),
            mtu: 1500,
        };
        let address = |text: &str, gateway: &str| Address {
            address: text.parse().expect("address"),
            gateway: gateway.parse().ok(),
        };
        let route =
            |dst: &str, gw: &str, mtu| Route { dst: dst.parse().expect("prefix"), gw: gw.parse().ok(), mtu };
        Attachment {
            host: interface("rh0123456789", "02:00:00:00:00:01"),
            container: interface("eth0", "c2:11:22:33:44:55"),
            addresses: vec![address("10.1.0.5/32", "169.254.1.1"), address("fd00::5/128", "")],
            routes: vec![
                route("0.0.0.0/0", "169.254.1.1", None),
                route("::/0", "fe80::1", Some(1400)),
                route("169.254.1.1/32", "", None),
            ],
        }
    }

    /// Compares with the file `tests/results/NAME`; the environment variable UPDATE=1 writes it anew.
    fn golden(name: &str, value: &impl Serialize) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/results").join(name);
        let text = serde_json::to_string_pretty(value).expect("serializable") + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).expect("golden file");
        }
        assert_eq!(text, std::fs::read_to_string(&path).expect("golden file"), "{name}");
    }

    #[test]
    fn each_version_has_its_format() {
        let attachment = attachment();
        let dns =
            Dns { nameservers: vec!["10.96.0.10".into()], options: vec!["ndots:5".into()], ..Dns::default() };
        for version in Version::ALL {
            golden(
                &format!("add-{version}.json"),
                &AddResult::new(&attachment, "/run/netns/x", &dns, version),
            );
        }
    }

    #[test]
    fn without_name_service_settings_dns_is_empty() {
        let (attachment, dns) = (attachment(), Dns::default());
        let result = AddResult::new(&attachment, "/ns", &dns, Version::HIGHEST);
        let value = serde_json::to_value(&result).expect("serializable");
        assert_eq!(value["dns"], serde_json::json!({}));
    }

    #[test]
    fn versions_and_errors_have_their_format() {
        golden("version.json", &VersionResult::new());
        let error = ErrorResult { cni_version: "1.0.0", code: 7, msg: "m".into(), details: "d".into() };
        golden("error.json", &error);
        golden("error-without-details.json", &ErrorResult { details: String::new(), ..error });
    }
}
