// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Host ports: a port of the node that leads to a pod, and the way back.
//!
//! The destination is translated where the packet enters, and the flow remembered under the pod's side of it; the
//! pod's answers find it and take the host port's address as their source. Later fragments carry no ports and are
//! left to the stack. The source stays as it is: a pod that asks for its own host port would hear from itself, and a
//! peer that uses one port of its own for the host port and for the pod at once is not told apart.

use rhumb_ebpf_common::layout::{Ct, CtKey, HostPortKey, HostPortValue};
use rhumb_ebpf_common::{Ip, Ports, Reason, ethernet};

use crate::act::{self, Hop, Side};
use crate::packet::Skb;
use crate::{lookup, track};

/// Delivers a packet for an address of the node to the pod behind the port, if there is one.
///
/// Its steps are functions of their own and it is none: the stacks of nested calls add up.
#[inline(always)]
pub(crate) fn enter<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Result<Reason, Reason> {
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
    translate_in(skb, ip, ports, backend).map_or(Ok(()), Err)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(Reason::HostPortIn)
}

/// Takes note of a packet to a host port in the flow that the pod will see.
#[inline(never)]
fn remember<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, backend: &HostPortValue, host: &HostPortKey) {
    let inside = (F::unkey(&backend.addr), backend.port);
    let (key, side) = CtKey::between::<F>(ports.protocol, (ip.src, ports.src), inside);
    let _known = track::note_at(skb, &key, side, ports.signal);
    if let Some(flow) = lookup::ct(&key) {
        flow.translate(Ct::HOST_PORT, host.addr, host.port);
    }
}

#[inline(never)]
fn translate_in<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, backend: &HostPortValue) -> Option<Reason> {
    act::translate(skb, ip, ports, Side::Destination, F::unkey(&backend.addr), backend.port).err()
}

/// Translates the source of an answer from behind a host port.
#[inline(always)]
pub(crate) fn answer<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Result<(), Reason> {
    translate_out(skb, ip, ports).map_or(Ok(()), Err)
}

#[inline(never)]
fn translate_out<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Option<Reason> {
    let (key, _) = CtKey::new::<F>(ip.src, ip.dst, ports);
    let flow = lookup::ct(&key)?;
    let (addr, port) = (F::unkey(&flow.nat_addr), flow.nat_port);
    act::translate(skb, ip, ports, Side::Source, addr, port).err()
}
