//! How the text of CSV files seems to be written: delimiter, quote, header, encoding, marks of numbers.

use std::collections::{BTreeMap, BTreeSet};

use repair_core::model::{Csv, Encoding};
use repair_local::sample::Head;

use super::values::Column;
use super::{Guess, Sure};

/// Lines of each file that are looked at.
const MOST_LINES: usize = 500;

/// Delimiters, those first that stand in few texts for anything else.
const DELIMITERS: [char; 5] = ['\t', ';', '|', ',', ' '];

/// Lines before the header that may say something else.
const MOST_SKIPPED: usize = 20;

/// The fields of a line.
fn fields(line: &str, delimiter: char, quote: char) -> Vec<&str> {
    let (mut in_quotes, mut start, mut found) = (false, 0, Vec::new());
    for (at, character) in line.char_indices() {
        if character == quote {
            in_quotes = !in_quotes;
        } else if character == delimiter && !in_quotes {
            found.push(&line[start..at]);
            start = at + character.len_utf8();
        }
    }
    found.push(&line[start..]);
    if delimiter == ' ' {
        found.retain(|field| !field.is_empty());
    }
    found
}

/// The most frequent number of fields, and the share of lines that have it.
fn most_frequent(lines: &[&str], delimiter: char, quote: char) -> (usize, f64) {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for line in lines {
        *counts.entry(fields(line, delimiter, quote).len()).or_default() += 1;
    }
    let (count, lines_of) = counts.into_iter().max_by_key(|(_, lines)| *lines).unwrap_or((1, 0));
    (count, lines_of as f64 / lines.len().max(1) as f64)
}

/// A field without the quotes around it.
fn unquoted(field: &str, quote: char) -> &str {
    field.trim().trim_matches(quote)
}

/// Whether a field is a name, rather than a value: no number, no time, not empty.
fn is_name(field: &str, quote: char) -> bool {
    let text = unquoted(field, quote);
    text.chars().next().is_some_and(|first| !first.is_ascii_digit() && !"-+.?".contains(first)) && text.parse::<f64>().is_err()
}

/// The share of lines with a field that begins and ends with this character.
fn share_within(lines: &[&str], quote: char) -> f64 {
    let is_within = |field: &str| field.trim().len() > 1 && field.trim().starts_with(quote) && field.trim().ends_with(quote);
    let within = lines.iter().filter(|line| line.split(['\t', ';', '|', ',']).any(is_within)).count();
    within as f64 / lines.len().max(1) as f64
}

/// How the files seem to be written, by how they begin.
pub(super) fn guess(heads: &[Head], guesses: &mut Vec<Guess>) -> Csv {
    let mut csv = Csv::default();
    if let Some(head) = heads.iter().find(|head| head.encoding != Encoding::Utf8) {
        csv.encoding = head.encoding;
        let why = match head.encoding {
            Encoding::Latin1 => "the bytes are not UTF-8",
            _ => "every other byte is zero",
        };
        guesses.push(Guess::new("encoding", head.encoding.as_str(), why, Sure::Likely));
    }
    let lines_of = |head: &'_ Head| -> Vec<String> {
        head.text.lines().filter(|line| !line.trim().is_empty()).take(MOST_LINES).map(str::to_owned).collect()
    };
    let by_file: Vec<Vec<String>> = heads.iter().map(lines_of).collect();
    let mut lines: Vec<&str> = by_file.iter().flatten().map(String::as_str).collect();
    if lines.iter().any(|line| line.starts_with('#')) && lines.iter().any(|line| !line.starts_with('#')) {
        csv.comment = Some('#');
        lines.retain(|line| !line.starts_with('#'));
        guesses.push(Guess::new("comment", "#", "some lines begin with it", Sure::Likely));
    }
    // The first line may have names without quotes.
    if share_within(&lines, '\'') >= 0.9 && share_within(&lines, '"') < 0.1 {
        csv.quote = Some('\'');
        guesses.push(Guess::new("quote", "'", "fields begin and end with it", Sure::Likely));
    }
    let quote = csv.quote.unwrap_or('"');
    let scored =
        DELIMITERS.into_iter().map(|delimiter| (delimiter, most_frequent(&lines, delimiter, quote))).filter(|(_, (count, _))| *count > 1);
    let scored: Vec<(char, (usize, f64))> = scored.collect();
    let best = scored
        .iter()
        .find(|(_, (_, share))| *share >= 0.9)
        .or_else(|| scored.iter().filter(|(delimiter, _)| *delimiter != ' ').max_by(|a, b| a.1.1.total_cmp(&b.1.1)));
    if let Some((delimiter, (count, share))) = best {
        csv.delimiter = *delimiter;
        let word = match delimiter {
            '\t' => "tab".to_owned(),
            ' ' => "space".to_owned(),
            other => other.to_string(),
        };
        let sure = if *share >= 0.99 { Sure::Sure } else { Sure::Likely };
        guesses.push(Guess::new("delimiter", word, format!("{} of the lines have {count} fields", percent(*share)), sure));
        let width = *count;
        let first = by_file.iter().find_map(|lines| {
            let data = lines.iter().filter(|line| csv.comment.is_none_or(|mark| !line.starts_with(mark)));
            data.take(MOST_SKIPPED).position(|line| fields(line, *delimiter, quote).len() == width)
        });
        if let Some(skip) = first.filter(|skip| *skip > 0) {
            csv.skip_lines = u32::try_from(skip).unwrap_or(0);
            guesses.push(Guess::new("skip_lines", skip.to_string(), "the lines before have other fields", Sure::Likely));
        }
        let spaced = format!("{delimiter} ");
        if *delimiter == ' ' || lines.iter().filter(|line| line.contains(&spaced)).count() * 10 >= lines.len() * 9 {
            csv.trim = true;
            guesses.push(Guess::new("trim", "true", "there are spaces around the delimiter", Sure::Likely));
        }
    }
    header(&mut csv, &by_file, guesses);
    csv
}

