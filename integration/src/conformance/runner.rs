// SPDX-License-Identifier: Apache-2.0

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use super::expect::Miss;
use super::report::{Failure, Report, Verdict};
use super::scene::Scene;
use super::schema::{Action, Case, CaseFile, MalformedCase};
use super::site::{Kind, Plugins, World};
use super::{step, words};
use crate::lab::Binaries;

pub use super::report::Tally;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The case file.
    pub cases: PathBuf,
    /// Ids of the cases to run; all when empty.
    pub only: Vec<String>,
    /// Whether the rest runs after a failure.
    pub after_failure: AfterFailure,
}

/// What to do after a case failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AfterFailure {
    /// Run the rest.
    #[default]
    Continue,
    /// End.
    Stop,
}

/// Runs a file of cases and tells on `out` how it goes.
///
/// # Errors
/// When the file cannot be read, no lab can be made, or a lab cannot be removed.
pub fn run(options: &Options, out: impl Write) -> Result<Tally> {
    let text = std::fs::read_to_string(&options.cases)
        .with_context(|| format!("read {}", options.cases.display()))?;
    let file = CaseFile::parse(&text).with_context(|| format!("read {}", options.cases.display()))?;
    let binaries = Binaries::find()?;
    let plugins = Plugins::create(&binaries)?;
    let mut world = World::default();
    let mut report = Report::new(out);
    for case in &file.cases {
        let (id, name) = match case {
            Ok(case) => (&case.id, case.name.as_str()),
            Err(error) => (&error.id, "not of the schema"),
        };
        if !options.only.is_empty() && !options.only.contains(id) {
            continue;
        }
        let started = Instant::now();
        let verdict = match case {
            Ok(case) => judge(case, &mut world, &plugins, &file.plugin.supported_versions),
            Err(error) => malformed(error),
        };
        report.case(id, name, &verdict, started.elapsed())?;
        if options.after_failure == AfterFailure::Stop && verdict != Verdict::Passed {
            break;
        }
    }
    world.close().context("remove the labs")?;
    Ok(report.close()?)
}

fn malformed(error: &MalformedCase) -> Verdict {
    let miss = Miss::new(&error.field, "a field of the schema", &error.reason);
    Verdict::Failed(
        vec![Failure { version: None, place: "the case file".to_owned(), misses: vec![miss] }],
        None,
    )
}

fn judge(case: &Case, world: &mut World, plugins: &Plugins, supported: &[String]) -> Verdict {
    let unknown = words::unknown(case);
    if !unknown.is_empty() {
        return Verdict::Unknown(unknown);
    }
    let failures: Vec<Failure> =
        case.versions.iter().filter_map(|version| once(case, version, world, plugins, supported)).collect();
    if failures.is_empty() { Verdict::Passed } else { Verdict::Failed(failures, Some(case.basis)) }
}

/// Runs a case with one version, to its end or its first step that is not as it says.
fn once(
    case: &Case,
    version: &str,
    world: &mut World,
    plugins: &Plugins,
    supported: &[String],
) -> Option<Failure> {
    let failure = |place: &str, misses: Vec<Miss>| Failure {
        version: Some(version.to_owned()),
        place: place.to_owned(),
        misses,
    };
    let broken = |place: &str, error: anyhow::Error| {
        failure(place, vec![Miss::new("the run", "to be possible", format!("{error:#}"))])
    };
    let kind = Kind::of(case);
    let site = match world.site(kind) {
        Ok(site) => site,
        Err(error) => return Some(broken("the lab", error)),
    };
    let mut scene = match Scene::set(site, plugins, version, supported) {
        Ok(scene) => scene,
        Err(error) => {
            world.abandon(kind);
            return Some(broken("the lab", error));
        }
    };
    let mut found = None;
    for (index, step) in case.steps.iter().enumerate() {
        let place = place(index, &step.action);
        found = match step::run(step, &mut scene, supported) {
            Ok(misses) if misses.is_empty() => continue,
            Ok(misses) => Some(failure(&place, misses)),
            Err(error) => Some(broken(&place, error)),
        };
        break;
    }
    if let Err(error) = scene.close() {
        world.abandon(kind);
        let left = Miss::new("afterwards", "the lab as it was before the case", format!("{error:#}"));
        found.get_or_insert_with(|| failure("the end", Vec::new())).misses.push(left);
    }
    found
}

fn place(index: usize, action: &Action) -> String {
    let what = match action {
        Action::Call { env, .. } => env.get("CNI_COMMAND").map_or("no command", String::as_str),
        Action::File { .. } => "file",
        Action::Runtime { .. } => "runtime",
    };
    format!("step {} ({what})", index + 1)
}
