//! The machine that the program runs on, and how its CPU time is spent. Read leniently: what the system does
//! not tell is left out.
//!
//! Enters: `/proc`. Leaves: [`Machine`], and the CPU time that others took meanwhile.

use crate::process::max_open_files;

/// The machine, as it was when the run began.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cpu_count: usize,
    /// As `/proc/cpuinfo` has it.
    pub cpu_model: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Load average of the last minute.
    pub load_average: Option<f64>,
    /// Files that this process may hold open, its connections among them.
    pub max_open_files: Option<u64>,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let field = |path: &str, name: &str| {
            let text = read(path)?;
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'))?;
            Some(value.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kilobytes = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let load = read("/proc/loadavg");
        Self {
            cpu_count: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu_model: field("/proc/cpuinfo", "model name"),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            memory_bytes: kilobytes.map(|kilobytes| kilobytes * 1_024),
            load_average: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            max_open_files: max_open_files(),
        }
    }
}

/// Ticks of the whole machine since it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTicks {
    all: u64,
    idle: u64,
    steal: u64,
}

/// How the machine's CPU time was spent between two readings, as shares of all of it.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct CpuUse {
    /// Not idle, whoever it was.
    pub busy_share: f64,
    /// Taken by other virtual machines.
    pub steal_share: f64,
}

impl CpuTicks {
    /// Reads `/proc/stat`, whose columns proc(5) gives.
    #[must_use]
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let columns: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .flat_map(str::parse)
            .collect();
        let column = |number: usize| columns.get(number).copied().unwrap_or(0);
        Self {
            // The last two, of guests, are part of the first two.
            all: columns.iter().take(8).sum(),
            idle: column(3) + column(4),
            steal: column(7),
        }
    }

    /// What happened since an earlier reading; `None` when nothing can be told.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<CpuUse> {
        let all = self
            .all
            .checked_sub(earlier.all)
            .filter(|&ticks| ticks > 0)? as f64;
        Some(CpuUse {
            busy_share: 1.0 - self.idle.saturating_sub(earlier.idle) as f64 / all,
            steal_share: self.steal.saturating_sub(earlier.steal) as f64 / all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_spends_time() {
        assert!(Machine::look().cpu_count > 0);
        let before = CpuTicks {
            all: 100,
            idle: 50,
            steal: 0,
        };
        let after = CpuTicks {
            all: 200,
            idle: 75,
            steal: 5,
        };
        let spent = after.since(&before).expect("time passed");
        assert!((spent.busy_share - 0.75).abs() < 1e-9 && (spent.steal_share - 0.05).abs() < 1e-9);
        assert!(before.since(&before).is_none());
    }
}
