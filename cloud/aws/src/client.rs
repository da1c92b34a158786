// SPDX-License-Identifier: Apache-2.0

use std::future::Future;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Credentials;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use rhumb_cloud::{Action, CloudError, Outcome, Pacer, Priority};

use crate::failure::{HttpResponse, failure};

/// A server that takes a connection at all takes it within this time.
const CONNECT: Duration = Duration::from_secs(3);

/// How EC2 is reached.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// Instead of the Region's own endpoint, for example of a VPC endpoint or a test. `None`: the SDK's chain
    /// (`AWS_ENDPOINT_URL_EC2`, profile).
    pub endpoint: Option<String>,
    /// The Region; `None`: the SDK's chain (`AWS_REGION`, profile, instance metadata).
    pub region: Option<String>,
    /// Instead of the SDK's chain (environment, profile, web identity, container, instance metadata).
    pub credentials: Option<StaticCredentials>,
    /// A request that is not answered within this time is given up.
    pub deadline: Duration,
}

impl Default for AwsSettings {
    fn default() -> Self {
        Self { endpoint: None, region: None, credentials: None, deadline: Duration::from_secs(15) }
    }
}

/// Credentials that never change, for tests.
#[derive(Clone)]
pub struct StaticCredentials {
    /// Id of the access key.
    pub key_id: String,
    /// The key.
    pub secret: String,
}

impl std::fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticCredentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// EC2 in one Region.
///
/// Every request is sent once, when the [`Pacer`] lets it, and has a deadline.
#[derive(Debug, Clone)]
pub struct Aws {
    pub(crate) ec2: Client,
    pacer: Pacer,
}

impl Aws {
    /// A client by these settings. Nothing is asked yet but, where the chain wants it, the instance's metadata.
    pub async fn new(settings: &AwsSettings, pacer: Pacer) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(settings.deadline)
            .operation_timeout(settings.deadline)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(StaticCredentials { key_id, secret }) = &settings.credentials {
            loader = loader.credentials_provider(Credentials::new(key_id, secret, None, None, "static"));
        }
        Self { ec2: Client::new(&loader.load().await), pacer }
    }

    /// Sends one request when it may be sent. `request` is not polled before.
    pub(crate) async fn ask<T, E>(
        &self,
        action: Action,
        priority: Priority,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, CloudError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.pacer.admit(action, priority).await;
        let result = request.await.map_err(|error| failure(action, &error));
        self.pacer.ended(action, Outcome::of(&result));
        result
    }
}
