//! What a table says about how its files are read: their text, their times, and the names of their folders.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Fields, MAX_ENTRIES, Reader};
use crate::error::Error;
use crate::model::{
    BadRowLimit, Cadence, ColumnRule, ColumnType, Csv, Encoding, EpochUnit, OnBadRow, PathPattern, Repeated, Skipped, Slack, SlotRule,
    TimeForm, TimeMark, TimeReading, Zone,
};
use crate::yaml::tree::{Node, Yaml};

/// The name of the time column if several columns, or the path, hold the time.
const JOINED_TIME: &str = "ts";

/// What `time` says.
pub(super) struct Time {
    pub(super) name: String,
    pub(super) reading: TimeReading,
    pub(super) marks: Option<TimeMark>,
}

/// What `cadence` says.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) every: Option<Cadence>,
    pub(super) slots: SlotRule,
    pub(super) misaligned: Option<BadRowLimit>,
}

/// What `partition_by` says, if it is a pattern.
pub(super) struct Folders {
    pub(super) path: PathPattern,
    pub(super) zone: Zone,
    pub(super) slack: Slack,
}

pub(super) const MARKS: [(&str, TimeMark); 2] = [("start", TimeMark::Start), ("end", TimeMark::End)];

impl<'a> Reader<'a> {
    /// Reads a text that is written in a form of its own.
    pub(super) fn parsed<T: FromStr<Err = Error>>(&mut self, node: &Node, what: &str) -> Option<T> {
        let text = self.text(node, what)?;
        text.parse().map_err(|error: Error| self.error(node.place, error.message(), None)).ok()
    }

    fn field<T: FromStr<Err = Error>>(&mut self, fields: &Fields<'a>, name: &str) -> Option<T> {
        fields.get(name).and_then(|node| self.parsed(node, &format!("`{name}`")))
    }

    fn flag(&mut self, fields: &Fields<'a>, name: &str) -> Option<bool> {
        let node = fields.get(name)?;
        if let Yaml::Bool(value) = node.value {
            return Some(value);
        }
        self.error(node.place, format!("`{name}` must be true or false, not {}", node.describe()), None);
        None
    }

    fn words(&mut self, fields: &Fields<'a>, name: &str) -> Vec<String> {
        let Some(node) = fields.get(name) else { return Vec::new() };
        self.texts(node, &format!("`{name}`")).into_iter().map(|(text, _)| text).collect()
    }

    pub(super) fn time(&mut self, node: &'a Node) -> Option<Time> {
        if !matches!(node.value, Yaml::Map(_)) {
            let name = self.text(node, "`time`")?;
            return Some(Time { name, reading: TimeReading::default(), marks: None });
        }
        const KEYS: [&str; 10] = ["column", "columns", "name", "format", "epoch", "path", "zone", "repeated", "skipped", "marks"];
        let fields = self.fields(node, node.place, "`time`", &KEYS)?;
        let mut columns = self.words(&fields, "columns");
        let column = fields.get("column").and_then(|node| self.text(node, "`column`"));
        if fields.get("column").is_some() && fields.get("columns").is_some() {
            let help = "keep `columns` for a time in several of them, e.g. a date and a time";
            self.error(fields.key_place("columns"), "`time` has both `column` and `columns`", Some(help.to_owned()));
        }
        columns.extend(column);
        let forms: Vec<&str> = ["format", "epoch", "path"].into_iter().filter(|name| fields.get(name).is_some()).collect();
        if let [_, second, ..] = forms.as_slice() {
            let help = "keep one of them".to_owned();
            self.error(fields.key_place(second), format!("`time` has both `{}` and `{second}`", forms[0]), Some(help));
        }
        let form = if let Some(node) = fields.get("format") {
            self.text(node, "`format`").map(TimeForm::Pattern)
        } else if let Some(node) = fields.get("epoch") {
            let units = EpochUnit::ALL.map(|unit| (unit.as_str(), unit));
            let many = matches!(node.value, Yaml::List(_));
            let nodes: Vec<&Node> = if many { self.list(node, "`epoch`").unwrap_or_default().iter().collect() } else { vec![node] };
            let mut all: Vec<EpochUnit> = nodes.into_iter().filter_map(|node| self.word(node, "`epoch`", &units)).collect();
            all.sort_unstable();
            all.dedup();
            Some(TimeForm::Epoch(all))
        } else if fields.get("path").is_some() {
            self.field(&fields, "path").map(TimeForm::Path)
        } else {
            Some(TimeForm::Iso)
        };
        let zone = self.field(&fields, "zone");
        let repeated = fields.get("repeated").and_then(|node| self.word(node, "`repeated`", &Repeated::ALL)).unwrap_or_default();
        let skipped = fields.get("skipped").and_then(|node| self.word(node, "`skipped`", &Skipped::ALL)).unwrap_or_default();
        let marks = fields.get("marks").and_then(|node| self.word(node, "`marks`", &MARKS));
        let name = fields.get("name").and_then(|node| self.text(node, "`name`"));
        let form = form?;
        let in_path = matches!(form, TimeForm::Path(_));
        if columns.is_empty() && !in_path {
            let help = "name the column, e.g. `time: { column: ts, zone: Europe/Berlin }`";
            self.error(node.place, "`time` names no column", Some(help.to_owned()));
            return None;
        }
        let name = match (name, columns.as_slice()) {
            (Some(name), [only]) if *only == name => name,
            (Some(name), columns) if columns.contains(&name) => {
                let help = "give the joined column a name of its own".to_owned();
                self.error(fields.key_place("name"), format!("`{name}` is one of the columns that are joined"), Some(help));
                return None;
            }
            (Some(name), _) => name,
            (None, [only]) => only.clone(),
            (None, _) => JOINED_TIME.to_owned(),
        };
        if columns.len() == 1 && columns[0] == name {
            columns.clear();
        }
        let reading = TimeReading { columns, form, zone, repeated, skipped };
        if let Err(error) = reading.check() {
            self.error(node.place, error.message(), None);
        }
        Some(Time { name, reading, marks })
    }

