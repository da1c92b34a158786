// SPDX-License-Identifier: Apache-2.0
//! What a configuration asks for one attachment: `mtu`, `runtimeConfig`, `args` and what `CNI_ARGS` adds.
//!
//! Of several places that ask for the same, `runtimeConfig` goes before `args`, and `args` before `CNI_ARGS`
//! (CNI CONVENTIONS).

use std::net::IpAddr;

use rhumb_model::MacAddr;

use crate::args::{Args, address, one_per_family};
use crate::config::{ConfigError, NetConf};
use crate::object::{FieldError, Object};
use crate::protocol::{Bandwidth, Limit, PortMapping, Protocol};

/// Least MTU of IPv4 in bytes (RFC 791).
const LEAST_MTU: u32 = 68;
/// Greatest MTU that the kernel gives a veth, in bytes.
const GREATEST_MTU: u32 = 65_535;

/// What is asked for an attachment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wishes {
    /// MTU in bytes.
    pub(crate) mtu: Option<u32>,
    /// Addresses, at most one per family.
    pub(crate) ips: Vec<IpAddr>,
    /// MAC address of the container interface.
    pub(crate) mac: Option<MacAddr>,
    /// Ports of the node that lead to the container.
    pub(crate) port_mappings: Vec<PortMapping>,
    /// Limits of the rate.
    pub(crate) bandwidth: Option<Bandwidth>,
}

impl Wishes {
    /// Reads them.
    ///
    /// # Errors
    /// [`ConfigError`] names the field that is not as it must be.
    pub(crate) fn parse(conf: &NetConf, args: &Args) -> Result<Self, ConfigError> {
        let outer = conf.outer();
        let runtime = outer.object("runtimeConfig")?;
        let cni_args = outer.object("args")?.map(|a| a.object("cni")).transpose()?.flatten();

        let mut wishes =
            Wishes { mtu: mtu(&outer)?, ips: args.ips.clone(), mac: args.mac, ..Wishes::default() };
        for place in [cni_args, runtime.clone()].into_iter().flatten() {
            if let Some(ips) = ips(&place)? {
                wishes.ips = ips;
            }
            if let Some(text) = place.text("mac")? {
                wishes.mac = Some(
                    text.parse()
                        .map_err(|e: rhumb_model::NameError| place.refuse("mac", &e.value, e.rule))?,
                );
            }
        }
        if let Some(runtime) = runtime {
            wishes.port_mappings =
                runtime.objects("portMappings")?.iter().map(port_mapping).collect::<Result<_, _>>()?;
            wishes.bandwidth = runtime.object("bandwidth")?.as_ref().map(bandwidth).transpose()?.flatten();
        }
        Ok(wishes)
    }
}

fn mtu(outer: &Object<'_>) -> Result<Option<u32>, FieldError> {
    // The reference plugins write 0 where they leave the MTU to the plugin.
    match outer.get::<u32>("mtu")? {
        None | Some(0) => Ok(None),
        Some(mtu) if (LEAST_MTU..=GREATEST_MTU).contains(&mtu) => Ok(Some(mtu)),
        Some(mtu) => Err(outer.refuse("mtu", mtu, "68 to 65535 bytes, or 0 for the agent's choice")),
    }
}

fn ips(place: &Object<'_>) -> Result<Option<Vec<IpAddr>>, ConfigError> {
    let Some(texts) = place.get::<Vec<String>>("ips")?.filter(|texts| !texts.is_empty()) else {
        return Ok(None);
    };
    let ips = texts
        .iter()
        .map(|t| address(t).ok_or_else(|| place.refuse("ips", t, "an address, with or without a length")))
        .collect::<Result<Vec<_>, _>>()?;
    if !one_per_family(&ips) {
        return Err(ConfigError::Unsupported {
            field: place.field("ips"),
            value: texts.join(", "),
            rule: "at most one address per family",
        });
    }
    Ok(Some(ips))
}

fn port_mapping(entry: &Object<'_>) -> Result<PortMapping, FieldError> {
    let port = |key| match entry.get::<u16>(key)? {
        Some(port) if port != 0 => Ok(port),
        _ => {
            Err(entry.refuse(key, entry.value(key).map_or("0".to_owned(), ToString::to_string), "1 to 65535"))
        }
    };
    let protocol = entry.text("protocol")?.unwrap_or_default();
    let host_ip = entry.text("hostIP")?;
    Ok(PortMapping {
        host_port: port("hostPort")?,
        container_port: port("containerPort")?,
        protocol: match protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(entry.refuse("protocol", protocol, "tcp, udp or sctp")),
        },
        host_ip: host_ip
            .map(|ip| ip.parse().map_err(|_| entry.refuse("hostIP", ip, "an address")))
            .transpose()?,
    })
}

fn bandwidth(entry: &Object<'_>) -> Result<Option<Bandwidth>, FieldError> {
    let ingress = limit(entry, "ingressRate", "ingressBurst")?;
    let egress = limit(entry, "egressRate", "egressBurst")?;
    Ok((ingress.is_some() || egress.is_some()).then_some(Bandwidth { ingress, egress }))
}

