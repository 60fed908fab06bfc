//! Text as people see it: numbers that they can read, and text from elsewhere that does nothing to them.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character acts on a terminal, or on the text around it, rather than being seen: a control character, or one that changes the
/// direction of text.
fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
