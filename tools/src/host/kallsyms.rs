//! `/proc/kallsyms`: from an address in the kernel to the function it lies in.
//!
//! The file has some two hundred thousand lines and takes the kernel tens of milliseconds to write,
//! and few of its names are ever needed. So it is not indexed: each search reads the file once, for
//! any number of addresses. Whole functions are remembered, from their start to the start of the
//! next one: packets are dropped at thousands of addresses in a few hundred functions, so after a
//! short time no search is needed. A search can be interrupted, because events keep coming while it
//! runs and their buffer has to be emptied.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::time::{Duration, Instant};

/// No function is longer. Without this limit, an address whose own symbol is missing, such as that
/// of a BPF program loaded later, would be taken for a place in the function before it.
const MAX_FUNCTION: u64 = 1 << 18;

/// At most this many functions, and this many addresses without a name, are remembered.
const MAX_REMEMBERED: usize = 4096;

/// How long an answer is used that may become wrong: a function of a module or BPF program, which
/// can be unloaded, and the answer that an address has no name.
const EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// Longer lines are skipped. `KSYM_NAME_LEN` (include/linux/kallsyms.h) is 512, and a module's name
/// has at most 64 bytes.
const MAX_LINE: usize = 1024;

/// A function of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Function {
    name: Box<str>,
    /// The module that contains it; `None` for the kernel's own code.
    module: Option<Box<str>>,
    start: u64,
    /// The first address after it.
    end: u64,
}

impl Function {
    fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// A place in a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Symbol<'a> {
    function: &'a Function,
    address: u64,
}

impl<'a> Symbol<'a> {
    /// The function's name.
    pub fn name(self) -> &'a str {
        &self.function.name
    }
}

/// `tcp_v4_rcv+0x1b`, `nft_do_chain+0x2f [nf_tables]`
impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Function { name, module, start, .. } = self.function;
        write!(f, "{name}+{:#x}", self.address - start)?;
        module.as_ref().map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}

/// The functions found so far.
#[derive(Debug, Default)]
pub struct Kallsyms {
    /// `None` during a search, and if the file could not be opened. The kernel decides when the
    /// file is opened whether it shows addresses to this process.
    file: Option<File>,
    /// By their starts, with the time at which the answer expires, if it does.
    functions: BTreeMap<u64, (Function, Option<Instant>)>,
    /// Addresses that are not in any function, with the time at which the answer expires.
    unnamed: HashMap<u64, Instant>,
    search: Option<Search<File>>,
}

/// Why this host shows no function names.
#[derive(Debug)]
pub enum Unavailable {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The file has names without addresses: CAP_SYSLOG is missing, or `kernel.kptr_restrict` is 2.
    Hidden,
}

impl fmt::Display for Unavailable {
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

impl Unavailable {
    /// What helps.
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable(_) => None,
            Self::Hidden => Some(
                "run as root or with CAP_SYSLOG; if kernel.kptr_restrict is 2: sysctl -w kernel.kptr_restrict=1",
            ),
        }
    }
}

const FILE: &str = "/proc/kallsyms";

/// Checks whether this host shows function names.
pub fn check() -> Result<(), Unavailable> {
    let mut kallsyms = Kallsyms::open()?;
    kallsyms.ask([0].into_iter())?;
    kallsyms.step(Duration::MAX).map(|_| ())
}

impl Kallsyms {
    /// Opens the file. It stays open, because a run cannot open files once it has given up its
    /// privileges.
    pub fn open() -> Result<Self, Unavailable> {
        let file = File::open(FILE).map_err(Unavailable::Unreadable)?;
        Ok(Self { file: Some(file), ..Self::default() })
    }

    /// Begins a search for these addresses. Returns false if none is needed; otherwise
    /// [`Kallsyms::step`] has to be called until it returns true.
    pub fn ask(&mut self, addresses: impl Iterator<Item = u64> + Clone) -> Result<bool, Unavailable> {
        let now = Instant::now();
        let unknown = addresses.clone().filter(|address| !self.knows(*address, now));
        // A set, because thousands of stacks share a few hundred addresses.
        let mut wanted: BTreeSet<u64> = unknown.collect();
        if wanted.is_empty() {
            return Ok(false);
        }
        let Some(mut file) = self.file.take() else { return Ok(false) };
        file.rewind().map_err(Unavailable::Unreadable)?;
        if self.functions.len().max(self.unnamed.len()) + wanted.len() > MAX_REMEMBERED {
            (self.functions, self.unnamed) = Default::default();
            wanted = addresses.collect();
        }
        self.search = Some(Search::new(wanted, file));
        Ok(true)
    }

