//! Processor time, to the nanosecond. `/proc/PID/stat` counts ticks of 10 ms: 0.1% of ten seconds is one
//! tick.

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};

const NANOSECONDS: f64 = 1e9;

/// Processor seconds of this process, all threads, user and system.
pub fn own() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / NANOSECONDS
}

/// The same of another process, those of its threads that have ended included.
#[allow(unsafe_code)]
pub fn of(pid: i32) -> Result<f64> {
    let mut clock = 0;
    // SAFETY: the clock's number is written to a place of ours.
    let refused = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a place of ours; a clock of a process that is gone is an error.
    if refused != 0 || unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        bail!("process {pid} has no processor time: is it gone?");
    }
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / NANOSECONDS)
}

/// The same of those threads of a process that have this name and live.
pub fn of_threads(pid: i32, name: &str) -> Result<f64> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let Ok(of) = std::fs::read_to_string(task.join("comm")) else { continue };
        if of.trim_end() == name {
            // The first number is the time on a processor.
            let schedstat = std::fs::read_to_string(task.join("schedstat"))?;
            nanoseconds += schedstat.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / NANOSECONDS)
}

/// CLOCK_MONOTONIC in nanoseconds: the same in all processes.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
