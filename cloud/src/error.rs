// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use crate::Action;
use crate::codes::{CODES, HELP, TEXTS, THROTTLE};

/// A request that the cloud refused, or to which no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {code}{}{message}{}", colon(.message), RequestId(.request_id.as_deref()))]
pub struct CloudError {
    /// What was asked.
    pub action: Action,
    /// The cloud's code, or one of [`CloudError::TIMEOUT`], [`CloudError::REFUSED`], [`CloudError::CONNECTION`],
    /// [`CloudError::ANSWER`].
    pub code: String,
    /// The cloud's text.
    pub message: String,
    /// By which the cloud's support finds the request.
    pub request_id: Option<String>,
    /// What the caller can do.
    pub class: Class,
}

/// What the caller of a request that failed can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing: a person must change something (permission, parameter, credentials).
    Terminal,
    /// Ask again later; nothing happened, or it does no harm to ask again.
    Transient,
    /// The view is old: look, decide anew.
    RefreshAndRetry,
    /// This subnet has no room for what was asked: another subnet of the zone, or a smaller unit.
    TrySiblingSubnet,
    /// A quota or a wrong name that concerns all nodes alike: stop asking, tell the person on call.
    StopAndReport,
    /// What was named is not there. Right after it was made this may be a view that lags.
    Gone,
    /// No answer came to a request that may not be repeated: it may have happened or not. Look before anything else.
    UnknownOutcome,
}

impl Class {
    /// The class as it stands in metrics and reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Transient => "transient",
            Self::RefreshAndRetry => "refresh",
            Self::TrySiblingSubnet => "sibling",
            Self::StopAndReport => "stop",
            Self::Gone => "gone",
            Self::UnknownOutcome => "unknown",
        }
    }
}

impl CloudError {
    /// Code of a request to which no answer came in time.
    pub const TIMEOUT: &'static str = "rhumb.Timeout";
    /// Code of a request that was not sent, as nobody takes connections.
    pub const REFUSED: &'static str = "rhumb.ConnectionRefused";
    /// Code of a request that did not get there, or whose answer did not come back.
    pub const CONNECTION: &'static str = "rhumb.Connection";
    /// Code of an answer that cannot be read.
    pub const ANSWER: &'static str = "rhumb.Answer";

    /// An error that the cloud answered with this HTTP status.
    pub fn answered(
        action: Action,
        status: u16,
        code: Option<&str>,
        message: &str,
        request_id: Option<&str>,
    ) -> Self {
        let listed = code.and_then(|code| classify(code, message));
        let class = match listed {
            // A server that broke down may have done before what it was asked.
            Some(Class::Transient) if status >= 500 && !code.is_some_and(is_throttle) => broken(action),
            Some(class) => class,
            None if status >= 500 => broken(action),
            None => Class::Terminal,
        };
        Self {
            action,
            code: code.map_or_else(|| format!("HTTP {status}"), str::to_owned),
            message: message.to_owned(),
            request_id: request_id.map(str::to_owned),
            class,
        }
    }

    /// No answer: `code` is [`Self::TIMEOUT`], [`Self::CONNECTION`] or [`Self::ANSWER`]; the request may have
    /// happened.
    pub fn unanswered(action: Action, code: &'static str, message: impl fmt::Display) -> Self {
        Self {
            action,
            code: code.to_owned(),
            message: message.to_string(),
            request_id: None,
            class: broken(action),
        }
    }

    /// The request was never sent: nothing happened.
    pub fn unsent(action: Action, code: &str, message: impl fmt::Display) -> Self {
        let class = Class::Terminal;
        Self { action, code: code.to_owned(), message: message.to_string(), request_id: None, class }
    }

    /// Nobody took the connection: nothing happened, whatever was asked.
    pub fn refused(action: Action, message: impl fmt::Display) -> Self {
        Self { class: Class::Transient, ..Self::unsent(action, Self::REFUSED, message) }
    }

    /// Whether nobody took the connection ([`Self::refused`]).
    pub fn is_refused(&self) -> bool {
        self.code == Self::REFUSED
    }

    /// Whether the cloud said that too much was asked.
    pub fn is_throttle(&self) -> bool {
        is_throttle(&self.code)
    }

    /// What would help, where that is known.
    pub fn help(&self) -> Option<&'static str> {
        HELP.iter().find(|(code, _)| *code == self.code).map(|(_, help)| *help)
    }
}

fn classify(code: &str, message: &str) -> Option<Class> {
    let text = message.to_lowercase();
    let by_text = TEXTS.iter().find(|(of, part, _)| *of == code && text.contains(part));
    let by_code = CODES.iter().find(|(listed, _)| *listed == code);
    by_text.map(|(_, _, class)| *class).or(by_code.map(|(_, class)| *class))
}

/// Nobody can tell whether it happened: that matters only where repeating does harm.
fn broken(action: Action) -> Class {
    if action.is_idempotent() { Class::Transient } else { Class::UnknownOutcome }
}

fn is_throttle(code: &str) -> bool {
    THROTTLE.contains(&code)
}

