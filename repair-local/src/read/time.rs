//! The time of a row: from text, from a number, from a timestamp without a zone, or from the path, to an instant.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use repair_core::lake::partition::SECOND_US;
use repair_core::lake::shape;
use repair_core::model::{Cadence, EpochUnit, Instants, LocalClock, Repeated, Skipped, Table, TimeForm, Zone};
use repair_core::{Error, Result};

use super::folds::Folds;
use super::pattern::{Fixed, two};
use super::text::{Reject, shortened};
use crate::files::DataFile;

pub(super) const DAY_S: u32 = 86_400;

/// A time as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// An instant, in microseconds since the epoch.
    Instant(i64),
    /// What a clock shows, in microseconds since it showed 1970-01-01 00:00.
    Local(i64),
    /// The start of a date, as microseconds from 1970-01-01 to it.
    Date(i64),
}

/// Reads a time that is written in a form, as a table of that form does; `None` if it is none. A date without a time of day is a time, too, and
/// so is a month.
pub fn stamp(form: &TimeForm, text: &str) -> Option<Stamp> {
    match form {
        TimeForm::Iso => {
            // Whether a number is a year, only its table knows.
            let month = || part_of_date(text.as_bytes()).filter(|(months, _)| *months < 12).map(|(_, us)| us);
            iso(text.as_bytes()).or_else(|| date(text.as_bytes()).or_else(month).map(Stamp::Date))
        }
        TimeForm::Pattern(pattern) => by_pattern(pattern, has_time(pattern), text),
        TimeForm::Epoch(units) => {
            let number: i128 = text.parse().ok()?;
            let unit = units.iter().find(|unit| number.abs() < unit.limit())?;
            let us = (number * i128::from(SECOND_US)).div_euclid(i128::from(unit.per_second()));
            i64::try_from(us).ok().map(Stamp::Instant)
        }
        _ => None,
    }
}

/// Whether a pattern has a time of day.
fn has_time(pattern: &str) -> bool {
    jiff::civil::date(2024, 3, 4)
        .at(14, 30, 15, 0)
        .in_tz("UTC")
        .ok()
        .and_then(|sample| jiff::fmt::strtime::format(pattern, &sample).ok())
        .and_then(|text| jiff::fmt::strtime::parse(pattern, text).ok())
        // Without a time of day, it is midnight.
        .is_some_and(|read| read.to_time().is_ok_and(|time| time != jiff::civil::Time::midnight()))
}

fn by_pattern(pattern: &str, has_time: bool, text: &str) -> Option<Stamp> {
    match BrokenDownTime::parse(pattern, text) {
        Ok(read) => of_parts(&read, has_time),
        Err(_) if has_time => end_of_day(pattern, text),
        Err(_) => None,
    }
}

/// The time of the parts that a pattern has found.
fn of_parts(read: &BrokenDownTime, has_time: bool) -> Option<Stamp> {
    if let Ok(instant) = read.to_timestamp() {
        return instant.as_nanosecond().div_euclid(1_000).try_into().ok().map(Stamp::Instant);
    }
    let has_day = || read.day().is_some() || read.day_of_year().is_some() || read.weekday().is_some();
    let date = match read.to_date() {
        Ok(date) => date,
        // A month, or a year, in a table of them.
        Err(_) if !has_time && !has_day() => Date::new(read.year()?, read.month().unwrap_or(1), 1).ok()?,
        Err(_) => return None,
    };
    let local = if has_time { date.to_datetime(read.to_time().ok()?) } else { date.at(0, 0, 0, 0) };
    let us = TimeZone::UTC.to_timestamp(local).ok()?.as_nanosecond().div_euclid(1_000);
    let us = i64::try_from(us).ok()?;
    Some(if has_time { Stamp::Local(us) } else { Stamp::Date(us) })
}

