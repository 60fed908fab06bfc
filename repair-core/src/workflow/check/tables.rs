//! Checks that tables do not contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Checker;
use crate::model::Table;
use crate::workflow::StepKind;
use crate::yaml::tree::Place;

impl<'a> Checker<'a> {
    /// Checks that two tables at one location are described in the same way. Repairs are stored beside the location, so that each name would
    /// otherwise read the repairs of the other by its own key and slots.
    pub(super) fn locations(&mut self) {
        let draft: &'a _ = self.draft;
        let mut tables: Vec<(Place, &Table)> = Vec::new();
        tables.extend(draft.workflow.tables.iter().filter_map(|(name, table)| Some((*draft.table_places.get(name.as_str())?, table))));
        // The file itself comes last, so that a mistake is reported where the user of an included file can correct it.
        tables.sort_by_key(|(place, _)| (place.file == 0, *place));
        let mut first: BTreeMap<String, (Place, &Table)> = BTreeMap::new();
        for (place, table) in tables {
            let (other_place, other) = *first.entry(location(&table.location)).or_insert((place, table));
            let different = differences(other, table);
            if different.is_empty() {
                continue;
            }
            let message = format!(
                "tables `{}` and `{}` describe the same location, `{}`, differently: {}",
                other.name,
                table.name,
                table.location,
                different.join(", ")
            );
            let at = self.diagnostics.at(other_place);
            let help = format!("`{}` is at {at}; describe both alike, keep one of them, or give each a location of its own", other.name);
            self.error(place, message, help);
        }
    }
}

impl Checker<'_> {
    /// Checks that the tables in which repair steps repair something have slots, as far as their names are known.
    pub(super) fn repairable(&mut self) {
        let draft = self.draft;
        let mut refused = Vec::new();
        for (step, places) in draft.workflow.steps.iter().zip(&draft.steps) {
            let StepKind::Repair { of, .. } = &step.kind else { continue };
            let Some(StepKind::Detect { with, .. }) = draft.workflow.step(of).map(|found| &found.kind) else { continue };
            let Some(table) = with.text_of("table").and_then(|name| draft.workflow.tables.get(name)) else { continue };
            if let Err(error) = table.check_repairable() {
                refused.push((
                    places.of.unwrap_or(places.name),
                    format!("step `{}` cannot repair what `{of}` finds: {}", step.name, error.message()),
                ));
            }
        }
        for (place, message) in refused {
            self.error(place, message, None);
        }
    }
}

/// What two tables define differently, apart from their names and how their location is written. All keys are compared, whatever a table
/// may hold, since each of them says what the rows at the location mean.
fn differences(one: &Table, other: &Table) -> Vec<String> {
    let fields = |table: &Table| match serde_json::to_value(table) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (one, other) = (fields(one), fields(other));
    let differs = |name: &&String| !["name", "location"].contains(&name.as_str()) && one.get(*name) != other.get(*name);
    let names: BTreeSet<&str> = one.keys().chain(other.keys()).filter(differs).map(|name| written(name)).collect();
    names.into_iter().map(|name| format!("`{name}`")).collect()
}

/// The key under which a workflow writes a field of a table.
fn written(field: &str) -> &str {
    match field {
        "reading" => "time",
        "layout" | "slack" => "partition_by",
        field => field,
    }
}

/// A location without what means nothing in it: `./bars/` and `bars` are the same.
fn location(written: &str) -> String {
    let (scheme, path) = written.trim().split_once("://").map_or((None, written.trim()), |(scheme, path)| (Some(scheme), path));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let root = scheme.map_or_else(|| if path.starts_with('/') { "/".to_owned() } else { String::new() }, |scheme| format!("{scheme}://"));
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_location_are_one() {
        for (written, meant) in [
            ("bars", "bars"),
            ("./bars/", "bars"),
            ("a/../bars//day", "bars/day"),
            ("../bars", "../bars"),
            ("../../bars", "../../bars"),
            ("/data/bars/", "/data/bars"),
            ("s3://lake/bars/", "s3://lake/bars"),
        ] {
            assert_eq!(location(written), meant, "{written}");
        }
        assert_ne!(location("/bars"), location("bars"));
        assert_ne!(location("Bars"), location("bars"));
    }
}
