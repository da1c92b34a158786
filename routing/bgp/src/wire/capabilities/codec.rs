// SPDX-License-Identifier: Apache-2.0
//! Capabilities on the wire: code, length, value (RFC 5492 §4).
//!
//! Values are read here, because a family that this speaker does not have must not hide those that it has, and because the
//! flag N of graceful restart counts. They are written by bgpkit-parser where it knows the capability.

use std::collections::BTreeMap;

use bgpkit_parser::models::capabilities::{
    AddPathAddressFamily, AddPathCapability, AddPathSendReceive, BgpCapabilityType,
    BgpExtendedMessageCapability, ExtendedNextHopCapability, ExtendedNextHopEntry, FourOctetAsCapability,
    MultiprotocolExtensionsCapability, RouteRefreshCapability,
};
use bgpkit_parser::models::{Afi, Capability, CapabilityValue, Safi};
use rhumb_model::Family;

use crate::wire::octets::{array, octet, short, take, word};
use crate::wire::{AddPath, Asn, Capabilities, Fqdn, GracefulRestart, LongLived, family};

pub(in crate::wire) const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTETS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const LONG_LIVED: u8 = 71;
const FQDN: u8 = 73;

/// Flags of graceful restart (RFC 4724 §3, RFC 8538 §2), in the octet that they share with the restart time.
const RESTARTING: u8 = 0x80;
const NOTIFICATION: u8 = 0x40;
/// Flag F of a family (RFC 4724 §3, RFC 9494 §3.1).
const FORWARDING: u8 = 0x80;

impl Capabilities {
    /// Reads the value of one optional parameter, and adds what is in it. Capabilities that are unknown, or whose value does
    /// not have the form of their kind, go to `unknown`: they are as if they had not been offered.
    ///
    /// `None` where lengths do not fit, or where the own AS is not readable.
    pub(in crate::wire) fn read(&mut self, mut parameter: &[u8]) -> Option<()> {
        while !parameter.is_empty() {
            let code = octet(&mut parameter)?;
            let length = octet(&mut parameter)?;
            let value = take(&mut parameter, length.into())?;
            if code == FOUR_OCTETS {
                self.asn4 = Some(Asn(u32::from_be_bytes(value.try_into().ok()?)));
            } else if self.known(code, value).is_none() {
                self.unknown.push((code, value.to_vec()));
            }
        }
        Some(())
    }

    fn known(&mut self, code: u8, mut value: &[u8]) -> Option<()> {
        match code {
            MULTIPROTOCOL => {
                let [high, low, _, safi]: [u8; 4] = value.try_into().ok()?;
                self.families.insert(family::of(u16::from_be_bytes([high, low]), safi)?);
            }
            ROUTE_REFRESH if value.is_empty() => self.route_refresh = true,
            ENHANCED_ROUTE_REFRESH if value.is_empty() => self.enhanced_route_refresh = true,
            EXTENDED_MESSAGE if value.is_empty() => self.extended_message = true,
            EXTENDED_NEXT_HOP => {
                let entries = all(value, |input| Some((short(input)?, short(input)?, short(input)?)))?;
                let ipv6 =
                    entries.into_iter().filter(|(_, _, next_hop)| *next_hop == family::afi(Family::V6));
                let families = ipv6.filter_map(|(afi, safi, _)| family::of(afi, u8::try_from(safi).ok()?));
                self.extended_next_hop.extend(families);
            }
            GRACEFUL_RESTART => {
                let [flags, low]: [u8; 2] = array(&mut value)?;
                let entries = all(value, |input| Some((short(input)?, octet(input)?, octet(input)?)))?;
                let families = entries.into_iter();
                self.graceful_restart = Some(GracefulRestart {
                    restarting: flags & RESTARTING != 0,
                    notification: flags & NOTIFICATION != 0,
                    restart_time: u16::from_be_bytes([flags & 0x0f, low]),
                    families: families
                        .filter_map(|(afi, safi, flags)| {
                            Some((family::of(afi, safi)?, flags & FORWARDING != 0))
                        })
                        .collect(),
                });
            }
            ADD_PATH => {
                let entries = all(value, |input| Some((short(input)?, octet(input)?, octet(input)?)))?;
                for (afi, safi, directions) in entries {
                    // Other values than these are ignored (RFC 7911 §4).
                    if let (Some(family), 1..=3) = (family::of(afi, safi), directions) {
                        let (receive, send) = (directions & 1 != 0, directions & 2 != 0);
                        self.add_path.insert(family, AddPath { receive, send });
                    }
                }
            }
            LONG_LIVED => {
                let entry = |input: &mut &[u8]| Some((short(input)?, octet(input)?, word(input)?));
                let mut families = BTreeMap::new();
                for (afi, safi, rest) in all(value, entry)? {
                    let Some(family) = family::of(afi, safi) else { continue };
                    let [flags, time @ ..] = rest.to_be_bytes();
                    let stale_time = u32::from_be_bytes([0, time[0], time[1], time[2]]);
                    families.insert(family, LongLived { forwarding: flags & FORWARDING != 0, stale_time });
                }
                self.long_lived = Some(families);
            }
            FQDN => {
                let host = text(&mut value)?;
                // Some speakers leave the domain out.
                let domain = if value.is_empty() { String::new() } else { text(&mut value)? };
                self.fqdn = value.is_empty().then_some(Fqdn { host, domain });
                self.fqdn.as_ref()?;
            }
            _ => return None,
        }
        Some(())
    }