/// A time that says `24:00` for the midnight at the end of a day, which the pattern's own reader does not know.
#[cold]
fn end_of_day(pattern: &str, text: &str) -> Option<Stamp> {
    const HOUR_US: i64 = 3_600 * SECOND_US;
    text.match_indices("24").find_map(|(at, _)| {
        let with = |hour: &str| {
            let text = format!("{}{hour}{}", text.get(..at)?, text.get(at + 2..)?);
            BrokenDownTime::parse(pattern, &text).ok()
        };
        // The 24 is the hour exactly if the time changes with it as it does with the hour.
        let (first, last) = (with("00")?, with("23")?);
        let is_midnight =
            [first.minute(), first.second()].iter().all(|part| part.unwrap_or(0) == 0) && first.subsec_nanosecond().unwrap_or(0) == 0;
        let (start, late) = (of_parts(&first, true)?, of_parts(&last, true)?);
        match (start, late) {
            (Stamp::Local(start), Stamp::Local(late)) if is_midnight && late - start == 23 * HOUR_US => {
                Some(Stamp::Local(start + 24 * HOUR_US))
            }
            (Stamp::Instant(start), Stamp::Instant(late)) if is_midnight && late - start == 23 * HOUR_US => {
                Some(Stamp::Instant(start + 24 * HOUR_US))
            }
            _ => None,
        }
    })
}

/// Reads the times of one file.
pub(super) struct Times<'a> {
    table: &'a Table,
    clock: Option<LocalClock>,
    /// The zone in which a date begins, and the last date whose start was looked up, with its instant.
    date_zone: Zone,
    date: (i64, i64),
    /// Whether the pattern has a time of day.
    has_time: bool,
    /// The pattern, if each of its parts has its place.
    fixed: Option<Fixed>,
    /// The last date of a time in ISO 8601, and its start.
    last_date: ([u8; 10], i64),
    /// Whether a date alone is a time.
    dates: bool,
    /// The rows at times that the clock shows twice, and whether each is at the later one; for `repeated: file-order`.
    folds: Folds,
    /// The instant of all rows, if the path holds it.
    in_path: Option<i64>,
}

impl<'a> Times<'a> {
    pub(super) fn new(table: &'a Table, file: &DataFile, folds: Folds) -> Self {
        let zone = table.reading.zone.clone();
        let (has_time, fixed) = match &table.reading.form {
            TimeForm::Pattern(pattern) => (has_time(pattern), Fixed::of(pattern)),
            _ => (true, None),
        };
        Self {
            table,
            clock: zone.map(LocalClock::new),
            date_zone: table.date_zone(),
            date: (0, if table.date_zone().is_utc() { 0 } else { i64::MIN }),
            has_time,
            fixed,
            last_date: ([0; 10], 0),
            dates: table.cadence.is_none_or(Cadence::is_days),
            folds,
            in_path: file.time_us,
        }
    }

    pub(super) fn into_folds(self) -> Folds {
        self.folds
    }

    /// The instant of all rows, if the path holds it.
    pub(super) fn in_path(&self) -> Option<i64> {
        self.in_path
    }

