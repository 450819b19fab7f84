//! Changes to programs that make no difference, and why.

/// Changes that no case can see, because the program does the same.
pub struct Equivalent {
    /// What the description of the change must contain: parts of the program's name, the
    /// instruction, the symbol, and the statement with its file, where `goto` stands without a
    /// label.
    pub place: &'static [&'static str],
    /// The changes, by the words for them.
    pub what: &'static [&'static str],
    /// Why they make no difference.
    #[expect(dead_code, reason = "for the reader")]
    why: &'static str,
}

impl Equivalent {
    /// Whether a change, by the words for it and by its description, is one of these.
    pub fn covers(&self, what: &str, text: &str) -> bool {
        self.what.contains(&what) && self.place.iter().all(|part| text.contains(part))
    }
}

/// Every change that no case has to see, with the reason.
pub const EQUIVALENTS: &[Equivalent] = &[
    // Numbers that are smaller than their place.
    Equivalent { place: &["{RANK}"], what: &["half"], why: "a rank is 0 to 4" },
    Equivalent {
        place: &["{new_entry(RANK)}"],
        what: &["half"],
        why: "a rank is 0 to 4, and the entry was cleared",
    },
    Equivalent { place: &["(r9 + {OLDSTATE})"], what: &["half"], why: "a state is 1 to 12" },
    Equivalent { place: &["(r9 + {NEWSTATE})"], what: &["half"], why: "a state is 1 to 12" },
    Equivalent {
        place: &["w1 = *(u32 *)(r10 + {event!(newstate)})"],
        what: &["half"],
        why: "a state is 1 to 12",
    },
    Equivalent { place: &["skc_family"], what: &["half"], why: "the internet's families are 2 and 10" },
    Equivalent { place: &["skc_flags"], what: &["half"], why: "SOCK_DONE is one of the lowest bits" },
    Equivalent {
        place: &["sizeof(sock_common.skc_flags)"],
        what: &["constant - 1"],
        why: "the lowest bits are among the first seven bytes too",
    },
    // Values that the kernel offers in two places.
    Equivalent {
        place: &["bpf_func_id", "/owner.rs:", "if w0 == 0 goto)"],
        what: &["always", "never", "constant + 1"],
        why: "the helpers say the same as the task does",
    },
    Equivalent { place: &["bpf_func_id", "w0 = exists("], what: &["constant - 1"], why: "the same" },
    Equivalent {
        place: &["<task_struct.comm + 8>", "/owner.rs:", ": goto)"],
        what: &["never"],
        why: "what is written is the same",
    },
    Equivalent {
        place: &["r1 = *(u64 *)(r7 + {Count::Reported.offset()})"],
        what: &["half"],
        why: "only the lowest bits count",
    },
    Equivalent {
        place: &["w1 = *(u32 *)(r8 + {RANK})"],
        what: &["offset - width"],
        why: "that is the pid, which is 0 exactly where the rank is, and more than any rank where it is not",
    },
    Equivalent {
        place: &["tcpstates/inet_sock_set_state", "w1 = *(u32 *)(r8 + {RANK})"],
        what: &["offset + width", "offset + 1"],
        why: "an entry without an owner has pid 0 and no name, which is what an event without an owner has",
    },
    Equivalent {
        place: &["tcpstates/inet_sock_set_state", "/owner.rs:", "if w1 == 0 goto)"],
        what: &["never"],
        why: "the same",
    },
    Equivalent {
        place: &["tcplife/inet_sock_set_state", "/owner.rs:", "if r8 == 0 goto)"],
        what: &["never", "constant + 1"],
        why: "without existing connections, one that is not in the table does not come here",
    },
    Equivalent {
        place: &["tcplife/inet_sock_set_state", "{offset_of!(Entry, existing)}"],
        what: &["offset + width"],
        why: "without existing connections it is always 0, as what is reserved beside it is",
    },
    Equivalent {
        place: &["/filter.rs:", ": goto)"],
        what: &["never"],
        why: "what equals no port of the lower half equals none of the upper half, which is tried next",
    },
    Equivalent {
        place: &["accept_fexit", "r2 += {key}"],
        what: &["constant + 8"],
        why: "the key was made of what still lies there",
    },
    Equivalent {
        place: &["tcpstates/inet_sock_set_state", "inet_sock.inet_sport"],
        what: &["left out", "constant + 8", "constant - 8", "constant - 1"],
        why: "a filter for local ports has put it into the same slot just before",
    },
    Equivalent {
        place: &["tcpconnlat/inet_sock_set_state", "inet_sock.inet_sport"],
        what: &["left out", "constant + 8", "constant - 8", "constant - 1"],
        why: "the same",
    },
    Equivalent {
        place: &["shift(inet_connection_sock.icsk_ca_state)"],
        what: &["left out"],
        why: "it is the first of its byte's bit-fields on every kernel here",
    },
    Equivalent {
        place: &["r3 += 0", "<tcp_skb_cb.seq>"],
        what: &["left out"],
        why: "it is the first member on every kernel here",
    },
    Equivalent { place: &["({base} + {family})"], what: &["half"], why: "as skc_family" },
    Equivalent {
        place: &["tcpretrans/inet_sock_set_state", "sock_common.skc_v6_rcv_saddr + 16"],
        what: &["constant - 1"],
        why: "to learn an owner no address is looked at",
    },
    Equivalent {
        place: &["tcp_retransmit_skb", "Wide", "{event!(status)}) = 0"],
        what: &["constant + 1"],
        why: "if failures are reported, the kernel's error takes its place, on kernels that pass it",
    },
    Equivalent {
        place: &["params(btf_trace_tcp_retransmit_skb)"],
        what: &["never", "constant + 1", "constant - 1", "off by one"],
        why: "the kernel that programs are broken for passes three arguments; the cases run on others as well",
    },
    // Fields that are not reported.
    Equivalent {
        place: &["tcpconnlat/inet_sock_set_state", "Filtered", "[entry + ", "table.rs"],
        what: &["constant + 1"],
        why: "a process is asked for, so a connect without a process is not entered, and another one overwrites what was cleared",
    },
    Equivalent {
        place: &["tcp_retransmit_synack", "Filtered", "{event!(tracked)}) = 0"],
        what: &["constant + 1"],
        why: "a process is asked for, so what is in no table is not sent",
    },
    Equivalent {
        place: &["tcp_retransmit_synack", "Filtered", "/tcpretrans/mod.rs:", "if r8 == 0 goto)"],
        what: &["never", "constant + 1"],
        why: "the same",
    },
    Equivalent {
        place: &["Filtered", "{pid}) = 0"],
        what: &["constant + 1"],
        why: "a process is asked for, and it is neither 0 nor 1",
    },
    Equivalent {
        place: &["Filtered", "{comm}) = 0"],
        what: &["constant + 1"],
        why: "a process is asked for, so events without an owner are not sent",
    },
    Equivalent {
        place: &["Filtered", "{comm + 8}) = 0"],
        what: &["constant + 1"],
        why: "a process is asked for, so events without an owner are not sent",
    },
    Equivalent {
        place: &["Filtered", "skc_v6_"],
        what: &["half", "offset + 1"],
        why: "of a mapped address, which alone comes here, the first eight bytes are 0, and the next two",
    },
    Equivalent {
        place: &["Six", "skc_daddr"],
        what: &["half", "offset + width", "offset - width", "offset + 1"],
        why: "no IPv4 address comes here",
    },
    Equivalent {
        place: &["Six", "skc_rcv_saddr"],
        what: &["half", "offset + width", "offset - width", "offset + 1"],
        why: "no IPv4 address comes here",
    },
    Equivalent {
        place: &["Six", "*(u64 *)(r10 + {to + 8}) = 0"],
        what: &["constant + 1"],
        why: "no IPv4 address comes here",
    },
    Equivalent {
        place: &["Six", "/sock.rs:", ": goto)"],
        what: &["never"],
        why: "no IPv4 address comes here",
    },
    // A look-up that fails in any case.
    Equivalent {
        place: &["accept_fexit", "if w0 != 0 goto)"],
        what: &["never"],
        why: "what lies on the stack is not the address of a socket",
    },
    Equivalent {
        place: &["/accept_", "if r6 == 0 goto)"],
        what: &["never", "constant + 1"],
        why: "0 is in no table",
    },
    Equivalent {
        place: &["task_file, option 2", "if r6 == 0 goto)"],
        what: &["never", "constant + 1"],
        why: "nothing can be read at 0, so it is not a TCP socket",
    },
    Equivalent {
        place: &["task_file, option 2", "skc_v6_rcv_saddr + 16"],
        what: &["constant - 1"],
        why: "the walk does not use the address",
    },
    // Differences that only the verifier sees.
    Equivalent { place: &["r6 = r0"], what: &["left out"], why: "the same address, of another type" },
    // Values that are overwritten before they are read.
    Equivalent {
        place: &["/inet_sock_set_state", "[entry + 24]", "table.rs"],
        what: WHATEVER,
        why: "the time of this change goes there",
    },
    Equivalent {
        place: &["tcplife/inet_sock_set_state", "[entry + 40]", "table.rs"],
        what: &["constant + 1"],
        why: "the role goes into that byte",
    },
    Equivalent {
        place: &["/task_file", "[entry + 0]", "table.rs"],
        what: WHATEVER,
        why: "the holder goes there",
    },
    Equivalent {
        place: &["/task_file", "[entry + 8]", "table.rs"],
        what: WHATEVER,
        why: "the holder's name goes there",
    },
    Equivalent {
        place: &["/task_file", "[entry + 16]", "table.rs"],
        what: WHATEVER,
        why: "the rest of it goes there",
    },
];

/// Changes to a statement that clears a place which is written again later. Not among them is to
/// misplace it by less than its width: what it then clears beside its place stays cleared.
const WHATEVER: &[&str] = &["constant + 1", "half", "left out", "offset + width", "offset - width"];
