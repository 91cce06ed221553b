//! What a process takes up.

use std::fmt;
use std::fs;

use super::AnyError;

/// What comes and goes by itself: the memory file of a login, a connection to the source of
/// credentials.
const DESCRIPTORS_AT_REST: u64 = 4;

/// Threads that the runtime of the SDK keeps for a while.
const THREADS_AT_REST: u64 = 2;

/// What allocators give or take. A kilobyte that is lost in each transaction is twenty times as much
/// in ten minutes.
const KIBIBYTES_AT_REST: u64 = 2 * 1024;

#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Resident.
    pub kibibytes: u64,
    pub threads: u64,
    pub descriptors: u64,
}

impl Footprint {
    /// This process's. Linux only.
    pub fn own() -> Result<Footprint, AnyError> {
        let status = fs::read_to_string("/proc/self/status")
            .map_err(|error| format!("/proc/self/status, which only Linux has: {error}"))?;
        let field = |name: &str| -> Result<u64, AnyError> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.ok_or("/proc/self/status is incomplete")?.parse()?)
        };
        Ok(Footprint {
            kibibytes: field("VmRSS:")?,
            threads: field("Threads:")?,
            // One of them reads the folder.
            descriptors: u64::try_from(fs::read_dir("/proc/self/fd")?.count())? - 1,
        })
    }

    /// The growth, if it is within what comes and goes.
    pub fn growth_since(&self, before: &Footprint) -> Result<String, AnyError> {
        let growth = format!(
            "memory={}→{}KiB threads={}→{} descriptors={}→{}",
            before.kibibytes,
            self.kibibytes,
            before.threads,
            self.threads,
            before.descriptors,
            self.descriptors,
        );
        let has_grown = self.kibibytes > before.kibibytes + KIBIBYTES_AT_REST
            || self.threads > before.threads + THREADS_AT_REST
            || self.descriptors > before.descriptors + DESCRIPTORS_AT_REST;
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
