// SPDX-License-Identifier: Apache-2.0
//! What the two targets for routes share.

use rhumb_model::{Family, Prefix};

use crate::kernel::{Change, Kernel, KernelError, Place, Route};

/// Why a route could not be put or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Another program has a route to the same destination with the same metric.
    #[error("a route of another program to {dst} with metric {metric} in {place} is in the way")]
    Occupied {
        /// Destination.
        dst: Prefix,
        /// Metric.
        metric: u32,
        /// In which namespace.
        place: Place,
    },
    /// The kernel did not do it.
    #[error("change route to {dst} in {place}")]
    Kernel {
        /// Destination.
        dst: Prefix,
        /// In which namespace.
        place: Place,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// The routes could not be listed.
    #[error("list routes")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

impl RouteError {
    /// Whether the same call can succeed later without anyone changing what is desired.
    pub fn is_retryable(&self) -> bool {
        match self {
            RouteError::Occupied { .. } => false,
            RouteError::Kernel { cause, .. } | RouteError::Observe { cause } => cause.is_retryable(),
        }
    }
}

/// The metric of a route that is to win: the kernel's own default.
pub(crate) fn usual_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}

/// Puts `wanted` in place of `ours`, the routes of rhumb to the same destination as they were seen just now. With the
/// same metric the exchange is one step; otherwise the new route comes before the old ones go.
pub(crate) async fn exchange<K: Kernel>(
    kernel: &K,
    place: &Place,
    wanted: &Route,
    ours: &[Route],
) -> Result<(), RouteError> {
    let failed = |cause| RouteError::Kernel { dst: wanted.dst, place: place.clone(), cause };
    // Only where ours is there may it be replaced: the kernel would put it in place of a foreign one as well.
    let put = if ours.iter().any(|route| route.metric == wanted.metric) {
        Change::ReplaceRoute(wanted.clone())
    } else {
        Change::AddRoute(wanted.clone())
    };
    match kernel.apply(place.clone(), vec![put]).await.pop().expect("one result per change") {
        Err(error) if error.is_present() => {
            return Err(RouteError::Occupied {
                dst: wanted.dst,
                metric: wanted.metric,
                place: place.clone(),
            });
        }
        result => result.map_err(failed)?,
    }
    let others = ours.iter().filter(|route| route.metric != wanted.metric).cloned().collect();
    remove(kernel, place, others).await.map_err(failed)
}

/// Removes routes; absent ones are success.
pub(crate) async fn remove<K: Kernel>(
    kernel: &K,
    place: &Place,
    routes: Vec<Route>,
) -> Result<(), KernelError> {
    if routes.is_empty() {
        return Ok(());
    }
    let changes = routes.into_iter().map(Change::RemoveRoute).collect();
    let results = kernel.apply(place.clone(), changes).await;
    results
        .into_iter()
        .find(|result| result.as_ref().is_err_and(|error| !error.is_absent()))
        .unwrap_or(Ok(()))
}
