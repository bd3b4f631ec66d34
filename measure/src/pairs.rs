//! Alternating pairs and their medians. The ratio is the median of the pairs' ratios, not the ratio of the
//! medians: each pair was measured within seconds of itself, so that a machine that slows down over a run
//! doesn't count.

use anyhow::{Result, ensure};

/// What `pairs` alternating runs gave; rates, more is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Medians {
    /// Our median rate.
    pub ours: f64,
    /// Their median rate.
    pub theirs: f64,
    /// The median of the pairs' ratios.
    pub ratio: f64,
}

/// Runs `ours` and `theirs` in turn, `pairs` times each; both return a rate.
pub fn alternate(
    pairs: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<Medians> {
    let rates: Vec<_> = (0..pairs).map(|_| Ok((ours()?, theirs()?))).collect::<Result<_>>()?;
    of(&rates)
}

/// The medians of pairs that were measured already, ours first.
pub fn of(rates: &[(f64, f64)]) -> Result<Medians> {
    ensure!(rates.iter().all(|pair| pair.0 > 0.0 && pair.1 > 0.0), "a rate of zero can't be compared");
    Ok(Medians {
        ours: median(rates.iter().map(|pair| pair.0).collect()),
        theirs: median(rates.iter().map(|pair| pair.1).collect()),
        ratio: median(rates.iter().map(|pair| pair.0 / pair.1).collect()),
    })
}

/// `ours` alone, `times` times: the median.
pub fn repeat(times: usize, mut ours: impl FnMut() -> Result<f64>) -> Result<f64> {
    Ok(median((0..times).map(|_| ours()).collect::<Result<Vec<_>>>()?))
}

/// The middle value; the mean of the middle two where there are two. 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }

    #[test]
    fn the_ratio_is_that_of_the_pairs() {
        let (mut a, mut b) = ([1.0, 10.0, 2.0].into_iter(), [1.0, 5.0, 1.0].into_iter());
        let medians = alternate(3, || Ok(a.next().unwrap_or(0.0)), || Ok(b.next().unwrap_or(0.0)));
        assert_eq!(medians.expect("all above zero"), Medians { ours: 2.0, theirs: 1.0, ratio: 2.0 });
    }
}
