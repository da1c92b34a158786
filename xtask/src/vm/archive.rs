// SPDX-License-Identifier: Apache-2.0
//! The archive that the kernel unpacks as its first file system: cpio in the form "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
/// The console's device numbers and mode.
const CONSOLE: (u32, u32, u32) = (0o020_600, 5, 1);

/// An archive that is being written. Paths start without `/`; folders above them are made.
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
    known: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive with the console in it.
    pub(super) fn new(to: W) -> io::Result<Self> {
        let mut archive = Self { to, entries: 0, known: BTreeSet::new() };
        archive.directory("dev")?;
        archive.entry("dev/console", CONSOLE.0, (CONSOLE.1, CONSOLE.2), &[])?;
        Ok(archive)
    }

    /// Adds a folder.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.filter(|end| *end > 0) {
            if self.known.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that can be executed, unless there is one of that path.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.leaf(path, PROGRAM, content)
    }

    /// Adds a symbolic link, unless there is something of that path.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.leaf(path, LINK, target.as_bytes())
    }

    /// Whether something of that path was added.
    pub(super) fn has(&self, path: &str) -> bool {
        self.known.contains(path)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()
    }

    fn leaf(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.directory(folder)?;
        }
        if self.known.insert(path.to_owned()) { self.entry(path, mode, (0, 0), content) } else { Ok(()) }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        let mut header = String::from("070701");
        // Number, mode, user, group, links, time, length, device, device of the node, length of the name, checksum.
        for field in [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name, 0] {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(path);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.to.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut rest = archive;
        let mut names = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |at: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * at..14 + 8 * at]).expect("digits");
                usize::from_str_radix(digits, 16).expect("a number")
            };
            let (length, name) = (field(6), field(11));
            names.push(String::from_utf8(rest[110..110 + name - 1].to_vec()).expect("text"));
            let content = (110 + name).next_multiple_of(4);
            rest = &rest[content + length.next_multiple_of(4)..];
        }
        names
    }

    #[test]
    fn folders_stand_before_what_is_in_them_and_nothing_is_there_twice() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes).expect("written");
        archive.file("usr/lib/one", b"12345").expect("written");
        archive.file("usr/lib/one", b"other").expect("written");
        archive.link("usr/bin/sh", "busybox").expect("written");
        assert!(archive.has("usr/lib/one") && !archive.has("usr/lib/two"));
        archive.finish().expect("written");
        let wanted =
            ["dev", "dev/console", "usr", "usr/lib", "usr/lib/one", "usr/bin", "usr/bin/sh", "TRAILER!!!"];
        assert_eq!(names(&bytes), wanted);
    }
}
