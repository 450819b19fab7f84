//! Statistics over the numbers of several rounds.

/// The median of the finite values; `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted.get(middle).copied(),
        _ => Some((sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0),
    }
}

/// The smallest finite value.
pub fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().filter(|value| value.is_finite()).min_by(f64::total_cmp)
}

/// The greatest finite value.
pub fn greatest(values: &[f64]) -> Option<f64> {
    values.iter().copied().filter(|value| value.is_finite()).max_by(f64::total_cmp)
}

/// `part / whole`; `None` if `whole` is 0.
pub fn ratio(part: f64, whole: f64) -> Option<f64> {
    let ratio = part / whole;
    (whole != 0.0 && ratio.is_finite()).then_some(ratio)
}

/// The power of the size with which a cost grows between two measurements: 0 is constant, 1
/// proportional, 2 quadratic. Costs below `floor` are noise and count as `floor`.
pub fn exponent(small: (f64, f64), large: (f64, f64), floor: f64) -> f64 {
    (large.1.max(floor) / small.1.max(floor)).ln() / (large.0 / small.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_least_and_greatest() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, f64::INFINITY, 2.0]), Some(2.0));
        assert_eq!((least(&[2.0, 1.0]), greatest(&[1.0, 2.0])), (Some(1.0), Some(2.0)));
        assert_eq!((least(&[]), greatest(&[])), (None, None));
    }

    #[test]
    fn a_ratio_to_zero_is_unknown() {
        assert_eq!(ratio(1.0, 4.0), Some(0.25));
        assert_eq!(ratio(0.0, 4.0), Some(0.0));
        assert_eq!(ratio(1.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }

    #[test]
    fn exponents_of_growth() {
        let grows = |small, large| exponent(small, large, 0.1);
        assert!(
            (grows((10.0, 6.0), (100.0, 60.0)) - 1.0).abs() < 1e-9,
            "ten times as many, ten times the cost"
        );
        assert!((grows((10.0, 6.0), (100.0, 600.0)) - 2.0).abs() < 1e-9, "the square");
        assert!(grows((10.0, 5.0), (100.0, 4.0)) < 0.0, "cheaper");
        assert!(grows((10.0, 0.001), (100.0, 0.09)).abs() < 1e-9, "noise");
    }
}
