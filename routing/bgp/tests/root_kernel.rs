// SPDX-License-Identifier: Apache-2.0
//! Learned routes in the real kernel, in namespaces of their own, judged by `ip`.

#[path = "../../tests/lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::Lab;
use rhumb_bgp::kernel::{Order, State, run};
use rhumb_bgp::rib::{Change, Forward, Hop};
use rhumb_routing::learned::{Learned, LearnedRoute, TABLE, Via, Write, WriteAction};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// A host with a router at the other end of each of two links.
fn segment() -> Lab {
    let lab = Lab::new(&["one", "two"]);
    for (router, link, third) in [("one", "up1", 1), ("two", "up2", 2)] {
        lab.link_into("host", link, router, "eth0");
        lab.ip("host", &format!("addr add 192.168.{third}.1/24 dev {link}"));
        lab.ip("host", &format!("addr add fd99:{third}::1/64 dev {link} nodad"));
        lab.ip(router, &format!("addr add 192.168.{third}.254/24 dev eth0"));
        lab.ip(router, &format!("addr add fd99:{third}::fe/64 dev eth0 nodad"));
    }
    lab
}

fn index(lab: &Lab, link: &str) -> u32 {
    let told = lab.ip("host", &format!("-o link show {link}"));
    told.split(':').next().expect("an index").trim().parse().expect("a number")
}

fn hop(address: &str) -> Hop {
    Hop { address: address.parse().expect("valid"), scope: None }
}

fn scoped(address: &str, ifindex: u32) -> Hop {
    Hop { scope: Some(ifindex), ..hop(address) }
}

fn via(hops: &[Hop]) -> Option<Arc<Forward>> {
    Some(Arc::new(Forward::Via(hops.to_vec())))
}

fn change(prefix: &str, forward: Option<Arc<Forward>>) -> Change {
    Change { prefix: prefix.parse().expect("valid"), forward }
}

/// The kernel's part of a speaker, at work until it is dropped.
struct Speaker {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Speaker {
    fn start() -> Self {
        let (orders, to_carry_out) = mpsc::channel(16);
        let (tell, state) = watch::channel(State::default());
        let learned = Learned::new(TABLE).expect("netlink");
        Self { orders, state, task: tokio::spawn(run(learned, to_carry_out, tell)) }
    }

    async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("at work");
    }

    /// Wants these, by next hops that are found out about first.
    async fn want(&mut self, changes: Vec<Change>) {
        let mut hops = BTreeSet::new();
        for forward in changes.iter().filter_map(|change| change.forward.as_deref()) {
            if let Forward::Via(via) = forward {
                hops.extend(via.iter().copied());
            }
        }
        let wanted = hops.clone();
        self.order(Order::NextHops(hops)).await;
        self.until(|state| wanted.iter().all(|hop| state.next_hops.contains_key(hop))).await;
        self.order(Order::Changes(changes)).await;
    }

    async fn until(&mut self, what: impl Fn(&State) -> bool) -> State {
        let waited = timeout(SOON, self.state.wait_for(|state| what(state))).await;
        let state = waited.map(|state| state.expect("at work").clone()).ok();
        assert!(state.is_some(), "still {:?}", self.state.borrow());
        state.expect("just looked at")
    }

    /// Lets it end as a process that is told to: what is in the kernel stays.
    async fn end(self) {
        drop(self.orders);
        timeout(SOON, self.task).await.expect("ends").expect("without a panic");
    }
}

/// What is in the table, without what does not matter here.
fn table(lab: &Lab) -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let told = lab.ip("host", &format!("{family} route show table {TABLE}"));
        // The hops of one route are told in lines of their own.
        for line in told.replace("\n\t", " ").lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let line = words.join(" ").replace(" proto 115", "").replace(" metric 115", "");
            lines.push(line.replace(" weight 1", "").replace(" pref medium", ""));
        }
    }
    lines
}

