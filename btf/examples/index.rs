//! Measures one index over a whole kernel, and prints its answers: `cargo run --release -p btf
//! --example index [FILE]`.
#![forbid(unsafe_code)]

use std::{env, error::Error, time::Instant};

use btf::{Btf, Lookup, Wanted};

const FIELDS: [&str; 12] = [
    "sock.__sk_common.skc_dport",
    "sock.__sk_common.skc_net.net",
    "sock.sk_protocol",
    "sock.sk_lock.owned",
    "sock.sk_backlog.rmem_alloc.counter",
    "tcp_sock.srtt_us",
    "tcp_sock.rtt_min.s[1].v",
    "inet_connection_sock.icsk_ca_state",
    "net.ns.inum",
    "task_struct.comm",
    "tcphdr.syn",
    "file.private_data",
];
const TRACEPOINTS: [&str; 4] = ["inet_sock_set_state", "tcp_destroy_sock", "kfree_skb", "tcp_retransmit_skb"];
const FUNCS: [&str; 3] = ["inet_csk_accept", "tcp_sendmsg", "tcp_cleanup_rbuf"];
const ENUMS: [&str; 3] = ["skb_drop_reason", "sk_rst_reason", "sock_flags"];

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let btf = match env::args_os().nth(1) {
        Some(path) => Btf::open(path)?,
        None => Btf::kernel()?,
    };
    println!("{:>9.3?} read", started.elapsed());

    let mut wanted = Wanted::new().enumerator("TCP_ESTABLISHED");
    for path in FIELDS {
        wanted = wanted.strukt(btf::FieldPath::parse(path)?.root());
    }
    wanted = TRACEPOINTS.iter().fold(wanted, |wanted, name| wanted.tracepoint(name));
    wanted = FUNCS.iter().fold(wanted, |wanted, name| wanted.func(name));
    wanted = ENUMS.iter().fold(wanted, |wanted, name| wanted.enumeration(name));
    for _ in 0..5 {
        let started = Instant::now();
        let index = btf.index(&wanted)?;
        println!("{:>9.3?} indexed, {} types", started.elapsed(), index.type_count());
    }

    let index = btf.index(&wanted)?;
    let started = Instant::now();
    let fields = FIELDS.map(|path| (path, index.field(path)));
    println!("{:>9.3?} {} fields", started.elapsed(), FIELDS.len());
    for (path, field) in fields {
        match field? {
            Lookup::Found(field) => println!("{path}: {field:?}: {}", index.describe(field.type_id)?),
            Lookup::Absent(why) => println!("{path}: {why}"),
        }
    }
    for name in TRACEPOINTS {
        println!("{name}: {:?}", texts(index.tracepoint(name)?.map(|tracepoint| tracepoint.args)));
    }
    for name in FUNCS {
        println!("{name}: {:?}", texts(index.func(name)?.map(|func| func.params)));
    }
    for name in ENUMS {
        println!("{name}: {:?}", index.enum_values(name)?.map(|values| values.len()));
    }
    println!("TCP_ESTABLISHED: {:?}", index.enumerator("TCP_ESTABLISHED")?);
    Ok(())
}

fn texts(params: Lookup<Vec<btf::Param>>) -> Lookup<Vec<String>> {
    params.map(|params| params.into_iter().map(|param| param.text).collect())
}
