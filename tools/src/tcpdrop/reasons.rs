//! Why the kernel drops packets, in the running kernel's words: the numbers are others in nearly every version.

use btf::{BtfError, Index, Lookup, Want, Wanted};
use programs::tcpdrop::Reason;

/// The kernel's own reasons, and what they begin with.
const CORE: (&str, &str) = ("skb_drop_reason", "SKB_DROP_REASON_");

/// Those of subsystems, whose numbers have an upper half that is not 0; and what they begin with.
const SUBSYSTEMS: [(&str, &str); 3] = [
    ("qdisc_drop_reason", "QDISC_DROP_"),
    ("ovs_drop_reason", "OVS_DROP_"),
    ("mac80211_drop_reason", "RX_DROP_"),
];

/// What is purged from a socket's queue, since 6.7.
const PURGE: &str = "SKB_DROP_REASON_QUEUE_PURGE";

/// Whether it is that.
pub fn is_purge(reason: &Reason) -> bool {
    reason.enumerator == PURGE
}

/// The reasons that a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked(pub Vec<Reason>);

impl Asked {
    /// Reads names separated by commas, with their enum's prefix or without, in any case.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(|word| asked(word.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn asked(word: &str) -> Result<Reason, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if word.is_empty() || !word.bytes().all(plain) {
        return Err("reasons are names such as NO_SOCKET or TCP_CSUM, separated by commas".to_owned());
    }
    let name = word.to_ascii_uppercase();
    let subsystem = SUBSYSTEMS.iter().find(|(_, prefix)| name.starts_with(prefix));
    let (enumeration, enumerator) = match subsystem {
        Some((enumeration, _)) => (*enumeration, name),
        None if name.starts_with(CORE.1) => (CORE.0, name),
        None => (CORE.0, format!("{}{name}", CORE.1)),
    };
    Ok(Reason { enumeration: enumeration.into(), enumerator: enumerator.into() })
}

/// A name without what all names of its enum begin with.
fn short(name: &str) -> &str {
    name.strip_prefix(CORE.1).unwrap_or(name)
}

/// The running kernel's.
#[derive(Debug, Default)]
pub struct Reasons {
    /// By number.
    names: Vec<(u32, Box<str>)>,
    /// Whether drops without a reason may be purges: the kernel has no name for these.
    purges_unnamed: bool,
}

impl Reasons {
    /// The enums that [`Reasons::read`] reads.
    pub fn names(wanted: &mut Wanted) {
        for (enumeration, _) in SUBSYSTEMS.into_iter().chain([CORE]) {
            wanted.add(Want::Enum, enumeration);
        }
    }

    /// Reads them.
    pub fn read(index: &Index<'_>) -> Result<Self, BtfError> {
        let mut names: Vec<(u32, Box<str>)> = Vec::new();
        for (enumeration, prefix) in SUBSYSTEMS.into_iter().chain([CORE]) {
            let Lookup::Found(values) = index.enum_values(enumeration)? else { continue };
            for (name, number) in values {
                // Not those that count or mask the others.
                let counts = name.ends_with("_MAX") || name.ends_with("_MASK") || name.starts_with("__");
                if let (Ok(number), true, false) = (u32::try_from(number), name.contains(prefix), counts) {
                    names.push((number, name.into()));
                }
            }
        }
        let purges_unnamed = !names.iter().any(|(_, name)| **name == *PURGE);
        Ok(Self { names, purges_unnamed })
    }

