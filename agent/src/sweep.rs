// SPDX-License-Identifier: Apache-2.0
//! Removes flows whose time is over from the datapath's maps, without end and without haste.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhumb_ebpf::Sweep;
use tracing::{debug, warn};

/// Between two rounds: as long as the shortest lifetime.
const REST: Duration = Duration::from_secs(10);
/// How many entries are looked at before a pause; about a quarter of a millisecond of work.
const BATCH: u64 = 256;
/// How long a pause is. Full maps of the default size are gone through in a minute, at half a percent of a processor.
const PAUSE: Duration = Duration::from_millis(50);

/// Sweeps until it is dropped.
pub(crate) async fn run(sweep: Sweep) {
    let stop = StopOnDrop(Arc::default());
    loop {
        tokio::time::sleep(REST).await;
        let (sweep, stopped) = (sweep.clone(), Arc::clone(&stop.0));
        let pause = move || {
            std::thread::sleep(PAUSE);
            if stopped.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match tokio::task::spawn_blocking(move || sweep.round(BATCH, pause)).await {
            Ok(Ok(swept)) if swept.removed > 0 => {
                debug!(seen = swept.seen, removed = swept.removed, "flows swept");
            }
            Ok(Ok(_)) => {}
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
