//! What must hold for any bytes: the bodies of the fuzz targets, see `tests/fuzz`.

// A property that does not hold is a panic.
#![allow(clippy::missing_panics_doc)]

use bpfasm::object::{FieldType, Layout};

use crate::outcome::Outcome;
use crate::{tcpconnlat, tcpdrop, tcplife, tcpretrans, tcpstates, tcptop, tcptracer};

/// Checks one record.
type Check = fn(&[u8]);

/// By tool: the checks of what the reader decodes, which are the records that programs send, and
/// the keys and values of maps of flows. A test compares this list with the tools' folders.
const TOOLS: &[(&str, &[Check])] = &[
    ("tcpconnlat", &[connlat]),
    ("tcpdrop", &[drop_with_stack]),
    ("tcplife", &[life]),
    (
        "tcpretrans",
        &[
            retrans,
            |record| {
                decoded(tcpretrans::Flow::LAYOUT, record, tcpretrans::Flow::decode(record));
            },
            |record| {
                decoded(tcpretrans::Tally::LAYOUT, record, tcpretrans::Tally::decode(record));
            },
        ],
    ),
    ("tcpstates", &[states]),
    // Its counters are plain numbers.
    ("tcpsubnet", &[]),
    (
        "tcptop",
        &[
            |record| {
                decoded(tcptop::Flow::LAYOUT, record, tcptop::Flow::decode(record));
            },
            |record| {
                decoded(tcptop::Traffic::LAYOUT, record, tcptop::Traffic::decode(record));
            },
        ],
    ),
    ("tcptracer", &[tracer]),
];

/// The first byte chooses the check, the rest is the record.
///
/// A record decodes exactly if there are enough bytes. It says nothing that is not in the bytes,
/// and every method of it has an answer.
pub fn events(data: &[u8]) {
    let Some((which, record)) = data.split_first() else { return };
    let checks: Vec<Check> = TOOLS.iter().flat_map(|(_, checks)| checks.iter().copied()).collect();
    checks[usize::from(*which) % checks.len()](record);
}

fn connlat(record: &[u8]) {
    let event = decoded(tcpconnlat::Event::LAYOUT, record, tcpconnlat::Event::decode(record));
    event.map(|event| event.outcome().map(Outcome::name));
}

fn drop_with_stack(record: &[u8]) {
    decoded(tcpdrop::Event::LAYOUT, record, tcpdrop::Event::decode(record)).map(|event| event.state());
    let frames = tcpdrop::Event::stack(record).count();
    assert_eq!(frames, record.len().saturating_sub(tcpdrop::Event::SIZE.into()) / 8);
}

fn life(record: &[u8]) {
    let Some(event) = decoded(tcplife::Event::LAYOUT, record, tcplife::Event::decode(record)) else {
        return;
    };
    let _ = (event.outcome().map(Outcome::name), event.oldstate().name(), event.role());
    assert!(event.rx_bytes() <= event.bytes_received, "payload is a part of it");
    let _ = event.tx_bytes();
    let duration = event.duration_ns().map_or(0, |ns| ns);
    assert!(duration <= event.ts, "no duration is longer than the clock has run: {event:?}");
    assert!(event.handshake_ns().is_none_or(|ns| ns <= event.established), "{event:?}");
}

fn retrans(record: &[u8]) {
    let event = decoded(tcpretrans::Event::LAYOUT, record, tcpretrans::Event::decode(record));
    event.map(|event| (event.kind(), event.state().name(), event.seq(), event.err()));
}

fn states(record: &[u8]) {
    let Some(event) = decoded(tcpstates::Event::LAYOUT, record, tcpstates::Event::decode(record)) else {
        return;
    };
    let _ = (event.oldstate().name(), event.newstate().name(), event.is_birth());
    assert!(event.span_ns().is_none_or(|ns| ns <= event.ts), "{event:?}");
}

fn tracer(record: &[u8]) {
    let event = decoded(tcptracer::Event::LAYOUT, record, tcptracer::Event::decode(record));
    event.map(|event| event.kind());
}

/// Passes `event` on, which must be `Some` exactly if the record has enough bytes for this layout.
fn decoded<T>(layout: Layout, record: &[u8], event: Option<T>) -> Option<T> {
    assert_eq!(event.is_some(), record.len() >= usize::from(layout.size), "{}", layout.name);
    let size = |ty: FieldType| match ty {
        FieldType::U8 => 1,
        FieldType::U16 => 2,
        FieldType::U32 => 4,
        FieldType::U64 => 8,
        FieldType::Bytes(count) => count,
    };
    let sum: u16 = layout.members.iter().map(|member| size(member.ty)).sum();
    assert_eq!(sum, layout.size, "{}: members fill it", layout.name);
    event
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use test_support::fuzz;

    use super::TOOLS;

    #[test]
    fn events() {
        fuzz::run("programs_events", 20_000, super::events);
    }

    #[test]
    fn every_tool_is_listed() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders: Vec<_> = fs::read_dir(src)
            .expect("a folder")
            .map(|entry| entry.expect("readable"))
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().expect("text"))
            .collect();
        folders.sort();
        let listed: Vec<_> = TOOLS.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, folders);
    }
}
