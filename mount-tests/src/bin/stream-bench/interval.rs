//! 95% confidence intervals of ratios, by bootstrap: runs are drawn with replacement, and within each run its
//! seconds, because the seconds of one run resemble each other more than those of two.

use aimss_measure::pairs::median;

const DRAWS: usize = 2000;
/// Of the draws, what lies on either side of the interval.
const TAIL: f64 = 0.025;

/// The samples of one run on each side.
pub type Pair = (Vec<f64>, Vec<f64>);

/// The median over pairs of the ratio of the sides' medians.
pub fn ratio(pairs: &[Pair]) -> f64 {
    median(pairs.iter().map(|(ours, theirs)| median(ours.clone()) / median(theirs.clone())).collect())
}

/// The interval of [`ratio`], the same for the same samples.
pub fn interval(pairs: &[Pair]) -> (f64, f64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<Pair> = (0..pairs.len())
                .map(|_| {
                    let (ours, theirs) = random.of(pairs);
                    (random.resampled(ours), random.resampled(theirs))
                })
                .collect();
            ratio(&drawn)
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws[(share * (DRAWS - 1) as f64).round() as usize];
    (at(TAIL), at(1.0 - TAIL))
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        &values[(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % values.len()]
    }

    fn resampled(&mut self, values: &[f64]) -> Vec<f64> {
        (0..values.len()).map(|_| *self.of(values)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_ratio_and_is_narrow_where_samples_agree() {
        let pairs: Vec<Pair> = (0..5)
            .map(|run| (vec![20.0, 21.0, 19.0 + f64::from(run) / 10.0], vec![10.0, 10.1, 9.9]))
            .collect();
        let (low, high) = interval(&pairs);
        assert!(low <= ratio(&pairs) && ratio(&pairs) <= high, "{low} {high}");
        assert!(low > 1.8 && high < 2.2, "{low} {high}");
    }

    #[test]
    fn without_spread_it_is_a_point() {
        let (low, high) = interval(&[(vec![3.0], vec![2.0])]);
        assert!((low - 1.5).abs() < 1e-9 && (high - 1.5).abs() < 1e-9);
    }
}
