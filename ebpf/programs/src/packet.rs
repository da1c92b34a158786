// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Read access to the packet. Nothing here changes it.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes, bpf_skb_pull_data};
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::{Bytes, Reason, ethernet};

/// `ETH_P_IP` as the context has it, in wire order.
pub(crate) const IPV4: u32 = u16::from_ne_bytes(ethernet::IPV4) as u32;
/// `ETH_P_IPV6` as the context has it, in wire order.
pub(crate) const IPV6: u32 = u16::from_ne_bytes(ethernet::IPV6) as u32;
/// `ETH_P_ARP` as the context has it, in wire order.
pub(crate) const ARP: u32 = u16::from_ne_bytes(ethernet::ARP) as u32;

/// `PACKET_HOST`: the frame is addressed to the interface that took it.
const PACKET_HOST: u32 = 0;

/// The packet that the program runs for.
#[derive(Clone, Copy)]
pub(crate) struct Skb {
    pub(crate) ctx: *mut __sk_buff,
}

macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self) -> u32 {
            // SAFETY: the kernel passes a valid context for as long as the program runs.
            unsafe { (*self.ctx).$name }
        }
    };
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self { ctx: ctx.as_ptr().cast() }
    }

    field!(
        /// Length of the frame.
        len
    );
    field!(
        /// The interface that the program is attached to.
        ifindex
    );
    field!(
        /// The interface that the packet came in by; 0 for what this host sent.
        ingress_ifindex
    );
    field!(
        /// Type of the payload, in wire order.
        protocol
    );
    field!(
        /// Payload per packet of a segment that the device is to cut up, else 0.
        gso_size
    );
    field!(
        /// How many packets a segment that the device is to cut up becomes, as far as that was counted.
        gso_segs
    );
    field!(
        /// The index that traffic control carries from one hook to the next.
        tc_index
    );
    field!(
        /// Whether a VLAN tag was taken off.
        vlan_present
    );
    field!(
        /// The firewall mark.
        mark
    );
    field!(pkt_type);
    field!(data);
    field!(data_end);

    /// Whether the frame is addressed to the interface that took it.
    #[inline(always)]
    pub(crate) fn is_for_host(self) -> bool {
        self.pkt_type() == PACKET_HOST
    }

    /// Direct access to as much as there is without bringing anything together.
    #[inline(always)]
    pub(crate) fn linear(self) -> Head {
        Head { data: self.data() as usize, end: self.data_end() as usize }
    }

    /// Direct access to the first `need` bytes, which are brought together if they are not.
    #[inline(always)]
    pub(crate) fn head(self, need: usize) -> Result<Head, Reason> {
        let head = self.linear();
        if head.data + need <= head.end {
            return Ok(head);
        }
        if (self.len() as usize) < need {
            return Err(Reason::Malformed);
        }
        // SAFETY: a helper call on the program's own context.
        if unsafe { bpf_skb_pull_data(self.ctx, need as u32) } != 0 {
            return Err(Reason::RewriteFailed);
        }
        Ok(self.linear())
    }
}

/// Reading through the helper: any offset, also behind the linear part.
impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the buffer is on our stack and N bytes long.
        let code = unsafe {
            bpf_skb_load_bytes(self.ctx.cast(), offset as u32, bytes.as_mut_ptr().cast(), N as u32)
        };
        if code != 0 {
            return None;
        }
        // SAFETY: the helper filled the whole buffer.
        Some(unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let size = 4 * N as u32;
        // SAFETY: the buffer is on our stack and N words long.
        let code =
            unsafe { bpf_skb_load_bytes(self.ctx.cast(), offset as u32, words.as_mut_ptr().cast(), size) };
        if code != 0 {
            return None;
        }
        // SAFETY: the helper filled the whole buffer.
        Some(unsafe { words.assume_init() })
    }
}

/// What begins `at` bytes into the packet, read as a packet.
#[derive(Clone, Copy)]
pub(crate) struct Inside {
    pub(crate) skb: Skb,
    pub(crate) at: u32,
}

impl Bytes for Inside {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.skb.read(self.at as usize + offset)
    }
}

/// The linear part of the packet; any helper that changes the packet ends its use.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) data: usize,
    pub(crate) end: usize,
}

impl Head {
    /// The sum of the `N` bytes at `offset` as words in the order of memory; 0 when they are not there.
    #[inline(always)]
    pub(crate) fn sum<const N: usize>(self, offset: usize) -> u32 {
        if self.data + offset + N > self.end {
            return 0;
        }
        let bytes = (self.data + offset) as *mut u32;
        // SAFETY: checked against the end right above, as the verifier checks again; the helper only reads.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes, N as u32, 0) };
        sum as u32
    }
}

/// Reading directly: constant offsets only, as the verifier wants them.
impl Bytes for Head {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if self.data + offset + N > self.end {
            return None;
        }
        // SAFETY: checked against the end right above, as the verifier checks again.
        Some(unsafe { *((self.data + offset) as *const [u8; N]) })
    }
    // The kernel takes a word read at any address of a packet, or has packets begin so that IP headers are aligned;
    // the verifier knows which.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        if self.data + offset + 4 * N > self.end {
            return None;
        }
        // SAFETY: checked against the end right above, as the verifier checks again.
        Some(unsafe { *((self.data + offset) as *const [u32; N]) })
    }
}
