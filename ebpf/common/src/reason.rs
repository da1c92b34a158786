// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Why a packet went where it went.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It leaves the host stack's path: another interface takes it.
    Redirect,
    /// The next program and then the host stack see it.
    Next,
    /// It ends here.
    Drop,
}

macro_rules! reasons {
    ($($number:literal $name:ident $verdict:ident $text:literal $doc:literal)*) => {
        /// Why a packet went where it went: every packet that a program sees ends with exactly one.
        ///
        /// Invariant: append-only. A number is never reused, so that counters of two versions can be compared.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $doc] $name = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers within a verdict.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Name in metrics and tables.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What the reason is for, as a sentence.
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$name => $doc,)*
                }
            }

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$name => Verdict::$verdict,)*
                }
            }
        }
    };
}

reasons! {
    1 ForwardedLocal Redirect "forwarded_local" "Delivered straight into a pod of this node."
    2 ForwardedShaped Redirect "forwarded_shaped" "Sent to a pod of this node through the queue that limits its rate."
    3 ForwardedRemote Redirect "forwarded_remote" "Sent out of an interface to a neighbour that the kernel knows."
    4 ForwardedUnresolved Redirect "forwarded_unresolved" "Sent out of an interface; the kernel resolves the neighbour first."
    5 AnsweredArp Redirect "answered_arp" "ARP request of a pod, answered on the spot."
    6 AnsweredNd Redirect "answered_nd" "Neighbour solicitation of a pod, answered on the spot."
    7 HostPortIn Redirect "host_port_in" "Addressed to a host port, translated and delivered to a pod of this node."
    8 MasqueradeReturn Redirect "masquerade_return" "Answer to a masqueraded packet, translated back and delivered to its pod."
    12 ForwardedTunnel Redirect "forwarded_tunnel" "Encapsulated and sent to the node of the receiver."
    13 AnsweredTooBig Redirect "answered_too_big" "Larger than the way takes; the pod was told by ICMP how large packets may be."

    32 ToStack Next "to_stack" "Addressed to this node itself, or to nobody that the datapath knows."
    33 StackReturn Next "stack_return" "Answer of a flow that came through the host stack, which may have translated it."
    34 Chained Next "chained" "Source checked; another network plugin forwards the packet."
    35 TimeExceeded Next "time_exceeded" "No hop left; the kernel answers."
    36 TooBig Next "too_big" "Larger than the route takes; the kernel fragments or answers."
    37 NoRoute Next "no_route" "No route, or one that refuses; the kernel decides and answers."
    38 IpOptions Next "ip_options" "IPv4 options, which the kernel interprets."
    39 Fragment Next "fragment" "Later fragment without ports where ports would decide."
    40 NeighbourAnswer Next "neighbour_answer" "Answer of a pod to the node's own neighbour resolution."
    41 LinkLocal Next "link_local" "Addressed to a link-local address."
    42 OtherHost Next "other_host" "The frame is addressed to another station, or to a group."
    43 NotIpWire Next "not_ip_wire" "Neither IPv4 nor IPv6, from an uplink."
    44 Delivered Next "delivered" "On its way to a pod from the node, or through its stack."
    45 DeliveredTracked Next "delivered_tracked" "Forwarded by the host stack to a pod; the answers will return through the stack."
    46 BackendAbsent Next "backend_absent" "Addressed to a host port whose pod is not there."
    47 Masqueraded Next "masqueraded" "Left the node with the address of the uplink in the place of the pod's."
    48 SourceKept Next "source_kept" "Left the node with the pod's address: bound for where pods are known, or an answer to who called the pod."
    49 HostSent Next "host_sent" "Left the node, and not from a pod of it."
    50 NoAddress Next "no_address" "Left the node with the pod's address, as the uplink has none of the family."
    53 Encapsulated Next "encapsulated" "Routed into the tunnel by the host's stack; sent to the node of the receiver."
    54 TunnelKeyed Next "tunnel_keyed" "On its way into the tunnel's device by a program, which said where to; others were wrapped by the program itself."
    55 HostTranslated Next "host_translated" "Sent by the node itself, with another port: a pod's flow to the same place has its own."
    56 HostReturn Next "host_return" "Answer to a flow of the node that is kept apart from those of pods; its port translated back if it left with another."
    57 HostRules Next "host_rules" "Bound for where the host has rules that a program cannot ask (IPv6, `suppress_prefixlength`); the kernel forwards."

    80 Malformed Drop "malformed" "The headers contradict themselves or the length of the packet."
    81 SourceAddress Drop "source_address" "The pod used an address that is not its own."
    82 NotIp Drop "not_ip" "Neither IPv4, IPv6 nor ARP, from a pod."
    83 Multicast Drop "multicast" "Group or broadcast address, from a pod."
    84 DuplicateProbe Drop "duplicate_probe" "Duplicate address detection, or an announcement of the pod's own address."
    85 RouterSolicitation Drop "router_solicitation" "Router solicitation of a pod; its routes are configured."
    86 NeighbourMessage Drop "neighbour_message" "Router advertisement or redirect from a pod."
    87 UnknownLink Drop "unknown_link" "The interface has no entry: no pod is known there."
    88 VlanTagged Drop "vlan_tagged" "VLAN tag from a pod."
    89 RewriteFailed Drop "rewrite_failed" "The kernel refused to change the packet."
    90 NatExhausted Drop "nat_exhausted" "No port of the node's address was free to masquerade the flow."
    91 SctpPort Drop "sctp_port" "The port of an SCTP flow is taken, and its checksum covers it: it cannot be masqueraded with another."
    92 NotMasqueradable Drop "not_masqueradable" "To be masqueraded, and without ports by which an answer could be known."
    93 FragmentUnknown Drop "fragment_unknown" "Fragment to be masqueraded whose datagram's first one was not seen."
    94 MetadataService Drop "metadata_service" "A pod's packet to the cloud's metadata service, which the node keeps from pods (`--metadata-service deny`)."
    96 SpoofedTunnel Drop "spoofed_tunnel" "A pod's packet to the tunnel port of a node, or with IPv4 options to that port anywhere."
    97 TunnelKey Drop "tunnel_key" "Came out of the tunnel without a word on who sent it."
    98 TunnelSource Drop "tunnel_source" "Came through the tunnel from a node that does not have the source address."
    99 TunnelDestination Drop "tunnel_destination" "Came through the tunnel, but is neither for a pod of this node nor for the node."
    100 TunnelUnknown Drop "tunnel_unknown" "Routed into the tunnel, but no node is known that has the destination."
    101 TunnelAbsent Drop "tunnel_absent" "To be encapsulated, but this node's tunnel is not there."
    102 TunnelNotIp Drop "tunnel_not_ip" "Neither IPv4 nor IPv6, in the tunnel."
}

