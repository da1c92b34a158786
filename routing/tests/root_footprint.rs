// SPDX-License-Identifier: Apache-2.0
//! What work on the real kernel costs in time, descriptors and threads. Alone in its process, so that the counts
//! are its own.

mod lab;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lab::{Lab, key, spec};
use rhumb_model::Target;
use rhumb_routing::Links;

/// One test after the other.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn sockets_and_threads_do_not_pile_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let mut links = Links::new(netlink);
        let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).expect("readable").count();
        let own = || (count("fd"), count("task"));
        let mut counts = Vec::new();
        for _ in 0..3 {
            for _ in 0..100 {
                links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect("a pair");
                links.remove(&key("a/eth0")).await.expect("removed");
            }
            counts.push(own());
        }
        // The last deletions may still wait for their acknowledgement, on a thread and a socket each; but their
        // number does not grow with that of the pods that came and went.
        assert!(counts.iter().all(|(fds, threads)| *fds < 64 && *threads < 64), "{counts:?}");
    });
}

#[test]
fn a_removal_does_not_wait_for_the_kernels_acknowledgement() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pods: Vec<String> = (0..16).map(|at| format!("p{at}")).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    let lab = Lab::new(&pods);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &pods);
        let mut links = Links::new(netlink);
        let batch: Vec<_> = pods
            .iter()
            .map(|pod| (key(&format!("{pod}/eth0")), spec(&format!("rh{pod}"), 1, 1500)))
            .collect();
        let keys: Vec<_> = batch.iter().map(|(key, _)| key.clone()).collect();
        let (mut put, mut removed) = (Vec::new(), Vec::new());
        let (mut all_put, mut all_removed) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            for (key, value) in &batch {
                let start = Instant::now();
                links.put(key, value).await.expect("a pair");
                put.push(start.elapsed());
            }
            for key in &keys {
                let start = Instant::now();
                links.remove(key).await.expect("removed");
                removed.push(start.elapsed());
            }
            let start = Instant::now();
            assert!(links.put_all(&batch).await.into_iter().all(|result| result.is_ok()));
            all_put.push(start.elapsed());
            let start = Instant::now();
            assert!(links.remove_all(&keys).await.into_iter().all(|result| result.is_ok()));
            all_removed.push(start.elapsed());
        }
        for times in [&mut put, &mut removed, &mut all_put, &mut all_removed] {
            times.sort();
        }
        let median = |times: &[Duration]| times[times.len() / 2];
        println!("one: put {:?}, remove {:?}", median(&put), median(&removed));
        println!("16 as a batch: put {:?}, remove {:?}", median(&all_put), median(&all_removed));
        let mut acknowledged = Vec::new();
        for (key, value) in &batch {
            links.put(key, value).await.expect("a pair");
            let start = Instant::now();
            lab.ip("host", &format!("link del {}", value.host));
            acknowledged.push(start.elapsed());
            links.remove(key).await.expect("absent is success");
        }
        acknowledged.sort();
        println!("one by ip: remove {:?}", median(&acknowledged));
        assert!(median(&removed) < median(&acknowledged));
    });
}
