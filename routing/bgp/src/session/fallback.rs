// SPDX-License-Identifier: Apache-2.0
//! Capabilities that a peer does not take are left out of the next OPEN (RFC 5492 §3).

use std::collections::BTreeSet;

use crate::wire::{Capabilities, Notification};

/// Codes of the capabilities that a session can be without.
const OPTIONAL: [u8; 8] = [
    2,  // ROUTE-REFRESH
    5,  // extended next hop
    6,  // extended messages
    64, // graceful restart
    69, // ADD-PATH
    70, // enhanced ROUTE-REFRESH
    71, // long-lived graceful restart
    73, // FQDN
];

/// The codes to leave out after a NOTIFICATION; empty when it is about something else. A peer that names no
/// capability dislikes all of them.
pub(super) fn disliked(text: &Notification) -> BTreeSet<u8> {
    match (text.code, text.subcode) {
        // Unsupported optional parameter: the peer may know no capabilities at all.
        (2, 4) => OPTIONAL.into(),
        (2, 7) => {
            let named = codes(&text.data);
            if named.is_empty() { OPTIONAL.into() } else { named }
        }
        (_, _) => BTreeSet::new(),
    }
}

/// Codes of a list of capabilities as they stand in an OPEN.
fn codes(mut data: &[u8]) -> BTreeSet<u8> {
    let mut codes = BTreeSet::new();
    while let [code, length, rest @ ..] = data {
        codes.insert(*code);
        data = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    codes.retain(|code| OPTIONAL.contains(code));
    codes
}

/// Leaves capabilities out.
pub(super) fn leave_out(capabilities: &mut Capabilities, codes: &BTreeSet<u8>) {
    for code in codes {
        match code {
            2 => capabilities.route_refresh = false,
            5 => capabilities.extended_next_hop.clear(),
            6 => capabilities.extended_message = false,
            64 => capabilities.graceful_restart = None,
            69 => capabilities.add_path.clear(),
            70 => capabilities.enhanced_route_refresh = false,
            71 => capabilities.long_lived = None,
            73 => capabilities.fqdn = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(subcode: u8, data: &[u8]) -> Notification {
        Notification { code: 2, subcode, data: data.to_vec() }
    }

    #[test]
    fn what_the_peer_names_is_left_out_and_nothing_else() {
        let codes = disliked(&refusal(7, &[6, 0, 64, 2, 0, 120]));
        assert_eq!(codes, BTreeSet::from([6, 64]));
        let mut capabilities =
            Capabilities { route_refresh: true, extended_message: true, ..Default::default() };
        leave_out(&mut capabilities, &codes);
        assert_eq!(capabilities, Capabilities { route_refresh: true, ..Default::default() });
    }

    #[test]
    fn a_peer_that_names_nothing_gets_a_plain_open() {
        assert_eq!(disliked(&refusal(4, &[])), OPTIONAL.into());
        assert_eq!(disliked(&refusal(7, &[])), OPTIONAL.into());
        assert_eq!(disliked(&refusal(7, &[64, 200, 1])), BTreeSet::from([64]));
    }

    #[test]
    fn other_refusals_change_nothing() {
        for subcode in [1, 2, 3, 6] {
            assert!(disliked(&refusal(subcode, &[])).is_empty());
        }
    }
}