fn limit(entry: &Object<'_>, rate_key: &str, burst_key: &str) -> Result<Option<Limit>, FieldError> {
    let rate = entry.get::<u64>(rate_key)?.unwrap_or(0);
    let burst = entry.get::<u64>(burst_key)?.unwrap_or(0);
    match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) => Err(entry.refuse(rate_key, rate, "a rate in bit/s, because a burst is given")),
        (_, 0) => Err(entry.refuse(burst_key, burst, "a burst in bits, because a rate is given")),
        (rate, burst) => Ok(Some(Limit { rate, burst })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wishes(extra: &Value, args: &str) -> Result<Wishes, ConfigError> {
        let mut value = json!({"cniVersion": "1.1.0", "name": "podnet"});
        value.as_object_mut().expect("object").append(&mut extra.as_object().expect("object").clone());
        let conf = NetConf::parse(value.to_string().as_bytes()).expect("valid");
        Wishes::parse(&conf, &Args::parse(args).expect("valid"))
    }

    fn refused_field(extra: &Value) -> String {
        let error = wishes(extra, "").expect_err("refused");
        let ConfigError::Field(error) = error else { panic!("{error}") };
        error.field
    }

    #[test]
    fn nothing_asked_is_nothing_wished() {
        for extra in [json!({}), json!({"runtimeConfig": {}}), json!({"runtimeConfig": {"cgroupPath": "/x"}})]
        {
            assert_eq!(wishes(&extra, "").expect("valid"), Wishes::default());
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        let table = [
            (json!({"mtu": "x"}), "mtu"),
            (json!({"mtu": 67}), "mtu"),
            (json!({"mtu": 65536}), "mtu"),
            (json!({"mtu": 1500.5}), "mtu"),
            (json!({"mtu": -1}), "mtu"),
            (json!({"runtimeConfig": []}), "runtimeConfig"),
            (json!({"args": {"cni": 1}}), "args.cni"),
            (json!({"args": {"cni": {"ips": ["x"]}}}), "args.cni.ips"),
            (json!({"runtimeConfig": {"mac": "x"}}), "runtimeConfig.mac"),
            (json!({"runtimeConfig": {"ips": "10.0.0.1"}}), "runtimeConfig.ips"),
            (json!({"runtimeConfig": {"portMappings": [{}]}}), "runtimeConfig.portMappings[0].hostPort"),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 80}]}}),
                "runtimeConfig.portMappings[0].hostPort",
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 65536}]}}),
                "runtimeConfig.portMappings[0].containerPort",
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}}),
                "runtimeConfig.portMappings[0].protocol",
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}}),
                "runtimeConfig.portMappings[0].hostIP",
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}),
                "runtimeConfig.bandwidth.ingressBurst",
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"egressBurst": 1}}}),
                "runtimeConfig.bandwidth.egressRate",
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"egressRate": -1}}}),
                "runtimeConfig.bandwidth.egressRate",
            ),
        ];
        for (extra, field) in table {
            assert_eq!(refused_field(&extra), field, "{extra}");
        }
    }

    #[test]
    fn port_mappings_are_read_as_runtimes_write_them() {
        let extra = json!({"runtimeConfig": {"portMappings": [
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""},
            {"hostPort": 53, "containerPort": 53, "protocol": "Udp", "hostIP": "fd00::1"},
            {"hostPort": 90, "containerPort": 90},
        ]}});
        let mappings = wishes(&extra, "").expect("valid").port_mappings;
        let short = |m: &PortMapping| (m.host_port, m.container_port, m.protocol, m.host_ip);
        assert_eq!(
            mappings.iter().map(short).collect::<Vec<_>>(),
            [
                (8080, 80, Protocol::Tcp, None),
                (53, 53, Protocol::Udp, Some("fd00::1".parse().expect("address"))),
                (90, 90, Protocol::Tcp, None),
            ]
        );
    }

    #[test]
    fn a_direction_without_rate_is_unlimited() {
        let extra =
            json!({"runtimeConfig": {"bandwidth": {"ingressRate": 10, "ingressBurst": 20, "egressRate": 0}}});
        let bandwidth = wishes(&extra, "").expect("valid").bandwidth;
        assert_eq!(bandwidth, Some(Bandwidth { ingress: Some(Limit { rate: 10, burst: 20 }), egress: None }));
        let none = json!({"runtimeConfig": {"bandwidth": {"ingressRate": 0, "ingressBurst": 0}}});
        assert_eq!(wishes(&none, "").expect("valid").bandwidth, None);
    }

    #[test]
    fn runtime_config_goes_before_args_before_cni_args() {
        let ip = |w: &Wishes| w.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mac = |w: &Wishes| w.mac.map(|m| m.to_string().split_off(15));
        let low = "IP=10.0.0.1;MAC=02:00:00:00:00:01";
        let args = json!({"cni": {"ips": ["10.0.0.2/24"], "mac": "02:00:00:00:00:02"}});
        let runtime = json!({"ips": ["10.0.0.3", "fd00::3"], "mac": "02:00:00:00:00:03"});

        let only = wishes(&json!({}), low).expect("valid");
        assert_eq!((ip(&only).as_str(), mac(&only).as_deref()), ("10.0.0.1", Some("01")));
        let two = wishes(&json!({"args": args}), low).expect("valid");
        assert_eq!((ip(&two).as_str(), mac(&two).as_deref()), ("10.0.0.2", Some("02")));
        let all = wishes(&json!({"args": args, "runtimeConfig": runtime}), low).expect("valid");
        assert_eq!((ip(&all).as_str(), mac(&all).as_deref()), ("10.0.0.3 fd00::3", Some("03")));
        let empty =
            wishes(&json!({"args": args, "runtimeConfig": {"ips": [], "mac": ""}}), low).expect("valid");
        assert_eq!((ip(&empty).as_str(), mac(&empty).as_deref()), ("10.0.0.2", Some("02")));
    }

    #[test]
    fn two_addresses_of_one_family_are_not_supported() {
        let extra = json!({"runtimeConfig": {"ips": ["10.0.0.1", "10.0.0.2"]}});
        let error = wishes(&extra, "").expect_err("refused").to_string();
        assert!(error.contains("runtimeConfig.ips") && error.contains("10.0.0.2"), "{error}");
    }
}
