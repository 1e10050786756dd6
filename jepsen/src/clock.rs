//! The harness's own reading of the machine's boot clock, the one that gateway and upstream stamp with.

use std::time::Duration;

/// Microseconds since boot. Source: `clock_gettime(2)`, `CLOCK_BOOTTIME`.
pub(crate) fn boot_us() -> u64 {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    micros(id)
}

/// Microseconds of the wall clock since the Unix epoch, as reply headers carry them.
pub(crate) fn wall_us() -> u64 {
    micros(rustix::time::ClockId::Realtime)
}

/// The time since an earlier stamp of [`boot_us`].
pub(crate) fn since(earlier_us: u64) -> Duration {
    Duration::from_micros(boot_us().saturating_sub(earlier_us))
}

fn micros(id: rustix::time::ClockId) -> u64 {
    let at = rustix::time::clock_gettime(id);
    u64::try_from(at.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0) / 1_000
}
