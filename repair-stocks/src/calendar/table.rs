//! Reads the embedded tables. A mistake in one is an error of kind `internal` that names the file and the line.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use repair_core::{Error, Result};

/// The content of the tables for one market.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) zone: TimeZone,
    /// The first date that the regular hours cover.
    pub(super) first: Date,
    /// The last date that the regular hours cover.
    pub(super) last: Date,
    /// The regular hours in order, without a date between them.
    pub(super) regular: Vec<Regular>,
    /// The dates with other hours, all within the coverage.
    pub(super) exceptions: BTreeMap<Date, Hours>,
}

/// The hours of an ordinary weekday, and the dates between which they apply.
#[derive(Debug)]
pub(super) struct Regular {
    pub(super) first: Date,
    pub(super) last: Date,
    pub(super) hours: Hours,
}

/// When a market is open on one date, in local time: stretches in order and disjoint; none if it is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hours(Vec<(Time, Time)>);

impl Hours {
    pub(super) const CLOSED: Hours = Hours(Vec::new());

    pub(super) fn stretches(&self) -> &[(Time, Time)] {
        &self.0
    }

    /// Reads `closed`, `09:30-16:00`, or with breaks `09:00-11:30 12:30-15:00`.
    fn parse(text: &str) -> Option<Self> {
        if text == "closed" {
            return Some(Self::CLOSED);
        }
        let stretch = |text: &str| {
            let (from, to) = text.split_once('-')?;
            Some((from.parse::<Time>().ok()?, to.parse::<Time>().ok()?))
        };
        let stretches = text.split(' ').map(stretch).collect::<Option<Vec<_>>>()?;
        let forwards = stretches.iter().all(|(from, to)| from < to);
        let disjoint = stretches.windows(2).all(|pair| pair[0].1 < pair[1].0);
        (forwards && disjoint).then_some(Self(stretches))
    }
}

/// A table: the name of its file, for messages, and its text. The generator ensures that no field holds a comma or a quote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Csv {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

impl Csv {
    fn rows<const N: usize>(self, header: [&str; N]) -> Result<Vec<Row<N>>> {
        let mut rows = self.text.lines().zip(1..).map(|(text, line)| Row::split(self.name, line, text));
        let Some(first) = rows.next().transpose()? else {
            return Err(Error::internal(format!("calendar table {} is empty", self.name)));
        };
        if first.fields != header {
            return Err(first.wrong(format!("the header must be {}", header.join(","))));
        }
        rows.collect()
    }
}

struct Row<const N: usize> {
    file: &'static str,
    line: usize,
    fields: [&'static str; N],
}

impl<const N: usize> Row<N> {
    fn split(file: &'static str, line: usize, text: &'static str) -> Result<Self> {
        match text.split(',').collect::<Vec<_>>().try_into() {
            Ok(fields) => Ok(Self { file, line, fields }),
            Err(_) => Err(Row { file, line, fields: [text] }.wrong(format!("expected {N} fields"))),
        }
    }

    fn date(&self, text: &str) -> Result<Date> {
        Date::from_str(text).map_err(|error| self.wrong(format!("`{text}` is not a date")).because(error))
    }

    fn hours(&self, text: &str) -> Result<Hours> {
        Hours::parse(text).ok_or_else(|| self.wrong(format!("`{text}` is neither `closed` nor hours in order, such as `09:30-16:00`")))
    }

