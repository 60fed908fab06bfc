//! Values that nobody may see, such as keys of APIs: they come from the environment, go to one program or host, and are removed from everything that
//! is shown.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use repair_core::{Error, ErrorKind, Result};

/// Looks up a variable of the environment by its name.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// So many characters of a key in a row are never shown, however the rest of it is cut off or written.
const WINDOW: usize = 8;

/// What stands in a key's place.
const REMOVED: char = '…';

/// A value that nobody may see. It can be given to whom it is meant for, and removed from a text.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    /// Reads a key from the first of these variables that is set.
    ///
    /// # Errors
    /// `denied` if none is set, or the value cannot be a key.
    pub fn read(variables: &Environment, provider: &str, names: &[&str]) -> Result<Self> {
        let value = names.iter().find_map(|name| variables(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()));
        let Some(value) = value else {
            let names = names.join(" (or ");
            let close = if names.contains('(') { ")" } else { "" };
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "{provider} needs a key, and the environment holds none; set {names}{close}, and never write a key into a workflow"
                ),
            ));
        };
        if value.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(value))
        } else {
            Err(Error::new(ErrorKind::Denied, format!("the value of {} cannot be a key of {provider}; set it again", names.join(" or "))))
        }
    }

    /// A value, from wherever it comes.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for whom it is meant. It must not reach a file, a log, an event or an error.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether bytes hold the value as it is. One that is shorter than 8 bytes may be there by chance, and is not looked for.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let value = self.0.as_bytes();
        value.len() >= WINDOW && holds(bytes, value)
    }

    /// The forms in which the key may appear, in lower case: as it is, in hexadecimal, and in Base64 wherever it begins in what is encoded.
    fn forms(&self) -> Vec<Vec<char>> {
        let mut forms = vec![self.0.clone(), self.0.bytes().map(|byte| format!("{byte:02x}")).collect()];
        for before in 0..3 {
            let bytes = [&vec![0; before][..], self.0.as_bytes()].concat();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                // The characters at the ends also depend on what stands before and after the key.
                let encoded = engine.encode(&bytes);
                let end = encoded.len().saturating_sub(1);
                let begin = if before == 0 { 0 } else { before + 1 };
                forms.extend(encoded.get(begin..end).map(str::to_owned));
            }
        }
        // What is short may stand anywhere by chance, except for the key itself.
        let is_known = |form: &String| form.len() >= WINDOW || *form == self.0;
        let plain = |form: &String| form.chars().filter(|character| !is_between(*character)).flat_map(char::to_lowercase).collect();
        forms.iter().filter(|form| is_known(form)).map(plain).collect()
    }
}

/// A text without keys: wherever a key, or a part of one, stands in it, in whatever form, there is `…`. Found are keys as they are and in other
/// cases, in Base64 and hexadecimal, with escapes of URLs, JSON or HTML, and with white space, line breaks or backslashes among them.
pub fn without(text: &str, secrets: &[Secret]) -> String {
    let seen = decoded(text);
    let characters: Vec<char> = seen.iter().map(|(character, _, _)| *character).collect();
    let mut hidden = vec![false; text.len()];
    for form in secrets.iter().flat_map(Secret::forms).filter(|form| !form.is_empty()) {
        let window = WINDOW.min(form.len());
        let parts: HashSet<&[char]> = form.windows(window).collect();
        for (at, part) in characters.windows(window).enumerate() {
            if parts.contains(part)
                && let Some(here) = seen.get(at..at + window)
                && let (Some((_, first, _)), Some((_, _, end))) = (here.first(), here.last())
            {
                hidden[*first..*end].fill(true);
            }
        }
    }
    let mut shown = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if !hidden.get(at).copied().unwrap_or(false) {
            shown.push(character);
        } else if !shown.ends_with(REMOVED) {
            shown.push(REMOVED);
        }
    }
    shown
}

