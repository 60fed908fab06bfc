//! Strict parsing: what is read from text is what is written there, or a reason why it cannot be read.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, NullBufferBuilder, StringArray};
use arrow::datatypes::DataType;
use repair_core::Result;
use repair_core::model::{ColumnType, Csv, Table};

use super::marks;

/// How many rows of each file are read to infer the types of its columns. A later row of another type cannot be read, so this is more than
/// a day of minutes of thirty series; it costs some hundredths of a second for each file.
pub(super) const INFER_ROWS: usize = 50_000;

/// A column in which at most so many words stand among twice as many numbers is a column of numbers.
const MOST_WORDS: usize = 3;

/// With more different words, a column is text; it is one of numbers all the same if it has so many times more of these.
const MANY_NUMBERS: usize = 9;

/// Codes such as `A7` are rarer among numbers that are no codes.
const MANY_NUMBERS_FOR_CODES: usize = 99;

/// The type of a column's first rows.
#[derive(Debug, Default)]
pub(super) struct Inferred {
    whole: usize,
    float: usize,
    /// How many of the numbers have a plus.
    plus: usize,
    boolean: usize,
    text: usize,
    /// The first different texts that are no numbers.
    words: Vec<String>,
    /// Whether a text is a code, such as `A7`: then the numbers are probably codes, too.
    has_codes: bool,
    /// Whether digits begin with a zero, such as `00123`: then the numbers are codes, too.
    has_zeros: bool,
    /// Where the first number is, and the first value that is none.
    first_number: Option<u64>,
    first_word: Option<u64>,
}

impl Inferred {
    /// Adds a value of the record that begins after so many bytes.
    #[cfg(test)]
    pub(super) fn add(&mut self, text: &str, csv: &Csv, offset: u64) {
        self.add_known(text, Value::of(text, csv), offset);
    }

    /// The same of a value of which it is known that it is a number.
    #[inline]
    pub(super) fn add_number(&mut self, Value { kind, has_plus }: Value, offset: u64) {
        self.plus += usize::from(has_plus);
        self.first_number.get_or_insert(offset);
        *(if kind == Kind::Whole { &mut self.whole } else { &mut self.float }) += 1;
    }

    /// The same, of a value of which it is known what it is.
    pub(super) fn add_known(&mut self, text: &str, Value { kind, has_plus }: Value, offset: u64) {
        self.plus += usize::from(has_plus);
        let first = if matches!(kind, Kind::Whole | Kind::Float) { &mut self.first_number } else { &mut self.first_word };
        first.get_or_insert(offset);
        match kind {
            Kind::Whole => self.whole += 1,
            Kind::Float => self.float += 1,
            Kind::Boolean => self.boolean += 1,
            Kind::Text => {
                self.text += 1;
                self.has_codes = self.has_codes || is_code(text);
                self.has_zeros |= text.as_bytes().first() == Some(&b'0') && text.bytes().all(|byte| byte.is_ascii_digit());
                if self.words.len() <= MOST_WORDS && !self.words.iter().any(|word| word == text) {
                    self.words.push(text.to_owned());
                }
            }
        }
    }

    /// The narrowest type that fits; null if there was no value. A few words among numbers, such as `N/A`, are not what the column is made
    /// of: it is one of numbers, and whoever uses it gets to know about the words.
    pub(super) fn data_type(&self) -> DataType {
        let numbers = self.whole + self.float;
        match (numbers, self.boolean, self.text) {
            (0, 0, 0) => DataType::Null,
            (0, _, 0) => DataType::Boolean,
            // If all have a plus, they are codes, such as telephone numbers.
            (_, _, _) if self.plus == numbers && self.float == 0 && numbers > 0 => DataType::Utf8,
            (_, 0, text) if text == 0 || (self.words.len() <= MOST_WORDS && numbers >= 2 * text) => {
                if self.float == 0 && self.text == 0 {
                    DataType::Int64
                } else {
                    DataType::Float64
                }
            }
            _ => DataType::Utf8,
        }
    }

