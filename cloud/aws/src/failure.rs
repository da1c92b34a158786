// SPDX-License-Identifier: Apache-2.0

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use rhumb_cloud::{Action, CloudError};

pub(crate) type HttpResponse = aws_sdk_ec2::config::http::HttpResponse;

/// Code of a request that was not sent because there are no credentials.
const NO_CREDENTIALS: &str = "rhumb.NoCredentials";
/// Code of a request that could not be made.
const NOT_MADE: &str = "rhumb.NotMade";

/// What the SDK's error means.
pub(crate) fn failure<E>(action: Action, error: &SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let all = || DisplayErrorContext(error).to_string();
    match error {
        SdkError::ServiceError(refused) => CloudError::answered(
            action,
            refused.raw().status().as_u16(),
            error.code(),
            error.message().unwrap_or_default(),
            error.request_id(),
        ),
        SdkError::TimeoutError(_) => CloudError::unanswered(action, CloudError::TIMEOUT, "no answer in time"),
        SdkError::DispatchFailure(lost) if lost.is_timeout() => {
            CloudError::unanswered(action, CloudError::TIMEOUT, "no connection in time")
        }
        SdkError::DispatchFailure(lost) if lost.is_user() => CloudError::unsent(action, NOT_MADE, all()),
        SdkError::DispatchFailure(lost) if !lost.is_io() && is_about_credentials(&all()) => {
            CloudError::unsent(action, NO_CREDENTIALS, all())
        }
        SdkError::DispatchFailure(lost) if lost.as_connector_error().is_some_and(|lost| is_refused(lost)) => {
            CloudError::refused(action, all())
        }
        SdkError::DispatchFailure(_) => CloudError::unanswered(action, CloudError::CONNECTION, all()),
        SdkError::ResponseError(_) => CloudError::unanswered(action, CloudError::ANSWER, all()),
        // Everything else fails before there is anything to send.
        SdkError::ConstructionFailure(_) | _ => CloudError::unsent(action, NOT_MADE, all()),
    }
}

/// Only who connects hears this, so there was nothing to send on yet.
fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// The error of the credentials chain has no public type that is kept in the SDK's own.
fn is_about_credentials(text: &str) -> bool {
    text.to_lowercase().contains("credentials")
}
