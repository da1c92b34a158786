// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Host ports: a port of the node that leads to a pod, and the way back.
//!
//! The destination is translated where the packet enters, and the flow remembered under the pod's side of it; the
//! pod's answers find it and take the host port's address as their source. The source stays as it is, but where the pod
//! asks for its own host port: it would hear from itself, so it hears from its gateway, and answers that. A peer that
//! uses one port of its own for the host port and for the pod at once is not told apart.

use rhumb_ebpf_common::ct::Ends;
use rhumb_ebpf_common::layout::{Ct, CtKey, HostPortKey, HostPortValue, same};
use rhumb_ebpf_common::{Ip, Ports, Reason, ethernet};

use crate::act::{self, Hop, Known, Side};
use crate::call::given;
use crate::packet::Skb;
use crate::track::{self, Word};
use crate::{either, lookup};

/// The global function around [`enter`].
#[inline(always)]
pub(crate) fn judge<F: Hop>(skb: Skb, ports: *const Ports) -> Reason {
    let Some(ports) = given(ports) else { return Reason::ToStack };
    match F::parse(&skb, skb.len()) {
        Ok(ip) => either(enter::<F>(skb, &ip, ports)),
        Err(reason) => reason,
    }
}

/// Delivers a packet for an address of the node to the pod behind the port, if there is one.
#[inline(always)]
fn enter<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Result<Reason, Reason> {
    // The stack judges what is addressed to the node itself.
    if ports.protocol == 0 {
        return Err(Reason::ToStack);
    }
    if ports.is_later_fragment() && ports.dst == [0; 2] {
        return Err(Reason::Fragment);
    }
    let key = HostPortKey { addr: F::key(ip.dst), port: ports.dst, protocol: ports.protocol, padding: 0 };
    let backend = lookup::host_port(&key).ok_or(Reason::ToStack)?;
    let endpoint = lookup::endpoint(&backend.addr).ok_or(Reason::BackendAbsent)?;
    ip.may_hop()?;
    remember(skb, ip, ports, backend, &key);
    act::translate::<F>(skb, ports, Side::Destination, &Known::new(backend.addr, backend.port))?;
    if same(&backend.addr, &F::key(ip.src)) {
        act::translate::<F>(skb, ports, Side::Source, &Known::new(F::key(F::gateway()), ports.src))?;
    }
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(Reason::HostPortIn)
}

/// Takes note of a packet to a host port in the flow that the pod will see.
#[inline(never)]
fn remember<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, backend: &HostPortValue, host: &HostPortKey) {
    let itself = same(&backend.addr, &F::key(ip.src));
    let source = if itself { F::gateway() } else { ip.src };
    let mut ends = Ends::new::<F>(source, F::unkey(&backend.addr), ports);
    ends.dst_port = backend.port;
    let _course = track::note(skb, &ends, Word::new(ports.signal));
    let (key, _) = ends.key();
    if let Some(flow) = lookup::ct(&key) {
        flow.translate(Ct::HOST_PORT, host.addr, host.port);
    }
}

/// Translates an answer from behind a host port; false when that is not possible.
#[inline(never)]
pub(crate) fn answer<F: Hop>(skb: Skb, ports: &Ports) -> bool {
    rename::<F>(skb, ports).is_ok()
}

#[inline(always)]
fn rename<F: Hop>(skb: Skb, ports: &Ports) -> Result<(), Reason> {
    let (mut node, mut pod) = (Known::NONE, Known::NONE);
    if find::<F>(skb, ports, &mut node, &mut pod) {
        act::translate::<F>(skb, ports, Side::Source, &node)?;
        if pod.port != [0; 2] {
            act::translate::<F>(skb, ports, Side::Destination, &pod)?;
        }
    }
    Ok(())
}

/// Finds what the other side knows the pod by, and if that is the pod itself, what it asked from.
#[inline(never)]
fn find<F: Hop>(skb: Skb, ports: &Ports, node: &mut Known, pod: &mut Known) -> bool {
    let Ok(ip) = F::parse(&skb, skb.len()) else { return false };
    let (key, _) = CtKey::new::<F>(ip.src, ip.dst, ports);
    let Some(flow) = lookup::ct(&key) else { return false };
    *node = Known::new(flow.nat_addr, flow.nat_port);
    if ip.is_to_gateway() {
        *pod = Known::new(F::key(ip.src), ports.dst);
    }
    true
}