    /// Whether a search is not finished.
    pub fn is_asked(&self) -> bool {
        self.search.is_some()
    }

    /// Continues the search for about this time. Returns true once it is finished.
    pub fn step(&mut self, time: Duration) -> Result<bool, Unavailable> {
        let Some(mut search) = self.search.take() else { return Ok(true) };
        let begin = Instant::now();
        while !search.step().map_err(Unavailable::Unreadable)? {
            if begin.elapsed() >= time {
                self.search = Some(search);
                return Ok(false);
            }
        }
        let noted = self.note(&search, Instant::now());
        self.file = Some(search.into_file());
        noted.map(|()| true)
    }

    /// Remembers what a search has found.
    fn note<R>(&mut self, search: &Search<R>, now: Instant) -> Result<(), Unavailable> {
        let again = now + EXPIRES_AFTER;
        for (address, function) in search.found() {
            match function {
                Some(function) => {
                    self.unnamed.remove(&address);
                    // Functions of an unloaded module whose place this one has taken.
                    self.functions.retain(|start, _| !function.contains(*start));
                    let again = function.module.is_some().then_some(again);
                    self.functions.insert(function.start, (function, again));
                }
                None => {
                    self.functions.retain(|_, (function, _)| !function.contains(address));
                    self.unnamed.insert(address, again);
                }
            }
        }
        if search.any { Ok(()) } else { Err(Unavailable::Hidden) }
    }

    /// Whether the answer for this address is remembered and has not expired.
    fn knows(&self, address: u64, now: Instant) -> bool {
        let function = self.around(address).map(|(_, again)| again.is_none_or(|again| now < again));
        function.or_else(|| self.unnamed.get(&address).map(|again| now < *again)).unwrap_or(false)
    }

    fn around(&self, address: u64) -> Option<&(Function, Option<Instant>)> {
        self.functions
            .range(..=address)
            .next_back()
            .map(|(_, known)| known)
            .filter(|known| known.0.contains(address))
    }

    /// The function at an address, if a search has found one.
    pub fn symbol(&self, address: u64) -> Option<Symbol<'_>> {
        self.around(address).map(|(function, _)| Symbol { function, address })
    }
}

/// The symbols nearest to an address, as far as the file has been read.
#[derive(Clone, Debug)]
struct Around {
    /// The start of the nearest symbol at or below it; 0 while there is none.
    start: u64,
    /// The name and module of that symbol, as in the file.
    text: Vec<u8>,
    /// The start of the nearest symbol above.
    next: u64,
}

/// One pass over the file, for the functions at some addresses.
#[derive(Debug)]
struct Search<R> {
    lines: Lines<R>,
    /// In order.
    wanted: Vec<u64>,
    /// For each of them. A symbol is entered only at the first address at or above it and at the
    /// last address below it; [`Search::found`] carries it over to the others.
    around: Vec<Around>,
    /// Whether any symbol had an address other than 0.
    any: bool,
}

impl<R> Search<R> {
    fn new(wanted: BTreeSet<u64>, file: R) -> Self
    where
        R: Read,
    {
        let wanted: Vec<u64> = wanted.into_iter().collect();
        let around = vec![Around { start: 0, text: Vec::new(), next: u64::MAX }; wanted.len()];
        Self { lines: Lines::new(file), wanted, around, any: false }
    }

    /// Reads one piece of the file. Returns true at its end.
    fn step(&mut self) -> io::Result<bool>
    where
        R: Read,
    {
        let Self { lines, wanted, around, any } = self;
        lines.step(&mut |line| {
            let Some((start, text)) = parse(line) else { return };
            *any |= start != 0;
            let slot = wanted.partition_point(|address| *address < start);
            if let Some(above) = slot.checked_sub(1).and_then(|slot| around.get_mut(slot)) {
                above.next = above.next.min(start);
            }
            if let Some(below) = around.get_mut(slot)
                && start > below.start
            {
                below.start = start;
                below.text.clear();
                below.text.extend_from_slice(text);
            }
        })
    }

    /// The file, for the next search.
    fn into_file(self) -> R {
        self.lines.file.into_inner()
    }

    /// Each address with the function it lies in.
    fn found(&self) -> Vec<(u64, Option<Function>)> {
        let mut ends = Vec::with_capacity(self.around.len());
        let mut next = u64::MAX;
        for around in self.around.iter().rev() {
            next = next.min(around.next);
            ends.push(next);
        }
        let mut below = None;
        let found =
            self.wanted.iter().zip(&self.around).zip(ends.iter().rev()).map(|((address, around), end)| {
                if around.start != 0 {
                    below = Some(around);
                }
                let function = below.map(|Around { start, text, .. }| function(*start, text, *end));
                (*address, function.filter(|function| function.contains(*address)))
            });
        found.collect()
    }
}

