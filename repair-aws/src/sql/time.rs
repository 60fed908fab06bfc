//! Times in SQL: from the groups of a regular expression to milliseconds, and from what a clock shows to an instant.
//!
//! Whatever a clock shows is counted like an instant, in milliseconds since it showed 1970-01-01 00:00. The changes of a zone are printed as
//! `CASE`, so that the engine's own zone data never matter.

use jiff::Timestamp;
use repair_core::model::{EpochUnit, Repeated, Skipped, Zone};

use super::regex::Group;

pub(crate) const DAY_MS: i64 = 86_400_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The years for which a zone is printed where nothing else bounds them: what is before had other rules, and what is after is not known.
const ZONE_FROM: &str = "1970-01-01T00:00:00Z";
const ZONE_TO: &str = "2070-01-01T00:00:00Z";

/// What a clock shows in a stretch of time.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// The instants in seconds from which an offset from UTC in seconds holds.
    changes: Vec<(i64, i32)>,
    /// The stretch in milliseconds outside of which nothing is known; `None` if what is outside does not matter.
    only: Option<(i64, i64)>,
}

/// What a time means that a clock shows twice, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// As the table says.
    Table(Repeated, Skipped),
    /// The first instant at which the clock shows it, or would have.
    Start,
}

impl Clock {
    /// The clock of a zone for times within bounds in microseconds, and for some days around them; of a hundred years if there are none.
    pub(crate) fn new(zone: &Zone, bounds_us: Option<(i64, i64)>) -> Self {
        let at = |us: i64| Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX });
        let (from, to, is_all) = match bounds_us {
            Some((from, to)) => (at(from), at(to), false),
            None => (ZONE_FROM.parse().unwrap_or(Timestamp::MIN), ZONE_TO.parse().unwrap_or(Timestamp::MAX), true),
        };
        let changes = zone.changes(from, to);
        // A zone that never changes is known at all times.
        let only = (is_all && changes.len() > 1).then(|| (from.as_millisecond(), to.as_millisecond()));
        Self { changes, only }
    }

    /// Whether the clock is never set.
    pub(crate) fn is_fixed(&self) -> bool {
        self.changes.len() <= 1
    }

    /// When it is set: the instants in seconds, and the offsets from UTC in seconds before and after each.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (i64, [i64; 2])> + '_ {
        self.changes.windows(2).filter_map(|pair| match pair {
            [(_, before), (at_s, after)] => Some((*at_s, [i64::from(*before), i64::from(*after)])),
            _ => None,
        })
    }

    fn is_utc(&self) -> bool {
        self.changes.iter().all(|(_, offset)| *offset == 0)
    }

    /// The instant of what the clock shows; null if there is none.
    pub(crate) fn instant(&self, local: &str, doubt: Doubt) -> String {
        let Some(((_, first), rest)) = self.changes.split_first() else { return local.to_owned() };
        let minus = |offset_ms: &str| if offset_ms == "0" { local.to_owned() } else { format!("{local} - ({offset_ms})") };
        let of = |offset_s: i32| minus(&(i64::from(offset_s) * 1_000).to_string());
        if rest.is_empty() {
            return of(*first);
        }
        // What is meant in a stretch that begins at `from` and is shown never, or twice.
        let gap = |from: &str, before: &str| match doubt {
            Doubt::Start => format!("{from} - ({before})"),
            Doubt::Table(_, Skipped::Shift) => minus(before),
            Doubt::Table(..) => "NULL".to_owned(),
        };
        let fold = |before: &str, after: &str| match doubt {
            Doubt::Start | Doubt::Table(Repeated::Earlier, _) => minus(before),
            Doubt::Table(Repeated::Later, _) => minus(after),
            Doubt::Table(..) => "NULL".to_owned(),
        };
        let mut cases: Vec<String> =
            self.only.iter().map(|(from, to)| format!("WHEN {local} < {from} OR {local} >= {to} THEN NULL")).collect();
        let mut offset = *first;
        let mut stretches = Vec::with_capacity(rest.len());
        for &(at_s, next) in rest {
            let (before, after) = (at_s + i64::from(offset), at_s + i64::from(next));
            stretches.push((before.min(after), before.max(after)));
            offset = next;
        }
        if let Some(table) = self.lookup(&stretches) {
            let Lookup { from, to, before, after } = &table.printed(local);
            cases.extend(table.outside(local, &of(*first), &of(offset)));
            cases.push(format!("WHEN {local} < {from} THEN {}", minus(before)));
            cases.push(format!("WHEN {local} >= {to} THEN {}", minus(after)));
            cases.push(format!("WHEN {after} > {before} THEN {}", gap(from, before)));
            return format!("CASE {} ELSE {} END", cases.join(" "), fold(before, after));
        }
        let mut offset = *first;
        for (&(_, next), (from, to)) in rest.iter().zip(stretches) {
            let (before, after) = (i64::from(offset) * 1_000, i64::from(next) * 1_000);
            cases.push(format!("WHEN {local} < {} THEN {}", from * 1_000, of(offset)));
            let doubtful = if next > offset {
                gap(&(from * 1_000).to_string(), &before.to_string())
            } else {
                fold(&before.to_string(), &after.to_string())
            };
            cases.push(format!("WHEN {local} < {} THEN {doubtful}", to * 1_000));
            offset = next;
        }
        format!("CASE {} ELSE {} END", cases.join(" "), of(offset))
    }

    /// What the clock shows at an instant.
    pub(crate) fn local(&self, instant: &str) -> String {
        if self.is_utc() {
            return instant.to_owned();
        }
        let Some(((_, first), rest)) = self.changes.split_first() else { return instant.to_owned() };
        let plus = |offset_ms: &str| format!("{instant} + ({offset_ms})");
        let of = |offset_s: i32| plus(&(i64::from(offset_s) * 1_000).to_string());
        if rest.is_empty() {
            return of(*first);
        }
        let last = rest.last().map_or(*first, |(_, offset)| *offset);
        let stretches: Vec<(i64, i64)> = rest.iter().map(|(at_s, _)| (*at_s, *at_s)).collect();
        if let Some(table) = self.lookup(&stretches) {
            let Lookup { from, before, after, .. } = &table.printed(instant);
            let mut cases = table.outside(instant, &of(*first), &of(last));
            cases.push(format!("WHEN {instant} < {from} THEN {}", plus(before)));
            return format!("CASE {} ELSE {} END", cases.join(" "), plus(after));
        }
        let mut cases = Vec::with_capacity(rest.len());
        let mut offset = *first;
        for &(at_s, next) in rest {
            cases.push(format!("WHEN {instant} < {} THEN {}", at_s * 1_000, of(offset)));
            offset = next;
        }
        format!("CASE {} ELSE {} END", cases.join(" "), of(offset))
    }

    /// The changes as a table to look up, if there are too many for one case each.
    fn lookup(&self, stretches: &[(i64, i64)]) -> Option<Table> {
        if stretches.len() <= MOST_CASES {
            return None;
        }
        let (start_s, end_s) = (stretches.first()?.0, stretches.last()?.1);
        let offsets: Vec<i32> = self.changes.iter().map(|(_, offset)| *offset).collect();
        // The longest stretch of days in which there is never more than one change.
        [91, 28, 7, 1].into_iter().find_map(|days| {
            let step_s = days * 86_400;
            let mut index = Vec::new();
            let mut at_s = start_s;
            while at_s < end_s {
                let next = stretches.iter().position(|(_, to)| *to > at_s)?;
                if stretches.get(next + 1).is_some_and(|(from, _)| *from < at_s + step_s) {
                    return None;
                }
                index.push(next);
                at_s += step_s;
            }
            Some(Table { start_s, end_s, step_s, index, stretches: stretches.to_vec(), offsets: offsets.clone() })
        })
    }
}

