// SPDX-License-Identifier: Apache-2.0
//! BFD beside sessions (RFC 5882): which ends are watched, and what their state is.

use std::time::Duration;

use rhumb_bfd::{Change, Config, ConfigError, Hops, SessionKey};
use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::{BfdState, PeerAddress};

use super::peer::Peer;

/// A peer's BFD session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) key: SessionKey,
    pub(crate) state: BfdState,
}

/// How a peer is watched; `None` while its address is not known.
pub(crate) fn key(peer: &Peer, bfd: &feed::Bfd) -> Option<SessionKey> {
    let address = peer.address()?;
    let interface = match &peer.config.address {
        PeerAddress::Scoped { interface, .. } | PeerAddress::Interface(interface) => Some(interface.clone()),
        PeerAddress::Ip(_) => None,
    };
    Some(SessionKey {
        peer: address,
        local: peer.settings.endpoint.local,
        interface,
        hops: if bfd.multihop { Hops::Multi } else { Hops::Single },
    })
}

/// How fast it is watched.
///
/// # Errors
/// When the values are out of range.
pub(crate) fn config(bfd: &feed::Bfd) -> Result<Config, ConfigError> {
    let interval = |ms: u32| Duration::from_millis(ms.into());
    Config::new(interval(bfd.transmit_ms), interval(bfd.receive_ms), bfd.multiplier)
}

/// The state after a change.
pub(crate) fn state_after(change: Change) -> BfdState {
    match change {
        Change::Up => BfdState::Up,
        Change::Down(_) | Change::AdminDown => BfdState::Down,
    }
}
