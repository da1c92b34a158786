// SPDX-License-Identifier: Apache-2.0

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::print::{Paint, Table};

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Ours over the peer's is at most this.
    RatioAtMost(f64),
    /// Ours over the peer's is at least this.
    RatioAtLeast(f64),
    /// Ours is at most this.
    AtMost(f64),
    /// It is told, and that is all.
    None,
}

/// One figure, made of samples.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Ours.
    pub ours: f64,
    /// Who the peer is, and its figure.
    pub peer: Option<(&'static str, f64)>,
    /// What it is to be.
    pub aim: Aim,
    /// What ours was made of.
    pub samples: Vec<f64>,
    /// What the peer's was made of.
    pub peer_samples: Vec<f64>,
}

impl Measure {
    /// A figure beside a peer's, both medians of their samples.
    pub fn beside(
        name: String,
        unit: &'static str,
        ours: &[f64],
        peer: (&'static str, &[f64]),
        aim: Aim,
    ) -> Self {
        Self {
            name,
            unit,
            ours: median(ours),
            peer: Some((peer.0, median(peer.1))),
            aim,
            samples: ours.to_vec(),
            peer_samples: peer.1.to_vec(),
        }
    }

    /// A figure of ours alone, the median of its samples.
    pub fn alone(name: &str, unit: &'static str, ours: &[f64], aim: Aim) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            ours: median(ours),
            peer: None,
            aim,
            samples: ours.to_vec(),
            peer_samples: Vec::new(),
        }
    }

    /// Ours over the peer's.
    pub fn ratio(&self) -> Option<f64> {
        self.peer.map(|(_, peer)| self.ours / peer)
    }

    /// Whether the aim is met, if there is one.
    pub fn met(&self) -> Option<bool> {
        match self.aim {
            Aim::RatioAtMost(limit) => self.ratio().map(|ratio| ratio <= limit),
            Aim::RatioAtLeast(limit) => self.ratio().map(|ratio| ratio >= limit),
            Aim::AtMost(limit) => Some(self.ours <= limit),
            Aim::None => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "-",
        }
    }
}

/// All figures of one bench.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    note: &'static str,
    measures: Vec<Measure>,
}

impl Report {
    /// A report without figures; `note` tells a reader how they are made.
    pub fn new(name: &'static str, note: &'static str) -> Self {
        Self { name, note, measures: Vec::new() }
    }

    /// Adds a figure.
    pub fn add(&mut self, measure: Measure) {
        self.measures.push(measure);
    }

    /// Prints the table, writes the file, and ends with how many aims are met.
    ///
    /// # Errors
    /// When the file or `out` cannot be written.
    pub fn tell(&self, paint: Paint, out: &mut impl Write) -> Result<()> {
        writeln!(out, "{}", paint.bold(&format!("bench {}", self.name)))?;
        writeln!(out, "{}", paint.dim(self.note))?;
        let mut table = Table::new(["measure", "ours", "peer", "ratio", "aim", "verdict"]);
        for measure in &self.measures {
            let value = |value: f64| format!("{} {}", figure(value), measure.unit);
            table.row([
                measure.name.clone(),
                value(measure.ours),
                measure.peer.map_or("-".to_owned(), |(who, peer)| format!("{} ({who})", value(peer))),
                measure.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
                aim(measure),
                measure.verdict().to_owned(),
            ]);
        }
        write!(out, "{}", table.lines(paint))?;
        writeln!(out, "{}", self.write()?.display())?;
        let count = |wanted| self.measures.iter().filter(|measure| measure.met() == Some(wanted)).count();
        Ok(writeln!(out, "{} aims met, {} missed", count(true), count(false))?)
    }

    /// Writes `bench/NAME.json` in the build's target folder.
    fn write(&self) -> Result<PathBuf> {
        let own = std::env::current_exe().context("find the running program")?;
        let target =
            own.parent().and_then(|profile| profile.parent()).context("the program is in target/PROFILE")?;
        let path = target.join("bench").join(format!("{}.json", self.name));
        std::fs::create_dir_all(target.join("bench"))?;
        let measures: Vec<_> = self
            .measures
            .iter()
            .map(|measure| {
                let mut value = json!(measure);
                value["peer"] =
                    json!(measure.peer.map(|(name, figure)| json!({"name": name, "figure": figure})));
                value["ratio"] = json!(measure.ratio());
                value["verdict"] = json!(measure.verdict());
                value
            })
            .collect();
        let text = serde_json::to_string_pretty(
            &json!({"bench": self.name, "note": self.note, "measures": measures}),
        )?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

fn aim(measure: &Measure) -> String {
    match measure.aim {
        Aim::RatioAtMost(limit) => format!("ratio ≤ {limit:.2}"),
        Aim::RatioAtLeast(limit) => format!("ratio ≥ {limit:.2}"),
        Aim::AtMost(limit) => format!("≤ {} {}", figure(limit), measure.unit),
        Aim::None => "-".to_owned(),
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The sample in the middle; 0 of none.
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50)
}

/// The smallest sample that is not below `percent` of all; 0 of none.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100u8).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 50), 50.0);
        assert_eq!(percentile(&samples, 99), 99.0);
        assert_eq!(percentile(&[3.0], 99), 3.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }

    #[test]
    fn an_aim_is_met_or_missed_by_the_ratio_of_medians() {
        let measure = |aim| Measure::beside("x".into(), "ms", &[9.0, 1.0, 8.0], ("peer", &[10.0]), aim);
        assert_eq!(measure(Aim::RatioAtMost(0.8)).met(), Some(true));
        assert_eq!(measure(Aim::RatioAtLeast(0.9)).met(), Some(false));
        assert_eq!(measure(Aim::AtMost(7.0)).met(), Some(false));
        assert_eq!(measure(Aim::AtMost(8.0)).met(), Some(true));
        assert_eq!(measure(Aim::None).met(), None);
    }
}