#[test]
fn routes_share_links_and_ipv4_goes_by_ipv6_next_hops() {
    let lab = segment();
    let (one, two) = (index(&lab, "up1"), index(&lab, "up2"));
    lab.run(async |_, _| {
        let mut speaker = Speaker::start();
        let both = via(&[hop("192.168.1.254"), hop("192.168.2.254")]);
        let unnumbered = via(&[scoped("fe80::a", one), scoped("fe80::b", two)]);
        let changes = vec![
            change("10.1.0.0/16", via(&[hop("192.168.1.254")])),
            change("10.2.0.0/16", both),
            change("10.3.0.0/16", via(&[scoped("fe80::a", one)])),
            change("10.4.0.0/16", unnumbered.clone()),
            change("10.5.0.0/16", Some(Arc::new(Forward::Discard))),
            change("0.0.0.0/0", via(&[hop("192.168.1.254")])),
            change("fd01::/32", via(&[hop("fd99:1::fe")])),
            change("fd02::/32", via(&[hop("fd99:1::fe"), hop("fd99:2::fe")])),
            change("fd03::/32", unnumbered),
            change("fd05::/32", Some(Arc::new(Forward::Discard))),
        ];
        speaker.want(changes).await;
        let state = speaker.until(|state| state.routes == 10).await;
        assert_eq!((state.refused, state.writes), (0, 10), "{state:?}");
        let expected = [
            "default via 192.168.1.254 dev up1",
            "10.1.0.0/16 via 192.168.1.254 dev up1",
            "10.2.0.0/16 nexthop via 192.168.1.254 dev up1 nexthop via 192.168.2.254 dev up2",
            "10.3.0.0/16 via inet6 fe80::a dev up1",
            "10.4.0.0/16 nexthop via inet6 fe80::a dev up1 nexthop via inet6 fe80::b dev up2",
            "blackhole 10.5.0.0/16",
            "fd01::/32 via fd99:1::fe dev up1",
            "fd02::/32 nexthop via fd99:1::fe dev up1 nexthop via fd99:2::fe dev up2",
            "fd03::/32 nexthop via fe80::a dev up1 nexthop via fe80::b dev up2",
            "blackhole fd05::/32 dev lo",
        ];
        assert_eq!(table(&lab), expected);
        // From several hops to one, from one to several, to a black hole and back: replaced in place.
        let others = vec![
            change("10.2.0.0/16", via(&[hop("192.168.2.254")])),
            change("10.5.0.0/16", via(&[hop("192.168.2.254")])),
            change("fd01::/32", via(&[hop("fd99:1::fe"), hop("fd99:2::fe")])),
            change("fd02::/32", via(&[hop("fd99:2::fe")])),
            change("fd03::/32", Some(Arc::new(Forward::Discard))),
            change("fd05::/32", via(&[hop("fd99:2::fe")])),
            change("10.4.0.0/16", None),
        ];
        let hops = ["192.168.1.254", "192.168.2.254", "fd99:1::fe", "fd99:2::fe"].map(hop);
        let hops = hops.into_iter().chain([scoped("fe80::a", one), scoped("fe80::b", two)]);
        speaker.order(Order::NextHops(hops.collect())).await;
        speaker.order(Order::Changes(others)).await;
        let state = speaker.until(|state| state.writes == 17).await;
        assert_eq!((state.refused, state.routes), (0, 9), "{state:?}");
        let expected = [
            "default via 192.168.1.254 dev up1",
            "10.1.0.0/16 via 192.168.1.254 dev up1",
            "10.2.0.0/16 via 192.168.2.254 dev up2",
            "10.3.0.0/16 via inet6 fe80::a dev up1",
            "10.5.0.0/16 via 192.168.2.254 dev up2",
            "fd01::/32 nexthop via fd99:1::fe dev up1 nexthop via fd99:2::fe dev up2",
            "fd02::/32 via fd99:2::fe dev up2",
            "blackhole fd03::/32 dev lo",
            "fd05::/32 via fd99:2::fe dev up2",
        ];
        assert_eq!(table(&lab), expected);
        speaker.order(Order::Clear).await;
        speaker.until(|state| state.routes == 0).await;
        assert_eq!(table(&lab), [""; 0]);
        speaker.end().await;
    });
}

