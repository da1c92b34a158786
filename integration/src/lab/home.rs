// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::process::{Signal, kill_process};

use super::process::{ended_within, pid};
use super::{Binaries, namespace};

/// First letters of everything that a lab makes; the owner's process id follows.
const PREFIX: &str = "rhl";
const BPFFS: &str = "/sys/fs/bpf";
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Written to the reaper when nothing is left for it to do.
const DONE: &[u8] = b"done";

/// Where one lab keeps its files, and the list of what it started.
#[derive(Debug)]
pub(super) struct Home {
    id: String,
    path: PathBuf,
    bpffs: PathBuf,
    cgroup: Option<PathBuf>,
    reaper: Option<(std::process::Child, ChildStdin)>,
    keep: bool,
}

impl Home {
    /// Makes the folders of the lab `name` of this process and starts its reaper.
    pub(super) fn create(name: &str, keep: bool, binaries: &Binaries) -> Result<Self> {
        let owner = std::process::id();
        let id = format!("{PREFIX}{owner}-{name}");
        let path = base().join(&id);
        fs::create_dir_all(base())?;
        fs::create_dir(&path)
            .with_context(|| format!("make {} (a lab of that name is up)", path.display()))?;
        fs::write(path.join("owner"), identity(owner)?)?;
        let mut home = Self { bpffs: Path::new(BPFFS).join(&id), id, path, cgroup: None, reaper: None, keep };
        home.reaper = Some(home.start_reaper(binaries)?);
        mount_bpffs()?;
        fs::create_dir(&home.bpffs).with_context(|| format!("make {}", home.bpffs.display()))?;
        home.cgroup = cgroup(&home.id);
        if let Some(cgroup) = &home.cgroup {
            fs::create_dir(cgroup).with_context(|| format!("make {}", cgroup.display()))?;
        }
        Ok(home)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    pub(super) fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Where processes are noted, so that the reaper finds them.
    pub(super) fn records(&self) -> Records {
        Records { list: self.path.join("processes"), keep: self.keep }
    }

    /// Removes what is left of the lab.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.reaper.is_none() {
            return Ok(());
        }
        let removed = remove(&self.id);
        self.let_go()?;
        removed
    }

    /// Ends the reaper without its work.
    pub(super) fn let_go(&mut self) -> Result<()> {
        let Some((mut reaper, mut pipe)) = self.reaper.take() else { return Ok(()) };
        pipe.write_all(DONE).ok();
        drop(pipe);
        reaper.wait()?;
        Ok(())
    }

    fn start_reaper(&self, binaries: &Binaries) -> Result<(std::process::Child, ChildStdin)> {
        let mut reaper = Command::new(binaries.path("rhumb-lab"))
            .args(["reap", &self.id])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the lab's reaper, rhumb-lab")?;
        let pipe = reaper.stdin.take().context("the pipe was asked for")?;
        Ok((reaper, pipe))
    }
}

/// The list of the processes that a lab started.
#[derive(Debug, Clone)]
pub(super) struct Records {
    list: PathBuf,
    keep: bool,
}

impl Records {
    /// Notes a process.
    pub(super) fn add(&self, process: u32) -> Result<()> {
        let mut list = OpenOptions::new().create(true).append(true).open(&self.list)?;
        Ok(list.write_all(identity(process)?.as_bytes())?)
    }

    /// Whether the processes are to outlive their owner.
    pub(super) fn keep(&self) -> bool {
        self.keep
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.close().ok();
    }
}

/// Waits until the owner of the lab `id` says that nothing is left to do, or is gone; then removes the lab.
///
/// # Errors
/// What could not be removed.
pub fn reap(id: &str) -> Result<()> {
    if !is_lab(id) {
        bail!("{id} is not the name of a lab");
    }
    let mut said = Vec::new();
    std::io::stdin().read_to_end(&mut said)?;
    if said == DONE { Ok(()) } else { remove(id) }
}

