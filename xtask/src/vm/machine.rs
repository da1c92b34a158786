// SPDX-License-Identifier: Apache-2.0
//! The virtual machine: one run from power on to power off, on the processor that qemu emulates.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const PROGRAM: &str = "qemu-system-x86_64";

/// No acceleration: it works on every machine, also inside of another virtual machine.
const ARGS: &[&str] = &[
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "2048",
    "-nodefaults",
    "-display",
    "none",
    "-no-reboot",
    "-serial",
    "stdio",
    "-monitor",
    "none",
    "-nic",
    "none",
];

const COMMAND_LINE: &str = "console=ttyS0 loglevel=4 panic=-1 rdinit=/init";

/// Boots and waits for the end, for so long; everything that the console said.
///
/// # Errors
/// The machine cannot be started. A machine that did not end in time is ended; what it said is in the error.
pub(super) fn run(kernel: &Path, image: &Path, limit: Duration) -> anyhow::Result<String> {
    let mut command = Command::new(PROGRAM);
    command.args(ARGS).arg("-kernel").arg(kernel).arg("-initrd").arg(image).args(["-append", COMMAND_LINE]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {PROGRAM}"))?;
    let mut console = child.stdout.take().expect("stdout is piped");
    let mut machine = Running(child);
    let (sender, parts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        match parts.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(part) => said.extend(part),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{}\nthe machine did not end within {} s", text(&said), limit.as_secs());
            }
        }
    }
    let status = machine.0.wait().with_context(|| format!("wait for {PROGRAM}"))?;
    if !status.success() {
        bail!("{}\n{PROGRAM}: {status}", text(&said));
    }
    Ok(text(&said))
}

fn text(said: &[u8]) -> String {
    String::from_utf8_lossy(said).replace('\r', "")
}

/// A machine that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}
