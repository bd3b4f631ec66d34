//! Points in time as people write them: `2026-11-24T12:00:00Z` (RFC 3339, also with an offset or a fraction),
//! seconds since 1970, or an age such as `-5m`. Inside, microseconds since 1970. Leap seconds are not known.

use crate::duration;
use aimss_engine::stream::Micros;

const MICROS_A_SECOND: u64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// Reads a point in time; the error is a sentence. `now` is what ages count from.
pub fn parse(text: &str, now: Micros) -> Result<Micros, String> {
    let bad = || {
        format!(
            "'{text}' is not a time; write it as 2026-11-24T12:00:00Z, as seconds since 1970, or as an age such as -5m"
        )
    };
    if let Some(age) = text.strip_prefix('-') {
        return Ok(now.before(duration::parse(age)?));
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let seconds: f64 = text.parse().map_err(|_| bad())?;
        return Ok(Micros((seconds * MICROS_A_SECOND as f64) as u64));
    }
    rfc3339(text).ok_or_else(bad)
}

fn rfc3339(text: &str) -> Option<Micros> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-')?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(time, ':')?;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let mut micros = 0;
    for (i, digit) in fraction.chars().enumerate() {
        let digit = u64::from(digit.to_digit(10)?);
        micros += if i < 6 { digit * 10_u64.pow(5 - i as u32) } else { 0 };
    }
    let east = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let east = two_digits(hours)? * 3600 + two_digits(minutes)? * 60;
            if sign == "-" { -east } else { east }
        }
    };
    let seconds =
        days_since_1970(year, month, day) * SECONDS_A_DAY + hour * 3600 + minute * 60 + second - east;
    Some(Micros(u64::try_from(seconds).ok()? * MICROS_A_SECOND + micros))
}

/// Three numbers, the first of four digits or two, the others of two.
fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let first = parts.next()?;
    let digits = first.len() == 4 || first.len() == 2;
    let first = (digits && first.bytes().all(|b| b.is_ascii_digit())).then(|| first.parse().ok())??;
    let rest = (two_digits(parts.next()?)?, two_digits(parts.next()?)?);
    parts.next().is_none().then_some([first, rest.0, rest.1])
}

fn two_digits(text: &str) -> Option<i64> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Years count from March, so that the leap day is a year's last; 719468 days lie between March 1st of year 0
/// and 1970.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// As RFC 3339 in UTC with microseconds; the inverse of [`parse`].
pub fn text(time: Micros) -> String {
    let (seconds, micros) = (time.0 / MICROS_A_SECOND, time.0 % MICROS_A_SECOND);
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    let mut year = 1970 + days / 366;
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut day = days - days_since_1970(year, 1, 1);
    let mut month = 1;
    while day >= days_in(year, month) {
        day -= days_in(year, month);
        month += 1;
    }
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        day + 1,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_000_000_000_000_000);

    #[test]
    fn times_are_read_in_three_ways() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56.5Z", 951_827_696_500_000),
            ("2026-11-24T12:00:00Z", 1_795_521_600_000_000),
            ("2026-11-24T14:00:00+02:00", 1_795_521_600_000_000),
            ("2026-11-24T12:00:00.1234567Z", 1_795_521_600_123_456),
            ("12.5", 12_500_000),
            ("-5m", NOW.0 - 300_000_000),
        ];
        for (text, micros) in cases {
            assert_eq!(parse(text, NOW), Ok(Micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "now", "2026-11-24", "2026-02-30T00:00:00Z", "2026-11-24T12:00:00", "-soon", "1.2.3"]
        {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for micros in
            [0, 951_827_696_500_000, 1_795_521_600_123_456, 4_102_444_799_999_999, 253_402_300_799_000_000]
        {
            let shown = text(Micros(micros));
            assert_eq!(parse(&shown, NOW), Ok(Micros(micros)), "{shown}");
        }
        assert_eq!(text(Micros(951_827_696_500_000)), "2000-02-29T12:34:56.500000Z");
    }
}
