// SPDX-License-Identifier: Apache-2.0
//! The tunnel of this node: its device, what the datapath has to know of it, and its programs.

use std::net::IpAddr;

use rhumb_ebpf::{Hook, IfIndex, TUNNEL_MAC, TunnelLink};
use rhumb_model::{Family, IfName, MacAddr};
use rhumb_routing::TunnelSpec;
use rhumb_routing::host::Uplink;
use rhumb_routing::plan::tunnel_overhead;

use crate::desired::{Desired, Programs};

/// Name of the device.
pub(crate) const NAME: &str = "rhumb_vxlan";

/// The device's name as routes and programs use it.
pub(crate) fn name() -> IfName {
    IfName::new(NAME).expect("a valid name")
}

impl Desired {
    /// Adds the tunnel, and, once the device has an index, what hangs on it. Of `own`, the first address of each
    /// family is the source of encapsulated packets: the one by which other nodes know this one.
    pub(crate) fn add_tunnel(
        &mut self,
        port: u16,
        uplinks: &[Uplink],
        own: &[IpAddr],
        ifindex: Option<u32>,
        programs: &Programs,
    ) {
        let Some(widest) = uplinks.iter().map(|uplink| uplink.mtu).max() else { return };
        let mac = MacAddr::new(TUNNEL_MAC).expect("a unicast address");
        let mtu = widest.saturating_sub(tunnel_overhead(Family::V4));
        self.tunnels.insert(name(), TunnelSpec { port, mtu, mac });
        let Some(ifindex) = ifindex else { return };
        for hook in [Hook::FromTunnel, Hook::ToTunnel] {
            self.attach(&name(), ifindex, hook, programs);
        }
        let (mut v4, mut v6) = (None, None);
        for addr in own.iter().rev() {
            match addr {
                IpAddr::V4(addr) => v4 = Some(*addr),
                IpAddr::V6(addr) => v6 = Some(*addr),
            }
        }
        self.tunnel_links.insert(IfIndex(ifindex), TunnelLink { port, v4, v6 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::programs;

    fn desired(ifindex: Option<u32>, has_tcx: bool) -> Desired {
        let uplink = |mtu| Uplink { ifname: name(), ifindex: 1, mtu, addresses: Vec::new() };
        let own = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|text| text.parse().expect("valid"));
        let mut desired = Desired::default();
        desired.add_tunnel(8472, &[uplink(1500), uplink(9000)], &own, ifindex, &programs(has_tcx));
        desired
    }

    #[test]
    fn a_device_comes_before_what_hangs_on_it_and_takes_what_the_widest_uplink_does() {
        let desired = desired(None, true);
        assert_eq!(desired.tunnels[&name()].mtu, 8950);
        assert!(desired.tunnel_links.is_empty() && desired.attachments.is_empty());
    }

    #[test]
    fn the_first_address_of_each_family_is_the_source() {
        let desired = desired(Some(7), true);
        let link = TunnelLink { port: 8472, v4: Some([192, 0, 2, 1].into()), v6: "2001:db8::1".parse().ok() };
        assert_eq!(desired.tunnel_links, [(IfIndex(7), link)].into());
        assert_eq!(desired.attachments.len(), 2);
        assert_eq!(self::desired(Some(7), false).filters.len(), 2, "where there is no tcx");
    }

    #[test]
    fn without_an_uplink_there_is_nothing_to_go_by() {
        let mut desired = Desired::default();
        desired.add_tunnel(8472, &[], &[], Some(7), &programs(true));
        assert_eq!(desired, Desired::default());
    }
}
