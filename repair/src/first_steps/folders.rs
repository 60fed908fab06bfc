//! Whether folders carry the time: `date=2024-03-04`, `dt=20240304`, `2024/03/04`.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::{Guess, Sure};

/// How a name of a folder writes a part of the time, and what it needs before it.
const FORMS: [(&str, &[usize], bool); 8] = [
    ("%Y-%m-%d", &[10], false),
    ("%Y%m%d", &[8], false),
    ("%Y-%m", &[7], false),
    ("%Y%m", &[6], false),
    ("%Y", &[4], false),
    ("%m", &[1, 2], true),
    ("%d", &[1, 2], true),
    ("%H", &[1, 2], true),
];

/// Whether a value is written in a form.
fn is_in(form: &str, lengths: &[usize], value: &str) -> bool {
    if !lengths.contains(&value.len()) || !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return false;
    }
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    let number = |from: usize, to: usize| digits.get(from..to).and_then(|text| text.parse::<i16>().ok());
    let plain = value.len() == digits.len();
    let year = || number(0, 4).is_some_and(|year| (1900..2200).contains(&year));
    let month = || number(4, 6).is_some_and(|month| (1..=12).contains(&month));
    let day = || {
        let date = || Date::new(number(0, 4)?, i8::try_from(number(4, 6)?).ok()?, i8::try_from(number(6, 8)?).ok()?).ok();
        date().is_some()
    };
    match form {
        "%Y-%m-%d" => !plain && day(),
        "%Y%m%d" => plain && day(),
        "%Y-%m" => !plain && year() && month(),
        "%Y%m" => plain && year() && month(),
        "%Y" => plain && year(),
        "%m" => plain && value.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month)),
        "%d" => plain && value.parse::<u8>().is_ok_and(|day| (1..=31).contains(&day)),
        _ => plain && value.parse::<u8>().is_ok_and(|hour| hour < 24),
    }
}

/// The pattern of the folders, as `partition_by` takes it; `None` if they carry no time.
pub(super) fn guess(paths: &[&[String]], key: &[String], guesses: &mut Vec<Guess>) -> Option<String> {
    let depths: BTreeSet<usize> = paths.iter().map(|names| names.len() - 1).collect();
    let [depth] = depths.into_iter().collect::<Vec<_>>()[..] else { return None };
    let (mut parts, mut has_time, mut next) = (Vec::new(), false, 0);
    for level in 0..depth {
        let names: BTreeSet<&str> = paths.iter().filter_map(|names| names.get(level)).map(String::as_str).collect();
        let columns: BTreeSet<Option<&str>> = names.iter().map(|name| name.split_once('=').map(|(column, _)| column)).collect();
        let column = match columns.into_iter().collect::<Vec<_>>()[..] {
            [column] => column,
            _ => return None,
        };
        let values: Vec<&str> = names.iter().map(|name| name.split_once('=').map_or(*name, |(_, value)| value)).collect();
        let form = FORMS.iter().enumerate().skip(next).find(|(_, (form, lengths, follows))| {
            // A month follows a year, and a day a month.
            (*follows == has_time) && values.iter().all(|value| is_in(form, lengths, value))
        });
        let part = match (form, column) {
            (Some((at, (form, ..))), _) => {
                has_time = true;
                next = match *form {
                    "%Y" => 5,
                    "%Y-%m" | "%Y%m" => 6,
                    "%Y-%m-%d" | "%Y%m%d" => 7,
                    _ => at + 1,
                };
                (*form).to_owned()
            }
            (None, Some(column)) if key.iter().any(|key| key == column) => format!("{{{column}}}"),
            (None, _) => "*".to_owned(),
        };
        parts.push(column.map_or_else(|| part.clone(), |column| if part == "*" { part.clone() } else { format!("{column}={part}") }));
    }
    if !has_time {
        return None;
    }
    // What follows the last part with a time says nothing that a pattern needs.
    while parts.last().is_some_and(|part| part == "*") {
        parts.pop();
    }
    let pattern = parts.join("/");
    guesses.push(Guess::new("partition_by", &pattern, "all folders are named so", Sure::Sure));
    Some(pattern)
}
