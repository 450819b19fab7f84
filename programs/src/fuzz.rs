//! What must hold of any bytes: the bodies of the fuzz targets, see `tests/fuzz`.

// A property that does not hold is a panic, for whoever runs the target.
#![allow(clippy::missing_panics_doc)]

use bpfasm::object::{FieldType, Layout};

use crate::outcome::Outcome;
use crate::{tcpconnlat, tcpdrop, tcplife, tcpretrans, tcpstates, tcptop, tcptracer};

/// Records that programs send, and keys and values of the tables that tools read: the first byte says which. There is one exactly
/// when there are enough bytes, it says nothing that is not in them, and everything that it is asked has an answer.
pub fn events(data: &[u8]) {
    let Some((which, record)) = data.split_first() else { return };
    match which % 10 {
        0 => {
            let event = decoded(tcpconnlat::Event::LAYOUT, record, tcpconnlat::Event::decode(record));
            event.map(|event| event.outcome().map(Outcome::name));
        }
        1 => {
            decoded(tcpdrop::Event::LAYOUT, record, tcpdrop::Event::decode(record))
                .map(|event| event.state());
            let frames = tcpdrop::Event::stack(record).count();
            assert_eq!(frames, record.len().saturating_sub(tcpdrop::Event::SIZE.into()) / 8);
        }
        2 => {
            let Some(event) = decoded(tcplife::Event::LAYOUT, record, tcplife::Event::decode(record)) else {
                return;
            };
            let _ = (event.outcome().map(Outcome::name), event.oldstate().name(), event.role());
            assert!(event.rx_bytes() <= event.bytes_received, "payload is a part of it");
            let _ = event.tx_bytes();
            let whole = event.duration_ns().map_or(0, |ns| ns);
            assert!(whole <= event.ts, "nothing lasted longer than the clock has run: {event:?}");
            assert!(event.handshake_ns().is_none_or(|ns| ns <= event.established), "{event:?}");
        }
        3 => {
            let event = decoded(tcpretrans::Event::LAYOUT, record, tcpretrans::Event::decode(record));
            event.map(|event| (event.kind(), event.state().name(), event.seq(), event.err()));
        }
        4 => drop(decoded(tcpretrans::Flow::LAYOUT, record, tcpretrans::Flow::decode(record))),
        5 => drop(decoded(tcpretrans::Tally::LAYOUT, record, tcpretrans::Tally::decode(record))),
        6 => {
            let Some(event) = decoded(tcpstates::Event::LAYOUT, record, tcpstates::Event::decode(record))
            else {
                return;
            };
            let _ = (event.oldstate().name(), event.newstate().name(), event.is_birth());
            assert!(event.span_ns().is_none_or(|ns| ns <= event.ts), "{event:?}");
        }
        7 => drop(decoded(tcptop::Flow::LAYOUT, record, tcptop::Flow::decode(record))),
        8 => drop(decoded(tcptop::Traffic::LAYOUT, record, tcptop::Traffic::decode(record))),
        _ => {
            let event = decoded(tcptracer::Event::LAYOUT, record, tcptracer::Event::decode(record));
            event.map(|event| event.kind());
        }
    }
}

/// What was decoded, if there are enough bytes for this layout and only then.
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
    use test_support::fuzz;

    #[test]
    fn events() {
        fuzz::run("programs_events", 20_000, super::events);
    }
}