/// The function from `start` to the start of the next one.
fn function(start: u64, text: &[u8], next: u64) -> Function {
    let text = String::from_utf8_lossy(text);
    let (name, module) = match text.split_once('\t') {
        Some((name, module)) => (name, Some(module.trim_matches(['[', ']']).into())),
        None => (&*text, None),
    };
    let end = next.min(start.saturating_add(MAX_FUNCTION + 1));
    Function { name: name.into(), module, start, end }
}

/// The start, and the name with the module, of a line for code: `ffffffff81000000 T name` or
/// `… t name\t[module]`.
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

/// The lines of a file, without line ends. Lines too long for a symbol are skipped.
#[derive(Debug)]
struct Lines<R> {
    file: BufReader<R>,
    /// The beginning of a line that continues in the next piece of the file.
    rest: Vec<u8>,
    /// The present line is too long and is skipped up to its end.
    skipping: bool,
}

impl<R: Read> Lines<R> {
    fn new(file: R) -> Self {
        let file = BufReader::with_capacity(1 << 14, file);
        Self { file, rest: Vec::with_capacity(MAX_LINE), skipping: false }
    }

    /// Calls `line` for each line of the next piece. Returns true at the end of the file.
    fn step(&mut self, line: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let Self { file, rest, skipping } = self;
        let bytes = match io::BufRead::fill_buf(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            if !*skipping {
                line(rest);
            }
            return Ok(true);
        }
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let mut piece = pieces.next().unwrap_or_default();
        for next in pieces {
            let fits = !*skipping && rest.len() + piece.len() <= MAX_LINE;
            if fits && rest.is_empty() {
                line(piece);
            } else if fits {
                rest.extend_from_slice(piece);
                line(rest);
            }
            rest.clear();
            *skipping = false;
            piece = next;
        }
        if rest.len() + piece.len() > MAX_LINE {
            *skipping = true;
        } else {
            rest.extend_from_slice(piece);
        }
        let read = bytes.len();
        io::BufRead::consume(file, read);
        Ok(false)
    }
}

