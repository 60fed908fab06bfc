//! Text as people see it: numbers that they can read, and text from elsewhere that does nothing to them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Whether a character acts on a terminal, or on the text around it, rather than being seen: a control character, or one that changes the
/// direction of text.
fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first name that an object within a text of JSON has twice, of which a parser would keep the last alone and say nothing. Of the outermost object,
/// only what is within these fields is looked at, and these fields. `None` also of a text that is no JSON.
///
/// ```
/// use repair_core::text::name_twice;
///
/// assert_eq!(name_twice(br#"{"a": 1, "b": {"c": 1, "c": 2}}"#, |_| true).as_deref(), Some("c"));
/// assert_eq!(name_twice(br#"{"a": 1, "b": {"c": 1, "c": 2}, "d": 1, "d": 2}"#, |field| field == "a"), None);
/// assert_eq!(name_twice(br#"[{"a": 1}, {"a": 2}]"#, |_| true), None);
/// ```
pub fn name_twice(json: &[u8], is_read: impl Fn(&str) -> bool) -> Option<String> {
    let mut twice = None;
    let mut reader = serde_json::Deserializer::from_slice(json);
    // That a text is no JSON is for whoever parses it.
    let _ = Names { twice: &mut twice, is_read: Some(&is_read) }.deserialize(&mut reader);
    twice
}

/// Looks for names that an object has twice.
struct Names<'n> {
    twice: &'n mut Option<String>,
    /// Which fields are looked at; all, if it is not the outermost object.
    is_read: Option<&'n dyn Fn(&str) -> bool>,
}

/// The text of a name.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// An object with more names than this is looked up by hash.
const MOST_COMPARED: usize = 32;

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut few, mut many): (Vec<Cow<'de, str>>, HashSet<Cow<'de, str>>) = (Vec::new(), HashSet::new());
        while let Some(Name(name)) = map.next_key()? {
            if self.is_read.is_some_and(|is_read| !is_read(&name)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_new = if few.len() < MOST_COMPARED {
                let is_new = !few.contains(&name);
                few.push(name.clone());
                is_new
            } else {
                !few.contains(&name) && many.insert(name.clone())
            };
            if !is_new {
                self.twice.get_or_insert(name.into_owned());
            }
            map.next_value_seed(Names { twice: self.twice, is_read: None })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Names { twice: self.twice, is_read: None })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A number with a comma between thousands.
///
/// ```
/// assert_eq!([7, 1_024, 1_234_567].map(repair_core::text::grouped), ["7", "1,024", "1,234,567"]);
/// ```
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts.
///
/// ```
/// use repair_core::text::count;
///
/// assert_eq!([count(0, "unit"), count(1, "unit"), count(1_024, "unit")], ["0 units", "1 unit", "1,024 units"]);
/// ```
pub fn count(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// The values of a line of CSV, without spaces around them; `None` if a quote is never closed. A value in quotes may hold commas, and two quotes in it
/// stand for one.
///
/// ```
/// let fields = repair_core::text::fields(r#"plant, "Smith, J" "#);
/// assert_eq!(fields, Some(vec!["plant".to_owned(), "Smith, J".to_owned()]));
/// ```
pub fn fields(line: &str) -> Option<Vec<String>> {
    let (mut values, mut rest) = (Vec::new(), line);
    loop {
        let value = rest.trim_start();
        let after = match value.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (value, after) = rest.split_at(end);
                values.push(value.trim().to_owned());
                after
            }
            Some(quoted) => {
                let (mut value, mut characters) = (String::new(), quoted.char_indices().peekable());
                let after = loop {
                    match characters.next()? {
                        (_, '"') if characters.next_if(|(_, next)| *next == '"').is_some() => value.push('"'),
                        (end, '"') => break quoted.get(end + 1..).unwrap_or_default().trim_start(),
                        (_, other) => value.push(other),
                    }
                };
                values.push(value);
                after
            }
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(values),
            None => return None,
        }
    }
}

/// A cell of CSV that a spreadsheet takes for text: what it would compute, since it begins like a formula, has an apostrophe in front.
///
/// ```
/// use repair_core::text::inert;
///
/// assert_eq!(["-", "-4.5", "=1+1", "-cmd"].map(inert), ["-", "-4.5", "'=1+1", "'-cmd"]);
/// ```
pub fn inert(cell: &str) -> Cow<'_, str> {
    let is_computed =
        cell.starts_with(['=', '+', '@', '\t', '\r']) || (cell.starts_with('-') && cell.len() > 1 && cell.parse::<f64>().is_err());
    if is_computed { Cow::Owned(format!("'{cell}")) } else { Cow::Borrowed(cell) }
}

/// A text with its control characters written out, line breaks too: what a key, a value or a source's answer holds never moves the cursor,
/// begins a line of its own, or hides what follows.
///
/// ```
/// assert_eq!(repair_core::text::visible("IBM"), "IBM");
/// assert_eq!(repair_core::text::visible("\u{1b}[2K\nrun k succeeded"), "\\u{1b}[2K\\nrun k succeeded");
/// ```
pub fn visible(text: &str) -> Cow<'_, str> {
    written(text, acts)
}

/// As [`visible`], for a text of several lines, which stay lines.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    written(text, |character| acts(character) && character != '\n')
}

/// JSON, or a text in double quotes of YAML, with the same characters as escapes of that language, so that it stays what it is.
///
/// ```
/// assert_eq!(repair_core::text::visible_json("{\n\"a\": \"\u{202e}b\"}"), "{\n\"a\": \"\\u202eb\"}");
/// ```
pub fn visible_json(text: &str) -> Cow<'_, str> {
    let is_one = |character: char| acts(character) && character != '\n';
    if !text.contains(is_one) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_one(character) {
            // All of them have four digits. Writing to a text cannot fail.
            let _ = write!(written, "\\u{:04x}", u32::from(character));
        } else {
            written.push(character);
        }
    }
    Cow::Owned(written)
}

fn written(text: &str, acts: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&acts) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if acts(character) {
            // Writing to a text cannot fail.
            let _ = write!(written, "{}", character.escape_default());
        } else {
            written.push(character);
        }
    }
    Cow::Owned(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_csv_are_split_with_quotes() {
        let of = |line: &str| fields(line).map(|values| values.join("|"));
        assert_eq!(of("a, b ,c").as_deref(), Some("a|b|c"));
        assert_eq!(of(r#""a,b" ,"say ""hi""""#).as_deref(), Some(r#"a,b|say "hi""#));
        assert_eq!(of("a,").as_deref(), Some("a|"));
        assert_eq!((of(r#""a"#), of(r#""a"b"#)), (None, None));
    }
}
