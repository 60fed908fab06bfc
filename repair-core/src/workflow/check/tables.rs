//! Checks that tables do not contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::read::{did_you_mean, one_of, quoted};
use super::Checker;
use crate::lake::{name, overlay};
use crate::model::{Rows, Table};
use crate::plugin::PluginKind;
use crate::workflow::StepKind;
use crate::yaml::tree::{Node, Place, Yaml};

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

    /// Checks that no two locations share an overlay. One within the lake is beside its table; all others are at the lake's root, under the
    /// names of their tables.
    pub(super) fn overlays(&mut self) {
        let draft: &'a _ = self.draft;
        let mut tables: Vec<(Place, &Table)> = Vec::new();
        tables.extend(draft.workflow.tables.iter().filter_map(|(name, table)| Some((*draft.table_places.get(name.as_str())?, table))));
        // The table that must be renamed is reported, where it is.
        tables.sort_by_key(|(place, table)| (!is_beside(table), *place));
        let mut first: BTreeMap<String, (Place, &Table)> = BTreeMap::new();
        for (place, table) in tables {
            let beside = if is_beside(table) { location(&table.location) } else { name::part(&table.name) };
            let (other_place, other) = *first.entry(beside.clone()).or_insert((place, table));
            if location(&other.location) == location(&table.location) {
                continue;
            }
            let message = format!(
                "the repairs of table `{}`, at `{}`, and those of `{}`, at `{}`, would be one, `{}`",
                table.name,
                table.location,
                other.name,
                other.location,
                overlay::repairs(&beside)
            );
            let at = self.diagnostics.at(other_place);
            let help = format!(
                "the repairs of a table outside the lake, or of a glob, are kept at the lake's root under the table's name: give `{}` another name \
                 than the location of `{}`, which is at {at}; if `{}` is within the lake, write it relative to the lake's root",
                table.name, other.name, table.location
            );
            self.error(place, message, help);
        }
    }
}

impl Checker<'_> {
    /// Checks that the profile of each other lake is there. What others include has no profiles, and steps within a map have those of their workflow.
    pub(super) fn lakes(&mut self) {
        let draft = self.draft;
        if draft.param_names.is_none() || !draft.workflow.items.is_empty() {
            return;
        }
        let known = || draft.workflow.profiles.keys().map(String::as_str);
        for (profile, place) in draft.lake_places.values().filter(|(profile, _)| !draft.workflow.profiles.contains_key(profile)) {
            let help = if draft.workflow.profiles.is_empty() {
                format!("add `profiles: {{ {profile}: {{ lake: local, with: {{ root: … }} }} }}`, which says where that lake is")
            } else {
                did_you_mean(profile, known()).unwrap_or_else(|| one_of(known()))
            };
            self.error(*place, format!("there is no profile {}", quoted(profile)), help);
        }
    }

    /// Checks that tables whose slots hold many rows, or that have none, are used only by plug-ins that can work on them, as far as their names
    /// are known.
    pub(super) fn rows(&mut self) {
        let (draft, registry) = (self.draft, self.registry);
        let tables = &draft.workflow.tables;
        let detect = |of: &str| match draft.workflow.step(of).map(|found| &found.kind) {
            Some(StepKind::Detect { with, plugin, .. }) => Some((plugin, tables.get(with.text_of("table")?)?)),
            _ => None,
        };
        let detector_of = |kind: &'_ StepKind| match kind {
            StepKind::Repair { of, .. } => match draft.workflow.step(of).map(|found| &found.kind) {
                Some(StepKind::Detect { plugin, .. }) => Some((of.clone(), plugin.clone())),
                _ => None,
            },
            _ => None,
        };
        let mut refused = Vec::new();
        for (step, places) in draft.workflow.steps.iter().zip(&draft.steps) {
            let found = match &step.kind {
                StepKind::Repair { of, .. } | StepKind::Aggregate { of: Some(of), .. } => {
                    detect(of).map(|(plugin, table)| (of, plugin, table))
                }
                _ => None,
            };
            if let (StepKind::Repair { .. }, Some((of, plugin, table))) = (&step.kind, found)
                && registry.get(PluginKind::Detector, plugin).is_some_and(|entry| entry.finds_wrong_rows)
                && let Err(error) =
                    table.check_replaceable(&format!("a repair of what `{of}` finds, which replaces the rows of a slot by one,"))
            {
                refused.push((places.of.unwrap_or(places.name), error));
                continue;
            }
            for ((kind, name, with), plugin) in step.kind.plugins().into_iter().zip(&places.plugins) {
                if let (PluginKind::Repairer, Some((of, detector))) = (kind, detector_of(&step.kind))
                    && let Err(error) = registry.check_repairs(name, &detector, &of)
                {
                    refused.push((plugin.name, error));
                    continue;
                }
                let named = with.text_of("table").and_then(|name| tables.get(name));
                let Some(table) = named.or(found.map(|(_, _, table)| table)) else { continue };
                let Some(entry) = registry.get(kind, name) else { continue };
                let of_rows = matches!(kind, PluginKind::Detector | PluginKind::Repairer | PluginKind::Aggregator);
                let needs_slots = if table.rows == Rows::Unique { of_rows && !entry.takes_unique_rows } else { entry.needs_one_row };
                let checked = if needs_slots { table.check_one_row(&format!("`{name}`")) } else { Ok(()) };
                let of_unique = || match (&step.kind, detector_of(&step.kind)) {
                    (StepKind::Repair { .. }, Some((of, detector))) if kind == PluginKind::Repairer && table.rows == Rows::Unique => {
                        registry.check_repairs_unique(name, &detector, &of, &table.name)
                    }
                    _ => Ok(()),
                };
                if let Err(error) = checked.and_then(|()| of_unique()).and_then(|()| entry.check_fits(&with.known(), table)) {
                    refused.push((plugin.name, error));
                }
            }
        }
        for (place, error) in refused {
            self.error(place, error.message(), None);
        }
    }

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

