// SPDX-License-Identifier: Apache-2.0
//! Looks into the namespaces of pods for others than the targets.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rhumb_model::{AttachmentKey, IfName};

use super::socket::Socket;
use super::{Break, Talk, addresses, find, link, links, on_own_thread, routes};
use crate::inspect::PodView;
use crate::kernel::{KernelError, Place};
use crate::namespaces::Namespaces;

fn open(namespaces: &Namespaces, key: &AttachmentKey) -> Result<Arc<OwnedFd>, KernelError> {
    namespaces.get(key).ok_or_else(|| KernelError::NotOpen { key: key.clone() })
}

pub(crate) async fn view(namespaces: &Namespaces, key: &AttachmentKey) -> Result<PodView, KernelError> {
    let namespace = open(namespaces, key)?;
    let ifname = key.ifname.clone();
    let look = move || {
        let mut socket = Socket::open_in(&namespace)?;
        let Some(link) = find(&mut socket, &ifname)? else { return Ok(PodView::default()) };
        let addresses = addresses(&mut socket, link.ifindex)?;
        let routes = routes(&mut socket, 0)?;
        Ok(PodView {
            exists: true,
            up: link.up,
            mac: link.mac,
            mtu: link.mtu,
            addresses: addresses.into_iter().map(|told| told.address).collect(),
            routes: routes.into_iter().map(|told| (told.dst, told.gateway)).collect(),
        })
    };
    on_own_thread(look).await.map_err(|error| error.at(&Place::Pod(key.clone())))
}

pub(crate) async fn host_end(
    namespaces: &Namespaces,
    key: &AttachmentKey,
) -> Result<Option<(IfName, u32)>, KernelError> {
    let namespace = open(namespaces, key)?;
    let own = File::open("/proc/thread-self/ns/net").and_then(|own| Ok((own, Socket::open()?)));
    let (own, mut host) = own.map_err(|error| Break::Socket(error).at(&Place::Host))?;
    let ifname = key.ifname.clone();
    let look = move || -> Talk<Option<(IfName, u32)>> {
        let mut pod = Socket::open_in(&namespace)?;
        let Some(peer) = find(&mut pod, &ifname)?.and_then(|link| link.peer) else { return Ok(None) };
        // The look at the link gave a number to the namespace of its other end.
        let number = pod.ask(link::get_namespace_number(own.as_fd()))??;
        let number = number.first().and_then(link::read_namespace_number);
        if peer.netns.is_none() || peer.netns != number {
            return Ok(None);
        }
        let end = links(&mut host)?.into_iter().find(|link| link.ifindex == peer.ifindex);
        Ok(end.map(|link| (link.name, link.ifindex)))
    };
    on_own_thread(look).await.map_err(|error| error.at(&Place::Pod(key.clone())))
}
