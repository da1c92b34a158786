// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace; deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    keep: bool,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up, echo sockets for everybody, and no duplicate address detection.
    ///
    /// # Errors
    /// When the kernel refuses, mostly for want of root.
    pub fn create(name: &str) -> Result<Self> {
        let output = Command::new("ip").args(["netns", "add", name]).output().context("run ip netns add")?;
        ensure!(
            output.status.success(),
            "make network namespace {name} (needs root): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let namespace = Self { name: name.to_owned(), path: Path::new("/run/netns").join(name), keep: false };
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Another value for it, which leaves it in place when it is dropped.
    pub fn shared(&self) -> Self {
        Self { name: self.name.clone(), path: self.path.clone(), keep: true }
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is bound.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Runs a closure on a thread of its own that has entered the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the closure's own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.path)?;
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs lines of `ip` inside, as one batch; empty lines are passed over.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("run ip")?;
        child.stdin.take().context("the pipe was asked for")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "in {}: {}\nof the batch\n{lines}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// What an `ip` command printed inside.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip_show(&self, args: &str) -> Result<String> {
        ip(&format!("-n {} {args}", self.name))
    }

    /// Writes a value under `/proc/sys` inside.
    ///
    /// # Errors
    /// When the kernel does not know the name or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| std::fs::write(&path, value).with_context(|| format!("write {}", path.display())))
    }

    /// Leaves the namespace in place when this value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            delete(&self.name).ok();
        }
    }
}

/// Runs `ip` with these words and gives what it printed.
///
/// # Errors
/// What `ip` said.
pub fn ip(args: &str) -> Result<String> {
    let output = Command::new("ip").args(args.split_whitespace()).output().context("run ip")?;
    ensure!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Moves the calling thread into the namespace bound at `path`.
pub(super) fn enter(path: &Path) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("open {}", path.display()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {}", path.display()))
}

/// Deletes a namespace by name; its absence is success.
pub(super) fn delete(name: &str) -> Result<()> {
    match ip(&format!("netns del {name}")) {
        Err(error) if Path::new("/run/netns").join(name).exists() => Err(error),
        _ => Ok(()),
    }
}