#[test]
fn a_learned_default_route_wins_and_a_learned_subnet_of_the_host_does_not() {
    let lab = segment();
    lab.ip("host", "route add default via 192.168.2.254");
    lab.run(async |_, _| {
        let mut speaker = Speaker::start();
        let one = via(&[hop("192.168.1.254")]);
        speaker.want(vec![change("0.0.0.0/0", one.clone()), change("192.168.2.0/25", one)]).await;
        speaker.until(|state| state.routes == 2).await;
        let way = |to: &str| lab.ip("host", &format!("route get {to}")).lines().next().map(str::to_owned);
        assert!(
            way("203.0.113.1").expect("a route").contains("via 192.168.1.254 dev up1"),
            "{:?}",
            way("203.0.113.1")
        );
        assert!(
            way("192.168.2.7").expect("a route").starts_with("192.168.2.7 dev up2"),
            "{:?}",
            way("192.168.2.7")
        );
        for family in ["-4", "-6"] {
            let rules = lab.ip("host", &format!("{family} rule show"));
            let rules: Vec<String> =
                rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            assert!(
                rules.contains(&"7267: from all lookup main suppress_prefixlength 0 proto 115".to_owned()),
                "{rules:?}"
            );
            assert!(rules.contains(&"7268: from all lookup 7268 proto 115".to_owned()), "{rules:?}");
            assert_eq!(rules.iter().filter(|rule| rule.contains("proto 115")).count(), 2, "{rules:?}");
        }
        speaker.end().await;
    });
}

#[test]
fn routes_of_an_earlier_life_stay_until_the_sweep_and_the_same_ones_are_not_written() {
    let lab = segment();
    lab.run(async |_, _| {
        let mut speaker = Speaker::start();
        assert_eq!(speaker.until(|state| state.kept.is_some()).await.kept, Some(0));
        let both = via(&[hop("192.168.1.254"), hop("192.168.2.254")]);
        let wanted = vec![
            change("10.1.0.0/16", both.clone()),
            change("fd01::/32", via(&[hop("fd99:1::fe"), hop("fd99:2::fe")])),
            change("10.9.0.0/16", both.clone()),
            change("10.5.0.0/16", Some(Arc::new(Forward::Discard))),
        ];
        speaker.want(wanted.clone()).await;
        speaker.until(|state| state.routes == 4).await;
        speaker.end().await;
        let before = table(&lab);
        assert_eq!(before.len(), 4);

        let mut speaker = Speaker::start();
        assert_eq!(speaker.until(|state| state.kept.is_some()).await.kept, Some(4));
        let again: Vec<Change> =
            wanted.into_iter().filter(|change| change.prefix.to_string() != "10.9.0.0/16").collect();
        speaker.want(again).await;
        // A further route shows that the others were looked at.
        speaker.order(Order::Changes(vec![change("10.7.0.0/16", both)])).await;
        let state = speaker.until(|state| state.writes > 0).await;
        assert_eq!((state.writes, state.routes), (1, 5), "{state:?}");
        assert!(before.iter().all(|line| table(&lab).contains(line)));
        speaker.order(Order::Sweep).await;
        let state = speaker.until(|state| state.routes == 4).await;
        assert_eq!(state.writes, 2, "{state:?}");
        assert!(!table(&lab).iter().any(|line| line.starts_with("10.9.0.0/16")), "{:?}", table(&lab));
        speaker.end().await;
    });
}

