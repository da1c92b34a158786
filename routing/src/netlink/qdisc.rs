// SPDX-License-Identifier: Apache-2.0
//! Token buckets as messages (linux/pkt_sched.h).

use super::wire::{NLM_F_CREATE, Request, attributes, attributes_after, text, u32_at, u64_at};
use crate::kernel::Bucket;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;

const HEAD: usize = 20;
/// "rh" as the major number: by this handle ours are known.
const HANDLE: u32 = 0x7268_0000;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// With this link layer the kernel computes times itself and needs no table of rates.
const TC_LINKLAYER_ETHERNET: u8 = 1;
const TBF: &str = "tbf";
/// Bytes of `tc_tbf_qopt`: two rates of 12 bytes, limit, buffer, mtu.
const PARMS: usize = 36;
const PARMS_RATE: usize = 8;
const PARMS_LIMIT: usize = 24;

/// A bucket of ours as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) ifindex: u32,
    pub(crate) rate: u64,
    pub(crate) limit: u32,
}

fn head(ifindex: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    head[8..12].copy_from_slice(&HANDLE.to_ne_bytes());
    head[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
    head
}

/// Asks for all queueing disciplines.
pub(crate) fn get_all() -> Request {
    Request::new(RTM_GETQDISC, 0, &[0; HEAD])
}

/// Makes or changes our bucket at the root. Without the flags for "replace" and "exclusive" the kernel changes one
/// with our handle in place, takes the place of none, and refuses when another is there.
pub(crate) fn put(ifindex: u32, bucket: &Bucket) -> Request {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut parms = [0; PARMS];
    parms[1] = TC_LINKLAYER_ETHERNET;
    parms[PARMS_RATE..PARMS_RATE + 4].copy_from_slice(&rate.to_ne_bytes());
    parms[PARMS_LIMIT..PARMS_LIMIT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    Request::new(RTM_NEWQDISC, NLM_F_CREATE, &head(ifindex)).with_text(TCA_KIND, TBF).nest(
        TCA_OPTIONS,
        |options| {
            options
                .with(TCA_TBF_PARMS, &parms)
                .with(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes())
                .with_u32(TCA_TBF_BURST, bucket.burst)
        },
    )
}

/// Removes our bucket.
pub(crate) fn remove(ifindex: u32) -> Request {
    Request::new(RTM_DELQDISC, 0, &head(ifindex))
}

/// Reads a bucket of ours; `None` for anything else.
pub(crate) fn read(payload: &[u8]) -> Option<Told> {
    if u32_at(payload, 8)? != HANDLE || u32_at(payload, 12)? != TC_H_ROOT {
        return None;
    }
    let mut told = Told { ifindex: u32_at(payload, 4)?, rate: 0, limit: 0 };
    let mut rate64 = None;
    for (kind, value) in attributes_after(payload, HEAD) {
        match kind {
            TCA_KIND if text(value) != Some(TBF) => return None,
            TCA_OPTIONS => {
                for (kind, value) in attributes(value) {
                    match kind {
                        TCA_TBF_PARMS => {
                            told.rate = u32_at(value, PARMS_RATE)?.into();
                            told.limit = u32_at(value, PARMS_LIMIT)?;
                        }
                        TCA_TBF_RATE64 => rate64 = u64_at(value, 0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    told.rate = rate64.unwrap_or(told.rate);
    Some(told)
}