/// So many changes are written one by one. An engine needs long to read hundreds of cases.
const MOST_CASES: usize = 12;

/// The changes of a clock, and which of them matters in each stretch of days.
#[derive(Debug, Clone)]
struct Table {
    start_s: i64,
    end_s: i64,
    step_s: i64,
    index: Vec<usize>,
    /// From when to when a change is in doubt.
    stretches: Vec<(i64, i64)>,
    /// The offsets before the first change, and after each.
    offsets: Vec<i32>,
}

/// The expressions of one change, in milliseconds.
struct Lookup {
    from: String,
    to: String,
    before: String,
    after: String,
}

impl Table {
    fn printed(&self, time: &str) -> Lookup {
        let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(",");
        let index = list(&mut self.index.iter().map(|at| (at + 1).to_string()));
        let step = format!("greatest(({time} - ({})) / {} + 1, 1)", self.start_s * 1_000, self.step_s * 1_000);
        let at = format!("CAST(element_at(split('{index}', ','), {step}) AS bigint)");
        let of = |values: String| format!("CAST(element_at(split('{values}', ','), {at}) AS bigint) * 1000");
        let offsets = |offsets: &[i32]| list(&mut offsets.iter().map(ToString::to_string));
        Lookup {
            from: of(list(&mut self.stretches.iter().map(|(from, _)| from.to_string()))),
            to: of(list(&mut self.stretches.iter().map(|(_, to)| to.to_string()))),
            before: of(offsets(&self.offsets)),
            after: of(offsets(self.offsets.get(1..).unwrap_or_default())),
        }
    }

