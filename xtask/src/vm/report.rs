// SPDX-License-Identifier: Apache-2.0
//! What init says on the console, and what to think of it.

use anyhow::bail;

/// With this begins every line that is meant for us.
pub(super) const MARK: &str = "vm:";

/// How the checks in the machine went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Release of the kernel.
    pub(super) kernel: Option<String>,
    /// Name and exit code of every check that ended.
    pub(super) ended: Vec<(String, i32)>,
    /// Lines of the file that was asked for.
    pub(super) lines: Vec<String>,
}

impl Report {
    /// Reads a console.
    pub(super) fn read(console: &str) -> Self {
        let mut report = Self::default();
        for line in console.lines() {
            // What a check printed without an end of line may stand before.
            let Some((_, said)) = line.split_once(MARK) else { continue };
            match said.trim_start().split_once(' ') {
                Some(("kernel", release)) => report.kernel = Some(release.to_owned()),
                Some(("end", rest)) => {
                    if let Some((name, code)) = rest.rsplit_once(' ') {
                        report.ended.push((name.to_owned(), code.parse().unwrap_or(-1)));
                    }
                }
                Some(("line", line)) => report.lines.push(line.to_owned()),
                _ => {}
            }
        }
        report
    }

    /// Whether all checks ended well.
    ///
    /// # Errors
    /// Names those that did not.
    pub(super) fn judge(&self, checks: &[&str]) -> anyhow::Result<()> {
        if !self.kernel.as_deref().is_some_and(|release| release.starts_with("6.1.")) {
            bail!("the machine did not come up with a kernel 6.1");
        }
        let went_well = |name: &str| self.ended.iter().any(|(ended, code)| ended == name && *code == 0);
        let failed: Vec<&str> = checks.iter().copied().filter(|name| !went_well(name)).collect();
        if failed.is_empty() { Ok(()) } else { bail!("failed on kernel 6.1: {}", failed.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.1] Linux\nvm: kernel 6.1.0-41-cloud-amd64\nvm: start one\nrunning\nvm: end one 0\n\
                           vm: start two words\nno end of linevm: end two words 101\nvm: line from_pod 12\n";

    #[test]
    fn what_init_says_is_told_from_what_checks_print() {
        let report = Report::read(CONSOLE);
        assert_eq!(report.kernel.as_deref(), Some("6.1.0-41-cloud-amd64"));
        assert_eq!(report.ended, [("one".to_owned(), 0), ("two words".to_owned(), 101)]);
        assert_eq!(report.lines, ["from_pod 12"]);
    }

    #[test]
    fn a_check_that_failed_or_did_not_end_is_named() {
        let report = Report::read(CONSOLE);
        report.judge(&["one"]).expect("it went well");
        let error = report.judge(&["one", "two words", "three"]).expect_err("two did not");
        assert_eq!(error.to_string(), "failed on kernel 6.1: two words, three");
    }

    #[test]
    fn a_machine_that_did_not_come_up_is_a_failure() {
        assert!(Report::read("Kernel panic\n").judge(&[]).is_err());
        assert!(Report::read("vm: kernel 6.18.2\n").judge(&[]).is_err());
    }
}