    /// Reads how folders carry time and keys, if it is written as a pattern.
    pub(super) fn folders(&mut self, node: &'a Node) -> Option<Folders> {
        if matches!(node.value, Yaml::Text(_)) {
            return self.parsed(node, "`partition_by`").map(|path| Folders { path, zone: Zone::utc(), slack: Slack::default() });
        }
        let fields = self.fields(node, node.place, "`partition_by`", &["path", "zone", "slack"])?;
        self.required(&fields, "path", "e.g. `path: \"year=%Y/month=%m/day=%d\"`")?;
        let path = self.field(&fields, "path");
        let zone = self.field(&fields, "zone").unwrap_or_default();
        let slack = self
            .duration(&fields, "slack")
            .map_or(Slack::OneFolder, |slack| Slack::Seconds(u32::try_from(slack.as_secs()).unwrap_or(u32::MAX)));
        Some(Folders { path: path?, zone, slack })
    }

    pub(super) fn csv(&mut self, node: &'a Node) -> Csv {
        const KEYS: [&str; 11] =
            ["delimiter", "quote", "decimal", "thousands", "encoding", "header", "names", "comment", "skip_lines", "trim", "final_newline"];
        const FINAL_NEWLINE: [(&str, bool); 2] = [("optional", false), ("required", true)];
        const ENCODINGS: [(&str, Encoding); 9] = [
            ("utf8", Encoding::Utf8),
            ("utf-8", Encoding::Utf8),
            ("utf16", Encoding::Utf16),
            ("utf-16", Encoding::Utf16),
            ("utf16le", Encoding::Utf16le),
            ("utf16be", Encoding::Utf16be),
            ("latin1", Encoding::Latin1),
            ("iso-8859-1", Encoding::Latin1),
            ("windows-1252", Encoding::Latin1),
        ];
        let mut csv = Csv::default();
        let Some(fields) = self.fields(node, node.place, "`csv`", &KEYS) else { return csv };
        if let Some(delimiter) = self.character(&fields, "delimiter") {
            csv.delimiter = delimiter;
        }
        match fields.get("quote").map(|node| &node.value) {
            Some(Yaml::Text(word)) if word == "none" => csv.quote = None,
            Some(_) => csv.quote = self.character(&fields, "quote").or(csv.quote),
            None => {}
        }
        if let Some(decimal) = self.character(&fields, "decimal") {
            csv.decimal = decimal;
        }
        csv.thousands = self.character(&fields, "thousands");
        if let Some(encoding) = fields.get("encoding").and_then(|node| self.word(node, "`encoding`", &ENCODINGS)) {
            csv.encoding = encoding;
        }
        csv.header = self.flag(&fields, "header").unwrap_or(true);
        csv.names = self.words(&fields, "names");
        csv.comment = self.character(&fields, "comment");
        csv.skip_lines = self.count(&fields, "skip_lines", 0..=100_000).unwrap_or(0);
        csv.trim = self.flag(&fields, "trim").unwrap_or(false);
        let final_newline = fields.get("final_newline").and_then(|node| self.word(node, "`final_newline`", &FINAL_NEWLINE));
        csv.final_newline = final_newline.unwrap_or(false);
        if let Err(error) = csv.check() {
            self.error(node.place, error.message(), None);
        }
        csv
    }

