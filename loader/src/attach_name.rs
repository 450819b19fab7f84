//! How an attach point is written in messages.

use std::fmt;

use bpfasm::object::Attach;

/// Displays an attach point as its kind and its target: `tp_btf inet_sock_set_state`.
pub struct AttachName<'a>(pub &'a Attach);

impl fmt::Display for AttachName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Attach::TpBtf(name) => write!(f, "tp_btf {name}"),
            Attach::RawTp(name) => write!(f, "raw_tp {name}"),
            Attach::Fentry(name) => write!(f, "fentry {name}"),
            Attach::Fexit(name) => write!(f, "fexit {name}"),
            Attach::Kprobe(name) => write!(f, "kprobe {name}"),
            Attach::Kretprobe(name) => write!(f, "kretprobe {name}"),
            Attach::Tracepoints(category, names) => {
                f.write_str("tracepoint ")?;
                for (i, name) in names.iter().enumerate() {
                    write!(f, "{}{category}:{name}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Attach::Iter(name) => write!(f, "iter {name}"),
            other => write!(f, "{other:?}"),
        }
    }
}
