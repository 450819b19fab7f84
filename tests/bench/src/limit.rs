//! Limits that a measured number must keep.

/// A lower or an upper limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    /// Whether a number keeps the limit.
    pub fn is_kept_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_includes_its_own_value() {
        assert!(Limit::AtLeast(0.9).is_kept_by(0.9) && !Limit::AtLeast(0.9).is_kept_by(0.89));
        assert!(Limit::AtMost(0.0).is_kept_by(0.0) && !Limit::AtMost(0.0).is_kept_by(0.01));
    }
}
