// SPDX-License-Identifier: Apache-2.0

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::binaries::absent;
use super::home::Records;

/// How long a program may take to end: an agent lets calls under way end for ten seconds of it.
const STOP: Duration = Duration::from_secs(30);

/// What a long-lived program is started with.
pub(super) struct Start<'a> {
    pub(super) program: PathBuf,
    pub(super) netns: Option<&'a Path>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) log: PathBuf,
}

/// A long-lived program of a lab; killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    // The lock makes a lab something that threads can share; only the owner of the process takes it.
    words: Mutex<mpsc::Receiver<String>>,
    log: PathBuf,
    log_start: u64,
    keep: bool,
}

impl Process {
    /// Starts a program that announces its progress as lines on standard output and logs to standard error.
    pub(super) fn start(records: &Records, start: Start<'_>) -> Result<Self> {
        ensure!(start.program.is_file(), absent(&start.program));
        let name = start.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = OpenOptions::new().create(true).append(true).open(&start.log)?;
        let log_start = log.metadata()?.len();
        let mut chain = Vec::new();
        if !records.keep() {
            chain.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        }
        if let Some(netns) = start.netns {
            chain.extend(["nsenter".to_owned(), format!("--net={}", netns.display()), "--".to_owned()]);
        }
        chain.push(start.program.display().to_string());
        let mut words = chain.into_iter().chain(start.args);
        let mut command = Command::new(words.next().context("the chain ends with the program")?);
        command.args(words).envs(start.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.process_group(0);
        let mut child = spawn_for_life(command).with_context(|| format!("start {name}"))?;
        records.add(child.id())?;
        let output = child.stdout.take().context("the pipe was asked for")?;
        let (sender, words) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name, child, words: Mutex::new(words), log: start.log, log_start, keep: records.keep() })
    }

    /// Waits until the program announced `word`.
    ///
    /// # Errors
    /// With the end of its log, when it ended or `patience` is over before.
    pub fn wait_for(&mut self, word: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let words = self.words.get_mut().expect("no thread panics while it holds the lock");
            match words.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == word => return Ok(()),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} is not {word} after {patience:?}; its log:\n{}", self.name, self.log_tail())
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.wait(patience)?;
                    bail!(
                        "{} ended with {status} before it was {word}; its log:\n{}",
                        self.name,
                        self.log_tail()
                    )
                }
            }
        }
    }

    /// The next line of standard output; `None` when `patience` is over before.
    ///
    /// # Errors
    /// With the end of its log, when it ended.
    pub fn line(&mut self, patience: Duration) -> Result<Option<String>> {
        let words = self.words.get_mut().expect("no thread panics while it holds the lock");
        match words.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("{} ended; its log:\n{}", self.name, self.log_tail())
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        kill_process(pid(self.child.id())?, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When `patience` is over before.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        if !ended_within(self.child.id(), patience)? {
            bail!("{} did not end within {patience:?}; its log:\n{}", self.name, self.log_tail());
        }
        Ok(self.child.wait()?)
    }

    /// Ends it by SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait(STOP)?;
        ensure!(
            status.success(),
            "{} ended with {status} on SIGTERM; its log:\n{}",
            self.name,
            self.log_tail()
        );
        Ok(())
    }

    /// Ends it by SIGKILL and waits.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("{} has no resident memory", self.name))
    }

    /// Processor time used so far, user and system.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let nanos = std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.id()))?;
        let nanos = nanos.split(' ').next().context("schedstat has three numbers")?.parse()?;
        Ok(Duration::from_nanos(nanos))
    }

    fn log_tail(&self) -> String {
        let read = || -> Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.log_start.max(length.saturating_sub(4000))))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        read().unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.keep {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Waits until a process that need not be a child has ended.
pub(super) fn ended_within(process: u32, patience: Duration) -> Result<bool> {
    let Ok(descriptor) = pidfd_open(pid(process)?, PidfdFlags::empty()) else { return Ok(true) };
    let timeout = rustix::time::Timespec::try_from(patience).context("patience is short")?;
    let ready = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout))?;
    Ok(ready > 0)
}

pub(super) fn pid(process: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(process)?).ok_or_else(|| anyhow!("process id 0"))
}

/// Starts a process on a thread that lives as long as this program: the kernel sends the death signal when the
/// thread that started the process ends, not only when the program does.
fn spawn_for_life(command: Command) -> std::io::Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in jobs {
                reply.send(command.spawn()).ok();
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).expect("the spawner thread never ends");
    answer.recv().expect("the spawner thread answers every job")
}