#[test]
fn routes_of_others_are_left_alone_wherever_they_are() {
    let lab = segment();
    let lines = "route add 10.1.0.0/16 via 192.168.2.254 table 7268 proto static metric 115\n\
        route add 10.2.0.0/16 via 192.168.2.254 table 7268 proto static\n\
        route add 10.2.0.0/16 via 192.168.2.254 table 7269 proto 115 metric 115\n\
        route add 10.2.0.0/16 via 192.168.2.254 proto bird\n";
    lab.batch("host", lines);
    lab.ip("host", "-6 route add fd01::/32 via fd99:2::fe table 7268 proto static metric 115");
    let foreign = |lab: &Lab| {
        let mut all = String::new();
        for family in ["-4", "-6"] {
            all += &lab.ip("host", &format!("{family} route show table all"));
        }
        let ours = |line: &str| line.contains("proto 115") && line.contains("table 7268");
        // The kernel's own come when an address of a link has been found to be nobody else's, and a link is said to
        // be down until its carrier was heard of: either may be after the first look.
        let own = |line: &str| line.contains("proto kernel");
        let others = all.lines().filter(|line| !ours(line) && !own(line));
        others.map(|line| line.replace(" linkdown", "")).collect::<Vec<_>>()
    };
    let before = foreign(&lab);
    assert_eq!(before.len(), 5, "{before:?}");
    lab.run(async |_, _| {
        let mut speaker = Speaker::start();
        let state = speaker.until(|state| state.kept.is_some()).await;
        assert_eq!(state.kept, Some(0), "routes of others are not kept ones");
        let one = via(&[hop("192.168.1.254")]);
        let six = via(&[hop("fd99:1::fe")]);
        speaker
            .want(vec![
                change("10.1.0.0/16", one.clone()),
                change("10.2.0.0/16", one),
                change("fd01::/32", six),
            ])
            .await;
        let state = speaker.until(|state| state.refused == 2).await;
        assert_eq!(state.routes, 1, "{state:?}");
        assert_eq!(foreign(&lab), before);
        // Gone from the way, the refused one is taken with the next try.
        lab.ip("host", "route del 10.1.0.0/16 table 7268 proto static metric 115");
        let state = speaker.until(|state| state.refused == 1).await;
        assert_eq!(state.routes, 2, "{state:?}");
        speaker.order(Order::Clear).await;
        speaker.until(|state| state.routes == 0 && state.refused == 0).await;
        assert_eq!(foreign(&lab).len(), before.len() - 1);
        speaker.end().await;
    });
}

#[test]
fn a_next_hop_is_lost_with_its_link_and_found_again() {
    let lab = segment();
    lab.ip("host", "route add 198.51.100.0/24 via 192.168.1.254 metric 20");
    lab.run(async |_, _| {
        let mut speaker = Speaker::start();
        let (near, far) = (hop("192.168.1.254"), hop("198.51.100.7"));
        let both = via(&[near, hop("192.168.2.254")]);
        speaker.want(vec![change("10.1.0.0/16", both), change("10.2.0.0/16", via(&[far]))]).await;
        let state = speaker.until(|state| state.routes == 2).await;
        assert_eq!((state.next_hops[&near], state.next_hops[&far]), (0, 21));
        let whole = table(&lab);
        assert_eq!(whole[1], "10.2.0.0/16 via 192.168.1.254 dev up1", "by the router on the way");
        let began = Instant::now();
        lab.ip("one", "link set eth0 down");
        speaker
            .until(|state| !state.next_hops.contains_key(&near) && !state.next_hops.contains_key(&far))
            .await;
        eprintln!("the loss of a carrier was told {:?} after it was begun", began.elapsed());
        speaker.until(|state| state.writes == 3).await;
        assert_eq!(table(&lab)[0], "10.1.0.0/16 via 192.168.2.254 dev up2");
        lab.ip("one", "link set eth0 up");
        speaker.until(|state| state.next_hops.contains_key(&near)).await;
        speaker.until(|state| state.routes == 2).await;
        assert_eq!(table(&lab), whole);
        // Switched off, the kernel removes routes by the link without a word.
        lab.ip("host", "link set up1 down");
        speaker.until(|state| !state.next_hops.contains_key(&near)).await;
        lab.ip("host", "link set up1 up");
        lab.ip("host", "route add 198.51.100.0/24 via 192.168.1.254 metric 20");
        speaker.until(|state| state.next_hops.contains_key(&far) && state.routes == 2).await;
        assert_eq!(table(&lab), whole);
        speaker.end().await;
    });
}

