//! Patterns of paths: which time and which keys the names of folders and files hold.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PartitionUnit;
use crate::error::{Error, Result};

/// A part of a date or time in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PathField {
    /// `%Y`: the year, four digits.
    Year,
    /// `%m`: the month.
    Month,
    /// `%d`: the day of the month.
    Day,
    /// `%j`: the day of the year, three digits.
    DayOfYear,
    /// `%H`: the hour.
    Hour,
    /// `%M`: the minute.
    Minute,
    /// `%S`: the second.
    Second,
}

impl PathField {
    /// How many digits a name has for it, at least and at most.
    fn digits(self) -> (usize, usize) {
        match self {
            Self::Year => (4, 4),
            Self::DayOfYear => (3, 3),
            _ => (1, 2),
        }
    }

    /// How it is written in a pattern.
    pub fn directive(self) -> &'static str {
        match self {
            Self::Year => "%Y",
            Self::Month => "%m",
            Self::Day => "%d",
            Self::DayOfYear => "%j",
            Self::Hour => "%H",
            Self::Minute => "%M",
            Self::Second => "%S",
        }
    }

    fn of(directive: char) -> Option<Self> {
        Some(match directive {
            'Y' => Self::Year,
            'm' => Self::Month,
            'd' => Self::Day,
            'j' => Self::DayOfYear,
            'H' => Self::Hour,
            'M' => Self::Minute,
            'S' => Self::Second,
            _ => return None,
        })
    }
}

/// A piece of a name in a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathPiece {
    /// This text.
    Text(String),
    /// Any text, written `*`.
    Any,
    /// A part of the time.
    Field(PathField),
    /// The value of a key column, written `{column}`.
    Key(String),
}

/// A pattern of names of folders, and perhaps of a file: `region={region}/year=%Y/month=%m/day=%d`.
///
/// ```
/// use repair_core::model::PathPattern;
///
/// let pattern: PathPattern = "region={region}/%Y/%j".parse()?;
/// let facts = pattern.read(&["region=north", "2024", "064"]).ok_or("no match")?;
/// assert_eq!(facts.start, Some("2024-03-04T00:00:00".parse()?));
/// assert_eq!(facts.keys["region"], "north");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PathPattern {
    text: String,
    parts: Vec<Vec<PathPiece>>,
}

/// What a path says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PathFacts {
    /// When the stretch of time begins that the path names, on the clock of the pattern's zone; `None` if the pattern names no time.
    pub start: Option<DateTime>,
    /// The values of key columns.
    pub keys: BTreeMap<String, String>,
}

/// Fields found so far, and keys.
#[derive(Debug, Clone, Default)]
struct Found {
    fields: BTreeMap<PathField, i16>,
    keys: BTreeMap<String, String>,
}

impl PathPattern {
    /// The names' pieces, from the outermost folder in.
    pub fn parts(&self) -> &[Vec<PathPiece>] {
        &self.parts
    }

    /// The columns whose values it holds.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pieces().filter_map(|piece| match piece {
            PathPiece::Key(key) => Some(key.as_str()),
            _ => None,
        })
    }

    fn pieces(&self) -> impl Iterator<Item = &PathPiece> {
        self.parts.iter().flatten()
    }

    /// The finest part of the time that it holds.
    pub fn finest(&self) -> Option<PathField> {
        self.pieces()
            .filter_map(|piece| match piece {
                PathPiece::Field(field) => Some(*field),
                _ => None,
            })
            .max()
    }

    /// The unit of time that a path names; `None` if it names no time.
    pub fn unit(&self) -> Option<PartitionUnit> {
        self.finest().map(|field| match field {
            PathField::Year => PartitionUnit::Year,
            PathField::Month => PartitionUnit::Month,
            PathField::Day | PathField::DayOfYear => PartitionUnit::Day,
            _ => PartitionUnit::Hour,
        })
    }

    /// Whether its last part is the name of a file: whether it has a dot or a `*`.
    pub fn names_a_file(&self) -> bool {
        self.parts.last().is_some_and(|part| {
            part.iter().any(|piece| match piece {
                PathPiece::Text(text) => text.contains('.'),
                PathPiece::Any => true,
                _ => false,
            })
        })
    }

    /// The Hive column of a part such as `day=%d`, whatever its value is.
    pub fn column_of(part: &[PathPiece]) -> Option<&str> {
        match part.first() {
            Some(PathPiece::Text(text)) => text.split_once('=').map(|(column, _)| column).filter(|column| !column.is_empty()),
            _ => None,
        }
    }

    /// What names say; `None` if they do not match. There must be as many names as parts.
    pub fn read(&self, names: &[&str]) -> Option<PathFacts> {
        if names.len() != self.parts.len() {
            return None;
        }
        let mut found = Found::default();
        for (part, name) in self.parts.iter().zip(names) {
            found = matched(part, name, found)?;
        }
        let start = if found.fields.is_empty() { None } else { Some(start(&found.fields)?) };
        Some(PathFacts { start, keys: found.keys })
    }

    /// The path of a time on the clock of the pattern's zone, with values for its keys.
    ///
    /// # Errors
    /// `invalid` if it has a `*`, or a key without a value.
    pub fn write(&self, time: DateTime, keys: &BTreeMap<String, String>) -> Result<String> {
        let mut names = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut name = String::new();
            for piece in part {
                match piece {
                    PathPiece::Text(text) => name.push_str(text),
                    PathPiece::Any => return Err(Error::invalid(format!("`{self}` has a `*`, so no file can be written by it"))),
                    PathPiece::Field(field) => name.push_str(&match field {
                        PathField::Year => format!("{:04}", time.year()),
                        PathField::Month => format!("{:02}", time.month()),
                        PathField::Day => format!("{:02}", time.day()),
                        PathField::DayOfYear => format!("{:03}", time.day_of_year()),
                        PathField::Hour => format!("{:02}", time.hour()),
                        PathField::Minute => format!("{:02}", time.minute()),
                        PathField::Second => format!("{:02}", time.second()),
                    }),
                    PathPiece::Key(key) => match keys.get(key) {
                        Some(value) => name.push_str(value),
                        None => return Err(Error::invalid(format!("`{self}` needs a value of `{key}`"))),
                    },
                }
            }
            names.push(name);
        }
        Ok(names.join("/"))
    }
}

