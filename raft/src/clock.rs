//! The only place that reads a clock.
//!
//! Leases and the ledger's time run on the boot clock, which goes on while the machine sleeps and which nobody can
//! set. The wall clock serves only what people read: log lines, usage rows, windows of quotas.

use std::time::Duration;

/// Microseconds of the machine's boot clock.
///
/// Units: microseconds since boot. Source: `clock_gettime(2)`, `CLOCK_BOOTTIME`. On systems without it the monotonic
/// clock stands in, which is good enough for development only.
pub fn boot_us() -> u64 {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    micros(rustix::time::clock_gettime(id))
}

/// Microseconds of the wall clock since the Unix epoch.
pub fn wall_us() -> u64 {
    micros(rustix::time::clock_gettime(rustix::time::ClockId::Realtime))
}

/// Names the machine's present boot, so that a restart of the process can be told from a restart of the machine.
///
/// Source: `random(4)`, `/proc/sys/kernel/random/boot_id`. Empty where the system does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The boot clock as a duration, for differences.
pub fn boot() -> Duration {
    Duration::from_micros(boot_us())
}

fn micros(at: rustix::time::Timespec) -> u64 {
    u64::try_from(at.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0) / 1_000
}
