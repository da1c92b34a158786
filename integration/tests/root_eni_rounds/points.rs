// SPDX-License-Identifier: Apache-2.0
//! Every named step at which a program can die, read from the sources: there is no list that one could be missing from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Rooms of the programs that die.
const ROOMS: [&str; 3] = ["operator", "agent", "cni"];
/// How names of steps begin.
const PROGRAMS: [&str; 3] = ["operator.", "agent.", "plugin."];
/// What passes a step.
const PASS: &str = "failpoint::pass";

/// The names of all steps.
///
/// # Errors
/// When a source cannot be read, or passes a step by a name that is not whole in it.
pub(crate) fn named() -> Result<BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace has a folder")?;
    let mut points = BTreeSet::new();
    for room in ROOMS {
        for path in sources(&root.join(room).join("src"))? {
            let text = std::fs::read_to_string(&path)?;
            points.extend(in_source(&text).with_context(|| format!("read {}", path.display()))?);
        }
    }
    ensure!(points.iter().any(|point| point.starts_with("operator.eni.")), "no sources: {points:?}");
    Ok(points)
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn in_source(text: &str) -> Result<BTreeSet<String>> {
    for (_, after) in text.match_indices(PASS).map(|(at, _)| text.split_at(at + PASS.len())) {
        let Some((_, argument)) = after.split_once('(') else { continue };
        let argument = argument.trim_start();
        let is_name = PROGRAMS.iter().any(|program| argument.starts_with(&format!("\"{program}")));
        let is_variable = argument.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
        let line = argument.lines().next().unwrap_or_default();
        ensure!(is_name || is_variable, "a step must be passed by its whole name: {line}");
    }
    let mut points = BTreeSet::new();
    for program in PROGRAMS {
        for (_, from) in text.match_indices(&format!("\"{program}")).map(|(at, _)| text.split_at(at + 1)) {
            let (name, _) = from.split_once('"').unwrap_or((from, ""));
            ensure!(!name.contains('{'), "the name of a step must be whole: {name}");
            let is_word =
                |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if name.split('.').count() > 2 && name.split('.').all(is_word) {
                points.insert(name.to_owned());
            }
        }
    }
    Ok(points)
}

#[test]
fn a_step_is_found_by_its_name_and_a_name_that_is_made_is_refused() {
    let found = in_source(
        r#"failpoint::pass("agent.x.before_y", key)?; let of = ["plugin.add.z", "agent.sock"]; failpoint::pass_alive(of)"#,
    );
    let names: Vec<String> = found.expect("readable").into_iter().collect();
    assert_eq!(names, ["agent.x.before_y", "plugin.add.z"]);
    assert!(in_source(r#"failpoint::pass(&format!("x"))"#).is_err());
    assert!(in_source(r#"failpoint::pass("x.y.z")"#).is_err());
    assert!(in_source(r#"let name = format!("operator.eni.before.{call}");"#).is_err());
}
