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

/// Entries of maps are counted at most this often.
const COUNTED: Duration = Duration::from_secs(10);
/// And so seldom that counting takes at most one part in this many of one processor, however many entries there are.
const SHARE: u32 = 100;

/// Asks the loop, and the kernel for what takes long.
pub(crate) struct Scraper {
    inbox: mpsc::Sender<Input>,
    pressure: Pressure,
    /// What was counted, and until when it is good.
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
        if let Some((until, maps)) = &*self.counted.borrow()
            && Instant::now() < *until
        {
            return maps.clone();
        }
        let began = Instant::now();
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
        let until = Instant::now() + COUNTED.max(began.elapsed() * SHARE);
        *self.counted.borrow_mut() = Some((until, maps.clone()));
        maps
    }
}
