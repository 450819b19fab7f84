//! The cheapest program there is, at the tracepoint that most tools use: what a run costs at least, on this machine, now.

use bpfasm::object::{Attach, Hook, Need, Object, ProgramDef};
use bpfasm::{Program, bpf};
use loader::{Loaded, Loader};

use crate::fault::{During, Result};
use crate::program::Runs;

/// It runs until this is dropped.
#[derive(Debug)]
pub struct Empty(Loaded);

impl Empty {
    /// Attaches it.
    pub fn attach() -> Result<Self> {
        const NAME: &str = "inet_sock_set_state";
        let program = Program::link(NAME, bpf! { r0 = 0; exit; }).during("assemble")?;
        let rung = ProgramDef { name: NAME.into(), attach: Attach::RawTp(NAME.into()), program };
        let object = Object {
            name: "empty".into(),
            license: "GPL".into(),
            hooks: vec![Hook::new(NAME, Need::Required, vec![rung])],
            maps: vec![],
            consts: vec![],
        };
        let btf = loader::kernel_btf(None).during("BTF")?;
        let mut loaded = Loader::new(&btf).load(&object).during("load an empty program")?;
        loaded.attach().during("attach an empty program")?;
        Ok(Self(loaded))
    }

    /// Its runs so far, while statistics are on.
    pub fn runs(&self) -> Result<Runs> {
        let stats = self.0.stats().during("statistics")?;
        let sum = stats.iter().map(|program| (program.run_count, program.run_time_ns));
        Ok(sum.fold(Runs::default(), |sum, (count, nanos)| Runs {
            count: sum.count + count,
            nanos: sum.nanos + nanos,
        }))
    }
}
