// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Leadership among the operators of one directory store: held as long as this value, and no longer than the process.
#[derive(Debug)]
pub(crate) struct Leadership {
    _lock: File,
}

/// Waits until no other operator leads. Blocks.
pub(crate) fn wait(store: &Path) -> io::Result<Leadership> {
    fs::create_dir_all(store)?;
    let lock = File::options().create(true).truncate(false).write(true).open(store.join(".operator.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(Leadership { _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_operator_waits_for_the_first() {
        let store = tempfile::tempdir().expect("a directory");
        let first = wait(store.path()).expect("leads");
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = store.path().to_owned();
        let second = std::thread::spawn(move || {
            let leadership = wait(&path).expect("leads in the end");
            sender.send(()).expect("heard");
            leadership
        });
        let probe = File::options().write(true).open(store.path().join(".operator.lock")).expect("open");
        assert!(flock(&probe, FlockOperation::NonBlockingLockExclusive).is_err());
        assert!(receiver.try_recv().is_err());
        drop(first);
        receiver.recv().expect("the second leads now");
        drop(second.join().expect("ended"));
    }
}
