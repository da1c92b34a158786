// SPDX-License-Identifier: Apache-2.0
//! One step of a case: run it, judge it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use serde_json::{Value, json};

use super::attachment::Made;
use super::expect::{self, Facts, Miss};
use super::observe;
use super::result::{self, Actual};
use super::runtime::Runtime;
use super::scene::{Coming, Scene};
use super::schema::{Action, Expect, FileExpect, Repeat, RuntimeExpect, Step};
use super::words;
use super::{conflist, pattern, recorder};
use crate::lab::Wait;

/// A pool that a case empties has no more addresses than this.
const MANY: usize = 32;
/// How long an agent may take from its start to its configuration file.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a step and gives what is not as it says.
///
/// # Errors
/// When the step cannot be run at all.
pub(crate) fn run(step: &Step, scene: &mut Scene<'_>, supported: &[String]) -> Result<Vec<Miss>> {
    if let Action::Call { env, expect, .. } = &step.action {
        let command = env.get("CNI_COMMAND").cloned().unwrap_or_default();
        scene.coming = Coming { command, effects: expect.effects.clone() };
    }
    for word in &step.pre {
        let prepare = words::preparation(word).context("unknown words are sorted out before")?;
        prepare(scene).with_context(|| format!("prepare: {word}"))?;
    }
    match &step.action {
        Action::Call { env, stdin, expect } => call(scene, env, stdin, expect, supported),
        Action::File { pattern, expect } => file(scene, pattern, expect, supported),
        Action::Runtime { conflist, expect } => runtime(scene, conflist, expect),
    }
}

fn call(
    scene: &mut Scene<'_>,
    env: &BTreeMap<String, String>,
    stdin: &Value,
    expect: &Expect,
    supported: &[String],
) -> Result<Vec<Miss>> {
    let single = |scene: &mut Scene<'_>| -> Result<(BTreeMap<String, String>, Value)> {
        let expanded = env
            .iter()
            .map(|(name, value)| Ok((name.clone(), scene.variables.interpolate(value)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        if let Some(path) = expanded.get("CNI_NETNS") {
            scene.ensure_meant_namespace(path)?;
        }
        Ok((expanded, scene.variables.expand(stdin)?))
    };
    scene.calls.clear();
    match (expect.parallel, &expect.repeat) {
        (Some(count), _) => {
            let jobs = (1..=count).map(|number| {
                scene.variables.set("i", number.to_string());
                single(scene)
            });
            let jobs = jobs.collect::<Result<Vec<_>>>()?;
            scene.before = scene.look()?;
            scene.calls = in_parallel(scene, jobs)?;
            for made in scene.calls.clone() {
                scene.note(&made);
            }
        }
        (None, Some(repeat)) => {
            scene.before = scene.look()?;
            let most = match repeat {
                Repeat::Times(times) => *times,
                Repeat::Words(_) => MANY,
            };
            for number in 1..=most {
                scene.variables.set("i", number.to_string());
                let (env, stdin) = single(scene)?;
                let made = scene.call(env, &stdin)?;
                let stop = !made.outcome.succeeded() && matches!(repeat, Repeat::Words(_));
                scene.calls.push(made);
                if stop {
                    break;
                }
            }
        }
        (None, None) => {
            let (env, stdin) = single(scene)?;
            scene.before = scene.look()?;
            let made = scene.call(env, &stdin)?;
            scene.calls.push(made);
        }
    }
    let mut misses = emptied(scene, expect);
    misses.extend(judge(scene, expect, supported)?);
    if let (Some(name), Some(made)) = (&expect.save, scene.calls.first()) {
        match made.outcome.json() {
            Ok(value) => scene.variables.set(name, value),
            Err(error) => misses.push(Miss::new("save", "JSON", error)),
        }
    }
    Ok(misses)
}

fn in_parallel(scene: &Scene<'_>, jobs: Vec<(BTreeMap<String, String>, Value)>) -> Result<Vec<Made>> {
    let launcher = scene.launcher();
    let launcher = &launcher;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            jobs.into_iter().map(|(env, stdin)| scope.spawn(move || launcher.run(env, &stdin))).collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(made) => made,
                Err(_) => bail!("the thread of a call panicked"),
            })
            .collect()
    })
}