    /// The instants of a batch's rows. `keys` are asked for only where the order of rows within a series matters.
    pub(super) fn instants(
        &mut self,
        first_row: u64,
        columns: &[ArrayRef],
        keys: &dyn Fn(usize) -> String,
        reject: Reject<'_>,
    ) -> Result<TimestampMicrosecondArray> {
        let mut times = vec![0; columns.first().map_or(0, |column| column.len())];
        match columns {
            [one] => match one.data_type() {
                DataType::Timestamp(_, zone) => {
                    self.refuse_form(one.data_type())?;
                    let is_local = zone.is_none() && self.clock.is_some();
                    let stamps = to_microseconds(one)?;
                    if !is_local && stamps.null_count() == 0 {
                        return Ok(stamps.with_timezone("UTC"));
                    }
                    for (row, time) in times.iter_mut().enumerate() {
                        if stamps.is_null(row) {
                            reject(row, self.nothing())?;
                        } else if is_local {
                            *time = self.resolve(first_row, row, Stamp::Local(stamps.value(row)), keys, reject)?;
                        } else {
                            *time = stamps.value(row);
                        }
                    }
                }
                DataType::Date32 => {
                    self.refuse_form(one.data_type())?;
                    let stamps = to_microseconds(one)?;
                    for (row, time) in times.iter_mut().enumerate() {
                        if stamps.is_null(row) {
                            reject(row, self.nothing())?;
                        } else {
                            *time = self.resolve(first_row, row, Stamp::Date(stamps.value(row)), keys, reject)?;
                        }
                    }
                }
                kind if kind.is_integer() && self.is_epoch() => {
                    let numbers = shape::cast_strict(one, &DataType::Int64)?;
                    let numbers = numbers.as_primitive::<Int64Type>();
                    for (row, time) in times.iter_mut().enumerate() {
                        if numbers.is_null(row) {
                            reject(row, self.nothing())?;
                            continue;
                        }
                        match self.epoch(i128::from(numbers.value(row)), "") {
                            Ok(us) => *time = us,
                            Err(why) => reject(row, why)?,
                        }
                    }
                }
                kind if kind.is_floating() && self.is_epoch() => {
                    let numbers = shape::cast_strict(one, &DataType::Float64)?;
                    let numbers = numbers.as_primitive::<Float64Type>();
                    for (row, time) in times.iter_mut().enumerate() {
                        if numbers.is_null(row) || !numbers.value(row).is_finite() {
                            reject(row, self.nothing())?;
                            continue;
                        }
                        // Printed, a float is the shortest text that is the same float: no digit is made up.
                        match self.epoch_text(&numbers.value(row).to_string()) {
                            Ok(us) => *time = us,
                            Err(why) => reject(row, why)?,
                        }
                    }
                }
                _ => self.texts(first_row, &as_text(one)?, keys, reject, &mut times)?,
            },
            many => {
                let texts: Vec<StringArray> = many.iter().map(as_text).collect::<Result<_>>()?;
                let joined: StringArray = (0..times.len())
                    .map(|row| {
                        let parts: Option<Vec<&str>> = texts.iter().map(|text| text.is_valid(row).then(|| text.value(row))).collect();
                        parts.map(|parts| parts.join(" "))
                    })
                    .collect();
                self.texts(first_row, &joined, keys, reject, &mut times)?;
            }
        }
        Ok(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
    }

    fn texts(
        &mut self,
        first_row: u64,
        texts: &StringArray,
        keys: &dyn Fn(usize) -> String,
        reject: Reject<'_>,
        times: &mut [i64],
    ) -> Result<()> {
        for (row, time) in times.iter_mut().enumerate() {
            if texts.is_null(row) {
                reject(row, self.nothing())?;
                continue;
            }
            let stamp = match &self.table.reading.form {
                TimeForm::Epoch(_) => {
                    self.epoch_digits(texts.value(row)).map_or_else(|| self.epoch_text(texts.value(row)), Ok).map(Stamp::Instant)
                }
                TimeForm::Pattern(pattern) => self.by_pattern(pattern, texts.value(row)),
                _ => self.iso(texts.value(row)),
            };
            match stamp {
                Ok(stamp) => *time = self.resolve(first_row, row, stamp, keys, reject)?,
                Err(why) => reject(row, why)?,
            }
        }
        Ok(())
    }

    /// The first instant of a date.
    fn start_of_date(&mut self, date_us: i64) -> Result<i64> {
        if self.date_zone.is_utc() {
            return Ok(date_us);
        }
        if self.date.0 != date_us || self.date.1 == i64::MIN {
            let days = date_us.div_euclid(i64::from(DAY_S) * SECOND_US);
            let far = || Error::invalid(format!("a date in time column `{}` is out of range", self.table.time));
            let days = i32::try_from(days).map_err(|_| far())?;
            let date = jiff::civil::date(1970, 1, 1).checked_add(days.days()).map_err(|_| far())?;
            self.date = (date_us, self.date_zone.start(date.at(0, 0, 0, 0))?.as_microsecond());
        }
        Ok(self.date.1)
    }

    /// The instant of a time, by the zone of the table.
    fn resolve(&mut self, first_row: u64, row: usize, stamp: Stamp, keys: &dyn Fn(usize) -> String, reject: Reject<'_>) -> Result<i64> {
        let local_us = match stamp {
            Stamp::Instant(us) => return Ok(us),
            Stamp::Date(us) => return self.start_of_date(us),
            Stamp::Local(us) => us,
        };
        let Some(clock) = &mut self.clock else { return Ok(local_us) };
        let instants = clock.instants(local_us);
        let reading = &self.table.reading;
        let number = first_row + row as u64;
        let in_order = reading.repeated == Repeated::FileOrder;
        if in_order && self.folds.is_collecting() {
            self.folds.collect(number, keys(row), local_us, instants);
            return Ok(local_us);
        }
        let why = match instants {
            Some(Instants::One(us)) => return Ok(us),
            Some(Instants::Two(earlier, later)) => match reading.repeated {
                Repeated::Earlier => return Ok(earlier),
                Repeated::Later => return Ok(later),
                Repeated::FileOrder => match self.folds.is_later(number) {
                    Some(true) => return Ok(later),
                    Some(false) => return Ok(earlier),
                    None => format!(
                        "the clock in {} shows {} twice, and the order of the rows does not say which of the two this is; write `repeated: earlier` or `later` \
                         under `time`, or put the rows of each series in the order of time",
                        self.zone(),
                        shown(local_us)
                    ),
                },
                _ => format!(
                    "the clock in {} shows {} twice; say which is meant with `repeated: earlier`, `later` or `file-order` under `time`",
                    self.zone(),
                    shown(local_us)
                ),
            },
            Some(Instants::None(us)) if reading.skipped == Skipped::Shift => return Ok(us),
            Some(Instants::None(_)) => format!(
                "the clock in {} never shows {}; correct the line, or say `skipped: shift` under `time`, which takes it for an hour later",
                self.zone(),
                shown(local_us)
            ),
            None => format!("{} in time column `{}` is outside the range of instants", shown(local_us), self.table.time),
        };
        reject(row, why)?;
        Ok(0)
    }

    fn zone(&self) -> &str {
        self.table.reading.zone.as_ref().map_or("UTC", Zone::name)
    }

    fn is_epoch(&self) -> bool {
        matches!(self.table.reading.form, TimeForm::Epoch(_))
    }

    /// Refuses a form of text or numbers for a column of timestamps.
    fn refuse_form(&self, kind: &DataType) -> Result<()> {
        let form = match &self.table.reading.form {
            TimeForm::Pattern(_) => "format",
            TimeForm::Epoch(_) => "epoch",
            _ => return Ok(()),
        };
        Err(Error::invalid(format!(
            "time column `{}` of table `{}` is {kind} already; remove `{form}` under `time`",
            self.table.time, self.table.name
        )))
    }

    fn nothing(&self) -> String {
        format!(
            "there is no value in time column `{}`, so the row belongs to no slot; remove the row, or add the value",
            self.table.time_columns().join("`, `")
        )
    }

    #[inline]
    fn iso(&mut self, text: &str) -> std::result::Result<Stamp, String> {
        match self.usual_iso(text.as_bytes()) {
            Some(Stamp::Local(_)) if self.clock.is_none() => self.any_iso(text),
            Some(stamp) => Ok(stamp),
            None => self.any_iso(text),
        }
    }

    /// A time as most are written, to the minute or second, with `Z` or without a zone; `None` if it is another, or none.
    #[inline]
    fn usual_iso(&mut self, text: &[u8]) -> Option<Stamp> {
        let (time, is_instant) = match text {
            [time @ .., b'Z'] => (time, true),
            time => (time, false),
        };
        let (second, length) = if time.len() == 19 { (two(time, 17)?, 19) } else { (0, 16) };
        let (date_text, rest) = time.split_first_chunk::<10>()?;
        let [b'T' | b't' | b' ', _, _, b':', _, _, ..] = rest else { return None };
        if time.len() != length || (length == 19 && time[16] != b':') {
            return None;
        }
        let (hour, minute) = (two(rest, 1)?, two(rest, 4)?);
        if !is_time_of_day(hour, minute, second) {
            return None;
        }
        if self.last_date.0 != *date_text {
            self.last_date = (*date_text, date(date_text)?);
        }
        let us = self.last_date.1 + (hour * 3_600 + minute * 60 + second) * SECOND_US;
        Some(if is_instant { Stamp::Instant(us) } else { Stamp::Local(us) })
    }

    fn any_iso(&self, text: &str) -> std::result::Result<Stamp, String> {
        let column = &self.table.time;
        let stamp = iso(text.as_bytes());
        match stamp {
            Some(Stamp::Local(us)) if self.clock.is_some() => return Ok(Stamp::Local(us)),
            Some(Stamp::Local(_)) => {
                return Err(format!(
                    "`{}` in time column `{column}` is not an instant with a time zone; if its times are in one zone, say so, e.g. `time: {{ column: \
                     {column}, zone: Europe/Berlin }}` (or `zone: UTC`)",
                    shortened(text)
                ));
            }
            Some(instant) => return Ok(instant),
            None => {}
        }
        if let Some(us) = date(text.as_bytes()) {
            if self.dates || self.table.reading.columns.len() == 1 {
                return Ok(Stamp::Date(us));
            }
            return Err(format!(
                "`{text}` in time column `{column}` is a date without a time of day, in a table with a row every {}; write it like \
                 2024-03-04T14:30:00Z, or name the column of the time of day too: `time: {{ columns: [{column}, …], zone: … }}`",
                self.table.cadence.map(|cadence| cadence.to_string()).unwrap_or_default()
            ));
        }
        if let Some((months, us)) = part_of_date(text.as_bytes()) {
            if self.table.cadence.and_then(Cadence::months).is_some_and(|slot| slot.is_multiple_of(months)) {
                return Ok(Stamp::Date(us));
            }
            let (what, cadence) = match months {
                12 => ("year", "1y"),
                3 => ("quarter", "3mo"),
                _ => ("month", "1mo"),
            };
            let rows = self.table.cadence.map(|cadence| format!(", in a table with a row every {cadence}")).unwrap_or_default();
            return Err(format!(
                "`{text}` in time column `{column}` looks like a {what}{rows}; write the whole date, like 2024-03-04, or say `cadence: {cadence}` if \
                 there is a row for each"
            ));
        }
        if let [year @ .., b'W' | b'w', _, _] = text.as_bytes()
            && matches!(year.len(), 4 | 5)
        {
            return Err(format!(
                "`{}` in time column `{column}` looks like a week; write the date on which it begins, like 2024-03-04",
                shortened(text)
            ));
        }
        let number = text.parse::<i128>().ok().filter(|number| *number > 99_999_999).and_then(EpochUnit::of_size);
        Err(match number {
            Some(unit) => format!(
                "`{}` in time column `{column}` is not an instant with a time zone, and looks like {unit} since 1970; say so: `time: {{ column: \
                 {column}, epoch: {unit} }}`",
                shortened(text)
            ),
            None => format!(
                "`{}` in time column `{column}` is not an instant with a time zone; write it like 2024-03-04T14:30:00Z, or say how it is written, \
                 e.g. `time: {{ column: {column}, format: \"%d.%m.%Y %H:%M\", zone: Europe/Berlin }}`",
                shortened(text)
            ),
        })
    }

    fn by_pattern(&mut self, pattern: &str, text: &str) -> std::result::Result<Stamp, String> {
        let fixed = self.fixed.as_mut().and_then(|fixed| fixed.read(text.as_bytes()));
        if let Some(stamp) = fixed.filter(|stamp| self.clock.is_some() || (self.dates && matches!(stamp, Stamp::Date(_)))) {
            return Ok(stamp);
        }
        let column = self.table.time_columns().join("`, `");
        let bad = || {
            format!("`{}` in time column `{column}` is not a time of the form `{pattern}`; correct the line, or the form", shortened(text))
        };
        match (by_pattern(pattern, self.has_time, text).ok_or_else(bad)?, &self.clock) {
            (Stamp::Instant(us), _) => Ok(Stamp::Instant(us)),
            (Stamp::Date(us), clock) if self.dates || clock.is_some() => Ok(Stamp::Date(us)),
            (Stamp::Local(us), Some(_)) => Ok(Stamp::Local(us)),
            _ => Err(format!(
                "`{}` in time column `{column}` has no time zone; add the zone of its clock, e.g. `zone: Europe/Berlin` or `zone: UTC`, under `time`",
                shortened(text)
            )),
        }
    }

    /// The instant of a whole number that is not large; `None` if the text is something else.
    #[inline]
    fn epoch_digits(&self, text: &str) -> Option<i64> {
        if text.is_empty() || text.len() > 18 {
            return None;
        }
        let mut number = 0i64;
        for byte in text.bytes() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + i64::from(digit);
        }
        let unit = self.units().iter().find(|unit| i128::from(number) < unit.limit())?;
        if self.confused(i128::from(number)).is_some() {
            return None;
        }
        match unit.per_second() {
            fine if fine > SECOND_US => Some(number / (fine / SECOND_US)),
            coarse => number.checked_mul(SECOND_US / coarse),
        }
    }

