// SPDX-License-Identifier: Apache-2.0
//! What the codec costs: `cargo bench -p rhumb-bgp --bench wire`. 100,000 routes, 200 and one to a message, each message with
//! attributes of its own; the least of nine runs.
#![expect(clippy::print_stdout, reason = "figures for whoever runs it")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rhumb_bgp::wire::{
    AsPath, Asn, Attributes, Capabilities, Codec, Community, Negotiated, NextHop, Nlri, Open, Reach, RouterId,
};
use rhumb_model::{Family, Prefix};

const ROUTES: u32 = 100_000;

fn session() -> Negotiated {
    let open = |asn| Open {
        asn: Asn(asn),
        hold_time: 90,
        router_id: RouterId(asn),
        capabilities: Capabilities {
            families: BTreeSet::from(Family::BOTH),
            asn4: Some(Asn(asn)),
            ..Capabilities::default()
        },
    };
    Negotiated::of(&open(65000), &open(65001)).expect("families in common")
}

/// Routes in groups, as a table keeps them.
fn groups(pack: u32) -> Vec<(Arc<Attributes>, Vec<Nlri>)> {
    (0..ROUTES / pack)
        .map(|group| {
            let attributes = Attributes {
                as_path: AsPath::sequence([65000, 65001, 4_200_000_000 + group].map(Asn)),
                med: Some(group),
                communities: vec![Community(65000 << 16), Community(65000 << 16 | group & 0xffff)],
                ..Attributes::default()
            };
            let route = |number: u32| {
                Nlri::from(Prefix::containing(Ipv4Addr::from_bits(0x0a00_0000 + (number << 8)).into(), 24))
            };
            (Arc::new(attributes.canonical()), (group * pack..(group + 1) * pack).map(route).collect())
        })
        .collect()
}

fn least(mut run: impl FnMut() -> Duration) -> Duration {
    (0..9).map(|_| run()).min().expect("nine runs")
}

fn main() {
    let session = session();
    for pack in [200, 1] {
        let groups = groups(pack);
        let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
        let encoded = || {
            let codec = Codec::new(&session);
            let mut octets = BytesMut::with_capacity(16 << 20);
            for (attributes, nlri) in &groups {
                for message in codec.encode_update(attributes, &next_hop, nlri).expect("fits") {
                    octets.extend_from_slice(&message);
                }
            }
            octets
        };
        let write = least(|| {
            let start = Instant::now();
            black_box(encoded());
            start.elapsed()
        });
        let octets = encoded();
        let read = least(|| {
            let mut codec = Codec::new(&session);
            let mut buffer = octets.clone();
            let (start, mut routes) = (Instant::now(), 0);
            while let Some(message) = codec.decode(&mut buffer).expect("good") {
                let rhumb_bgp::wire::Message::Update(update) = black_box(message) else {
                    unreachable!("UPDATEs alone")
                };
                routes += update.reach.iter().map(|Reach { nlri, .. }| nlri.len()).sum::<usize>();
            }
            assert_eq!(routes, usize::try_from(ROUTES).expect("small"));
            start.elapsed()
        });
        println!(
            "{ROUTES} routes, {pack} a message: write {write:?}, read {read:?}, {} octets",
            octets.len()
        );
    }
}
