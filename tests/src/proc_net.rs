//! The TCP sockets of this namespace as `/proc/net/tcp` lists them: `sl local_address rem_address
//! st tx_queue:rx_queue`.

use std::fs;

/// A socket of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcSocket {
    /// Local port.
    pub(crate) local: u16,
    /// Remote port.
    pub(crate) remote: u16,
    /// As in `include/net/tcp_states.h`.
    pub(crate) state: u8,
    /// Bytes sent and not acknowledged yet.
    pub(crate) unacknowledged: u64,
}

/// `TCP_FIN_WAIT2`
pub(crate) const FIN_WAIT2: u8 = 5;
/// `TCP_LISTEN`
pub(crate) const LISTEN: u8 = 10;

/// All sockets, IPv4 first.
pub(crate) fn sockets() -> Vec<ProcSocket> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|file| fs::read_to_string(file).ok());
    tables.iter().flatten().flat_map(|table| table.lines()).filter_map(read).collect()
}

/// `None` for the line of headings.
fn read(line: &str) -> Option<ProcSocket> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let mut port = || u16::from_str_radix(columns.next()?.rsplit_once(':')?.1, 16).ok();
    let (local, remote) = (port()?, port()?);
    let state = u8::from_str_radix(columns.next()?, 16).ok()?;
    let unacknowledged = u64::from_str_radix(columns.next()?.split_once(':')?.0, 16).ok()?;
    Some(ProcSocket { local, remote, state, unacknowledged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_socket_and_the_headings_are_not() {
        let headings = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";
        assert_eq!(read(headings), None);
        let line = "   0: 0100007F:1F90 0100007F:C350 05 0000000A:00000001 00:00000000 00000000     0";
        let socket = ProcSocket { local: 8080, remote: 50000, state: FIN_WAIT2, unacknowledged: 10 };
        assert_eq!(read(line), Some(socket));
    }
}