    fn epoch_text(&self, text: &str) -> std::result::Result<i64, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = whole.strip_prefix('-').unwrap_or(whole);
        match whole.parse::<i128>() {
            Ok(number) if digits(unsigned) && digits(fraction) => {
                let negative = whole.starts_with('-') && !fraction.bytes().all(|byte| byte == b'0');
                self.epoch(number, if negative { "" } else { fraction })
            }
            _ => Err(format!(
                "`{}` in time column `{}` is not a number of {} since 1970; correct the line",
                shortened(text),
                self.table.time_columns().join("`, `"),
                self.units().iter().map(|unit| unit.as_str()).collect::<Vec<_>>().join(" or ")
            )),
        }
    }

    fn units(&self) -> &[EpochUnit] {
        match &self.table.reading.form {
            TimeForm::Epoch(units) => units,
            _ => &[],
        }
    }

    /// The longer unit in which a number seems to be, in a table with one unit.
    #[inline]
    fn confused(&self, number: i128) -> Option<EpochUnit> {
        let [only] = self.units() else { return None };
        only.confused().find(|(_, range)| i64::try_from(number).is_ok_and(|number| range.contains(&number))).map(|(unit, _)| unit)
    }

    /// The instant of a number since 1970, with the digits after its mark. Finer than a microsecond is cut.
    fn epoch(&self, number: i128, fraction: &str) -> std::result::Result<i64, String> {
        let Some(unit) = self.units().iter().find(|unit| number.abs() < unit.limit()) else {
            let listed: Vec<&str> = self.units().iter().map(|unit| unit.as_str()).collect();
            let looks = match EpochUnit::of_size(number) {
                Some(unit) => format!("it looks like {unit}: write `epoch: [{}, {unit}]` if both occur", listed.join(", ")),
                None => "it is too far from 1970; correct the line".to_owned(),
            };
            return Err(format!(
                "`{number}` in time column `{}` is too large for {} since 1970; {looks}",
                self.table.time,
                listed.join(" or ")
            ));
        };
        if let Some(other) = self.confused(number) {
            return Err(format!(
                "`{number}` in time column `{}` would be in the first weeks of 1970 as {unit}; it looks like {other}: write `epoch: [{other}, {unit}]` if both \
                 occur, or `epoch: {other}`",
                self.table.time
            ));
        }
        let per_second = i128::from(unit.per_second());
        let second_us = i128::from(SECOND_US);
        let mut us = (number * second_us).div_euclid(per_second);
        if per_second < second_us {
            // Microseconds in one of the unit, and as many digits.
            let places = usize::try_from((second_us / per_second).ilog10()).unwrap_or(0);
            let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(places).collect();
            us += digits.parse::<i128>().unwrap_or(0);
        }
        i64::try_from(us).map_err(|_| format!("`{number}` in time column `{}` is too far from 1970", self.table.time))
    }
}