impl<'a> Checker<'a> {
    /// Checks that the tables that list the keys of others exist, have the columns, as far as these are known, and do not list each other's.
    pub(super) fn expected_keys(&mut self) {
        let draft: &'a _ = self.draft;
        let tables = &draft.workflow.tables;
        let lists = |name: &str| tables.get(name)?.keys.as_ref()?.table().map(|from| from.table.as_str());
        for (name, &node) in &draft.table_keys {
            let Some(from) = tables.get(*name).and_then(|table| table.keys.as_ref()?.table()) else { continue };
            let place = |key: &str| node.get(key).map_or(node.place, |node| node.place);
            self.names_something("table", &from.table, place("table"));
            if let Some(reference) = tables.get(&from.table) {
                self.has_columns(node, reference);
            }
            // Each round of a circle is reported at its first table, by name.
            let mut way = vec![*name];
            let mut at = lists(name);
            while let Some(next) = at.filter(|next| !way.contains(next)) {
                way.push(next);
                at = lists(next);
            }
            if at == Some(name) && way.len() > 1 && way.iter().all(|other| *name <= *other) {
                let way: Vec<String> = way.iter().chain([name]).map(|name| format!("`{name}`")).collect();
                let message = format!("tables list the expected keys of each other: {}", way.join(" from "));
                let help = "a series that never arrived in any of them would be overlooked; list the keys of one in `keys` or a table of their own";
                self.error(place("table"), message, help.to_owned());
            }
        }
    }

    /// Checks that a table has the columns that `keys` names, if the workflow says which columns it has.
    fn has_columns(&mut self, keys: &Node, reference: &Table) {
        let known = &reference.csv.names;
        if known.is_empty() {
            return;
        }
        let columns = match keys.get("columns").map(|node| &node.value) {
            Some(Yaml::List(items)) => items.iter().collect(),
            Some(_) => keys.get("columns").into_iter().collect(),
            None => Vec::new(),
        };
        let others = ["since", "until", "calendar", "cadence"].into_iter().filter_map(|name| keys.get(name));
        for node in columns.into_iter().chain(others) {
            let Some(column) = node.text() else { continue };
            let derived = column == reference.time || reference.key.iter().any(|key| key == column) || reference.rule(column).is_some();
            if !derived && !known.iter().any(|name| name.eq_ignore_ascii_case(column)) {
                let names = || known.iter().map(String::as_str);
                let help = did_you_mean(column, names()).unwrap_or_else(|| one_of(names()));
                self.error(node.place, format!("table `{}` has no column {}", reference.name, quoted(column)), help);
            }
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

/// Whether the overlay of a table lies beside it, as far as the text says: its location is a path below the lake's root.
fn is_beside(table: &Table) -> bool {
    let location = location(&table.location);
    let is_elsewhere = location.contains("://") || location.starts_with(['/', '\\']) || location.get(1..2) == Some(":");
    !is_elsewhere && !location.contains(['*', '?', '[']) && !location.is_empty() && location.split('/').next() != Some("..")
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
