//! How the time of a table's own rows is read, and whether its rows are judged one by one.

use repair_core::lake::Layer;
use repair_core::model::{Cadence, DateParts, OnBadRow, PartitionUnit, PathPattern, TimeForm, Zone};
use repair_core::{Error, Result};

use super::folders::Folders;
use super::regex::{self, Group};
use super::time::{self, Doubt, Written};
use super::{Source, milliseconds, values};
use crate::catalog::Kind;

/// How the time of a table's own rows is read.
#[derive(Debug, Clone)]
pub(super) enum Timing {
    /// A column that is an instant, or a date in UTC.
    Plain,
    /// Milliseconds on a clock, or since 1970 if there is none.
    Wall { wall: String, clock: Option<Zone>, doubt: Doubt },
    /// A whole number of milliseconds since 1970, once a column of the row is cut to it.
    Number { number: String, ms: String },
    /// A text with the groups of an expression.
    Text { text: String, pattern: String, groups: Vec<Group>, form: TextForm },
    /// The first instant of the row's folder.
    Folder,
}

/// What the groups of a text are.
#[derive(Debug, Clone)]
pub(super) enum TextForm {
    /// A date, perhaps a time of day, perhaps an offset from UTC. Without an offset, the zone decides; without a zone, a date alone is in
    /// `date_zone` if `dates`.
    Calendar { clock: Option<Zone>, doubt: Doubt, dates: bool, date_zone: Zone, written: Written },
    /// A number since 1970, with digits after its mark.
    Number { ms: String },
}

