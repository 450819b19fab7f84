//! Looking an address up in many subnets, with a trie. Few subnets are compared one by one, see
//! [`subnet`](crate::subnet).
//!
//! The user's order of subnets counts: an address belongs to the first subnet that contains it. But
//! a look-up in a trie finds the subnet with the longest prefix. All subnets that contain an
//! address are nested, so those that contain the longest one are known beforehand. The value of its
//! entry is the number of the first of them.

use std::collections::HashMap;

use bpfasm::object::{BPF_F_NO_PREALLOC, MapDef, MapKind};
use bpfasm::{Fragment, Reg, Size, bpf};
use ipnet::IpNet;

use crate::endpoints::{Endpoint, Endpoints};
use crate::subnet::canonical;
use crate::tcp::AF_INET;
use crate::{map, stack_layout};

/// The name of the map of IPv4 subnets. A key is the prefix length (`u32`) and the address, a value
/// is the number of a subnet (`u32`).
pub const V4: &str = "subnets4";
/// The name of the map of IPv6 subnets.
pub const V6: &str = "subnets6";

/// The maps, for this many subnets. The tool fills them with [`entries`] before it attaches
/// anything.
#[must_use]
pub fn maps(subnets: usize) -> [MapDef; 2] {
    let max_entries = u32::try_from(subnets).unwrap_or(u32::MAX);
    [(V4, 8), (V6, 20)].map(|(name, key_size)| MapDef {
        // The kernel requires it for a trie.
        flags: BPF_F_NO_PREALLOC,
        ..MapDef::new(name, MapKind::LpmTrie, key_size, 4, max_entries)
    })
}

/// The entries of the maps: map, key and value of each.
#[must_use]
pub fn entries(subnets: &[IpNet]) -> Vec<(&'static str, Vec<u8>, [u8; 4])> {
    let mut numbers: HashMap<IpNet, u32> = HashMap::new();
    for (number, subnet) in (0..).zip(subnets) {
        numbers.entry(canonical(*subnet)).or_insert(number);
    }
    let entry = |subnet: &IpNet| {
        let containing = std::iter::successors(Some(*subnet), IpNet::supernet);
        let first = containing.filter_map(|subnet| numbers.get(&subnet)).min()?;
        let (map, octets) = match subnet {
            IpNet::V4(subnet) => (V4, subnet.network().octets().to_vec()),
            IpNet::V6(subnet) => (V6, subnet.network().octets().to_vec()),
        };
        let mut key = u32::from(subnet.prefix_len()).to_ne_bytes().to_vec();
        key.extend(octets);
        Some((map, key, first.to_ne_bytes()))
    };
    numbers.keys().filter_map(entry).collect()
}

/// The place of a key's address on the stack. The prefix length lies before it.
const ADDRESS: i16 = stack_layout::ENTRY + 16;
/// The place of the key.
const KEY: i16 = ADDRESS - 4;

/// Looks up the address of one endpoint. Writes the number of the first subnet that contains it to
/// `number` bytes from `r10` and jumps to `wanted`, or falls through if there is none. Clobbers
/// `r0` to `r5`.
pub fn first(endpoints: Endpoints, side: Endpoint, number: i16) -> Fragment {
    bpf! {
        ..endpoints.family();
        if w1 == {AF_INET} goto ipv4;
        ..endpoints.goto_unless_mapped(side, "ipv6");
        ..endpoints.ipv6(side, Reg::R1, Size::B4, 12);
        goto have_ipv4;
    ipv6:
        ..endpoints.ipv6(side, Reg::R1, Size::B8, 0);
        *(u64 *)(r10 + {ADDRESS}) = r1;
        ..endpoints.ipv6(side, Reg::R1, Size::B8, 8);
        *(u64 *)(r10 + {ADDRESS + 8}) = r1;
        ..look_up(V6, 128, number);
    ipv4:
        ..endpoints.ipv4(side, Reg::R1);
    have_ipv4:
        *(u32 *)(r10 + {ADDRESS}) = w1;
        ..look_up(V4, 32, number);
    none:
    }
}

/// Looks up the address on the stack. Jumps to `wanted` or to `none`.
fn look_up(trie: &'static str, bits: i32, number: i16) -> Fragment {
    bpf! {
        *(u32 *)(r10 + {KEY}) = {bits};
        ..map::lookup(trie, KEY);
        if r0 == 0 goto none;
        w1 = *(u32 *)(r0 + 0);
        *(u32 *)(r10 + {number}) = w1;
        goto wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_names_the_first_that_contains_it() {
        let texts = [
            "10.1.0.0/16",
            "10.0.0.0/8",
            "10.1.2.0/24",
            "10.2.0.0/16",
            "::ffff:192.0.2.0/120",
            "2001:db8::/32",
        ];
        let subnets = texts.map(|text| text.parse().expect("a subnet"));
        let entries = entries(&subnets);
        assert_eq!(entries.len(), texts.len());
        let number = |map, length: u32, octets: &[u8]| {
            let key = [&length.to_ne_bytes(), octets].concat();
            let (.., number) = entries.iter().find(|(in_map, found, _)| (*in_map, found) == (map, &key))?;
            Some(u32::from_ne_bytes(*number))
        };
        assert_eq!(number(V4, 16, &[10, 1, 0, 0]), Some(0));
        assert_eq!(number(V4, 8, &[10, 0, 0, 0]), Some(1));
        assert_eq!(number(V4, 24, &[10, 1, 2, 0]), Some(0), "the wider one is listed first");
        assert_eq!(number(V4, 16, &[10, 2, 0, 0]), Some(1));
        assert_eq!(number(V4, 24, &[192, 0, 2, 0]), Some(4));
        assert_eq!(number(V6, 32, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(5));
    }
}