/// Removes every lab whose owner is gone; gives their names.
///
/// # Errors
/// What could not be removed, after everything was tried.
pub fn down_all() -> Result<Vec<String>> {
    let mut ids: Vec<String> = Vec::new();
    let places = [base(), "/run/netns".into(), BPFFS.into()];
    for folder in places.into_iter().chain(CGROUPS.map(PathBuf::from)) {
        for name in names_in(&folder) {
            let id: String = name.split_inclusive('-').take(2).collect();
            let id = id.trim_end_matches('-').to_owned();
            if is_lab(&id) && !ids.contains(&id) && !owner_lives(&id) {
                ids.push(id);
            }
        }
    }
    let failures: Vec<String> =
        ids.iter().filter_map(|id| remove(id).err().map(|error| format!("{id}: {error:#}"))).collect();
    if failures.is_empty() { Ok(ids) } else { bail!("remove labs:\n{}", failures.join("\n")) }
}

/// Whether this could be the name of a lab.
fn is_lab(id: &str) -> bool {
    owner(id).is_some() && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

fn owner(id: &str) -> Option<u32> {
    id.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn owner_lives(id: &str) -> bool {
    match fs::read_to_string(base().join(id).join("owner")) {
        Ok(identity) => lives(&identity).is_some(),
        Err(_) => owner(id).is_some_and(|process| Path::new("/proc").join(process.to_string()).exists()),
    }
}

/// Removes everything of the lab `id`, going on after a failure.
fn remove(id: &str) -> Result<()> {
    let mut failures = Vec::new();
    let mut note = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    let home = base().join(id);
    for identity in fs::read_to_string(home.join("processes")).unwrap_or_default().lines() {
        note(identity, end(identity));
    }
    for name in names_in(Path::new("/run/netns")).into_iter().filter(|n| n.starts_with(&format!("{id}-"))) {
        note(&name, namespace::delete(&name));
    }
    note("pins", remove_tree(&Path::new(BPFFS).join(id)));
    if let Some(cgroup) = cgroup(id) {
        note("cgroup", remove_cgroup(&cgroup));
    }
    note("files", remove_tree(&home));
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

fn end(identity: &str) -> Result<()> {
    if let Some(process) = lives(identity) {
        kill_process(pid(process)?, Signal::KILL).ok();
        ended_within(process, Duration::from_secs(10))?;
    }
    Ok(())
}

/// Waits until a file or folder is gone.
///
/// # Errors
/// When the folder in which it is cannot be watched.
pub fn gone_within(path: &Path, patience: Duration) -> Result<bool> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    let folder = path.parent().context("a file is in a folder")?;
    inotify::add_watch(&changes, folder, inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM)?;
    let deadline = Instant::now() + patience;
    while path.exists() {
        let left = deadline.saturating_duration_since(Instant::now());
        if poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&left.try_into()?))? == 0 {
            return Ok(false);
        }
        rustix::io::read(&changes, &mut [0; 4096])?;
    }
    Ok(true)
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_cgroup(path: &Path) -> Result<()> {
    for name in names_in(path) {
        let child = path.join(name);
        if child.is_dir() {
            remove_cgroup(&child)?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Process id and start time: together they name one process for ever.
fn identity(process: u32) -> Result<String> {
    let start = start_time(process).with_context(|| format!("process {process} is gone"))?;
    Ok(format!("{process} {start}\n"))
}

fn lives(identity: &str) -> Option<u32> {
    let (process, start) = identity.trim().split_once(' ')?;
    let process = process.parse().ok()?;
    (start_time(process)? == start).then_some(process)
}

fn start_time(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, in brackets, may hold anything; what follows is plain, and the 22nd of all is the start time.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18).map(str::to_owned)
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn base() -> PathBuf {
    std::env::temp_dir().join("rhumb-lab")
}

fn cgroup(id: &str) -> Option<PathBuf> {
    CGROUPS
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").is_file())
        .map(|root| root.join(id))
}

/// Mounts the BPF file system where it belongs, once for all processes of the machine.
fn mount_bpffs() -> Result<()> {
    const BPF_MAGIC: u64 = 0xcafe_4a11;
    let lock = fs::File::create(base().join("mount.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let found = rustix::fs::statfs(BPFFS).with_context(|| format!("look at {BPFFS}"))?;
    if u64::try_from(found.f_type) != Ok(BPF_MAGIC) {
        rustix::mount::mount("bpf", BPFFS, "bpf", rustix::mount::MountFlags::empty(), None)
            .with_context(|| format!("mount the BPF file system on {BPFFS} (needs root)"))?;
    }
    Ok(())
}
