//! The outcome of each write, as recorded by the application and by the database.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use rds_iam_emulator::Emulator;

use super::AnyError;

/// The outcome of a write as the application saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server acknowledged the commit of its transaction.
    Written,
    /// Its transaction failed before the commit.
    NotWritten,
    /// The answer to the commit did not arrive.
    Unknown,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Written, Outcome::NotWritten, Outcome::Unknown];
}

/// One thread's writes, in a file so that they do not count as the application's memory. Each is a byte for the
/// outcome and eight for the id.
pub struct Page(BufWriter<File>);

impl Page {
    pub fn create(folder: &Path, number: u64) -> io::Result<Page> {
        let file = File::create_new(folder.join(number.to_string()))?;
        Ok(Page(BufWriter::new(file)))
    }

    pub fn note(&mut self, outcome: Outcome, ids: &[i64]) -> io::Result<()> {
        for id in ids {
            self.0.write_all(&[outcome as u8])?;
            self.0.write_all(&id.to_le_bytes())?;
        }
        Ok(())
    }

    pub fn close(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// All writes.
pub struct Ledger(HashMap<i64, Outcome>);

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

impl Ledger {
    pub fn read(folder: &Path) -> Result<Ledger, AnyError> {
        let mut writes = HashMap::new();
        for page in fs::read_dir(folder)? {
            let bytes = fs::read(page?.path())?;
            let (records, rest) = bytes.as_chunks::<9>();
            if !rest.is_empty() {
                return Err("the application's record of its writes is cut short".into());
            }
            for [outcome, id @ ..] in records {
                let outcome = Outcome::ALL.get(usize::from(*outcome));
                let outcome = outcome.ok_or("the application's record of its writes is garbled")?;
                if writes.insert(i64::from_le_bytes(*id), *outcome).is_some() {
                    return Err("the application used an id twice".into());
                }
            }
        }
        Ok(Ledger(writes))
    }

    /// Compares it with the database. Returns the count of each outcome.
    pub fn compare(&self, emulator: &Emulator) -> Result<String, AnyError> {
        let mut database = PgConnection::establish(&emulator.superuser_url())?;
        let rows: Vec<Row> = sql_query("SELECT id FROM writes").load(&mut database)?;
        let mut found: HashMap<i64, usize> = HashMap::with_capacity(rows.len());
        for row in rows {
            *found.entry(row.id).or_default() += 1;
        }
        let count = |wrong: &dyn Fn(Option<Outcome>, usize) -> bool| {
            let known = self.0.iter().filter(|(id, outcome)| {
                wrong(Some(**outcome), found.get(id).copied().unwrap_or_default())
            });
            let unasked = found
                .iter()
                .filter(|(id, times)| !self.0.contains_key(id) && wrong(None, **times));
            known.count() + unasked.count()
        };
        let lost = count(&|outcome, times| outcome == Some(Outcome::Written) && times == 0);
        let doubled = count(&|_, times| times > 1);
        let unasked = count(&|outcome, times| {
            times > 0 && matches!(outcome, None | Some(Outcome::NotWritten))
        });
        if lost + doubled + unasked > 0 {
            return Err(format!(
                "of {} writes, {lost} that were acknowledged are missing, {doubled} are there more \
                 than once, {unasked} are there that were not committed",
                self.0.len()
            )
            .into());
        }
        let outcome = |wanted: Outcome| count(&|outcome, _| outcome == Some(wanted));
        let arrived = count(&|outcome, times| outcome == Some(Outcome::Unknown) && times == 1);
        Ok(format!(
            "writes={} failed={} unknown={} (arrived: {arrived})",
            outcome(Outcome::Written),
            outcome(Outcome::NotWritten),
            outcome(Outcome::Unknown),
        ))
    }
}
