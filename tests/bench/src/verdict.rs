//! The short run: fails if something has become much slower or larger. Failed checks are measured
//! again before they count, because other work on the machine can make a single measurement slow.

use std::fmt;

use crate::contender::Maker;
use crate::fault::{Fault, Result};
use crate::figure::size;
use crate::figure::start::{self, Starts};
use crate::figure::storm::{self, Storm};
use crate::figure::{Plan, events, grow};
use crate::limit::Limit;

/// How often a group of checks is measured before a failure counts.
const ATTEMPTS: usize = 3;

/// A number and its limit.
#[derive(Clone, PartialEq, Debug)]
pub struct Check {
    what: String,
    value: Option<f64>,
    limit: Limit,
}

impl Check {
    fn new(what: impl fmt::Display, value: Option<f64>, limit: Limit) -> Self {
        Self { what: what.to_string(), value, limit }
    }

    /// Whether the number was measured and keeps its limit.
    fn passes(&self) -> bool {
        self.value.is_some_and(|value| self.limit.is_kept_by(value))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (relation, limit) = match self.limit {
            Limit::AtLeast(limit) => ("at least", limit),
            Limit::AtMost(limit) => ("at most", limit),
        };
        let result = if self.passes() { "ok    " } else { "FAILED" };
        match self.value {
            Some(value) => write!(f, "{result} {}: {value:.2} ({relation} {limit:.2})", self.what),
            None => write!(f, "{result} {}: not measured", self.what),
        }
    }
}

/// Measures checks that need the same rounds.
type Group = fn(&Plan) -> Result<Vec<Check>>;

/// Measures all groups, prints each check, and fails if one does.
pub fn run(plan: &Plan) -> Result<()> {
    let groups: [Group; 5] = [size, starts, storms, steady, sockets];
    let mut failed = 0;
    for group in groups {
        let mut attempt = 1;
        let checks = loop {
            let checks = group(plan)?;
            if checks.iter().all(Check::passes) || attempt == ATTEMPTS {
                break checks;
            }
            checks
                .iter()
                .filter(|check| !check.passes())
                .for_each(|check| eprintln!("measuring again: {check}"));
            attempt += 1;
        };
        for check in &checks {
            println!("{check}");
        }
        failed += checks.iter().filter(|check| !check.passes()).count();
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Fault::new(format!("{failed} checks failed in each of {ATTEMPTS} attempts")))
    }
}

fn size(plan: &Plan) -> Result<Vec<Check>> {
    let bytes = size::of_file(&plan.tcptools)? as f64;
    Ok(vec![Check::new("tcptools: size, MB", Some(bytes / 1e6), Limit::AtMost(size::LIMIT as f64 / 1e6))])
}

fn starts(plan: &Plan) -> Result<Vec<Check>> {
    let (starts, _) = start::measure(plan)?;
    Ok(judge_starts(&starts))
}

fn judge_starts(starts: &[Starts]) -> Vec<Check> {
    let mut checks = Vec::new();
    for ours in starts.iter().filter(|start| start.contender.maker == Maker::Tcptools) {
        let name = &ours.contender;
        let peer = starts
            .iter()
            .find(|peer| peer.contender.maker == Maker::Libbpf && peer.contender.tool == ours.contender.tool);
        // Without a peer the limit is a fixed time that a busy machine keeps, too.
        let limit = peer.and_then(|peer| peer.attached).unwrap_or(250.0);
        checks.push(Check::new(
            format_args!("{name}: from exec until attached, ms"),
            ours.attached,
            Limit::AtMost(limit),
        ));
        let peak = ours.peak.map(|bytes| bytes / 1e6);
        checks.push(Check::new(format_args!("{name}: peak resident memory, MB"), peak, Limit::AtMost(6.0)));
    }
    checks
}

fn storms(plan: &Plan) -> Result<Vec<Check>> {
    let (storms, _) = storm::measure(plan)?;
    Ok(judge_storms(&storms))
}

