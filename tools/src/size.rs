//! Sizes as people write them: `512M`, `4G`, `4GiB`, `4g`, `1.5G`, `25%`.
//!
//! Prefixes are binary (`4G` is `4GiB`: memory is bought so), a bare number is bytes, a percentage is of the
//! machine's memory. Zero and sizes beyond the machine are refused with a sentence, before anything happens.

use std::fmt;
use std::str::FromStr;

/// The smallest budget a mount can work with: a few huge pages a file, for a few files.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// A size that still may be relative to the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// So many bytes.
    Bytes(u64),
    /// A share of the machine's memory, in percent.
    Percent(f64),
}

impl Size {
    /// The size in bytes on a machine with `machine_bytes` of memory.
    pub fn of(self, machine_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (machine_bytes as f64 * percent / 100.0) as u64,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&human(*bytes)),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number
            .parse()
            .map_err(|_| format!("'{text}' is not a size; write it as 512M, 4G, 4GiB or 25%"))?;
        let size = match unit.trim() {
            "%" if number <= 100.0 => Self::Percent(number),
            "%" => return Err(format!("{text} is more than the whole machine; give 100% or less")),
            unit => {
                let factor = factor(unit).ok_or_else(|| {
                    format!("'{unit}' is not a unit of size; use K, M, G, T or % (as in 4G or 25%)")
                })?;
                let bytes = number * factor;
                if bytes > u64::MAX as f64 {
                    return Err(format!(
                        "{text} is more than any machine has; write a size such as 4G or 25%"
                    ));
                }
                Self::Bytes(bytes as u64)
            }
        };
        if matches!(size, Self::Bytes(0)) || size == Self::Percent(0.0) {
            return Err(format!("a size of {text} is nothing to work with; write a size such as 4G or 25%"));
        }
        Ok(size)
    }
}

fn factor(unit: &str) -> Option<f64> {
    let exponent = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    Some(1024_f64.powi(exponent))
}

/// The budget of a mount in bytes: `asked`, or a quarter of the machine. The error is a whole sentence.
pub fn memory_budget(asked: Option<Size>, machine_bytes: u64) -> Result<u64, String> {
    let Some(asked) = asked else { return Ok(machine_bytes / 4) };
    let bytes = asked.of(machine_bytes);
    if bytes > machine_bytes {
        return Err(format!(
            "--memory {asked} is more than this machine has ({}); give less, or a share such as 25%",
            human(machine_bytes)
        ));
    }
    if bytes < MEMORY_BYTES_MIN {
        return Err(format!(
            "--memory {asked} is too little to work with; give at least {}",
            human(MEMORY_BYTES_MIN)
        ));
    }
    Ok(bytes)
}

/// The machine's memory in bytes.
pub fn machine_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// A size for people: three digits and a binary unit.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 100.0 && value.fract() > 0.004);
    format!("{value:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 16 << 30;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases = [
            ("512M", Size::Bytes(512 << 20)),
            ("4G", Size::Bytes(4 << 30)),
            ("4GiB", Size::Bytes(4 << 30)),
            ("4gb", Size::Bytes(4 << 30)),
            ("1.5G", Size::Bytes(3 << 29)),
            ("4096", Size::Bytes(4096)),
            ("25%", Size::Percent(25.0)),
        ];
        for (text, size) in cases {
            assert_eq!(text.parse(), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "G", "4X", "-1G", "four", "0", "0G", "0%", "101%", "1e9G", "4 G G", "999999999999T"]
        {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_default_is_a_quarter_of_the_machine() {
        assert_eq!(memory_budget(None, MACHINE), Ok(4 << 30));
    }

    #[test]
    fn more_than_the_machine_has_is_refused_with_what_it_has() {
        let error = memory_budget(Some(Size::Bytes(17 << 30)), MACHINE).expect_err("17 of 16 GiB");
        assert!(error.contains("16 GiB"), "{error}");
        assert_eq!(memory_budget(Some(Size::Percent(100.0)), MACHINE), Ok(MACHINE));
    }

    #[test]
    fn too_little_is_refused() {
        assert!(memory_budget(Some(Size::Bytes(1)), MACHINE).is_err());
    }

    #[test]
    fn sizes_are_shown_short() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(4 << 30), "4 GiB");
        assert_eq!(human(3 << 29), "1.5 GiB");
        assert_eq!(human(700 << 20), "700 MiB");
    }
}
