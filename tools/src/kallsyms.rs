//! Names of the kernel's code: an address to a symbol of `/proc/kallsyms`.
//!
//! The file has some two hundred thousand lines and takes the kernel tens of milliseconds to write, and only few of its names
//! are ever asked for. So nothing of it is kept: a question reads through it once, whatever number of addresses it is
//! about, and the answers are remembered.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};

/// Where a symbol's code cannot reach: the next symbol may be missing, as that of a program loaded later.
const FARTHEST: u64 = 1 << 18;

/// Answers remembered; a stack has a few dozen addresses and most stacks share most of them.
const REMEMBERED: usize = 4096;

/// The longest line that is looked at; `KSYM_NAME_LEN` (include/linux/kallsyms.h) is 512, and a module's name 64 at most.
const LONGEST: usize = 1024;

/// What an address is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// The function.
    name: Box<str>,
    /// The module it is of.
    module: Option<Box<str>>,
    /// Bytes from its start.
    offset: u64,
}

impl Symbol {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `tcp_v4_rcv+0x1b`, `nft_do_chain+0x2f [nf_tables]`
impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.name, self.offset)?;
        self.module.as_ref().map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}

/// What is known of addresses.
#[derive(Debug, Default)]
pub struct Kallsyms {
    /// `None`: looked for, and there is no symbol.
    known: HashMap<u64, Option<Symbol>>,
}

/// Why addresses stay without names.
#[derive(Debug)]
pub enum Nameless {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// It has names and no addresses: without CAP_SYSLOG, or by `kernel.kptr_restrict`.
    Hidden,
}

impl fmt::Display for Nameless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "{FILE}: {error}"),
            Self::Hidden => write!(
                f,
                "{FILE} hides addresses (CAP_SYSLOG shows them, unless sysctl kernel.kptr_restrict is 2)"
            ),
        }
    }
}

const FILE: &str = "/proc/kallsyms";

