//! The systemd journal, by its native protocol: datagrams of `FIELD=value` lines (systemd's
//! JOURNAL_NATIVE_PROTOCOL).

use std::os::unix::net::UnixDatagram;

use nix::unistd::geteuid;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the journal.
pub struct Journal {
    socket: UnixDatagram,
    as_root: bool,
    unsent: u64,
    text: String,
}

impl Journal {
    /// Connects to the journal.
    ///
    /// # Errors
    ///
    /// One line, if the journal does not answer.
    pub fn connect() -> Result<Self, String> {
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect(SOCKET)?;
            // A journal that does not read must not stop the reader of events.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: std::io::Error| {
            format!("-Y needs the systemd journal at {SOCKET}, which does not answer: {error}")
        })?;
        Ok(Self { socket, as_root: geteuid().is_root(), unsent: 0, text: String::new() })
    }

    /// Sends the entry that `write` composes. Its second argument is whether the sender is root.
    pub fn send(&mut self, write: impl FnOnce(&mut String, bool)) {
        self.text.clear();
        write(&mut self.text, self.as_root);
        if self.socket.send(self.text.as_bytes()).is_err() {
            self.unsent += 1;
        }
    }

    /// Entries that the journal did not accept.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }
}
