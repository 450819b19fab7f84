//! Comparing an address with subnets, each of which is compiled into the program. For many subnets,
//! see `trie`.

use bpfasm::{Fragment, Reg, Size, bpf};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::endpoints::{Endpoint, Endpoints};
use crate::tcp::AF_INET6;

/// The form of a subnet that addresses are compared with: without host bits, and a subnet of mapped
/// addresses (`::ffff:192.0.2.0/120`) as an IPv4 subnet.
#[must_use]
pub fn canonical(subnet: IpNet) -> IpNet {
    if let IpNet::V6(v6) = subnet
        && let (Some(v4), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = Ipv4Net::new(v4, prefix)
    {
        return IpNet::V4(v4.trunc());
    }
    subnet.trunc()
}

/// Whether every address of both families is in one of the subnets.
#[must_use]
pub fn contain_everything(subnets: &[IpNet]) -> bool {
    let all = |v4: bool| {
        let mut of_family = subnets.iter().filter(|subnet| matches!(canonical(**subnet), IpNet::V4(_)) == v4);
        of_family.any(|subnet| canonical(*subnet).prefix_len() == 0)
    };
    all(true) && all(false)
}

/// Compares the address of one endpoint with each subnet, in order. Continues with `found` for the
/// number of the first subnet that contains it. Falls through if there is none; if the subnets
/// [contain every address](contain_everything), the code behind this one cannot be reached.
///
/// `found` must not fall through, and its labels must not begin with `subnet`. Clobbers `r0` to
/// `r4`.
pub fn first(
    endpoints: Endpoints,
    side: Endpoint,
    subnets: &[IpNet],
    found: &dyn Fn(usize) -> Fragment,
) -> Fragment {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (number, subnet) in subnets.iter().enumerate() {
        match canonical(*subnet) {
            IpNet::V4(subnet) => v4.push((number, subnet)),
            IpNet::V6(subnet) => v6.push((number, subnet)),
        }
    }
    bpf! {
        ..endpoints.family();
        if w1 != {AF_INET6} goto subnet_ipv4;
        ..endpoints.goto_unless_mapped(side, "subnet_ipv6");
        ..endpoints.ipv6(side, Reg::R2, Size::B4, 12);
        goto subnet_have_ipv4;
    subnet_ipv6:
        ..endpoints.ipv6(side, Reg::R2, Size::B8, 0);
        ..endpoints.ipv6(side, Reg::R3, Size::B8, 8);
        ..each_v6(&v6, found);
    subnet_ipv4:
        ..endpoints.ipv4(side, Reg::R2);
    subnet_have_ipv4:
        ..each_v4(&v4, found);
    subnet_none:
    }
}

/// Compares the address in `w2`, which is in network order.
fn each_v4(subnets: &[(usize, Ipv4Net)], found: &dyn Fn(usize) -> Fragment) -> Fragment {
    let mut fragment = Fragment::new();
    for (number, subnet) in subnets {
        if subnet.prefix_len() == 0 {
            fragment.splice(found(*number));
            return fragment;
        }
        let wire = |address: std::net::Ipv4Addr| i32::from_ne_bytes(address.octets());
        let mask = match subnet.prefix_len() {
            32 => Fragment::new(),
            _ => bpf! { w1 &= {wire(subnet.netmask())}; },
        };
        fragment.splice(bpf! {
            w1 = w2;
            ..mask;
            if w1 != {wire(subnet.network())} goto subnet_next;
            ..found(*number);
        subnet_next:
        });
    }
    fragment
}

/// Compares the address in `r2` and `r3`, which is in network order. Jumps to `subnet_none` if no
/// subnet contains it.
fn each_v6(subnets: &[(usize, Ipv6Net)], found: &dyn Fn(usize) -> Fragment) -> Fragment {
    let mut fragment = Fragment::new();
    for (number, subnet) in subnets {
        if subnet.prefix_len() == 0 {
            fragment.splice(found(*number));
            return fragment;
        }
        let halves = |address: std::net::Ipv6Addr| {
            let octets = address.octets();
            [0, 8].map(|at| u64::from_ne_bytes(std::array::from_fn(|byte| octets[at + byte])))
        };
        let [mask_high, mask_low] = halves(subnet.netmask());
        let [high, low] = halves(subnet.network());
        fragment.splice(bpf! {
            ..goto_unless_equal(Reg::R2, mask_high, high, "subnet_next");
            ..goto_unless_equal(Reg::R3, mask_low, low, "subnet_next");
            ..found(*number);
        subnet_next:
        });
    }
    fragment.splice(bpf! { goto subnet_none; });
    fragment
}

/// Jumps to `label` unless this half of an address, masked, equals `value`.
fn goto_unless_equal(half: Reg, mask: u64, value: u64, label: &'static str) -> Fragment {
    let masked = match mask {
        0 => return Fragment::new(),
        u64::MAX => bpf! { r1 = {half}; },
        _ => bpf! {
            r1 = {mask} ll;
            r1 &= {half};
        },
    };
    bpf! {
        ..masked;
        r4 = {value} ll;
        if r1 != r4 goto {label};
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn mapped_subnets_are_ipv4() {
        assert_eq!(canonical(net("::ffff:192.0.2.1/120")), net("192.0.2.0/24"));
        assert_eq!(canonical(net("192.0.2.77/24")), net("192.0.2.0/24"), "host bits do not count");
        for six in ["::/0", "::ffff:0:0/95", "2001:db8::/32"] {
            assert!(matches!(canonical(net(six)), IpNet::V6(_)), "{six}");
        }
    }

    #[test]
    fn everything_is_both_families() {
        assert!(contain_everything(&[net("10.0.0.0/8"), net("0.0.0.0/0"), net("::/0")]));
        for part in [&["0.0.0.0/0"][..], &["::/0"], &["0.0.0.0/1", "128.0.0.0/1", "::/0"], &[]] {
            let subnets: Vec<_> = part.iter().map(|text| net(text)).collect();
            assert!(!contain_everything(&subnets), "{part:?}");
        }
    }
}
