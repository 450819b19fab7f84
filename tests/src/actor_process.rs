//! The process of an [`Actor`](crate::actor::Actor): it executes one line at a time and answers
//! each with one line.
//!
//! A line is `command arguments`. An answer is `ok facts`, or `failed ERRNO facts` if the socket
//! call failed. An impossible command is a panic, which the test sees as an actor that has ended.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    SockaddrStorage, bind, connect, getpeername, getsockname, listen, recv, recvmsg, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::unistd::{Uid, close, dup2_stdout, setuid};

use crate::bulk::{self, Endpoints};
use crate::bytes::{RecvBy, SendBy};
use crate::deadline::{Deadline, patient};

/// The first argument of a process that is an actor.
pub(crate) const FLAG: &str = "--actor";

/// The time limit of one socket call of an actor.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// In a storm the answer is this many times as long as the question.
const ANSWER_FACTOR: u64 = 2;

/// A socket call that failed, and facts about the socket.
struct Failed {
    errno: Errno,
    facts: String,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)), facts: String::new() }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self { errno, facts: String::new() }
    }
}

type Answer = Result<String, Failed>;

/// Runs as an actor named `comm` until the test closes the control socket, which is standard input.
/// If standard output is a TCP socket, it becomes connection 0, inherited from the parent process.
pub(crate) fn run(comm: &str) -> ExitCode {
    let name = std::ffi::CString::new(comm).expect("a comm has no NUL");
    prctl::set_name(&name).expect("PR_SET_NAME");
    prctl::set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().expect("dup stdin"));
    let mut process = Process::default();
    if let Some(stream) = inherited() {
        process.keep(stream);
    }
    process.obey(control);
    ExitCode::SUCCESS
}

/// Moves the inherited connection away from standard output, so that closing it closes the last
/// reference.
fn inherited() -> Option<TcpStream> {
    let fd = io::stdout().as_fd().try_clone_to_owned().expect("dup stdout");
    getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("open /dev/null");
    dup2_stdout(null).expect("dup2 stdout");
    Some(TcpStream::from(fd))
}

#[derive(Default)]
struct Process {
    listener: Option<TcpListener>,
    streams: BTreeMap<u32, TcpStream>,
    next: u32,
    /// A descriptor that was received or accepted without a number.
    taken: Option<RawFd>,
    /// Connections of this process with itself.
    many: Vec<Endpoints>,
}

