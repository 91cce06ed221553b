//! The password file that a refresh replaces while programs read it.
//!
//! A memory file cannot be replaced by a rename, and a reader may see half of a write. So the file has
//! two slots of equal size. A slot is a line of the password file, followed by a comment line that
//! fills it. A slot whose first byte is `#` is inactive: readers take it for comments. Only the first
//! byte of a slot makes it active or inactive, and a single byte is never read in part.
//!
//! A refresh writes the new line into the inactive slot, activates it, and deactivates the other slot
//! once readers that are under way have finished. In between both lines are active and both of their
//! tokens are accepted, so it does not matter which one a reader takes. The bytes of an active line
//! never change, and those of a line that was active stay until its last readers have finished.

use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Tokens are mostly 400 to 2,000 bytes long. The rest is room for longer session tokens. Both slots
/// together are below 64 KiB, because node-postgres reads a password file in pieces of that size and
/// fails if a piece follows the one with its line.
const SLOT: usize = 16 * 1024;

/// For tokens that fill more than half of a slot. PostgreSQL accepts passwords of 65,530 bytes.
const LARGE_SLOT: usize = 80 * 1024;

/// The time between two changes of a slot, in which readers leave the state before.
const SETTLE: Duration = Duration::from_millis(20);

/// The name of the password file in the program's folder.
pub(super) const PASSFILE: &str = "passfile";

/// The name of the file that replaces it.
pub(super) const NEW_PASSFILE: &str = "passfile.new";

/// A password file with one line, which a refresh replaces.
#[derive(Debug)]
pub(super) enum Passfile {
    /// A memory file with two slots.
    Slots(Slots),
    /// A file in a private folder, replaced by a rename.
    Renamed(PathBuf),
}

impl Passfile {
    /// Replaces the line of the file. Readers may take the previous line for the time `overlap` after
    /// they can take this one. Returns after twice that time.
    pub(super) fn replace(&mut self, line: &str, overlap: Duration) -> io::Result<()> {
        match self {
            Passfile::Slots(slots) => slots.replace(line, overlap),
            Passfile::Renamed(path) => {
                let new = path.with_file_name(NEW_PASSFILE);
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                options.open(&new)?.write_all(line.as_bytes())?;
                std::fs::rename(new, path)
            }
        }
    }
}

/// The contents of a new file with two slots, of which the first has `line`.
pub(super) fn slots_with(line: &str) -> Vec<u8> {
    let size = match line.len() {
        0..=8192 => SLOT,
        _ => LARGE_SLOT,
    };
    let mut contents = filled(line.as_bytes(), size);
    contents.extend(filled(b"", size));
    contents
}

/// `line`, which ends with a line break, and a comment line that makes it `size` bytes long.
fn filled(line: &[u8], size: usize) -> Vec<u8> {
    let mut slot = line.to_vec();
    slot.resize(size - 1, b'#');
    slot.push(b'\n');
    slot
}

/// A file with two slots.
#[derive(Debug)]
pub(super) struct Slots {
    file: std::fs::File,
    size: usize,
    /// The offset of the slot with the current line.
    active: usize,
    settle: Duration,
}

impl Slots {
    /// Takes over a file with the contents of [`slots_with`].
    pub(super) fn new(file: std::fs::File) -> io::Result<Slots> {
        let length = file.metadata()?.len();
        Ok(Slots {
            size: usize::try_from(length / 2).map_err(io::Error::other)?,
            file,
            active: 0,
            settle: SETTLE,
        })
    }

