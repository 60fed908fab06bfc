//! Durations and rates as people write them: `90s`, `1h30m`, `200/min`.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::workflow::Rate;

/// The longest duration, ten years. A longer timer is a typing error.
pub const MAX_DURATION: Duration = Duration::from_secs(3_650 * 86_400);

const UNITS_MS: [(&str, u64); 6] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a duration: whole numbers, each with its unit (`ms`, `s`, `m` or `min`, `h`, `d`), the larger unit first.
///
/// ```
/// use std::time::Duration;
/// use repair_core::workflow::parse_duration;
/// assert_eq!(parse_duration("90s")?, Duration::from_secs(90));
/// assert_eq!(parse_duration("1h30m")?, Duration::from_secs(5_400));
/// assert!(parse_duration("90").is_err());
/// # Ok::<(), repair_core::Error>(())
/// ```
///
/// # Errors
/// `invalid` if the text is anything else, or the duration is longer than [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration> {
    let refuse = || {
        let shown: String = text.chars().take(40).collect();
        Error::invalid(format!("`{shown}` is not a duration; write one such as 500ms, 90s, 15m, 2h, 3d or 1h30m"))
    };
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit_ms = UNITS_MS.iter().find(|(name, _)| *name == unit).map(|(_, unit_ms)| *unit_ms).ok_or_else(refuse)?;
        let number: u64 = number.parse().map_err(|_| refuse())?;
        if unit_ms >= last_unit_ms {
            return Err(refuse());
        }
        last_unit_ms = unit_ms;
        total_ms = number.checked_mul(unit_ms).and_then(|part| total_ms.checked_add(part)).ok_or_else(refuse)?;
        rest = after;
    }
    let duration = Duration::from_millis(total_ms);
    if duration > MAX_DURATION {
        Err(Error::invalid(format!("`{text}` is longer than ten years, the longest duration allowed")))
    } else {
        Ok(duration)
    }
}

/// Reads a rate: a whole number per second, minute, hour or day.
///
/// ```
/// use std::time::Duration;
/// use repair_core::workflow::parse_rate;
/// let rate = parse_rate("200/min")?;
/// assert_eq!((rate.count, rate.per), (200, Duration::from_secs(60)));
/// # Ok::<(), repair_core::Error>(())
/// ```
///
/// # Errors
/// `invalid` if the text is anything else, or the number is 0.
pub fn parse_rate(text: &str) -> Result<Rate> {
    let refuse = || {
        let shown: String = text.chars().take(40).collect();
        Error::invalid(format!("`{shown}` is not a rate; write one such as 5/s, 200/min, 1000/h or 10000/d"))
    };
    let (count, unit) = text.split_once('/').ok_or_else(refuse)?;
    let per_s = match unit.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3_600,
        "d" | "day" => 86_400,
        _ => return Err(refuse()),
    };
    let count: u32 = count.trim().parse().map_err(|_| refuse())?;
    if count == 0 { Err(refuse()) } else { Ok(Rate { count, per: Duration::from_secs(per_s) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in
            [("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("3d", 259_200_000), ("500ms", 500), ("1h30m", 5_400_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "90", "s", "-1s", "1.5h", "1 h", "30m1h", "1m1m", "99999999999999999999s", "4000d", "1y", "１s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_a_number_per_unit_of_time() {
        assert_eq!(parse_rate("200/min").unwrap(), Rate { count: 200, per: Duration::from_secs(60) });
        assert_eq!(parse_rate(" 5 / s").unwrap(), Rate { count: 5, per: Duration::from_secs(1) });
        for text in ["", "0/s", "200", "/min", "200/", "200/fortnight", "-1/s", "99999999999/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