/// A pool that was to be emptied is empty when ADD says so.
fn emptied(scene: &Scene<'_>, expect: &Expect) -> Vec<Miss> {
    if !matches!(expect.repeat, Some(Repeat::Words(_))) {
        return Vec::new();
    }
    let code = scene.calls.last().and_then(|made| made.outcome.json().ok()?["code"].as_i64());
    if code.is_some_and(|code| code == 11 || code >= 100) {
        return Vec::new();
    }
    let got = scene.calls.last().map_or(String::new(), |made| made.outcome.to_string());
    vec![Miss::new("repeat", "ADD fails with code 11 or 100+ when the pool is empty", got)]
}

/// Judges what the step ran by an expectation and its alternatives.
fn judge(scene: &mut Scene<'_>, expect: &Expect, supported: &[String]) -> Result<Vec<Miss>> {
    let expect = expanded(scene, expect)?;
    let mut misses = Vec::new();
    if let Some(each) = &expect.each {
        for made in scene.calls.clone() {
            misses.extend(protocol(&made, each, supported));
        }
    }
    // Of calls that go on until one fails, none has to do what the others do.
    if !matches!(expect.repeat, Some(Repeat::Words(_))) {
        for made in scene.calls.clone() {
            misses.extend(protocol(&made, &expect, supported));
        }
    }
    if let [made] = scene.calls.clone().as_slice() {
        misses.extend(results(scene, made, &expect)?);
    }
    if misses.is_empty() {
        misses.extend(expect.effects.iter().filter_map(|word| words::look(word, scene)));
    }
    let mut alternatives = Vec::new();
    for alternative in &expect.any_of {
        let missed = judge(scene, alternative, supported)?;
        if missed.is_empty() {
            return Ok(misses);
        }
        alternatives.extend(missed);
    }
    misses.extend(alternatives);
    Ok(misses)
}

/// The expectation with its variables replaced; words stay as they are.
fn expanded(scene: &Scene<'_>, expect: &Expect) -> Result<Expect> {
    let mut expect = expect.clone();
    for value in [&mut expect.stdout, &mut expect.result].into_iter().flatten() {
        *value = scene.variables.expand(value)?;
    }
    for text in expect.msg_contains.iter_mut().chain(&mut expect.details_contains) {
        *text = scene.variables.interpolate(text)?;
    }
    Ok(expect)
}

fn protocol(made: &Made, expect: &Expect, supported: &[String]) -> Vec<Miss> {
    expect::judge(expect, &made.outcome, Facts { config: made.config.as_ref(), supported })
}

fn results(scene: &mut Scene<'_>, made: &Made, expect: &Expect) -> Result<Vec<Miss>> {
    let mut misses = Vec::new();
    let printed = made.outcome.json().unwrap_or_default();
    if let Some(shape) = &expect.result {
        misses.extend(result::compare(shape, &printed, &actual(scene, made)));
    }
    if expect.result_dns_equals_config == Some(true) {
        let wanted = made.config.as_ref().map_or(Value::Null, |config| config["dns"].clone());
        if printed["dns"] != wanted {
            misses.push(Miss::new("result_dns_equals_config", wanted, &printed["dns"]));
        }
    }
    if let Some(phrase) = &expect.result_equals {
        misses.extend(equals(scene, made, phrase, &printed)?);
    }
    if expect.same_order_as_check == Some(true) {
        misses.extend(same_order(scene, made, &printed)?);
    }
    Ok(misses)
}

/// What the container interface of a call is really like; empty where it is not there.
fn actual(scene: &Scene<'_>, made: &Made) -> Actual {
    let look = || -> Result<Actual> {
        let namespace = scene.namespace(made.var("CNI_NETNS"))?;
        let ifname = made.var("CNI_IFNAME");
        let links = observe::links(namespace)?;
        let link = links.get(ifname).context("the interface is not there")?;
        Ok(Actual { addresses: observe::addresses(namespace, ifname)?, mac: link.mac.clone() })
    };
    look().unwrap_or_default()
}