    /// Where the first number and the first word are, if words (or true and false) make text of a column that is mostly numbers.
    pub(super) fn mixed(&self) -> Option<[u64; 2]> {
        let (numbers, words) = (self.whole + self.float, self.text + self.boolean);
        let least = match self.words.len() {
            _ if self.has_codes => MANY_NUMBERS_FOR_CODES,
            0..=MOST_WORDS => 1,
            _ => MANY_NUMBERS,
        };
        let are_numbers = self.plus < numbers || self.float > 0;
        let is_mixed = self.data_type() == DataType::Utf8 && are_numbers && words > 0 && numbers >= least * words && !self.has_zeros;
        Some([self.first_number?, self.first_word?]).filter(|_| is_mixed)
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    kind: Kind,
    /// Whether it is a number with a plus.
    has_plus: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Float,
    Boolean,
    Text,
}

impl Value {
    pub(super) fn is_number(self) -> bool {
        matches!(self.kind, Kind::Whole | Kind::Float)
    }

    pub(super) fn of(text: &str, csv: &Csv) -> Self {
        let kind = |text: &str| match type_of(text, csv) {
            DataType::Int64 => Kind::Whole,
            DataType::Float64 => Kind::Float,
            DataType::Boolean => Kind::Boolean,
            _ => Kind::Text,
        };
        // Few have a plus.
        if text.as_bytes().first() == Some(&b'+')
            && let Some(rest) = text.get(1..).filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit() || first == csv.decimal))
        {
            let kind = kind(rest);
            return Self { kind, has_plus: matches!(kind, Kind::Whole | Kind::Float) };
        }
        Self { kind: kind(text), has_plus: false }
    }

    /// The same of a text of so many of these bytes, if it is a number as most are in plain CSV; `None` if it is another, or none.
    #[inline]
    pub(super) fn of_short(bytes: [u8; 8], length: usize) -> Option<Self> {
        /// Added to a byte of at least ten, it sets the highest bit.
        const NO_DIGIT: u64 = marks::everywhere(0x80 - 10);
        let word = u64::from_le_bytes(bytes);
        let is_negative = word & 0xff == u64::from(b'-');
        let (word, length) = if is_negative { (word >> 8, length.saturating_sub(1)) } else { (word, length) };
        // Of no byte, none is a digit.
        let unused = u32::try_from(8 - length).ok().filter(|unused| *unused < 8)?;
        let all = u64::MAX >> (8 * unused);
        let digits = word ^ marks::everywhere(b'0');
        let others = (((digits & !marks::HIGH) + NO_DIGIT) | digits) & marks::HIGH & all;
        let kind = match others {
            0 => Kind::Whole,
            // A single point.
            _ if others & (others - 1) == 0 && length > 1 && (word >> (8 * marks::first(others))) & 0xff == u64::from(b'.') => Kind::Float,
            _ => return None,
        };
        // Digits that begin with a zero are a code.
        let is_code = length > 1 && word & 0xff == u64::from(b'0') && others & 0x8000 == 0;
        (!is_code).then_some(Self { kind, has_plus: false })
    }
}

/// The last value of a column: many follow others that are the same.
#[derive(Debug, Default)]
pub(super) struct Last(Option<(Vec<u8>, Value)>);

impl Last {
    /// What a value is.
    pub(super) fn value(&mut self, text: &str, csv: &Csv) -> Value {
        if let Some((_, value)) = self.0.as_ref().filter(|(last, _)| last.as_slice() == text.as_bytes()) {
            return *value;
        }
        let value = Value::of(text, csv);
        let (last, of_last) = self.0.get_or_insert_with(|| (Vec::new(), value));
        last.clear();
        last.extend_from_slice(text.as_bytes());
        *of_last = value;
        value
    }
}

/// Whether a text is a name that digits are a part of, rather than a word, or a number with other marks.
fn is_code(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let has_marks = text.bytes().any(|byte| matches!(byte, b',' | b'.' | b'\'' | b' '));
    let is_number = has_marks && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'.' | b'\'' | b' ' | b'+' | b'-'));
    digits > 0 && !is_number
}

