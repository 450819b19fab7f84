//! The filters that all tools share. They are compiled into the programs. Some tools have letters
//! of their own for them.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use clap::{Arg, ArgMatches, Command, value_parser};
use ipnet::IpNet;
use nix::fcntl::OFlag;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType, NSFS_MAGIC, fstatfs};
use programs::filter::{Family, Filter, MAX_PORTS, MAX_SUBNETS};
use programs::subnet;

use super::args::{add_missing, switch};

/// Adds the filters that the tool has not defined itself.
pub fn add(command: Command) -> Command {
    add_missing(command.next_help_heading("Filters"), all())
}

fn all() -> Vec<Arg> {
    vec![
        switch("ipv4", "Only IPv4, also on sockets of AF_INET6").short('4').conflicts_with("ipv6"),
        switch("ipv6", "Only IPv6").short('6'),
        pid(),
        local_port(),
        remote_port(),
        Arg::new("addr")
            .long("addr")
            .value_name("CIDR")
            .value_parser(subnets)
            .help("Only connections from or to these addresses or subnets, separated by commas"),
        netns(),
        Arg::new("cgroup")
            .long("cgroup")
            .value_name("PATH")
            .value_parser(cgroup)
            .help("Only sockets made in this cgroup (its directory in cgroup2) or below"),
    ]
}

/// `--pid`.
pub fn pid() -> Arg {
    Arg::new("pid")
        .short('p')
        .long("pid")
        .value_name("PID")
        .value_parser(value_parser!(u32).range(1..=i64::from(i32::MAX)))
        .help("Only this process: its sockets, or in some tools what it does")
}

/// `--localport`.
pub fn local_port() -> Arg {
    port_list("localport", "Only these local ports, separated by commas")
}

/// `--remoteport`.
pub fn remote_port() -> Arg {
    port_list("remoteport", "Only these remote ports, separated by commas")
}

fn port_list(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name("PORTS").value_parser(ports).help(help)
}

/// `--netns`.
pub fn netns() -> Arg {
    Arg::new("netns").long("netns").value_name("NETNS").value_parser(namespace).help(
        "Only this network namespace: its inode, a file such as /proc/1/ns/net, or a name of `ip netns`",
    )
}

/// The filter that these options ask for.
pub fn read(matches: &ArgMatches) -> Filter {
    let ports = |id| matches.get_one(id).map(|Ports(ports)| ports.clone()).unwrap_or_default();
    let subnets = matches.get_one("addr").map(|Subnets(subnets)| subnets.clone()).unwrap_or_default();
    Filter {
        pid: matches.get_one("pid").copied(),
        family: match (matches.get_flag("ipv4"), matches.get_flag("ipv6")) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        },
        local_ports: ports("localport"),
        remote_ports: ports("remoteport"),
        // The verifier refuses unreachable code, so a list that matches every address compiles to
        // no check.
        subnets: if subnet::contain_everything(&subnets) { Vec::new() } else { subnets },
        netns: matches.get_one("netns").copied(),
        cgroup: matches.get_one("cgroup").copied(),
    }
}

/// A list of ports.
#[derive(Clone, Debug, PartialEq)]
struct Ports(Vec<u16>);

fn ports(text: &str) -> Result<Ports, String> {
    const EXPECTED: &str = "expected port numbers from 1 to 65535, separated by commas";
    let ports = text
        .split(',')
        .map(|word| match word.trim().parse() {
            Ok(0) | Err(_) => Err(EXPECTED.to_owned()),
            Ok(port) => Ok(port),
        })
        .collect::<Result<Vec<u16>, _>>()?;
    if ports.len() > MAX_PORTS {
        return Err(format!("at most {MAX_PORTS} ports fit into a program"));
    }
    Ok(Ports(ports))
}

/// A list of subnets.
#[derive(Clone, Debug, PartialEq)]
struct Subnets(Vec<IpNet>);

