// SPDX-License-Identifier: Apache-2.0
//! Asks the cloud's metadata service which instance this node is; nothing else is ever asked of the cloud here.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_api::InstanceIdentity;
use rhumb_cloud::imds::{self, Identity, Imds};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::node::Input;

/// A question without a good answer is asked again after this time, and then after twice as long each time.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Asks at one endpoint after the other until there is an answer, and tells the loop. Without one, the service's own
/// addresses are asked, IPv4 first: a node of IPv6 alone reaches the other.
pub(crate) async fn run(endpoint: Option<SocketAddr>, inbox: mpsc::Sender<Input>) {
    let endpoints = endpoint.map_or_else(|| vec![imds::V4, imds::V6], |endpoint| vec![endpoint]);
    let services: Vec<_> = endpoints.into_iter().map(|endpoint| (endpoint, Imds::new(endpoint))).collect();
    let mut wait = RETRY;
    loop {
        let mut is_hopeless = true;
        for (endpoint, service) in &services {
            match service.identity().await {
                Ok(identity) => {
                    tell(identity, &inbox).await;
                    return;
                }
                Err(error) => {
                    is_hopeless &= !error.is_retryable();
                    let help = error.help().unwrap_or_default();
                    warn!(%endpoint, error = &error as &dyn std::error::Error, help, "instance not known yet");
                }
            }
        }
        // What only a person can mend may have been mended by then.
        if is_hopeless {
            wait = LONGEST_RETRY;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

async fn tell(identity: Identity, inbox: &mpsc::Sender<Input>) {
    info!(instance = %identity.id, kind = identity.kind, zone = %identity.zone, "instance known");
    let told = InstanceIdentity {
        id: identity.id,
        kind: identity.kind,
        zone: identity.zone,
        subnet: identity.subnet,
        vpc: Some(identity.vpc),
    };
    // Nobody listens any more when the agent ends.
    drop(inbox.send(Input::Instance(Box::new(told))).await);
}
