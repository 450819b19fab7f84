//! How a tool is checked: the connections that are made, and the rows that it has to print.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::expect::Row;

/// What a tool is run with, and what it has to print.
pub struct Check {
    /// Options of the tool.
    pub args: &'static [&'static str],
    /// What happens, and the rows that the tool has to print: these and no others, in any order.
    pub scenario: Scenario,
}

/// What happens while a tool is checked, and the rows that follow from it.
pub enum Scenario {
    /// A connection that carries bytes both ways, and a connect that is refused.
    Conversation(fn(&Conversation) -> Vec<Row>),
    /// A connect whose SYN is not answered and is sent again.
    UnansweredConnect(fn(&UnansweredConnect) -> Vec<Row>),
}

/// One endpoint of a connection.
pub struct Side {
    pub(super) local: SocketAddrV4,
    pub(super) remote: SocketAddrV4,
    /// `None` if its number in the initial PID namespace is unknown.
    pub(super) pid: Option<u32>,
    pub(super) comm: String,
    /// Bytes that its process sent.
    pub sent: usize,
    /// Bytes that its process received.
    pub received: usize,
}

impl Side {
    /// Both endpoints, under the keys that most tools have for them.
    #[must_use]
    pub fn endpoints(&self) -> Row {
        Row::default()
            .is("ip", 4)
            .is("laddr", self.local.ip().to_string())
            .is("lport", self.local.port())
            .is("raddr", self.remote.ip().to_string())
            .is("rport", self.remote.port())
    }

    /// Both endpoints and the owner.
    #[must_use]
    pub fn row(&self) -> Row {
        let row = self.endpoints().is("comm", self.comm.as_str());
        self.pid.map_or(row.clone(), |pid| row.is("pid", pid))
    }

    /// Both endpoints and the owner, who may be unknown on this kernel or at this moment.
    #[must_use]
    pub fn row_maybe_owned(&self) -> Row {
        let row = self.endpoints().maybe("comm", self.comm.as_str());
        self.pid.map_or(row.clone(), |pid| row.maybe("pid", pid))
    }

    /// The local endpoint.
    #[must_use]
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// The remote endpoint.
    #[must_use]
    pub fn remote(&self) -> SocketAddrV4 {
        self.remote
    }
}

/// A connection that carried bytes both ways and was closed by its client, and a connect that was
/// refused.
pub struct Conversation {
    /// This process.
    pub client: Side,
    /// The peer process, which read before it wrote.
    pub server: Side,
    /// This process, in the refused connect.
    pub refused: Side,
    /// Duration of the `connect` call.
    pub connect: Duration,
    /// Duration of the refused `connect` call.
    pub refusal: Duration,
    /// How long both endpoints were established, at least and at most.
    pub open: (Duration, Duration),
    /// The user of both processes.
    pub uid: u32,
}

/// A connect that was not answered, and was given up once its SYN was sent again.
pub struct UnansweredConnect {
    /// This process.
    pub client: Side,
    /// Number of retransmissions, as the kernel counts them.
    pub retransmissions: u64,
}