    /// The cases of times before the first change, and after the last.
    fn outside(&self, time: &str, first: &str, last: &str) -> Vec<String> {
        vec![format!("WHEN {time} < {} THEN {first}", self.start_s * 1_000), format!("WHEN {time} >= {} THEN {last}", self.end_s * 1_000)]
    }
}

/// Where the groups of a time are from, which decides what else than the parts of a time of day is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// A path.
    Path,
    /// As ISO 8601 writes times, where a day ends at 24:00.
    Iso,
    /// A pattern, for which a leap second is the second before it, too.
    Pattern,
}

/// The columns in which the groups of an expression are, by number.
pub(crate) struct Groups<'a> {
    pub(crate) groups: &'a [Group],
    /// The start of the columns' names.
    pub(crate) prefix: &'a str,
}

fn number(text: &str) -> String {
    format!("TRY_CAST({text} AS bigint)")
}

/// Days since 1970 of a date; null if it is none.
fn days(date: &str) -> String {
    format!("date_diff('day', DATE '1970-01-01', TRY_CAST({date} AS date))")
}

/// The number of a name, by its first three letters.
fn of_names(column: &str, names: [&str; 12], first: usize) -> String {
    let cases = names.iter().enumerate().filter(|(_, name)| !name.is_empty());
    let cases: Vec<String> = cases.map(|(at, name)| format!("WHEN '{name}' THEN {}", at + first)).collect();
    format!("CASE lower(substr({column}, 1, 3)) {} END", cases.join(" "))
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 12] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "", "", "", "", ""];