/// Compares a chained result with what it was given: every entry in its order; what is new must be real.
fn equals(scene: &Scene<'_>, made: &Made, phrase: &str, printed: &Value) -> Result<Vec<Miss>> {
    let wanted = if phrase.starts_with("${") {
        scene.variables.expand(&json!(phrase))?
    } else {
        made.config.as_ref().map_or(Value::Null, |config| config["prevResult"].clone())
    };
    let mut misses = Vec::new();
    for key in ["cniVersion", "dns"] {
        if printed[key] != wanted[key] {
            misses.push(Miss::new(format!("result_equals: {key}"), &wanted[key], &printed[key]));
        }
    }
    if printed["ips"] != wanted["ips"] {
        misses.push(Miss::new("result_equals: ips", &wanted["ips"], &printed["ips"]));
    }
    let host = observe::links(scene.site.host())?;
    let inner = observe::links(scene.namespace(made.var("CNI_NETNS"))?)?;
    for key in ["interfaces", "routes"] {
        let given = wanted[key].as_array().cloned().unwrap_or_default();
        let told = printed[key].as_array().cloned().unwrap_or_default();
        let same =
            told.len() >= given.len() && given.iter().zip(&told).all(|(given, told)| keeps(given, told));
        if !same {
            misses.push(Miss::new(format!("result_equals: {key}"), &wanted[key], &printed[key]));
        }
        for more in told.iter().skip(given.len()) {
            let name = more["name"].as_str().unwrap_or_default();
            if key == "routes" || !(host.contains_key(name) || inner.contains_key(name)) {
                misses.push(Miss::new(
                    format!("result_equals: {key}"),
                    "own changes only if really made",
                    more,
                ));
            }
        }
    }
    Ok(misses)
}

/// Whether `told` says everything that `given` says.
fn keeps(given: &Value, told: &Value) -> bool {
    match (given, told) {
        (Value::Object(given), Value::Object(told)) => {
            given.iter().all(|(key, value)| told.get(key) == Some(value))
        }
        (given, told) => given == told,
    }
}

/// The roles of the interfaces come in the same order for another container, and every index of the addresses leads
/// to the container's interface.
fn same_order(scene: &mut Scene<'_>, made: &Made, printed: &Value) -> Result<Vec<Miss>> {
    let roles = |result: &Value| -> Vec<bool> {
        let list = result["interfaces"].as_array().cloned().unwrap_or_default();
        list.iter().map(|one| one["sandbox"].as_str().is_some_and(|path| !path.is_empty())).collect()
    };
    let mut misses = Vec::new();
    let container =
        result::container_interface(printed, made.var("CNI_IFNAME")).map(|(index, _)| index as u64);
    for ip in printed["ips"].as_array().into_iter().flatten() {
        if container.is_none() || ip["interface"].as_u64() != container {
            misses.push(Miss::new("same_order_as_check: ips.interface", format!("{container:?}"), ip));
        }
    }
    let second = format!("{}-again", made.var("CNI_CONTAINERID"));
    let path = format!("{}-again", made.var("CNI_NETNS"));
    scene.ensure_namespace(&path)?;
    let config = scene.podnet();
    let again = scene.call(scene.container_env("ADD", &second, &path), &config)?;
    let other = again.outcome.json().unwrap_or_default();
    if roles(&other) != roles(printed) {
        misses.push(Miss::new("same_order_as_check", &printed["interfaces"], &other["interfaces"]));
    }
    scene.call(scene.container_env("DEL", &second, &path), &config)?;
    Ok(misses)
}

