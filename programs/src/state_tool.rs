//! Tools that follow sockets from state to state, and send an event at some of the changes. They
//! share the table, the hooks that find owners, and the order of hooks; each has a program of its
//! own on `inet_sock_set_state`.

use bpfasm::object::{Hook, Layout, Object};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment};

use crate::owner_hooks::{self, Fill};
use crate::{emit, state_change, stats, table};

pub struct StateTool {
    pub name: &'static str,
    /// What the table has for each socket.
    pub entry: Layout,
    pub max_sockets: u32,
    pub ring_bytes: u32,
    /// The program on `inet_sock_set_state`.
    pub state_change: Fragment,
    /// The program on `tcp_destroy_sock`, if it does more than delete the entry.
    pub destroyed: Option<Fragment>,
    /// Hooks that attach before the one on state changes, such as [`owner_hooks::improve`].
    pub other_hooks: Vec<Hook>,
    /// How the entry of a socket that was open at the start is completed. `None`: such sockets are
    /// not entered.
    pub open_sockets: Option<Fill>,
}

impl StateTool {
    pub fn object(self, target: &Target) -> Result<Object, AsmError> {
        let mut hooks = vec![match self.destroyed {
            None => table::destroy_hook()?,
            Some(program) => table::destroyed_hook(target, program)?,
        }];
        hooks.extend(self.other_hooks);
        // Entries are made by this hook. It attaches after the hooks that complete an entry, so
        // that these see every entry, and before the walk over open sockets, so that the walk finds
        // every socket that this hook does not.
        hooks.push(state_change::hook(target, self.state_change)?);
        if let Some(fill) = self.open_sockets {
            hooks.push(owner_hooks::preexisting(self.entry, fill)?);
        }
        let maps = vec![
            emit::map(target.ring, self.ring_bytes),
            stats::map(),
            table::map(self.entry, self.max_sockets),
        ];
        Ok(crate::object(self.name, hooks, maps))
    }
}