/// Whether the first line names the columns; if not, gives them names.
fn header(csv: &mut Csv, by_file: &[Vec<String>], guesses: &mut Vec<Guess>) {
    let data = |lines: &'_ Vec<String>| -> Vec<String> {
        lines.iter().filter(|line| csv.comment.is_none_or(|mark| !line.starts_with(mark))).skip(csv.skip_lines as usize).cloned().collect()
    };
    let Some(lines) = by_file.iter().map(data).find(|lines| lines.len() > 1) else { return };
    let quote = csv.quote.unwrap_or('"');
    let first: Vec<String> = fields(&lines[0], csv.delimiter, quote).into_iter().map(str::to_owned).collect();
    let distinct: BTreeSet<&String> = first.iter().collect();
    let names = first.iter().filter(|field| is_name(field, quote)).count();
    let second = fields(&lines[1], csv.delimiter, quote).into_iter().filter(|field| is_name(field, quote)).count();
    if distinct.len() == first.len() && names == first.len() {
        let sure = if second < names { Sure::Sure } else { Sure::Guess };
        let why = if second < names { "the first line has names where others have values" } else { "the first line has no numbers" };
        guesses.push(Guess::new("header", "true", why, sure));
        return;
    }
    csv.header = false;
    if names == first.len() && second < names {
        csv.skip_lines += 1;
        let mut taken = BTreeSet::new();
        for name in &first {
            let name = unquoted(name, quote);
            let numbered = (2..).map(|nth| format!("{name}_{nth}"));
            let own = std::iter::once(name.to_owned()).chain(numbered).find(|own| !taken.contains(own)).unwrap_or_default();
            taken.insert(own.clone());
            csv.names.push(own);
        }
        guesses.push(Guess::new("names", csv.names.join(", "), "the first line has a name twice", Sure::Likely));
        return;
    }
    csv.names = (1..=first.len()).map(|nth| format!("column{nth}")).collect();
    guesses.push(Guess::new(
        "header",
        "false",
        "the first line has values; its columns got the names column1, column2 and so on",
        Sure::Likely,
    ));
}

/// The marks of numbers, by the values of columns.
pub(super) fn marks(csv: &mut Csv, columns: &[Column], guesses: &mut Vec<Guess>) {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let grouped = |text: &str, mark: char| {
        let mut groups = text.split(mark);
        groups.next().is_some_and(|first| digits(first) && first.len() <= 3)
            && groups.clone().count() > 0
            && groups.all(|group| group.len() == 3 && digits(group))
    };
    for (decimal, thousands) in [(',', '.'), ('.', ',')] {
        // Whether a number has the decimal mark, and whether it has the other one between groups.
        let shape = |text: &str| -> Option<(bool, bool)> {
            let text = text.strip_prefix('-').unwrap_or(text);
            let (whole, fraction) = text.split_once(decimal).map_or((text, None), |(whole, rest)| (whole, Some(rest)));
            let is_grouped = grouped(whole, thousands);
            let fits = (digits(whole) || is_grouped) && fraction.is_none_or(digits);
            fits.then_some((fraction.is_some(), is_grouped))
        };
        let (mut with_decimal, mut with_groups) = (None, None);
        for column in columns {
            let shapes: Vec<Option<(bool, bool)>> = column.present().map(shape).collect();
            let fitting = shapes.iter().flatten().count();
            if fitting * 10 < shapes.len() * 9 || fitting == 0 {
                continue;
            }
            // `1.234` alone may be a number with a decimal point.
            let has_decimal = shapes.iter().flatten().any(|(decimal, _)| *decimal);
            if has_decimal {
                with_decimal = with_decimal.or(Some(&column.name));
            }
            if shapes.iter().flatten().any(|(_, groups)| *groups) && (has_decimal || thousands == ',') {
                with_groups = with_groups.or(Some(&column.name));
            }
        }
        if decimal == ','
            && let Some(name) = with_decimal
        {
            csv.decimal = ',';
            guesses.push(Guess::new("decimal", ",", format!("the numbers of column `{name}` have it"), Sure::Likely));
        }
        if (decimal == ',' && with_decimal.is_some() || decimal == '.')
            && csv.decimal == decimal
            && let Some(name) = with_groups
        {
            csv.thousands = Some(thousands);
            let why = format!("the numbers of column `{name}` have it between groups of three digits");
            guesses.push(Guess::new("thousands", thousands.to_string(), why, Sure::Likely));
        }
        if csv.decimal == ',' {
            break;
        }
    }
}

/// A share, as people read it.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share >= 1.0 { "all".to_owned() } else { format!("{:.0}%", percent.floor()) }
}