impl Source<'_> {
    /// How the time of the table's own rows is read.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read it like this.
    pub(super) fn timing(&self) -> Result<Timing> {
        let (table, raw) = (self.table, self.raw);
        let reading = &table.reading;
        // A zone that shows UTC still says that times carry none.
        let clock = reading.zone.clone();
        let date_zone = table.date_zone();
        let doubt = Doubt::Table(reading.repeated, reading.skipped);
        if let TimeForm::Path(path) = &reading.form {
            let (pattern, groups) = regex::of_path(path);
            let clock = clock.unwrap_or_default();
            let date_zone = clock.clone();
            // A day begins at its first instant; an hour is what the table says.
            let doubt = if path.unit() == Some(PartitionUnit::Hour) { doubt } else { Doubt::Start };
            let form = TextForm::Calendar { clock: Some(clock), doubt, dates: true, date_zone, written: Written::Path };
            return Ok(Timing::Text { text: raw.path().to_owned(), pattern, groups, form });
        }
        let columns = table.time_columns();
        let cells: Option<Vec<(&str, values::Cell)>> =
            columns.iter().map(|column| Some((*column, values::cell(table, raw, column)?))).collect();
        let Some(cells) = cells.filter(|_| !self.is_in_folders()) else {
            if self.is_in_folders() {
                return Ok(Timing::Folder);
            }
            let missing = columns.iter().find(|column| values::cell(table, raw, column).is_none()).copied().unwrap_or_default();
            return Err(Error::invalid(format!(
                "table `{}` has no time column `{missing}` in Athena; it has {}",
                table.name,
                crate::catalog::list(&raw.columns)
            )));
        };
        let words = |(column, cell): &(&str, values::Cell)| match cell.kind() {
            Kind::Text => values::words_removed(table, column, &cell.expression),
            _ => format!("CAST({} AS varchar)", cell.expression),
        };
        let refuse = |why: String| Err(Error::invalid(format!("time column `{}` of table `{}` {why}", columns.join("`, `"), table.name)));
        let only = match cells.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let kind = only.map(|(_, cell)| cell.kind());
        // A date alone is a time in tables of days, and where the column was named for it.
        let dates = table.cadence.is_none_or(Cadence::is_days);
        match (&reading.form, kind) {
            (TimeForm::Pattern(_) | TimeForm::Epoch(_), Some(Kind::Instant | Kind::Date)) => {
                refuse("is a timestamp or a date in Athena already; remove `format` or `epoch` under `time`".to_owned())
            }
            (TimeForm::Iso, Some(Kind::Instant)) if clock.as_ref().is_none_or(Zone::is_utc) => Ok(Timing::Plain),
            (TimeForm::Iso, Some(Kind::Date)) if !table.takes_dates() => refuse(format!(
                "holds dates without a time of day, and the table has a row every {}",
                table.cadence.map(|cadence| cadence.to_string()).unwrap_or_default()
            )),
            (TimeForm::Iso, Some(Kind::Date)) if date_zone.is_utc() => Ok(Timing::Plain),
            (TimeForm::Iso, Some(Kind::Instant)) => {
                let wall = only.map(|(_, cell)| milliseconds(&cell.expression)).unwrap_or_default();
                Ok(Timing::Wall { wall, clock, doubt })
            }
            (TimeForm::Iso, Some(Kind::Date)) => {
                let wall = only.map(|(_, cell)| milliseconds(&format!("CAST({} AS timestamp(3))", cell.expression))).unwrap_or_default();
                Ok(Timing::Wall { wall, clock: Some(date_zone), doubt: Doubt::Start })
            }
            (TimeForm::Epoch(units), Some(Kind::Whole)) => {
                let number = only.map(|(_, cell)| format!("CAST({} AS bigint)", cell.expression)).unwrap_or_default();
                Ok(Timing::Number { number, ms: time::of_epoch(units, "repair_number", None) })
            }
            (TimeForm::Epoch(units), Some(Kind::Text | Kind::Float | Kind::Decimal)) => {
                let text = only.map_or_else(String::new, |cell| match cell.1.kind() {
                    // Six digits are all that a float has behind the mark of seconds.
                    Kind::Float => format!("CAST(TRY_CAST({} AS decimal(38,6)) AS varchar)", cell.1.expression),
                    _ => words(cell),
                });
                let groups = vec![Group::Epoch, Group::Fraction];
                let ms = time::of_epoch(units, "TRY_CAST(repair_g1 AS bigint)", Some("repair_g2"));
                Ok(Timing::Text {
                    text,
                    pattern: "\\A(-?[0-9]{1,19})(?:\\.([0-9]*))?\\z".to_owned(),
                    groups,
                    form: TextForm::Number { ms },
                })
            }
            // Whole numbers may be years.
            (TimeForm::Iso, Some(kind @ (Kind::Whole | Kind::Float | Kind::Decimal)))
                if kind != Kind::Whole || table.date_parts() != DateParts::Year =>
            {
                refuse(format!(
                    "is `{}` in Athena, not a timestamp; if it counts from 1970, say in which unit, e.g. `time: {{ column: {}, epoch: ms }}`",
                    only.map(|(_, cell)| cell.declared.as_str()).unwrap_or_default(),
                    columns.first().unwrap_or(&"")
                ))
            }
            (form, _) if cells.iter().all(|(_, cell)| !matches!(cell.kind(), Kind::Other | Kind::Bool | Kind::Float)) => {
                let text = cells.iter().map(words).collect::<Vec<_>>().join(" || ' ' || ");
                let (pattern, groups, text, written) = match form {
                    TimeForm::Pattern(pattern) => {
                        let (expression, groups) = regex::of_strptime(pattern)?;
                        (expression, groups, text, Written::Pattern)
                    }
                    _ => {
                        let (expression, groups) = regex::iso();
                        let months = table.cadence.and_then(Cadence::months);
                        (
                            expression,
                            groups,
                            months.map_or_else(|| text.clone(), |months| time::with_whole_dates(text.clone(), months)),
                            Written::Iso,
                        )
                    }
                };
                let is_pattern = written == Written::Pattern;
                let has = |group: &Group| groups.contains(group);
                let has_hour = has(&Group::Hour) || has(&Group::Hour12);
                if is_pattern && clock.is_none() && !has(&Group::Offset) && !has(&Group::Epoch) && (has_hour || !dates) {
                    return refuse(
                        "has no time zone; add the zone of its clock, e.g. `zone: Europe/Berlin` or `zone: UTC`, under `time`".to_owned(),
                    );
                }
                let dates = if is_pattern { !has_hour } else { dates || reading.columns.len() == 1 };
                Ok(Timing::Text { text, pattern, groups, form: TextForm::Calendar { clock, doubt, dates, date_zone, written } })
            }
            _ => refuse(format!(
                "is `{}` in Athena, which cannot hold a time; declare it as `timestamp` or `string`, or make a view of the table, and name the view",
                cells.iter().map(|(_, cell)| cell.declared.as_str()).collect::<Vec<_>>().join("`, `")
            )),
        }
    }

    /// Whether the time column is one of the columns in the folders that carry the time.
    fn is_in_folders(&self) -> bool {
        let (table, raw) = (self.table, self.raw);
        if raw.partition_kind(&table.time).is_none() || !table.reading.columns.is_empty() {
            return false;
        }
        let same = |column: &str| column.eq_ignore_ascii_case(&table.time);
        match (&table.layout, table.partition_by.as_slice()) {
            (None, [by]) => same(&by.column),
            (Some(layout), _) => layout.path.parts().iter().any(|part| PathPattern::column_of(part).is_some_and(same)),
            _ => false,
        }
    }

    /// Whether rows are judged one by one. If not, every row has a time as it is, and no folder says another.
    ///
    /// # Errors
    /// `invalid` if Athena cannot read the table as it is declared.
    pub(crate) fn is_judged(&self, columns: &[&str]) -> Result<bool> {
        let mut judged = self.table.on_bad_row != OnBadRow::Refuse
            || !matches!(self.timing()?, Timing::Plain)
            || Folders::of(self.table, self.raw)?.is_some();
        for column in columns {
            judged |= values::value(self.table, self.raw, column)?.is_some_and(|value| value.bad.is_some());
        }
        Ok(judged)
    }

    /// Whether the rows of a layer are judged one by one, if some columns are asked for.
    ///
    /// # Errors
    /// As [`Source::is_judged`].
    pub(crate) fn is_judged_in(&self, layer: Layer, columns: &[&str]) -> Result<bool> {
        let read = self.read_for(layer, columns);
        self.is_judged(&read.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Checks that Athena can read the table as it is declared.
    ///
    /// # Errors
    /// `invalid` if it cannot.
    pub(crate) fn check(&self) -> Result<()> {
        let columns: Vec<&str> = self.table.columns.keys().map(String::as_str).collect();
        self.is_judged(&columns).map(|_| ())
    }
}
