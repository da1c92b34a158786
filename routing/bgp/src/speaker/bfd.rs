// SPDX-License-Identifier: Apache-2.0
//! BFD beside sessions (RFC 5882): which ends are watched, and what their state is.

use std::time::Duration;

use rhumb_bfd::{Change, Config, ConfigError, Fate, Hops, SessionKey};
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

/// What silence of a peer's BFD means for its session and its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The path has failed: the session ends, and routes that are kept go.
    Failure,
    /// It goes with the restart that is under way: nothing is done, and routes are kept as graceful restart says.
    Restart,
}

/// How silence is taken while the peer's routes are kept from before its restart, or are not (RFC 5882 §4.3).
///
/// A BFD that shares the fate of the peer's control plane falls silent by the restart itself; one that does not would have
/// gone on. Ours is not asked: it would be gone with us.
pub(crate) fn silence(fate: Fate, is_restarting: bool) -> Silence {
    match (fate, is_restarting) {
        (Fate::Shared, true) => Silence::Restart,
        (Fate::Shared | Fate::Independent, false) | (Fate::Independent, true) => Silence::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_restart_only_of_those_who_restart_and_whose_bfd_goes_with_them() {
        assert_eq!(silence(Fate::Shared, true), Silence::Restart);
        for (fate, is_restarting) in
            [(Fate::Shared, false), (Fate::Independent, true), (Fate::Independent, false)]
        {
            assert_eq!(silence(fate, is_restarting), Silence::Failure, "{fate:?} {is_restarting}");
        }
    }
}
