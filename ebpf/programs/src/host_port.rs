// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Host ports: a port of the node that leads to a pod, and the way back.
//!
//! The destination is translated where the packet enters, and the flow remembered under the pod's side of it; the
//! pod's answers find it and take the host port's address as their source. Later fragments carry no ports and are
//! left to the stack. The source stays as it is: a pod that asks for its own host port would hear from itself, and a
//! peer that uses one port of its own for the host port and for the pod at once is not told apart.

use rhumb_ebpf_common::layout::{Flow, FlowKey, HostPortKey};
use rhumb_ebpf_common::{Reason, ethernet, ports};

use crate::act::{self, Hop, Side};
use crate::packet::Skb;
use crate::{either, lookup};

/// Delivers a packet for an address of the node to the pod behind the port, if there is one.
#[inline(never)]
pub(crate) fn enter<F: Hop>(skb: Skb) -> Reason {
    either(translate_in::<F>(skb))
}

#[inline(always)]
fn translate_in<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    let ports = match ports(&skb, &ip) {
        Ok(Some(ports)) => ports,
        Err(Reason::Fragment) => return Err(Reason::Fragment),
        // The stack judges what is addressed to the node itself.
        Ok(None) | Err(_) => return Err(Reason::ToStack),
    };
    let key = HostPortKey { addr: F::key(ip.dst), port: ports.dst, protocol: ports.protocol, padding: 0 };
    let backend = lookup::host_port(&key).ok_or(Reason::ToStack)?;
    let endpoint = lookup::endpoint(&backend.addr).ok_or(Reason::BackendAbsent)?;
    ip.may_hop()?;
    let flow = FlowKey {
        pod: backend.addr,
        peer: F::key(ip.src),
        pod_port: backend.port,
        peer_port: ports.src,
        protocol: ports.protocol,
        padding: [0; 3],
    };
    lookup::remember(&flow, &Flow::host_port(key.addr, key.port));
    act::translate(skb, &ip, &ports, Side::Destination, F::unkey(&backend.addr), backend.port)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(Reason::HostPortIn)
}

/// Translates the source of an answer from behind a host port; any other packet stays as it is.
///
/// [`Reason::StackReturn`] when the flow came through the host stack, else [`Reason::ForwardedRemote`].
#[inline(never)]
pub(crate) fn answer<F: Hop>(skb: Skb) -> Reason {
    either(translate_out::<F>(skb))
}

#[inline(always)]
fn translate_out<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    let Ok(Some(ports)) = ports(&skb, &ip) else {
        return Ok(Reason::ForwardedRemote);
    };
    let key = FlowKey {
        pod: F::key(ip.src),
        peer: F::key(ip.dst),
        pod_port: ports.src,
        peer_port: ports.dst,
        protocol: ports.protocol,
        padding: [0; 3],
    };
    let Some(flow) = lookup::flow(&key) else {
        return Ok(Reason::ForwardedRemote);
    };
    if flow.kind != Flow::HOST_PORT {
        return Err(Reason::StackReturn);
    }
    act::translate(skb, &ip, &ports, Side::Source, F::unkey(&flow.addr), flow.port)?;
    Ok(Reason::ForwardedRemote)
}
