// SPDX-License-Identifier: Apache-2.0

use super::medium::Medium;
use super::*;
use tempfile::TempDir;

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: TempDir::with_prefix(format!("rhip{}", std::process::id())).expect("made") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("leases.journal")
    }

    fn open(&self) -> Result<(Journal<u32>, Opened<u32>), OpenError> {
        Journal::open(&self.path())
    }

    fn records(&self) -> Vec<u32> {
        self.open().expect("opened").1.records
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("read")
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("listed");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

/// The message with its causes.
fn full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", full(cause)),
        None => error.to_string(),
    }
}

#[test]
fn what_was_appended_is_there_again() {
    let place = Place::new();
    let (mut journal, opened) = place.open().expect("opened");
    assert_eq!(opened, Opened { records: vec![], repaired: None });
    journal.append(&[1, 2]).expect("appended");
    journal.append(&[]).expect("appended");
    journal.append(&[3]).expect("appended");
    assert_eq!(journal.bytes(), place.bytes().len() as u64);
    drop(journal);
    let (mut journal, opened) = place.open().expect("opened");
    assert_eq!(opened, Opened { records: vec![1, 2, 3], repaired: None });
    journal.append(&[4]).expect("appended");
    drop(journal);
    assert_eq!(place.records(), [1, 2, 3, 4]);
}

#[test]
fn a_torn_tail_is_cut_and_reported_and_the_journal_goes_on() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    journal.append(&[1]).expect("appended");
    let good = journal.bytes();
    journal.append(&[2, 3]).expect("appended");
    drop(journal);
    let whole = place.bytes();
    for length in usize::try_from(good).expect("small") + 1..whole.len() {
        fs::write(place.path(), &whole[..length]).expect("written");
        let (mut journal, opened) = place.open().expect("opened");
        let bytes_cut = length as u64 - good;
        assert_eq!(opened, Opened { records: vec![1], repaired: Some(Repair { bytes_cut }) });
        assert_eq!((journal.bytes(), place.bytes().len() as u64), (good, good));
        journal.append(&[4]).expect("appended");
        drop(journal);
        assert_eq!(place.records(), [1, 4]);
    }
}

#[test]
fn a_corrupt_journal_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    journal.append(&[1]).expect("appended");
    let second = journal.bytes();
    journal.append(&[2]).expect("appended");
    journal.append(&[3]).expect("appended");
    drop(journal);
    let mut bytes = place.bytes();
    bytes[usize::try_from(second).expect("small") + 13] ^= 1;
    fs::write(place.path(), &bytes).expect("written");
    fs::write(beside(&place.path(), ".new"), "perhaps of use to a person").expect("written");
    let error = place.open().expect_err("refused");
    assert_eq!(
        full(&error),
        format!(
            "open journal {}: corrupt at byte {second}; nothing was changed: \
             the checksum is wrong, and good records follow",
            place.path().display()
        )
    );
    assert_eq!(place.bytes(), bytes);
    assert_eq!(place.files(), ["leases.journal", "leases.journal.lock", "leases.journal.new"]);
}

#[test]
fn an_empty_file_is_no_journal() {
    let place = Place::new();
    fs::write(place.path(), "").expect("written");
    assert!(matches!(place.open(), Err(OpenError::Corrupt { offset: 0, .. })));
}

#[test]
fn a_journal_in_use_is_not_opened() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    assert!(matches!(place.open(), Err(OpenError::InUse { .. })));
    journal.compact(&[1]).expect("compacted");
    assert!(matches!(place.open(), Err(OpenError::InUse { .. })));
    drop(journal);
    assert_eq!(place.records(), [1]);
}

#[test]
fn a_missing_directory_is_an_error() {
    let place = Place::new();
    let path = place.directory.path().join("missing/leases.journal");
    let error = Journal::<u32>::open(&path).expect_err("refused");
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[test]
fn compaction_replaces_everything_and_the_journal_goes_on() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    for n in 0..100 {
        journal.append(&[n]).expect("appended");
    }
    let before = journal.bytes();
    let many: Vec<u32> = (0..u32::try_from(COMPACT_BATCH).expect("small") + 7).collect();
    journal.compact(&many).expect("compacted");
    assert_eq!(journal.bytes(), place.bytes().len() as u64);
    journal.compact(&[7, 8]).expect("compacted");
    assert!(journal.bytes() < before);
    journal.append(&[9]).expect("appended");
    drop(journal);
    assert_eq!(place.records(), [7, 8, 9]);
    assert_eq!(place.files(), ["leases.journal", "leases.journal.lock"]);
}

