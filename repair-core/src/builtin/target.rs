//! The table that an aggregator writes: one that the workflow declares, or one that its name implies.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::lake::overlay;
use crate::lake::replacement::check_format;
use crate::model::Table;

/// Reads an `into`, and makes those checks that do not need the tables of the workflow. For the field of a configuration, as
/// `#[serde(deserialize_with = "target::into_name")]`.
///
/// # Errors
/// If it is empty or, as the folder of a new table, could be outside the lake or hidden from readers.
pub fn into_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let into = String::deserialize(deserializer)?;
    let checked = if into.trim().is_empty() {
        Err(Error::invalid("`into` is empty; name the table to write"))
    } else {
        parts(&into).map_err(|why| refusal(&into, &into, &why))
    };
    checked.map(|_| into).map_err(|error| D::Error::custom(error.message()))
}

/// The table to write to: the workflow's table of that name, or `implied` if it has none.
///
/// Locations are compared as written. Only the lake knows whether an absolute location of another table leads back into it.
///
/// # Errors
/// `invalid` if captured data or an overlay could be overwritten: if the table has the name of an overlay table, lies outside the lake or
/// in a hidden folder, or if its location overlaps that of another table or overlay; or if it is no table of Parquet files.
pub fn target(tables: &BTreeMap<String, Table>, into: &str, read: Option<&str>, implied: impl FnOnce() -> Table) -> Result<Table> {
    if into.trim().is_empty() {
        return Err(Error::invalid("`into` is empty; name the table to write"));
    }
    let table = tables.get(into).cloned().unwrap_or_else(implied);
    if let Some(layout) = &table.layout {
        return Err(Error::invalid(format!(
            "`into: {into}` names a table whose folders follow the pattern `{}`, which is for reading; write a table with one Hive column, e.g. \
             `partition_by: [{{ date: day }}]`",
            layout.path
        )));
    }
    let place = parts(&table.location).map_err(|why| refusal(into, &table.location, &why))?;
    for other in tables.values() {
        if let Some(kept) = kept_beside(&other.name).into_iter().find(|kept| kept.eq_ignore_ascii_case(into)) {
            return Err(Error::invalid(format!(
                "`into: {into}` is the name of an overlay table of table `{}`, {kept}; choose another name",
                other.name
            )));
        }
        if other.name == table.name {
            if read == Some(&other.name) {
                return Err(would_overwrite(
                    into,
                    &table.location,
                    &format!("the location of table `{}`, which the step reads", other.name),
                ));
            }
            continue;
        }
        // If the table is outside the lake, its overlay is in the lake's own folder, under the table's name.
        let folder = within_lake(&other.location).unwrap_or_else(|| vec![other.name.clone()]);
        if within_lake(&other.location).is_some_and(|folder| overlap(&place, &folder)) {
            return Err(would_overwrite(
                into,
                &table.location,
                &format!("which overlaps `{}`, the location of table `{}`", other.location, other.name),
            ));
        }
        if let Some((last, parents)) = folder.split_last() {
            let beside = kept_beside(last).map(|name| parents.iter().cloned().chain([name]).collect::<Vec<_>>());
            if beside.iter().any(|beside| overlap(&place, beside)) {
                return Err(would_overwrite(into, &table.location, &format!("where the repairs of table `{}` are stored", other.name)));
            }
        }
    }
    check_format(&table)?;
    Ok(table)
}

fn would_overwrite(into: &str, location: &str, what: &str) -> Error {
    Error::invalid(format!("`into: {into}` would write to `{location}`, {what}; choose a folder of its own"))
}

fn refusal(into: &str, location: &str, why: &str) -> Error {
    Error::invalid(format!("`into: {into}` would write to `{location}`, which {why}; choose a folder within the lake, e.g. `hourly`"))
}

fn kept_beside(name: &str) -> [String; 4] {
    [overlay::repairs(name), overlay::exceptions(name), overlay::retractions(name), overlay::repaired_view(name)]
}

/// The parts of a location, if it may be written to; otherwise why it may not.
fn parts(location: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    for component in Path::new(location).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => return Err("has a part `..`".to_owned()),
            Component::RootDir | Component::Prefix(_) => return Err("is absolute".to_owned()),
            Component::Normal(part) => {
                let part = part.to_string_lossy();
                if part.starts_with('.') {
                    return Err(format!("has a hidden part, `{part}`"));
                }
                parts.push(part.into_owned());
            }
        }
    }
    if parts.is_empty() { Err("is the lake itself".to_owned()) } else { Ok(parts) }
}

/// The parts of a table's location, relative to the lake's folder; `None` if it is outside.
fn within_lake(location: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    for component in Path::new(location).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
        }
    }
    Some(parts)
}

/// Whether two locations are the same, or one lies within the other, ignoring case because some lakes do.
fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter().zip(other).all(|(one, other)| one.eq_ignore_ascii_case(other))
}