impl Process {
    fn obey(&mut self, control: UnixStream) {
        let mut answers = control.try_clone().expect("dup control");
        let hello = format!("ok {}\n", std::process::id());
        if answers.write_all(hello.as_bytes()).is_err() {
            return;
        }
        for line in BufReader::new(control).lines() {
            let Ok(line) = line else { return };
            let answer = match self.command(&line) {
                Ok(facts) => format!("ok {facts}\n"),
                Err(Failed { errno, facts }) => format!("failed {errno:?} {facts}\n"),
            };
            if answers.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn command(&mut self, line: &str) -> Answer {
        let mut words = Words { line, rest: line.split_ascii_whitespace() };
        match words.text() {
            "rename" => rename(words.text()),
            "listen" => self.listen(words.parse(), words.parse()),
            "unlisten" => {
                self.listener = None;
                ok("")
            }
            "accept" => self.accept(),
            "connect" => self.connect(words.parse(), words.parse()),
            "start-connect" => self.start_connect(words.parse(), words.parse()),
            "finish-connect" => self.finish_connect(words.parse()),
            "send" => self.send(words.parse(), words.parse()),
            "recv" => self.recv(words.parse(), words.parse()),
            "send-by" => {
                let (way, id, bytes): (usize, _, _) = (words.parse(), words.parse(), words.parse());
                Ok(SendBy::ALL[way].send(self.stream(id), bytes).map(|()| String::new())?)
            }
            "recv-by" => {
                let (way, id, bytes): (usize, _, _) = (words.parse(), words.parse(), words.parse());
                Ok(RecvBy::ALL[way].recv(self.stream(id), bytes).map(|()| String::new())?)
            }
            "recv-eof" => self.recv_eof(words.parse()),
            "peek" => self.peek(words.parse(), words.parse()),
            "shutdown-wr" => {
                Ok(self.stream(words.parse()).shutdown(Shutdown::Write).map(|()| String::new())?)
            }
            "linger0" => {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(self.stream(words.parse()), sockopt::Linger, &linger)?;
                ok("")
            }
            "close" => {
                let id: u32 = words.parse();
                drop(self.streams.remove(&id).unwrap_or_else(|| panic!("no connection {id}")));
                ok("")
            }
            "start-child" => self.start_child(words.parse(), words.text(), words.text()),
            "accept-blocking" => self.accept_blocking(),
            "accept-in-thread" => self.accept_in_thread(words.text()),
            "take" => self.take(words.text()),
            "pass" => self.pass(words.parse(), words.text()),
            "close-taken" => {
                Ok(close(self.taken.take().expect("close-taken before take")).map(|()| String::new())?)
            }
            "become-user" => Ok(setuid(Uid::from_raw(words.parse())).map(|()| String::new())?),
            "open-many" => {
                let count: usize = words.parse();
                let files = 2 * (self.many.len() + count) + 100;
                bulk::raise_file_limit(files as u64)?;
                self.many.extend(bulk::open(count));
                ok("")
            }
            "close-many" => {
                let rest = self.many.split_off(words.parse());
                std::mem::replace(&mut self.many, rest).into_iter().for_each(Endpoints::close);
                ok("")
            }
            "serve" => self.serve(words.parse()),
            "storm" => storm(words.parse(), words.parse()),
            _ => panic!("no such command: {line}"),
        }
    }

    fn keep(&mut self, stream: TcpStream) -> u32 {
        limit(&stream).expect("set socket time limits");
        let id = self.next;
        self.next += 1;
        self.streams.insert(id, stream);
        id
    }

    fn stream(&self, id: u32) -> &TcpStream {
        self.streams.get(&id).unwrap_or_else(|| panic!("no connection {id}"))
    }

    /// The facts of a connection: its number, local address, remote address.
    fn facts(&self, id: u32) -> Answer {
        let stream = self.stream(id);
        ok(format_args!("{id} {} {}", stream.local_addr()?, stream.peer_addr()?))
    }

    fn listen(&mut self, address: SocketAddr, backlog: i32) -> Answer {
        // TcpListener::bind would set SO_REUSEADDR and choose the backlog.
        let fd = tcp_socket(address, SockFlag::empty())?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&fd, Backlog::new(backlog)?)?;
        let listener = TcpListener::from(fd);
        let address = listener.local_addr()?;
        self.listener = Some(listener);
        ok(address)
    }

    fn accept(&mut self) -> Answer {
        let stream = accept(self.listener.as_ref().expect("accept before listen"))?;
        let id = self.keep(stream);
        self.facts(id)
    }

    /// Connects to `to` from `from`. With port 0, `connect(2)` chooses the address, as for nearly
    /// every client.
    fn connect(&mut self, to: SocketAddr, from: SocketAddr) -> Answer {
        let fd = tcp_socket(to, SockFlag::empty())?;
        if from.port() != 0 {
            bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
        }
        let stream = TcpStream::from(fd);
        limit(&stream)?;
        match connect(stream.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) => {
                let id = self.keep(stream);
                self.facts(id)
            }
            Err(errno) => Err(Failed { errno, facts: stream.local_addr()?.to_string() }),
        }
    }

