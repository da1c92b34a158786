// SPDX-License-Identifier: Apache-2.0
//! Appending, and undoing an append that went wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a journal needs of a file.
pub(super) trait Medium {
    /// Writes all bytes at `offset`, or an unknown part of them on error.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes `length` the end.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Returns when everything is on disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The end of a file to which whole frames are appended.
///
/// Invariant: unless it is broken, the file holds exactly `length` bytes and `frames` frames, all of them on disk.
#[derive(Debug)]
pub(super) struct Tail<M> {
    medium: M,
    length: u64,
    frames: u32,
    broken: bool,
}

impl<M: Medium> Tail<M> {
    pub(super) fn new(medium: M, length: u64, frames: u32) -> Self {
        Self { medium, length, frames, broken: false }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The number of the next frame.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn set_broken(&mut self) {
        self.broken = true;
    }

    /// Appends the whole frame or nothing. When neither could be had, the tail is broken.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        let written = self.medium.write_at(frame, self.length).and_then(|()| self.medium.sync());
        match written {
            Ok(()) => {
                self.length += super::to_u64(frame.len());
                self.frames = self.frames.wrapping_add(1);
                Ok(())
            }
            Err(error) => {
                let undone = self.medium.cut(self.length).and_then(|()| self.medium.sync());
                self.broken = undone.is_err();
                Err(error)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn medium(&mut self) -> &mut M {
        &mut self.medium
    }
}
