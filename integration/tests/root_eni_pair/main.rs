// SPDX-License-Identifier: Apache-2.0
//! Nodes with single addresses and with prefixes, each with a /80, as the operator gave them: pods on every interface reach
//! each other, the VPC and the world, and are reached, in both families, by connections, datagrams and echoes. Every packet
//! is seen on the links between nodes and VPC.

mod ground;
mod rows;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::How;
use rhumb_integration::lab::ping_as;

use ground::Ground;
use rows::rows;

#[test]
fn every_flow_is_on_the_interfaces_of_its_addresses_there_and_back_and_nothing_is_dropped() {
    let ground = Ground::build("enipar").expect("a lab with a cloud");
    let work = || -> Result<()> {
        ground.is_as_the_pools_say()?;
        let (rows, before) = (rows(&ground), ground.dropped()?);
        let asked = rows.iter().try_for_each(|row| {
            ground.wire.keep();
            row.ask()
        });
        let traffic = ground.wire.take(&ground.cloud.vpc(), &ground.ports)?;
        asked.with_context(|| format!("{:?} {:?}", ground.cloud.vpc().counters(), traffic.is_symmetric()))?;
        traffic.is_symmetric()?;
        rows.iter().try_for_each(|row| row.is_in(&traffic))?;
        let dropped = ground.dropped()?;
        ensure!(dropped == before, "dropped by EC2 and by the nodes: {dropped:?}, before {before:?}");
        ground.cloud.check()
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    ground.close().expect("closed");
}

/// Nothing of the first test's proof is there by chance: with agents that repair nothing, each of these is seen.
#[test]
fn a_rule_that_is_missing_and_a_mac_address_that_is_wrong_are_seen() {
    let mut ground = Ground::build("enibad").expect("a lab with a cloud");
    let mut work = || -> Result<()> {
        ground.kill_agents()?;
        let [second, third, other] = [1, 2, 6].map(|number| &ground.seats[number]);
        for (seat, breaks, family) in [
            (second, format!("rule del priority 7263 from {}", second.pod.v4()), 0),
            (other, "-6 rule del priority 7263".to_owned(), 1),
            (third, "link set eth2 address 02:00:00:00:00:99".to_owned(), 0),
        ] {
            let (own, host) = (seat.addresses()[family], ground.outside[2 + family].0);
            let asks = || -> Result<bool> {
                let answer = ping_as(&seat.pod.namespace, None, host, Duration::from_secs(1));
                let traffic = ground.wire.take(&ground.cloud.vpc(), &ground.ports)?;
                let flow = traffic.has(own, (host, 0), How::Echo.protocol(host));
                ensure!(answer.is_ok() == flow.is_ok(), "{answer:?}, and {flow:?}");
                // Who has another MAC address is on no link that is known.
                ensure!(
                    flow.is_ok() == traffic.is_symmetric().is_ok() || breaks.starts_with("link"),
                    "{flow:?}"
                );
                Ok(flow.is_ok())
            };
            let before = ground.cloud.vpc().dropped()?;
            ensure!(asks()?, "{own} reaches {host}");
            ensure!(ground.cloud.vpc().dropped()? == before, "nothing is dropped");
            ground.cloud.lab.node(seat.node).namespace().ip_show(&breaks)?;
            ensure!(!asks()?, "{own} reaches {host} after {breaks}");
            ensure!(ground.cloud.vpc().dropped()? > before, "EC2 drops what comes after {breaks}");
        }
        Ok(())
    };
    work().unwrap_or_else(|error| panic!("{error:#}"));
    ground.close().expect("closed");
}
