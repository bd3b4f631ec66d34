//! Partitions: streams that are one to their groups.
//!
//! A *partitioned stream* is a directory of streams named `0`, `1` and so on. Each is a whole stream with its
//! own writers, order and offsets, and can be used as one. What makes them one is a line of each one's
//! settings, [`Partition`]: the number that the set was given when it was made, how many belong to it, and
//! which of them this is. So the set is moved, renamed and found as the directory that it is, with a mount or
//! without, and one that was removed or put elsewhere is missed.

use super::StreamId;
use std::fmt;
use std::str::FromStr;

/// Partitions of one stream, at most: each costs a daemon two descriptors and some syncs when it is made, and a
/// member that has them all looks at each before it waits.
pub const PARTITIONS_MAX: u32 = 1024;

/// What a partition's settings say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// The partitioned stream, for ever: 128 random bits.
    pub set: StreamId,
    /// Which of them this is, from 0 on.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl Partition {
    /// The name of a partition in its directory.
    pub fn name(number: u32) -> String {
        number.to_string()
    }

    /// The number that a name in a directory is for, if it may be a partition's.
    pub fn number_of(name: &[u8]) -> Option<u32> {
        let number = std::str::from_utf8(name).ok()?.parse().ok()?;
        (number < PARTITIONS_MAX && Partition::name(number).as_bytes() == name).then_some(number)
    }

    /// Whether the stream named `number` of the directory of this one is of the same set, and the one that
    /// belongs there.
    pub fn is_beside(&self, number: u32, other: &Partition) -> bool {
        *other == Partition { number, ..*self }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} in {}", self.number, self.count, self.set)
    }
}

impl FromStr for Partition {
    type Err = ();

    fn from_str(text: &str) -> Result<Partition, ()> {
        let (number, rest) = text.split_once(" of ").ok_or(())?;
        let (count, set) = rest.split_once(" in ").ok_or(())?;
        let number = number.parse().map_err(drop)?;
        let count = count.parse().map_err(drop)?;
        if number >= count || count > PARTITIONS_MAX {
            return Err(());
        }
        Ok(Partition { set: set.parse()?, number, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let partition = Partition { set: StreamId(0xab), number: 2, count: 4 };
        assert_eq!(partition.to_string().parse(), Ok(partition));
        for bad in ["", "2 of 4", "4 of 4 in 0", "0 of 9999 in 000000000000000000000000000000ab"] {
            assert_eq!(bad.parse::<Partition>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn names_are_numbers_as_one_writes_them() {
        assert_eq!(Partition::number_of(b"10"), Some(10));
        for other in [&b""[..], b"01", b"+1", b"-1", b"1024", b"a", b"\xff"] {
            assert_eq!(Partition::number_of(other), None);
        }
    }
}
