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
