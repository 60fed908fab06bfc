//! Regular expressions for texts that hold times: of ISO 8601, of a pattern of `strptime`, of a path. Only what Java's syntax and others
//! share is printed.

use repair_core::lake::overlay::{self, owner};
use repair_core::model::{PathField, PathPattern, PathPiece};
use repair_core::{Error, Result};

/// What a group of a regular expression holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Group {
    Year,
    /// Two digits; from 69 on, they are of the 20th century.
    YearOfCentury,
    Month,
    /// A month's name, or the start of one.
    MonthName,
    Day,
    DayOfYear,
    /// A weekday's name, or the start of one.
    Weekday,
    Hour,
    /// An hour from 1 to 12.
    Hour12,
    /// `am` or `pm`.
    Half,
    Minute,
    Second,
    /// Digits after the decimal mark of the seconds.
    Fraction,
    /// `+02:00`, `-0930`, `+01`.
    Offset,
    /// A word for UTC.
    Utc,
    /// Seconds since 1970.
    Epoch,
    /// The value of a key column.
    Key(String),
}

/// A text as part of a regular expression.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() && !matches!(character, '_' | '=' | '/' | ',' | ':' | '-' | '%' | '\'' | '"' | ';' | '<' | '>')
        {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The paths of an overlay's objects below a table's location, as [`owner::is_object`] says.
pub(crate) fn of_overlays() -> String {
    let [repairs, exceptions, retractions] = [overlay::repairs(""), overlay::exceptions(""), overlay::retractions("")];
    let number = "(?:0|[1-9][0-9]*)";
    format!(
        "(?:.*/)?(?:[^/]+(?:{repairs}|{exceptions})/(?:[^/]*=[^/]*/)?[^/]+-[^/-]+-{number}-{number}|[^/]+{retractions}/(?:{})-[^/]*)\\.parquet",
        owner::RETRACTION_IDS.join("|")
    )
}

/// A time as ISO 8601 writes it. All groups but those of the date are optional.
pub(crate) fn iso() -> (String, Vec<Group>) {
    let pattern = "\\A([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?(?:([+-][0-9]{2}(?::?[0-9]{2})?)|(Z|z| \
                   UTC| Z))?)?\\z";
    let groups =
        vec![Group::Year, Group::Month, Group::Day, Group::Hour, Group::Minute, Group::Second, Group::Fraction, Group::Offset, Group::Utc];
    (pattern.to_owned(), groups)
}

const BLANKS: &str = "[ \\t\\r\\n]*";

/// A piece of a pattern of `strptime`.
enum Piece {
    /// The expression of something without a value.
    Text(String),
    /// A number of at most so many digits.
    Number(Group, u8),
    /// The expression of anything else.
    Other(Group, String),
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// One of some names, in any case.
fn names(names: &[&str], length: Option<usize>) -> String {
    let shown = names.iter().map(|name| name.get(..length.unwrap_or(name.len())).unwrap_or(name));
    format!("(?i:{})", shown.collect::<Vec<_>>().join("|"))
}

/// The pieces of a pattern.
fn pieces(pattern: &str) -> Result<Vec<Piece>> {
    let refuse = |what: &str| {
        Err(Error::invalid(format!(
            "the time is written as `{pattern}`, and {what} cannot be read on Athena; use numbers, names of months and days, and offsets only, or make \
             a view of the table that has a timestamp, and name the view"
        )))
    };
    let mut all = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        if character.is_ascii_whitespace() {
            all.push(Piece::Text(BLANKS.to_owned()));
            continue;
        }
        if character != '%' {
            all.push(Piece::Text(escape(&character.to_string())));
            continue;
        }
        // How a number is padded matters only where it is written.
        while characters.next_if(|next| matches!(next, '-' | '_' | '0')).is_some() {}
        let mut colons = 0;
        while characters.next_if_eq(&':').is_some() {
            colons += 1;
        }
        let dot = characters.next_if_eq(&'.').is_some();
        let mut has_width = false;
        while characters.next_if(char::is_ascii_digit).is_some() {
            has_width = true;
        }
        let Some(directive) = characters.next() else { return refuse("a `%` at its end") };
        let spelled = format!("%{}{}{directive}", ":".repeat(colons), if dot { "." } else { "" });
        let is_fraction = matches!(directive, 'f' | 'N');
        if ((dot || has_width) && !is_fraction) || (colons > 0 && directive != 'z') || (dot && directive == 'N') {
            return refuse(&format!("`{spelled}` with a width or a mark"));
        }
        let two = |group: Group| Piece::Number(group, 2);
        match directive {
            '%' => all.push(Piece::Text("%".to_owned())),
            'n' | 't' => all.push(Piece::Text(BLANKS.to_owned())),
            'Y' => all.push(Piece::Number(Group::Year, 4)),
            'y' => all.push(two(Group::YearOfCentury)),
            'm' => all.push(two(Group::Month)),
            'd' | 'e' => all.push(two(Group::Day)),
            'j' => all.push(Piece::Number(Group::DayOfYear, 3)),
            'H' | 'k' => all.push(two(Group::Hour)),
            'I' | 'l' => all.push(two(Group::Hour12)),
            'M' => all.push(two(Group::Minute)),
            'S' => all.push(two(Group::Second)),
            's' => all.push(Piece::Other(Group::Epoch, format!("{BLANKS}([+-]?[0-9]{{1,13}})"))),
            'f' if dot => all.push(Piece::Other(Group::Fraction, "(?:\\.([0-9]{1,9}))?".to_owned())),
            'f' | 'N' => all.push(Piece::Other(Group::Fraction, "([0-9]{1,9})".to_owned())),
            'b' | 'h' => all.push(Piece::Other(Group::MonthName, format!("({})", names(&MONTHS, Some(3))))),
            'B' => all.push(Piece::Other(Group::MonthName, format!("({})", names(&MONTHS, None)))),
            'a' => all.push(Piece::Other(Group::Weekday, format!("({})", names(&DAYS, Some(3))))),
            'A' => all.push(Piece::Other(Group::Weekday, format!("({})", names(&DAYS, None)))),
            'p' | 'P' => all.push(Piece::Other(Group::Half, "((?i:am|pm))".to_owned())),
            'z' if colons == 0 => all.push(Piece::Other(Group::Offset, "([+-][0-9]{4})".to_owned())),
            'z' if colons == 1 => all.push(Piece::Other(Group::Offset, "([+-][0-9]{2}:[0-9]{2})".to_owned())),
            'F' => all.extend(pieces("%Y-%m-%d")?),
            'D' => all.extend(pieces("%m/%d/%y")?),
            'T' => all.extend(pieces("%H:%M:%S")?),
            'R' => all.extend(pieces("%H:%M")?),
            _ => return refuse(&format!("`{spelled}`")),
        }
    }
    Ok(all)
}

/// A pattern of `strptime`, and what its groups hold.
///
/// # Errors
/// `invalid` with the directive that has no translation.
pub(crate) fn of_strptime(pattern: &str) -> Result<(String, Vec<Group>)> {
    let all = pieces(pattern)?;
    let (mut expression, mut groups) = ("\\A".to_owned(), Vec::new());
    for (at, piece) in all.iter().enumerate() {
        match piece {
            Piece::Text(text) => expression.push_str(text),
            Piece::Number(group, most) => {
                // A number that another follows at once ends where its digits are full.
                let is_bounded = matches!(all.get(at + 1), Some(Piece::Number(..)))
                    || matches!(all.get(at + 1), Some(Piece::Other(Group::Fraction | Group::Epoch, text)) if !text.starts_with("(?:"));
                let least = if is_bounded { *most } else { 1 };
                let sign = if *group == Group::Year { "\\+?" } else { "" };
                expression.push_str(&format!("{BLANKS}{sign}([0-9]{{{least},{most}}})"));
                groups.push(group.clone());
            }
            Piece::Other(group, text) => {
                expression.push_str(text);
                groups.push(group.clone());
            }
        }
    }
    expression.push_str("\\z");
    let has = |group: &Group| groups.contains(group);
    let refuse =
        |what: &str| Err(Error::invalid(format!("the time is written as `{pattern}`, and {what}, which cannot be read on Athena")));
    if let Some(twice) = groups.iter().enumerate().find(|(at, group)| groups[..*at].contains(group)) {
        return refuse(&format!("it has the {} twice", format!("{:?}", twice.1).to_lowercase()));
    }
    if has(&Group::Hour12) != has(&Group::Half) || (has(&Group::Hour) && has(&Group::Half)) {
        return refuse("it has an hour from 1 to 12 without %p, or %p without one");
    }
    let (years, months) =
        (usize::from(has(&Group::Year)) + usize::from(has(&Group::YearOfCentury)), has(&Group::Month) || has(&Group::MonthName));
    // What a table of months or years leaves out is the first day, or the first month.
    let is_part = !has(&Group::Day) && !has(&Group::Weekday) && !has(&Group::Hour) && !has(&Group::Hour12);
    let has_date = years == 1 && (has(&Group::DayOfYear) || (months && has(&Group::Day)) || is_part);
    if !has_date && !has(&Group::Epoch) {
        return refuse("it has no whole date");
    }
    Ok((expression, groups))
}

fn group_of(field: PathField) -> Option<(Group, &'static str)> {
    Some(match field {
        PathField::Year => (Group::Year, "([0-9]{4})"),
        PathField::Month => (Group::Month, "([0-9]{1,2})"),
        PathField::Day => (Group::Day, "([0-9]{1,2})"),
        PathField::DayOfYear => (Group::DayOfYear, "([0-9]{3})"),
        PathField::Hour => (Group::Hour, "([0-9]{1,2})"),
        PathField::Minute => (Group::Minute, "([0-9]{1,2})"),
        PathField::Second => (Group::Second, "([0-9]{1,2})"),
        _ => return None,
    })
}

/// The expression of a name, without anchors.
pub(crate) fn of_name(pieces: &[PathPiece], groups: &mut Vec<Group>) -> String {
    let mut expression = String::new();
    for piece in pieces {
        match piece {
            PathPiece::Text(text) => expression.push_str(&escape(text)),
            PathPiece::Any => expression.push_str("[^/]*"),
            PathPiece::Key(key) => {
                expression.push_str("([^/]+)");
                groups.push(Group::Key(key.clone()));
            }
            PathPiece::Field(field) => {
                if let Some((group, digits)) = group_of(*field) {
                    expression.push_str(digits);
                    groups.push(group);
                }
            }
            _ => {}
        }
    }
    expression
}

/// The end of a path: a pattern of folders, perhaps with the name of a file.
pub(crate) fn of_path(path: &PathPattern) -> (String, Vec<Group>) {
    let mut groups = Vec::new();
    let names: Vec<String> = path.parts().iter().map(|part| of_name(part, &mut groups)).collect();
    let end = if path.names_a_file() { "\\z" } else { "(?:/[^/]*)?\\z" };
    (format!("/{}{end}", names.join("/")), groups)
}

/// A glob of names or paths: `*` is any text, `?` a character, `[…]` one of some.
pub(crate) fn of_glob(glob: &str, any: &str) -> String {
    let mut expression = String::new();
    let mut characters = glob.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => expression.push_str(any),
            '?' => expression.push_str("[^/]"),
            '[' => {
                let set: String = characters.by_ref().take_while(|next| *next != ']').collect();
                let (not, set) = set.strip_prefix('!').map_or(("", set.as_str()), |set| ("^", set));
                expression.push_str(&format!("[{not}{}]", set.replace('\\', "\\\\").replace('[', "\\[")));
            }
            other => expression.push_str(&escape(&other.to_string())),
        }
    }
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_times_become_expressions() {
        let (expression, groups) = of_strptime("%d.%m.%Y %H:%M").unwrap();
        let blanks = BLANKS;
        assert_eq!(
            expression,
            format!(
                "\\A{blanks}([0-9]{{1,2}})\\.{blanks}([0-9]{{1,2}})\\.{blanks}\\+?([0-9]{{1,4}}){blanks}{blanks}([0-9]{{1,2}}):{blanks}([0-9]{{1,2}})\\z"
            )
        );
        assert_eq!(groups, [Group::Day, Group::Month, Group::Year, Group::Hour, Group::Minute]);
        // Numbers that follow each other at once are as long as they can be.
        let (expression, groups) = of_strptime("%Y%m%dT%H%M%S%.f").unwrap();
        assert!(expression.contains("([0-9]{4,4})") && expression.ends_with("([0-9]{1,2})(?:\\.([0-9]{1,9}))?\\z"), "{expression}");
        assert_eq!(groups.len(), 7);
        assert_eq!(of_strptime("%a, %d %b %Y %I:%M %p").unwrap().1.len(), 7);
        assert_eq!(of_strptime("%FT%T%:z").unwrap().1.last(), Some(&Group::Offset));
    }

    #[test]
    fn a_directive_without_a_translation_is_named() {
        for (pattern, named) in
            [("%Y-%m-%d %Q", "`%Q`"), ("%G-W%V-%u", "`%G`"), ("%C%y-%m-%d", "`%C`"), ("%5Y-%m-%d", "`%Y`"), ("%I:%M %F", "%p")]
        {
            let error = of_strptime(pattern).unwrap_err();
            assert!(error.message().contains(named), "{pattern}: {error}");
        }
        assert!(of_strptime("%H:%M").is_err());
    }

    #[test]
    fn paths_and_globs_become_expressions() {
        let (expression, groups) = of_path(&"region={region}/dt=%Y%m%d".parse().unwrap());
        assert_eq!(expression, "/region=([^/]+)/dt=([0-9]{4})([0-9]{1,2})([0-9]{1,2})(?:/[^/]*)?\\z");
        assert_eq!(groups[0], Group::Key("region".to_owned()));
        assert_eq!(of_path(&"sales_%F_*.csv".parse().unwrap()).0, "/sales_([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})_[^/]*\\.csv\\z");
        assert_eq!(of_glob("*.[ct]sv?", "[^/]*"), "[^/]*\\.[ct]sv[^/]");
    }
}
