// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use rhumb_model::{IfName, MacAddr, Target};

use crate::kernel::{Change, Kernel, KernelError, NewTunnel, Place, Tunnel};
use crate::netlink::Netlink;

/// Alias of the tunnel's device.
const ALIAS: &str = "rhumb:vxlan";
/// Stands for the MTU of a device that does not do what ours do: switched off, resolving neighbours, learning, or for
/// one network alone.
const NOT_WHOLE: u32 = 0;

/// A VXLAN device whose packets carry their destination with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    /// UDP port, on which every node of the cluster listens.
    pub port: u16,
    /// MTU in bytes: what fits into the tunnel over the widest underlay. Routes into it may allow less.
    pub mtu: u32,
    /// MAC address.
    pub mac: MacAddr,
}

/// Why a tunnel could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The host has an interface of that name that is not ours.
    #[error("the host already has an interface {ifname} that is not rhumb's")]
    InterfaceExists {
        /// Its name.
        ifname: IfName,
    },
    /// Another program, or a VXLAN device of others, has the port.
    #[error("make tunnel {ifname}: UDP port {port} is taken by another program or VXLAN device of this host")]
    PortTaken {
        /// Name of the device.
        ifname: IfName,
        /// The port.
        port: u16,
    },
    /// The kernel did not do it.
    #[error("set up tunnel {ifname}")]
    Kernel {
        /// Name of the device.
        ifname: IfName,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The devices could not be listed.
    #[error("list VXLAN devices")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

/// The VXLAN devices of rhumb on the host, known by their alias `rhumb:vxlan`; nothing else is touched. One that was
/// made anew has lost its routes and attached programs: whoever puts those looks again then ([`Tunnels::ifindex`] has
/// changed).
#[derive(Debug)]
pub struct Tunnels<K = Netlink> {
    kernel: K,
    seen: BTreeMap<IfName, Tunnel>,
}

impl<K: Kernel> Tunnels<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, seen: BTreeMap::new() }
    }

    /// Index of the device, by the last look or change.
    pub fn ifindex(&self, ifname: &IfName) -> Option<u32> {
        self.seen.get(ifname).map(|tunnel| tunnel.ifindex)
    }

    async fn look(&mut self) -> Result<Vec<Tunnel>, TunnelError> {
        let all = self.kernel.tunnels().await.map_err(|cause| TunnelError::Observe { cause })?;
        let ours = all.iter().filter(|tunnel| tunnel.alias.as_deref() == Some(ALIAS));
        self.seen = ours.map(|tunnel| (tunnel.name.clone(), tunnel.clone())).collect();
        Ok(all)
    }

    async fn make(&mut self, key: &IfName, value: &TunnelSpec) -> Result<(), TunnelError> {
        let new = NewTunnel {
            name: key.clone(),
            alias: ALIAS.to_owned(),
            mac: value.mac,
            mtu: value.mtu,
            port: value.port,
        };
        match self.kernel.create_tunnel(new).await {
            Ok(_) => self.look().await.map(drop),
            Err(cause) if cause.is_address_taken() => {
                Err(TunnelError::PortTaken { ifname: key.clone(), port: value.port })
            }
            Err(cause) if cause.is_present() => self.who_is_there(key, value.port).await,
            Err(cause) => Err(TunnelError::Kernel { ifname: key.clone(), cause }),
        }
    }

    /// What is in the way when the kernel says that the device is there already: one of the name, or else one with
    /// the port.
    async fn who_is_there(&self, key: &IfName, port: u16) -> Result<(), TunnelError> {
        let host = self.kernel.host_links().await.map_err(|cause| TunnelError::Observe { cause })?;
        let ifname = key.clone();
        if host.links.iter().any(|link| link.name == *key) {
            Err(TunnelError::InterfaceExists { ifname })
        } else {
            Err(TunnelError::PortTaken { ifname, port })
        }
    }
}

/// What the device is, in the words of its wish.
fn spec(tunnel: &Tunnel) -> TunnelSpec {
    let whole = tunnel.up && tunnel.external && !tunnel.learning && !tunnel.arp;
    TunnelSpec {
        port: tunnel.port,
        mtu: if whole { tunnel.mtu } else { NOT_WHOLE },
        mac: tunnel.mac.unwrap_or_else(|| MacAddr::from_seed(0)),
    }
}

/// Whether the device can be changed into what is wished for; its port and kind stay what they were made with.
fn can_become(tunnel: &Tunnel, value: &TunnelSpec) -> bool {
    tunnel.port == value.port && tunnel.external && !tunnel.learning && !tunnel.arp
}

impl<K: Kernel> Target for Tunnels<K> {
    type Key = IfName;
    type Value = TunnelSpec;
    type Error = TunnelError;

    fn kind(&self) -> &'static str {
        "tunnel"
    }

    fn is_retryable(error: &TunnelError) -> bool {
        match error {
            TunnelError::InterfaceExists { .. } | TunnelError::PortTaken { .. } => true,
            TunnelError::Kernel { cause, .. } | TunnelError::Observe { cause } => cause.is_retryable(),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<IfName, TunnelSpec>, TunnelError> {
        self.look().await?;
        Ok(self.seen.iter().map(|(name, tunnel)| (name.clone(), spec(tunnel))).collect())
    }

    async fn put(&mut self, key: &IfName, value: &TunnelSpec) -> Result<(), TunnelError> {
        self.look().await?;
        let Some(tunnel) = self.seen.get(key).cloned() else { return self.make(key, value).await };
        if !can_become(&tunnel, value) {
            self.remove(key).await?;
            return self.make(key, value).await;
        }
        let change = Change::SetLink { ifname: key.clone(), mac: Some(value.mac), mtu: Some(value.mtu) };
        let changed = self.kernel.apply(Place::Host, vec![change]).await.pop();
        match changed.expect("one result per change") {
            Ok(()) => self.look().await.map(drop),
            Err(cause) if cause.is_address_taken() => {
                Err(TunnelError::PortTaken { ifname: key.clone(), port: value.port })
            }
            Err(cause) => Err(TunnelError::Kernel { ifname: key.clone(), cause }),
        }
    }

    async fn remove(&mut self, key: &IfName) -> Result<(), TunnelError> {
        self.look().await?;
        let Some(tunnel) = self.seen.get(key) else { return Ok(()) };
        let deleted = self.kernel.delete_links(vec![tunnel.ifindex]).await.pop();
        match deleted.expect("one result per link") {
            Err(cause) if !cause.is_absent() => Err(TunnelError::Kernel { ifname: key.clone(), cause }),
            _ => {
                self.seen.remove(key);
                Ok(())
            }
        }
    }
}
