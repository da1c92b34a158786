// SPDX-License-Identifier: Apache-2.0
//! Removes flows whose time is over from the datapath's maps, without end and without haste.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhumb_ebpf::{Evictions, Sweep};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::node::Input;

/// Between two rounds: as long as the shortest lifetime.
const REST: Duration = Duration::from_secs(10);
/// How many entries are looked at before a pause; about a quarter of a millisecond of work.
const BATCH: u64 = 256;
/// How long a pause is. Full maps of the default size are gone through in a minute, at half a percent of a processor.
const PAUSE: Duration = Duration::from_millis(50);

/// What a round found, or several: then `seen` is that of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Report {
    /// The map.
    pub(crate) map: &'static str,
    /// Entries that were looked at.
    pub(crate) seen: u64,
    /// Those that were removed as their time was over.
    pub(crate) removed: u64,
    /// Those that are now known to have had to go before their time.
    pub(crate) evicted: u64,
}

/// Sweeps until it is dropped.
pub(crate) async fn run(sweep: Sweep, inbox: mpsc::Sender<Input>) {
    let stop = StopOnDrop(Arc::default());
    let mut evictions = Evictions::default();
    loop {
        tokio::time::sleep(REST).await;
        let (sweep, stopped) = (sweep.clone(), Arc::clone(&stop.0));
        let pause = move || {
            std::thread::sleep(PAUSE);
            if stopped.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let began = Instant::now();
        match tokio::task::spawn_blocking(move || sweep.round(BATCH, pause)).await {
            Ok(Ok(swept)) => {
                let report = |swept: &rhumb_ebpf::Swept| Report {
                    map: swept.map,
                    seen: swept.seen,
                    removed: swept.removed,
                    evicted: evictions.note(swept),
                };
                let reports: Vec<Report> = swept.iter().map(report).collect();
                for report in reports.iter().filter(|report| report.removed + report.evicted > 0) {
                    let Report { map, seen, removed, evicted } = report;
                    debug!(map, seen, removed, evicted, "flows swept");
                }
                if inbox.send(Input::Swept { reports, took: began.elapsed() }).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => warn!(error = &error as &dyn std::error::Error, "flows not swept"),
            Err(error) => warn!(%error, "flows not swept"),
        }
    }
}

/// Ends a round that is under way within a pause: the runtime waits for it when the agent stops.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