impl Groups<'_> {
    /// The column of a group.
    pub(crate) fn column(&self, group: &Group) -> Option<String> {
        let at = self.groups.iter().position(|known| known == group)?;
        Some(format!("{}{}", self.prefix, at + 1))
    }

    /// What the clock shows, in milliseconds; null if the groups are no time. Groups of the time of day may be null if they are optional.
    pub(crate) fn wall_ms(&self, written: Written) -> Option<String> {
        let padded = |column: String, length: u8| format!("lpad({column}, {length}, '0')");
        let year = match (self.column(&Group::Year), self.column(&Group::YearOfCentury)) {
            (Some(year), _) => padded(year, 4),
            (None, Some(year)) => {
                format!("CAST(CASE WHEN {n} <= 68 THEN 2000 + {n} ELSE 1900 + {n} END AS varchar)", n = number(&year))
            }
            (None, None) => return None,
        };
        let mut conditions = Vec::new();
        let day = if let Some(day) = self.column(&Group::DayOfYear) {
            let day = number(&day);
            conditions.push(format!("({day} BETWEEN 1 AND 365 OR ({day} = 366 AND TRY_CAST({year} || '-02-29' AS date) IS NOT NULL))"));
            format!("({} + {day} - 1)", days(&format!("{year} || '-01-01'")))
        } else {
            let month = match (self.column(&Group::Month), self.column(&Group::MonthName)) {
                (Some(month), _) => padded(month, 2),
                (None, Some(month)) => padded(format!("CAST({} AS varchar)", of_names(&month, MONTHS, 1)), 2),
                (None, None) => "'01'".to_owned(),
            };
            let day = self.column(&Group::Day).map_or_else(|| "'01'".to_owned(), |day| padded(day, 2));
            days(&format!("{year} || '-' || {month} || '-' || {day}"))
        };
        if let Some(weekday) = self.column(&Group::Weekday) {
            // 1970-01-01 was a Thursday.
            conditions.push(format!("({day} % 7 + 10) % 7 = {}", of_names(&weekday, DAYS, 0)));
        }
        let mut sum = vec![format!("{day} * {DAY_MS}")];
        let part = |group: &Group| self.column(group).map(|column| format!("coalesce({}, 0)", number(&column)));
        if let Some(hour) = part(&Group::Hour) {
            // At 24:00 a day ends.
            let rest = [&Group::Minute, &Group::Second].into_iter().filter_map(part).map(|part| format!("{part} = 0"));
            let fraction = self.column(&Group::Fraction).map(|digits| format!("regexp_like(coalesce({digits}, '0'), '\\A0*\\z')"));
            let midnight: Vec<String> = std::iter::once(format!("{hour} = 24")).chain(rest).chain(fraction).collect();
            conditions.push(match written {
                Written::Path => format!("{hour} <= 23"),
                Written::Iso | Written::Pattern => format!("({hour} <= 23 OR ({}))", midnight.join(" AND ")),
            });
            sum.push(format!("{hour} * {HOUR_MS}"));
        }
        if let (Some(hour), Some(half)) = (part(&Group::Hour12), self.column(&Group::Half)) {
            conditions.push(format!("{hour} BETWEEN 1 AND 12"));
            sum.push(format!("({hour} % 12 + CASE WHEN lower({half}) = 'pm' THEN 12 ELSE 0 END) * {HOUR_MS}"));
        }
        if let Some(minute) = part(&Group::Minute) {
            conditions.push(format!("{minute} <= 59"));
            sum.push(format!("{minute} * 60000"));
        }
        if let Some(second) = part(&Group::Second) {
            // A leap second has no instant of its own.
            let leap_second = written == Written::Pattern;
            conditions.push(format!("{second} <= {}", if leap_second { 60 } else { 59 }));
            sum.push(if leap_second { format!("least({second}, 59) * 1000") } else { format!("{second} * 1000") });
        }
        if let Some(fraction) = self.column(&Group::Fraction) {
            sum.push(fraction_ms(&fraction));
        }
        let sum = sum.join(" + ");
        Some(if conditions.is_empty() { sum } else { format!("CASE WHEN {} THEN {sum} END", conditions.join(" AND ")) })
    }

    /// The offset from UTC in milliseconds; null if it is none.
    pub(crate) fn offset_ms(&self) -> Option<String> {
        let offset = self.column(&Group::Offset)?;
        let digits = format!("replace(substr({offset}, 2), ':', '')");
        let (hours, minutes) =
            (number(&format!("substr({digits}, 1, 2)")), format!("coalesce({}, 0)", number(&format!("substr({digits}, 3, 2)"))));
        Some(format!(
            "CASE WHEN {hours} <= 23 AND {minutes} <= 59 THEN ({hours} * {HOUR_MS} + {minutes} * 60000) * CASE WHEN substr({offset}, 1, 1) = '-' THEN -1 \
             ELSE 1 END END"
        ))
    }
}

/// The milliseconds of digits behind the mark of the seconds, if there are any.
fn fraction_ms(digits: &str) -> String {
    format!("coalesce({}, 0)", number(&format!("rpad(substr({digits}, 1, 3), 3, '0')")))
}

/// A text in which a month, a quarter or a year is written as its first date, where they are as long as a slot of the table, or divide it.
pub(crate) fn with_whole_dates(text: String, slot_months: u32) -> String {
    let replace = |text: String, pattern: &str, by: &str| format!("regexp_replace({text}, '{pattern}', '{by}')");
    let mut text = replace(text, "\\A([0-9]{4}-[0-9]{2})\\z", "$1-01");
    if slot_months.is_multiple_of(3) {
        for (quarter, month) in [("1", "01"), ("2", "04"), ("3", "07"), ("4", "10")] {
            text = replace(text, &format!("\\A([0-9]{{4}})-?[Qq]{quarter}\\z"), &format!("$1-{month}-01"));
        }
    }
    if slot_months == 12 { replace(text, "\\A([0-9]{4})\\z", "$1-01-01") } else { text }
}