/// The narrowest type for a text.
pub(super) fn type_of(text: &str, csv: &Csv) -> DataType {
    if let (Some(short), false) = (Short::of(text.as_bytes()), has_marks(csv)) {
        return match (short.places, text.as_bytes()) {
            (_, [b'0', b'0'..=b'9', ..] | [b'-', b'0', b'0'..=b'9', ..]) => DataType::Utf8,
            (None, _) => DataType::Int64,
            (Some(_), _) => DataType::Float64,
        };
    }
    if boolean(text).is_some() {
        return DataType::Boolean;
    }
    let Some(plain) = plain_number(text, csv) else { return DataType::Utf8 };
    let digits = if plain.as_bytes().first() == Some(&b'-') { plain.get(1..).unwrap_or_default() } else { &plain };
    match digits.as_bytes() {
        // A number does not begin with a zero; this is a code.
        [b'0', b'0'..=b'9', ..] => DataType::Utf8,
        [first, ..] if first.is_ascii_digit() || *first == b'.' => {
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                // A whole number too long for 64 bits would be rounded as a float, so it is a code, too.
                if plain.parse::<i64>().is_ok() { DataType::Int64 } else { DataType::Utf8 }
            } else if plain.parse::<f64>().is_ok() {
                DataType::Float64
            } else {
                DataType::Utf8
            }
        }
        _ if ["nan", "inf", "infinity"].iter().any(|word| digits.eq_ignore_ascii_case(word)) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// Whether numbers have other marks than in plain CSV.
pub(super) fn has_marks(csv: &Csv) -> bool {
    csv.decimal != '.' || csv.thousands.is_some()
}

/// The most digits of a number whose float is computed here: up to 15, they are exact in a float, and so is the power of ten by which they
/// are divided, so the quotient is the nearest float to the number.
const SHORT_DIGITS: usize = 15;

const POWERS: [f64; SHORT_DIGITS + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A number of few digits, perhaps with a sign and a decimal point, as most are.
#[derive(Clone, Copy)]
struct Short {
    is_negative: bool,
    digits: u64,
    /// How many digits are behind the decimal point, if there is one.
    places: Option<usize>,
}

impl Short {
    /// `None` if the text is another number, or none.
    #[inline]
    fn of(text: &[u8]) -> Option<Self> {
        let (is_negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        // A point is no digit.
        if unsigned.len() > SHORT_DIGITS + 1 {
            return None;
        }
        let (mut digits, mut point) = (0u64, None);
        for (at, &byte) in unsigned.iter().enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 {
                digits = digits * 10 + u64::from(digit);
            } else if byte == b'.' && point.is_none() {
                point = Some(at);
            } else {
                return None;
            }
        }
        let places = point.map(|at| unsigned.len() - at - 1);
        let count = unsigned.len() - usize::from(point.is_some());
        (1..=SHORT_DIGITS).contains(&count).then_some(Self { is_negative, digits, places })
    }

    fn whole(self) -> Option<i64> {
        let digits = i64::try_from(self.digits).ok()?;
        self.places.is_none().then_some(if self.is_negative { -digits } else { digits })
    }

    fn float(self) -> f64 {
        let float = self.digits as f64 / POWERS[self.places.unwrap_or(0)];
        if self.is_negative { -float } else { float }
    }
}

/// A whole number in plain CSV.
#[inline]
fn whole(text: &str) -> Option<i64> {
    match Short::of(text.as_bytes()) {
        Some(short) => short.whole(),
        None => text.parse().ok(),
    }
}

/// A number in plain CSV.
#[inline]
pub(super) fn float(text: &str) -> Option<f64> {
    match Short::of(text.as_bytes()) {
        Some(short) => Some(short.float()),
        None => text.parse().ok().filter(|float| !is_beyond(*float, text)),
    }
}

/// Whether digits are more than the float has that they were parsed to, which would be infinite. Who means infinity writes the word.
fn is_beyond(float: f64, text: &str) -> bool {
    float.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether a float would not keep all digits of a whole number in plain CSV.
#[cold]
fn is_rounded(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_whole && text.parse::<i128>().map_or(true, |whole| format!("{:.0}", whole as f64) != whole.to_string())
}

/// A number in plain CSV, unless it is a whole number of which a float would lose digits.
#[inline]
pub(super) fn exact_float(text: &str) -> Option<f64> {
    match Short::of(text.as_bytes()) {
        Some(short) => Some(short.float()),
        None if is_rounded(text) => None,
        None => text.parse().ok().filter(|float| !is_beyond(*float, text)),
    }
}

/// A number as it is written in plain CSV; `None` if its marks are not where the table's marks may be.
fn plain_number<'a>(text: &'a str, csv: &Csv) -> Option<Cow<'a, str>> {
    if !has_marks(csv) {
        return Some(Cow::Borrowed(text));
    }
    let (whole, rest) = text.find(csv.decimal).map_or((text, None), |at| (&text[..at], Some(&text[at + csv.decimal.len_utf8()..])));
    let mut plain = String::with_capacity(text.len());
    match csv.thousands {
        Some(mark) if whole.contains(mark) => {
            let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
            let mut groups = digits.split(mark);
            let first = groups.next()?;
            let all_digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
            if first.is_empty() || first.len() > 3 || !all_digits(first) {
                return None;
            }
            if whole.starts_with('-') {
                plain.push('-');
            }
            plain.push_str(first);
            for group in groups {
                if group.len() != 3 || !all_digits(group) {
                    return None;
                }
                plain.push_str(group);
            }
        }
        _ => plain.push_str(whole),
    }
    if let Some(rest) = rest {
        plain.push('.');
        plain.push_str(rest);
    }
    // The other mark has no meaning here.
    let strange = csv.decimal != '.' && plain.matches('.').count() != usize::from(rest.is_some());
    (!strange).then_some(Cow::Owned(plain))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// The type in which values of a declared type come.
pub(super) fn data_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Integer => DataType::Int64,
        ColumnType::Number => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
        _ => DataType::Utf8,
    }
}