    /// Starts to connect without waiting; `user_timeout` in milliseconds, 0 for the system's
    /// default.
    fn start_connect(&mut self, to: SocketAddr, user_timeout: u32) -> Answer {
        let fd = tcp_socket(to, SockFlag::SOCK_NONBLOCK)?;
        if user_timeout != 0 {
            setsockopt(&fd, sockopt::TcpUserTimeout, &user_timeout)?;
        }
        let stream = TcpStream::from(fd);
        match connect(stream.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EINPROGRESS) => {
                let local = stream.local_addr()?;
                let id = self.keep(stream);
                ok(format_args!("{id} {local} {to}"))
            }
            Ok(()) => panic!("connect({to}) was done at once"),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for the outcome of `start-connect`.
    fn finish_connect(&mut self, id: u32) -> Answer {
        await_events(self.stream(id), PollFlags::POLLOUT)?;
        match self.stream(id).take_error()? {
            None => {
                self.stream(id).set_nonblocking(false)?;
                self.facts(id)
            }
            Some(error) => Err(error.into()),
        }
    }

    fn send(&self, id: u32, bytes: u64) -> Answer {
        io::copy(&mut io::repeat(b'k').take(bytes), &mut self.stream(id))?;
        ok("")
    }

    fn recv(&self, id: u32, bytes: u64) -> Answer {
        let got = io::copy(&mut self.stream(id).take(bytes), &mut io::sink())?;
        assert_eq!(got, bytes, "end of stream");
        ok("")
    }

    /// Reads to the end of the stream and returns how many bytes there were, even if the end is an
    /// error.
    fn recv_eof(&self, id: u32) -> Answer {
        let mut stream = self.stream(id);
        let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return ok(total),
                Ok(n) => total += n,
                Err(e) => {
                    return Err(Failed { facts: total.to_string(), ..e.into() });
                }
            }
        }
    }

    /// Waits until this many bytes are in the receive queue, and leaves them there.
    fn peek(&self, id: u32, bytes: usize) -> Answer {
        let mut buffer = vec![0; bytes];
        let got = recv(self.stream(id).as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL)?;
        assert_eq!(got, bytes, "bytes in the queue");
        ok("")
    }

    /// Starts an actor that inherits the connection, as a server started by inetd does. This
    /// process keeps it open.
    fn start_child(&self, id: u32, comm: &str, control: &str) -> Answer {
        let control = UnixStream::connect(control)?;
        let connection = self.stream(id).as_fd().try_clone_to_owned()?;
        // Not waited for: once it has ended it is a zombie until this process ends, with the test.
        Command::new("/proc/self/exe")
            .args([FLAG, comm])
            .stdin(Stdio::from(OwnedFd::from(control)))
            .stdout(Stdio::from(connection))
            .spawn()?;
        ok("")
    }

    /// Waits in `accept(2)`, whereas [`Self::accept`] waits before it calls `accept4(2)`. Only the
    /// test has a time limit.
    fn accept_blocking(&mut self) -> Answer {
        let listener = self.listener.as_ref().expect("accept before listen");
        let fd = nix::sys::socket::accept(listener.as_raw_fd())?;
        self.taken = Some(fd);
        let address = |storage: SockaddrStorage| storage.to_string();
        let local = getsockname::<SockaddrStorage>(fd).map(address)?;
        let remote = getpeername::<SockaddrStorage>(fd).map(address)?;
        ok(format_args!("{} {local} {remote}", u32::MAX))
    }

    /// Waits in `accept4(2)` in a thread that ends afterwards.
    fn accept_in_thread(&mut self, comm: &str) -> Answer {
        let listener = self.listener.as_ref().expect("accept before listen").try_clone()?;
        let thread = thread::Builder::new().name(comm.to_owned()).spawn(move || listener.accept())?;
        let (stream, _) = thread.join().expect("the thread that accepts")?;
        let id = self.keep(stream);
        self.facts(id)
    }

    /// Receives a connection at the unix socket of this path.
    fn take(&mut self, meeting: &str) -> Answer {
        let socket = UnixDatagram::bind(meeting)?;
        let (mut byte, mut space) = ([0], cmsg_space!(RawFd));
        let mut parts = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        self.taken = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        ok("")
    }

    /// Sends a connection to the unix socket of this path, and closes it here.
    fn pass(&mut self, id: u32, meeting: &str) -> Answer {
        let stream = self.streams.remove(&id).unwrap_or_else(|| panic!("no connection {id}"));
        let socket = UnixDatagram::unbound()?;
        socket.connect(meeting)?;
        let fds = [stream.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&[0])], &control, MsgFlags::empty(), None)?;
        ok("")
    }

    /// Accepts `count` connections one after the other; reads each to its end, answers and closes
    /// it.
    fn serve(&self, count: u32) -> Answer {
        let listener = self.listener.as_ref().expect("serve before listen");
        for _ in 0..count {
            let mut stream = accept(listener)?;
            limit(&stream)?;
            let got = io::copy(&mut stream, &mut io::sink())?;
            io::copy(&mut io::repeat(b's').take(got * ANSWER_FACTOR), &mut stream)?;
        }
        ok("")
    }
}

