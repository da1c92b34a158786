// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::{self, Write};

use tracing::warn;

/// Tells whoever started the program how far it is, a line each, on a descriptor that was passed on (`--ready-fd`).
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// Opens descriptor `fd` of this process anew, so that its owner stays what it was; without one, nobody is told.
    ///
    /// # Errors
    /// There is no such descriptor, or it cannot be written to.
    pub fn open(fd: Option<i32>) -> io::Result<Self> {
        let open = |fd| File::options().append(true).open(format!("/proc/self/fd/{fd}"));
        Ok(Self(fd.map(open).transpose()?))
    }

    /// Writes a line; one who no longer listens is no error.
    pub fn say(&mut self, word: &str) {
        if let Some(file) = &mut self.0
            && let Err(error) = writeln!(file, "{word}")
        {
            warn!(%error, "nobody listens for readiness");
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn each_word_is_a_line_and_nobody_need_listen() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut ready = Ready::open(Some(writer.as_raw_fd())).expect("opened");
        drop(writer);
        for word in ["serving", "ready"] {
            ready.say(word);
        }
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(
            [lines.next(), lines.next()].map(|line| line.expect("a line").expect("read")),
            ["serving", "ready"]
        );
        drop(lines);
        for word in ["to nobody", "again"] {
            ready.say(word);
        }
        assert!(ready.0.is_none());
        Ready::open(None).expect("no descriptor is none").say("ready");
        assert!(Ready::open(Some(-1)).is_err());
    }
}
