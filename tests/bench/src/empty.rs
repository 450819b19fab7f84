//! An empty program at the tracepoint that most tools use: the minimum cost of a run on this
//! machine at this time.

use bpfasm::bpf;
use bpfasm::object::Attach;
use loader::Loaded;

use crate::fault::{During, Result};
use crate::own;
use crate::program::Runs;

/// The attached program; it is detached when this is dropped.
#[derive(Debug)]
pub struct Empty(Loaded);

impl Empty {
    pub fn attach() -> Result<Self> {
        const NAME: &str = "inet_sock_set_state";
        let hook = own::hook(NAME, Attach::RawTp(NAME.into()), bpf! { r0 = 0; exit; })?;
        let mut loaded = own::load(&own::object("empty", vec![hook], vec![]))?;
        loaded.attach().during("attach an empty program")?;
        Ok(Self(loaded))
    }

    /// Its runs so far; the kernel counts them only while statistics are enabled.
    pub fn runs(&self) -> Result<Runs> {
        let stats = self.0.stats().during("statistics")?;
        let sum = stats.iter().map(|program| (program.run_count, program.run_time_ns));
        Ok(sum.fold(Runs::default(), |sum, (count, nanos)| Runs {
            count: sum.count + count,
            nanos: sum.nanos + nanos,
        }))
    }
}
