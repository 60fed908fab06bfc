//! Reads the embedded tables. A mistake in one is an error of kind `internal` that names the file and the line.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use repair_core::model::{Hours, Week, WeeklyCalendar, Zone};
use repair_core::{Error, Result};

/// The tables that all markets share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// What is known of each market: its zone, and the dates that are covered.
    pub(super) markets: Csv,
    /// The hours of ordinary weekdays.
    pub(super) hours: Csv,
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
        text.parse().map_err(|error: Error| self.wrong(error.message()))
    }

    fn wrong(&self, what: impl fmt::Display) -> Error {
        Error::internal(format!("calendar table {}, line {}, `{}`: {what}", self.file, self.line, self.fields.join(",")))
    }
}

impl Tables {
    /// The calendar of a market, with the days that differ.
    pub(super) fn read(self, market: &str, days: Csv) -> Result<WeeklyCalendar> {
        let none = |file: &str| Error::internal(format!("calendar table {file} has no market {market}"));
        let rows = self.markets.rows(["market", "zone", "days_from", "hours_from", "last", "basis", "source"])?;
        let row = rows.into_iter().find(|row| row.fields[0] == market).ok_or_else(|| none(self.markets.name))?;
        let [_, zone, first, hours_from, last, _, _] = row.fields;
        let zone: Zone = zone.parse().map_err(|error: Error| row.wrong(error.message()))?;
        let (first, hours_from, last) = (row.date(first)?, row.date(hours_from)?, row.date(last)?);
        if !(first <= hours_from && hours_from < last) {
            return Err(row.wrong("the dates must be in order"));
        }
        let mut calendar = WeeklyCalendar::new(market, zone, Week::default());
        let mut since = None;
        for row in self.hours.rows(["market", "from", "open"])?.into_iter().filter(|row| row.fields[0] == market) {
            let [_, from, hours] = row.fields;
            let from = row.date(from)?;
            match since {
                None if from != hours_from => return Err(row.wrong(format!("the first hours must begin on {hours_from}"))),
                Some(before) if before >= from => return Err(row.wrong(format!("the hours must begin after {before}"))),
                _ => since = Some(from),
            }
            calendar = calendar.with_week_from(from, Week::from_monday_to_friday(&row.hours(hours)?));
        }
        if since.is_none() {
            return Err(none(self.hours.name));
        }
        for (date, hours) in read_days(days, first, last)? {
            calendar = match hours {
                Some(hours) => calendar.with_day(date, hours),
                None => calendar.with_session(date),
            };
        }
        Ok(calendar.covering(first, last, hours_from))
    }
}

/// The days that differ; `None` where only that there was a session is known.
fn read_days(csv: Csv, first: Date, last: Date) -> Result<BTreeMap<Date, Option<Hours>>> {
    let mut days = BTreeMap::new();
    for row in csv.rows(["date", "open", "reason"])? {
        let [date, hours, _] = row.fields;
        let date = row.date(date)?;
        if date < first || date > last {
            return Err(row.wrong(format!("the date is outside what is covered, {first} to {last}")));
        }
        let hours = if hours == "open" { None } else { Some(row.hours(hours)?) };
        if days.insert(date, hours).is_some() {
            return Err(row.wrong("the date appears twice"));
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use repair_core::model::Calendar;

    use super::*;

    const MARKETS: &str = "market,zone,days_from,hours_from,last,basis,source\nXX,Asia/Tokyo,2019-01-01,2020-01-01,2020-12-31,rule,x\n";
    const HOURS: &str = "market,from,open\nXX,2020-01-01,09:00-11:30 12:30-15:00\n";
    const DAYS: &str = "date,open,reason\n2019-01-05,open,Saturday\n2020-01-02,closed,Holiday\n2020-12-30,09:00-11:30,Half day\n";

    fn read(markets: &'static str, hours: &'static str, days: &'static str) -> Result<WeeklyCalendar> {
        let tables = Tables { markets: Csv { name: "markets.csv", text: markets }, hours: Csv { name: "hours.csv", text: hours } };
        tables.read("XX", Csv { name: "xx.csv", text: days })
    }

    #[test]
    fn days_are_covered_for_longer_than_hours() {
        let calendar = read(MARKETS, HOURS, DAYS).unwrap();
        let date = |text: &str| text.parse::<Date>().unwrap();
        assert_eq!(calendar.coverage(), Some((date("2019-01-01"), date("2020-12-31"))));
        assert_eq!(calendar.hours_coverage(), Some((date("2020-01-01"), date("2020-12-31"))));
        // 2019-01-05 was a Saturday, 2020-01-01 a Wednesday.
        assert_eq!(calendar.days(date("2019-01-05"), date("2019-01-06")).unwrap(), [date("2019-01-05")]);
        assert_eq!(calendar.days(date("2020-01-01"), date("2020-01-03")).unwrap(), [date("2020-01-01"), date("2020-01-03")]);
        assert_eq!(calendar.sessions(date("2020-12-30"), date("2020-12-30")).unwrap()[0].breaks, []);
        let blind = calendar.sessions(date("2019-12-31"), date("2020-01-01")).unwrap_err();
        assert!(blind.message().contains("covers 2019-01-01 to 2020-12-31 and knows the hours of its sessions from 2020-01-01 on"));
    }

    #[test]
    fn mistakes_in_a_table_are_refused_with_their_line() {
        let cases = [
            (MARKETS, HOURS, "day,open,reason\n", "calendar table xx.csv, line 1, `day,open,reason`: the header must be date,open,reason"),
            (MARKETS, HOURS, "", "calendar table xx.csv is empty"),
            (MARKETS, HOURS, "date,open,reason\n2020-01-02\n", "calendar table xx.csv, line 2, `2020-01-02`: expected 3 fields"),
            (MARKETS, HOURS, "date,open,reason\n2021-01-01,closed,x\n", "the date is outside what is covered, 2019-01-01 to 2020-12-31"),
            (
                MARKETS,
                HOURS,
                "date,open,reason\n2020-01-01,closed,x\n2020-01-01,closed,x\n",
                "line 3, `2020-01-01,closed,x`: the date appears",
            ),
            (MARKETS, HOURS, "date,open,reason\n2020-01-01,shut,x\n", "`shut` is neither `closed` nor hours in order"),
            (MARKETS, "market,from,open\nYY,2020-01-01,closed\n", DAYS, "calendar table hours.csv has no market XX"),
            (MARKETS, "market,from,open\nXX,2020-01-02,closed\n", DAYS, "the first hours must begin on 2020-01-01"),
            (
                "market,zone,days_from,hours_from,last,basis,source\nXX,Mars/Base,2019-01-01,2020-01-01,2020-12-31,rule,x\n",
                HOURS,
                DAYS,
                "calendar table markets.csv, line 2",
            ),
        ];
        for (markets, hours, days, expected) in cases {
            let message = read(markets, hours, days).unwrap_err().message().to_owned();
            assert!(message.contains(expected), "{message}\n  lacks\n{expected}");
        }
    }
}
