// SPDX-License-Identifier: Apache-2.0
//! The shape of an ADD result, compared with what is really set on the container interface.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::expect::Miss;

/// What the container interface really is like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Actual {
    /// Addresses with the length of their subnet.
    pub(crate) addresses: Vec<IpNetwork>,
    /// MAC address.
    pub(crate) mac: String,
}

/// Phrases that a shape may use for a value, beside the value itself.
const PHRASES: &[&str] = &[
    "required",
    "absent",
    "absent or empty",
    "must be absent",
    "optional",
    "optional address",
    "CIDR",
    "CIDR of an address really set on the container interface",
    "index of the container interface",
    "required 4 or 6",
    "object, may be absent or empty",
];

/// Phrases in a shape that have no meaning here.
pub(crate) fn unknown_phrases(shape: &Value) -> Vec<String> {
    let Value::Object(shape) = shape else { return vec![shape.to_string()] };
    let mut unknown = Vec::new();
    for (key, value) in shape {
        match (key.as_str(), value) {
            ("forbidden" | "allowed_extra", _) => {}
            (_, Value::Object(fields)) => unknown.extend(unknown_in(fields)),
            (_, Value::String(text)) if is_sentence(text) => unknown.push(text.clone()),
            (_, _) => {}
        }
    }
    unknown
}

fn unknown_in(fields: &Map<String, Value>) -> Vec<String> {
    fields
        .values()
        .flat_map(|value| match value {
            Value::Object(inner) => unknown_in(inner),
            Value::String(text) if is_sentence(text) => vec![text.clone()],
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Vec::new()
            }
        })
        .collect()
}

/// Several words that are no phrase known here; a single word is a literal.
fn is_sentence(text: &str) -> bool {
    text.contains(' ') && !PHRASES.contains(&text)
}

/// Compares `result` with `shape`; variables in `shape` are replaced already.
pub(crate) fn compare(shape: &Value, result: &Value, actual: &Actual) -> Vec<Miss> {
    let mut misses = Vec::new();
    let Value::Object(shape) = shape else { return misses };
    if !result.is_object() {
        return vec![Miss::new("result", "an object", result)];
    }
    for (key, wanted) in shape {
        match key.as_str() {
            "interfaces" => interfaces(wanted, result, actual, &mut misses),
            "ips" => ips(wanted, result, actual, &mut misses),
            "routes" => routes(wanted, result, &mut misses),
            "dns" => dns(wanted, result, &mut misses),
            "forbidden" => forbidden(wanted, result, &mut misses),
            "allowed_extra" => allowed(wanted, result, &mut misses),
            other => field(&format!("result.{other}"), wanted, result.get(other), &mut misses),
        }
    }
    misses
}

/// The container's interface of a result and its place in the list.
pub(crate) fn container_interface<'a>(result: &'a Value, ifname: &str) -> Option<(usize, &'a Value)> {
    let list = result["interfaces"].as_array()?;
    list.iter().enumerate().find(|(_, interface)| {
        interface["name"] == ifname && interface["sandbox"].as_str().is_some_and(|path| !path.is_empty())
    })
}

/// Names of the interfaces of a result that are outside of a sandbox.
pub(crate) fn host_interfaces(result: &Value) -> Vec<String> {
    let list = result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter(|interface| interface["sandbox"].as_str().is_none_or(str::is_empty))
        .filter_map(|interface| interface["name"].as_str().map(str::to_owned))
        .collect()
}

/// The addresses of a result, with the length of their subnet.
pub(crate) fn addresses(result: &Value) -> Vec<IpNetwork> {
    let list = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|ip| ip["address"].as_str()?.parse().ok()).collect()
}

fn field(place: &str, wanted: &Value, found: Option<&Value>, misses: &mut Vec<Miss>) {
    let text = found.and_then(Value::as_str).unwrap_or_default();
    let right = match wanted.as_str() {
        Some("required") => !text.is_empty(),
        Some("absent" | "must be absent") => found.is_none(),
        Some("absent or empty") => text.is_empty(),
        Some("optional") => true,
        Some("optional address") => found.is_none() || text.parse::<IpAddr>().is_ok(),
        Some("required 4 or 6") => matches!(text, "4" | "6"),
        Some("CIDR") => text.contains('/') && text.parse::<IpNetwork>().is_ok(),
        Some("object, may be absent or empty") => found.is_none_or(Value::is_object),
        Some(_) | None => found == Some(wanted),
    };
    if !right {
        misses.push(Miss::new(place, wanted, found.unwrap_or(&Value::Null)));
    }
}

