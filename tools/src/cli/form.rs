//! How `--ebpf` prints programs.

/// A form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The assembler's text.
    Listing,
    /// Eight bytes per line.
    Hex,
    /// One JSON object per program and line.
    Json,
    /// A relocatable object file.
    Elf,
}

impl Form {
    /// The words of the command line.
    pub const WORDS: [&str; 4] = ["listing", "hex", "json", "elf"];

    /// The form that a word stands for.
    pub fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "listing" => Ok(Self::Listing),
            "hex" => Ok(Self::Hex),
            "json" => Ok(Self::Json),
            "elf" => Ok(Self::Elf),
            _ => Err(format!("expected one of {}", Self::WORDS.join(", "))),
        }
    }
}
