//! Connections that io_uring opens and accepts.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use kernel_tests::actor::{Actor, Who};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Availability, requires};
use kernel_tests::runner::{Outcome, Test, test};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, socket};

use super::{Action, finish, start};

pub const TESTS: &[Test] =
    &[test("tcptracer::uring_connects", connects), test("tcptracer::uring_accepts", accepts)];

/// A ring, if this kernel has io_uring.
fn ring() -> Result<IoUring, kernel_tests::requirements::Skip> {
    let ring = IoUring::new(4);
    requires("io_uring", Availability::Optional, ring.as_ref().err().map(ToString::to_string))?;
    Ok(ring.expect("claimed"))
}

/// The process and name of this thread.
fn this() -> Who {
    let comm = fs::read_to_string("/proc/thread-self/comm").expect("procfs");
    Who { pid: std::process::id(), comm: comm.trim_end().to_owned() }
}

fn submit(ring: &mut IoUring, entry: &Entry) {
    #[allow(unsafe_code, reason = "the crate asks for it")]
    // SAFETY: the entry points to values of the callers, which wait for its completion.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.expect("a queue of four entries");
    ring.submit().expect("submit");
}

fn complete(ring: &mut IoUring) -> i32 {
    ring.submit_and_wait(1).expect("wait");
    ring.completion().next().expect("a completion").result()
}

fn connects() -> Outcome {
    let mut ring = ring()?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut server = Actor::start("kt-server");
    let to = SockaddrStorage::from(server.listen(([127, 0, 0, 1], 0).into(), 1));
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    submit(&mut ring, &opcode::Connect::new(types::Fd(fd.as_raw_fd()), to.as_ptr(), to.len()).build());
    assert_eq!(complete(&mut ring), 0);
    let accepted = server.accept();
    drop(fd);
    server.recv_eof(accepted, 0);
    server.close(accepted);
    let action = |kind| Action { local: accepted.remote, remote: accepted.local, kind, who: this(), uid: 0 };
    let actions = [
        action("connect"),
        Action::new("accept", server.who(), accepted),
        action("close"),
        Action::new("close", server.who(), accepted),
    ];
    finish(tool, &netns, &actions);
    Ok(())
}

/// One accept that waits for its connection, and one whose connection is there already.
fn accepts() -> Outcome {
    let mut ring = ring()?;
    let netns = Netns::enter_new();
    let tool = start(&[]);
    let mut client = Actor::start("kt-client");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let accept = || {
        let fd = types::Fd(listener.as_raw_fd());
        opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build()
    };
    let mut actions = Vec::new();
    for waits in [true, false] {
        if waits {
            submit(&mut ring, &accept());
        }
        let conn = client.connect(address);
        if !waits {
            submit(&mut ring, &accept());
        }
        let fd = complete(&mut ring);
        let action = |kind| Action { local: conn.remote, remote: conn.local, kind, who: this(), uid: 0 };
        nix::unistd::close(fd).expect("a socket");
        client.recv_eof(conn, 0);
        client.close(conn);
        actions.extend([
            Action::new("connect", client.who(), conn),
            action("accept"),
            action("close"),
            Action::new("close", client.who(), conn),
        ]);
    }
    // An operation whose result is not a connection, but the number of an open file.
    let stream = TcpStream::connect(address).expect("connect");
    submit(&mut ring, &opcode::Nop::new().build());
    assert_eq!(complete(&mut ring), 0);
    let local = stream.local_addr().expect("an address");
    let action = |kind| Action { local, remote: address, kind, who: this(), uid: 0 };
    actions.extend([action("connect"), action("close")]);
    drop(stream);
    finish(tool, &netns, &actions);
    Ok(())
}
