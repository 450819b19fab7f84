//! What tools have in common that follow sockets from state to state: the table, whose sockets they are, and one program of
//! their own on `inet_sock_set_state`.

use bpfasm::object::{Hook, Layout, Object};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment};

use crate::owner_hooks::{self, Fill};
use crate::{emit, state_change, stats, table};

/// Such a tool.
pub struct StateTool {
    /// Its name.
    pub name: &'static str,
    /// What it keeps of a socket.
    pub entry: Layout,
    /// How many sockets the table has room for.
    pub max_sockets: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
    /// Its program on `inet_sock_set_state`.
    pub state_change: Fragment,
    /// Its program on `tcp_destroy_sock`, where there is more to do than to delete the entry.
    pub destroyed: Option<Fragment>,
    /// Hooks that complete an entry after the socket's birth: [`owner::hooks`], where its owner is not known from the start.
    pub learn: Vec<Hook>,
    /// How the entry of a socket that was open before is completed, if such are wanted.
    pub snapshot: Option<Fill>,
}

impl StateTool {
    /// Its programs and maps.
    pub fn object(self, target: &Target) -> Result<Object, AsmError> {
        let mut hooks = vec![match self.destroyed {
            None => table::destroy_hook()?,
            Some(program) => table::destroyed_hook(target, program)?,
        }];
        hooks.extend(self.learn);
        // After the hooks that improve an entry, so that none is born unobserved; before the walk over what is open.
        hooks.push(state_change::hook(target, self.state_change)?);
        if let Some(fill) = self.snapshot {
            hooks.push(owner_hooks::open_sockets(self.entry, fill)?);
        }
        let maps = vec![
            emit::map(target.ring, self.ring_bytes),
            stats::map(),
            table::map(self.entry, self.max_sockets),
        ];
        Ok(crate::object(self.name, hooks, maps))
    }
}