fn to_microseconds(array: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    use arrow::datatypes::{Date32Type, TimeUnit, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType};
    let too_far = |_: ()| arrow::error::ArrowError::ComputeError("a time is too far from 1970 for microseconds".to_owned());
    let scale = |value: i64, factor: i64| value.checked_mul(factor).ok_or(()).map_err(too_far);
    Ok(match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            array.as_primitive::<TimestampSecondType>().try_unary::<_, TimestampMicrosecondType, _>(|value| scale(value, SECOND_US))?
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().try_unary::<_, TimestampMicrosecondType, _>(|value| scale(value, 1_000))?
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().clone(),
        // Arrow's cast would round towards 1970.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().unary::<_, TimestampMicrosecondType>(|value| value.div_euclid(1_000))
        }
        _ => array.as_primitive::<Date32Type>().unary::<_, TimestampMicrosecondType>(|days| i64::from(days) * 86_400 * SECOND_US),
    })
}

fn as_text(array: &ArrayRef) -> Result<StringArray> {
    let text = match array.data_type() {
        DataType::Utf8 => array.clone(),
        _ => cast(array, &DataType::Utf8)?,
    };
    Ok(text.as_string::<i32>().clone())
}

/// A local time as people write it.
fn shown(local_us: i64) -> String {
    jiff::Timestamp::from_microsecond(local_us)
        .map(|time| TimeZone::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_else(|_| format!("{local_us} µs"))
}

/// A time as ISO 8601 writes it, with or without seconds and zone: `2024-03-04T14:30:00.5+01:00`, `2024-03-04 14:30`. Digits finer than a
/// microsecond are cut. `None` if it is not one. Written by hand, because more lenient parsers would silently shift a user's data.
fn iso(text: &[u8]) -> Option<Stamp> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0i64, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, allowed: &[u8]| text.get(at).is_some_and(|byte| allowed.contains(byte));
    if !(is(10, b"Tt ") && is(13, b":")) {
        return None;
    }
    let day_us = date(text.get(..10)?)?;
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    let mut at = 16;
    let mut second = 0;
    let (mut micros, mut has_fraction) = (0, false);
    if is(at, b":") {
        second = number(17, 19)?;
        at = 19;
        if is(at, b".,") {
            let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for place in 0..6 {
                let digit = if place < digits { i64::from(text[at + 1 + place] - b'0') } else { 0 };
                micros = micros * 10 + digit;
            }
            has_fraction = text[at + 1..=at + digits].iter().any(|digit| *digit != b'0');
            at += 1 + digits;
        }
    }
    // A leap second has no instant of its own in Unix time.
    if !is_time_of_day(hour, minute, second) || (hour == 24 && has_fraction) {
        return None;
    }
    let local_us = day_us + (hour * 3_600 + minute * 60 + second) * SECOND_US + micros;
    let offset_s = match text.get(at..)? {
        [] => return Some(Stamp::Local(local_us)),
        b"Z" | b"z" | b" UTC" | b" Z" => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, minutes) = match rest.len() {
                2 => (number(at + 1, at + 3)?, 0),
                4 => (number(at + 1, at + 3)?, number(at + 3, at + 5)?),
                5 if rest[2] == b':' => (number(at + 1, at + 3)?, number(at + 4, at + 6)?),
                _ => return None,
            };
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3_600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(Stamp::Instant(local_us - offset_s * SECOND_US))
}

