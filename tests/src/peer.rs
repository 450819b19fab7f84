//! The tools of the same names in libbpf-tools, run beside ours on the same connections, for
//! comparison.
//!
//! They see the whole machine and do not print network namespaces, so a test that compares uses
//! addresses that no other process uses.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use crate::cli::{Output, Tool};
use crate::mntns;
use crate::requirements::{self, Feature, Skip};

/// Local address and port, remote address and port.
pub type Tuple = (IpAddr, u16, IpAddr, u16);

/// A state change: the socket's address, its tuple, old and new state.
pub type Change = (u64, Tuple, String, String);

/// A loopback address that no other test uses at the same time.
#[must_use]
pub fn unique_address() -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 87, high, low).into()
}

/// Starts a tool of libbpf-tools and waits until it is attached. Moves this process into a private
/// mount namespace, because these tools need tracefs.
///
/// # Errors
/// If the tool is not installed.
#[track_caller]
pub fn start(tool: &'static str) -> Result<Tool, Skip> {
    requirements::needs(Feature::Program(tool))?;
    requirements::needs(Feature::Program("stdbuf"))?;
    mntns::enter_new();
    mntns::mount_tracefs();
    let mut command = Command::new("stdbuf");
    // These tools never flush. With a line buffer the header appears once all programs are attached
    // and the event buffers are open.
    command.args(["-oL", tool, "-w"]);
    let mut peer = Tool::spawn(command);
    peer.wait_for("header", |seen| seen.stdout.contains("LPORT"));
    Ok(peer)
}

/// The sessions that `tcplife -w` printed, without their header.
#[must_use]
#[track_caller]
pub fn sessions(output: &Output) -> Vec<Tuple> {
    rows(output, |columns| match columns {
        // A COMM may contain spaces, so columns are counted from the right: ... LADDR LPORT RADDR
        // RPORT TX_KB RX_KB MS
        [_, .., laddr, lport, raddr, rport, _, _, _] => tuple([laddr, lport, raddr, rport]),
        _ => None,
    })
}

/// The changes that `tcpstates -w` printed, without their header.
#[must_use]
#[track_caller]
pub fn changes(output: &Output) -> Vec<Change> {
    rows(output, |columns| match columns {
        // SKADDR PID COMM IP LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS
        [skaddr, .., laddr, lport, raddr, rport, old, "->", new, _] => Some((
            u64::from_str_radix(skaddr, 16).ok()?,
            tuple([laddr, lport, raddr, rport])?,
            (*old).to_owned(),
            (*new).to_owned(),
        )),
        _ => None,
    })
}

fn tuple([laddr, lport, raddr, rport]: [&str; 4]) -> Option<Tuple> {
    Some((laddr.parse().ok()?, lport.parse().ok()?, raddr.parse().ok()?, rport.parse().ok()?))
}

#[track_caller]
fn rows<T>(output: &Output, read: impl Fn(&[&str]) -> Option<T>) -> Vec<T> {
    let rows = output.stdout.lines().filter(|line| !line.contains("LPORT"));
    rows.map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        read(&columns).unwrap_or_else(|| panic!("not a row of a peer: {line}\n{output}"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stdout: &str) -> Output {
        Output { command: String::new(), status: None, stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn a_session_with_a_space_in_its_name() {
        let text = "PID     COMM             LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS\n\
                    5721    Socket Thread    127.0.0.1       56198 127.0.0.1       43895 0.98   0.01   0.20\n";
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(sessions(&output(text)), [(local, 56198, local, 43895)]);
    }

    #[test]
    fn a_change() {
        let text =
            "ffff888105742e40 5721    a b    6  ::1    0     ::1    43895 CLOSE       -> SYN_SENT    0.000\n";
        let local: IpAddr = "::1".parse().unwrap();
        let want =
            (0xffff_8881_0574_2e40, (local, 0, local, 43895), "CLOSE".to_owned(), "SYN_SENT".to_owned());
        assert_eq!(changes(&output(text)), [want]);
    }
}
