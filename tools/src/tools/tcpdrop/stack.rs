//! The kernel's stack at a drop: from addresses to the functions that a reader wants to see.

use std::fmt;

use crate::host::symbols::Symbols;

/// The tracing functions at the top of a stack are fewer than this.
const MAX_TRACING: usize = 8;

/// A stack, without the functions between the drop and this tool's program.
pub(super) struct Stack<'a> {
    frames: &'a [u64],
    location: u64,
    symbols: &'a Symbols,
}

/// An address, which displays as `tcp_v4_rcv+0x1b`, or `[unknown]`.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    address: u64,
    symbols: &'a Symbols,
}

impl<'a> Stack<'a> {
    /// The stack at a drop. The kernel names `location` as the place of the drop.
    pub(super) fn new(frames: &'a [u64], location: u64, symbols: &'a Symbols) -> Self {
        let frames = below_tracing(frames, location, symbols);
        // Some kernels (5.10 on arm64) name a place in the function that frees packets. The drop is
        // in its caller then.
        let caller = || frames.first().copied();
        let location = if is_tracing(location, symbols) { caller().unwrap_or(location) } else { location };
        Self { frames, location, symbols }
    }

    /// Where the packet was dropped.
    pub(super) fn location(&self) -> Frame<'a> {
        Frame { address: self.location, symbols: self.symbols }
    }

    /// The frames, from the function that dropped the packet.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'a>> {
        self.frames.iter().map(|address| Frame { address: *address, symbols: self.symbols })
    }

    /// Whether there is a stack, and all of its functions have names.
    pub(super) fn is_named(&self) -> bool {
        !self.frames.is_empty() && self.frames().all(|frame| frame.function().is_some())
    }
}

impl<'a> Frame<'a> {
    /// The function's name.
    pub(super) fn function(self) -> Option<&'a str> {
        self.symbols.get(self.address).map(|symbol| symbol.name())
    }
}

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbols.get(self.address) {
            Some(symbol) => symbol.fmt(f),
            None => f.write_str("[unknown]"),
        }
    }
}

/// The frames from the function that dropped the packet.
fn below_tracing<'a>(frames: &'a [u64], location: u64, symbols: &Symbols) -> &'a [u64] {
    // The location is in the stack, unless another tracer has replaced return addresses.
    let first = frames.iter().position(|frame| *frame == location).unwrap_or_else(|| {
        let last = frames.iter().take(MAX_TRACING).rposition(|frame| is_tracing(*frame, symbols));
        last.map_or(0, |last| last + 1)
    });
    let rest = frames.get(first..).unwrap_or_default();
    let tracing = rest.iter().take_while(|frame| is_tracing(**frame, symbols)).count();
    rest.get(tracing..).unwrap_or_default()
}

fn is_tracing(address: u64, symbols: &Symbols) -> bool {
    symbols.get(address).is_some_and(|symbol| is_tracing_function(symbol.name()))
}

/// Whether a function is called between the one that drops a packet and this tool's program.
fn is_tracing_function(name: &str) -> bool {
    const PREFIXES: [&str; 6] =
        ["bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "kfree_skb", "sk_skb_reason_drop"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_tracing() {
        for ours in ["bpf_prog_6deef7357e7b4530_kfree_skb", "bpf_trace_run4", "kfree_skb_reason", "kfree_skb"]
        {
            assert!(is_tracing_function(ours), "{ours}");
        }
        for theirs in ["tcp_v4_rcv", "nf_hook_slow", "__kfree_skb_x"] {
            assert!(!is_tracing_function(theirs), "{theirs}");
        }
    }

    #[test]
    fn without_names_the_stack_begins_at_the_location() {
        let symbols = Symbols::default();
        let stack = Stack::new(&[1, 2, 3, 4], 3, &symbols);
        assert_eq!((stack.frames, stack.location), (&[3, 4][..], 3));
        assert_eq!(stack.location().to_string(), "[unknown]");
        assert!(!stack.is_named());
        let elsewhere = Stack::new(&[1, 2], 9, &symbols);
        assert_eq!((elsewhere.frames, elsewhere.location), (&[1, 2][..], 9));
    }
}
