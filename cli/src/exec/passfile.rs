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
//! never change, nor do those of a line that was active until the last refresh.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Tokens are mostly 400 to 2,000 bytes long. The rest is room for longer session tokens.
const SLOT: usize = 16 * 1024;

/// For tokens that fill more than half of a slot. PostgreSQL accepts passwords of 65,530 bytes.
const LARGE_SLOT: usize = 80 * 1024;

/// The time that a reader gets between two changes of a slot.
const SETTLE: Duration = Duration::from_millis(20);

/// A password file with one line, which a refresh replaces.
#[derive(Debug)]
pub(super) enum Passfile {
    /// A memory file with two slots.
    Slots(Slots),
    /// A file in a private folder, replaced by a rename.
    Renamed(PathBuf),
}

impl Passfile {
    /// Replaces the line of the file. The previous line may be read for the time `overlap` after this
    /// one can.
    pub(super) fn replace(&mut self, line: &str, overlap: Duration) -> io::Result<()> {
        match self {
            Passfile::Slots(slots) => slots.replace(line, overlap),
            Passfile::Renamed(path) => {
                let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
                let mut file = tempfile::NamedTempFile::new_in(folder)?;
                file.write_all(line.as_bytes())?;
                file.persist(path)?;
                Ok(())
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
}

#[cfg(unix)]
impl Slots {
    /// Takes over a file with the contents of [`slots_with`].
    pub(super) fn new(file: std::fs::File) -> io::Result<Slots> {
        let length = file.metadata()?.len();
        Ok(Slots {
            size: usize::try_from(length / 2).map_err(io::Error::other)?,
            file,
            active: 0,
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
        self.active = next;
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        use std::os::unix::fs::FileExt;

        self.file.write_all_at(bytes, offset as u64)?;
        thread::sleep(SETTLE);
        Ok(())
    }
}

#[cfg(not(unix))]
impl Slots {
    fn replace(&mut self, _line: &str, _overlap: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
