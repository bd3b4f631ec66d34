//! Durations as people write them: `500ms`, `1s`, `1.5s`, `2m`, `1h`, `7d`; a bare number is seconds.

use std::time::Duration;

/// Longer than any drain should wait: ten years, so that arithmetic on instants can't overflow.
const SECONDS_MAX: f64 = 10.0 * 365.0 * 86_400.0;

/// Reads a duration; the error is a sentence.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("'{text}' is not a duration; write it as 500ms, 1s, 2m, 1h or 7d"))?;
    let seconds = match unit.trim() {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        unit => return Err(format!("'{unit}' is not a unit of time; use ms, s, m, h or d (as in 500ms)")),
    };
    if seconds > SECONDS_MAX {
        return Err(format!("{text} is longer than anyone waits; write a duration such as 1s or 1h"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration for people.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_and_without_units() {
        let cases = [("500ms", 500), ("1s", 1000), ("1.5s", 1500), ("3", 3000), ("2m", 120_000), ("0", 0)];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(7 * 86_400)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1s", "1 fortnight", "soon", "99999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_short() {
        assert_eq!(human(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(human(Duration::from_secs(600)), "10 min");
        assert_eq!(human(Duration::from_secs(7200)), "2 h");
    }
}
