// SPDX-License-Identifier: Apache-2.0
//! A process that appends is killed at any moment: what it was told is on disk is there, in order, and nothing else
//! but at most the one batch that it was not told of.
//!
//! Without arguments this is the test; with `write PATH` it is the process that is killed.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rhumb_ipam::{Journal, OpenError};
use tempfile::TempDir;

const ROUNDS: usize = 40;
/// Batches between two compactions.
const COMPACT_EVERY: u64 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", path] => write_until_killed(Path::new(path)),
        _ => killed_writers_lose_nothing(),
    }
}

/// Appends n, n+1, … in batches of two, and says so after each.
fn write_until_killed(path: &Path) -> Result<(), Box<dyn Error>> {
    let (mut journal, opened) = Journal::<u64>::open(path)?;
    let mut records = opened.records;
    let mut out = std::io::stdout().lock();
    for batch in 1u64.. {
        let next = records.last().map_or(0, |last| last + 1);
        records.extend([next, next + 1]);
        if batch % COMPACT_EVERY == 0 {
            journal.compact(&records)?;
        } else {
            journal.append(&[next, next + 1])?;
        }
        writeln!(out, "{}", next + 1)?;
        out.flush()?;
    }
    Ok(())
}

fn killed_writers_lose_nothing() -> Result<(), Box<dyn Error>> {
    let directory = TempDir::with_prefix(format!("rhip{}", std::process::id()))?;
    let path = directory.path().join("leases.journal");
    let mut told = None;
    for round in 0..ROUNDS {
        told = run_and_kill(&path, round)?.or(told);
        let (_, opened) = Journal::<u64>::open(&path)?;
        let count = u64::try_from(opened.records.len())?;
        assert!(opened.records.iter().copied().eq(0..count), "round {round}: {:?}", opened.records);
        let told = told.map_or(0, |last: u64| last + 1);
        assert!((told..=told + 2).contains(&count), "round {round}: told of {told}, there are {count}");
    }
    writeln!(std::io::stdout(), "test killed_writers_lose_nothing ... ok ({ROUNDS} rounds)")?;
    Ok(())
}

/// Lets a writer run for `round` batches and a bit, kills it, and gives the last record that it was told of.
fn run_and_kill(path: &Path, round: usize) -> Result<Option<u64>, Box<dyn Error>> {
    let mut writer =
        Command::new(std::env::current_exe()?).arg("write").arg(path).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(writer.stdout.take().ok_or("stdout is piped")?).lines();
    let mut told = None;
    for _ in 0..=round {
        let line = lines.next().ok_or("the writer ended by itself")??;
        told = Some(line.parse()?);
    }
    assert!(matches!(Journal::<u64>::open(path), Err(OpenError::InUse { .. })));
    writer.kill()?;
    // What it wrote to the pipe before it died counts as told.
    for line in lines {
        told = Some(line?.parse()?);
    }
    writer.wait()?;
    Ok(told)
}
