// SPDX-License-Identifier: Apache-2.0
//! Plugins for the plugin under test to meet: an IPAM plugin that writes down how it was called, one that refuses
//! everything, and an observer that stands in front of the plugin under test. Each is this program by another name.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Name of the IPAM plugin that records its calls and hands out an address.
pub(crate) const RECORDER: &str = "rhumb-recorder";
/// Name of the IPAM plugin that refuses everything.
pub(crate) const FAILER: &str = "rhumb-failer";
/// Name of the plugin under test; under it the observer records and then becomes the real one.
pub(crate) const PLUGIN: &str = "rhumb-cni";
/// Beside an observer: a link to the program that it observes.
pub(crate) const OBSERVED: &str = "observed";

const LOG: &str = "calls.jsonl";
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One call, as the called program saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    /// `CNI_COMMAND`.
    pub(crate) command: String,
    /// Every `CNI_*` variable.
    pub(crate) env: BTreeMap<String, String>,
    /// Standard input.
    pub(crate) stdin: String,
}

/// The calls that were recorded in a directory of plugins, oldest first.
///
/// # Errors
/// When the record cannot be read.
pub(crate) fn calls(directory: &Path) -> Result<Vec<Call>> {
    let path = directory.join(LOG);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    text.lines().map(|line| serde_json::from_str(line).context("read a recorded call")).collect()
}

/// Forgets the calls recorded in a directory of plugins.
///
/// # Errors
/// When the record cannot be removed; its absence is success.
pub(crate) fn forget(directory: &Path) -> Result<()> {
    match std::fs::remove_file(directory.join(LOG)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Acts as the plugin by whose name this program was called, or not at all when that is its own name.
pub fn act_by_name() -> Option<ExitCode> {
    let invoked = PathBuf::from(std::env::args_os().next()?);
    let name = invoked.file_name()?.to_str()?;
    let directory = invoked.parent().filter(|parent| parent.is_absolute()).map(Path::to_owned);
    let directory = directory.or_else(|| search(name));
    let act: fn(&Path) -> Result<Value> = match name {
        RECORDER => record_and_lease,
        FAILER => |_| Ok(refusal()),
        PLUGIN => observe,
        _ => return None,
    };
    let answer = directory.context("find the folder of this program").and_then(|directory| act(&directory));
    let answer = answer.unwrap_or_else(|error| json!({"code": 5, "msg": format!("{error:#}")}));
    let failed = answer.get("code").is_some();
    let text = if answer.is_null() { String::new() } else { answer.to_string() };
    let told = std::io::stdout().write_all(text.as_bytes());
    Some(if failed || told.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Not available to STATUS, try again later to anything else.
fn refusal() -> Value {
    let status = std::env::var("CNI_COMMAND").is_ok_and(|command| command == "STATUS");
    json!({
        "cniVersion": VERSIONS[2],
        "code": if status { 50 } else { 11 },
        "msg": "this plugin refuses everything",
    })
}

fn search(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("CNI_PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join(name).exists())
}

fn record(directory: &Path) -> Result<Call> {
    let env: BTreeMap<_, _> = std::env::vars().filter(|(name, _)| name.starts_with("CNI_")).collect();
    let mut stdin = String::new();
    std::io::stdin().read_to_string(&mut stdin).context("read the configuration")?;
    let call = Call { command: env.get("CNI_COMMAND").cloned().unwrap_or_default(), env, stdin };
    let mut line = serde_json::to_string(&call)?;
    line.push('\n');
    let log = OpenOptions::new().create(true).append(true).open(directory.join(LOG));
    log.and_then(|mut log| log.write_all(line.as_bytes())).context("write down the call")?;
    Ok(call)
}

fn record_and_lease(directory: &Path) -> Result<Value> {
    if std::env::var("CNI_COMMAND").is_ok_and(|command| command == "VERSION") {
        return Ok(json!({"cniVersion": VERSIONS[3], "supportedVersions": VERSIONS}));
    }
    let call = record(directory)?;
    if call.command != "ADD" {
        return Ok(Value::Null);
    }
    let config: Value = serde_json::from_str(&call.stdin).context("read the configuration")?;
    let container = call.env.get("CNI_CONTAINERID").map_or("", String::as_str);
    Ok(lease(container, config["cniVersion"].as_str().unwrap_or_default()))
}

/// The address, with the length of its subnet, that the recorder hands out to a container.
pub(crate) fn address(container: &str) -> String {
    let sum = container.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("10.77.0.{}/24", 2 + sum % 250)
}

/// An IPAM result: the address depends on the container alone.
fn lease(container: &str, version: &str) -> Value {
    let mut ip = json!({"address": address(container), "gateway": "10.77.0.1"});
    if version < "1.0.0" {
        ip["version"] = json!("4");
    }
    json!({"cniVersion": version, "ips": [ip], "routes": [{"dst": "0.0.0.0/0"}], "dns": {}})
}

/// Writes down the call, then becomes the observed program with the same input.
fn observe(directory: &Path) -> Result<Value> {
    let call = record(directory)?;
    let (input, mut feed) = std::io::pipe().context("make a pipe")?;
    feed.write_all(call.stdin.as_bytes()).context("pass the configuration on")?;
    drop(feed);
    let error = Command::new(directory.join(OBSERVED)).stdin(input).exec();
    Err(error).context("become the observed plugin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_has_the_form_of_its_version_and_no_interfaces() {
        assert_eq!(lease("c1", "0.4.0")["ips"][0]["version"], "4");
        let lease_100 = lease("c1", "1.0.0");
        assert!(lease_100["ips"][0].get("version").is_none() && lease_100.get("interfaces").is_none());
        assert_eq!(lease_100["ips"], lease("c1", "1.1.0")["ips"]);
    }

    #[test]
    fn calls_are_read_in_their_order_and_can_be_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(calls(directory.path()).expect("no record").is_empty());
        let line = |command: &str| {
            let call = Call { command: command.to_owned(), env: BTreeMap::new(), stdin: String::new() };
            serde_json::to_string(&call).expect("JSON") + "\n"
        };
        std::fs::write(directory.path().join(LOG), line("ADD") + &line("DEL")).expect("written");
        let commands: Vec<_> =
            calls(directory.path()).expect("a record").into_iter().map(|call| call.command).collect();
        assert_eq!(commands, ["ADD", "DEL"]);
        forget(directory.path()).expect("forgotten");
        assert!(calls(directory.path()).expect("no record").is_empty());
    }
}
