//! Reads the calendars of a workflow, and the files of days that they name.

use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};

use super::{Fields, MAX_ENTRIES, Reader, did_you_mean, one_of, quoted};
use crate::model::{Hours, Session, Week, Zone};
use crate::workflow::CalendarRule;
use crate::workflow::calendar::{Basis, WEEKDAYS};
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// How many days a file of a calendar may list: two and a half centuries.
const MAX_DAYS: usize = 100_000;

/// A calendar that was read, and where it is in the text.
pub(crate) struct CalendarDraft<'a> {
    pub(crate) name: &'a str,
    pub(crate) rule: CalendarRule,
    /// Its name.
    pub(crate) place: Place,
    /// The calendar that it extends.
    pub(crate) extends: Option<Place>,
}

/// A line of a file of days.
struct Line {
    date: Date,
    hours: Option<Hours>,
    place: Place,
}

impl<'a> Reader<'a> {
    pub(super) fn calendars(&mut self, section: Vec<(&'a Key, &'a Node)>) -> Vec<CalendarDraft<'a>> {
        section.into_iter().filter_map(|(key, node)| self.calendar(key, node)).collect()
    }

    fn calendar(&mut self, key: &'a Key, node: &'a Node) -> Option<CalendarDraft<'a>> {
        const KEYS: [&str; 7] = ["zone", "open", "closed", "special", "sessions", "extends", "until"];
        let fields = self.fields(node, key.place, &format!("calendar `{}`", key.name), &KEYS)?;
        let before = self.diagnostics.len();
        let given: Vec<&str> = ["open", "sessions", "extends"].into_iter().filter(|name| fields.get(name).is_some()).collect();
        let basis = match given.as_slice() {
            ["open"] => {
                let week = fields.get("open").and_then(|node| self.week(node));
                self.zone_of(&fields).zip(week).map(|(zone, week)| Basis::Weekly { zone, week })
            }
            ["sessions"] => {
                let zone = self.zone_of(&fields);
                fields.get("sessions").zip(zone).and_then(|(node, zone)| self.sessions(node, zone))
            }
            [_] => {
                let name = fields.get("extends").and_then(|node| self.text(node, "`extends`"));
                let until = fields.get("until").and_then(|node| self.date(node, "`until`"));
                name.map(|name| Basis::Extends { name, until })
            }
            [] => {
                let help = "give the hours of weekdays, e.g. `open: { mon-fri: \"09:00-17:30\" }`; or `extends`, or a file of `sessions`";
                self.error(key.place, format!("{} has no `open`", fields.what), Some(help.to_owned()));
                None
            }
            [first, second, ..] => {
                let message = format!("{} has both `{first}` and `{second}`", fields.what);
                self.error(fields.key_place(second), message, Some("keep one of them".to_owned()));
                None
            }
        };
        let extends = fields.get("extends").map(|node| node.place);
        let unwanted: &[(&str, &str)] = match given.as_slice() {
            ["open"] => &[("until", "a week goes on for ever")],
            ["sessions"] => &[
                ("until", "the sessions say which dates are covered"),
                ("closed", "list only the sessions that there are"),
                ("special", "write the hours into the file of sessions"),
            ],
            ["extends"] => &[("zone", "the zone is that of the calendar that it extends")],
            _ => &[],
        };
        for (name, why) in unwanted.iter().filter(|(name, _)| fields.get(name).is_some()) {
            let message = format!("{} takes no `{name}`, since it has `{}`", fields.what, given.concat());
            self.error(fields.key_place(name), message, Some(format!("remove it; {why}")));
        }
        let days = self.differing(&fields);
        let basis = basis?;
        (self.diagnostics.len() == before).then(|| CalendarDraft {
            name: &key.name,
            rule: CalendarRule { basis, days },
            place: key.place,
            extends,
        })
    }

    fn zone_of(&mut self, fields: &Fields<'a>) -> Option<Zone> {
        let node =
            self.required(fields, "zone", "its hours are by a local clock: name the zone, e.g. `zone: Europe/Berlin`, or `zone: UTC`")?;
        self.parsed(node, "`zone`")
    }

    /// Reads the hours of weekdays: `{ mon-thu: "09:00-17:30", fri: ["09:00-12:00", "13:00-15:00"] }`.
    fn week(&mut self, node: &'a Node) -> Option<Week> {
        let entries = self.mapping(node, "`open`", MAX_ENTRIES)?;
        let mut week = Week::default();
        let mut seen: Vec<Weekday> = Vec::new();
        let before = self.diagnostics.len();
        for (key, value) in entries {
            let Some(days) = self.weekdays(key) else { continue };
            let Some(hours) = self.hours(value, &format!("the hours of {}", quoted(&key.name))) else { continue };
            for day in days {
                if seen.contains(&day) {
                    let help = "name each weekday once; a list of stretches, e.g. `[\"09:30-12:00\", \"13:00-16:00\"]`, has breaks";
                    self.error(key.place, format!("`open` has the hours of {} twice", word(day)), Some(help.to_owned()));
                }
                seen.push(day);
                week = week.with(day, hours.clone());
            }
        }
        if self.diagnostics.len() > before {
            return None;
        }
        if week.is_closed() {
            let help = "give the hours of weekdays, e.g. `open: { mon-fri: \"09:00-17:30\" }`";
            self.error(node.place, "`open` is closed on every day, so nothing would be expected", Some(help.to_owned()));
            return None;
        }
        if let Some((day, next)) = week.overlap() {
            let message = format!("the hours of {} go on when those of {} have begun", word(day), word(next));
            self.error(node.place, message, Some("end the one where the other begins".to_owned()));
            return None;
        }
        Some(week)
    }

    /// Reads `fri`, or `mon-thu`, which may go past Sunday.
    fn weekdays(&mut self, key: &Key) -> Option<Vec<Weekday>> {
        let find = |name: &str| WEEKDAYS.iter().find(|(word, _)| *word == name).map(|(_, day)| *day);
        let (first, last) = key.name.split_once('-').unwrap_or((&key.name, &key.name));
        if let (Some(first), Some(last)) = (find(first), find(last)) {
            let mut days = vec![first];
            let mut day = first;
            while day != last {
                day = day.next();
                days.push(day);
            }
            return Some(days);
        }
        let words = || WEEKDAYS.iter().map(|(word, _)| *word);
        let help = did_you_mean(&key.name, words()).unwrap_or_else(|| format!("{}, or two of them, as in `mon-fri`", one_of(words())));
        self.error(key.place, format!("{} is no weekday", quoted(&key.name)), Some(help));
        None
    }

    /// Reads hours: a text, or a list of stretches.
    fn hours(&mut self, node: &'a Node, what: &str) -> Option<Hours> {
        let stretches = self.texts(node, what);
        if stretches.is_empty() {
            if matches!(node.value, Yaml::List(_)) {
                let help = "write `closed`, or leave the day out".to_owned();
                self.error(node.place, format!("{what} are an empty list"), Some(help));
            }
            return None;
        }
        let text = stretches.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(" ");
        text.parse().map_err(|error: crate::Error| self.error(node.place, format!("{what}: {}", error.message()), None)).ok()
    }

    fn date(&mut self, node: &Node, what: &str) -> Option<Date> {
        let text = self.text(node, what)?;
        self.parsed_date(&text, node.place)
    }

    pub(super) fn parsed_date(&mut self, text: &str, place: Place) -> Option<Date> {
        // The parser of dates would also take an instant.
        let date = (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten();
        if date.is_none() {
            self.error(place, format!("{} is not a date", quoted(text)), Some("write e.g. `2024-12-25`".to_owned()));
        }
        date
    }

    /// Reads `closed` and `special`.
    fn differing(&mut self, fields: &Fields<'a>) -> BTreeMap<Date, Hours> {
        let mut all: Vec<(Date, Hours, Place)> = Vec::new();
        match fields.get("closed") {
            Some(node) if matches!(node.value, Yaml::Map(_)) => {
                let lines = self.file_of_days(node, "closed", false).unwrap_or_default();
                all.extend(lines.into_iter().map(|line| (line.date, Hours::CLOSED, line.place)));
            }
            Some(node) => {
                for (text, place) in self.texts(node, "`closed`") {
                    all.extend(self.parsed_date(&text, place).map(|date| (date, Hours::CLOSED, place)));
                }
            }
            None => {}
        }
        match fields.get("special") {
            Some(node) if node.get("file").is_some() => {
                let lines = self.file_of_days(node, "special", true).unwrap_or_default();
                all.extend(lines.into_iter().map(|line| (line.date, line.hours.unwrap_or_default(), line.place)));
            }
            Some(node) => {
                for (key, value) in self.mapping(node, "`special`", MAX_ENTRIES).unwrap_or_default() {
                    let date = self.parsed_date(&key.name, key.place);
                    let hours = self.hours(value, &format!("the hours of {}", quoted(&key.name)));
                    all.extend(date.zip(hours).map(|(date, hours)| (date, hours, key.place)));
                }
            }
            None => {}
        }
        let mut days = BTreeMap::new();
        for (date, hours, place) in all {
            if days.insert(date, hours).is_some() {
                self.error(place, format!("{date} is given twice"), Some("keep one of the two".to_owned()));
            }
        }
        days
    }

    /// Reads the sessions of a file.
    fn sessions(&mut self, node: &'a Node, zone: Zone) -> Option<Basis> {
        let lines = self.file_of_days(node, "sessions", true)?;
        let mut sessions: Vec<Session> = Vec::with_capacity(lines.len());
        let mut places: BTreeMap<Date, Place> = BTreeMap::new();
        for Line { date, hours, place } in lines {
            match hours.unwrap_or_default().session(date, &zone) {
                Ok(Some(session)) => sessions.push(session),
                Ok(None) => {
                    let help = "list only the dates with a session".to_owned();
                    self.error(place, format!("{date} has no session"), Some(help));
                    return None;
                }
                Err(error) => {
                    self.error(place, error.message(), None);
                    return None;
                }
            }
            if places.insert(date, place).is_some() {
                self.error(place, format!("{date} has two sessions"), Some("write them as one, with a break".to_owned()));
                return None;
            }
        }
        Some(Basis::Listed { zone, sessions })
    }

    /// Reads the days of `{ file: … }`, which is CSV: a line of names, of which the first is `date` and, with hours, the second `open`; then a
    /// line per day. Further columns are for people.
    fn file_of_days(&mut self, node: &'a Node, what: &str, with_hours: bool) -> Option<Vec<Line>> {
        let fields = self.fields(node, node.place, &format!("`{what}`"), &["file"])?;
        let node = self.required(&fields, "file", "e.g. `{ file: days.csv }`")?;
        let (file, name, text) = self.file_beside(node)?;
        let wanted = if with_hours { "date,open" } else { "date" };
        let mut start = 0;
        let mut lines = Vec::new();
        let mut header = true;
        for raw in text.split_inclusive('\n') {
            let trimmed = raw.trim_end_matches(['\n', '\r']);
            let place = Place { file, start, end: start + trimmed.len() };
            start += raw.len();
            let line = if header { trimmed.trim_start_matches('\u{feff}') } else { trimmed };
            let mut columns = line.split(',').map(str::trim);
            if header {
                header = false;
                if columns.next() != Some("date") || with_hours && columns.next() != Some("open") {
                    let help = format!("begin the file with the line `{wanted}`");
                    self.error(place, format!("a file of `{what}` must have the columns `{wanted}`"), Some(help));
                    return None;
                }
                continue;
            }
            if line.trim().is_empty() {
                continue;
            }
            if lines.len() >= MAX_DAYS {
                self.error(place, format!("{} lists more than {MAX_DAYS} days", quoted(&name)), None);
                return None;
            }
            let date = columns.next().unwrap_or_default();
            let date = self.parsed_date(date, place)?;
            let mut hours = None;
            if with_hours {
                match columns.next().unwrap_or_default().parse() {
                    Ok(read) => hours = Some(read),
                    Err(error) => {
                        let error: crate::Error = error;
                        self.error(place, error.message(), None);
                        return None;
                    }
                }
            }
            lines.push(Line { date, hours, place });
        }
        if lines.is_empty() {
            self.error(node.place, format!("{} lists no days", quoted(&name)), None);
            return None;
        }
        Some(lines)
    }
}

fn word(day: Weekday) -> &'static str {
    WEEKDAYS.iter().find(|(_, known)| *known == day).map_or("", |(word, _)| word)
}