/// Whether a text is a value of a declared type, as [`values`] parses it.
pub(super) fn fits(text: &str, kind: ColumnType, csv: &Csv) -> bool {
    let plain = || plain_number(text, csv);
    match kind {
        ColumnType::Integer => plain().is_some_and(|number| whole(&number).is_some()),
        ColumnType::Number => plain().is_some_and(|number| float(&number).is_some()),
        ColumnType::Boolean => boolean(text).is_some(),
        ColumnType::Decimal(precision, scale) => plain().is_some_and(|number| decimal(&number, precision, scale).is_some()),
        _ => true,
    }
}

/// What a value of a type is called.
fn noun(kind: &DataType) -> &'static str {
    match kind {
        DataType::Int64 => "a whole number",
        DataType::Boolean => "true or false",
        _ => "a number",
    }
}

/// Reports a row of the batch that cannot be read, and why.
pub(super) type Reject<'a> = &'a mut dyn FnMut(usize, String) -> Result<()>;

/// The values of a text column, as a type; `None` for a word that means that there is no value.
pub(super) fn values(table: &Table, column: &str, text: &StringArray, kind: &DataType, reject: Reject<'_>) -> Result<ArrayRef> {
    let nulls: Vec<&str> = table.nulls_of(column).collect();
    let csv = &table.csv;
    // What is not parsed is rejected, or null.
    macro_rules! parse {
        ($array:ident, $parse:expr) => {{
            let parse = $parse;
            let mut values = Vec::with_capacity(text.len());
            let mut valid = NullBufferBuilder::new(text.len());
            for row in 0..text.len() {
                let value = if text.is_null(row) { None } else { Some(text.value(row)).filter(|text| !nulls.contains(text)) };
                let parsed = value.and_then(|text| parse(text));
                if let (Some(text), None) = (value, &parsed) {
                    reject(row, not_a(text, column, kind, csv))?;
                }
                valid.append(parsed.is_some());
                values.push(parsed.unwrap_or_default());
            }
            $array::new(values.into(), valid.finish())
        }};
    }
    let is_marked = has_marks(csv);
    // Whoever declares numbers with fractions knows how many digits they have.
    let may_round = table.type_of(column).is_some();
    Ok(match kind {
        DataType::Int64 if !is_marked => Arc::new(parse!(Int64Array, whole)),
        DataType::Int64 => Arc::new(parse!(Int64Array, |text: &str| plain_number(text, csv).and_then(|number| number.parse::<i64>().ok()))),
        DataType::Float64 if !is_marked && may_round => Arc::new(parse!(Float64Array, float)),
        DataType::Float64 if !is_marked => Arc::new(parse!(Float64Array, exact_float)),
        DataType::Float64 => {
            let parse = if may_round { float } else { exact_float };
            Arc::new(parse!(Float64Array, |text: &str| plain_number(text, csv).and_then(|number| parse(&number))))
        }
        DataType::Boolean => Arc::new(parse!(BooleanArray, boolean)),
        DataType::Decimal128(precision, scale) => {
            let values =
                parse!(Decimal128Array, |text: &str| plain_number(text, csv).and_then(|number| decimal(&number, *precision, *scale)));
            Arc::new(values.with_precision_and_scale(*precision, *scale)?)
        }
        _ if nulls.is_empty() => Arc::new(text.clone()),
        _ => {
            let kept: StringArray = text.iter().map(|text| text.filter(|text| !nulls.contains(text))).collect();
            Arc::new(kept)
        }
    })
}