    /// The capabilities for an OPEN, ordered by code.
    pub(in crate::wire) fn items(&self) -> Vec<Capability> {
        let mut items = Vec::new();
        let mut put = |code: u8, value: CapabilityValue| {
            items.push(Capability { ty: BgpCapabilityType::from(code), value })
        };
        for family in &self.families {
            let value = MultiprotocolExtensionsCapability { afi: afi(*family), safi: Safi::Unicast };
            put(MULTIPROTOCOL, CapabilityValue::MultiprotocolExtensions(value));
        }
        if self.route_refresh {
            put(ROUTE_REFRESH, CapabilityValue::RouteRefresh(RouteRefreshCapability));
        }
        if !self.extended_next_hop.is_empty() {
            let entry = |family: &Family| ExtendedNextHopEntry {
                nlri_afi: afi(*family),
                nlri_safi: Safi::Unicast,
                nexthop_afi: Afi::Ipv6,
            };
            let entries = self.extended_next_hop.iter().map(entry).collect();
            put(EXTENDED_NEXT_HOP, CapabilityValue::ExtendedNextHop(ExtendedNextHopCapability { entries }));
        }
        if self.extended_message {
            put(EXTENDED_MESSAGE, CapabilityValue::BgpExtendedMessage(BgpExtendedMessageCapability));
        }
        if let Some(restart) = &self.graceful_restart {
            put(GRACEFUL_RESTART, CapabilityValue::Raw(restart.octets()));
        }
        if let Some(asn) = self.asn4 {
            put(FOUR_OCTETS, CapabilityValue::FourOctetAs(FourOctetAsCapability { asn: asn.0 }));
        }
        let add_path: Vec<_> =
            self.add_path.iter().filter_map(|(family, offer)| directions(*family, *offer)).collect();
        if !add_path.is_empty() {
            put(ADD_PATH, CapabilityValue::AddPath(AddPathCapability { address_families: add_path }));
        }
        if self.enhanced_route_refresh {
            put(ENHANCED_ROUTE_REFRESH, CapabilityValue::Raw(Vec::new()));
        }
        if let Some(families) = &self.long_lived {
            let octets = families.iter().flat_map(|(family, offer)| {
                let [_, time @ ..] = offer.stale_time.min(0x00ff_ffff).to_be_bytes();
                [&family::pair(*family)[..], &[flag(offer.forwarding, FORWARDING)], &time].concat()
            });
            put(LONG_LIVED, CapabilityValue::Raw(octets.collect()));
        }
        if let Some(fqdn) = &self.fqdn {
            put(FQDN, CapabilityValue::Raw([cut(&fqdn.host), cut(&fqdn.domain)].concat()));
        }
        for (code, value) in self.unknown.iter().filter(|(_, value)| value.len() <= 255) {
            put(*code, CapabilityValue::Raw(value.clone()));
        }
        items
    }
}

impl GracefulRestart {
    fn octets(&self) -> Vec<u8> {
        let [high, low] = self.restart_time.min(0x0fff).to_be_bytes();
        let flags = flag(self.restarting, RESTARTING) | flag(self.notification, NOTIFICATION);
        let mut octets = vec![flags | high, low];
        for (family, forwarding) in &self.families {
            octets.extend(family::pair(*family));
            octets.push(flag(*forwarding, FORWARDING));
        }
        octets
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn afi(family: Family) -> Afi {
    match family {
        Family::V4 => Afi::Ipv4,
        Family::V6 => Afi::Ipv6,
    }
}

fn directions(family: Family, offer: AddPath) -> Option<AddPathAddressFamily> {
    let send_receive = match (offer.receive, offer.send) {
        (true, true) => AddPathSendReceive::SendReceive,
        (true, false) => AddPathSendReceive::Receive,
        (false, true) => AddPathSendReceive::Send,
        (false, false) => return None,
    };
    Some(AddPathAddressFamily { afi: afi(family), safi: Safi::Unicast, send_receive })
}

/// Reads entries to the end of the value; `None` where the last is cut short.
fn all<T>(mut value: &[u8], entry: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut entries = Vec::new();
    while !value.is_empty() {
        entries.push(entry(&mut value)?);
    }
    Some(entries)
}

/// A text with its length in one octet.
fn text(input: &mut &[u8]) -> Option<String> {
    let length = octet(input)?;
    Some(String::from_utf8_lossy(take(input, length.into())?).into_owned())
}

/// The text with its length in front, such that two of them fit into one capability.
fn cut(text: &str) -> Vec<u8> {
    let mut end = text.len().min(126);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let length = u8::try_from(end).expect("cut to 126");
    [&[length], &text.as_bytes()[..end]].concat()
}