impl Reason {
    /// How many numbers the counters have room for.
    pub const ROOM: u32 = 128;

    /// The reason with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == number)
    }
}

/// Which program saw the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// From a pod to the node.
    FromPod = 0,
    /// From the node to a pod.
    ToPod = 1,
    /// From an uplink to the node.
    FromWire = 2,
    /// From the node to an uplink.
    ToWire = 3,
    /// Out of the tunnel to the node.
    FromTunnel = 4,
    /// From the node into the tunnel.
    ToTunnel = 5,
}

impl Direction {
    /// Every direction, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::FromPod, Self::ToPod, Self::FromWire, Self::ToWire, Self::FromTunnel, Self::ToTunnel];
    /// How many numbers the counters have room for.
    pub const ROOM: u32 = 8;

    /// Name in metrics and tables.
    pub const fn text(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromWire => "from_wire",
            Self::ToWire => "to_wire",
            Self::FromTunnel => "from_tunnel",
            Self::ToTunnel => "to_tunnel",
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_fit() {
        let numbers: BTreeSet<u8> = Reason::ALL.iter().map(|reason| *reason as u8).collect();
        let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.text()).collect();
        assert_eq!(numbers.len(), Reason::ALL.len());
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(numbers.iter().all(|number| u32::from(*number) < Reason::ROOM));
    }

    #[test]
    fn a_number_leads_back_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
        }
        assert_eq!(Reason::from_number(0), None);
    }

    #[test]
    fn verdicts_are_contiguous_in_the_numbers() {
        // The programs map reasons to verdicts by two comparisons instead of a table in memory.
        let order: std::vec::Vec<Verdict> = Reason::ALL.iter().map(|reason| reason.verdict()).collect();
        assert!(order.is_sorted());
        assert!(Reason::ALL.is_sorted());
    }
}