fn interfaces(wanted: &Value, result: &Value, actual: &Actual, misses: &mut Vec<Miss>) {
    let list = result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_container =
        |interface: &&Value| interface["sandbox"].as_str().is_some_and(|path| !path.is_empty());
    let Some(wanted) = wanted.as_object() else { return };
    for (role, shape) in wanted {
        let found: Vec<&Value> = match role.as_str() {
            "container" => list.iter().filter(is_container).collect(),
            _ => list.iter().filter(|interface| !is_container(interface)).collect(),
        };
        if found.is_empty() {
            misses.push(Miss::new(format!("result.interfaces ({role})"), shape, &result["interfaces"]));
        }
        let Some(fields) = shape.as_object() else { continue };
        for interface in found {
            for (key, value) in fields {
                field(&format!("result.interfaces ({role}).{key}"), value, interface.get(key), misses);
            }
            let mac = interface["mac"].as_str().unwrap_or_default();
            if role == "container" && fields.contains_key("mac") && !mac.eq_ignore_ascii_case(&actual.mac) {
                misses.push(Miss::new("result.interfaces (container).mac", &actual.mac, mac));
            }
        }
    }
}

fn ips(wanted: &Value, result: &Value, actual: &Actual, misses: &mut Vec<Miss>) {
    let list = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(wanted) = wanted.as_object() else { return };
    if let Some(count) = wanted.get("count")
        && count.as_u64() != Some(list.len() as u64)
    {
        misses.push(Miss::new("result.ips count", count, &result["ips"]));
    }
    let container = result["interfaces"].as_array().and_then(|interfaces| {
        interfaces.iter().position(|interface| interface["sandbox"].as_str().is_some_and(|s| !s.is_empty()))
    });
    for ip in list {
        for (key, value) in wanted.iter().filter(|(key, _)| *key != "count") {
            match value.as_str() {
                Some("CIDR of an address really set on the container interface") => {
                    really_set(ip, actual, misses);
                }
                Some("index of the container interface") => {
                    if container.is_none() || ip[key].as_u64() != container.map(|index| index as u64) {
                        misses.push(Miss::new("result.ips.interface", format!("{container:?}"), &ip[key]));
                    }
                }
                Some(_) | None => field(&format!("result.ips.{key}"), value, ip.get(key), misses),
            }
        }
        version_fits(ip, misses);
    }
}

fn really_set(ip: &Value, actual: &Actual, misses: &mut Vec<Miss>) {
    let text = ip["address"].as_str().unwrap_or_default();
    let set = text.parse::<IpNetwork>().is_ok_and(|address| actual.addresses.contains(&address));
    if !set || !text.contains('/') {
        misses.push(Miss::new("result.ips.address", format!("one of {:?}", actual.addresses), text));
    }
}

/// Where an address names its family, it is the right one.
fn version_fits(ip: &Value, misses: &mut Vec<Miss>) {
    let Some(version) = ip["version"].as_str() else { return };
    let family = ip["address"].as_str().and_then(|text| text.parse::<IpNetwork>().ok());
    let right = family.is_some_and(|network| if network.is_ipv4() { version == "4" } else { version == "6" });
    if !right {
        misses.push(Miss::new("result.ips.version", "the family of the address", ip));
    }
}

