//! `tables`, `sources` and `profiles`.

use std::collections::BTreeMap;

use super::reading::MARKS;
use super::{Fields, MAX_ENTRIES, PluginPlaces, Reader, Within};
use crate::lake::overlay;
use crate::lake::shape;
use crate::model::{Format, Partition, PartitionUnit, Rows, Table};
use crate::workflow::{Profile, SourceUse};
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// Tables, by name.
type Tables = BTreeMap<String, Table>;
/// For each table of another lake, by its name in the workflow: the profile of that lake, and the place that names it.
pub(crate) type LakePlaces<'a> = BTreeMap<&'a str, (String, Place)>;

impl<'a> Reader<'a> {
    /// The tables of the workflow's own lake, those of other lakes, and for each of these the profile of its lake, with its place.
    pub(super) fn tables(&mut self, section: &[(&'a Key, &'a Node)]) -> (Tables, BTreeMap<String, Tables>, LakePlaces<'a>) {
        self.distinct(section);
        let (mut tables, mut elsewhere, mut places) = (Tables::new(), BTreeMap::<String, Tables>::new(), BTreeMap::new());
        for &(key, node) in section {
            let Some((table, lake)) = self.table(key, node) else { continue };
            let Some((lake, place)) = lake else {
                tables.insert(key.name.clone(), table);
                continue;
            };
            let there = elsewhere.entry(lake.clone()).or_default();
            if there.keys().any(|other| other.eq_ignore_ascii_case(&table.name)) {
                let message = format!("another table is called `{}` in the lake of profile `{lake}`, too", table.name);
                self.error(key.place, message, Some("keep one of the two, or correct its `name`".to_owned()));
            } else {
                there.insert(table.name.clone(), table);
            }
            places.insert(key.name.as_str(), (lake, place));
        }
        (tables, elsewhere, places)
    }

    /// Checks that no table has the name of another one, or of an object that we keep beside another, in a lake that ignores case.
    fn distinct(&mut self, tables: &[(&'a Key, &'a Node)]) {
        let mut taken: BTreeMap<String, &Key> = BTreeMap::new();
        for (key, _) in tables {
            let name = key.name.as_str();
            if let Some(before) = taken.insert(name.to_lowercase(), key) {
                let elsewhere = self.elsewhere(key.place, before.place);
                let message = format!("table `{name}` differs only in case from table `{}`{elsewhere}", before.name);
                self.error(key.place, message, Some("rename one".to_owned()));
            }
        }
        for (key, _) in tables {
            let name = key.name.as_str();
            for owned in [overlay::repairs(name), overlay::exceptions(name), overlay::retractions(name), overlay::repaired_view(name)] {
                if let Some((other, _)) = tables.iter().find(|(other, _)| other.name.eq_ignore_ascii_case(&owned)) {
                    let elsewhere = self.elsewhere(other.place, key.place);
                    let message = format!("the name `{}` is reserved for the repairs of table `{name}`{elsewhere}", other.name);
                    self.error(other.place, message, Some("rename the table".to_owned()));
                }
            }
        }
    }

