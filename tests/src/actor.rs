//! A process that opens, uses and closes connections on command.
//!
//! Client and server of a test are processes of their own with names of their own, so a row with
//! the wrong owner (or with the process that happened to be on the CPU) is noticed. They take one
//! command at a time, so the test knows the order of events.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};

use crate::actor_process;
use crate::bytes::{RecvBy, SendBy};
use crate::deadline::{Deadline, WAIT_LIMIT, patient, wait_until};
use crate::scratch::Scratch;

/// The time limit of an answer: longer than that of a socket call of the actor.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A connection of an actor, as its socket describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conn {
    id: u32,
    /// From `getsockname(2)`.
    pub local: SocketAddr,
    /// From `getpeername(2)`, or the target of a connect.
    pub remote: SocketAddr,
}

impl Conn {
    /// A connection known by its addresses only, without a number of the actor's.
    pub(crate) fn unnumbered(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { id: u32::MAX, local, remote }
    }
}

/// A socket call of an actor that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// The error's name in `errno.h`.
    pub errno: String,
    /// Facts about the socket.
    pub facts: String,
}

/// A process: its id and the name that a correct row has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Who {
    /// The process id, in the namespace of the runner.
    pub pid: u32,
    /// `/proc/PID/comm`.
    pub comm: String,
}

/// The test's side of an actor. Dropping it ends the process.
#[derive(Debug)]
pub struct Actor {
    who: Who,
    control: BufReader<UnixStream>,
    /// `None` for a process that another actor has started.
    child: Option<Child>,
    asked: String,
}

impl Actor {
    /// Starts an actor in the network namespace this process is in.
    ///
    /// # Panics
    /// If the process cannot be started or does not answer, or the name is too long for the kernel.
    #[must_use]
    #[track_caller]
    pub fn start(comm: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let child = Command::new("/proc/self/exe")
            .args([actor_process::FLAG, comm])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("start an actor");
        Self::greet(ours, comm, Some(child))
    }

    #[track_caller]
    fn greet(control: UnixStream, comm: &str, child: Option<Child>) -> Self {
        assert!(comm.len() < 16, "TASK_COMM_LEN is 16, its NUL included: {comm}");
        control.set_read_timeout(Some(patient(ANSWER_LIMIT))).expect("set a time limit");
        let mut actor = Self {
            who: Who { pid: 0, comm: comm.to_owned() },
            control: BufReader::new(control),
            child,
            asked: "greeting".to_owned(),
        };
        let pid = actor.answer().expect("greeting");
        actor.who.pid = pid.parse().expect("an actor greets with its process id");
        actor
    }

    /// The process.
    #[must_use]
    pub fn who(&self) -> Who {
        self.who.clone()
    }

    /// Listens on an address (port 0: any) and returns the address.
    #[track_caller]
    pub fn listen(&mut self, address: SocketAddr, backlog: i32) -> SocketAddr {
        let address = self.must(format!("listen {address} {backlog}"));
        address.parse().expect("an address")
    }

    /// Closes the listener.
    #[track_caller]
    pub fn unlisten(&mut self) {
        self.must("unlisten".to_owned());
    }

    /// Accepts a connection.
    #[track_caller]
    pub fn accept(&mut self) -> Conn {
        conn(&self.must("accept".to_owned()))
    }

    /// Connects; the kernel chooses the local port.
    #[track_caller]
    pub fn connect(&mut self, to: SocketAddr) -> Conn {
        conn(&self.must(format!("connect {to} {}", any_port(to))))
    }

    /// Connects from this address.
    #[track_caller]
    pub fn connect_from(&mut self, from: SocketAddr, to: SocketAddr) -> Conn {
        conn(&self.must(format!("connect {to} {from}")))
    }

    /// Tries to connect to a port without a listener.
    ///
    /// # Panics
    /// If it succeeds.
    #[track_caller]
    pub fn connect_fails(&mut self, to: SocketAddr) -> Failed {
        self.ask(format!("connect {to} {}", any_port(to)));
        self.answer().expect_err("this connect has to fail")
    }

    /// Starts to connect, without waiting for the outcome. `user_timeout` is `TCP_USER_TIMEOUT`.
    #[track_caller]
    pub fn start_connect(&mut self, to: SocketAddr, user_timeout: Option<Duration>) -> Conn {
        let millis = user_timeout.map_or(0, |t| t.as_millis());
        conn(&self.must(format!("start-connect {to} {millis}")))
    }

    /// Waits for the outcome of [`Self::start_connect`].
    #[track_caller]
    pub fn finish_connect(&mut self, conn: Conn) -> Result<(), Failed> {
        self.ask(format!("finish-connect {}", conn.id));
        self.answer().map(drop)
    }

