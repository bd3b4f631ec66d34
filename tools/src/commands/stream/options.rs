//! What the options of `aimss stream` mean, as keys and values of a stream's settings, and as places in a
//! stream.

use crate::commands::Usage;
use crate::size::Size;
use crate::{duration, timestamp};
use aimss_engine::stream::group::{self, NAME_BYTES_MAX};
use aimss_engine::stream::segment::SEGMENT_BYTES_MAX;
use aimss_engine::stream::{Framing, Micros, settings};
use aimss_fs::control::stream::SeekTo;
use anyhow::Result;
use std::time::Duration;

/// Keys and values.
pub type Pairs = Vec<(String, String)>;

/// The settings of a new stream's log.
pub fn log(framing: &str, segment: &str, compress: &str) -> Result<Pairs> {
    let segment_bytes = bytes(segment).map_err(|why| Usage(format!("--segment: {why}")))?;
    if segment_bytes > SEGMENT_BYTES_MAX {
        return Err(Usage(format!("--segment: {segment} is too large; a segment has at most 1GiB")).into());
    }
    let kind: Framing = framing.parse().map_err(|why| Usage(format!("--framing {framing}: {why}")))?;
    kind.check(segment_bytes).map_err(|why| Usage(format!("--framing {framing}: {why}")))?;
    settings::compression(compress).map_err(|_| {
        Usage(format!("--compress {compress}: sealed segments are stored by lz4, or as they are: none"))
    })?;
    Ok(vec![
        pair("framing", kind.to_string()),
        pair("segment", segment_bytes.to_string()),
        pair("compress", compress.to_string()),
    ])
}

/// What is kept. All limits are in it; an empty value is none.
pub fn retention(words: &[String]) -> Result<Pairs> {
    let (mut kept, mut age, mut acked) = (None, None, false);
    for word in words {
        let usage = |why: String| Usage(format!("--retention: {why}"));
        let twice = match word.as_str() {
            "none" if words.len() == 1 => false,
            "none" => return Err(usage("none stands alone, for no limit at all".into()).into()),
            "acked" => std::mem::replace(&mut acked, true),
            word if is_age(word) => age.replace(whole_seconds(word).map_err(usage)?).is_some(),
            word => kept.replace(bytes(word).map_err(usage)?).is_some(),
        };
        if twice {
            return Err(usage(format!(
                "{word} is the second limit of its kind; give one size and one age at most"
            ))
            .into());
        }
    }
    let text = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    Ok(vec![
        pair("retention.bytes", text(kept)),
        pair("retention.age", text(age)),
        pair("retention.acked", acked.to_string()),
    ])
}

/// How long a batch may be held; `none` is as long as its member is open.
pub fn ack_timeout(text: &str) -> Result<Pairs> {
    let value = match text {
        "none" => String::new(),
        text => {
            let timeout = duration::parse(text).map_err(|why| Usage(format!("--ack-timeout: {why}")))?;
            if timeout.is_zero() {
                let why = "--ack-timeout: no member could keep a batch; give a time such as 30s, or none";
                return Err(Usage(why.into()).into());
            }
            timeout.as_millis().max(1).to_string()
        }
    };
    Ok(vec![pair("ack_timeout_ms", value)])
}

fn pair(key: &str, value: String) -> (String, String) {
    (key.into(), value)
}

/// Whether the unit is one of time. `10m` is; `10M` is a size, as everywhere here.
fn is_age(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim();
    matches!(unit, "ms" | "s" | "m" | "min" | "h" | "d")
}

fn whole_seconds(word: &str) -> Result<u64, String> {
    let age = duration::parse(word)?;
    if age < Duration::from_secs(1) {
        return Err(format!("an age of {word} would keep nothing; give at least 1s"));
    }
    Ok(age.as_secs())
}

fn bytes(word: &str) -> Result<u64, String> {
    let has_unit = !word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match word.parse::<Size>() {
        Ok(Size::Bytes(bytes)) if bytes > 0 && has_unit => Ok(bytes),
        Ok(Size::Bytes(_)) => Err(format!("{word} has no unit; write 64MiB, 10GiB, 30m or 7d")),
        _ => {
            Err(format!("'{word}' is neither a size, an age nor acked; write 64MiB, 10GiB, 30m, 7d or acked"))
        }
    }
}

/// A place in a stream; the sentence names `option`. A bare number is an offset.
pub fn seek_to(option: &str, text: &str) -> Result<SeekTo> {
    let bad = |why: String| Usage(format!("{option} {text}: {why}"));
    let number = |text: &str| {
        text.parse()
            .map_err(|_| bad(String::from("give earliest, latest, an offset such as offset:1000, or time:T")))
    };
    Ok(match text {
        "earliest" => SeekTo::Earliest,
        "latest" => SeekTo::Latest,
        _ => match text.split_once(':') {
            Some(("time", time)) => SeekTo::Time(timestamp::parse(time, Micros::now()).map_err(bad)?.0),
            Some(("offset", offset)) => SeekTo::Offset(number(offset)?),
            _ => SeekTo::Offset(number(text)?),
        },
    })
}

/// Refuses what can't be a group's name.
pub fn check_group(name: &str) -> Result<()> {
    if group::is_name(name) {
        return Ok(());
    }
    let shown = crate::escape::text(name);
    Err(Usage(format!(
        "'{shown}' can't be a group's name: it has 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-', and no dot \
         in front"
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aimss_engine::stream::Settings;

    fn settings(words: &[&str]) -> Result<Settings> {
        let mut settings = Settings::default();
        for (key, value) in retention(&words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>())? {
            settings.set(&key, &value)?;
        }
        Ok(settings)
    }

    #[test]
    fn retention_is_sizes_ages_and_acked() {
        let read = settings(&["10GiB", "7d", "acked"]).expect("good").retention;
        assert_eq!(
            (read.bytes, read.age, read.acknowledged),
            (Some(10 << 30), Some(Duration::from_secs(604_800)), true)
        );
        assert_eq!(settings(&["10m"]).expect("good").retention.age, Some(Duration::from_secs(600)));
        assert_eq!(settings(&["10M"]).expect("good").retention.bytes, Some(10 << 20));
        assert_eq!(settings(&["none"]).expect("good").retention, Settings::default().retention);
        for bad in [
            &["1GiB", "2GiB"][..],
            &["1s", "1h"],
            &["acked", "none"],
            &["10"],
            &["0"],
            &["soon"],
            &["10%"],
            &["1ms"],
        ] {
            assert!(settings(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn places_are_words_offsets_and_times() {
        let read = |text| seek_to("--to", text).expect("good");
        assert_eq!(read("earliest"), SeekTo::Earliest);
        assert_eq!(read("offset:7"), SeekTo::Offset(7));
        assert_eq!(read("7"), SeekTo::Offset(7));
        assert_eq!(read("time:7"), SeekTo::Time(7_000_000));
        assert_eq!(read("time:1970-01-01T00:00:07Z"), SeekTo::Time(7_000_000));
        for bad in ["", "first", "-1", "offset:", "offset:-1", "time:", "time:soon"] {
            assert!(seek_to("--to", bad).is_err(), "{bad}");
        }
    }
}
