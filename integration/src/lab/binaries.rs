// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// Names the folder of the programs.
const ENV: &str = "RHUMB_BIN_DIR";

const NAMES: [&str; 6] = ["rhumb-agent", "rhumb-bgp", "rhumb-operator", "rhumb-cni", "rhumb", "rhumb-lab"];
/// The program that labs in a cloud need as well.
pub(crate) const DOUBLE: &str = "rhumb-fake-ec2";

/// Where the programs under test are.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Finds them in the folder that `RHUMB_BIN_DIR` names, else in the profile's folder of the running program.
    ///
    /// # Errors
    /// When the running program is in no folder.
    pub fn find() -> Result<Self> {
        if let Some(directory) = std::env::var_os(ENV) {
            return Ok(Self { directory: directory.into() });
        }
        let own = std::env::current_exe().context("find the running program")?;
        let profile = own
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps") && !folder.ends_with("examples"))
            .context("the running program is in no folder")?;
        Ok(Self { directory: profile.to_owned() })
    }

    /// Checks that all are there, and, where they are the build's own, that none is older than its sources.
    ///
    /// # Errors
    /// Names the program and the command that builds it.
    pub fn check(&self) -> Result<()> {
        self.check_each(&NAMES)
    }

    /// Checks them, and EC2's double besides.
    ///
    /// # Errors
    /// Names the program and the command that builds it.
    pub fn check_with_double(&self) -> Result<()> {
        self.check()?;
        self.check_each(&[DOUBLE])
    }

    fn check_each(&self, names: &[&str]) -> Result<()> {
        if let Some(path) = names.iter().map(|name| self.path(name)).find(|path| !path.is_file()) {
            bail!("{}", absent(&path));
        }
        if std::env::var_os(ENV).is_some() {
            return Ok(());
        }
        if let Some(path) = self.stale(names)? {
            bail!(
                "{} is older than a source file of the workspace: run `cargo build --workspace{}` first",
                path.display(),
                if self.directory.ends_with("release") { " --release" } else { "" }
            );
        }
        Ok(())
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The first program that is older than one of the sources listed in the dependency file beside it.
    fn stale(&self, names: &[&str]) -> Result<Option<PathBuf>> {
        for name in names {
            let program = self.path(name);
            let built = modified(&program)?;
            let Ok(listed) = std::fs::read_to_string(program.with_extension("d")) else { continue };
            let sources = listed.split_once(": ").map_or("", |(_, sources)| sources);
            if sources.split_whitespace().any(|source| modified(Path::new(source)).is_ok_and(|at| at > built))
            {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }
}

fn modified(path: &Path) -> Result<SystemTime> {
    let metadata = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(metadata.modified()?)
}

/// What to do about a program that is not there.
pub(super) fn absent(path: &Path) -> String {
    format!(
        "{} is not there: run `cargo build --workspace` first, or name the folder of the programs in {ENV}",
        path.display()
    )
}
