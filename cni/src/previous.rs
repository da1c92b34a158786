// SPDX-License-Identifier: Apache-2.0
//! Results of other plugins: `prevResult` and what an IPAM plugin answers (CNI specification 1.1.0, section 5).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhumb_model::{IfName, Prefix};
use serde_json::{Map, Value};

use crate::config::Dns;
use crate::object::{Fault, FieldError, Object};
use crate::protocol::Route;
use crate::version::Version;

/// What only results of 1.1.0 say about an interface.
const NEW_INTERFACE_KEYS: [&str; 3] = ["mtu", "socketPath", "pciID"];
/// What only results of 1.1.0 say about a route.
const NEW_ROUTE_KEYS: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// A result that another plugin made.
#[derive(Debug, Clone)]
pub(crate) struct Previous {
    /// Interfaces, in their order.
    pub(crate) interfaces: Vec<PreviousInterface>,
    ips: Vec<PreviousIp>,
    /// Routes, in their order.
    pub(crate) routes: Vec<Route>,
    /// Name service settings.
    pub(crate) dns: Dns,
    version: Version,
    object: Map<String, Value>,
}

/// An interface of such a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreviousInterface {
    name: String,
    sandbox: Option<String>,
}

#[derive(Debug, Clone)]
struct PreviousIp {
    address: IpNetwork,
    interface: Option<usize>,
}

impl Previous {
    /// Reads the result found in `field`; one without a version is of version `otherwise`.
    pub(crate) fn parse(value: &Value, field: &str, otherwise: Version) -> Result<Self, FieldError> {
        let object = serde_json::from_value::<Map<String, Value>>(value.clone())
            .map_err(|e| FieldError { field: field.to_owned(), fault: Fault::Shape(e) })?;
        let outer = Object::new(field, &object);
        let version = match outer.text("cniVersion")? {
            None => otherwise,
            Some(asked) => Version::parse(&asked)
                .map_err(|_| outer.refuse("cniVersion", asked, "0.3.1, 0.4.0, 1.0.0 or 1.1.0"))?,
        };
        let interfaces = outer
            .objects("interfaces")?
            .iter()
            .map(|i| {
                Ok(PreviousInterface {
                    name: i.text("name")?.unwrap_or_default(),
                    sandbox: i.text("sandbox")?,
                })
            })
            .collect::<Result<Vec<_>, FieldError>>()?;
        let ips =
            outer.objects("ips")?.iter().map(|ip| read_ip(ip, interfaces.len())).collect::<Result<_, _>>()?;
        let routes = outer.objects("routes")?.iter().map(read_route).collect::<Result<_, _>>()?;
        let dns = outer.get("dns")?.unwrap_or_default();
        Ok(Self { interfaces, ips, routes, dns, version, object })
    }

    /// Index of the container interface `ifname` in its sandbox.
    pub(crate) fn container(&self, ifname: &IfName, netns: &str) -> Option<usize> {
        let named = |exact: bool| {
            self.interfaces.iter().position(|i| {
                i.name == ifname.as_str()
                    && i.sandbox.as_deref().is_some_and(|sandbox| !exact || sandbox == netns)
            })
        };
        named(true).or_else(|| named(false))
    }

    /// Index of the first interface in the sandbox `netns`.
    pub(crate) fn in_sandbox(&self, netns: &str) -> Option<usize> {
        self.interfaces.iter().position(|i| i.sandbox.as_deref() == Some(netns))
    }

    /// Addresses of the interface at `index`; an address that names no interface belongs to it too.
    pub(crate) fn addresses_of(&self, index: usize) -> Vec<IpNetwork> {
        self.ips.iter().filter(|ip| ip.interface.is_none_or(|i| i == index)).map(|ip| ip.address).collect()
    }

    /// Every address.
    pub(crate) fn addresses(&self) -> Vec<IpNetwork> {
        self.ips.iter().map(|ip| ip.address).collect()
    }

    /// Interfaces outside of any sandbox that the kernel could have.
    pub(crate) fn host_interfaces(&self) -> Vec<IfName> {
        let on_host = self.interfaces.iter().filter(|i| i.sandbox.is_none());
        on_host.filter_map(|i| IfName::new(i.name.as_str()).ok()).collect()
    }

    /// The result as it came, said in version `to`: what that version does not know is left out.
    pub(crate) fn into_version(self, to: Version) -> Map<String, Value> {
        let Self { mut object, version, .. } = self;
        object.insert("cniVersion".to_owned(), to.as_str().into());
        if to == version {
            return object;
        }
        for ip in entries(&mut object, "ips") {
            if to.names_family() {
                let is_v6 = ip.get("address").and_then(Value::as_str).is_some_and(|a| a.contains(':'));
                ip.insert("version".to_owned(), if is_v6 { "6" } else { "4" }.into());
            } else {
                ip.remove("version");
            }
        }
        if !to.has_details() {
            for interface in entries(&mut object, "interfaces") {
                NEW_INTERFACE_KEYS.iter().for_each(|key| drop(interface.remove(*key)));
            }
            for route in entries(&mut object, "routes") {
                NEW_ROUTE_KEYS.iter().for_each(|key| drop(route.remove(*key)));
            }
        }
        object
    }
}

fn entries<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn read_ip(ip: &Object<'_>, interfaces: usize) -> Result<PreviousIp, FieldError> {
    let interface = ip
        .get::<i64>("interface")?
        .map(|index| {
            usize::try_from(index)
                .ok()
                .filter(|i| *i < interfaces)
                .ok_or_else(|| ip.refuse("interface", index, "the index of an interface of the result"))
        })
        .transpose()?;
    Ok(PreviousIp { address: network(ip, "address")?, interface })
}

