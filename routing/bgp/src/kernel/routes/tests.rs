// SPDX-License-Identifier: Apache-2.0

use super::*;

const A: &str = "10.1.0.0/16";
const B: &str = "10.2.0.0/16";

fn hop(number: u8) -> Hop {
    Hop { address: [192, 0, 2, number].into(), scope: None }
}

fn change(prefix: &str, hops: &[u8]) -> Change {
    let via = Forward::Via(hops.iter().map(|number| hop(*number)).collect());
    Change { prefix: prefix.parse().expect("valid"), forward: (!hops.is_empty()).then(|| Arc::new(via)) }
}

/// Next hops on the links of these numbers.
fn reached(hops: &[(u8, u32)]) -> BTreeMap<Hop, Reached> {
    let each = hops.iter().map(|(number, ifindex)| {
        let via = vec![Via { ifindex: *ifindex, gateway: Some(hop(*number).address) }];
        (hop(*number), Reached { via, distance: 0 })
    });
    each.collect()
}

fn via(hops: &[(u8, u32)]) -> LearnedRoute {
    let reached = reached(hops);
    make(&Forward::Via(reached.keys().copied().collect()), &reached).expect("reached")
}

/// The next writes, in words.
fn words(routes: &mut Routes) -> Vec<String> {
    let route = |route: &LearnedRoute| match route {
        LearnedRoute::Discard => "discard".to_owned(),
        LearnedRoute::Via(via) => via
            .iter()
            .map(|via| format!("{}%{}", via.gateway.expect("has one"), via.ifindex))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let word = |write: Write| match write.action {
        WriteAction::Add(new) => format!("add {} {}", write.prefix, route(&new)),
        WriteAction::Replace(new) => format!("replace {} {}", write.prefix, route(&new)),
        WriteAction::Remove => format!("remove {}", write.prefix),
    };
    routes.writes(usize::MAX).into_iter().map(word).collect()
}

fn refusal(present: bool) -> Refusal {
    Refusal { why: "no".to_owned(), retryable: true, present }
}

#[test]
fn an_unchanged_route_costs_no_write() {
    let mut routes = Routes::default();
    routes.reach(reached(&[(1, 7), (2, 8)]), |_| true);
    routes.want(vec![change(A, &[1, 2])]);
    assert_eq!(words(&mut routes), [format!("add {A} 192.0.2.1%7 192.0.2.2%8")]);
    routes.want(vec![change(A, &[1]), change(A, &[1, 2])]);
    routes.reach(reached(&[(1, 7), (2, 8), (3, 9)]), |_| true);
    assert_eq!(words(&mut routes), [""; 0]);
    routes.want(vec![change(A, &[2])]);
    assert_eq!(words(&mut routes), [format!("replace {A} 192.0.2.2%8")]);
    routes.want(vec![change(A, &[])]);
    assert_eq!(words(&mut routes), [format!("remove {A}")]);
    routes.want(vec![change(A, &[])]);
    assert_eq!(words(&mut routes), [""; 0]);
}

#[test]
fn what_was_there_before_stays_until_the_sweep_and_is_taken_over_without_a_write() {
    let mut routes = Routes::default();
    let found = [(A, Some(via(&[(1, 7)]))), (B, Some(via(&[(1, 7)]))), ("10.3.0.0/16", None)];
    routes.found(found.into_iter().map(|(prefix, route)| (prefix.parse().expect("valid"), route)).collect());
    routes.reach(reached(&[(1, 7)]), |_| true);
    assert_eq!(words(&mut routes), [""; 0]);
    routes.want(vec![change(A, &[1]), change("10.3.0.0/16", &[1])]);
    assert_eq!(words(&mut routes), ["replace 10.3.0.0/16 192.0.2.1%7"]);
    routes.sweep();
    assert_eq!(words(&mut routes), [format!("remove {B}")]);
}

#[test]
fn what_is_wanted_and_not_any_more_before_the_sweep_goes_at_once() {
    let mut routes = Routes::default();
    routes.found([(A.parse().expect("valid"), Some(via(&[(1, 7)])))].into());
    routes.reach(reached(&[(1, 7)]), |_| true);
    routes.want(vec![change(A, &[1])]);
    routes.want(vec![change(A, &[])]);
    assert_eq!(words(&mut routes), [format!("remove {A}")]);
}

#[test]
fn a_way_that_changes_is_followed_and_one_that_is_lost_is_left_to_the_decision() {
    let mut routes = Routes::default();
    routes.reach(reached(&[(1, 7), (2, 8)]), |_| true);
    routes.want(vec![change(A, &[1, 2]), change(B, &[2])]);
    assert_eq!(words(&mut routes).len(), 2);
    // The kernel has removed the second route by itself, and may have left the first.
    routes.reach(reached(&[(1, 7)]), |ifindex| ifindex == 7);
    assert_eq!(words(&mut routes), [format!("replace {A} 192.0.2.1%7")]);
    routes.reach(reached(&[(1, 7), (2, 8)]), |_| true);
    let expected = [format!("replace {A} 192.0.2.1%7 192.0.2.2%8"), format!("replace {B} 192.0.2.2%8")];
    assert_eq!(words(&mut routes), expected);
}

#[test]
fn a_refused_route_is_tried_again_and_forgotten_when_nobody_wants_it() {
    let mut routes = Routes::default();
    routes.reach(reached(&[(1, 7)]), |_| true);
    routes.want(vec![change(A, &[1]), change(B, &[1])]);
    assert_eq!(words(&mut routes).len(), 2);
    routes.refuse(A.parse().expect("valid"), refusal(true));
    routes.refuse(B.parse().expect("valid"), refusal(false));
    assert_eq!((words(&mut routes), routes.installed()), (vec![], 0));
    routes.retry(|refusal| refusal.retryable);
    let expected = [format!("add {A} 192.0.2.1%7"), format!("replace {B} 192.0.2.1%7")];
    assert_eq!(words(&mut routes), expected, "a route of others is never replaced");
    assert_eq!((routes.refused().len(), routes.installed()), (0, 2));
    routes.refuse(A.parse().expect("valid"), refusal(true));
    routes.want(vec![change(A, &[])]);
    assert_eq!((words(&mut routes), routes.refused().len()), (vec![], 0));
}

#[test]
fn a_refused_removal_is_tried_again() {
    let mut routes = Routes::default();
    routes.reach(reached(&[(1, 7)]), |_| true);
    routes.want(vec![change(A, &[1])]);
    words(&mut routes);
    routes.want_nothing();
    assert_eq!(words(&mut routes), [format!("remove {A}")]);
    routes.refuse(A.parse().expect("valid"), refusal(false));
    routes.retry(|_| true);
    assert_eq!(words(&mut routes), [format!("remove {A}")]);
}

#[test]
fn what_others_removed_is_found_missing() {
    let mut routes = Routes::default();
    routes.reach(reached(&[(1, 7)]), |_| true);
    routes.want(vec![change(A, &[1])]);
    words(&mut routes);
    routes.found(BTreeMap::new());
    assert_eq!(words(&mut routes), [format!("add {A} 192.0.2.1%7")]);
}
