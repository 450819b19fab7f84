//! Compares the types of real kernels with tables that were made with other programs.
#![forbid(unsafe_code)]

mod common;

use btf::{Absent, BitField, Bits, Bytes, Class, Lookup};
use common::{KERNELS, absent, columns, everything, found, kernel, lines};

/// The answer in the notation of layout.txt.
fn place(lookup: Lookup<btf::Field>) -> String {
    match lookup {
        Lookup::Absent(_) => "-".to_owned(),
        Lookup::Found(field) => match field.bits {
            None => field.offset.to_string(),
            Some(BitField { offset, width, .. }) => format!("{}:{}:{width}", offset.0 / 8, offset.0 % 8),
        },
    }
}

#[test]
fn members_have_the_offsets_of_the_table() {
    let mut wrong = Vec::new();
    let columns = columns("layout.txt");
    assert_eq!(columns.len(), KERNELS.len());
    for (name, rows) in columns {
        let btf = kernel(&name);
        let index = btf.index(&everything()).expect(&name);
        assert!(rows.len() > 200, "the table is whole");
        for (path, expected) in rows {
            let is = match path.strip_prefix("sizeof(").and_then(|path| path.strip_suffix(')')) {
                Some(path) => match index.size(path).expect(path) {
                    Lookup::Found(size) => size.to_string(),
                    Lookup::Absent(_) => "-".to_owned(),
                },
                None => place(index.field(&path).expect(&path)),
            };
            if is != expected {
                wrong.push(format!("{name}: {path} is {is}, the table says {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn drop_reasons_have_the_values_of_the_table() {
    let mut wrong = Vec::new();
    for (name, rows) in columns("skb_drop_reason.txt") {
        let btf = kernel(&name);
        let index = btf.index(&everything()).expect(&name);
        let values = found(index.enum_values("skb_drop_reason").expect(&name));
        for (enumerator, expected) in rows {
            let is = match enumerator.as_str() {
                "count" => Some(i64::try_from(values.len()).expect("a count")),
                _ => index.enum_value("skb_drop_reason", &enumerator).expect(&enumerator).found(),
            };
            let listed = values.iter().find(|(name, _)| *name == enumerator).map(|(_, value)| *value);
            if is.map_or("-".to_owned(), |is| is.to_string()) != expected {
                wrong.push(format!("{name}: {enumerator} is {is:?}, the table says {expected}"));
            }
            if enumerator != "count" && listed != is {
                wrong.push(format!("{name}: {enumerator} is {is:?}, but listed as {listed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tracepoints_pass_the_arguments_of_the_table() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for line in lines("tracepoints.txt") {
        let [tracepoint, kernels, expected] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        for name in kernels.split(' ') {
            let btf = kernel(name);
            let index = btf.index(&everything()).expect(name);
            let is = match index.tracepoint(tracepoint).expect(tracepoint) {
                Lookup::Absent(_) => "absent".to_owned(),
                Lookup::Found(found) => {
                    let args: Vec<_> = found.args.iter().map(|arg| arg.text.as_str()).collect();
                    format!("({})", args.join(", "))
                }
            };
            if is != expected {
                wrong.push(format!("{name}: {tracepoint}{is}, the table says {expected}"));
            }
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 300, "the table is whole");
}

#[test]
fn arguments_are_described() {
    let btf = kernel("7.3-x86_64");
    let index = btf.index(&everything()).expect("an index");
    let args = found(index.tracepoint("kfree_skb").expect("an answer")).args;
    let [skb, location, reason, sk] = args.as_slice() else { panic!("{args:?}") };
    assert_eq!((skb.pointee(), skb.size, &skb.name), (Some("sk_buff"), Bytes(8), &None));
    assert_eq!((location.pointee(), &location.class), (None, &Class::Pointer { to: None }));
    assert_eq!((reason.enum_name(), reason.size, reason.signed), (Some("skb_drop_reason"), Bytes(4), false));
    assert_eq!(sk.pointee(), Some("sock"), "through const");
    let args = found(index.tracepoint("inet_sock_set_state").expect("an answer")).args;
    let states: Vec<_> = args[1..].iter().map(|arg| (arg.size, arg.signed, arg.enum_name())).collect();
    assert_eq!(states, [(Bytes(4), true, None); 2]);
}

#[test]
fn functions_keep_their_parameters() {
    let text = |kernel_name: &str, name: &str| {
        let btf = kernel(kernel_name);
        let index = btf.index(&everything()).expect("an index");
        index.func(name).expect(name).map(|func| {
            let params: Vec<_> = func
                .params
                .iter()
                .map(|param| format!("{} {}", param.text, param.name.as_deref().unwrap_or("?")))
                .collect();
            format!("{} ({})", func.ret.text, params.join(", "))
        })
    };
    let old = "struct sock * (struct sock * sk, int flags, int * err, bool kern)";
    let new = "struct sock * (struct sock * sk, struct proto_accept_arg * arg)";
    assert_eq!(found(text("5.10-x86_64", "inet_csk_accept")), old);
    assert_eq!(found(text("6.1-x86_64", "inet_csk_accept")), old);
    assert_eq!(found(text("6.12-x86_64", "inet_csk_accept")), new);
    assert_eq!(found(text("7.3-aarch64", "inet_csk_accept")), new);
    for name in KERNELS {
        assert_eq!(found(text(name, "tcp_cleanup_rbuf")), "void (struct sock * sk, int copied)");
        assert_eq!(
            found(text(name, "tcp_sendmsg")),
            "int (struct sock * sk, struct msghdr * msg, size_t size)"
        );
        assert_eq!(found(text(name, "tcp_release_cb")), "void (struct sock * sk)");
        assert_eq!(absent(text(name, "tcp_drop")), Absent::Func { name: "tcp_drop".into() });
    }
    assert!(!text("6.12-x86_64", "tcp_drop_reason").is_found());
    assert_eq!(
        found(text("6.18-x86_64", "tcp_drop_reason")),
        "void (struct sock * sk, struct sk_buff * skb, enum skb_drop_reason reason)"
    );
}

#[test]
fn enumerators_of_anonymous_enums_are_found() {
    for name in KERNELS {
        let btf = kernel(name);
        let index = btf.index(&everything()).expect(name);
        let value = |name| found(index.enumerator(name).expect(name));
        assert_eq!(value("TCP_ESTABLISHED"), 1);
        assert_eq!(value("TCPF_ESTABLISHED"), 2);
        assert_eq!(value("BPF_TCP_ESTABLISHED"), 1);
        assert_eq!(found(index.enum_value("sock_flags", "SOCK_DONE").expect(name)), 1);
    }
}

#[test]
fn fields_have_a_class() {
    let btf = kernel("6.12-x86_64");
    let index = btf.index(&everything()).expect("an index");
    let field = |path| found(index.field(path).expect(path));
    let text = |path| index.describe(field(path).type_id).expect(path);

    let port = field("sock.__sk_common.skc_dport");
    assert_eq!((port.size, port.signed, port.class.clone()), (Bytes(2), false, Class::Integer));
    assert_eq!(text("sock.__sk_common.skc_dport"), "__be16");
    assert!(field("sock.sk_sndbuf").signed);
    assert_eq!(field("sock.sk_socket").class, Class::Pointer { to: Some("socket".into()) });
    assert_eq!(text("sock.sk_socket"), "struct socket *");
    assert_eq!(text("fdtable.fd"), "struct file **");
    assert_eq!(field("fdtable.fd").class, Class::Pointer { to: None });
    assert_eq!(text("inet_connection_sock.icsk_ca_ops"), "const struct tcp_congestion_ops *");
    assert_eq!(text("sock_common.skc_state"), "volatile unsigned char");
    assert_eq!(field("socket.state").class, Class::Enum { name: None }, "a typedef of an anonymous enum");
    assert_eq!(field("sock.__sk_common").class, Class::Composite { name: Some("sock_common".into()) });
    assert_eq!(field("sk_buff.cb").class, Class::Array { len: 48, element: Bytes(1) });
    assert_eq!((field("sk_buff.cb").size, text("sk_buff.cb")), (Bytes(48), "char[48]".into()));

    // The socket lock: a typedef of an anonymous struct, also as the root of a path.
    let owned = field("sock.sk_lock.owned");
    assert_eq!(owned.offset.0 - field("sock.sk_lock").offset.0, field("socket_lock_t.owned").offset.0);
    assert_eq!(field("possible_net_t.net").class, Class::Pointer { to: Some("net".into()) });

    // Elements of an array of structs, and their members.
    assert_eq!(field("tcp_sock.rtt_min").size, Bytes(24));
    assert_eq!(field("tcp_sock.rtt_min.s[2].v").offset.0, field("tcp_sock.rtt_min").offset.0 + 2 * 8 + 4);
    assert_eq!(field("in6_addr.in6_u.u6_addr32[3]").offset, Bytes(12));
    assert_eq!(field("files_struct.fd_array[63]").size, Bytes(8));
}

#[test]
fn bit_fields_come_with_a_load_a_shift_and_a_mask() {
    for name in KERNELS {
        let btf = kernel(name);
        let index = btf.index(&everything()).expect(name);
        // (path, load at, of, shift, mask); `tcphdr` as in RFC 9293, on a little-endian machine
        for (path, offset, size, shift, mask) in [
            ("tcphdr.doff", 12, 1, 4, 0xf),
            ("tcphdr.fin", 13, 1, 0, 1),
            ("tcphdr.syn", 13, 1, 1, 1),
            ("tcphdr.cwr", 13, 1, 7, 1),
            ("iphdr.version", 0, 1, 4, 0xf),
            ("request_sock.num_timeout", 147, 1, 1, 0x7f),
            ("request_sock.syncookie", 147, 1, 0, 1),
        ] {
            let field = found(index.field(path).expect(path));
            let bits = field.bits.expect(path);
            assert_eq!(
                (field.offset, field.size, bits.shift, bits.mask()),
                (Bytes(offset), Bytes(size), Bits(shift), mask),
                "{name}: {path}"
            );
        }
    }
}

#[test]
fn members_that_changed_type() {
    let text = |kernel_name: &str, path: &str| {
        let btf = kernel(kernel_name);
        let index = btf.index(&everything()).expect(kernel_name);
        index.field(path).expect(path).map(|field| (index.describe(field.type_id).expect(path), field.size.0))
    };
    for (path, old, new) in [
        ("inet_sock.inet_id", ("__u16", 2), ("atomic_t", 4)),
        ("tcp_skb_cb.tcp_flags", ("__u8", 1), ("__u16", 2)),
        ("net.net_cookie", ("atomic64_t", 8), ("u64", 8)),
        ("tcp_sock.rcvq_space.space", ("u32", 4), ("int", 4)),
        ("sock.sk_mark", ("__u32", 4), ("u32", 4)),
    ] {
        let (old, new) = ((old.0.to_owned(), old.1), (new.0.to_owned(), new.1));
        assert_eq!(found(text("5.10-x86_64", path)), old, "{path}");
        assert_eq!(found(text("7.3-x86_64", path)), new, "{path}");
    }
}

#[test]
fn absence_names_the_missing_part() {
    let btf = kernel("7.3-x86_64");
    let index =
        btf.index(&everything().strukt("tcp_drop_counters").enumeration("no_reason")).expect("an index");
    let why = |path: &str| absent(index.field(path).expect(path));
    assert_eq!(why("tcp_drop_counters.n"), Absent::Type { name: "tcp_drop_counters".into() });
    assert_eq!(
        why("inet_connection_sock.icsk_timeout"),
        Absent::Member { parent: "inet_connection_sock".into(), member: "icsk_timeout".into() }
    );
    assert_eq!(
        why("sock.__sk_common.skc_sport"),
        Absent::Member { parent: "sock.__sk_common".into(), member: "skc_sport".into() }
    );
    assert_eq!(
        why("sock.sk_socket.file"),
        Absent::NotComposite { path: "sock.sk_socket".into(), is: "struct socket *".into() }
    );
    assert_eq!(why("sock.sk_type[0]"), Absent::NotArray { path: "sock.sk_type".into(), is: "u16".into() });
    assert_eq!(
        why("tcp_sock.rtt_min.s[3].v"),
        Absent::Element { path: "tcp_sock.rtt_min.s".into(), index: 3, len: 3 }
    );
    assert_eq!(
        absent(index.enum_value("sock_flags", "SOCK_UNDONE").expect("an answer")).to_string(),
        "`enum sock_flags` has no enumerator `SOCK_UNDONE`"
    );
    assert_eq!(
        absent(index.enum_value("no_reason", "X").expect("an answer")),
        Absent::Enum { name: "no_reason".into() }
    );
    assert!(!index.exists("sock.sk_peer_pids").expect("an answer"));
    assert!(index.exists("sock.sk_drop_counters").expect("an answer"));
}

#[test]
fn a_name_that_was_not_wanted_is_an_error_and_not_an_absence() {
    let btf = kernel("6.1-x86_64");
    let index = btf.index(&btf::Wanted::new().strukt("sock")).expect("an index");
    let text = |error: btf::BtfError| error.to_string();
    assert_eq!(
        text(index.field("inet_sock.inet_id").expect_err("not asked for")),
        "type `inet_sock` was not among the wanted names when indexing"
    );
    assert_eq!(
        text(index.func("tcp_sendmsg").expect_err("not asked for")),
        "function `tcp_sendmsg` was not among the wanted names when indexing"
    );
    assert_eq!(
        text(index.field("sock->sk_type").expect_err("not a path")),
        "field path `sock->sk_type`: expected `.` or `[` at byte 4"
    );
}