#[test]
fn a_compaction_of_many_records_is_read_back_whole() {
    let place = Place::new();
    let many: Vec<u32> = (0..3 * u32::try_from(COMPACT_BATCH).expect("small") + 1).collect();
    place.open().expect("opened").0.compact(&many).expect("compacted");
    assert_eq!(place.records(), many);
}

#[test]
fn an_interrupted_compaction_leaves_the_old_records() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    journal.append(&[1]).expect("appended");
    drop(journal);
    let new = beside(&place.path(), ".new");
    write_new(&new, &[2]).expect("written");
    let whole = fs::read(&new).expect("read");
    for length in 0..=whole.len() {
        fs::write(&new, &whole[..length]).expect("written");
        assert_eq!(place.records(), [1]);
        assert!(!new.exists());
    }
    // Creation is the same with nothing before it.
    fs::remove_file(place.path()).expect("removed");
    fs::write(&new, &whole[..5]).expect("written");
    assert_eq!(place.records(), [0; 0]);
    assert!(!new.exists());
}

#[test]
fn a_compaction_that_goes_wrong_leaves_the_journal_usable() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    journal.append(&[1]).expect("appended");
    fs::create_dir(beside(&place.path(), ".new")).expect("made");
    let error = journal.compact(&[2]).expect_err("the name is taken");
    assert!(error.is_retryable(), "{error:?}");
    fs::remove_dir(beside(&place.path(), ".new")).expect("removed");
    journal.append(&[3]).expect("appended");
    drop(journal);
    assert_eq!(place.records(), [1, 3]);
}

/// A file of which calls go wrong: how many bytes of a write arrive, and which calls fail after that.
#[derive(Debug, Default)]
struct Flaky {
    bytes: Vec<u8>,
    room: Option<usize>,
    failing_syncs: usize,
    failing_cuts: usize,
}

fn due(failing: &mut usize) -> io::Result<()> {
    if *failing == 0 {
        return Ok(());
    }
    *failing -= 1;
    Err(io::ErrorKind::Other.into())
}

impl Medium for Flaky {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert_eq!(offset, self.bytes.len() as u64);
        let arriving = self.room.unwrap_or(bytes.len()).min(bytes.len());
        self.bytes.extend(&bytes[..arriving]);
        if arriving < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        due(&mut self.failing_cuts)?;
        self.bytes.truncate(usize::try_from(length).expect("small"));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        due(&mut self.failing_syncs)
    }
}

#[test]
fn a_write_that_goes_wrong_is_undone_at_any_byte() {
    for room in 0..4 {
        let mut tail = Tail::new(Flaky { bytes: vec![1, 2], ..Flaky::default() }, 2, 1);
        tail.medium().room = Some(room);
        let error = tail.append(&[3, 4, 5, 6]).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!((tail.medium().bytes.clone(), tail.length(), tail.frames()), (vec![1, 2], 2, 1));
        tail.medium().room = None;
        tail.append(&[7]).expect("appended");
        assert_eq!((tail.medium().bytes.clone(), tail.length(), tail.frames()), (vec![1, 2, 7], 3, 2));
    }
}

#[test]
fn a_sync_that_goes_wrong_is_undone() {
    let mut tail = Tail::new(Flaky { failing_syncs: 1, ..Flaky::default() }, 0, 0);
    tail.append(&[1]).expect_err("no sync");
    assert!(!tail.is_broken());
    tail.append(&[2]).expect("appended");
    assert_eq!(tail.medium().bytes, [2]);
}

#[test]
fn what_cannot_be_undone_breaks_the_tail() {
    for flaky in [
        Flaky { room: Some(0), failing_cuts: 1, ..Flaky::default() },
        Flaky { failing_syncs: 2, ..Flaky::default() },
    ] {
        let mut tail = Tail::new(flaky, 0, 0);
        tail.append(&[1]).expect_err("goes wrong");
        assert!(tail.is_broken());
    }
}

#[test]
fn a_broken_journal_refuses_until_it_is_opened_again() {
    let place = Place::new();
    let (mut journal, _) = place.open().expect("opened");
    journal.append(&[1]).expect("appended");
    journal.tail.set_broken();
    for error in [journal.append(&[2]), journal.append(&[]), journal.compact(&[2])] {
        assert!(matches!(error, Err(AppendError::Broken { .. })));
    }
    drop(journal);
    let (mut journal, opened) = place.open().expect("opened");
    assert_eq!(opened.records, [1]);
    journal.append(&[2]).expect("appended");
}
