//! What the daemon itself uses.

use std::fs;

/// Processor seconds of all threads.
pub(super) fn cpu_seconds() -> f64 {
    let usage = rusage();
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn rusage() -> libc::rusage {
    // SAFETY: rusage is plain numbers, all zeros are valid, and getrusage fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

/// Memory of the process without files: its heap, stacks and buffers.
pub(super) fn resident_bytes() -> u64 {
    resident_bytes_of("self")
}

/// The same of another process.
pub(super) fn resident_bytes_of(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    field_kib(&status, "RssAnon:").unwrap_or(0) * 1024
}

/// Heap in use.
pub(super) fn heap_bytes() -> u64 {
    // SAFETY: mallinfo2 only reads the allocator's counters.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

/// Share of `used` bytes of shared memory that lie on huge pages, machine-wide counters taken as ours: the arena is
/// the only user of huge pages in tmpfs on most machines. None where the kernel has none.
pub(super) fn huge_share(used: u64) -> Option<f64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let huge = field_kib(&meminfo, "ShmemHugePages:")? * 1024;
    Some(if used == 0 { 0.0 } else { (huge as f64 / used as f64).min(1.0) })
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches("kB").trim().parse().ok())
}