/// A decimal as a whole number of its last digit; `None` if it does not fit exactly.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text.strip_prefix('+').unwrap_or(text)), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let kept = fraction.trim_end_matches('0');
    if !all_digits || (whole.is_empty() && fraction.is_empty()) || kept.len() > scale {
        return None;
    }
    let text = format!("{whole}{kept:0<scale$}");
    let value: i128 = if text.is_empty() { 0 } else { text.parse().ok()? };
    if value.to_string().len() > usize::from(precision) { None } else { Some(if negative { -value } else { value }) }
}

fn not_a(text: &str, column: &str, kind: &DataType, csv: &Csv) -> String {
    let shown = shortened(text);
    let is_word = !text.bytes().any(|byte| byte.is_ascii_digit());
    let declare = |kind: &str| format!("correct the line, or declare the column, e.g. `columns: {{ {column}: {kind} }}`");
    let is_number = || plain_number(text, csv).is_some_and(|number| number.parse::<f64>().is_ok_and(f64::is_finite));
    let help = match kind {
        // A column of truth values in other words.
        DataType::Boolean if is_word && !is_nothing(text) => {
            format!("write true or false, or declare the column, `columns: {{ {column}: text }}`")
        }
        _ if is_word => {
            format!(
                "if it means that there is no value, add `columns: {{ {column}: {{ nulls: [\"{shown}\"] }} }}` to the table; if it is one, declare the column: \
                 `columns: {{ {column}: text }}`"
            )
        }
        DataType::Int64 if is_number() => declare("number"),
        DataType::Float64 if plain_number(text, csv).is_some_and(|number| number.parse().is_ok_and(|float| is_beyond(float, &number))) => {
            return format!(
                "`{shown}` in column `{column}` is larger than any number that a column can hold; correct the line, or declare the column, e.g. \
                 `columns: {{ {column}: text }}`"
            );
        }
        DataType::Float64 if plain_number(text, csv).is_some_and(|number| is_rounded(&number)) => {
            return format!(
                "`{shown}` in column `{column}` is a whole number, and among numbers with fractions it would lose digits; declare the column: \
                 `columns: {{ {column}: text }}`, or `number` if it may be rounded"
            );
        }
        // It would have to be rounded.
        DataType::Decimal128(precision, scale) if is_number() => {
            let places = plain_number(text, csv).and_then(|number| Some(number.split_once('.')?.1.len())).unwrap_or(0);
            let more = i8::try_from(places).unwrap_or(i8::MAX).max(*scale);
            match u8::try_from(i16::from(*precision) - i16::from(*scale) + i16::from(more)) {
                Ok(digits @ 1..=38) if more > *scale => declare(&format!("\"decimal({digits},{more})\"")),
                _ => declare("number"),
            }
        }
        _ => declare("text"),
    };
    format!("`{shown}` in column `{column}` is not {}; {help}", noun(kind))
}

