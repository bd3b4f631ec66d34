//! Names for a terminal: a file name may hold newlines, escape sequences and bytes that are no text. Shown
//! raw they could fake a line of a table or drive the terminal, so control characters and non-UTF-8 bytes are
//! escaped as in C (`\n`, `\x1b`). A backslash is doubled only in names where something had to be escaped.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `path` as printable text.
pub fn path(path: &Path) -> String {
    name(path.as_os_str())
}

/// `name` as printable text.
pub fn name(name: &OsStr) -> String {
    match name.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => escaped(name.as_bytes()),
    }
}

/// Text from elsewhere (an error message, a program's name) without control characters.
pub fn text(text: &str) -> String {
    name(OsStr::new(text))
}

/// The same with its line breaks kept, and what follows one indented: nothing in it passes for a line of its own.
pub fn lines(text: &str) -> String {
    text.trim_end().lines().map(self::text).collect::<Vec<_>>().join("\n    ")
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c)).expect("a String takes all"),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("a String takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        assert_eq!(path(Path::new("/mnt/a b\\c")), "/mnt/a b\\c");
    }

    #[test]
    fn what_follows_a_line_break_is_indented() {
        assert_eq!(lines("a\n1.0 ERROR fake\x1b\n"), "a\n    1.0 ERROR fake\\x1b");
    }

    #[test]
    fn control_characters_and_bytes_that_are_no_text_are_escaped() {
        assert_eq!(name(OsStr::from_bytes(b"a\x1b[31m\n\\\xff")), "a\\x1b[31m\\n\\\\\\xff");
    }
}
