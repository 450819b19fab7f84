//! Where cases are run, and with which options.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use bpfasm::{Access, Object, Ring, Target};
use programs::filter::{Family, Filter};
use programs::stats::Stats;

use crate::spec::{OWNER, Spec};
use crate::tool::{Ready, Tool};
use crate::vm::code::Code;
use crate::vm::kernel::{KERNELS, Kernel};

const ZERO: Stats = Stats {
    seen: 0,
    filtered: 0,
    reported: 0,
    aggregated: 0,
    lost_ring: 0,
    lost_map: 0,
    untracked: 0,
    hidden: 0,
};

/// The time of a step, in nanoseconds: both halves of it differ from those of other steps.
pub const fn ns(step: u64) -> u64 {
    step << 36 | step << 4
}

/// What an event may be counted as.
pub mod fate {
    use super::{Stats, ZERO};

    /// It does not belong to the tool.
    pub const NOTHING: Stats = ZERO;
    pub const FILTERED: Stats = Stats { seen: 1, filtered: 1, ..ZERO };
    pub const REPORTED: Stats = Stats { seen: 1, reported: 1, ..ZERO };
    pub const AGGREGATED: Stats = Stats { seen: 1, aggregated: 1, ..ZERO };
    pub const LOST_RING: Stats = Stats { seen: 1, lost_ring: 1, ..ZERO };
    /// Lost, and later events of the socket will know less.
    pub const LOST_MAP: Stats = Stats { seen: 1, lost_map: 1, untracked: 1, ..ZERO };
    /// Not wanted, and later events of the socket will know less.
    pub const FILTERED_UNTRACKED: Stats = Stats { seen: 1, filtered: 1, untracked: 1, ..ZERO };
    /// Sent, but later events of the socket will know less.
    pub const REPORTED_UNTRACKED: Stats = Stats { seen: 1, reported: 1, untracked: 1, ..ZERO };

    /// Whether an event was sent that only a filter could have stopped.
    pub fn is_reported(fate: Stats) -> bool {
        assert!(fate == REPORTED || fate == FILTERED, "{fate:?}");
        fate == REPORTED
    }
}

/// States by their names alone.
pub mod state {
    use programs::tcp::State;

    pub const ESTABLISHED: State = State::ESTABLISHED;
    pub const SYN_SENT: State = State::SYN_SENT;
    pub const SYN_RECV: State = State::SYN_RECV;
    pub const FIN_WAIT1: State = State::FIN_WAIT1;
    pub const FIN_WAIT2: State = State::FIN_WAIT2;
    pub const CLOSE: State = State::CLOSE;
    pub const CLOSE_WAIT: State = State::CLOSE_WAIT;
    pub const LAST_ACK: State = State::LAST_ACK;
    pub const LISTEN: State = State::LISTEN;
    pub const CLOSING: State = State::CLOSING;

    /// Every path from ESTABLISHED to CLOSE: the states between.
    pub const ENDS: [&[State]; 8] = [
        &[FIN_WAIT1, FIN_WAIT2],
        &[FIN_WAIT1, CLOSING],
        &[CLOSE_WAIT, LAST_ACK],
        &[FIN_WAIT1],
        &[FIN_WAIT1, FIN_WAIT2, CLOSING],
        &[CLOSE_WAIT],
        &[LAST_ACK],
        &[],
    ];
}

/// A set of options that many cases are run with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Set {
    /// No option at all.
    Narrow,
    /// Also what was there before.
    Wide,
    /// Filters of every kind, which let [`Spec::V4`] of [`OWNER`] through.
    Filtered,
    /// IPv6 only, and ports enough for a tree, which let [`Spec::V6`] through; also what failed.
    Six,
}

/// Where a case is run: on a kernel, for one of its targets, with one option set.
pub struct Lab {
    pub kernel: &'static Kernel,
    pub access: Access,
    pub ring: Ring,
    pub set: Set,
    /// A change to one of the programs.
    pub mutant: Option<Mutant>,
    /// Which programs were executed, by fingerprint.
    pub ran: RefCell<BTreeSet<u64>>,
}

/// A program with one instruction changed.
#[derive(Clone)]
pub struct Mutant {
    /// The fingerprint of the program.
    pub of: u64,
    /// Its code with the change.
    pub code: Code,
}

/// A statement about the programs, as a function that panics if it is wrong.
#[derive(Clone, Copy)]
pub struct Case {
    /// The module and the function.
    pub name: &'static str,
    /// The option sets it is about.
    pub sets: &'static [Set],
    /// Panics if the statement is wrong in this lab.
    pub run: fn(&Lab),
}