/// Whether these are parts of a time of day. At 24:00 a day ends, and the next one begins.
#[inline]
pub(super) fn is_time_of_day(hour: i64, minute: i64, second: i64) -> bool {
    (hour <= 23 && minute <= 59 && second <= 59) || (hour == 24 && minute == 0 && second == 0)
}

/// The months of a year (`2024`), a quarter (`2024-Q1`) or a month (`2024-03`), and its start in microseconds.
fn part_of_date(text: &[u8]) -> Option<(u32, i64)> {
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (months, first) = match text.get(4..)? {
        [] => (12, 1),
        [b'-', month @ ..] if month.len() == 2 && month[0].is_ascii_digit() => (1, two(month, 0)?),
        [b'-', b'Q' | b'q', quarter @ b'1'..=b'4'] | [b'Q' | b'q', quarter @ b'1'..=b'4'] => (3, i64::from(quarter - b'1') * 3 + 1),
        _ => return None,
    };
    day_of(year, first, 1).map(|day| (months, day * i64::from(DAY_S) * SECOND_US))
}

/// The start of a day, in microseconds; `None` if the text is not a date.
fn date(text: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0i64, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
    };
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    day_of(number(0, 4)?, number(5, 7)?, number(8, 10)?).map(|day| day * i64::from(DAY_S) * SECOND_US)
}

