//! Rows in, text out.
//!
//! A tool lists its columns once, each with the function that produces its value ([`Columns`]), and
//! then writes rows to a [`RowSink`]. Which columns a format shows, and how it writes a value, is
//! decided here: the table rounds for people, CSV has the same numbers, JSON has raw units.

#![forbid(unsafe_code)]

mod column;
mod csv;
mod digits;
pub mod escape;
mod format;
mod json;
mod output;
mod table;
pub mod time;
mod value;

pub use self::column::{Cells, Column, Columns, ValueOf};
pub use self::format::Format;
pub use self::json::quoted;
pub use self::output::{Output, RowSink};
pub use self::value::Value;