#[test]
fn routes_that_cannot_be_put_are_told_and_keep_no_other_back() {
    let lab = segment();
    let one = index(&lab, "up1");
    lab.run(async |_, _| {
        let mut learned = Learned::new(TABLE).expect("netlink");
        learned.put_rules().await.expect("put");
        learned.put_rules().await.expect("there already");
        // More refusals than a receive buffer holds, each with a route between that is taken.
        let write = |number: u32| {
            let ifindex = if number.is_multiple_of(2) { one } else { 0x7fff_ff00 };
            let gateway = Some("192.168.1.254".parse().expect("valid"));
            let route = Arc::new(LearnedRoute::Via(vec![Via { ifindex, gateway }]));
            Write { prefix: host_prefix(number), action: WriteAction::Add(route) }
        };
        let refused = learned.write((0..5000).map(write).collect()).await.expect("talk");
        assert_eq!(refused.len(), 2500);
        assert!(
            refused
                .iter()
                .zip((1..5000).step_by(2))
                .all(|((prefix, _), number)| *prefix == host_prefix(number))
        );
        assert_eq!(learned.routes().await.expect("told").len(), 2500);
        let remove = |number| Write { prefix: host_prefix(number), action: WriteAction::Remove };
        let refused = learned.write((0..5000).map(remove).collect()).await.expect("talk");
        assert_eq!(refused.len(), 0, "absent on remove is success");
        assert_eq!(learned.routes().await.expect("told").len(), 0);
    });
}

fn host_prefix(number: u32) -> rhumb_model::Prefix {
    rhumb_model::Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)))
}

#[test]
fn a_full_table_is_written_beside_ip_batch() {
    const ROUTES: u32 = 100_000;
    let lab = segment();
    lab.run(async |_, _| {
        let lines: String = (0..ROUTES)
            .map(|number| format!("route add {} via 192.168.1.254 table 99 proto 99\n", host_prefix(number)))
            .collect();
        let began = Instant::now();
        lab.batch("host", &lines);
        let theirs = began.elapsed();
        lab.ip("host", "route flush table 99");

        let mut speaker = Speaker::start();
        let one = via(&[hop("192.168.1.254")]);
        speaker
            .want(vec![
                change("fd01::/32", Some(Arc::new(Forward::Discard))),
                change("10.0.0.0/32", one.clone()),
            ])
            .await;
        speaker.until(|state| state.routes == 2).await;
        let changes = (0..ROUTES).map(|number| Change { prefix: host_prefix(number), forward: one.clone() });
        let began = Instant::now();
        speaker.order(Order::Changes(changes.collect())).await;
        let state = speaker.until(|state| state.routes == ROUTES as usize + 1).await;
        let ours = began.elapsed();
        assert_eq!(state.refused, 0);
        let told = lab.ip("host", "-4 route show table 7268 proto 115");
        assert_eq!(told.lines().count(), ROUTES as usize);
        let began = Instant::now();
        speaker.order(Order::Clear).await;
        speaker.until(|state| state.routes == 0).await;
        let removed = began.elapsed();
        speaker.end().await;
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        eprintln!(
            "{ROUTES} routes: {ours:?}, `ip -batch`: {theirs:?}, ratio {ratio:.2}; removed in {removed:?}"
        );
    });
}
