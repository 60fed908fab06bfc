//! Text of HTML and SVG in which data can do no harm: what a program writes is `&'static str`, and all else is escaped on its way in.

use std::fmt::{Display, Write};

pub use repair_core::text::{count, grouped};

/// Text of HTML or SVG.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Markup(String);

/// The attributes of an element. Their values are escaped.
pub type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Markup {
    /// Adds what the program itself says. Data cannot get here, since it is not `'static`.
    pub fn raw(&mut self, text: &'static str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// Adds other markup.
    pub fn add(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// Adds data.
    pub fn text(&mut self, data: impl Display) -> &mut Self {
        escape(&mut self.0, &data, false);
        self
    }

    /// Begins an element.
    pub fn open(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.begin(name, attributes);
        self.0.push('>');
        self
    }

    /// Ends an element.
    pub fn close(&mut self, name: &'static str) -> &mut Self {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
        self
    }

    /// An element without content.
    pub fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.begin(name, attributes);
        self.0.push_str("/>");
        self
    }

    /// An element that holds data. In a `pre`, lines stay lines.
    pub fn leaf(&mut self, name: &'static str, attributes: Attributes<'_>, data: impl Display) -> &mut Self {
        self.open(name, attributes);
        escape(&mut self.0, &data, name == "pre");
        self.close(name)
    }

    fn begin(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.0.push('<');
        self.0.push_str(name);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            escape(&mut self.0, value, false);
            self.0.push('"');
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

fn escape(into: &mut String, data: &dyn Display, has_lines: bool) {
    struct Escaping<'a>(&'a mut String, bool);
    impl Write for Escaping<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for c in text.chars() {
                match c {
                    '&' => self.0.push_str("&amp;"),
                    '<' => self.0.push_str("&lt;"),
                    '>' => self.0.push_str("&gt;"),
                    '"' => self.0.push_str("&quot;"),
                    '\'' => self.0.push_str("&#39;"),
                    '\n' if self.1 => self.0.push('\n'),
                    c if is_invisible(c) => self.0.extend(c.escape_unicode()),
                    c => self.0.push(c),
                }
            }
            Ok(())
        }
    }
    // Writing to a string cannot fail.
    let _ = write!(Escaping(into, has_lines), "{data}");
}

/// Characters that control something: terminals, the direction of text, the width of nothing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A text in which characters that control something are shown as `\u{1b}`.
pub(in crate::report) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// A text of at most so many characters, with an ellipsis where it was longer.
pub fn shortened(text: &str, most: usize) -> String {
    let text = visible(text);
    if text.chars().count() <= most {
        return text;
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A coordinate: at most one digit after the point, and no zeros that say nothing.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct At(pub(in crate::report) f64);

impl Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = (self.0 * 10.0).round();
        if tenths % 10.0 == 0.0 { write!(f, "{:.0}", tenths / 10.0 + 0.0) } else { write!(f, "{:.1}", tenths / 10.0) }
    }
}

/// Bytes in base 64.
pub(in crate::report) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [group.first(), group.get(1), group.get(2)].map(|byte| u32::from(byte.copied().unwrap_or(0)));
        let word = a << 16 | b << 8 | c;
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_text_whatever_it_looks_like() {
        let mut markup = Markup::default();
        markup.leaf("p", &[("title", &"\"><script>")], "<script>alert(1)</script> & \u{1b}[31m \u{202e}x'");
        assert_eq!(
            markup.into_text(),
            "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\u{1b}[31m \\u{202e}x&#39;</p>"
        );
        assert_eq!(shortened("a\u{7}bcdefgh", 7), "a\\u{7}…");
        let mut lines = Markup::default();
        lines.leaf("pre", &[], "{\n <b>\r").leaf("p", &[], "a\nb");
        assert_eq!(lines.into_text(), "<pre>{\n &lt;b&gt;\\u{d}</pre><p>a\\u{a}b</p>");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, -0.04, 1.25, 12.0, 99.96].map(|number| At(number).to_string()), ["0", "0", "1.3", "12", "100"]);
        assert_eq!([999, 1_833, 1_000_000].map(grouped), ["999", "1,833", "1,000,000"]);
        assert_eq!(["", "a", "ab", "abc", "abcd"].map(|text| base64(text.as_bytes())), ["", "YQ==", "YWI=", "YWJj", "YWJjZA=="]);
    }
}