/// Every target that programs are built for on each kernel.
pub const TARGETS: [(Access, Ring); 4] = [
    (Access::Typed, Ring::RingBuf),
    (Access::Typed, Ring::PerfEventArray),
    (Access::Probed, Ring::RingBuf),
    (Access::Probed, Ring::PerfEventArray),
];

/// Every option set.
pub const SETS: [Set; 4] = [Set::Narrow, Set::Wide, Set::Filtered, Set::Six];

/// A lab with an option set on every kernel, for every target.
pub fn labs(set: Set) -> impl Iterator<Item = Lab> {
    let on = move |kernel| TARGETS.map(|(access, ring)| Lab::new(kernel, access, ring, set));
    KERNELS.iter().flat_map(on)
}

/// Runs one of a file's cases with each of its option sets on one kernel for one target. Which ones
/// these are depends on its position in the file, so that a file's cases together meet every kernel
/// and every target. The complete run ([`crate::complete`]) runs each case in every lab.
pub fn sample(cases: &[Case], name: &str) {
    let at = cases.iter().position(|case| case.name == name).expect("a case of the file");
    let before: usize = cases[..at].iter().map(|case| case.sets.len()).sum();
    for (number, set) in (before..).zip(cases[at].sets) {
        // In steps of five, the next one is another kernel and another target, and all are met
        // before one comes again.
        let place = number * 5 % (KERNELS.len() * TARGETS.len());
        let lab = labs(*set).nth(place).expect("fewer than there are");
        println!("{lab:?}");
        (cases[at].run)(&lab);
    }
}

/// Defines cases: functions of a [`Lab`], a test for each that runs a sample of it, and `CASES`
/// with all of them.
macro_rules! cases {
    ($($(#[$meta:meta])* fn $name:ident($lab:ident) in [$($set:ident),+] $body:block)*) => {
        $($(#[$meta])* fn $name($lab: &$crate::lab::Lab) $body)*

        /// The cases of this file.
        pub const CASES: &[$crate::lab::Case] = &[$($crate::lab::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            sets: &[$($crate::lab::Set::$set),+],
            run: $name,
        }),*];

        $(
            mod $name {
                #[test]
                fn sample() {
                    $crate::lab::sample(super::CASES, module_path!());
                }
            }
        )*
    };
}
pub(crate) use cases;

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}, {:?}, {:?}", self.kernel, self.access, self.ring, self.set)
    }
}

impl Lab {
    pub fn new(kernel: &'static Kernel, access: Access, ring: Ring, set: Set) -> Self {
        Self { kernel, access, ring, set, mutant: None, ran: RefCell::default() }
    }

    /// What programs are built for here.
    pub fn target(&self) -> Target {
        self.kernel.target(self.access, self.ring)
    }

    /// The filter of this set.
    pub fn filter(&self) -> Filter {
        match self.set {
            Set::Narrow | Set::Wide => Filter::default(),
            Set::Filtered => Filter {
                pid: Some(OWNER.tgid),
                family: Some(Family::V4),
                local_ports: vec![7, Spec::V4.lport],
                remote_ports: vec![1, 80, 443, Spec::V4.rport, 65535],
                ..Filter::default()
            },
            Set::Six => Filter {
                pid: None,
                family: Some(Family::V6),
                local_ports: vec![9, 2049, 3306, Spec::V6.lport, 27017, 50051],
                ..Filter::default()
            },
        }
    }

    /// A socket that the filter lets through when [`OWNER`] owns it.
    pub fn spec(&self) -> Spec {
        if self.set == Set::Six { Spec::V6 } else { Spec::V4 }
    }

    /// Sockets of every kind of address that the filter lets through.
    pub fn specs(&self) -> Vec<Spec> {
        match self.filter().family {
            None => vec![Spec::V4, Spec::V6, Spec::MAPPED],
            Some(Family::V4) => vec![Spec::V4, Spec::MAPPED],
            Some(Family::V6) => vec![Spec::V6],
        }
    }

    /// A tool at work. The key is different for every tool and every set of options.
    pub fn tool(&self, key: &str, object: impl FnOnce(&Target) -> Object) -> Tool<'_> {
        /// By options and target: a case is run many times.
        static READY: LazyLock<Mutex<HashMap<String, Arc<Ready>>>> = LazyLock::new(Mutex::default);
        let key = format!("{key} {} {:?} {:?}", self.kernel.name, self.access, self.ring);
        let ready = READY.lock().expect("no panic in here").get(&key).cloned();
        let ready = ready.unwrap_or_else(|| {
            let ready = Arc::new(Ready::new(self.kernel, object(&self.target())));
            READY.lock().expect("no panic in here").insert(key, Arc::clone(&ready));
            ready
        });
        Tool::new(self, ready)
    }
}

/// Bytes of the ring in every case; a quarter of it is 16384.
pub const RING_BYTES: u32 = 1 << 16;