fn read_route(route: &Object<'_>) -> Result<Route, FieldError> {
    let gw = route
        .text("gw")?
        .map(|gw| gw.parse::<IpAddr>().map_err(|_| route.refuse("gw", gw, "an address")))
        .transpose()?;
    let mtu = route.get::<u32>("mtu")?.filter(|mtu| *mtu != 0);
    Ok(Route { dst: Prefix::from(network(route, "dst")?), gw, mtu })
}

fn network(object: &Object<'_>, key: &str) -> Result<IpNetwork, FieldError> {
    let text = object.text(key)?.ok_or_else(|| object.fault(key, Fault::Missing))?;
    let parsed = text.contains('/').then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| object.refuse(key, text, "ADDRESS/LENGTH"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn previous(value: &Value) -> Previous {
        Previous::parse(value, "prevResult", Version::HIGHEST).expect("valid")
    }

    fn eth0() -> IfName {
        IfName::new("eth0").expect("valid")
    }

    #[test]
    fn the_container_interface_is_found_by_name_then_by_sandbox() {
        let result = previous(&json!({"interfaces": [
            {"name": "eth0"}, {"name": "eth0", "sandbox": ""}, {"name": "eth0", "sandbox": "/other"},
            {"name": "eth0", "sandbox": "/ns"}, {"name": "lo", "sandbox": "/third"},
        ]}));
        assert_eq!(result.container(&eth0(), "/ns"), Some(3));
        assert_eq!(result.container(&eth0(), "/gone"), Some(2));
        assert_eq!(result.container(&IfName::new("net1").expect("valid"), "/third"), None);
        assert_eq!(result.in_sandbox("/third"), Some(4));
    }

    #[test]
    fn addresses_belong_to_their_interface_or_to_all() {
        let result = previous(&json!({
            "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/ns"}],
            "ips": [{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.5/24", "interface": 1},
                    {"address": "fd00::5/64"}, {"address": "fd00::6/64", "interface": null}],
        }));
        let texts = |list: Vec<IpNetwork>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(result.addresses_of(1)), ["10.0.0.5/24", "fd00::5/64", "fd00::6/64"]);
        assert_eq!(result.addresses().len(), 4);
    }

    #[test]
    fn host_interfaces_are_those_without_sandbox() {
        let result = previous(&json!({"interfaces": [
            {"name": "cni0"}, {"name": "a name of the moon"}, {"name": "veth1", "sandbox": ""}, {"name": "eth0", "sandbox": "/ns"},
        ]}));
        assert_eq!(
            result.host_interfaces().iter().map(IfName::as_str).collect::<Vec<_>>(),
            ["cni0", "veth1"]
        );
    }

    #[test]
    fn bad_parts_are_named() {
        for (bad, field) in [
            (json!([]), "prevResult"),
            (json!({"cniVersion": "0.2.0"}), "prevResult.cniVersion"),
            (json!({"ips": [{"address": "10.0.0.1"}]}), "prevResult.ips[0].address"),
            (json!({"ips": [{}]}), "prevResult.ips[0].address"),
            (json!({"ips": [{"address": "10.0.0.1/8", "interface": 0}]}), "prevResult.ips[0].interface"),
            (json!({"ips": [{"address": "10.0.0.1/8", "interface": -1}]}), "prevResult.ips[0].interface"),
            (json!({"routes": [{"dst": "x/0"}]}), "prevResult.routes[0].dst"),
            (json!({"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}), "prevResult.routes[0].gw"),
            (json!({"interfaces": {}}), "prevResult.interfaces"),
            (json!({"dns": {"domain": 1}}), "prevResult.dns"),
        ] {
            let error = Previous::parse(&bad, "prevResult", Version::HIGHEST).expect_err("refused");
            assert_eq!(error.field, field, "{bad}");
        }
    }

    #[test]
    fn a_result_in_its_own_version_is_unchanged() {
        for version in Version::ALL {
            let value = json!({
                "cniVersion": version.as_str(), "foreign": {"x": [1]}, "dns": {"unknown": 1},
                "interfaces": [{"name": "eth0", "sandbox": "/ns", "mtu": 1, "other": null}],
                "ips": [{"version": "4", "address": "10.0.0.1/8"}], "routes": [{"dst": "0.0.0.0/0", "scope": 1}],
            });
            assert_eq!(Value::Object(previous(&value).into_version(version)), value);
        }
    }

    #[test]
    fn a_result_is_said_in_the_version_that_is_asked() {
        let value = json!({
            "cniVersion": "1.1.0", "foreign": 1,
            "interfaces": [{"name": "eth0", "mtu": 1400, "pciID": "x", "socketPath": "y"}],
            "ips": [{"address": "10.0.0.1/8"}, {"address": "fd00::1/64"}],
            "routes": [{"dst": "::/0", "mtu": 1, "advmss": 1, "priority": 1, "table": 1, "scope": 1}],
        });
        let old = previous(&value).into_version(Version::V0_4_0);
        assert_eq!(
            Value::Object(old),
            json!({
                "cniVersion": "0.4.0", "foreign": 1, "interfaces": [{"name": "eth0"}],
                "ips": [{"address": "10.0.0.1/8", "version": "4"}, {"address": "fd00::1/64", "version": "6"}],
                "routes": [{"dst": "::/0"}],
            })
        );
        let back = json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.0.0.1/8"}]});
        let new = Value::Object(previous(&back).into_version(Version::V1_0_0));
        assert_eq!(new, json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8"}]}));
    }
}
