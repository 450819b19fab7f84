//! Prints the processes and threads that are created during one second. Run it as root:
//! `cargo run -p loader --example count_forks`

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use bpfasm::{Attach, Hook, MapDef, MapKind, Need, Object, Program, ProgramDef, bpf};
use loader::{Loader, kernel_btf};

fn main() -> Result<(), Box<dyn Error>> {
    // The kernel calls it with (parent, child), both a `struct task_struct *`. It sends the child's
    // pid.
    let code = bpf! {
        r2 = *(u64 *)(r1 + 8);
        w2 = *(u32 *)(r2 + task_struct.pid);        // the loader looks up the offset in BTF
        *(u64 *)(r10 - 8) = r2;
        r1 = map events ll; r2 = r10; r2 += -8; r3 = 8;
        r4 = 1;                                     // BPF_RB_NO_WAKEUP: this program polls
        call bpf_ringbuf_output;
        r0 = 0;
        exit;
    };
    let attach = Attach::TpBtf("sched_process_fork".into());
    let program = ProgramDef { name: "fork".into(), attach, program: Program::link("fork", code)? };
    let object = Object {
        name: "count_forks".into(),
        license: "GPL".into(),
        hooks: vec![Hook::new("fork", Need::Required, vec![program])],
        maps: vec![MapDef::new("events", MapKind::RingBuf, 0, 0, 64 << 10)],
        consts: Vec::new(),
    };

    let btf = kernel_btf(None)?;
    let mut loaded = Loader::new(&btf).load(&object)?;
    loaded.attach()?;
    let mut events = loaded.events("events")?;
    let mut print = |event: &[u8]| {
        if let Some(pid) = event.first_chunk() {
            println!("pid {}", u64::from_ne_bytes(*pid));
        }
    };

    println!("this program starts {}", Command::new("true").spawn()?.id());
    let end = Instant::now() + Duration::from_secs(1);
    let mut count = 0;
    while Instant::now() < end {
        events.wait(Duration::from_millis(50))?;
        count += events.drain(&mut print)?.records;
    }
    loaded.detach();
    count += events.drain(&mut print)?.records; // what was sent before it was detached
    println!("{count} created");
    Ok(())
}