/// Looks at the configuration file that the agent writes: it comes by a rename, whole, and not before ADD is served.
fn file(scene: &mut Scene<'_>, path: &str, expect: &FileExpect, supported: &[String]) -> Result<Vec<Miss>> {
    let name = Path::new(path).file_name().context("the path names no file")?.to_string_lossy().into_owned();
    let folder = scene.site.node().cni_conf_dir();
    let written = match &expect.written {
        Some(_) => watched(scene, &folder, &name).err().map(|error| format!("{error:#}")),
        None => None,
    };
    let mut misses: Vec<Miss> =
        written.into_iter().map(|got| Miss::new("written", conflist::WRITTEN_ATOMICALLY, got)).collect();
    let Some(found) = find(&folder, &name)? else {
        misses.push(Miss::new("file", path, "no such file"));
        return Ok(misses);
    };
    misses.extend(conflist::judge(expect, &fs::read_to_string(found)?, supported));
    Ok(misses)
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|found| pattern::glob(name, &found.to_string_lossy())) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Starts the agent anew without its file, and looks how the file comes.
fn watched(scene: &mut Scene<'_>, folder: &Path, name: &str) -> Result<()> {
    scene.site.stop_agent()?;
    while let Some(old) = find(folder, name)? {
        fs::remove_file(old)?;
    }
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let watch = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&events, folder, watch)?;
    scene.site.start_agent_oddly(|options| options.wait = Wait::Nothing)?;
    let deadline = Instant::now() + PATIENCE;
    let came = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no {name} after {PATIENCE:?}");
        poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&left.try_into()?))?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        let mut found = None;
        while let Ok(event) = reader.next() {
            let about = event.file_name().map(|name| name.to_string_lossy().into_owned());
            if about.is_some_and(|about| pattern::glob(name, &about)) {
                found = Some(event.events());
                break;
            }
        }
        if let Some(found) = found {
            break found;
        }
    };
    ensure!(came.contains(inotify::ReadFlags::MOVED_TO), "the file came by {came:?} and not by a rename");
    let found = find(folder, name)?.context("the file is gone again")?;
    let whole: Value = serde_json::from_slice(&fs::read(found)?).context("read the file as it came")?;
    ensure!(whole.is_object(), "the file is {whole}");
    // At this moment a runtime may call ADD.
    let (container, path) = (scene.text("CID")?, scene.text("NS")?);
    scene.ensure_namespace(&path)?;
    let config = scene.podnet();
    let made = scene.call(scene.container_env("ADD", &container, &path), &config)?;
    ensure!(made.outcome.succeeded(), "ADD right after the file came: {}", made.outcome);
    Ok(())
}

/// Lets the runtime work through a list and looks which commands reached the plugin.
fn runtime(scene: &mut Scene<'_>, conflist: &Value, expect: &RuntimeExpect) -> Result<Vec<Miss>> {
    let conflist = scene.variables.expand(conflist)?;
    let folder = scene.plugins.observing();
    let (container, path) = (scene.text("CID")?, scene.text("NS")?);
    scene.ensure_namespace(&path)?;
    recorder::forget(&folder)?;
    let env = scene.agent_env().into();
    let mut runtime = Runtime::new(conflist, folder.clone(), env, scene.site.host());
    let mut work = || -> Result<()> {
        runtime.add(&container, &path, "eth0")?;
        runtime.check(&container, &path, "eth0")?;
        runtime.gc(&[(container.as_str(), "eth0")])?;
        runtime.del(&container, &path, "eth0")
    };
    let worked = work();
    scene.attempt(&container);
    worked?;
    let called: Vec<String> = recorder::calls(&folder)?.into_iter().map(|call| call.command).collect();
    let mut misses = Vec::new();
    for command in &expect.runtime_does_not_call {
        if called.contains(command) {
            misses.push(Miss::new("runtime_does_not_call", command, format!("{called:?}")));
        }
    }
    for command in expect.runtime_calls.iter().map(String::as_str).chain(["ADD", "DEL"]) {
        if !called.iter().any(|called| called == command) {
            misses.push(Miss::new("runtime calls", command, format!("{called:?}")));
        }
    }
    Ok(misses)
}