    fn wrong(&self, what: impl fmt::Display) -> Error {
        Error::internal(format!("calendar table {}, line {}, `{}`: {what}", self.file, self.line, self.fields.join(",")))
    }
}

impl Table {
    pub(super) fn read(market: &str, hours: Csv, exceptions: Csv) -> Result<Self> {
        let (zone, regular) = read_regular(market, hours)?;
        let (Some(Regular { first, .. }), Some(Regular { last, .. })) = (regular.first(), regular.last()) else {
            return Err(Error::internal(format!("calendar table {} has no market {market}", hours.name)));
        };
        let (first, last) = (*first, *last);
        Ok(Self { zone, first, last, regular, exceptions: read_exceptions(exceptions, first, last)? })
    }
}

fn read_regular(market: &str, csv: Csv) -> Result<(TimeZone, Vec<Regular>)> {
    let mut zone = TimeZone::UTC;
    let mut regular: Vec<Regular> = Vec::new();
    for row in csv.rows(["market", "zone", "from", "to", "open"])?.into_iter().filter(|row| row.fields[0] == market) {
        let [_, name, first, last, hours] = row.fields;
        // The bundled zones are used, so that the host's own files cannot move an opening.
        let found = TimeZoneDatabase::bundled().get(name).map_err(|error| row.wrong("the zone does not exist").because(error))?;
        let next = Regular { first: row.date(first)?, last: row.date(last)?, hours: row.hours(hours)? };
        if next.last < next.first {
            return Err(row.wrong("the hours end before they begin"));
        }
        if let Some(previous) = regular.last() {
            if found != zone {
                return Err(row.wrong("a market can have only one zone"));
            }
            if previous.last.tomorrow().ok() != Some(next.first) {
                return Err(row.wrong(format!("the hours must begin on the day after {}", previous.last)));
            }
        }
        zone = found;
        regular.push(next);
    }
    Ok((zone, regular))
}

fn read_exceptions(csv: Csv, first: Date, last: Date) -> Result<BTreeMap<Date, Hours>> {
    let mut exceptions = BTreeMap::new();
    for row in csv.rows(["date", "open", "reason"])? {
        let [date, hours, _] = row.fields;
        let date = row.date(date)?;
        if date < first || date > last {
            return Err(row.wrong(format!("the date is outside the regular hours, {first} to {last}")));
        }
        if exceptions.insert(date, row.hours(hours)?).is_some() {
            return Err(row.wrong("the date appears twice"));
        }
    }
    Ok(exceptions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGULAR: &str = "market,zone,from,to,open\nXX,Asia/Tokyo,2020-01-01,2020-12-31,09:00-11:30 12:30-15:00\n";
    const EXCEPTIONS: &str = "date,open,reason\n2020-01-02,closed,New Year's Holiday\n2020-12-30,09:00-11:30,Half day\n";

    fn read(regular: &'static str, exceptions: &'static str) -> Result<Table> {
        Table::read("XX", Csv { name: "hours.csv", text: regular }, Csv { name: "xx.csv", text: exceptions })
    }

    #[test]
    fn hours_are_closed_one_stretch_or_several_in_order() {
        assert_eq!(Hours::parse("closed"), Some(Hours::CLOSED));
        assert_eq!(Hours::parse("09:30-16:00").map(|hours| hours.stretches().len()), Some(1));
        assert_eq!(Hours::parse("09:00-11:30 12:30-15:00").map(|hours| hours.stretches().len()), Some(2));
        for odd in ["", "09:30", "16:00-09:30", "09:30-09:30", "12:30-15:00 09:00-11:30", "09:00-12:00 12:00-15:00", "09:30-24:01"] {
            assert_eq!(Hours::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_table_covers_the_dates_of_its_regular_hours() {
        let table = read(REGULAR, EXCEPTIONS).unwrap();
        assert_eq!((table.first.to_string(), table.last.to_string()), ("2020-01-01".into(), "2020-12-31".into()));
        assert_eq!(table.exceptions.len(), 2);
    }

    #[test]
    fn mistakes_in_a_table_are_refused_with_their_line() {
        let header = "calendar table xx.csv, line 1, `day,open,reason`: the header must be date,open,reason";
        let apart = "market,zone,from,to,open\nXX,UTC,2020-01-01,2020-05-31,closed\nXX,UTC,2020-06-02,2020-12-31,closed\n";
        let twice = "line 3, `2020-01-01,closed,x`: the date appears twice";
        let cases = [
            (REGULAR, "day,open,reason\n", header),
            (REGULAR, "", "calendar table xx.csv is empty"),
            (REGULAR, "date,open,reason\n2020-01-02\n", "calendar table xx.csv, line 2, `2020-01-02`: expected 3 fields"),
            (REGULAR, "date,open,reason\n2021-01-01,closed,x\n", "the date is outside the regular hours, 2020-01-01 to 2020-12-31"),
            (REGULAR, "date,open,reason\n2020-01-01,closed,x\n2020-01-01,closed,x\n", twice),
            (REGULAR, "date,open,reason\n2020-01-01,shut,x\n", "`shut` is neither `closed` nor hours in order"),
            ("market,zone,from,to,open\nYY,UTC,2020-01-01,2020-12-31,closed\n", EXCEPTIONS, "has no market XX"),
            ("market,zone,from,to,open\nXX,Mars/Base,2020-01-01,2020-12-31,closed\n", EXCEPTIONS, "the zone does not exist"),
            (apart, EXCEPTIONS, "the hours must begin on the day after 2020-05-31"),
        ];
        for (regular, exceptions, expected) in cases {
            let message = read(regular, exceptions).unwrap_err().message().to_owned();
            assert!(message.contains(expected), "{message}\n  lacks\n{expected}");
        }
    }
}