    /// Sends bytes; the peer has to read them when they do not fit into the buffers.
    #[track_caller]
    pub fn send(&mut self, conn: Conn, bytes: u64) {
        self.must(format!("send {} {bytes}", conn.id));
    }

    /// Starts to send; [`Self::finish`] waits for the end.
    #[track_caller]
    pub fn start_send(&mut self, conn: Conn, bytes: u64) {
        self.ask(format!("send {} {bytes}", conn.id));
    }

    /// Receives exactly this many bytes.
    #[track_caller]
    pub fn recv(&mut self, conn: Conn, bytes: u64) {
        self.must(format!("recv {} {bytes}", conn.id));
    }

    /// Starts to send by this call; [`Self::finish`] waits for the end.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn start_send_by(&mut self, call: SendBy, conn: Conn, bytes: u64) {
        let call = SendBy::ALL.iter().position(|known| *known == call).expect("one of all");
        self.ask(format!("send-by {call} {} {bytes}", conn.id));
    }

    /// Receives exactly this many bytes by this call.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub fn recv_by(&mut self, call: RecvBy, conn: Conn, bytes: u64) {
        let call = RecvBy::ALL.iter().position(|known| *known == call).expect("one of all");
        self.must(format!("recv-by {call} {} {bytes}", conn.id));
    }

    /// Receives to the end of the stream, which comes after `bytes`.
    #[track_caller]
    pub fn recv_eof(&mut self, conn: Conn, bytes: u64) {
        let got = self.must(format!("recv-eof {}", conn.id));
        assert_eq!(got, bytes.to_string(), "bytes before the end of the stream");
    }

    /// Receives until the peer's reset.
    #[track_caller]
    pub fn recv_reset(&mut self, conn: Conn) {
        self.ask(format!("recv-eof {}", conn.id));
        assert_eq!(self.answer().expect_err("this connection has to be reset").errno, "ECONNRESET");
    }

    /// Waits until this many bytes have arrived, and leaves them unread.
    #[track_caller]
    pub fn leave_unread(&mut self, conn: Conn, bytes: u64) {
        self.must(format!("peek {} {bytes}", conn.id));
    }

    /// `shutdown(SHUT_WR)`.
    #[track_caller]
    pub fn shutdown_wr(&mut self, conn: Conn) {
        self.must(format!("shutdown-wr {}", conn.id));
    }

    /// Makes the close a reset (`SO_LINGER` with 0 seconds).
    #[track_caller]
    pub fn linger0(&mut self, conn: Conn) {
        self.must(format!("linger0 {}", conn.id));
    }

    /// Closes the socket.
    #[track_caller]
    pub fn close(&mut self, conn: Conn) {
        self.must(format!("close {}", conn.id));
    }

    /// Starts a process that inherits the connection. Both have it open now; close it here to pass
    /// it on.
    ///
    /// # Panics
    /// If the process cannot be started or does not answer.
    #[must_use]
    #[track_caller]
    pub fn start_child(&mut self, inherited: Conn, comm: &str) -> (Self, Conn) {
        let scratch = Scratch::new();
        let path = scratch.path("control");
        let meeting = UnixListener::bind(&path).expect("bind a control socket");
        self.must(format!("start-child {} {comm} {}", inherited.id, path.display()));
        let deadline = Deadline::after(WAIT_LIMIT);
        let ready = poll(
            &mut [PollFd::new(meeting.as_fd(), PollFlags::POLLIN)],
            deadline.poll_timeout().expect("a fresh deadline"),
        );
        assert_eq!(ready, Ok(1), "the child {comm} connects to its control socket");
        let (control, _) = meeting.accept().expect("accept the control connection");
        (Self::greet(control, comm, None), Conn { id: 0, ..inherited })
    }

    /// Starts to wait in `accept(2)`; [`Self::accepted`] waits for the connection.
    #[track_caller]
    pub fn start_accept(&mut self) {
        self.ask("accept-blocking".to_owned());
    }

    /// Starts to wait in `accept4(2)` in a thread of this name; [`Self::accepted`] waits for the
    /// connection.
    #[track_caller]
    pub fn start_accept_in_thread(&mut self, comm: &str) {
        self.ask(format!("accept-in-thread {comm}"));
    }

    /// The connection that [`Self::start_accept`] waited for.
    #[track_caller]
    pub fn accepted(&mut self) -> Conn {
        conn(&self.finish())
    }

    /// Starts to wait for a connection to be passed; [`Self::finish`] waits for the end.
    #[track_caller]
    pub fn start_take(&mut self, meeting: &Path) {
        self.ask(format!("take {}", meeting.display()));
    }

    /// Passes a connection to an actor that waits for it, by `SCM_RIGHTS`, and closes it here.
    #[track_caller]
    pub fn pass(&mut self, conn: Conn, meeting: &Path) {
        wait_until("meeting place", WAIT_LIMIT, || fs::metadata(meeting).map(drop));
        self.must(format!("pass {} {}", conn.id, meeting.display()));
    }

    /// Closes the connection that was passed here.
    #[track_caller]
    pub fn close_taken(&mut self) {
        self.must("close-taken".to_owned());
    }

    /// Changes the name to any bytes (`PR_SET_NAME`). [`Self::who`] keeps the first name.
    #[track_caller]
    pub fn rename(&mut self, name: &[u8]) {
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        self.must(format!("rename {hex}"));
    }

    /// Changes the user, permanently.
    #[track_caller]
    pub fn become_user(&mut self, uid: u32) {
        self.must(format!("become-user {uid}"));
    }

    /// Starts to open this many more connections to itself and to keep both ends open;
    /// [`Self::finish`] waits for the end.
    #[track_caller]
    pub fn start_open_many(&mut self, count: usize) {
        self.ask(format!("open-many {count}"));
    }

    /// Closes this many of them.
    #[track_caller]
    pub fn close_many(&mut self, count: usize) {
        self.must(format!("close-many {count}"));
    }

    /// Starts to serve the connections of a storm; [`Self::finish`] waits for the end.
    #[track_caller]
    pub fn start_serving(&mut self, count: u32) {
        self.ask(format!("serve {count}"));
    }

    /// Starts a storm of connections; [`Self::finish`] waits for the end and returns the local
    /// ports.
    #[track_caller]
    pub fn start_storm(&mut self, count: u32, to: SocketAddr) {
        self.ask(format!("storm {count} {to}"));
    }

    /// Waits for the end of what was started.
    #[track_caller]
    pub fn finish(&mut self) -> String {
        match self.answer() {
            Ok(facts) => facts,
            Err(failed) => panic!("{}: `{}` failed: {failed:?}", self.who.comm, self.asked),
        }
    }

    /// Kills the process (`SIGKILL`) and waits until it has ended, so that the kernel has closed
    /// its sockets.
    ///
    /// # Panics
    /// If another actor has started it.
    pub fn kill(&mut self) {
        let child = self.child.as_mut().expect("a child of this process");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    #[track_caller]
    fn must(&mut self, command: String) -> String {
        self.ask(command);
        self.finish()
    }

    #[track_caller]
    fn ask(&mut self, command: String) {
        let sent = self.control.get_mut().write_all(format!("{command}\n").as_bytes());
        self.asked = command;
        if let Err(e) = sent {
            panic!("{}: cannot send `{}`: {e}", self.who.comm, self.asked);
        }
    }

    #[track_caller]
    fn answer(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        let got = self.control.read_line(&mut line);
        let fault = |what: String| -> ! {
            let state = fs::read_to_string(format!("/proc/{}/wchan", self.who.pid)).unwrap_or_default();
            panic!("{} (pid {}, {state}): `{}`: {what}", self.who.comm, self.who.pid, self.asked)
        };
        match got {
            Ok(0) => fault("the actor has ended".to_owned()),
            Err(e) => fault(format!("no answer: {e}")),
            Ok(_) => {}
        }
        let line = line.trim_end_matches('\n');
        match line.split_once(' ') {
            Some(("ok", facts)) => Ok(facts.to_owned()),
            Some(("failed", rest)) => {
                let (errno, facts) = rest.split_once(' ').unwrap_or((rest, ""));
                Err(Failed { errno: errno.to_owned(), facts: facts.to_owned() })
            }
            _ => fault(format!("answered {line:?}")),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if the process has ended already.
            let _ = child.kill();
            let _ = child.wait();
        } else {
            // A child of another actor ends when its control socket is closed. Wait for that,
            // because the test may be about its connection.
            let _ = self.control.get_mut().shutdown(std::net::Shutdown::Write);
            let _ = self.control.read_line(&mut String::new());
        }
    }
}

fn any_port(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[track_caller]
fn conn(facts: &str) -> Conn {
    let mut words = facts.split(' ');
    let mut read = || {
        let id = words.next()?.parse().ok()?;
        let local = words.next()?.parse().ok()?;
        let remote = words.next()?.parse().ok()?;
        Some(Conn { id, local, remote })
    };
    read().unwrap_or_else(|| panic!("not a connection: {facts:?}"))
}

impl Failed {
    /// The local address the failed socket had.
    ///
    /// # Panics
    /// If the call was not a connect.
    #[must_use]
    #[track_caller]
    pub fn local(&self) -> SocketAddr {
        self.facts.parse().unwrap_or_else(|_| panic!("not an address: {:?}", self.facts))
    }
}
