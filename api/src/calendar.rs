//! Days and months of quotas: which window a wall clock shows in the configured time zone, and when the next begins.
//!
//! The ledger knows windows by their numbers only. This is the one place where numbers and calendar meet.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use ledger::entry::Retry;
use ledger::model::Windows;
use std::time::Duration;

/// The calendar that quotas go by.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
}

impl Calendar {
    /// The calendar of a time zone, by its IANA name.
    ///
    /// # Errors
    /// When there is no time zone of that name.
    pub fn of(name: &str) -> Result<Self, String> {
        let zone = TimeZone::get(name).map_err(|_| format!("there is no time zone {name}"))?;
        Ok(Self { zone })
    }

    /// The calendar of UTC.
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC }
    }

    /// The windows that a wall clock shows.
    pub fn windows(&self, wall_us: u64) -> Windows {
        let date = self.local(wall_us).date();
        let epoch = Date::constant(1970, 1, 1);
        let days = date.since(epoch).map_or(0, |span| span.get_days());
        let months = (i32::from(date.year()) - 1970) * 12 + i32::from(date.month()) - 1;
        Windows { day: u64::try_from(days).unwrap_or(0), month: u64::try_from(months).unwrap_or(0) }
    }

    /// How long after a moment of the wall clock a quota begins anew, if that is what a refusal waits for.
    pub fn until(&self, retry: Retry, wall_us: u64) -> Option<Duration> {
        let now = self.local(wall_us);
        let first = match retry {
            Retry::NextDay => now.date().tomorrow().ok()?,
            Retry::NextMonth => now.date().first_of_month().checked_add(1.month()).ok()?,
            Retry::At(_) | Retry::OnRelease | Retry::Never(_) => return None,
        };
        let begins = first.to_zoned(self.zone.clone()).ok()?;
        Duration::try_from(begins.timestamp().duration_since(now.timestamp())).ok()
    }

    fn local(&self, wall_us: u64) -> Zoned {
        let at = i64::try_from(wall_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
        at.unwrap_or_default().to_zoned(self.zone.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(time: &str) -> u64 {
        let time: Timestamp = time.parse().unwrap();
        u64::try_from(time.as_microsecond()).unwrap()
    }

    #[test]
    fn a_day_and_a_month_begin_at_midnight_of_their_zone() {
        let utc = Calendar::utc();
        assert_eq!(utc.windows(0), Windows { day: 0, month: 0 });
        assert_eq!(utc.windows(us("2026-10-31T23:59:59.999999Z")), Windows { day: 20_757, month: 681 });
        assert_eq!(utc.windows(us("2026-11-01T00:00:00Z")), Windows { day: 20_758, month: 682 });
        let berlin = Calendar::of("Europe/Berlin").unwrap();
        assert_eq!(berlin.windows(us("2026-10-31T22:59:59Z")), Windows { day: 20_757, month: 681 });
        assert_eq!(berlin.windows(us("2026-10-31T23:00:00Z")), Windows { day: 20_758, month: 682 });
    }

    #[test]
    fn the_wait_for_the_next_window_counts_hours_as_they_pass() {
        let berlin = Calendar::of("Europe/Berlin").unwrap();
        // On that day clocks go back: it has 25 hours.
        let midnight = us("2026-10-24T22:00:00Z");
        assert_eq!(berlin.until(Retry::NextDay, midnight), Some(Duration::from_secs(25 * 3_600)));
        assert_eq!(berlin.until(Retry::NextMonth, us("2026-12-31T22:59:00Z")), Some(Duration::from_secs(60)));
        assert_eq!(berlin.until(Retry::OnRelease, midnight), None);
    }

    #[test]
    fn a_zone_that_does_not_exist_is_named() {
        assert_eq!(Calendar::of("Mars/Olympus").unwrap_err(), "there is no time zone Mars/Olympus");
    }
}
