//! tcpsubnet: bytes sent to each of some subnets.
//!
//! No events are sent. Counters only grow, and the reader takes differences, so no bytes are lost
//! between intervals.

use bpfasm::object::{MapDef, MapKind, Object};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};
use ipnet::IpNet;

use crate::endpoints::{Endpoint, Endpoints};
use crate::filter::Filter;
use crate::sock::Sock;
use crate::stats::{self, Count, count};
use crate::{map, stack_layout, stream, subnet, table, trie};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub filter: Filter,
    /// Bytes count for the first subnet that contains the remote address.
    pub subnets: Vec<IpNet>,
    /// The size of the table of sockets, which only kernels before 6.3 need.
    pub max_sockets: u32,
}

/// More subnets than this are looked up in a trie, whose cost does not depend on their number.
pub const MAX_COMPARED: usize = 32;

/// The name of the map of counters: the bytes sent so far, by CPU and by number of the subnet.
pub const MAP: &str = "bytes";

pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let [send, release] = stream::sent_hooks(target, &|sock| add(options, sock))?;
    let mut hooks = vec![send, release];
    hooks.extend(stream::table_hooks(target)?.map(|hook| hook.fallback_for(stream::SEND_HOOK)));
    let table = table::map(stream::Entry::LAYOUT, options.max_sockets);
    let mut maps = vec![stats::map(), counters(options.subnets.len()), table];
    if options.subnets.len() > MAX_COMPARED {
        maps.extend(trie::maps(options.subnets.len()));
    }
    Ok(crate::object("tcpsubnet", hooks, maps))
}

fn counters(subnets: usize) -> MapDef {
    MapDef::new(MAP, MapKind::PercpuArray, 4, 8, u32::try_from(subnets).unwrap_or(u32::MAX))
}

/// The place on the stack for the number of the subnet.
const SUBNET: i16 = stack_layout::ENTRY;

/// Adds the bytes to the counter of their subnet. Runs in the sending process.
fn add(options: &Options, sock: Sock) -> Fragment {
    bpf! {
        ..stats::open("out");
        ..count(Count::Seen);
        ..apply_filters(options, sock);
        ..map::lookup(MAP, SUBNET);
        if r0 == 0 goto out;                            // every subnet has a counter
        r1 = *(u64 *)(r10 + {stream::MOVED});
        lock *(u64 *)(r0 + 0) += r1;
        ..count(Count::Aggregated);
    }
}

/// Counts the event as filtered and jumps to `out` unless the connection passes all filters and
/// goes to one of the subnets, whose number is then at [`SUBNET`].
fn apply_filters(options: &Options, sock: Sock) -> Fragment {
    let found = |number: usize| {
        bpf! {
            *(u32 *)(r10 + {SUBNET}) = {number};
            goto wanted;
        }
    };
    let endpoints = Endpoints::Sock(sock);
    let subnets = &options.subnets;
    let which = if subnets.len() > MAX_COMPARED {
        trie::first(endpoints, Endpoint::Remote, SUBNET)
    } else {
        subnet::first(endpoints, Endpoint::Remote, subnets, &found)
    };
    if options.filter.is_empty() && subnet::contain_everything(subnets) && subnets.len() <= MAX_COMPARED {
        // The verifier refuses code that cannot be reached.
        return bpf! {
            ..which;
        wanted:
        };
    }
    bpf! {
        ..options.filter.current("filtered");
        ..options.filter.socket(sock, "filtered");
        ..which;
    filtered:
        ..count(Count::Filtered);
        goto out;
    wanted:
    }
}
