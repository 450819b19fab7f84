//! Reasons for drops, by the names that the running kernel has for them. Their numbers change with
//! nearly every version.

use programs::tcpdrop::Reason;

use crate::tool::KernelTypes;

/// The enum of the core's reasons, and the prefix of its enumerators.
const CORE: (&str, &str) = ("skb_drop_reason", "SKB_DROP_REASON_");

/// The enums of subsystems, whose numbers have an upper half other than 0, and the prefixes of
/// their enumerators.
const SUBSYSTEMS: [(&str, &str); 3] = [
    ("qdisc_drop_reason", "QDISC_DROP_"),
    ("ovs_drop_reason", "OVS_DROP_"),
    ("mac80211_drop_reason", "RX_DROP_"),
];

/// All of these enums.
pub const ENUMS: &[&str] = &[CORE.0, SUBSYSTEMS[0].0, SUBSYSTEMS[1].0, SUBSYSTEMS[2].0];

/// The reason of packets purged from a socket's queue, since 6.7.
const PURGE: &str = "SKB_DROP_REASON_QUEUE_PURGE";

/// Whether a reason is that one.
pub fn is_purge(reason: &Reason) -> bool {
    reason.enumerator == PURGE
}

/// The reasons that `--reason` asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestedReasons(pub Vec<Reason>);

impl RequestedReasons {
    /// Reads names separated by commas, with or without the prefix of their enum, in upper or lower
    /// case.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(|word| parse(word.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn parse(word: &str) -> Result<Reason, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if word.is_empty() || !word.bytes().all(plain) {
        return Err("expected names such as NO_SOCKET or TCP_CSUM, separated by commas".to_owned());
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

/// A name without the prefix of the core's enumerators.
fn short(name: &str) -> &str {
    name.strip_prefix(CORE.1).unwrap_or(name)
}

/// The reasons that the running kernel has.
#[derive(Debug, Default)]
pub struct Reasons {
    /// Number and name of each.
    names: Vec<(u32, Box<str>)>,
    /// Whether a drop without a particular reason may be a purge, because the kernel has no reason
    /// for purges.
    purges_unnamed: bool,
}

impl Reasons {
    /// Reads [`ENUMS`].
    pub fn new(types: &KernelTypes) -> Self {
        let mut names: Vec<(u32, Box<str>)> = Vec::new();
        for (enumeration, prefix) in SUBSYSTEMS.into_iter().chain([CORE]) {
            for (name, number) in types.enums.get(enumeration).into_iter().flatten() {
                // Some enumerators count or mask the others.
                let counts = name.ends_with("_MAX") || name.ends_with("_MASK") || name.starts_with("__");
                if let (Ok(number), true, false) = (u32::try_from(*number), name.contains(prefix), counts) {
                    names.push((number, name.as_str().into()));
                }
            }
        }
        let purges_unnamed = !names.iter().any(|(_, name)| **name == *PURGE);
        Self { names, purges_unnamed }
    }

    /// Whether this kernel has no reasons.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a reason, by its number.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.iter().find(|(known, _)| *known == number).map(|(_, name)| short(name))
    }

    /// Whether a reason says nothing in particular, on a kernel where the drop may be a purge then.
    pub fn is_unspecific(&self, number: u32) -> bool {
        self.purges_unnamed && (number == 0 || self.name(number) == Some("NOT_SPECIFIED"))
    }

    /// Checks that this kernel has a reason. The error names similar ones.
    pub fn check(&self, reason: &Reason) -> Result<(), String> {
        let wanted = &*reason.enumerator;
        if self.is_empty() {
            return Err("--reason needs kernel 5.17 or newer: this kernel has no drop reasons".to_owned());
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
            [] => format!("this kernel has no drop reason `{wanted}`, and none with a similar name"),
            close => format!("this kernel has no drop reason `{wanted}`; similar are {}", close.join(", ")),
        })
    }
}

/// The distance of two names: the letters to change, insert or remove; 0 if one contains the other.
/// `None`: not similar.
fn distance(a: &str, b: &str) -> Option<usize> {
    if b.contains(a) || a.contains(b) {
        return Some(0);
    }
    // Levenshtein distance, row by row.
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
            assert_eq!(
                RequestedReasons::parse(word),
                Ok(RequestedReasons(vec![no_socket.clone()])),
                "{word:?}"
            );
        }
        let two = RequestedReasons(vec![no_socket, reason("qdisc_drop_reason", "QDISC_DROP_OVERLIMIT")]);
        assert_eq!(RequestedReasons::parse("no_socket,qdisc_drop_overlimit"), Ok(two));
        let core = RequestedReasons(vec![reason("skb_drop_reason", "SKB_DROP_REASON_QDISC_DROP")]);
        assert_eq!(RequestedReasons::parse("qdisc_drop"), Ok(core));
        for wrong in ["", ",", "NO_SOCKET,", "NO SOCKET", "3;4", "a.b", "é"] {
            assert!(RequestedReasons::parse(wrong).is_err(), "{wrong:?}");
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
    fn similar_reasons_are_named() {
        let reasons = some();
        let check = |word| reasons.check(&RequestedReasons::parse(word).expect("a name").0[0]);
        assert_eq!(check("tcp_csum"), Ok(()));
        let why = |word| check(word).expect_err("no such reason");
        assert_eq!(why("NO_SOKET"), "this kernel has no drop reason `NO_SOKET`; similar are NO_SOCKET");
        assert_eq!(why("csum"), "this kernel has no drop reason `CSUM`; similar are TCP_CSUM");
        assert!(why("BANANA").ends_with("none with a similar name"), "{}", why("BANANA"));
        assert!(
            Reasons::default()
                .check(&parse("NO_SOCKET").expect("a name"))
                .expect_err("none")
                .contains("5.17")
        );
    }
}
