//! A model of a slow backing as people write it: `latency=5ms,bandwidth=300MiB/s,streams=8,jitter=10%,seed=1`.

use crate::{duration, size};
use aimss_engine::backing::SlowModel;

const FORM: &str = "write it as latency=5ms,bandwidth=300MiB/s, with streams=8, jitter=10% and seed=1 behind it where wanted";

/// Reads `10%` as 0.1; `None` for what is no share from 0% to 100%.
pub fn share(text: &str) -> Option<f64> {
    let percent = text.trim().strip_suffix('%')?.parse::<f64>().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// Reads a model; the error is a sentence.
pub fn parse(text: &str) -> Result<SlowModel, String> {
    let mut model = SlowModel::default();
    for part in text.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            return Err(format!("'{part}' is no setting of a slow backing; {FORM}"));
        };
        match key.trim() {
            "latency" => model.latency = duration::parse(value)?,
            "bandwidth" => {
                let bytes = value.trim().strip_suffix("/s").unwrap_or(value).parse::<size::Size>()?;
                let size::Size::Bytes(bytes) = bytes else {
                    return Err(format!("bandwidth={value} is no rate; write it as bandwidth=300MiB/s"));
                };
                model.bandwidth = bytes;
            }
            "streams" => {
                model.streams =
                    value.trim().parse().ok().filter(|&streams| streams > 0).ok_or_else(|| {
                        format!("streams={value} is no number of transfers at once; write it as streams=8")
                    })?;
            }
            "jitter" => {
                model.jitter = share(value).ok_or_else(|| {
                    format!("jitter={value} is no share from 0% to 100%; write it as jitter=10%")
                })?;
            }
            "seed" => {
                model.seed = value.trim().parse().map_err(|_| format!("seed={value} is no whole number"))?;
            }
            other => return Err(format!("'{other}' is no setting of a slow backing; {FORM}")),
        }
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_model_is_read() {
        let model = parse("latency=5ms,bandwidth=300MiB/s,streams=4,jitter=10%,seed=7").expect("it is one");
        let latency = Duration::from_millis(5);
        assert_eq!(model, SlowModel { latency, bandwidth: 300 << 20, streams: 4, jitter: 0.1, seed: 7 });
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for text in ["", "5ms", "latency=soon", "bandwidth=10%", "streams=0", "jitter=2", "speed=9"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
