//! The formats of rows.

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Columns for people.
    Table,
    /// Comma-separated values (RFC 4180), with lines that end in a line feed alone, as the original
    /// tools write them.
    Csv,
    /// One JSON object per line.
    Json,
}
