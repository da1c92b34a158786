// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::rib::sample::{accept, announce, info, path, prefix, settings, up, withdraw};
use crate::wire::Community;

const A: &str = "10.1.0.0/16";
const B: &str = "10.2.0.0/16";
const STATION: StationId = 7;

/// What the station hears, a word per message and its destinations.
fn heard(rib: &mut Rib) -> Vec<String> {
    let list = |nlri: &[Nlri]| nlri.iter().map(Nlri::to_string).collect::<Vec<_>>().join(" ");
    let view = |view: View| if view == View::PrePolicy { "pre" } else { "post" };
    let word = |one: Monitored| match one {
        Monitored::Announce { view: of, attributes, next_hop, nlri, .. } => {
            format!("{} {} via {next_hop} [{}]", view(of), list(&nlri), attributes.as_path)
        }
        Monitored::Withdraw { view: of, nlri, .. } => format!("{} gone {}", view(of), list(&nlri)),
        Monitored::EndOfRib(of, family) => format!("{} end {family}", view(of)),
    };
    std::iter::from_fn(|| rib.next_monitored(STATION)).flat_map(|(_, told)| told).map(word).collect()
}

fn both() -> BTreeSet<View> {
    BTreeSet::from([View::PrePolicy, View::PostPolicy])
}

#[test]
fn a_station_hears_all_there_is_then_the_end_then_changes() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    assert_eq!(heard(&mut rib), [""; 0], "it has not heard of the peer");
    rib.monitor(STATION, one, BTreeSet::from([View::PrePolicy]));
    assert_eq!(
        heard(&mut rib),
        [&format!("pre {A} {B} via 192.0.2.1 [65001]"), "pre end ipv6", "pre end ipv4"]
    );
    rib.update(one, &withdraw(&[A])).expect("within limits");
    rib.update(one, &announce(1, path(&[65001, 7]), &[B])).expect("within limits");
    assert_eq!(heard(&mut rib), [format!("pre gone {A}"), format!("pre {B} via 192.0.2.1 [65001 7]")]);
    rib.update(one, &announce(1, path(&[65001, 7]), &[B])).expect("within limits");
    assert_eq!(heard(&mut rib), [""; 0], "the same again is no news");
}

#[test]
fn what_changes_often_is_told_once_and_what_is_not_walked_through_yet_not_twice() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    rib.monitor(STATION, one, BTreeSet::from([View::PrePolicy]));
    for length in 0..50 {
        rib.update(one, &announce(1, path(&vec![65001; 1 + length]), &[A])).expect("within limits");
    }
    let first = heard(&mut rib);
    assert_eq!(first.iter().filter(|word| word.contains(A)).count(), 1, "{first:?}");
    for length in 0..50 {
        rib.update(one, &announce(1, path(&vec![65001; 1 + length]), &[A])).expect("within limits");
    }
    assert_eq!(heard(&mut rib).len(), 1);
}

#[test]
fn policy_shows_in_its_own_view() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    let changes = rhumb_bgp_feed::Changes { add_communities: vec![9], ..Default::default() };
    rib.set_policy(one, &accept(changes), &accept(Default::default()));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.monitor(STATION, one, both());
    let (_, told) = rib.next_monitored(STATION).expect("something");
    let communities = |of: View| {
        told.iter().find_map(|one| match one {
            Monitored::Announce { view, attributes, .. } if *view == of => {
                Some(attributes.communities.clone())
            }
            Monitored::Announce { .. } | Monitored::Withdraw { .. } | Monitored::EndOfRib(..) => None,
        })
    };
    assert_eq!(communities(View::PrePolicy), Some(Vec::new()));
    assert_eq!(communities(View::PostPolicy), Some(vec![Community(9)]));
    heard(&mut rib);
    rib.set_policy(one, &rhumb_bgp_feed::Policy::default(), &accept(Default::default()));
    let news = heard(&mut rib);
    assert!(news.contains(&format!("post gone {A}")), "{news:?}");
}

#[test]
fn a_session_that_ends_is_heard_of_by_its_own_message_alone() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    rib.monitor(STATION, one, both());
    heard(&mut rib);
    rib.peer_down(one, &Family::BOTH.into());
    assert_eq!(heard(&mut rib), [""; 0]);
    rib.peer_up(one, info(1, 65001));
    rib.monitor(STATION, one, BTreeSet::from([View::PrePolicy]));
    assert_eq!(
        heard(&mut rib),
        ["pre end ipv4", "pre end ipv6"],
        "what is kept was not told in this session"
    );
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!(heard(&mut rib), [format!("pre {A} via 192.0.2.1 [65001]")]);
    rib.unmonitor(STATION);
    rib.update(one, &announce(1, path(&[65001]), &[B])).expect("within limits");
    assert_eq!(heard(&mut rib), [""; 0]);
    assert!(rib.explain("main", prefix(B)).0.len() == 1);
}