/// The instant of a whole number since 1970, in one of some units, by its size; null if it is too large for all of them.
pub(crate) fn of_epoch(units: &[EpochUnit], number: &str, fraction: Option<&str>) -> String {
    let cut = |divisor: i64| format!("({number} - ({number} % {divisor} + {divisor}) % {divisor}) / {divisor}");
    let mut cases = Vec::new();
    for unit in units {
        let value = match (unit, fraction) {
            (EpochUnit::S, Some(fraction)) => {
                format!("{number} * 1000 + CASE WHEN {number} < 0 THEN 0 ELSE {} END", fraction_ms(fraction))
            }
            (EpochUnit::S, None) => format!("{number} * 1000"),
            (EpochUnit::Ms, _) => number.to_owned(),
            (EpochUnit::Us, _) => cut(1_000),
            (EpochUnit::Ns, _) => cut(1_000_000),
        };
        // Numbers of a longer unit are no times.
        if units.len() == 1 {
            cases.extend(
                unit.confused().map(|(_, range)| format!("WHEN {number} >= {} AND {number} < {} THEN NULL", range.start, range.end)),
            );
        }
        cases.push(match i64::try_from(unit.limit()) {
            Ok(limit) => format!("WHEN {number} > -{limit} AND {number} < {limit} THEN {value}"),
            Err(_) => format!("WHEN {number} IS NOT NULL THEN {value}"),
        });
    }
    format!("CASE {} END", cases.join(" "))
}