    /// Whether this kernel has none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a number.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.iter().find(|(known, _)| *known == number).map(|(_, name)| short(name))
    }

    /// Whether this number says nothing in particular, on a kernel where that may be a purge.
    pub fn is_unspecific(&self, number: u32) -> bool {
        self.purges_unnamed && (number == 0 || self.name(number) == Some("NOT_SPECIFIED"))
    }

    /// Whether this kernel knows a reason; else what there is instead.
    pub fn check(&self, reason: &Reason) -> Result<(), String> {
        let wanted = &*reason.enumerator;
        if self.is_empty() {
            return Err("this kernel gives no reasons; kernels since 5.17 do".to_owned());
        }
        if self.names.iter().any(|(_, name)| **name == *wanted) {
            return Ok(());
        }
        let wanted = short(wanted);
        let mut close: Vec<(usize, &str)> = self
            .names
            .iter()
            .map(|(_, name)| short(name))
            .filter_map(|name| Some((distance(wanted, name)?, name)))
            .collect();
        close.sort_unstable();
        close.truncate(5);
        let close: Vec<_> = close.into_iter().map(|(_, name)| name).collect();
        Err(match close.as_slice() {
            [] => format!("this kernel knows no reason `{wanted}`, and none that is spelt like it"),
            close => format!("this kernel knows no reason `{wanted}`; close to it are {}", close.join(", ")),
        })
    }
}

/// How far apart two names are: the letters to change, insert or leave out; none where one holds the other. `None`: too far.
fn distance(a: &str, b: &str) -> Option<usize> {
    if b.contains(a) || a.contains(b) {
        return Some(0);
    }
    // Levenshtein's, a row at a time.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().filter(|distance| *distance * 3 <= a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(enumeration: &'static str, enumerator: &'static str) -> Reason {
        Reason { enumeration: enumeration.into(), enumerator: enumerator.into() }
    }

    #[test]
    fn names_with_their_prefix_or_without() {
        let no_socket = reason("skb_drop_reason", "SKB_DROP_REASON_NO_SOCKET");
        for word in ["NO_SOCKET", "no_socket", "SKB_DROP_REASON_NO_SOCKET", " skb_drop_reason_No_Socket "] {
            assert_eq!(Asked::parse(word), Ok(Asked(vec![no_socket.clone()])), "{word:?}");
        }
        let two = Asked(vec![no_socket, reason("qdisc_drop_reason", "QDISC_DROP_OVERLIMIT")]);
        assert_eq!(Asked::parse("no_socket,qdisc_drop_overlimit"), Ok(two));
        let core = Asked(vec![reason("skb_drop_reason", "SKB_DROP_REASON_QDISC_DROP")]);
        assert_eq!(Asked::parse("qdisc_drop"), Ok(core));
        for wrong in ["", ",", "NO_SOCKET,", "NO SOCKET", "3;4", "a.b", "é"] {
            assert!(Asked::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    fn some() -> Reasons {
        let names = [
            (0, "SKB_NOT_DROPPED_YET"),
            (2, "SKB_DROP_REASON_NOT_SPECIFIED"),
            (3, "SKB_DROP_REASON_NO_SOCKET"),
            (10, "SKB_DROP_REASON_TCP_CSUM"),
            (0x3_0002, "QDISC_DROP_OVERLIMIT"),
        ];
        Reasons { names: names.map(|(number, name)| (number, name.into())).into(), purges_unnamed: true }
    }

    #[test]
    fn numbers_have_names() {
        let reasons = some();
        assert_eq!(reasons.name(3), Some("NO_SOCKET"));
        assert_eq!(reasons.name(0x3_0002), Some("QDISC_DROP_OVERLIMIT"));
        assert_eq!(reasons.name(99), None);
        assert!(reasons.is_unspecific(0) && reasons.is_unspecific(2) && !reasons.is_unspecific(3));
        assert!(!Reasons { purges_unnamed: false, ..some() }.is_unspecific(2));
    }

    #[test]
    fn what_is_close_to_a_wrong_name() {
        let reasons = some();
        let check = |word| reasons.check(&Asked::parse(word).expect("a name").0[0]);
        assert_eq!(check("tcp_csum"), Ok(()));
        let why = |word| check(word).expect_err("no such reason");
        assert_eq!(why("NO_SOKET"), "this kernel knows no reason `NO_SOKET`; close to it are NO_SOCKET");
        assert_eq!(why("csum"), "this kernel knows no reason `CSUM`; close to it are TCP_CSUM");
        assert!(why("BANANA").ends_with("none that is spelt like it"), "{}", why("BANANA"));
        assert!(
            Reasons::default()
                .check(&asked("NO_SOCKET").expect("a name"))
                .expect_err("none")
                .contains("5.17")
        );
    }
}
