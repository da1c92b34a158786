// SPDX-License-Identifier: Apache-2.0

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Begins to hear SIGTERM and SIGINT, which end the process no more by themselves; waits for the first, and names it.
///
/// # Errors
/// The signals cannot be heard.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// What a program ends with, after it has logged why.
pub fn exit_code(ended: Result<(), impl Display>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes in one line: what a person looks for first in the log of a program that does not start.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn the_signal_that_came_is_named() {
        for (sent, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
            let stop = stop_signal().expect("heard");
            kill_process(getpid(), sent).expect("one's own process");
            assert_eq!(stop.await, name);
        }
    }
}