fn subnets(text: &str) -> Result<Subnets, String> {
    let subnets = text
        .split(',')
        .map(|word| {
            let word = word.trim();
            // An address alone is a subnet with one address.
            word.parse()
                .or_else(|_| word.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
                .map_err(|_| {
                    format!("`{word}` is not an address or a subnet: expected ADDRESS[/PREFIX], such as 192.0.2.0/24")
                })
        })
        .collect::<Result<Vec<IpNet>, _>>()?;
    if subnets.len() > MAX_SUBNETS {
        return Err(format!("at most {MAX_SUBNETS} subnets fit into a program"));
    }
    Ok(Subnets(subnets))
}

/// The directory of the names that `ip netns` makes.
const NAMED_NETNS: &str = "/run/netns";

/// Reads a network namespace: its inode, a file, or a name.
fn namespace(text: &str) -> Result<u32, String> {
    if let Ok(inode) = text.parse::<u32>() {
        return if inode == 0 {
            Err("a network namespace cannot have the inode 0".to_owned())
        } else {
            Ok(inode)
        };
    }
    let named = Path::new(NAMED_NETNS).join(text);
    let file = if text.contains('/') { Path::new(text) } else { &named };
    of_kind(file, NSFS_MAGIC)?
        .and_then(|metadata| u32::try_from(metadata.ino()).ok())
        .ok_or_else(|| format!("{} is not a namespace", file.display()))
}

/// The inode of a process's network namespace.
pub fn namespace_of(pid: &str) -> Result<u32, String> {
    match pid.parse::<u32>() {
        Ok(pid) if pid > 0 => namespace(&format!("/proc/{pid}/ns/net")),
        _ => Err("expected a process id above 0".to_owned()),
    }
}

/// Reads the directory of a cgroup and returns its id, the inode of the directory.
fn cgroup(text: &str) -> Result<u64, String> {
    of_kind(Path::new(text), CGROUP2_SUPER_MAGIC)?
        .filter(Metadata::is_dir)
        .map(|metadata| metadata.ino())
        .ok_or_else(|| format!("{text} is not a directory of a cgroup2 file system"))
}

/// The metadata of a file; `None` if it is not in a file system of this kind.
fn of_kind(path: &Path, kind: FsType) -> Result<Option<Metadata>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // Opened only as a path: opening a FIFO for reading would wait for a writer, and opening a
    // watchdog would start it.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open(path)
        .map_err(|error| failed(&error))?;
    let found = fstatfs(&file).map_err(|error| failed(&error))?.filesystem_type();
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    Ok((found == kind).then_some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists() {
        assert_eq!(ports("22"), Ok(Ports(vec![22])));
        assert_eq!(ports("22, 65535"), Ok(Ports(vec![22, 65535])));
        for wrong in ["", "abc", "0", "70000", "22,", ",22", "-1", "22;80"] {
            assert!(ports(wrong).is_err(), "{wrong:?}");
        }
        let many = |count| vec!["1"; count].join(",");
        assert!(ports(&many(MAX_PORTS)).is_ok());
        assert!(ports(&many(MAX_PORTS + 1)).is_err());
    }

    #[test]
    fn subnet_lists() {
        let net = |text: &str| text.parse::<IpNet>().expect("a subnet");
        let expected = vec![net("192.0.2.1/32"), net("10.0.0.0/8"), net("2001:db8::1/128")];
        assert_eq!(subnets("192.0.2.1, 10.0.0.0/8,2001:db8::1"), Ok(Subnets(expected)));
        for wrong in ["", "1.2.3.4/33", "::/129", "1.2.3", "1.2.3.4/", "a/8", "10.0.0.0/8,"] {
            assert!(subnets(wrong).is_err(), "{wrong:?}");
        }
        assert!(subnets(&vec!["::1"; MAX_SUBNETS + 1].join(",")).is_err());
    }

    #[test]
    fn namespaces_by_number_and_file() {
        assert_eq!(namespace("4026531840"), Ok(4_026_531_840));
        let own = std::fs::metadata("/proc/self/ns/net").expect("procfs").ino();
        assert_eq!(namespace("/proc/self/ns/net").map(u64::from), Ok(own));
        assert_eq!(namespace_of(&std::process::id().to_string()).map(u64::from), Ok(own));
        for wrong in ["0", "-1", "", "abc", "4294967295"] {
            assert!(namespace_of(wrong).is_err(), "{wrong:?}");
        }
        let no_namespaces = ["/", "/proc/self/status", "/run/netns/"];
        for wrong in
            ["0", "-1", "", "no-such-name", "/no/such/file", "4294967296"].iter().chain(&no_namespaces)
        {
            assert!(namespace(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cgroup_is_a_directory_of_cgroup2() {
        for wrong in ["/", "/no/such/directory", "/proc/self/status", ""] {
            assert!(cgroup(wrong).is_err(), "{wrong:?}");
        }
    }
}
