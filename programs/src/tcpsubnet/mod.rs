//! tcpsubnet: bytes sent to each of some subnets, counted where they are sent.
//!
//! Nothing is sent to the reader. Counters only grow, and the reader takes differences, so that none is lost at the edge of an
//! interval.

use bpfasm::object::{MapDef, MapKind, Need, Object};
use bpfasm::target::Target;
use bpfasm::{AsmError, Fragment, bpf};
use ipnet::IpNet;

use crate::endpoints::{Endpoint, Endpoints};
use crate::filter::Filter;
use crate::sock::Sock;
use crate::stats::{self, Count, count};
use crate::{hook, map, stack_layout, stream, subnet, table, trie};

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which connections.
    pub filter: Filter,
    /// What is counted apart: bytes belong to the first of these that holds the other end.
    pub subnets: Vec<IpNet>,
    /// Sockets the table has room for; it is only there before kernel 6.3.
    pub max_sockets: u32,
}

/// More subnets than this are looked up in a trie, which costs the same however many they are.
pub const MAX_COMPARED: usize = 32;

/// The name of the map of counters: for each CPU and subnet, by number, the bytes sent so far.
pub const MAP: &str = "bytes";

/// Programs and maps for these options on this target.
pub fn object(options: &Options, target: &Target) -> Result<Object, AsmError> {
    let mut hooks = vec![
        hook::tracepoint(
            SEND,
            Need::Optional,
            "sock_send_length",
            target,
            sent(options, Sock::new(target.access)),
        )?
        .without(stream::WITHOUT_SEND),
    ];
    let release = stream::release_hook("sent bytes", target, &|sock| add(options, sock))?;
    let fallbacks = [release].into_iter().chain(stream::table_hooks(target)?);
    hooks.extend(fallbacks.map(|hook| hook.fallback_for(SEND)));
    let table = table::map(stream::Entry::LAYOUT, options.max_sockets);
    let mut maps = vec![stats::map(), counters(options.subnets.len()), table];
    if options.subnets.len() > MAX_COMPARED {
        maps.extend(trie::maps(options.subnets.len()));
    }
    Ok(crate::object("tcpsubnet", hooks, maps))
}

/// The hook that kernels have since 6.3. The others are for those before.
const SEND: &str = "send";

fn counters(subnets: usize) -> MapDef {
    MapDef::new(MAP, MapKind::PercpuArray, 4, 8, u32::try_from(subnets).unwrap_or(u32::MAX))
}

/// Where the number of the subnet is kept on the stack.
const SUBNET: i16 = stack_layout::ENTRY;

/// `sock_send_length(struct sock *sk, int ret, int flags)`
fn sent(options: &Options, sock: Sock) -> Fragment {
    bpf! {
        ..stream::sent(sock, "out");
        ..add(options, sock);
    out:
        r0 = 0;
        exit;
    }
}

/// Adds what was sent to the subnet that it went to. For the calling process.
fn add(options: &Options, sock: Sock) -> Fragment {
    bpf! {
        ..stats::open("out");
        ..count(Count::Seen);
        ..only_wanted(options, sock);
        ..map::lookup(MAP, SUBNET);
        if r0 == 0 goto out;                            // there is a counter for each
        r1 = *(u64 *)(r10 + {stream::MOVED});
        lock *(u64 *)(r0 + 0) += r1;
        ..count(Count::Aggregated);
    }
}

/// Counts the event as filtered and jumps to `out` unless its connection is wanted and goes to one of the subnets, whose number
/// is then at [`SUBNET`].
fn only_wanted(options: &Options, sock: Sock) -> Fragment {
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
    if options.filter.is_empty() && subnet::hold_everything(subnets) && subnets.len() <= MAX_COMPARED {
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
