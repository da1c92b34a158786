// SPDX-License-Identifier: Apache-2.0

use tracing_subscriber::EnvFilter;

/// Logs to stderr from now on: what `RUST_LOG` says, `info` when it is unset. To be called once.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
