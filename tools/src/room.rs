//! How many sockets the tables get room for where the command line does not say.

use std::path::Path;

/// Enough for most hosts, and one or two megabytes, which take half a millisecond of a start.
pub const LEAST: u32 = 16384;
/// What is given without being asked for, at most: some thirty megabytes for each table, which the kernel cannot swap out.
const MOST: u32 = 1 << 18;

/// Room for four times the sockets that there are now, and for [`LEAST`] at least.
pub fn for_open_sockets() -> u32 {
    let sockstat = loader::kernel::read_small(Path::new("/proc/net/sockstat"));
    sockstat.ok().and_then(|text| allocated(&text)).map_or(LEAST, room)
}

fn room(sockets: u32) -> u32 {
    sockets.saturating_mul(4).clamp(LEAST, MOST)
}

/// The TCP sockets of the host, of all network namespaces and both families: `TCP: inuse 5 orphan 0 tw 2 alloc 9 mem 1`.
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
    fn room_grows_with_them() {
        assert_eq!([0, 4096, 40_000, 90_000, u32::MAX].map(room), [LEAST, LEAST, 160_000, MOST, MOST]);
    }
}
