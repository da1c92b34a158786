// SPDX-License-Identifier: MIT OR GPL-2.0-only

/// Read access to a packet that begins with its Ethernet header.
pub trait Bytes {
    /// The `N` bytes at `offset`, or nothing when the packet ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The `N` words of four bytes at `offset`, each as it is in the packet.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.read(offset + 4 * index)?);
        }
        Some(words)
    }
}

/// The bytes of four words.
#[inline(always)]
pub(crate) fn octets(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

impl<const L: usize> Bytes for [u8; L] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.as_slice().read(offset)
    }
}

/// Offsets and numbers of an Ethernet II frame without a VLAN tag.
pub mod ethernet {
    /// Length of the header.
    pub const HEADER: usize = 14;
    /// Where the sender's address is.
    pub const SOURCE: usize = 6;
    /// Where the type of the payload is.
    pub const TYPE: usize = 12;
    /// IPv4 as payload, in wire order.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// ARP as payload, in wire order.
    pub const ARP: [u8; 2] = [0x08, 0x06];
    /// IPv6 as payload, in wire order.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
}