    /// Reads one character, or the word for one that is hard to see.
    fn character(&mut self, fields: &Fields<'a>, name: &str) -> Option<char> {
        let node = fields.get(name)?;
        let text = match &node.value {
            // A space alone is not an empty text here.
            Yaml::Text(text) => text.as_str(),
            _ => {
                let message = format!("`{name}` must be one character, in quotes, not {}", node.describe());
                self.error(node.place, message, Some("write e.g. `\";\"`, or `tab` or `space`".to_owned()));
                return None;
            }
        };
        let mut characters = text.chars();
        let found = match (text, characters.next(), characters.next()) {
            ("tab" | "\\t", _, _) => Some('\t'),
            ("space", _, _) => Some(' '),
            (_, Some(only), None) => Some(only),
            _ => None,
        };
        if found.is_none() {
            let message = format!("`{name}` must be one character, not {} of them", text.chars().count());
            self.error(node.place, message, Some("write e.g. `\";\"`, or `tab` or `space`".to_owned()));
        }
        found
    }

    pub(super) fn columns(&mut self, node: &'a Node) -> BTreeMap<String, ColumnRule> {
        let mut columns = BTreeMap::new();
        for (key, value) in self.mapping(node, "`columns`", MAX_ENTRIES).unwrap_or_default() {
            let what = format!("column `{}`", key.name);
            let rule = if matches!(value.value, Yaml::Text(_)) {
                ColumnRule { kind: self.parsed::<ColumnType>(value, &what), ..ColumnRule::default() }
            } else {
                let Some(fields) = self.fields(value, key.place, &what, &["type", "nulls", "path"]) else { continue };
                ColumnRule {
                    kind: self.field(&fields, "type"),
                    nulls: self.words(&fields, "nulls"),
                    path: fields.get("path").and_then(|node| self.text(node, "`path`")),
                }
            };
            columns.insert(key.name.clone(), rule);
        }
        columns
    }

    pub(super) fn on_bad_row(&mut self, node: &'a Node) -> OnBadRow {
        const WORDS: [(&str, OnBadRow); 2] = [("refuse", OnBadRow::Refuse), ("quarantine", OnBadRow::Quarantine(BadRowLimit::DEFAULT))];
        if matches!(node.value, Yaml::Text(_)) {
            return self.word(node, "`on_bad_row`", &WORDS).unwrap_or_default();
        }
        let Some(fields) = self.fields(node, node.place, "`on_bad_row`", &["quarantine"]) else { return OnBadRow::default() };
        let Some(limit) = self.required(&fields, "quarantine", "write e.g. `{ quarantine: 0.1% }`") else { return OnBadRow::default() };
        OnBadRow::Quarantine(self.limit(limit, "`quarantine`").unwrap_or(BadRowLimit::DEFAULT))
    }

    fn limit(&mut self, node: &Node, what: &str) -> Option<BadRowLimit> {
        let Yaml::Number(number) = &node.value else { return self.parsed(node, what) };
        let rows = number.as_u64().map(BadRowLimit::Rows);
        if rows.is_none() {
            self.error(node.place, format!("{what} must be a share such as 0.1%, or a whole number of rows"), None);
        }
        rows
    }

    pub(super) fn cadence(&mut self, node: &'a Node) -> Slots {
        // Where the cadence is wrong, which is reported, an hour stands for it, so that nothing else seems wrong too.
        let some = |every: Option<Cadence>| Slots { every: every.or(Some(Cadence::HOUR)), ..Slots::default() };
        if !matches!(node.value, Yaml::Map(_)) {
            return some(self.parsed(node, "`cadence`"));
        }
        const KEYS: [&str; 5] = ["every", "at", "tolerance", "misaligned", "before"];
        let Some(fields) = self.fields(node, node.place, "`cadence`", &KEYS) else { return some(None) };
        let every = self.required(&fields, "every", "write e.g. `every: 1h`").and_then(|node| self.parsed(node, "`every`"));
        let at = fields.get("at").and_then(|node| match &node.value {
            Yaml::Number(number) => {
                let parsed = number.to_string().parse();
                parsed.map_err(|error: Error| self.error(node.place, error.message(), None)).ok()
            }
            _ => self.parsed(node, "`at`"),
        });
        let tolerance = self.duration(&fields, "tolerance").unwrap_or_default();
        if tolerance.subsec_nanos() > 0 || u32::try_from(tolerance.as_secs()).is_err() {
            let place = fields.get("tolerance").map_or(node.place, |node| node.place);
            self.error(place, "`tolerance` must be a whole number of seconds", Some("write e.g. `1s`".to_owned()));
        }
        let misaligned = fields.get("misaligned").and_then(|node| self.limit(node, "`misaligned`"));
        let mut before = BTreeMap::new();
        for (key, value) in fields.get("before").and_then(|node| self.mapping(node, "`before`", MAX_ENTRIES)).unwrap_or_default() {
            let date = self.parsed_date(&key.name, key.place);
            before.extend(date.zip(self.parsed(value, &format!("the cadence before {}", key.name))));
        }
        let slots = SlotRule { at, tolerance_s: u32::try_from(tolerance.as_secs()).unwrap_or_default(), before };
        let Some(every) = every else { return some(None) };
        if let Err(error) = slots.check(every) {
            self.error(node.place, error.message(), None);
            return some(Some(every));
        }
        Slots { every: Some(every), slots, misaligned }
    }
}
