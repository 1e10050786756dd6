//! The boot clock, as the gateway reads it, so that stamps of different processes on one machine can be compared; and
//! the wall clock, for those that the gateway writes into headers.

use std::time::Duration;

/// Microseconds of the machine's boot clock.
///
/// Units: microseconds since boot. Elsewhere than Linux the monotonic clock stands in, as in the gateway.
pub fn boot_us() -> u64 {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    read_us(id)
}

/// Microseconds of the wall clock since the Unix epoch.
pub fn wall_us() -> u64 {
    read_us(rustix::time::ClockId::Realtime)
}

/// The time since an earlier stamp of [`boot_us`].
pub fn since(earlier_us: u64) -> Duration {
    Duration::from_micros(boot_us().saturating_sub(earlier_us))
}

fn read_us(id: rustix::time::ClockId) -> u64 {
    let at = rustix::time::clock_gettime(id);
    u64::try_from(at.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0) / 1_000
}
