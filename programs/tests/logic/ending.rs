//! Why a socket changes to CLOSE, as far as its fields still show.

use programs::stats::Stats;
use programs::tcp::State;

use crate::spec::STRANGER;
use crate::tool::{Sock, Tool};

/// A socket's fields when it changes to CLOSE, and what the event has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// `sock.sk_err`
    pub err: u32,
    socket: u64,
    owned: bool,
    shutdown: u8,
    backlog: u32,
    /// Whether a process may have taken the error.
    pub taken: bool,
}

/// A socket of a process, whose state is changed by a packet or a timer, without an error: that is
/// gone.
const TAKEN: Ending = Ending { err: 0, socket: 1 << 63, owned: false, shutdown: 0, backlog: 0, taken: true };

/// All that can be distinguished.
pub const ENDINGS: [Ending; 11] = [
    TAKEN,
    Ending { socket: 1 << 24 | 1, shutdown: 3, backlog: 1, ..TAKEN },
    Ending { err: 1, taken: false, ..TAKEN },
    Ending { err: 1 << 31, taken: false, ..TAKEN },
    // No process is there to take it.
    Ending { socket: 0, taken: false, ..TAKEN },
    // The task that runs disconnects it, or closes it.
    Ending { owned: true, taken: false, ..TAKEN },
    Ending { owned: true, shutdown: 3, taken: false, ..TAKEN },
    Ending { owned: true, shutdown: 3, backlog: 1, taken: false, ..TAKEN },
    // Or a packet does that has waited for it.
    Ending { owned: true, backlog: 1 << 31, ..TAKEN },
    Ending { owned: true, shutdown: 1, backlog: 1, ..TAKEN },
    Ending { owned: true, shutdown: 2, backlog: 1, ..TAKEN },
];

impl Ending {
    /// The socket changes to CLOSE like that; what it was counted as.
    pub fn happens(self, tool: &mut Tool<'_>, now: u64, sock: Sock, old: State) -> Stats {
        tool.at(now, STRANGER);
        tool.set_sock(sock, "sock.sk_err", self.err.into());
        tool.set_sock(sock, "sock.sk_socket", self.socket);
        tool.set_sock(sock, "sock.sk_shutdown", self.shutdown.into());
        tool.set_sock(sock, "sock.sk_backlog.len", self.backlog.into());
        tool.owned(sock, self.owned);
        tool.change(sock, old, State::CLOSE)
    }
}
