//! What a process on this machine has used so far, as Linux tells it in `/proc`. Nothing elsewhere.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde_json::{Value, json};

/// Ticks of processor time a second: what Linux counts in, on every platform that it runs on.
const TICKS_PER_SECOND: u64 = 100;
/// What `/proc` means by kB, in bytes.
const KB_BYTES: u64 = 1_024;

/// What a process used, all its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time of its own, to 10 ms.
    user: Duration,
    /// Processor time of the system for it, to 10 ms.
    system: Duration,
    /// How often a thread of it left the processor.
    switches: u64,
    /// Bytes that it wrote to files, zeros ahead of the journal's end among them. (What Linux calls `write_bytes` counts
    /// all of the large pages that a small write touches, and says many times more than goes to a disk.)
    written_bytes: u64,
}

impl Usage {
    /// What the process has used since its start.
    pub(super) fn of(process: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name of the program, in brackets, may hold blanks; user and system time are the 12th and 13th after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| {
            let ticks: u64 = fields.get(at)?.parse().ok()?;
            Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
        };
        let input_output = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        Some(Self {
            user: ticks(11)?,
            system: ticks(12)?,
            switches: switches(process).unwrap_or_default(),
            written_bytes: number_of(&input_output, "wchar:").unwrap_or_default(),
        })
    }

    /// Processor time, of its own and of the system.
    pub(super) fn cpu(&self) -> Duration {
        self.user + self.system
    }

    /// What was used for each million of what was done.
    pub(super) fn per_million(&self, done: u64) -> PerMillion {
        let share = |of: f64| of * 1e6 / super::report::f64_of(done.max(1));
        PerMillion {
            user_s: share(self.user.as_secs_f64()),
            system_s: share(self.system.as_secs_f64()),
            switches: share(super::report::f64_of(self.switches)),
            written_bytes: share(super::report::f64_of(self.written_bytes)),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        // A thread that has ended takes its switches with it.
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            switches: self.switches.saturating_sub(before.switches),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            user: self.user + more.user,
            system: self.system + more.system,
            switches: self.switches + more.switches,
            written_bytes: self.written_bytes + more.written_bytes,
        }
    }
}

/// A [`Usage`], for each million.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerMillion {
    user_s: f64,
    system_s: f64,
    switches: f64,
    written_bytes: f64,
}

impl PerMillion {
    pub(super) fn json(&self) -> Value {
        json!({
            "user_cpu_seconds": self.user_s,
            "system_cpu_seconds": self.system_s,
            "cpu_seconds": self.user_s + self.system_s,
            "context_switches": self.switches,
            "written_bytes": self.written_bytes,
        })
    }

    pub(super) fn text(&self) -> String {
        let Self { user_s, system_s, switches, written_bytes } = self;
        let written_mib = written_bytes / super::report::MIB;
        format!(
            "{:.2} s of processor time ({user_s:.2} s user, {system_s:.2} s system), {switches:.0} context switches, \
             {written_mib:.0} MiB written to files",
            user_s + system_s
        )
    }
}

/// How much of the process is in memory, in bytes.
pub(super) fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some(number_of(&status, "VmRSS:")? * KB_BYTES)
}

fn switches(process: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let status = std::fs::read_to_string(thread.ok()?.path().join("status")).unwrap_or_default();
        for name in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
            sum += number_of(&status, name).unwrap_or_default();
        }
    }
    Some(sum)
}

fn number_of(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_told_for_each_million() {
        let before = Usage { user: Duration::from_secs(1), switches: 10, ..Usage::default() };
        let after = Usage {
            user: Duration::from_secs(3),
            system: Duration::from_secs(1),
            switches: 4,
            written_bytes: 500,
        };
        let used = after - before;
        assert_eq!(
            (used.cpu(), used.switches),
            (Duration::from_secs(3), 0),
            "a thread took its switches with it"
        );
        let report = (used + used).per_million(2_000_000).json();
        assert_eq!(
            (&report["user_cpu_seconds"], &report["system_cpu_seconds"], &report["written_bytes"]),
            (&2.0.into(), &1.0.into(), &500.0.into())
        );
    }
}
