//! A rule of nftables that drops TCP packets to a port, made without the program `nft`.
//!
//! Numbers have the names of `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter.h`.

use std::io;

use nix::sys::socket::SockProtocol;

use crate::netlink::{self, NLM_F_ACK, NLM_F_CREATE, Request};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NF_DROP: u32 = 0;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_META_L4PROTO: u32 = 16;
const NFT_CMP_EQ: u32 = 0;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const IPPROTO_TCP: u8 = 6;

/// The name of the table and of its only chain.
const NAME: &[u8] = b"kernel-tests\0";

/// Where the rule applies (`enum nf_inet_hooks`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// `NF_INET_LOCAL_IN`: to received packets.
    Input = 1,
    /// `NF_INET_LOCAL_OUT`: to sent packets.
    Output = 3,
}

/// Drops TCP packets, IPv4 and IPv6, to this port in the namespace that this process is in, until
/// the namespace ends.
///
/// # Errors
/// The error of the kernel, for example because it does not support nftables.
pub fn drop_tcp_to(port: u16, hook: Hook) -> io::Result<()> {
    let mut table = message(NFT_MSG_NEWTABLE, NLM_F_CREATE);
    table.attr(1, NAME); // NFTA_TABLE_NAME

    let mut chain = message(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    chain.attr(1, NAME); // NFTA_CHAIN_TABLE
    chain.attr(3, NAME); // NFTA_CHAIN_NAME
    chain.nested(4 | NLA_F_NESTED, |at| {
        at.number(1, hook as u32); // NFTA_HOOK_HOOKNUM
        at.number(2, 0); // NFTA_HOOK_PRIORITY: NF_IP_PRI_FILTER
    });
    chain.attr(7, b"filter\0"); // NFTA_CHAIN_TYPE

    let mut rule = message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK);
    rule.attr(1, NAME); // NFTA_RULE_TABLE
    rule.attr(2, NAME); // NFTA_RULE_CHAIN
    rule.nested(4 | NLA_F_NESTED, |list| {
        expression(list, b"meta\0", |meta| {
            meta.number(1, NFT_REG_1); // NFTA_META_DREG
            meta.number(2, NFT_META_L4PROTO); // NFTA_META_KEY
        });
        expression(list, b"cmp\0", |cmp| equals(cmp, &[IPPROTO_TCP]));
        expression(list, b"payload\0", |payload| {
            payload.number(1, NFT_REG_1); // NFTA_PAYLOAD_DREG
            payload.number(2, NFT_PAYLOAD_TRANSPORT_HEADER); // NFTA_PAYLOAD_BASE
            payload.number(3, 2); // NFTA_PAYLOAD_OFFSET: of tcphdr.dest
            payload.number(4, 2); // NFTA_PAYLOAD_LEN
        });
        expression(list, b"cmp\0", |cmp| equals(cmp, &port.to_be_bytes()));
        expression(list, b"immediate\0", |immediate| {
            immediate.number(1, NFT_REG_VERDICT); // NFTA_IMMEDIATE_DREG
            immediate.nested(2 | NLA_F_NESTED, |data| {
                // NFTA_DATA_VERDICT, and in it NFTA_VERDICT_CODE
                data.nested(2 | NLA_F_NESTED, |verdict| verdict.number(1, NF_DROP));
            });
        });
    });

    let messages = [batch(NFNL_MSG_BATCH_BEGIN), table, chain, rule, batch(NFNL_MSG_BATCH_END)];
    let bytes: Vec<u8> = messages.into_iter().flat_map(Request::finish).collect();
    netlink::send(SockProtocol::NetlinkNetFilter, &bytes)
}

/// A message to nf_tables about the family `inet`: `struct nfgenmsg` and attributes.
fn message(kind: u16, flags: u16) -> Request {
    let mut message = Request::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags);
    message.header(&[NFPROTO_INET, 0, 0, 0]);
    message
}

/// The begin or end of a transaction; its `res_id` names the subsystem.
fn batch(kind: u16) -> Request {
    let mut batch = Request::new(kind, 0);
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    batch.header(&[NFPROTO_UNSPEC, 0, high, low]);
    batch
}

/// Appends one expression of a rule.
fn expression(list: &mut Request, name: &[u8], fill: impl FnOnce(&mut Request)) {
    // NFTA_LIST_ELEM of NFTA_EXPR_NAME and NFTA_EXPR_DATA
    list.nested(1 | NLA_F_NESTED, |element| {
        element.attr(1, name);
        element.nested(2 | NLA_F_NESTED, fill);
    });
}

/// The rule continues only if the register begins with these bytes.
fn equals(cmp: &mut Request, bytes: &[u8]) {
    cmp.number(1, NFT_REG_1); // NFTA_CMP_SREG
    cmp.number(2, NFT_CMP_EQ); // NFTA_CMP_OP
    cmp.nested(3 | NLA_F_NESTED, |data| data.attr(1, bytes)); // NFTA_CMP_DATA of NFTA_DATA_VALUE
}

impl Request {
    /// Appends a number; those of nf_tables are in network byte order.
    fn number(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_be_bytes());
    }
}