/// A timestamp of milliseconds since 1970. It is put together from days and the rest, since both must be small.
pub(crate) fn timestamp(ms: &str) -> String {
    let rest = format!("({ms} % {DAY_MS} + {DAY_MS}) % {DAY_MS}");
    format!("date_add('millisecond', {rest}, date_add('day', ({ms} - {rest}) / {DAY_MS}, TIMESTAMP '1970-01-01 00:00:00.000'))")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    /// What a printed `CASE` gives, read by a reader for just that.
    fn evaluated(case: &str, value: i64) -> Option<i64> {
        let case = case.replace('x', &value.to_string());
        let plain = |text: &str| -> Option<i64> {
            let text = text.trim();
            if text == "NULL" {
                return None;
            }
            match text.split_once(" - (") {
                Some((number, offset)) => Some(number.parse::<i64>().unwrap() - offset.trim_end_matches(')').parse::<i64>().unwrap()),
                None => Some(text.parse().unwrap()),
            }
        };
        let Some(rest) = case.strip_prefix("CASE ") else { return plain(&case) };
        let (cases, otherwise) = rest.trim_end_matches(" END").split_once(" ELSE ").unwrap();
        for case in cases.split("WHEN ").filter(|case| !case.is_empty()) {
            let (condition, result) = case.split_once(" THEN ").unwrap();
            let (number, bound, less) = match condition.split_once(" < ") {
                Some((number, bound)) => (number, bound, true),
                None => condition.split_once(" >= ").map(|(number, bound)| (number, bound, false)).unwrap(),
            };
            if (number.parse::<i64>().unwrap() < bound.parse::<i64>().unwrap()) == less {
                return plain(result);
            }
        }
        plain(otherwise)
    }

    /// The change that a table finds for a time, and the offsets around it, as the printed expressions do.
    fn found(table: &Table, time_s: i64) -> (i64, i64, i32, i32) {
        let step = usize::try_from((time_s - table.start_s) / table.step_s).unwrap();
        let at = table.index[step];
        (table.stretches[at].0, table.stretches[at].1, table.offsets[at], table.offsets[at + 1])
    }

    #[test]
    fn a_printed_clock_agrees_with_its_zone() {
        use repair_core::model::Instants;
        for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca", "+05:30", "UTC"] {
            let zone: Zone = name.parse().unwrap();
            let clock = Clock::new(&zone, Some((at("2024-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z"))));
            let print = |repeated, skipped| clock.instant("x", Doubt::Table(repeated, skipped));
            let (refuse, earlier, later, start) = (
                print(Repeated::Refuse, Skipped::Refuse),
                print(Repeated::Earlier, Skipped::Shift),
                print(Repeated::Later, Skipped::Shift),
                clock.instant("x", Doubt::Start),
            );
            // Around each change, and at a few other times.
            let changes = clock.changes.iter().map(|(at_s, _)| at_s * 1_000);
            for local_ms in changes.flat_map(|at_ms| (-30..30).map(move |step| at_ms + step * 30 * 60_000)) {
                let local_ms = local_ms + 86_400_000 * i64::from(local_ms < at("2024-01-02T00:00:00Z") / 1_000) * 2;
                let local = jiff::tz::TimeZone::UTC.to_datetime(Timestamp::from_millisecond(local_ms).unwrap());
                let (first, second, strict) = match zone.instants(local).unwrap() {
                    Instants::One(us) => (us, us, Some(us / 1_000)),
                    Instants::Two(first, second) => (first, second, None),
                    Instants::None(us) => (us, us, None),
                };
                assert_eq!(evaluated(&refuse, local_ms), strict, "{name} {local}");
                assert_eq!(evaluated(&earlier, local_ms), Some(first / 1_000), "{name} {local}");
                assert_eq!(evaluated(&later, local_ms), Some(second / 1_000), "{name} {local}");
                assert_eq!(evaluated(&start, local_ms), Some(zone.start(local).unwrap().as_millisecond()), "{name} {local}");
            }
        }
    }

    #[test]
    fn a_hundred_years_of_a_clock_are_looked_up() {
        use repair_core::model::Instants;
        for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"] {
            let zone: Zone = name.parse().unwrap();
            let clock = Clock::new(&zone, None);
            let mut offset = clock.changes[0].1;
            let mut stretches = Vec::new();
            for &(at_s, next) in &clock.changes[1..] {
                stretches.push((at_s + i64::from(offset.min(next)), at_s + i64::from(offset.max(next))));
                offset = next;
            }
            let table = clock.lookup(&stretches).unwrap();
            for &(at_s, _) in &clock.changes[1..] {
                for local_s in (-30..30).map(|step| at_s + step * 1_800) {
                    if local_s < table.start_s || local_s >= table.end_s {
                        continue;
                    }
                    let (from, to, before, after) = found(&table, local_s);
                    let local = jiff::tz::TimeZone::UTC.to_datetime(Timestamp::from_second(local_s).unwrap());
                    let expected = match (local_s < from, local_s >= to, after > before) {
                        (true, ..) => Instants::One(local_s - i64::from(before)),
                        (_, true, _) => Instants::One(local_s - i64::from(after)),
                        (_, _, true) => Instants::None(local_s - i64::from(before)),
                        _ => Instants::Two(local_s - i64::from(before), local_s - i64::from(after)),
                    };
                    let seconds = match zone.instants(local).unwrap() {
                        Instants::One(us) => Instants::One(us / 1_000_000),
                        Instants::Two(first, second) => Instants::Two(first / 1_000_000, second / 1_000_000),
                        Instants::None(us) => Instants::None(us / 1_000_000),
                    };
                    assert_eq!(seconds, expected, "{name} {local}");
                }
            }
            let printed = clock.instant("x", Doubt::Start);
            assert!(printed.len() < 60_000, "{name}: {}", printed.len());
        }
    }

    #[test]
    fn numbers_since_1970_are_cut_to_milliseconds() {
        assert_eq!(
            of_epoch(&[EpochUnit::Ms, EpochUnit::Us], "n", None),
            "CASE WHEN n > -100000000000000 AND n < 100000000000000 THEN n WHEN n > -100000000000000000 AND n < 100000000000000000 THEN (n - (n % \
             1000 + 1000) % 1000) / 1000 END"
        );
        assert!(of_epoch(&[EpochUnit::Ns, EpochUnit::Ns], "n", None).starts_with("CASE WHEN n IS NOT NULL THEN (n - "));
        // One unit alone: what looks like a longer one is no time.
        let only = of_epoch(&[EpochUnit::Us], "n", None);
        assert!(
            only.starts_with(
                "CASE WHEN n >= 1000000000 AND n < 5000000000 THEN NULL WHEN n >= 1000000000000 AND n < 5000000000000 THEN NULL WHEN n > -100000000000000000 AND n"
            ),
            "{only}"
        );
    }
}
