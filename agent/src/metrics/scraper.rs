// SPDX-License-Identifier: Apache-2.0
//! Where all samples come together, for whoever asks.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rhumb_ebpf::{MapUse, Pressure};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::catalogue;
use super::registry::Sample;
use super::text::render;
use crate::node::Input;

/// Entries of maps are counted at most this often: a full map of 65,536 entries takes some 30 ms of one processor.
const COUNTED: Duration = Duration::from_secs(10);

/// Asks the loop, and the kernel for what takes long.
pub(crate) struct Scraper {
    inbox: mpsc::Sender<Input>,
    pressure: Pressure,
    counted: RefCell<Option<(Instant, Vec<MapUse>)>>,
}

impl Scraper {
    pub(crate) fn new(inbox: mpsc::Sender<Input>, pressure: Pressure) -> Self {
        Self { inbox, pressure, counted: RefCell::new(None) }
    }

    /// All samples; nothing when the loop has ended.
    pub(crate) async fn samples(&self) -> Option<Vec<Sample>> {
        let maps = self.maps().await;
        let (reply, samples) = oneshot::channel();
        self.inbox.send(Input::Metrics { maps, reply }).await.ok()?;
        samples.await.ok()
    }

    /// All samples as Prometheus reads them; nothing when the loop has ended.
    pub(crate) async fn text(&self) -> Option<String> {
        Some(render(catalogue::ALL, &self.samples().await?))
    }

    /// How full maps are, or were a short time ago.
    async fn maps(&self) -> Vec<MapUse> {
        if let Some((at, maps)) = &*self.counted.borrow()
            && at.elapsed() < COUNTED
        {
            return maps.clone();
        }
        let pressure = self.pressure.clone();
        let counted = tokio::task::spawn_blocking(move || pressure.read()).await;
        let maps = match counted {
            Ok(Ok(maps)) => maps,
            Ok(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "entries of maps not counted");
                Vec::new()
            }
            // The runtime is ending.
            Err(_) => return Vec::new(),
        };
        *self.counted.borrow_mut() = Some((Instant::now(), maps.clone()));
        maps
    }
}