    /// A table, and the profile of its lake with its place, if that is not the workflow's own.
    fn table(&mut self, key: &Key, node: &'a Node) -> Option<(Table, Option<(String, Place)>)> {
        const KEYS: [&str; 20] = [
            "lake",
            "name",
            "location",
            "format",
            "ignore",
            "csv",
            "nulls",
            "columns",
            "on_bad_row",
            "partition_by",
            "key",
            "keys",
            "time",
            "time_marks",
            "zone",
            "cadence",
            "rows",
            "version",
            "lookback",
            "settles_after",
        ];
        let fields = self.fields(node, key.place, &format!("table `{}`", key.name), &KEYS)?;
        let lake = fields.get("lake").and_then(|node| Some((self.text(node, "`lake`")?, node.place)));
        let name = self.name_there(&fields, key, lake.is_some());
        let location = self.required(&fields, "location", "name the folder of its files").and_then(|node| self.text(node, "`location`"));
        let formats = [("parquet", Format::Parquet), ("csv", Format::Csv), ("jsonl", Format::Jsonl)];
        let format = self
            .required(&fields, "format", "write `format: parquet`, `csv` or `jsonl`")
            .and_then(|node| self.word(node, "`format`", &formats));
        let time = self.required(&fields, "time", "name the time column").and_then(|node| self.time(node));
        let mut columns: Vec<String> = Vec::new();
        for (column, place) in fields.get("key").map(|node| self.texts(node, "`key`")).unwrap_or_default() {
            if columns.contains(&column) || time.as_ref().is_some_and(|time| time.name == column) {
                self.error(place, format!("column `{column}` is named twice"), None);
            } else {
                columns.push(column);
            }
        }
        let keys = fields.get("keys").and_then(|node| self.expected_keys(node, &key.name, &columns));
        self.key_columns.insert(key.name.clone(), columns.clone());
        let marks = fields.get("time_marks").and_then(|node| self.word(node, "`time_marks`", &MARKS));
        if marks.is_some() && time.as_ref().is_some_and(|time| time.marks.is_some()) {
            let help = "keep `marks` under `time`".to_owned();
            self.error(fields.key_place("time_marks"), "`time_marks` and `marks` under `time` say the same", Some(help));
        }
        let cadence = fields.get("cadence").map(|node| self.cadence(node)).unwrap_or_default();
        let rows = fields
            .get("rows")
            .and_then(|node| self.word(node, "`rows`", &[("one", Rows::One), ("many", Rows::Many), ("unique", Rows::Unique)]));
        let lookback = self.duration(&fields, "lookback");
        let mut version: Vec<String> = Vec::new();
        for (column, place) in fields.get("version").map(|node| self.texts(node, "`version`")).unwrap_or_default() {
            if version.contains(&column) {
                self.error(place, format!("column `{column}` is named twice"), None);
            } else {
                version.push(column);
            }
        }
        let settles_after = self.duration(&fields, "settles_after");
        let texts = |reader: &mut Self, name: &str| {
            let node = fields.get(name);
            node.map(|node| reader.texts(node, &format!("`{name}`")))
                .unwrap_or_default()
                .into_iter()
                .map(|(text, _)| text)
                .collect::<Vec<_>>()
        };
        let (ignore, nulls) = (texts(self, "ignore"), texts(self, "nulls"));
        let mut partition_by = Vec::new();
        let mut folders = None;
        match fields.get("partition_by") {
            Some(node) if matches!(node.value, Yaml::List(_)) => partition_by = self.partitions(node),
            Some(node) => folders = self.folders(node),
            None => {}
        }
        let csv = fields.get("csv").map(|node| self.csv(node)).unwrap_or_default();
        let rules = fields.get("columns").map(|node| self.columns(node)).unwrap_or_default();
        let on_bad_row = fields.get("on_bad_row").map(|node| self.on_bad_row(node)).unwrap_or_default();
        let zone = fields.get("zone").and_then(|node| self.parsed(node, "`zone`"));
        let time = time?;
        let mut table = Table {
            name,
            location: location?,
            format: format?,
            ignore,
            csv,
            nulls,
            columns: rules,
            on_bad_row,
            partition_by,
            key: columns,
            keys,
            reading: time.reading,
            zone,
            time_marks: time.marks.or(marks).unwrap_or_default(),
            cadence: cadence.every,
            slots: cadence.slots,
            misaligned: cadence.misaligned,
            rows: rows.unwrap_or_default(),
            version,
            lookback,
            settles_after,
            ..Table::implicit(&key.name, &time.name)
        };
        if let Some(folders) = folders {
            table = table.with_layout(folders.path, folders.zone).with_slack(folders.slack);
        }
        // What is wrong with one setting alone has been reported at its place.
        let alone = table.csv.check().and_then(|()| table.reading.check());
        if let (Ok(()), Err(error)) = (alone, table.check().and_then(|()| shape::refuse_declared(&table))) {
            self.error(key.place, error.message(), None);
        }
        Some((table, lake))
    }

