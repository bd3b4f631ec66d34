//! When checks may run on a GPU, and for how long at a time; logic alone.
//!
//! NVML counts our kernels, too. So it is asked only about a time in which we had none:
//!
//! 1. Nothing runs until we have been quiet for [`QUIET`], and after that in less than [`IDLE_PERCENT_MAX`] of the last
//!    sample there were kernels.
//! 2. Then it is our turn, for [`TURN`] at most: as long as others who come back go unseen at worst.
//! 3. A turn ends at once with a slice that took much longer than it should: the GPU shares its time between us and
//!    somebody else.
//!
//! A slice is as large as takes [`SLICE_TIME`] by what the last ones took.

use std::time::{Duration, Instant};

/// A GPU is idle that is used less. NVML rounds; a desktop has a few.
const IDLE_PERCENT_MAX: u32 = 3;
/// A sample is up to a second long, and may have been taken up to a second ago.
const QUIET: Duration = Duration::from_millis(2250);
/// In it an H200 reads more than all of its memory, so there is no need for longer ones.
const TURN: Duration = Duration::from_millis(100);
/// What a slice is to take: less than half of the 5 ms that nobody should wait, most of it more than a launch costs.
const SLICE_TIME: Duration = Duration::from_millis(2);
/// A slice that took so long was not alone.
const SLICE_TIME_MAX: Duration = Duration::from_millis(4);
/// Of the first slice: less than 2 ms of any GPU that has room for copies.
const SLICE_BYTES_FIRST: u64 = 64 << 20;
/// A page of the tier.
const SLICE_BYTES_MIN: u64 = 2 << 20;
/// Less than a millisecond of an H200's; larger ones wouldn't be faster.
const SLICE_BYTES_MAX: u64 = 4 << 30;

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    /// When our turn began, if it is ours.
    began: Option<Instant>,
    /// When a slice of ours ended last.
    ended: Option<Instant>,
    slice_bytes: u64,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { began: None, ended: None, slice_bytes: SLICE_BYTES_FIRST }
    }
}

impl Turns {
    /// Whether a slice may run `now`; `utilisation` is asked, in percent, where it matters.
    pub fn may_run<E>(
        &mut self,
        now: Instant,
        utilisation: impl FnOnce() -> Result<u32, E>,
    ) -> Result<bool, E> {
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.began.is_some_and(|began| since(began) < TURN) {
            return Ok(true);
        }
        self.began = None;
        if self.ended.is_some_and(|ended| since(ended) < QUIET) || utilisation()? >= IDLE_PERCENT_MAX {
            return Ok(false);
        }
        self.began = Some(now);
        Ok(true)
    }

    /// A slice of `bytes` ended `now`, which took so long on the GPU.
    pub fn ran(&mut self, now: Instant, bytes: u64, took: Duration) {
        self.ended = Some(now);
        if took > SLICE_TIME_MAX {
            self.began = None;
        }
        let wanted = if took > SLICE_TIME {
            (bytes as f64 * SLICE_TIME.as_secs_f64() / took.as_secs_f64()) as u64
        } else if took < SLICE_TIME / 2 && bytes > self.slice_bytes / 2 {
            self.slice_bytes * 2
        } else {
            self.slice_bytes
        };
        self.slice_bytes = wanted.clamp(SLICE_BYTES_MIN, SLICE_BYTES_MAX);
    }

    /// Of the next slice.
    pub fn slice_bytes(&self) -> u64 {
        self.slice_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(100);

    const IDLE: Result<u32, ()> = Ok(0);

    fn unasked() -> Result<u32, ()> {
        panic!("our own kernels are in it");
    }

    #[test]
    fn nothing_runs_while_others_do() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        for percent in [3, 50, 100] {
            assert_eq!(turns.may_run(start, || Ok::<_, ()>(percent)), Ok(false));
        }
        assert_eq!(turns.may_run(start, || Err(())), Err(()), "who doesn't know says so");
        assert_eq!(turns.may_run(start, || Ok::<_, ()>(2)), Ok(true));
    }

    #[test]
    fn a_turn_ends_and_the_next_begins_when_its_kernels_are_no_longer_counted() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        assert_eq!(turns.may_run(start, || IDLE), Ok(true));
        let mut now = start;
        while now < start + TURN {
            assert_eq!(turns.may_run(now, unasked), Ok(true));
            now += SLICE_TIME;
            turns.ran(now, SLICE_BYTES_FIRST, SLICE_TIME);
        }
        let ended = now;
        while now < ended + QUIET {
            assert_eq!(turns.may_run(now, unasked), Ok(false));
            now += Duration::from_millis(250);
        }
        assert_eq!(turns.may_run(now, || IDLE), Ok(true));
    }

    #[test]
    fn a_slice_that_was_not_alone_ends_the_turn() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        assert_eq!(turns.may_run(start, || IDLE), Ok(true));
        turns.ran(start, SLICE_BYTES_FIRST, FAST);
        assert_eq!(turns.may_run(start, unasked), Ok(true));
        turns.ran(start, SLICE_BYTES_FIRST, SLICE_TIME_MAX + FAST);
        assert_eq!(turns.may_run(start, unasked), Ok(false));
        assert_eq!(turns.may_run(start + QUIET, || Ok::<_, ()>(99)), Ok(false));
    }

    #[test]
    fn slices_become_as_large_as_fits_their_time() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let run = |turns: &mut Turns, rate: f64| {
            for _ in 0..20 {
                let bytes = turns.slice_bytes();
                turns.ran(now, bytes, Duration::from_secs_f64(bytes as f64 / rate));
            }
            turns.slice_bytes() as f64 / rate
        };
        for rate in [5e9, 3e11, 1e12] {
            let took = run(&mut turns, rate);
            assert!((0.0009..0.0021).contains(&took), "{took} at {rate} bytes a second");
        }
        run(&mut turns, 5e12);
        assert_eq!(turns.slice_bytes(), SLICE_BYTES_MAX);
        run(&mut turns, 1e6);
        assert_eq!(turns.slice_bytes(), SLICE_BYTES_MIN);
        turns.ran(now, 1, FAST);
        assert_eq!(turns.slice_bytes(), SLICE_BYTES_MIN, "a small one tells nothing");
    }
}