fn routes(wanted: &Value, result: &Value, misses: &mut Vec<Miss>) {
    let list = result["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(wanted) = wanted.as_object() else { return };
    for route in list {
        for (key, value) in wanted {
            field(&format!("result.routes.{key}"), value, route.get(key), misses);
        }
    }
}

fn dns(wanted: &Value, result: &Value, misses: &mut Vec<Miss>) {
    field("result.dns", wanted, result.get("dns"), misses);
}

fn each_entry(wanted: &Value, result: &Value, mut check: impl FnMut(&str, &[&str], &Map<String, Value>)) {
    for (section, keys) in wanted.as_object().into_iter().flatten() {
        let keys: Vec<&str> = keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for entry in result[section].as_array().into_iter().flatten().filter_map(Value::as_object) {
            check(section, &keys, entry);
        }
    }
}

fn forbidden(wanted: &Value, result: &Value, misses: &mut Vec<Miss>) {
    each_entry(wanted, result, |section, keys, entry| {
        for key in keys.iter().filter(|key| entry.contains_key(**key)) {
            misses.push(Miss::new(format!("result.{section}"), format!("no {key}"), &entry[*key]));
        }
    });
}

fn allowed(wanted: &Value, result: &Value, misses: &mut Vec<Miss>) {
    each_entry(wanted, result, |section, keys, entry| {
        let known: &[&str] = match section {
            "interfaces" => &["name", "mac", "sandbox"],
            "routes" => &["dst", "gw"],
            "ips" => &["address", "gateway", "interface"],
            _ => &[],
        };
        for key in entry.keys().filter(|key| !known.contains(&key.as_str()) && !keys.contains(&key.as_str()))
        {
            misses.push(Miss::new(format!("result.{section}"), format!("no {key}"), &entry[key]));
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape() -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": {
                "container": {"name": "eth0", "sandbox": "/run/netns/a", "mac": "required"},
                "host": {"sandbox": "absent or empty"},
            },
            "ips": {
                "count": 1,
                "address": "CIDR of an address really set on the container interface",
                "interface": "index of the container interface",
                "gateway": "optional address",
                "version": "must be absent",
            },
            "routes": {"dst": "CIDR", "gw": "optional"},
            "dns": "object, may be absent or empty",
            "forbidden": {"interfaces": ["mtu"], "routes": ["mtu"]},
        })
    }

    fn result() -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "rh1", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
            ],
            "ips": [{"address": "10.0.0.1/32", "interface": 1, "gateway": "169.254.1.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
            "dns": {},
        })
    }

    fn misses(result: &Value) -> Vec<String> {
        let actual = Actual {
            addresses: vec!["10.0.0.1/32".parse().expect("an address")],
            mac: "02:00:00:00:00:02".to_owned(),
        };
        compare(&shape(), result, &actual).into_iter().map(|miss| miss.what).collect()
    }

    #[test]
    fn a_result_of_the_shape_passes() {
        assert!(misses(&result()).is_empty());
        assert!(unknown_phrases(&shape()).is_empty());
    }

    #[test]
    fn each_difference_is_named() {
        let changes: [(&str, Value, &str); 8] = [
            ("/cniVersion", json!("1.1.0"), "result.cniVersion"),
            ("/interfaces/1/mac", json!("02:00:00:00:00:03"), "result.interfaces (container).mac"),
            ("/interfaces/1/name", json!("eth1"), "result.interfaces (container).name"),
            ("/interfaces/0/mtu", json!(1500), "result.interfaces"),
            ("/ips/0/address", json!("10.0.0.2/32"), "result.ips.address"),
            ("/ips/0/interface", json!(0), "result.ips.interface"),
            ("/ips/0/version", json!("4"), "result.ips.version"),
            ("/routes/0/dst", json!("10.0.0.0"), "result.routes.dst"),
        ];
        for (place, value, expected) in changes {
            let mut changed = result();
            let (parent, key) = place.rsplit_once('/').expect("a path");
            let parent = changed.pointer_mut(parent).expect("a place");
            parent.as_object_mut().expect("an object").insert(key.to_owned(), value);
            assert_eq!(misses(&changed), [expected], "{place}");
        }
    }

    #[test]
    fn a_phrase_without_meaning_here_is_told() {
        let shape = json!({"ips": {"address": "an address of the moon"}, "cniVersion": "1.0.0"});
        assert_eq!(unknown_phrases(&shape), ["an address of the moon"]);
    }

    #[test]
    fn interfaces_are_told_apart_by_their_sandbox() {
        let result = result();
        assert_eq!(container_interface(&result, "eth0").map(|(index, _)| index), Some(1));
        assert_eq!(host_interfaces(&result), ["rh1"]);
        assert_eq!(addresses(&result), ["10.0.0.1/32".parse::<IpNetwork>().expect("an address")]);
    }
}
