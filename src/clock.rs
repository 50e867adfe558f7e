//! The wall clock, and how hostgw prints a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Formats a time, in seconds since 1970-01-01 00:00 UTC, as in RFC 3339. A damaged record can contain a number that
/// RFC 3339 cannot express.
#[must_use]
pub fn time(seconds: u64) -> String {
    /// 9999-12-31T23:59:59Z: a year has four digits.
    const LAST: u64 = 253_402_300_799;
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds <= LAST) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("an impossible time ({seconds} s since 1970)"),
    }
}

/// Returns the current time in seconds since 1970-01-01 00:00 UTC.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
