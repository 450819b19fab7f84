//! One JSON object per line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use crate::column::Cells;
use crate::escape::Escaped;
use crate::value::comm;
use crate::{Value, digits};

#[derive(Default)]
pub(crate) struct Json {
    text: String,
}

impl Json {
    pub(crate) fn row(&mut self, row: &dyn Cells, buffer: &mut Vec<u8>) {
        buffer.push(b'{');
        let keys =
            row.columns().iter().enumerate().filter_map(|(index, column)| Some((index, column.json_key()?)));
        for (at, (index, key)) in keys.enumerate() {
            separate(at, buffer);
            // A key needs no escapes, see `Column::key`.
            buffer.push(b'"');
            buffer.extend_from_slice(key.as_bytes());
            buffer.extend_from_slice(b"\":");
            write_value(&row.value(index), &mut self.text, buffer);
        }
        buffer.extend_from_slice(b"}\n");
    }
}

// Writing to a Vec or a String cannot fail.
fn write_value(value: &Value<'_>, text: &mut String, buffer: &mut Vec<u8>) {
    text.clear();
    let _ = match *value {
        Value::Unknown => write!(buffer, "null"),
        Value::Number(number) | Value::Bytes(number) | Value::Millis { ns: number, .. } => {
            return digits::number(buffer, number);
        }
        Value::Seconds { ns, digits } => return digits::signed_fixed(buffer, ns, 9, digits),
        Value::Signed(number) => return digits::signed(buffer, number),
        Value::Quotient { of, by } => return digits::exact_quotient(buffer, of, by),
        Value::Wall(ns) => return digits::signed(buffer, ns),
        Value::Flag(flag) => write!(buffer, "{flag}"),
        Value::Word(word) => {
            string(word, buffer);
            return;
        }
        Value::Text(shown) => write_string(format_args!("{}", Escaped(shown.as_bytes())), text, buffer),
        Value::Comm(name) => write_string(format_args!("{}", comm(name)), text, buffer),
        Value::Ip(ip) | Value::Bracketed(ip) => write_string(format_args!("{ip}"), text, buffer),
        Value::Endpoint(ip, port) => {
            write_string(format_args!("{}", SocketAddr::new(ip, port)), text, buffer)
        }
        Value::List(texts) => {
            buffer.push(b'[');
            for (at, shown) in texts.iter().enumerate() {
                separate(at, buffer);
                write_value(&Value::Text(shown), text, buffer);
            }
            buffer.push(b']');
            return;
        }
        Value::Object(members) => {
            buffer.push(b'{');
            for (at, (key, value)) in members.iter().enumerate() {
                separate(at, buffer);
                string(key, buffer);
                buffer.push(b':');
                write_value(value, text, buffer);
            }
            buffer.push(b'}');
            return;
        }
        Value::Address(address) => write_string(format_args!("{address:x}"), text, buffer),
    };
}

/// A comma before every member but the first.
fn separate(at: usize, buffer: &mut Vec<u8>) {
    if at > 0 {
        buffer.push(b',');
    }
}

/// A string of something that implements `Display`.
fn write_string(
    shown: std::fmt::Arguments<'_>,
    text: &mut String,
    buffer: &mut Vec<u8>,
) -> std::io::Result<()> {
    let _ = text.write_fmt(shown);
    string(text, buffer);
    Ok(())
}

/// The text as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut buffer = Vec::new();
    string(text, &mut buffer);
    String::from_utf8(buffer).unwrap_or_default()
}

/// A quoted, escaped string.
fn string(text: &str, buffer: &mut Vec<u8>) {
    let written = serde_json::to_writer(buffer, text);
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_quoted_and_escaped() {
        assert_eq!(quoted("a\"b\n"), r#""a\"b\n""#);
        assert_eq!(quoted(""), "\"\"");
    }
}
