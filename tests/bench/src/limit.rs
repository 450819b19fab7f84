//! What a number has to be.

/// From which side, and how far.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Limit {
    /// Whether a number keeps to it.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_from_its_own_side() {
        assert!(Limit::AtLeast(0.9).holds(0.9) && !Limit::AtLeast(0.9).holds(0.89));
        assert!(Limit::AtMost(0.0).holds(0.0) && !Limit::AtMost(0.0).holds(0.01));
    }
}
