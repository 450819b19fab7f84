//! Escapes text that others chose: names of tasks and symbols, paths, arguments. Escaped text
//! cannot end a row or a line, move the cursor, or reverse the direction of text.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// A value of a row. Invisible characters and invalid UTF-8 are written as `\xNN`, byte by byte,
/// and the backslash is doubled, so no two texts look alike.
pub struct Escaped<'a>(pub &'a [u8]);

impl Escaped<'_> {
    /// Writes the escaped text. Text without anything to escape is copied at once.
    pub fn write_to(&self, text: &mut Vec<u8>) {
        if self.0.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
            text.extend_from_slice(self.0);
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(text, "{self}");
        }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\\' => f.write_str("\\\\")?,
                    _ => write_escaped(char, f)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A message. Indented lines stay lines of their own, because the verifier's explanations are
/// indented.
pub struct Message<'a>(pub &'a str);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.0.split("\n  ").enumerate() {
            if number > 0 {
                f.write_str("\n  ")?;
            }
            line.chars().try_for_each(|char| write_escaped(char, f))?;
        }
        Ok(())
    }
}

fn write_escaped(char: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !is_invisible(char) {
        return f.write_char(char);
    }
    let mut buffer = [0; 4];
    char.encode_utf8(&mut buffer).bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

/// Whether a character is invisible: a control character, a line end, a bidirectional mark, or one
/// without a width.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        let shown = |text: &[u8]| Escaped(text).to_string();
        assert_eq!(shown(b"a\n1 b\t\x1b[2J\r\0\x7f"), r"a\x0a1 b\x09\x1b[2J\x0d\x00\x7f");
        assert_eq!(shown(b"caf\xe9 \xff"), r"caf\xe9 \xff");
        assert_eq!(shown("caf\u{e9}\u{85} \u{4e2d}".as_bytes()), "caf\u{e9}\\xc2\\x85 \u{4e2d}");
        assert_eq!(
            shown("nginx\u{202e}dhss\u{2066}\u{200b}\u{feff}".as_bytes()),
            r"nginx\xe2\x80\xaedhss\xe2\x81\xa6\xe2\x80\x8b\xef\xbb\xbf"
        );
        assert_eq!(shown(br"a\x0a"), r"a\\x0a", "a name cannot look like an escape");
        assert_eq!(shown(b"a\",\"pid\":1 =cmd()"), "a\",\"pid\":1 =cmd()", "each format quotes by itself");
    }

    /// Text without anything to escape takes a shorter path.
    #[test]
    fn written_as_displayed() {
        let texts = ["", "\\", "nginx", " ~", "a\\b", "a\nb", "\x7f", "\u{e9}", "tcp_v4_rcv+0x1b"];
        for text in texts.map(str::as_bytes).into_iter().chain([&b"\xff"[..], b"a\x1f"]) {
            let mut written = Vec::new();
            Escaped(text).write_to(&mut written);
            assert_eq!(String::from_utf8(written).expect("UTF-8"), Escaped(text).to_string());
        }
    }

    #[test]
    fn a_message_keeps_its_own_lines_only() {
        let shown = |text| Message(text).to_string();
        assert_eq!(
            shown("load `x`: denied\n  x.rs:1: r0 = 0\n  R1 !read_ok"),
            "load `x`: denied\n  x.rs:1: r0 = 0\n  R1 !read_ok"
        );
        assert_eq!(
            shown("/a\ntcptools: fine\x1b[m: no such file"),
            r"/a\x0atcptools: fine\x1b[m: no such file"
        );
        assert_eq!(shown(r"C:\x"), r"C:\x");
    }
}
