//! The key in a record.

use super::definition::{DefinitionError, Key};
use crate::stream::Framing;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Finds keys; see [`Key`].
#[derive(Debug)]
pub struct KeyOf {
    how: How,
}

#[derive(Debug)]
enum How {
    Json(Vec<String>),
    Csv(usize),
    Regex(regex::bytes::Regex),
    Len32,
    Record,
}

/// The record without what its framing put around it.
pub(super) fn body(record: &[u8], framing: Framing) -> &[u8] {
    match framing {
        Framing::Line => {
            let line = record.strip_suffix(b"\n").unwrap_or(record);
            line.strip_suffix(b"\r").unwrap_or(line)
        }
        Framing::Len32 => record.get(4..).unwrap_or_default(),
        Framing::Fixed(_) | Framing::Write => record,
    }
}

impl KeyOf {
    /// # Errors
    ///
    /// A regular expression that is none.
    pub fn new(key: &Key) -> Result<KeyOf, DefinitionError> {
        let how = match key {
            Key::Json(path) => How::Json(path.clone()),
            Key::Csv(number) => How::Csv(*number),
            Key::Regex(pattern) => How::Regex(
                regex::bytes::Regex::new(pattern)
                    .map_err(|e| DefinitionError::Regex { why: e.to_string() })?,
            ),
            Key::Len32 => How::Len32,
            Key::Record => How::Record,
        };
        Ok(KeyOf { how })
    }

    /// The key in a record; `None` if it has none.
    pub fn find<'r>(&self, record: &'r [u8], framing: Framing) -> Option<Cow<'r, [u8]>> {
        let body = body(record, framing);
        match &self.how {
            How::Json(path) => json(body, path),
            How::Csv(number) => csv(body, *number),
            How::Regex(pattern) => {
                let found = pattern.captures(body)?;
                Some(Cow::Borrowed(found.get(1).or_else(|| found.get(0))?.as_bytes()))
            }
            How::Len32 => {
                let (length, rest) = body.split_first_chunk()?;
                rest.get(..u32::from_le_bytes(*length) as usize).map(Cow::Borrowed)
            }
            How::Record => Some(Cow::Borrowed(body)),
        }
    }
}

fn json<'r>(body: &'r [u8], path: &[String]) -> Option<Cow<'r, [u8]>> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    // Ended by what was found, mostly.
    let _ = Field { path, found: &mut found }.deserialize(&mut reader);
    let raw = found?.get();
    match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        // The same string may be written in several ways.
        Some(within) if within.contains('\\') => {
            serde_json::from_str::<String>(raw).ok().map(|text| Cow::Owned(text.into_bytes()))
        }
        Some(within) => Some(Cow::Borrowed(within.as_bytes())),
        None => Some(Cow::Borrowed(raw.as_bytes())),
    }
}

/// Looks for a field, and reads no further.
struct Field<'p, 'r> {
    path: &'p [String],
    found: &'p mut Option<&'r RawValue>,
}

impl<'r> DeserializeSeed<'r> for Field<'_, 'r> {
    type Value = ();

    fn deserialize<D: Deserializer<'r>>(self, from: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(<&RawValue>::deserialize(from)?);
            return Err(D::Error::custom("it is found"));
        }
        from.deserialize_map(self)
    }
}

impl<'r> Visitor<'r> for Field<'_, 'r> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'r>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_it) = map.next_key_seed(Is(&self.path[0]))? {
            if is_it {
                return map.next_value_seed(Field { path: &self.path[1..], found: &mut *self.found });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Whether a name is this one.
struct Is<'p>(&'p str);

impl<'r> DeserializeSeed<'r> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'r>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// RFC 4180, by hand as far as no quote is met.
fn csv(body: &[u8], number: usize) -> Option<Cow<'_, [u8]>> {
    if !body.contains(&b'"') {
        return body.split(|byte| *byte == b',').nth(number).map(Cow::Borrowed);
    }
    let (mut reader, mut rest) = (csv_core::Reader::new(), body);
    let mut field = Vec::with_capacity(body.len());
    for at in 0.. {
        field.resize(body.len() + 1, 0);
        let (result, read, written) = reader.read_field(rest, &mut field);
        rest = &rest[read..];
        let ended = match result {
            csv_core::ReadFieldResult::Field { record_end } => record_end,
            // The last field ends with the bytes.
            csv_core::ReadFieldResult::InputEmpty => {
                let (result, _, more) = reader.read_field(&[], &mut field[written..]);
                if at == number && matches!(result, csv_core::ReadFieldResult::Field { .. }) {
                    field.truncate(written + more);
                    return Some(Cow::Owned(field));
                }
                return None;
            }
            csv_core::ReadFieldResult::OutputFull | csv_core::ReadFieldResult::End => return None,
        };
        if at == number {
            field.truncate(written);
            return Some(Cow::Owned(field));
        }
        if ended {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'r>(key: &str, record: &'r [u8], framing: Framing) -> Option<Cow<'r, [u8]>> {
        KeyOf::new(&key.parse().expect("a key")).expect("it compiles").find(record, framing)
    }

    fn line(key: &str, record: &str) -> Option<String> {
        find(key, record.as_bytes(), Framing::Line).map(|key| String::from_utf8_lossy(&key).into_owned())
    }

    #[test]
    fn json_fields_are_found_however_they_are_written() {
        let record = "{\"id\": 17, \"user\" : {\"name\":\"b\\u0061r\\\"\", \"tags\":[\"x\"]}, \"s\":\"\"}\n";
        for (key, expected) in [
            ("json:id", Some("17")),
            ("json:user.name", Some("bar\"")),
            ("json:user.tags", Some("[\"x\"]")),
            ("json:s", Some("")),
            ("json:name", None),
            ("json:id.name", None),
        ] {
            assert_eq!(line(key, record).as_deref(), expected, "{key}");
        }
        for none in ["", "\n", "[1]\n", "{\"id\":\n", "not json\n", "{\"id\" 17}"] {
            assert_eq!(line("json:id", none), None, "{none}");
        }
    }

    #[test]
    fn csv_fields_are_found_with_quotes_and_without() {
        for (record, expected) in [
            ("a,b,c\n", Some("b")),
            ("a,b\r\n", Some("b")),
            ("a,,c\n", Some("")),
            ("\"x,y\",\"b \"\"quoted\"\"\",c\n", Some("b \"quoted\"")),
            ("\"x,y\",b", Some("b")),
            ("a\n", None),
            ("\"a\"\n", None),
            ("\n", None),
        ] {
            assert_eq!(line("csv:1", record).as_deref(), expected, "{record}");
        }
        assert_eq!(line("csv:0", "\"a\"\n").as_deref(), Some("a"));
    }

    #[test]
    fn others_are_found_in_their_framings() {
        assert_eq!(line("regex:user=(\\w+)", "x user=ann y\n").as_deref(), Some("ann"));
        assert_eq!(line("regex:\\d+", "order 66\n").as_deref(), Some("66"));
        assert_eq!(line("regex:\\d+", "none\n"), None);
        assert_eq!(line("record", "all\n").as_deref(), Some("all"));
        let record = [&9_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"keyrs"].concat();
        assert_eq!(find("len32-key", &record, Framing::Len32).as_deref(), Some(&b"key"[..]));
        assert_eq!(find("len32-key", &record[4..], Framing::Write).as_deref(), Some(&b"key"[..]));
        assert_eq!(find("len32-key", &record[..10], Framing::Len32), None);
    }
}