/// Whether a word usually means that there is no value.
fn is_nothing(word: &str) -> bool {
    ["", "-", "--", ".", "?", "na", "n/a", "nan", "null", "none", "nil", "missing", "unknown", "#n/a"]
        .contains(&word.to_ascii_lowercase().as_str())
}

/// The start of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::records::{Dialect, Splitter};
    use super::*;

    #[test]
    fn digits_are_never_infinite() {
        for text in ["1e400", "-1e999", "1.5E+400", "+2e309"] {
            assert_eq!((float(text), exact_float(text)), (None, None), "{text}");
            assert!(
                not_a(text, "v", &DataType::Float64, &Csv::default()).contains("is larger than any number that a column can hold"),
                "{text}"
            );
        }
        let long = format!("1{}.5", "0".repeat(400));
        assert_eq!((float(&long), exact_float(&long)), (None, None));
        for text in ["inf", "-Infinity", "1e308", "1e-400"] {
            assert!(float(text).is_some() && exact_float(text).is_some(), "{text}");
        }
        assert!(!fits("1e400", ColumnType::Number, &Csv::default()));
    }

    #[test]
    fn codes_stay_text() {
        for (text, kind) in [
            ("00123", DataType::Utf8),
            ("0", DataType::Int64),
            ("-0.5", DataType::Float64),
            ("1e5", DataType::Float64),
            ("99999999999999999999", DataType::Utf8),
            ("true", DataType::Boolean),
            ("NaN", DataType::Float64),
            ("2018-04-04", DataType::Utf8),
            ("+5", DataType::Utf8),
            (" 5", DataType::Utf8),
        ] {
            assert_eq!(type_of(text, &Csv::default()), kind, "{text}");
        }
    }

    #[test]
    fn signs_make_no_words_of_numbers() {
        let inferred = |texts: &[&str]| {
            let mut inferred = Inferred::default();
            texts.iter().for_each(|text| inferred.add(text, &Csv::default(), 0));
            (inferred.data_type(), inferred.mixed().is_some())
        };
        for (texts, kind) in [
            (&["+5", "-3", "+12", "7"][..], DataType::Int64),
            (&["+5.5", "-3", "+12", "+7"], DataType::Float64),
            (&["+.5", "+1"], DataType::Float64),
            (&["+491701234567", "+15551234567"], DataType::Utf8),
            (&["+05", "1"], DataType::Utf8),
        ] {
            assert_eq!(inferred(texts).0, kind, "{texts:?}");
        }
        assert!(!inferred(&["+491701234567", "+15551234567", "unknown"]).1);
        let text = StringArray::from(vec!["+5", "-3", "7"]);
        let table = Table::new("t", repair_core::model::Format::Csv, "ts");
        for (kind, first) in [(DataType::Int64, "5"), (DataType::Float64, "5.0"), (DataType::Decimal128(5, 1), "5.0")] {
            let read = values(&table, "v", &text, &kind, &mut |row, why| panic!("{row}: {why}")).unwrap();
            assert_eq!(arrow::util::display::array_value_to_string(&read, 0).unwrap(), first);
        }
    }

    #[test]
    fn whole_numbers_among_fractions_keep_their_digits_or_are_refused() {
        let mut table = Table::new("t", repair_core::model::Format::Csv, "ts");
        let text =
            StringArray::from(vec!["1.5", "9007199254740992", "9007199254740993", "-9223372036854775809", "1e30", "0.1000000000000000055"]);
        let refused = |table: &Table| {
            let mut refused = Vec::new();
            values(table, "v", &text, &DataType::Float64, &mut |row, why| {
                assert!(why.contains("would lose digits"), "{why}");
                refused.push(row);
                Ok(())
            })
            .unwrap();
            refused
        };
        assert_eq!(refused(&table), [2, 3]);
        table.columns.insert("v".to_owned(), repair_core::model::ColumnRule::of_type(ColumnType::Number));
        assert!(refused(&table).is_empty());
    }

    proptest! {
        #[test]
        fn short_numbers_are_parsed_as_others(text in "-?[0-9]{0,17}\\.?[0-9]{0,8}[a.e+-]?") {
            prop_assert_eq!(whole(&text), text.parse::<i64>().ok());
            prop_assert_eq!(float(&text).map(f64::to_bits), text.parse::<f64>().ok().map(f64::to_bits));
            let mut marked = Csv::default();
            marked.thousands = Some('\'');
            prop_assert_eq!(type_of(&text, &Csv::default()), type_of(&text, &marked));
        }

        #[test]
        fn short_texts_are_known_as_others(text in "[-+]?[0-9]{0,7}[.]?[0-9]{0,4}[-a.:/ ]?", after in "[0-9,.\n]{8}") {
            prop_assume!(text.len() <= 8);
            let mut bytes = [0; 8];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            let known = Value::of_short(bytes, text.len());
            prop_assert!(known.is_none_or(|known| known == Value::of(&text, &Csv::default())), "{text}: {known:?}");
            // Of a number as most are, it is known.
            let is_usual = !text.starts_with(['+', '0', '-']) && text.parse::<f64>().is_ok();
            prop_assert!(known.is_some() || !is_usual, "{text}");
            // What comes after the field in the window does not matter.
            let dialect = Dialect { delimiter: b';', quote: None, comment: None };
            let line = format!("{text};{after}");
            let mut splitter = Splitter::new(Box::new(std::io::Cursor::new(line.into_bytes())), dialect, 100).unwrap();
            if !text.is_empty() && splitter.next().unwrap() {
                prop_assert_eq!(splitter.short_field(0).and_then(|(bytes, length)| Value::of_short(*bytes, length)), known);
            }
        }
    }

    fn german() -> Csv {
        let mut csv = Csv::default();
        csv.decimal = ',';
        csv.thousands = Some('.');
        csv
    }

    #[test]
    fn marks_stand_where_the_table_says() {
        for (text, number) in
            [("1.234,50", Some("1234.50")), ("-12.345.678", Some("-12345678")), ("0,5", Some("0.5")), ("1234,5", Some("1234.5"))]
        {
            assert_eq!(plain_number(text, &german()).as_deref(), number, "{text}");
        }
        for bad in ["1.5", "12.34,5", "1,5,5", "1234.567", ".5"] {
            let number = plain_number(bad, &german());
            assert!(number.as_deref().is_none_or(|number| number.parse::<f64>().is_err()), "{bad}: {number:?}");
        }
    }

    #[test]
    fn a_few_words_do_not_make_numbers_text() {
        let of = |texts: &[&str]| {
            let mut inferred = Inferred::default();
            texts.iter().for_each(|text| inferred.add(text, &Csv::default(), 0));
            inferred.data_type()
        };
        assert_eq!(of(&["1", "2", "N/A"]), DataType::Float64);
        assert_eq!(of(&["1", "N/A"]), DataType::Utf8);
        assert_eq!(of(&["1", "2", "3", "4", "5", "6", "7", "8", "A1", "B2", "C3", "D4"]), DataType::Utf8);
        assert_eq!(of(&["007", "1"]), DataType::Utf8);
        assert_eq!(of(&["true", "1"]), DataType::Utf8);
        assert_eq!(of(&[]), DataType::Null);
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("1.50", 10, 2), Some(150));
        assert_eq!(decimal("-0.005", 10, 3), Some(-5));
        assert_eq!(decimal("1.5000", 10, 2), Some(150));
        for bad in ["1.505", "12345678901", "1e5", "", ".", "a"] {
            assert_eq!(decimal(bad, 10, 2), None, "{bad}");
        }
    }
}
