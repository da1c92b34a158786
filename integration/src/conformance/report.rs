// SPDX-License-Identifier: Apache-2.0

use std::io::{self, Write};
use std::time::Duration;

use super::expect::Miss;
use super::schema::Basis;

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything was as it says.
    Passed,
    /// Something was not; what backs the case is told beside it.
    Failed(Vec<Failure>, Option<Basis>),
    /// It has words without code here.
    Unknown(Vec<String>),
}

/// Where a case failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Version of the specification with which it ran, where it ran.
    pub(crate) version: Option<String>,
    /// The step, for example `step 2 (DEL)`.
    pub(crate) place: String,
    /// What was not as it should be.
    pub(crate) misses: Vec<Miss>,
}

/// How many cases ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// As they should.
    pub passed: usize,
    /// Otherwise.
    pub failed: usize,
    /// Not run for want of words.
    pub unknown: usize,
}

impl Tally {
    /// Whether every case was run and passed.
    pub fn is_clean(self) -> bool {
        self.failed == 0 && self.unknown == 0
    }
}

/// Tells a person how the cases go, line by line.
#[derive(Debug)]
pub(crate) struct Report<W> {
    out: W,
    tally: Tally,
    unknown: Vec<(String, String)>,
    failed: Vec<String>,
}

impl<W: Write> Report<W> {
    /// Writes to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self { out, tally: Tally::default(), unknown: Vec::new(), failed: Vec::new() }
    }

    /// Tells how a case ended.
    ///
    /// # Errors
    /// When nothing can be written.
    pub(crate) fn case(&mut self, id: &str, name: &str, verdict: &Verdict, took: Duration) -> io::Result<()> {
        let word = match verdict {
            Verdict::Passed => {
                self.tally.passed += 1;
                "ok     "
            }
            Verdict::Failed(..) => {
                self.tally.failed += 1;
                self.failed.push(id.to_owned());
                "FAILED "
            }
            Verdict::Unknown(_) => {
                self.tally.unknown += 1;
                "UNKNOWN"
            }
        };
        writeln!(self.out, "{word} {id}  {name}  ({:.1} s)", took.as_secs_f64())?;
        match verdict {
            Verdict::Passed => {}
            Verdict::Failed(failures, basis) => {
                for failure in failures {
                    self.failure(failure)?;
                }
                if let Some(basis) = basis {
                    writeln!(self.out, "        basis: {basis}")?;
                }
            }
            Verdict::Unknown(words) => {
                for word in words {
                    writeln!(self.out, "        unknown word: {word}")?;
                    self.unknown.push((id.to_owned(), word.clone()));
                }
            }
        }
        self.out.flush()
    }

    fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        let version = failure.version.as_ref().map_or(String::new(), |version| format!("{version}, "));
        for miss in &failure.misses {
            writeln!(self.out, "        {version}{}: {}", failure.place, miss.what)?;
            writeln!(self.out, "            expected {}", indented(&miss.expected))?;
            writeln!(self.out, "            got      {}", indented(&miss.got))?;
        }
        Ok(())
    }

    /// Tells the sum: its last line is `N passed, M failed`.
    ///
    /// # Errors
    /// When nothing can be written.
    pub(crate) fn close(mut self) -> io::Result<Tally> {
        writeln!(self.out)?;
        if !self.failed.is_empty() {
            writeln!(self.out, "failed: {}", self.failed.join(" "))?;
        }
        if !self.unknown.is_empty() {
            let words: Vec<_> = self.unknown.iter().map(|(id, word)| format!("{word:?} ({id})")).collect();
            writeln!(
                self.out,
                "{} {} not run for unknown words: {}",
                self.tally.unknown,
                if self.tally.unknown == 1 { "case" } else { "cases" },
                words.join(", ")
            )?;
        }
        writeln!(self.out, "{} passed, {} failed", self.tally.passed, self.tally.failed)?;
        self.out.flush()?;
        Ok(self.tally)
    }
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n                     ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_sum_and_unknown_words_come_before_it() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        let miss = Miss::new("exit", 0, "status 1");
        let failure = Failure {
            version: Some("1.0.0".to_owned()),
            place: "step 1 (ADD)".to_owned(),
            misses: vec![miss],
        };
        let second = Duration::from_secs(1);
        report.case("CN1", "one", &Verdict::Passed, second).expect("written");
        report
            .case("CN2", "two", &Verdict::Failed(vec![failure], Some(Basis::Spec)), second)
            .expect("written");
        report.case("CN3", "three", &Verdict::Unknown(vec!["dance".to_owned()]), second).expect("written");
        let tally = report.close().expect("written");
        assert_eq!(tally, Tally { passed: 1, failed: 1, unknown: 1 });
        assert!(!tally.is_clean());
        let text = String::from_utf8(out).expect("text");
        let mut lines = text.lines().rev();
        assert_eq!(lines.next(), Some("1 passed, 1 failed"));
        assert_eq!(lines.next(), Some("1 case not run for unknown words: \"dance\" (CN3)"));
        assert!(
            text.contains("1.0.0, step 1 (ADD): exit\n            expected 0\n            got      status 1")
        );
    }
}
