// SPDX-License-Identifier: Apache-2.0
//! Token buckets as messages (linux/pkt_sched.h). The library has no types for what a bucket is made of.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, Nla, NlasIterator, parse_u32, parse_u64};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::message::{Message, request};
use crate::kernel::Bucket;

/// "rh" as the major number: by this handle ours are known.
const HANDLE: TcHandle = TcHandle { major: 0x7268, minor: 0 };
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

fn about(ifindex: u32) -> TcMessage {
    let mut about = TcMessage::with_index(ifindex.cast_signed());
    about.header.handle = HANDLE;
    about.header.parent = TcHandle::ROOT;
    about
}

/// Asks for all queueing disciplines.
pub(crate) fn get_all() -> Message {
    request(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), 0)
}

/// Makes or changes our bucket at the root. Without the flags for "replace" and "exclusive" the kernel changes one
/// with our handle in place, takes the place of none, and refuses when another is there.
pub(crate) fn put(ifindex: u32, bucket: &Bucket) -> Message {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut parms = [0; PARMS];
    parms[1] = TC_LINKLAYER_ETHERNET;
    parms[PARMS_RATE..PARMS_RATE + 4].copy_from_slice(&rate.to_ne_bytes());
    parms[PARMS_LIMIT..PARMS_LIMIT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    let option = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
    let options = vec![
        option(TCA_TBF_PARMS, &parms),
        option(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes()),
        option(TCA_TBF_BURST, &bucket.burst.to_ne_bytes()),
    ];
    let mut about = about(ifindex);
    about.attributes = vec![TcAttribute::Kind(TBF.to_owned()), TcAttribute::Options(options)];
    request(RouteNetlinkMessage::NewQueueDiscipline(about), NLM_F_CREATE)
}

/// Removes our bucket.
pub(crate) fn remove(ifindex: u32) -> Message {
    request(RouteNetlinkMessage::DelQueueDiscipline(about(ifindex)), 0)
}

/// Reads a bucket of ours; `None` for anything else.
pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<Told> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    let header = &message.header;
    if (header.handle, header.parent) != (HANDLE, TcHandle::ROOT) {
        return None;
    }
    let mut told = Told { ifindex: header.index.cast_unsigned(), rate: 0, limit: 0 };
    for attribute in &message.attributes {
        if let TcAttribute::Kind(kind) = attribute
            && kind != TBF
        {
            return None;
        }
        if let TcAttribute::Options(options) = attribute {
            options.iter().try_for_each(|option| read_options(option, &mut told))?;
        }
    }
    Some(told)
}

/// Reads options, which the library hands over as one attribute.
fn read_options(option: &TcOption, told: &mut Told) -> Option<()> {
    let TcOption::Other(option) = option else { return None };
    let mut bytes = vec![0; option.value_len()];
    option.emit_value(&mut bytes);
    let mut rate64 = None;
    for option in NlasIterator::new(&bytes).map_while(Result::ok) {
        let value = option.value();
        match option.kind() {
            TCA_TBF_PARMS => {
                told.rate = parse_u32(value.get(PARMS_RATE..PARMS_RATE + 4)?).ok()?.into();
                told.limit = parse_u32(value.get(PARMS_LIMIT..PARMS_LIMIT + 4)?).ok()?;
            }
            TCA_TBF_RATE64 => rate64 = parse_u64(value).ok(),
            _ => {}
        }
    }
    told.rate = rate64.unwrap_or(told.rate);
    Some(())
}