/// For [`crate::fuzz`]: a search finds the same as comparing every line with every address.
#[cfg(any(test, fuzzing))]
pub fn find_in(file: &[u8], wanted: Vec<u64>) {
    let wanted = BTreeSet::from_iter(wanted);
    let mut search = Search::new(wanted.clone(), file);
    while !search.step().expect("memory can be read") {}
    let found = search.found();
    assert_eq!(found.len(), wanted.len());
    let lines = file.split(|byte| *byte == b'\n').filter(|line| line.len() <= MAX_LINE);
    let starts: Vec<u64> = lines.filter_map(parse).map(|(start, _)| start).collect();
    assert_eq!(search.any, starts.iter().any(|start| *start != 0));
    for (address, (found, function)) in wanted.into_iter().zip(found) {
        let below = starts.iter().copied().filter(|start| *start <= address && *start != 0).max();
        let near = below.filter(|start| address < start.saturating_add(MAX_FUNCTION + 1));
        assert_eq!((found, function.as_ref().map(|function| function.start)), (address, near));
        // What is remembered of a function holds for no address of another.
        let next = starts.iter().copied().filter(|start| *start > address).min();
        assert!(function.is_none_or(|function| function.end <= next.unwrap_or(u64::MAX)), "{address:#x}");
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

    fn search<R: Read>(wanted: &[u64], file: R) -> Search<R> {
        let mut search = Search::new(wanted.iter().copied().collect(), file);
        while !search.step().expect("memory can be read") {}
        search
    }

    fn names(text: &[u8], wanted: &[u64]) -> Vec<String> {
        let found = search(wanted, text).found();
        let named = found.iter().map(|(address, function)| {
            let symbol = function.as_ref().map(|function| Symbol { function, address: *address });
            symbol.map_or("-".to_owned(), |symbol| symbol.to_string())
        });
        named.collect()
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
        let search = search(&[0xffff_ffff_8100_0101], Drops(SOME.as_bytes()));
        assert_eq!(search.found()[0].1.as_ref().map(|function| &*function.name), Some("tcp_one"));
        assert!(search.any);
    }

    #[test]
    fn hidden_addresses_are_none() {
        let hidden: String = SOME.lines().map(|line| format!("{:016}{}\n", 0, &line[16..])).collect();
        let search = search(&[0xffff_ffff_8100_0101], hidden.as_bytes());
        assert_eq!((search.found()[0].1.as_ref(), search.any), (None, false));
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

    /// All at once.
    fn learn(kallsyms: &mut Kallsyms, addresses: &[u64]) -> Result<bool, Unavailable> {
        let asked = kallsyms.ask(addresses.iter().copied())?;
        while !kallsyms.step(Duration::ZERO)? {}
        Ok(asked)
    }

    #[test]
    fn this_kernel_has_names() {
        let Ok(mut kallsyms) = Kallsyms::open() else { return };
        // Without privileges the addresses are hidden, and nothing has a name.
        match learn(&mut kallsyms, &[u64::MAX - 1]) {
            Ok(true) | Err(Unavailable::Hidden | Unavailable::Unreadable(_)) => {}
            Ok(false) => panic!("not asked"),
        }
        assert!(kallsyms.symbol(u64::MAX - 1).is_none());
        assert!(matches!(learn(&mut kallsyms, &[u64::MAX - 1]), Ok(false)), "it is not asked twice");
    }

    #[test]
    fn whole_functions_are_remembered() {
        let mut kallsyms = Kallsyms::default();
        let now = Instant::now();
        kallsyms
            .note(&search(&[0xffff_ffff_8100_0101, 0xffff_ffff_c000_0010], SOME.as_bytes()), now)
            .expect("names");
        let later = now + EXPIRES_AFTER;
        for (address, known, known_later) in [
            (0xffff_ffff_8100_0100, true, true),
            (0xffff_ffff_8100_017f, true, true),
            (0xffff_ffff_8100_0180, false, false), // another function
            (0xffff_ffff_8100_00ff, false, false),
            (0xffff_ffff_c000_00ff, true, false), // its module may have gone
            (0xffff_ffff_c000_0100, false, false),
        ] {
            assert_eq!(kallsyms.knows(address, now), known, "{address:x}");
            assert_eq!(kallsyms.knows(address, later), known_later, "{address:x}");
        }
        let shown = |address| kallsyms.symbol(address).map(|symbol| symbol.to_string());
        assert_eq!(shown(0xffff_ffff_8100_017f).as_deref(), Some("tcp_one+0x7f"));
        assert_eq!(shown(0xffff_ffff_8100_0180), None);
    }

    /// A module that is loaded later, perhaps where another one was.
    #[test]
    fn what_has_no_name_is_asked_for_again() {
        let mut kallsyms = Kallsyms::default();
        let (address, now) = (0xffff_ffff_c000_0210, Instant::now());
        let before = "ffffffff81000000 T _stext\n";
        kallsyms.note(&search(&[address], before.as_bytes()), now).expect("a name");
        assert!(kallsyms.symbol(address).is_none() && kallsyms.knows(address, now));
        let later = now + EXPIRES_AFTER;
        assert!(!kallsyms.knows(address, later));
        for name in ["one", "two"] {
            let after = format!("{before}ffffffffc0000200 t {name}\t[{name}]\n");
            kallsyms.note(&search(&[address], after.as_bytes()), later).expect("names");
            let symbol = kallsyms.symbol(address).expect("a name").to_string();
            assert_eq!(symbol, format!("{name}+0x10 [{name}]"));
        }
        assert!(kallsyms.unnamed.is_empty());
        // One with other functions in its place, and then none.
        let other = format!("{before}ffffffffc0000100 t three\t[three]\n");
        kallsyms.note(&search(&[address], other.as_bytes()), later).expect("names");
        assert_eq!(kallsyms.symbol(address).expect("a name").to_string(), "three+0x110 [three]");
        kallsyms.note(&search(&[address], before.as_bytes()), later).expect("a name");
        assert!(kallsyms.symbol(address).is_none() && kallsyms.functions.is_empty());
    }

    /// When too much is remembered all is forgotten but what is asked for now, known before or not.
    #[test]
    fn answers_are_bounded() {
        let mut kallsyms = Kallsyms { file: File::open("/dev/null").ok(), ..Kallsyms::default() };
        let now = Instant::now();
        let _ = kallsyms.note(&search(&[42], &b""[..]), now);
        for address in 1..MAX_REMEMBERED as u64 {
            kallsyms.unnamed.insert(address << 8, now + EXPIRES_AFTER);
        }
        let _ = learn(&mut kallsyms, &[42, 43]);
        assert_eq!((kallsyms.functions.len(), kallsyms.unnamed.len()), (0, 2));
    }
}