/// Whether a row of bytes holds another, which is not empty.
fn holds(bytes: &[u8], value: &[u8]) -> bool {
    let Some(first) = value.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let Some(here) = rest.get(at..) else { return false };
        if here.starts_with(value) {
            return true;
        }
        rest = here.get(1..).unwrap_or_default();
    }
    false
}

/// Whether a character may stand among those of a secret without hiding it from people.
fn is_between(character: char) -> bool {
    character.is_whitespace() || character.is_control() || matches!(character, '\\' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// The characters that a text stands for, in lower case, each with the bytes of the text from which and up to which it is written. Left out is
/// what may be put between the characters of a key.
fn decoded(text: &str) -> Vec<(char, usize, usize)> {
    let mut seen = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or_default();
        let (character, length) = escape(rest).unwrap_or((character, character.len_utf8()));
        if !is_between(character) {
            seen.extend(character.to_lowercase().map(|character| (character, at, at + length)));
        }
        at += length;
    }
    seen
}

/// The character that an escape at the beginning of a text stands for, and the length of the escape: `%41`, `\u0041`, `&#65;` or `&#x41;`.
fn escape(text: &str) -> Option<(char, usize)> {
    let hexadecimal = |digits: &str| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
    if let Some(rest) = text.strip_prefix('%') {
        return Some((hexadecimal(rest.get(..2)?)?, 3));
    }
    if let Some(rest) = text.strip_prefix("\\u") {
        return Some((hexadecimal(rest.get(..4)?)?, 6));
    }
    let number = text.strip_prefix("&#")?;
    let end = number.get(..number.len().min(9)).unwrap_or(number).find(';')?;
    let digits = number.get(..end)?;
    let character = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => hexadecimal(digits),
        None => digits.parse().ok().and_then(char::from_u32),
    };
    Some((character?, end + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "s3cr3tOfTheTestsThatNobodyMaySee";

    #[test]
    fn a_key_is_removed_however_it_is_written() {
        let secrets = [Secret(KEY.to_owned()), Secret("PK12".to_owned())];
        let apart = |between: &str| KEY.chars().map(String::from).collect::<Vec<_>>().join(between);
        let each = |written: fn(char) -> String| KEY.chars().map(written).collect::<String>();
        let mut forms = vec![
            KEY.to_owned(),
            KEY.to_uppercase(),
            apart(" "),
            apart("\n"),
            apart("\u{200b}"),
            apart("\\"),
            each(|c| format!("%{:02X}", u32::from(c))),
            each(|c| format!("\\u{:04x}", u32::from(c))),
            each(|c| format!("&#{};", u32::from(c))),
            each(|c| format!("&#x{:x};", u32::from(c))),
            each(|c| format!("{:02X}", u32::from(c))),
            KEY[..KEY.len() - 3].to_owned(),
            KEY[9..].to_owned(),
        ];
        for before in ["", "u", "us", "user:"] {
            let plain = format!("{before}{KEY}@");
            forms.extend([STANDARD_NO_PAD.encode(&plain), URL_SAFE_NO_PAD.encode(&plain)]);
        }
        for form in forms {
            let shown = without(&format!("the answer: {form}, and pk12 here"), &secrets);
            assert!(shown.starts_with("the answer: "), "{form}: {shown}");
            assert!(shown.ends_with(", and … here"), "{form}: {shown}");
            // Of Base64, the ends may be left, which hold less than a character of the key.
            assert!(shown.chars().count() < 40, "{form}: {shown}");
            let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
            let (shown, form) = (letters(&shown), letters(&form));
            assert!(!form.as_bytes().windows(WINDOW).any(|part| shown.contains(std::str::from_utf8(part).unwrap())), "{form}: {shown}");
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "100 % of 5%, &amp; \\n \\u00 &#; &#x110000; ü", "s3cr3tO is seven"] {
            assert_eq!(without(text, &[Secret(KEY.to_owned())]), text);
        }
    }
}
