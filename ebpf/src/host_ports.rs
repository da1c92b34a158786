// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rhumb_ebpf_common::layout::{HostPortKey, HostPortValue};
use rhumb_model::Target;

use crate::entries::{Entries, EntryError, to_addr, to_words};

const SCTP: u8 = 132;

/// A port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// One address of the node; a port on all addresses is one entry for each.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.protocol)
    }
}

/// Where a host port leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPortBackend {
    /// Address of a pod of this node, of the same family as the host port's.
    pub addr: IpAddr,
    /// The pod's port.
    pub port: u16,
}

/// Why a host port could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// The map does not serve.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Node and pod address are of different families.
    #[error("host port {port}: {backend} is of the other address family")]
    Family {
        /// The host port.
        port: HostPort,
        /// The pod's address.
        backend: IpAddr,
    },
    /// The port number would change, which the checksum of SCTP covers and the kernel side cannot compute.
    #[error("host port {port}: SCTP cannot be sent to another port ({backend})")]
    Sctp {
        /// The host port.
        port: HostPort,
        /// The pod's port.
        backend: u16,
    },
}

/// The host ports of this node's pods.
#[derive(Debug)]
pub struct HostPorts {
    entries: Entries<HostPortKey, HostPortValue>,
}

impl HostPorts {
    pub(crate) fn open(maps: &Path) -> Result<Self, EntryError> {
        Ok(Self { entries: Entries::open(maps, "host_ports")? })
    }
}

impl Target for HostPorts {
    type Key = HostPort;
    type Value = HostPortBackend;
    type Error = HostPortError;

    fn kind(&self) -> &'static str {
        "host port"
    }

    async fn observe(&mut self) -> Result<BTreeMap<HostPort, HostPortBackend>, HostPortError> {
        Ok(self.entries.all(|key, value| {
            let port = HostPort {
                addr: to_addr(key.addr),
                port: u16::from_be_bytes(key.port),
                protocol: key.protocol,
            };
            let backend = HostPortBackend { addr: to_addr(value.addr), port: u16::from_be_bytes(value.port) };
            (port, backend)
        })?)
    }

    async fn put(&mut self, key: &HostPort, value: &HostPortBackend) -> Result<(), HostPortError> {
        check(key, value)?;
        let entry = HostPortValue {
            addr: to_words(value.addr),
            port: value.port.to_be_bytes(),
            ..Default::default()
        };
        Ok(self.entries.put(key, &write(key), &entry)?)
    }

    async fn remove(&mut self, key: &HostPort) -> Result<(), HostPortError> {
        Ok(self.entries.remove(key, &write(key))?)
    }
}

fn check(key: &HostPort, value: &HostPortBackend) -> Result<(), HostPortError> {
    if key.addr.is_ipv4() != value.addr.is_ipv4() {
        return Err(HostPortError::Family { port: *key, backend: value.addr });
    }
    if key.protocol == SCTP && key.port != value.port {
        return Err(HostPortError::Sctp { port: *key, backend: value.port });
    }
    Ok(())
}

fn write(key: &HostPort) -> HostPortKey {
    HostPortKey {
        addr: to_words(key.addr),
        port: key.port.to_be_bytes(),
        protocol: key.protocol,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(addr: &str, protocol: u8) -> HostPort {
        HostPort { addr: addr.parse().expect("valid"), port: 80, protocol }
    }

    fn backend(addr: &str, port: u16) -> HostPortBackend {
        HostPortBackend { addr: addr.parse().expect("valid"), port }
    }

    #[test]
    fn a_host_port_stays_in_its_family() {
        let error = check(&port("192.0.2.1", 6), &backend("2001:db8::1", 80)).expect_err("refused");
        assert_eq!(error.to_string(), "host port 192.0.2.1:80/6: 2001:db8::1 is of the other address family");
        assert!(check(&port("2001:db8::9", 6), &backend("2001:db8::1", 8080)).is_ok());
    }

    #[test]
    fn sctp_keeps_its_port() {
        assert!(matches!(
            check(&port("192.0.2.1", SCTP), &backend("10.0.0.1", 81)),
            Err(HostPortError::Sctp { backend: 81, .. })
        ));
        assert!(check(&port("192.0.2.1", SCTP), &backend("10.0.0.1", 80)).is_ok());
    }
}
