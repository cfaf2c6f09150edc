//! Medians, and when a ratio means something.

/// Rounds that a ratio needs at least.
pub const LEAST_ROUNDS: usize = 3;

/// The widest spread of a ratio that is believed: the distance between its quartiles, as a share of its median.
pub const WIDEST: f64 = 0.15;

/// The middle of some values, and the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Lower quartile.
    pub low: f64,
    /// Median.
    pub median: f64,
    /// Upper quartile.
    pub high: f64,
    /// How many values there were.
    pub count: usize,
}

impl Spread {
    /// Of some values; of none it is not a number.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&sorted, share);
        Self { low: at(0.25), median: at(0.5), high: at(0.75), count: values.len() }
    }

    /// Of `ours` to `theirs`, round by round.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Self::of(&ratios)
    }

    /// The distance between the quartiles, as a share of the median.
    pub fn width(&self) -> f64 {
        (self.high - self.low) / self.median
    }

    /// Whether a ratio may be printed: there are at least [`LEAST_ROUNDS`] rounds, and they agree to [`WIDEST`].
    pub fn is_trusted(&self) -> bool {
        self.count >= LEAST_ROUNDS && self.median.is_finite() && self.width() <= WIDEST
    }
}

/// The value below which such a share of the sorted values lies, between two of them in proportion.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let (low, high) = (sorted[below.min(last)], sorted[(below + 1).min(last)]);
    low + (high - low) * part
}

/// The median.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(&values.into_iter().collect::<Vec<_>>()).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        let spread = Spread::of(&[1.0, 2.0]);
        assert_eq!((spread.low, spread.median, spread.high), (1.25, 1.5, 1.75));
        assert!(Spread::of(&[]).median.is_nan() && !Spread::of(&[]).is_trusted());
    }

    #[test]
    fn a_drift_that_both_share_does_no_harm() {
        let (ours, theirs) = ([6.0, 12.0, 24.0, 6.6], [1.0, 2.0, 4.0, 1.1]);
        let ratio = Spread::of_ratios(&ours, &theirs);
        assert!(ratio.is_trusted() && (ratio.median - 6.0).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_whose_rounds_disagree_is_refused() {
        let steady = [1.0; 5];
        // Quartiles 0.95 and 1.05: a tenth of the median; then 0.9 and 1.1: a fifth.
        assert!(Spread::of_ratios(&[0.5, 0.95, 1.0, 1.05, 1.5], &steady).is_trusted());
        assert!(!Spread::of_ratios(&[0.5, 0.9, 1.0, 1.1, 1.5], &steady).is_trusted());
        // Exactly the bound is still good, and two rounds are too few to know.
        assert!(Spread { low: 0.925, median: 1.0, high: 1.075, count: 3 }.is_trusted());
        assert!(!Spread::of_ratios(&[1.0, 1.0], &[1.0, 1.0]).is_trusted());
        assert!(!Spread::of_ratios(&[1.0; 3], &[0.0; 3]).is_trusted());
    }
}
