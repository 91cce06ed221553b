//! The memory, threads and descriptors of a process. The program `soak` uses this file as well.

use std::fmt;
use std::fs;

use diesel_rds_iam::BoxError;

#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Private memory, in RAM or swapped out. Pages that are mapped from files are not counted, since the kernel
    /// drops and reads them at will.
    pub kibibytes: u64,
    pub threads: u64,
    pub descriptors: u64,
}

impl Footprint {
    /// The footprint of this process. Linux only.
    pub fn own() -> Result<Footprint, BoxError> {
        // The sums in /proc/self/status are rounded by some pages for each processor.
        let memory = Fields::read("/proc/self/smaps_rollup")?;
        Ok(Footprint {
            kibibytes: memory.get("Anonymous:")? + memory.get("Swap:")?,
            threads: Fields::read("/proc/self/status")?.get("Threads:")?,
            // One of them is that of the folder that is read.
            descriptors: u64::try_from(fs::read_dir("/proc/self/fd")?.count())? - 1,
        })
    }

    /// The growth, if it is within `allowance`.
    pub fn growth_since(
        &self,
        before: &Footprint,
        allowance: &Footprint,
    ) -> Result<String, BoxError> {
        let growth = format!(
            "memory={}→{}KiB threads={}→{} descriptors={}→{}",
            before.kibibytes,
            self.kibibytes,
            before.threads,
            self.threads,
            before.descriptors,
            self.descriptors,
        );
        let has_grown = self.kibibytes > before.kibibytes + allowance.kibibytes
            || self.threads > before.threads + allowance.threads
            || self.descriptors > before.descriptors + allowance.descriptors;
        match has_grown {
            true => Err(format!("the application has grown: {growth}").into()),
            false => Ok(growth),
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory={}KiB threads={} descriptors={}",
            self.kibibytes, self.threads, self.descriptors
        )
    }
}

/// A file of /proc with a name and a number in each line.
struct Fields {
    path: &'static str,
    text: String,
}

impl Fields {
    fn read(path: &'static str) -> Result<Fields, BoxError> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("{path}, which only Linux has: {error}"))?;
        Ok(Fields { path, text })
    }

    fn get(&self, name: &str) -> Result<u64, BoxError> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        let missing = || format!("{} has no {name}", self.path);
        Ok(number.ok_or_else(missing)?.parse()?)
    }
}
