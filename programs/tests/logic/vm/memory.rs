//! Memory that a program under test reaches by its real address.
//!
//! `rbpf` works on real addresses, and a helper is handed some of its stack, so what lies behind an
//! address is read and written through `/proc/self/mem`: the kernel checks the address, and no
//! `unsafe` is needed.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

/// Unused bytes behind a block: an access that starts inside and ends outside reads noise, not the
/// heap.
const GUARD: usize = 64;

/// A block at an address that does not change while it lives. Atomic, because others write it
/// behind the compiler's back.
#[derive(Debug)]
pub struct Memory {
    words: Box<[AtomicU64]>,
    len: usize,
}

impl Memory {
    /// `len` bytes of noise, so that whatever is read from a wrong place has a wrong value.
    pub fn noise(len: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = (0..(len + GUARD).div_ceil(8))
            .map(|_| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                AtomicU64::new(state)
            })
            .collect();
        Self { words, len }
    }

    /// These bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let memory = Self::noise(bytes.len(), 0);
        poke(memory.address(), bytes).expect("own memory");
        memory
    }

    /// Where it starts.
    pub fn address(&self) -> u64 {
        self.words.as_ptr().expose_provenance() as u64
    }

    /// Where it is.
    pub fn range(&self) -> Range<u64> {
        self.address()..self.address() + self.len as u64
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        peek(self.address(), self.len).expect("own memory")
    }
}

static MEMORY: LazyLock<File> = LazyLock::new(|| {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
        .expect("/proc/self/mem opens for its own process")
});

/// The bytes at an address of this process.
pub fn peek(address: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    MEMORY.read_exact_at(&mut bytes, address)?;
    Ok(bytes)
}

/// Writes bytes at an address of this process.
pub fn poke(address: u64, bytes: &[u8]) -> io::Result<()> {
    MEMORY.write_all_at(bytes, address)
}