/// Matches a name, trying the longest value of each piece first.
fn matched(pieces: &[PathPiece], name: &str, found: Found) -> Option<Found> {
    let Some((piece, rest)) = pieces.split_first() else { return name.is_empty().then_some(found) };
    match piece {
        PathPiece::Text(text) => matched(rest, name.strip_prefix(text.as_str())?, found),
        PathPiece::Field(field) => {
            let (least, most) = field.digits();
            let digits = name.bytes().take_while(u8::is_ascii_digit).count().min(most);
            (least..=digits).rev().find_map(|length| {
                let value: i16 = name.get(..length)?.parse().ok()?;
                let mut found = found.clone();
                if found.fields.insert(*field, value).is_some_and(|before| before != value) {
                    return None;
                }
                matched(rest, &name[length..], found)
            })
        }
        PathPiece::Any => ends(name, 0).find_map(|end| matched(rest, &name[end..], found.clone())),
        PathPiece::Key(key) => ends(name, 1).find_map(|end| {
            let mut found = found.clone();
            if found.keys.insert(key.clone(), name[..end].to_owned()).is_some_and(|before| before != name[..end]) {
                return None;
            }
            matched(rest, &name[end..], found)
        }),
    }
}

/// Where a piece of a name may end, the farthest first.
fn ends(name: &str, least: usize) -> impl Iterator<Item = usize> + '_ {
    let all = name.char_indices().map(|(at, _)| at).chain([name.len()]).filter(move |&at| at >= least).collect::<Vec<_>>();
    all.into_iter().rev()
}

fn start(fields: &BTreeMap<PathField, i16>) -> Option<DateTime> {
    let get = |field: PathField, missing: i16| fields.get(&field).copied().unwrap_or(missing);
    let small = |value: i16| i8::try_from(value).ok();
    let year = get(PathField::Year, 0);
    let date = match fields.get(&PathField::DayOfYear) {
        Some(&day) => Date::new(year, 1, 1).ok()?.with().day_of_year(day).build().ok()?,
        None => Date::new(year, small(get(PathField::Month, 1))?, small(get(PathField::Day, 1))?).ok()?,
    };
    let time =
        jiff::civil::Time::new(small(get(PathField::Hour, 0))?, small(get(PathField::Minute, 0))?, small(get(PathField::Second, 0))?, 0);
    Some(date.to_datetime(time.ok()?))
}

impl FromStr for PathPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: String| Error::invalid(format!("`{text}` is not a pattern of paths: {why}"));
        let mut parts = Vec::new();
        for name in text.trim_matches('/').split('/') {
            if matches!(name, "" | "." | "..") {
                return Err(refuse("it has an empty part, or a part of dots".to_owned()));
            }
            parts.push(part(name).map_err(refuse)?);
        }
        let pattern = Self { text: text.to_owned(), parts };
        let fields: Vec<PathField> = pattern
            .pieces()
            .filter_map(|piece| match piece {
                PathPiece::Field(field) => Some(*field),
                _ => None,
            })
            .collect();
        let has = |field| fields.contains(&field);
        for (fine, coarse) in [
            (PathField::Month, PathField::Year),
            (PathField::Day, PathField::Month),
            (PathField::DayOfYear, PathField::Year),
            (PathField::Minute, PathField::Hour),
            (PathField::Second, PathField::Minute),
        ] {
            if has(fine) && !has(coarse) {
                return Err(refuse(format!("it has {} without {}", fine.directive(), coarse.directive())));
            }
        }
        if has(PathField::Hour) && !has(PathField::Day) && !has(PathField::DayOfYear) {
            return Err(refuse("it has %H without a day".to_owned()));
        }
        if pattern.pieces().all(|piece| matches!(piece, PathPiece::Text(_) | PathPiece::Any)) {
            return Err(refuse("it names neither a time, such as %Y, nor a key column, such as {region}".to_owned()));
        }
        Ok(pattern)
    }
}

