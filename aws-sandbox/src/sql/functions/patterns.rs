//! Regular expressions in Java's syntax, as far as it is also that of the `regex` crate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use regex::Regex;

use super::{Function, bad_argument, bad_type};

pub(super) fn functions() -> impl Iterator<Item = Function> {
    [Function::new("regexp_extract", (2, 3), |kinds, _| text_type(kinds), regexp_extract)].into_iter()
}

fn text_type(kinds: &[DataType]) -> Result<DataType> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::Null);
    let is_group = kinds.get(2).is_none_or(DataType::is_integer);
    if kinds.iter().take(2).all(is_text) && is_group { Ok(DataType::Utf8) } else { Err(bad_type("regexp_extract", kinds)) }
}

/// How many patterns a thread keeps. A statement has a few, and they are the same for each batch of its rows.
const KEPT: usize = 256;

thread_local! {
    static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// The compiled pattern. A clone of it is cheap.
fn compiled(pattern: &str) -> Result<Regex> {
    COMPILED.with_borrow_mut(|kept| {
        if let Some(regex) = kept.get(pattern) {
            return Ok(regex.clone());
        }
        let regex = Regex::new(pattern).map_err(|error| bad_argument(error.to_string()))?;
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(pattern.to_owned(), regex.clone());
        Ok(regex)
    })
}

/// The first match, or a group of it; null if there is no match, or if the group has no part in it.
fn regexp_extract(columns: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let texts = cast(&columns[0], &DataType::Utf8)?;
    let patterns = cast(&columns[1], &DataType::Utf8)?;
    let groups = columns.get(2).map(|groups| cast(groups, &DataType::Int64)).transpose()?;
    let groups = groups.as_ref().map(|groups| groups.as_primitive::<Int64Type>());
    let mut known: HashMap<&str, Regex> = HashMap::new();
    let mut found = Vec::with_capacity(texts.len());
    let patterns = patterns.as_string::<i32>();
    for (row, (text, pattern)) in texts.as_string::<i32>().iter().zip(patterns).enumerate() {
        let (Some(text), Some(pattern)) = (text, pattern) else {
            found.push(None);
            continue;
        };
        if !known.contains_key(pattern) {
            known.insert(pattern, compiled(pattern)?);
        }
        let group = groups.map_or(Some(0), |groups| usize::try_from(groups.value(row)).ok());
        let regex = &known[pattern];
        let Some(group) = group.filter(|group| *group < regex.captures_len()) else {
            return Err(bad_argument(format!("Pattern has {} groups. Cannot access group {group:?}", regex.captures_len() - 1)));
        };
        found.push(regex.captures(text).and_then(|captures| Some(captures.get(group)?.as_str().to_owned())));
    }
    Ok(Arc::new(StringArray::from(found)))
}
