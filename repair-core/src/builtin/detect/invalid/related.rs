//! The values that a column may have because another table lists them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;

use crate::builtin::detect::expected::blind_if_missing;
use crate::builtin::detect::invalid::rule::{ColumnOf, OneOf, Rule};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::shape::{self, is_text};
use crate::lake::{Layer, ScanRequest, rollup};
use crate::plugin::StepContext;

/// The most values of one column, so that they stay within some hundred megabytes.
const MOST_VALUES: usize = 5_000_000;

/// Reads the values that rules allow because another table has them, in its repaired view.
///
/// # Errors
/// `blind` if a table is not there, or has no value at all: then nothing can be said of the rows that should refer to it. `invalid` if it lacks the column,
/// or has too many values.
pub(super) async fn read(context: &StepContext, rules: &mut [Rule]) -> Result<()> {
    for of in rules.iter_mut().filter_map(|rule| rule.one_of.as_mut()) {
        if let OneOf::Column(column) = of {
            *of = OneOf::Values(Arc::new(values(context, column).await?));
        }
    }
    Ok(())
}

async fn values(context: &StepContext, of: &ColumnOf) -> Result<HashSet<String>> {
    let table = context.table(&of.table)?;
    let schema = context.lake.describe(table).await.map_err(blind_if_missing)?;
    let field = shape::find(&schema, &of.column).map_err(|error| error.on("table", &table.name))?.ok_or_else(|| {
        let names = shape::names(&schema);
        Error::invalid(format!("a rule refers to column `{}`, which table `{}` does not have; {names}", of.column, table.name))
    })?;
    let name = field.name().clone();
    let is_time = name == table.time;
    if is_time {
        return Err(Error::invalid(format!(
            "a rule refers to column `{name}`, the time of table `{}`; refer to another column",
            table.name
        )));
    }
    let request = ScanRequest::new(Layer::Repaired).with_columns(vec![name.clone()]);
    let mut rows = context.lake.scan(table, &request).await.map_err(blind_if_missing)?;
    let mut all = HashSet::new();
    while let Some(batch) = rows.try_next().await? {
        context.check_cancelled()?;
        let texts = comparable(&name, rollup::column(&batch, &name)?)?;
        for text in texts.iter().flatten().filter(|text| !text.is_empty()) {
            if !all.contains(text) {
                all.insert(text.to_owned());
            }
        }
        if all.len() > MOST_VALUES {
            return Err(Error::invalid(format!(
                "column `{name}` of table `{}` has more than {MOST_VALUES} different values, which are too many to compare with; use `detect: sql`",
                table.name
            )));
        }
    }
    if all.is_empty() {
        return Err(Error::new(
            ErrorKind::Blind,
            format!("column `{name}` of table `{}` has no value, so it cannot be said which rows refer to one", table.name),
        ));
    }
    Ok(all)
}

/// Values of a column in a form in which those of two tables can be compared: texts, whole numbers, dates, true and false.
///
/// # Errors
/// `invalid` for a column of another type.
pub(super) fn comparable(name: &str, values: &ArrayRef) -> Result<StringArray> {
    let kind = values.data_type();
    let is_exact = is_text(kind) || kind.is_integer() || matches!(kind, DataType::Date32 | DataType::Boolean);
    if !is_exact {
        return Err(Error::invalid(format!(
            "the rule for column `{name}` compares it with a column of another table, and the column is {kind}; only texts, whole numbers, dates and \
             booleans are compared"
        )));
    }
    Ok(cast(values, &DataType::Utf8)?.as_string::<i32>().clone())
}