/// Makes `count` connections one after the other; the n-th sends [`storm_question`] bytes,
/// half-closes, reads the answer to its end and closes. Returns the local ports, in order.
fn storm(count: u32, to: SocketAddr) -> Answer {
    let mut ports = Vec::new();
    for n in 0..count {
        let mut stream = TcpStream::connect(to)?;
        limit(&stream)?;
        let question = storm_question(n);
        io::copy(&mut io::repeat(b'c').take(question), &mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        let got = io::copy(&mut stream, &mut io::sink())?;
        assert_eq!(got, storm_answer(n), "bytes of the answer");
        ports.push(stream.local_addr()?.port().to_string());
    }
    ok(ports.join(","))
}

/// How many bytes the n-th connection of a storm sends.
pub(crate) fn storm_question(n: u32) -> u64 {
    u64::from(n % 97) + 1
}

/// How many bytes the n-th connection of a storm receives.
pub(crate) fn storm_answer(n: u32) -> u64 {
    storm_question(n) * ANSWER_FACTOR
}

/// Changes the name, given in hexadecimal because it may contain a line feed.
fn rename(hex: &str) -> Answer {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    let name: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).expect("two digits")).collect();
    prctl::set_name(&std::ffi::CString::new(name).expect("a comm has no NUL"))?;
    ok("")
}

fn ok(facts: impl Display) -> Answer {
    Ok(facts.to_string())
}

fn tcp_socket(address: SocketAddr, flags: SockFlag) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)
}

/// Sets time limits, so that no call of an actor blocks for ever. The limit for sending applies to
/// `connect(2)` too.
fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(patient(CALL_LIMIT)))?;
    stream.set_write_timeout(Some(patient(CALL_LIMIT)))
}

fn accept(listener: &TcpListener) -> Result<TcpStream, Failed> {
    await_events(listener, PollFlags::POLLIN)?;
    Ok(listener.accept()?.0)
}

fn await_events(fd: &impl AsFd, events: PollFlags) -> Result<(), Failed> {
    let deadline = Deadline::after(CALL_LIMIT);
    while let Some(timeout) = deadline.poll_timeout() {
        let mut fds = [PollFd::new(fd.as_fd(), events)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            // The kernel sets the error just before it changes the state. Reading the error now
            // would hide it from the tools.
            Ok(_) if fds[0].revents() == Some(PollFlags::POLLERR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::ETIME.into())
}

/// The words of a command line.
struct Words<'a> {
    line: &'a str,
    rest: std::str::SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn text(&mut self) -> &'a str {
        self.rest.next().unwrap_or_else(|| panic!("missing word: {}", self.line))
    }

    fn parse<T: std::str::FromStr>(&mut self) -> T {
        let word = self.text();
        word.parse().unwrap_or_else(|_| panic!("cannot read {word:?} in: {}", self.line))
    }
}