fn judge_storms(storms: &[Storm]) -> Vec<Check> {
    let mut checks = Vec::new();
    for ours in storms.iter().filter(|storm| storm.contender.maker == Maker::Tcptools) {
        let name = &ours.contender;
        let share =
            Check::new(format_args!("{name}: share of connections/s"), ours.ratio(), Limit::AtLeast(0.6));
        checks.push(share);
        // A program that sends an event in each run takes as long as four to seven empty programs.
        let run = ours.nanos_per_run.zip(ours.empty).map(|(run, empty)| run / empty);
        checks.push(Check::new(
            format_args!("{name}: time per run, in runs of an empty program"),
            run,
            Limit::AtMost(12.0),
        ));
        if let Some(peer) = storms
            .iter()
            .find(|peer| peer.contender.maker == Maker::Libbpf && peer.contender.tool == ours.contender.tool)
        {
            let user = ours.user.zip(peer.user).map(|(ours, peer)| ours / peer);
            checks.push(Check::new(
                format_args!("{name}: user CPU, share of libbpf-tools'"),
                user,
                Limit::AtMost(1.0),
            ));
        }
    }
    checks
}

fn steady(plan: &Plan) -> Result<Vec<Check>> {
    let (steady, _) = events::steady(plan)?;
    let lost = |(due, came): (u64, u64)| due.saturating_sub(came) as f64;
    let checks = steady.iter().map(|one| {
        Check::new(
            format_args!("{}: rows lost at a steady rate", one.contender),
            Some(lost(one.rows)),
            Limit::AtMost(0.0),
        )
    });
    Ok(checks.collect())
}

fn sockets(_plan: &Plan) -> Result<Vec<Check>> {
    let ready = grow::start_with(crate::load::open::MAX_SOCKETS)?;
    Ok(vec![Check::new("tcplife: start with 100,000 sockets, ms", Some(ready), Limit::AtMost(2000.0))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Contender;

    #[test]
    fn a_check_passes_or_shows_the_number() {
        let check = |value, limit| Check::new("x", value, limit);
        assert!(check(Some(0.6), Limit::AtLeast(0.6)).passes());
        assert!(!check(Some(0.59), Limit::AtLeast(0.6)).passes());
        assert!(check(Some(6.0), Limit::AtMost(6.0)).passes());
        assert!(!check(None, Limit::AtMost(6.0)).passes());
        assert_eq!(check(Some(7.0), Limit::AtMost(6.0)).to_string(), "FAILED x: 7.00 (at most 6.00)");
    }

    #[test]
    fn a_storm_is_compared_with_its_peer() {
        let storm = |contender: Contender, part, user| Storm {
            contender,
            ratios: vec![part],
            user: Some(user),
            cpu: None,
            rows: (1, 1),
            worst_loss: Some(0.0),
            nanos_per_run: Some(150.0),
            empty: Some(50.0),
            nanos_per_connection: None,
        };
        let ours = Contender::ours("tcplife", &[]);
        let mut peer = ours.clone();
        peer.maker = Maker::Libbpf;
        let failed = |storms: &[Storm]| judge_storms(storms).iter().filter(|check| !check.passes()).count();
        assert_eq!(failed(&[storm(ours.clone(), 0.9, 1.0), storm(peer.clone(), 0.2, 14.0)]), 0);
        assert_eq!(failed(&[storm(ours.clone(), 0.5, 15.0), storm(peer, 0.2, 14.0)]), 2);
        let starts = |attached| Starts {
            contender: ours.clone(),
            attached: Some(attached),
            first_row: None,
            peak: Some(3e6),
            stop: None,
        };
        assert!(judge_starts(&[starts(249.0)]).iter().all(Check::passes));
        assert!(!judge_starts(&[starts(251.0)]).iter().all(Check::passes));
    }
}
