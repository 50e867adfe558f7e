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

/// Returns a time in RFC 3339 in seconds since 1970-01-01 00:00 UTC.
#[must_use]
pub fn parse(time: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(time).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Stores a time, in seconds since 1970-01-01 00:00 UTC, as in RFC 3339.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// # Errors
    /// Returns the errors of `serializer`.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
    pub fn serialize<S: Serializer>(seconds: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::time(*seconds))
    }

    /// # Errors
    /// Returns an error for anything but a time in RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| Error::custom(format!("not a time: {text:?}")))
    }
}