/// Days from 1970-01-01 to a date; `None` if there is no such date.
pub(super) fn day_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days_of_month).contains(&day).then(|| days_since_epoch(year, month, day))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, by Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn instant(text: &str) -> Option<i64> {
        match iso(text.as_bytes()) {
            Some(Stamp::Instant(us)) => Some(us),
            _ => None,
        }
    }

    #[test]
    fn times_are_iso_8601_and_nothing_else() {
        for good in [
            "2018-04-04T00:00:00Z",
            "2018-04-04t00:00:00.5z",
            "2018-04-04 00:00:00+02:00",
            "0000-02-29T23:59:59.1234567-23:59",
            "2018-04-04T24:00:00.000Z",
            "2018-04-04T00:00Z",
            "2018-04-04 00:00:00+00",
            "2018-04-04T00:00:00+0200",
            "2018-04-04 00:00:00.000 UTC",
        ] {
            assert!(instant(good).is_some(), "{good}");
        }
        for local in ["2018-04-04T00:00:00", "2018-04-04 00:00", "2018-04-04T23:59:59.5"] {
            assert!(matches!(iso(local.as_bytes()), Some(Stamp::Local(_))), "{local}");
        }
        for bad in [
            "2018-04-04",
            "2018-02-29T00:00:00Z",
            "2018-04-04T24:00:01Z",
            "2018-04-04T24:01Z",
            "2018-04-04T24:00:00.0000001Z",
            "2018-04-04T25:00:00Z",
            "2018-04-04T00:00:60Z",
            "2018-04-04T00:00:00.Z",
            "2018-04-04T00:00:00+02:0",
            "2018-04-04T00:00:00Zx",
            "2018-04-04T0:00:00Z",
            "1522800000",
            "",
            "éééééééééééééé",
        ] {
            assert_eq!(iso(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_date_is_the_beginning_of_its_day() {
        assert_eq!(date(b"2018-04-04"), instant("2018-04-04T00:00:00Z"));
        for bad in ["2018-4-04", "2018-04-31", "2018-04-04T", "20180404", ""] {
            assert_eq!(date(bad.as_bytes()), None, "{bad}");
        }
    }

    fn table(form: TimeForm, zone: Option<&str>) -> Table {
        let mut table = Table::new("t", repair_core::model::Format::Csv, "ts");
        table.reading.form = form;
        table.reading.zone = zone.map(|zone| zone.parse().unwrap());
        table
    }

    fn of<'a>(table: &'a Table) -> Times<'a> {
        let file = DataFile {
            path: "f".into(),
            bytes: 0,
            compression: crate::files::Compression::None,
            has_ending: true,
            folders: Arc::default(),
            values: Arc::default(),
            span: None,
            reach: None,
            time_us: None,
            is_ours: false,
            stamp: crate::stamp::Stamp::default(),
            listed: std::time::SystemTime::UNIX_EPOCH,
            held: None,
        };
        Times::new(table, &file, Folds::default())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn usual_times_are_read_as_others(
            texts in proptest::collection::vec("(0000|1999|2024|9999)-(02-29|0[0-9]-3[01]|12-1[0-9])[Tt _]([01][0-9]|2[34]):[0-6][05](:[0-6][05]|:5)?(Z|z|\\.5Z|[+]01:00| )?", 1..4),
        ) {
            let local = table(TimeForm::Iso, Some("UTC"));
            let mut times = of(&local);
            for text in texts {
                let expected = iso(text.as_bytes());
                let usual = times.usual_iso(text.as_bytes());
                prop_assert!(usual.is_none() || usual == expected, "{}: {:?}, {:?}", text, usual, expected);
                prop_assert_eq!(times.iso(&text).ok(), expected, "{}", text);
            }
        }

        #[test]
        fn parts_in_their_places_are_what_the_pattern_says(
            pattern in prop::sample::select(vec![
                "%Y-%m-%d %H:%M:%S", "%F %T", "%d.%m.%Y %H:%M", "%Y%m%d%H%M%S", "%Y%m%d", "%H h %M on %d/%m/%Y", "%Y%j", "%m/%d/%Y %I:%M %p", "%Y%m%d %H",
                "%M:%S %F", "%F%%%R", "%FT%T%z",
            ]),
            at in -62_000_000_000i64..253_000_000_000,
            change in proptest::option::of((0usize..20, prop::sample::select(vec!["0", "1", "3", "9", " ", "x", "-", ""]))),
        ) {
            let time = TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(at).unwrap()).in_tz("UTC").unwrap();
            let mut text = jiff::fmt::strtime::format(pattern, &time).unwrap();
            if let Some((at, other)) = change && at < text.len() {
                text.replace_range(at..=at, other);
            }
            let expected = by_pattern(pattern, has_time(pattern), &text);
            if let Some(read) = Fixed::of(pattern).and_then(|mut fixed| fixed.read(text.as_bytes())) {
                prop_assert_eq!(Some(read), expected, "{}", text);
            }
            let zoned = table(TimeForm::Pattern(pattern.to_owned()), Some("UTC"));
            prop_assert_eq!(of(&zoned).by_pattern(pattern, &text).ok(), expected, "{}", text);
        }

        #[test]
        fn digits_are_the_number_that_they_are(number in any::<i64>(), length in 1usize..20) {
            use EpochUnit::{Ms, Ns, S, Us};
            let text: String = number.to_string().chars().take(length).collect();
            for units in [vec![S], vec![Ms], vec![Us], vec![Ns], vec![S, Ms, Ns]] {
                let table = table(TimeForm::Epoch(units), None);
                let times = of(&table);
                if let Some(us) = times.epoch_digits(&text) {
                    prop_assert_eq!(times.epoch_text(&text), Ok(us));
                }
            }
        }

        #[test]
        fn instants_agree_with_jiff(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let text = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(instant(&text), Some(micros));
        }
    }
}