    /// The name of a table in its lake and in queries, which differs from that in the workflow only if it says so.
    fn name_there(&mut self, fields: &Fields<'a>, key: &Key, is_elsewhere: bool) -> String {
        let Some(node) = fields.get("name") else { return key.name.clone() };
        if !is_elsewhere {
            let help = "remove it, and call the table so under `tables`; add `lake` if it is in another lake";
            self.error(fields.key_place("name"), "`name` is what a table of another lake is called there", Some(help.to_owned()));
        }
        self.text(node, "`name`").filter(|name| self.is_name(name, node.place, "a table")).unwrap_or_else(|| key.name.clone())
    }

    fn partitions(&mut self, node: &'a Node) -> Vec<Partition> {
        const UNITS: [(&str, PartitionUnit); 4] =
            [("year", PartitionUnit::Year), ("month", PartitionUnit::Month), ("day", PartitionUnit::Day), ("hour", PartitionUnit::Hour)];
        let items = self.list(node, "`partition_by`").unwrap_or_default();
        if let Some(second) = items.get(1) {
            let help = "for folders such as year=2024/month=03, write `partition_by: \"year=%Y/month=%m\"`".to_owned();
            self.error(second.place, "a list under `partition_by` has one column", Some(help));
        }
        let mut partitions = Vec::new();
        for item in items.iter().take(1) {
            match self.mapping(item, "an entry of `partition_by`", 1) {
                Some([(key, unit)]) => {
                    let named = self.is_name(&key.name, key.place, "a partition column");
                    if let Some(unit) = self.word(unit, "the unit of a partition column", &UNITS).filter(|_| named) {
                        partitions.push(Partition { column: key.name.clone(), unit });
                    }
                }
                Some(_) => {
                    self.error(
                        item.place,
                        "an entry of `partition_by` must be a column and its unit",
                        Some("write e.g. `{ date: day }`".to_owned()),
                    );
                }
                None => {}
            }
        }
        partitions
    }

    pub(super) fn sources(
        &mut self,
        section: Vec<(&'a Key, &'a Node)>,
    ) -> (BTreeMap<String, SourceUse>, BTreeMap<String, PluginPlaces<'a>>) {
        let (mut sources, mut places) = (BTreeMap::new(), BTreeMap::new());
        for (key, node) in section {
            let what = format!("source `{}`", key.name);
            let Some(fields) = self.fields(node, key.place, &what, &["source", "with", "rate_limit"]) else { continue };
            let rate_limit = self.rate(&fields);
            let (with, with_node) = self.with(&fields, Within::Source);
            let Some((plugin, name)) = self.plugin(&fields, "source", "name the plug-in, e.g. `source: stocks.archive`") else { continue };
            sources.insert(key.name.clone(), SourceUse { plugin, with, rate_limit });
            places.insert(key.name.clone(), PluginPlaces { name, with: with_node, said: Vec::new() });
        }
        (sources, places)
    }

    /// Reads the name of a plug-in under the word for its kind.
    pub(super) fn plugin(&mut self, fields: &Fields<'a>, word: &str, help: &str) -> Option<(String, Place)> {
        let node = self.required(fields, word, help)?;
        self.text(node, &format!("`{word}`")).map(|name| (name, node.place))
    }

    pub(super) fn profiles(&mut self, fields: &Fields<'a>) -> BTreeMap<String, Profile> {
        let mut profiles = BTreeMap::new();
        for (key, node) in self.section(fields, "profiles", MAX_ENTRIES) {
            let what = format!("profile `{}`", key.name);
            let Some(fields) = self.fields(node, key.place, &what, &["lake", "with"]) else { continue };
            let (with, _) = self.with(&fields, Within::Profile);
            let lake = self.required(&fields, "lake", "write e.g. `lake: local`").and_then(|node| self.text(node, "`lake`"));
            if let Some(lake) = lake {
                profiles.insert(key.name.clone(), Profile { lake, with });
            }
        }
        profiles
    }
}