    fn replace(&mut self, line: &str, overlap: Duration) -> io::Result<()> {
        let line = line.as_bytes();
        // A comment line of one byte at least has to follow.
        if line.len() + 2 > self.size {
            return Err(io::Error::other(format!(
                "the token has {} bytes more than at the start of the program",
                line.len() + 2 - self.size
            )));
        }
        let next = self.size - self.active;
        // A reader may be in the slot, so each state is there for a while before the next: first a
        // comment, then nothing but filler, then the line without its first byte, then the line.
        self.write(b"#", next)?;
        self.write(&filled(b"", self.size), next)?;
        let Some((first, rest)) = line.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.write(rest, next + 1)?;
        self.write(&[*first], next)?;
        // Readers that passed the new slot while it was inactive still find the previous line.
        thread::sleep(overlap);
        self.write(b"#", self.active)?;
        // Readers that have begun to read it get the rest of it, which the next refresh overwrites.
        thread::sleep(overlap);
        self.active = next;
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        self.file.write_all_at(bytes, offset as u64)?;
        thread::sleep(self.settle);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use diesel_rds_iam::Clock;

    use super::super::inherited_file::InheritedFiles;
    use super::*;

    const PREFIX: &str = "db.example.com:5432:*:app:";

    /// How long the previous line can be read.
    const OVERLAP: Duration = Duration::from_millis(20);

    const ROTATIONS: u32 = 100;

    /// A line whose password is one letter, many times. It is longer than the buffers of readers and
    /// than a page of memory.
    fn line(rotation: u32) -> String {
        let letter = char::from(b'a' + u8::try_from(rotation % 26).unwrap());
        let length = 7000 + usize::try_from(rotation % 7).unwrap() * 100;
        format!("{PREFIX}{}\n", String::from(letter).repeat(length))
    }

    /// Reads a password as libpq does: line by line, the first that matches.
    fn read(path: &str) -> Option<String> {
        let file = BufReader::with_capacity(4096, std::fs::File::open(path).unwrap());
        file.lines()
            .map(Result::unwrap)
            .find_map(|line| Some(line.strip_prefix(PREFIX)?.to_owned()))
    }

    /// The real file where the system has memory files.
    fn file() -> (InheritedFiles, Slots, String) {
        let mut files = InheritedFiles::new(false).unwrap();
        let path = files.add("passfile", &slots_with(&line(0))).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path);
        let mut slots = Slots::new(file.unwrap()).unwrap();
        slots.settle = Duration::from_millis(1);
        (files, slots, path)
    }

    /// Every read that takes no longer than the overlap gets a whole line, the current one or the one
    /// before.
    #[test]
    fn readers_get_whole_lines_while_the_line_is_replaced() {
        let (_files, mut slots, path) = file();
        let (latest, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
        let reads = AtomicU32::new(0);
        let clock = Clock::default();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Acquire) {
                        let (before, start) = (latest.load(Ordering::Acquire), clock.now());
                        let password = read(&path);
                        // A reader that the machine did not run for so long has no guarantee.
                        if clock.now().since(&start) > OVERLAP {
                            continue;
                        }
                        let password = password.expect("there is always a line");
                        // A line can be read before `replace` returns.
                        let after = latest.load(Ordering::Acquire) + 1;
                        let expected = (before.saturating_sub(1)..=after).any(|rotation| {
                            line(rotation).strip_prefix(PREFIX) == Some(&format!("{password}\n"))
                        });
                        let letters: BTreeSet<char> = password.chars().collect();
                        assert!(expected, "{before} to {after}: {letters:?}");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for rotation in 1..=ROTATIONS {
                slots.replace(&line(rotation), OVERLAP).unwrap();
                latest.store(rotation, Ordering::Release);
            }
            is_over.store(true, Ordering::Release);
        });
        let reads = reads.into_inner();
        assert!(reads > ROTATIONS, "only {reads} reads");
    }

    #[test]
    fn a_line_that_is_too_long_leaves_the_file_as_it_is() {
        let (_files, mut slots, _) = file();
        let long = format!("{PREFIX}{}\n", "x".repeat(SLOT));
        assert!(slots.replace(&long, OVERLAP).is_err());
        let longest = format!("{PREFIX}{}\n", "x".repeat(SLOT - PREFIX.len() - 3));
        slots.replace(&longest, OVERLAP).unwrap();
        let size = slots.file.metadata().unwrap().len();
        assert_eq!(size, 2 * SLOT as u64);
    }

    #[test]
    fn a_renamed_file_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PASSFILE);
        std::fs::write(&path, line(0)).unwrap();
        let mut passfile = Passfile::Renamed(path.clone());
        passfile.replace(&line(1), Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line(1));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