fn colon(message: &str) -> &'static str {
    if message.is_empty() { "" } else { ": " }
}

struct RequestId<'a>(Option<&'a str>);

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |id| write!(f, " (request {id})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: &str, message: &str) -> Class {
        CloudError::answered(Action::AssignPrivateIpAddresses, 400, Some(code), message, None).class
    }

    #[test]
    fn codes_stand_once_and_in_order() {
        let lower = |code: &str| code.to_lowercase();
        for pair in CODES.windows(2) {
            let [(one, _), (next, _)] = pair else { unreachable!("windows of two") };
            assert!(one != next, "{one} twice");
        }
        for (code, _) in CODES {
            assert_eq!(CODES.iter().filter(|(other, _)| other == code).count(), 1, "{code}");
            assert!(!lower(code).contains(' '));
        }
        for (code, _) in HELP {
            assert!(CODES.iter().any(|(listed, _)| listed == code), "help for {code}, which has no class");
        }
        for code in THROTTLE {
            assert_eq!(class(code, ""), Class::Transient);
        }
    }

    #[test]
    fn each_kind_of_trouble_has_its_class() {
        for (code, message, expected) in [
            ("RequestLimitExceeded", "Request limit exceeded.", Class::Transient),
            ("InternalError", "", Class::Transient),
            ("InsufficientFreeAddressesInSubnet", "", Class::TrySiblingSubnet),
            ("InsufficientCidrBlocks", "", Class::TrySiblingSubnet),
            ("PrivateIpAddressLimitExceeded", "", Class::RefreshAndRetry),
            ("AttachmentLimitExceeded", "", Class::RefreshAndRetry),
            ("NetworkInterfaceLimitExceeded", "", Class::StopAndReport),
            ("NetworkAddressUsageLimitExceeded", "", Class::StopAndReport),
            ("NetworkAddressUsagePeeredLimitExceeded", "", Class::StopAndReport),
            ("InvalidNetworkInterfaceID.NotFound", "", Class::Gone),
            ("InvalidAttachmentID.NotFound", "", Class::Gone),
            ("InvalidNetworkInterface.InUse", "", Class::RefreshAndRetry),
            ("IdempotentParameterMismatch", "", Class::RefreshAndRetry),
            ("UnauthorizedOperation", "You are not authorized", Class::Terminal),
        ] {
            assert_eq!(class(code, message), expected, "{code}");
        }
    }

    #[test]
    fn a_bad_parameter_is_terminal_unless_its_text_says_more() {
        assert_eq!(class("InvalidParameterValue", "Value (x) for parameter y is invalid"), Class::Terminal);
        let short = "There are insufficient free addresses in the subnet";
        assert_eq!(class("InvalidParameterValue", short), Class::TrySiblingSubnet);
        let index = "Instance 'i-1' already has an interface attached at device index '1'.";
        assert_eq!(class("InvalidParameterValue", index), Class::RefreshAndRetry);
    }

    #[test]
    fn a_strange_code_is_judged_by_its_status_and_by_what_was_asked() {
        let of = |action, status| CloudError::answered(action, status, Some("Strange"), "", None).class;
        assert_eq!(of(Action::DescribeSubnets, 500), Class::Transient);
        assert_eq!(of(Action::AttachNetworkInterface, 500), Class::UnknownOutcome);
        assert_eq!(of(Action::AttachNetworkInterface, 400), Class::Terminal);
    }

    #[test]
    fn a_server_that_broke_down_may_have_done_it_and_one_that_throttles_has_not() {
        let of = |code| CloudError::answered(Action::AttachNetworkInterface, 503, Some(code), "", None).class;
        assert_eq!(of("Unavailable"), Class::UnknownOutcome);
        assert_eq!(of("RequestLimitExceeded"), Class::Transient);
    }

    #[test]
    fn silence_leaves_open_what_happened_unless_repeating_does_no_harm() {
        let of = |action| CloudError::unanswered(action, CloudError::TIMEOUT, "no answer in 10 s").class;
        assert_eq!(of(Action::AssignPrivateIpAddresses), Class::UnknownOutcome);
        assert_eq!(of(Action::AttachNetworkInterface), Class::UnknownOutcome);
        assert_eq!(of(Action::CreateNetworkInterface), Class::Transient);
        assert_eq!(of(Action::DescribeInstances), Class::Transient);
    }

    #[test]
    fn an_error_names_action_code_text_and_request() {
        let error = CloudError::answered(
            Action::AttachNetworkInterface,
            403,
            Some("UnauthorizedOperation"),
            "You are not authorized to perform this operation.",
            Some("7a62c49f"),
        );
        assert_eq!(
            error.to_string(),
            "AttachNetworkInterface: UnauthorizedOperation: You are not authorized to perform this operation. \
             (request 7a62c49f)"
        );
        assert!(error.help().expect("known").contains("IAM policy"));
        let bare = CloudError::answered(Action::DescribeVpcs, 502, None, "", None);
        assert_eq!(bare.to_string(), "DescribeVpcs: HTTP 502");
    }
}