impl Kallsyms {
    /// Finds out what these addresses are, so that [`Kallsyms::symbol`] knows.
    pub fn learn(&mut self, addresses: impl Iterator<Item = u64>) -> Result<(), Nameless> {
        let mut wanted: Vec<u64> = addresses.filter(|address| !self.known.contains_key(address)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        wanted.dedup();
        if self.known.len() + wanted.len() > REMEMBERED {
            self.known.clear();
        }
        let found = File::open(FILE).and_then(|file| find(file, &wanted));
        match found {
            Ok(Found { symbols, any }) => {
                self.known.extend(wanted.into_iter().zip(symbols));
                if any { Ok(()) } else { Err(Nameless::Hidden) }
            }
            Err(error) => {
                self.known.extend(wanted.into_iter().map(|address| (address, None)));
                Err(Nameless::Unreadable(error))
            }
        }
    }

    /// What the address is, if that was learned and it is anything.
    pub fn symbol(&self, address: u64) -> Option<&Symbol> {
        self.known.get(&address)?.as_ref()
    }
}

/// What one reading gave.
struct Found {
    /// For each address, in their order.
    symbols: Vec<Option<Symbol>>,
    /// Whether any symbol had an address.
    any: bool,
}

/// The nearest symbol seen so far at or below an address.
#[derive(Clone, Default)]
struct Nearest {
    start: u64,
    /// Name and module, as the line has them.
    text: Vec<u8>,
}

/// Finds the symbols that these addresses, sorted and none twice, lie in.
fn find(file: impl Read, wanted: &[u64]) -> io::Result<Found> {
    // A symbol is noted with the first address that is not below it, and later passed on to those above it.
    let mut nearest = vec![Nearest::default(); wanted.len()];
    let mut any = false;
    each_line(file, |line| {
        let Some((start, text)) = parse(line) else { return };
        any |= start != 0;
        let slot = wanted.partition_point(|address| *address < start);
        if let Some(nearest) = nearest.get_mut(slot)
            && start > nearest.start
        {
            nearest.start = start;
            nearest.text.clear();
            nearest.text.extend_from_slice(text);
        }
    })?;
    let mut below = &Nearest::default();
    let symbols = wanted
        .iter()
        .zip(&nearest)
        .map(|(address, nearest)| {
            if nearest.start > below.start {
                below = nearest;
            }
            symbol(below, *address)
        })
        .collect();
    Ok(Found { symbols, any })
}

fn symbol(nearest: &Nearest, address: u64) -> Option<Symbol> {
    let offset = address - nearest.start;
    if nearest.start == 0 || offset > FARTHEST {
        return None;
    }
    let text = String::from_utf8_lossy(&nearest.text);
    let (name, module) = match text.split_once('\t') {
        Some((name, module)) => (name, Some(module.trim_matches(['[', ']']).into())),
        None => (&*text, None),
    };
    Some(Symbol { name: name.into(), module, offset })
}

/// The start and the rest of a line that is about code: `ffffffff81000000 T name` or `… t name\t[module]`.
fn parse(line: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = line.split_at_checked(16)?;
    let [b' ', kind, b' ', name @ ..] = rest else { return None };
    if !matches!(kind, b't' | b'T' | b'w' | b'W') || name.is_empty() {
        return None;
    }
    let mut start = 0;
    for digit in digits {
        start = start << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some((start, name))
}

/// Hands out the lines of a file, without their ends. What is too long to be a symbol is left out.
fn each_line(file: impl Read, mut line: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 14, file);
    let mut rest = Vec::with_capacity(LONGEST);
    let mut skipping = false;
    loop {
        let bytes = match io::BufRead::fill_buf(&mut file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            if !skipping {
                line(&rest);
            }
            return Ok(());
        }
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let mut piece = pieces.next().unwrap_or_default();
        for next in pieces {
            let fits = !skipping && rest.len() + piece.len() <= LONGEST;
            if fits && rest.is_empty() {
                line(piece);
            } else if fits {
                rest.extend_from_slice(piece);
                line(&rest);
            }
            rest.clear();
            skipping = false;
            piece = next;
        }
        // The line goes on in the next buffer.
        if rest.len() + piece.len() > LONGEST {
            skipping = true;
        } else {
            rest.extend_from_slice(piece);
        }
        let read = bytes.len();
        io::BufRead::consume(&mut file, read);
    }
}

/// For [`crate::hostile`]: what [`find`] finds is what looking at each line for each address finds.
#[cfg(any(test, fuzzing))]
pub fn find_in(file: &[u8], mut wanted: Vec<u64>) {
    wanted.sort_unstable();
    wanted.dedup();
    let found = find(file, &wanted).expect("memory can be read");
    assert_eq!(found.symbols.len(), wanted.len());
    let lines = file.split(|byte| *byte == b'\n').filter(|line| line.len() <= LONGEST);
    let known: Vec<_> = lines.filter_map(parse).collect();
    assert_eq!(found.any, known.iter().any(|(start, _)| *start != 0));
    for (address, symbol) in wanted.iter().zip(&found.symbols) {
        let below =
            known.iter().map(|(start, _)| *start).filter(|start| start <= address && *start != 0).max();
        let offset = below.map(|start| address - start).filter(|offset| *offset <= FARTHEST);
        assert_eq!(symbol.as_ref().map(|symbol| symbol.offset), offset, "{address:#x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000100 t tcp_one
ffffffff81000200 T tcp_two
ffffffff81000200 T tcp_two_alias
ffffffff81000280 d not_code
ffffffff81000300 W tcp_three
ffffffffc0000000 t nft_do_chain\t[nf_tables]
ffffffffc0000100 t nft_end\t[nf_tables]
ffffffff81000180 t out_of_order
";

    fn names(text: &[u8], wanted: &[u64]) -> Vec<String> {
        let found = find(text, wanted).expect("memory can be read");
        found
            .symbols
            .iter()
            .map(|symbol| symbol.as_ref().map_or("-".to_owned(), ToString::to_string))
            .collect()
    }

    #[test]
    fn the_nearest_symbol_below() {
        let wanted = [
            0x10,
            0xffff_ffff_8100_0000,
            0xffff_ffff_8100_0101,
            0xffff_ffff_8100_017f,
            0xffff_ffff_8100_0190,
            0xffff_ffff_8100_0290,
            0xffff_ffff_8100_0291,
            0xffff_ffff_8100_0400,
            0xffff_ffff_9000_0000,
            0xffff_ffff_c000_0010,
            0xffff_ffff_c000_0100,
            u64::MAX,
        ];
        let expected = [
            "-",
            "_stext+0x0",
            "tcp_one+0x1",
            "tcp_one+0x7f",
            "out_of_order+0x10",
            "tcp_two+0x90",
            "tcp_two+0x91",
            "tcp_three+0x100",
            "-",
            "nft_do_chain+0x10 [nf_tables]",
            "nft_end+0x0 [nf_tables]",
            "-",
        ];
        assert_eq!(names(SOME.as_bytes(), &wanted), expected);
        assert_eq!(names(SOME.trim_end().as_bytes(), &wanted), expected, "a last line without an end");
        for (address, expected) in wanted.iter().zip(expected) {
            assert_eq!(names(SOME.as_bytes(), &[*address]), [expected], "asked for alone");
        }
    }

    /// Reads one byte at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn lines_are_put_together() {
        let found = find(Drops(SOME.as_bytes()), &[0xffff_ffff_8100_0101]).expect("memory can be read");
        assert_eq!(found.symbols[0].as_ref().map(Symbol::name), Some("tcp_one"));
        assert!(found.any);
    }

    #[test]
    fn hidden_addresses_are_none() {
        let hidden: String = SOME.lines().map(|line| format!("{:016}{}\n", 0, &line[16..])).collect();
        let found = find(hidden.as_bytes(), &[0xffff_ffff_8100_0101]).expect("memory can be read");
        assert_eq!((found.symbols, found.any), (vec![None], false));
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        let long = "x".repeat(100_000);
        let mut text = format!("ffffffff81000000 T good\nffffffff81000010 T {long}\n").into_bytes();
        text.extend_from_slice(
            b"ffffffff8100001 T short\n\n \nzzzzzzzzzzzzzzzz T no_number\nffffffff81000011",
        );
        text.extend_from_slice(b"\nffffffff81000012 T\nffffffff81000013 T \nffffffff81000014  nokind\n");
        assert_eq!(names(&text, &[0xffff_ffff_8100_0020]), ["good+0x20"]);
        text.extend_from_slice(b"ffffffff81000018 T \xff\xfe\x1b[m\t\n");
        assert_eq!(names(&text, &[0xffff_ffff_8100_0020]), ["\u{fffd}\u{fffd}\u{1b}[m+0x8 []"]);
        assert_eq!(names(b"", &[1]), ["-"]);
    }

    #[test]
    fn this_kernel_has_names() {
        let mut kallsyms = Kallsyms::default();
        // Without privileges the addresses are hidden, and nothing has a name.
        match kallsyms.learn([u64::MAX - 1].into_iter()) {
            Ok(()) | Err(Nameless::Hidden | Nameless::Unreadable(_)) => {}
        }
        assert!(kallsyms.symbol(u64::MAX - 1).is_none());
        assert!(kallsyms.learn([u64::MAX - 1].into_iter()).is_ok(), "it is not asked twice");
    }

    #[test]
    fn answers_are_bounded() {
        let mut kallsyms = Kallsyms::default();
        for address in 0..REMEMBERED as u64 {
            kallsyms.known.insert(address, None);
        }
        let _ = kallsyms.learn([REMEMBERED as u64].into_iter());
        assert_eq!(kallsyms.known.len(), 1);
    }
}
