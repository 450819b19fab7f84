//! How many entries the tables of sockets get without `--max-sockets`.

use std::path::Path;

/// The smallest size: enough for most hosts. It takes one to two megabytes, and half a millisecond
/// of the start.
pub const MIN: u32 = 16384;
/// The largest size: some thirty megabytes per table, which the kernel cannot swap out.
const MAX: u32 = 1 << 18;

/// Four times the number of open sockets, within the limits above.
pub fn for_open_sockets() -> u32 {
    let sockstat = loader::kernel::read_small(Path::new("/proc/net/sockstat"));
    sockstat.ok().and_then(|text| allocated(&text)).map_or(MIN, size_for)
}

fn size_for(sockets: u32) -> u32 {
    sockets.saturating_mul(4).clamp(MIN, MAX)
}

/// The TCP sockets of the host, in all network namespaces, of both families:
/// `TCP: inuse 5 orphan 0 tw 2 alloc 9 mem 1`.
fn allocated(sockstat: &str) -> Option<u32> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_once("alloc ")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_the_host() {
        let text = "sockets: used 12\nTCP: inuse 5 orphan 0 tw 2 alloc 90000 mem 1\nUDP: inuse 0 mem 1\n";
        assert_eq!(allocated(text), Some(90_000));
        for wrong in ["", "TCP:", "TCP: alloc x mem", "UDP: alloc 5"] {
            assert_eq!(allocated(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn size_grows_with_the_sockets() {
        assert_eq!([0, 4096, 40_000, 90_000, u32::MAX].map(size_for), [MIN, MIN, 160_000, MAX, MAX]);
    }
}