/// The pieces of a name in a pattern.
fn part(name: &str) -> std::result::Result<Vec<PathPiece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut characters = name.chars();
    let flush = |text: &mut String, pieces: &mut Vec<PathPiece>| {
        if !text.is_empty() {
            pieces.push(PathPiece::Text(std::mem::take(text)));
        }
    };
    while let Some(character) = characters.next() {
        let piece = match character {
            '%' => match characters.next() {
                Some('%') => {
                    text.push('%');
                    continue;
                }
                // The whole date, in the order of the standard.
                Some('F') => {
                    flush(&mut text, &mut pieces);
                    pieces.extend(part("%Y-%m-%d")?);
                    continue;
                }
                Some(directive) => match PathField::of(directive) {
                    Some(field) => PathPiece::Field(field),
                    None => return Err(format!("it has %{directive}; known are %Y, %m, %d, %j, %H, %M, %S and %F")),
                },
                None => return Err("it ends in a `%`".to_owned()),
            },
            '*' => PathPiece::Any,
            '{' => {
                let column: String = characters.by_ref().take_while(|&next| next != '}').collect();
                if column.is_empty() {
                    return Err("a key column has no name; write e.g. {region}".to_owned());
                }
                PathPiece::Key(column)
            }
            other => {
                text.push(other);
                continue;
            }
        };
        flush(&mut text, &mut pieces);
        let open = |piece: &PathPiece| matches!(piece, PathPiece::Any | PathPiece::Key(_));
        if open(&piece) && pieces.last().is_some_and(open) {
            return Err("two open pieces, such as a key and a `*`, follow each other".to_owned());
        }
        pieces.push(piece);
    }
    flush(&mut text, &mut pieces);
    Ok(pieces)
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathPattern({})", self.text)
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathPattern {}

impl Hash for PathPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        for (text, names, start) in [
            ("year=%Y/month=%m/day=%d/hour=%H", &["year=2024", "month=3", "day=04", "hour=9"][..], "2024-03-04T09:00"),
            ("%Y/%m/%d/%H", &["2024", "03", "04", "23"], "2024-03-04T23:00"),
            ("dt=%Y%m%d", &["dt=20240304"], "2024-03-04T00:00"),
            ("dt=%F", &["dt=2024-03-04"], "2024-03-04T00:00"),
            ("%Y/%j", &["2024", "366"], "2024-12-31T00:00"),
            ("sales_%Y%m%d_*.csv", &["sales_20240304_v2.csv"], "2024-03-04T00:00"),
            ("%Y%m%dT%H%M%S.json", &["20240304T091500.json"], "2024-03-04T09:15"),
        ] {
            assert_eq!(pattern(text).read(names).unwrap().start, Some(start.parse().unwrap()), "{text}");
        }
        let facts = pattern("{region}-{meter}/%Y").read(&["north-west-7", "2024"]).unwrap();
        assert_eq!((facts.keys["region"].as_str(), facts.keys["meter"].as_str()), ("north-west", "7"));
    }

    #[test]
    fn other_names_do_not_match() {
        for (text, names) in [
            ("dt=%Y%m%d", &["dt=2024-03-04"][..]),
            ("dt=%Y%m%d", &["dt=20240230"]),
            ("dt=%Y%m%d", &["day=20240304"]),
            ("dt=%Y%m%d", &["dt=20240304", "more"]),
            ("%Y/%j", &["2023", "366"]),
            ("%Y/%Y-%m", &["2024", "2023-01"]),
            ("year=%Y", &["year=24"]),
            ("hour=%Y%m%d%H", &["hour=2024030424"]),
        ] {
            assert_eq!(pattern(text).read(names), None, "{text}");
        }
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for bad in ["", "plain", "%m", "%Y/%d", "%Y/%m/%H", "%Q", "{}", "%Y//%m", "../%Y", "{a}{b}", "{a}*", "%", "*"] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            text in proptest::sample::select(vec!["year=%Y/month=%m/day=%d/hour=%H", "%Y/%m/%d/%H", "dt=%Y%m%d%H", "r={r}/%Y/%j/%H", "%F/{r}_%H.csv"]),
            seconds in -2_000_000_000i64..4_000_000_000,
        ) {
            let hour = jiff::Timestamp::from_second(seconds.div_euclid(3_600) * 3_600).unwrap();
            let time = jiff::tz::TimeZone::UTC.to_datetime(hour);
            let keys = BTreeMap::from([("r".to_owned(), "a_b".to_owned())]);
            let path = pattern(text).write(time, &keys).unwrap();
            let names: Vec<&str> = path.split('/').collect();
            let facts = pattern(text).read(&names).unwrap();
            prop_assert_eq!(facts.start, Some(time));
            prop_assert!(facts.keys.is_empty() || facts.keys == keys);
        }
    }
}
