//! The repairer `set`: gives wrong cells a fixed value, such as one that was agreed for what nobody knows.
//!
//! It never makes a row, and changes no cell that was not found wrong.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::builtin::repair::by_day;
use crate::builtin::repair::keep::units_of_keys;
use crate::error::{Error, Result};
use crate::lake::shape;
use crate::model::{DefectKind, Findings, Fix, Key, Rows, Table, Unit, Usage};
use crate::plugin::{PlannedUnits, PluginKind, Registry, Repairer, StepContext};

const NAME: &str = "set";

/// The configuration, `with`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetConfig {
    /// The value of each column: a number, text, or true or false. Wrong cells of other columns stay as they are.
    #[schemars(extend("minProperties" = 1))]
    values: BTreeMap<String, Value>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.repairer(NAME, "gives wrong cells a fixed value", Set::new);
    registry.needs_one_row(PluginKind::Repairer, NAME);
    registry.takes_unique_rows(PluginKind::Repairer, NAME);
    registry.repairs_only(NAME, &[DefectKind::Invalid, DefectKind::Different]);
    registry.fits(PluginKind::Repairer, NAME, |with, table| {
        let named = with.get("values").and_then(Value::as_object).into_iter().flat_map(|values| values.keys());
        named.map(String::as_str).try_for_each(|column| check_column(table, column))
    });
}

/// Checks that a column is not one by which a row is identified.
fn check_column(table: &Table, column: &str) -> Result<()> {
    let is_own = |name: &str| name.eq_ignore_ascii_case(column);
    if is_own(&table.time) || table.key.iter().any(|key| is_own(key)) {
        return Err(Error::invalid(format!(
            "`values` names column `{column}`, by which rows of table `{}` are identified, so it cannot be repaired; remove it there",
            table.name
        )));
    }
    Ok(())
}

/// The repairer `set`.
#[derive(Debug)]
struct Set {
    values: BTreeMap<String, Value>,
}

impl Set {
    fn new(config: SetConfig) -> Result<Self> {
        if config.values.is_empty() {
            return Err(Error::invalid("`values` is empty, so nothing would be repaired; name columns, e.g. `values: { amount: 0 }`"));
        }
        let odd = config.values.iter().find(|(_, value)| !(value.is_number() || value.is_string() || value.is_boolean()));
        match odd {
            Some((column, value)) => {
                Err(Error::invalid(format!("the value of `{column}` is {value}, and must be a number, text, or true or false")))
            }
            None => Ok(Self { values: config.values }),
        }
    }

    /// The values as the table holds them, each as a column of one row.
    fn columns(&self, table: &Table, schema: &Schema) -> Result<Vec<(String, ArrayRef)>> {
        let of_column = |(name, value): (&String, &Value)| {
            check_column(table, name)?;
            let field = shape::find(schema, name).map_err(|error| error.on("table", &table.name))?.ok_or_else(|| {
                Error::invalid(format!("`values` names column `{name}`, and table `{}` has none; {}", table.name, shape::names(schema)))
            })?;
            let typed = typed(value, field.data_type()).ok_or_else(|| {
                let kind = field.data_type();
                Error::invalid(format!(
                    "{value} is no value of column `{name}` of table `{}`, which is {kind}; correct it under `values`",
                    table.name
                ))
            })?;
            Ok((field.name().clone(), typed))
        };
        self.values.iter().map(of_column).collect()
    }
}

/// A value of a type; `None` if the type does not hold it exactly.
fn typed(value: &Value, kind: &DataType) -> Option<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let text = match value {
        Value::Bool(value) => return (*kind == DataType::Boolean).then(|| Arc::new(BooleanArray::from(vec![*value])) as ArrayRef),
        Value::Number(number) if kind.is_numeric() => {
            let text = number.to_string();
            let digits = text.split_once('.').map_or("", |(_, digits)| digits);
            match kind {
                DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)
                    if text.contains(['e', 'E']) || digits.len() > usize::try_from(*scale).unwrap_or(0) =>
                {
                    return None;
                }
                // 5.0 is a whole number.
                kind if kind.is_integer() => text.strip_suffix(".0").unwrap_or(&text).to_owned(),
                _ => text,
            }
        }
        Value::String(text) if !kind.is_numeric() && *kind != DataType::Boolean => text.clone(),
        _ => return None,
    };
    let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
    cast_with_options(&text, kind, &strict).ok().filter(|value| value.is_valid(0))
}

#[async_trait]
impl Repairer for Set {
    /// There is no source to call.
    fn worst(&self, _: &StepContext, _: &Unit) -> Usage {
        Usage::default()
    }

    async fn plan(&self, context: &StepContext, findings: &Findings) -> Result<PlannedUnits> {
        let kind = findings.kind;
        if !matches!(kind, DefectKind::Invalid | DefectKind::Different) {
            let what = kind.as_str();
            return Err(Error::invalid(format!("`set` repairs wrong cells, and these findings are {what} slots; use another repairer")));
        }
        let table = context.table(&findings.scope.table)?;
        self.columns(table, context.lake.describe(table).await?.as_ref())?;
        Ok(if table.rows == Rows::Unique { units_of_keys(findings) } else { by_day::units(findings.scope.grid, findings.gaps.iter()) })
    }

    async fn repair(&self, context: &StepContext, findings: &Findings, unit: &Unit) -> Result<Fix> {
        context.check_cancelled()?;
        let table = context.table(&findings.scope.table)?;
        let grid = table.identity().grid();
        let columns = self.columns(table, context.lake.describe(table).await?.as_ref())?;
        let named: HashSet<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut fix = Fix { source: NAME.to_owned(), ..Fix::default() };
        let (mut keys, mut times_us): (Vec<&Key>, Vec<i64>) = (Vec::new(), Vec::new());
        for wanted in &unit.wanted {
            for slot in wanted.slots.iter().flat_map(|slots| slots.first..slots.end) {
                match findings.cells.get(&wanted.key, slot) {
                    Some(cells) if cells.columns.iter().any(|column| named.contains(column.as_str())) => {
                        keys.push(&wanted.key);
                        times_us.push(grid.time_of(slot).as_microsecond());
                    }
                    Some(_) => {}
                    None => {
                        let time = grid.time_of(slot);
                        fix.conflicts
                            .add(format!("{} at {time}: the whole row is wrong, and `set` gives values to cells only", wanted.key));
                    }
                }
            }
        }
        if keys.is_empty() {
            return Ok(fix);
        }
        let same = UInt32Array::from(vec![0; keys.len()]);
        let mut fields: Vec<Field> = Vec::new();
        let mut values: Vec<ArrayRef> = Vec::new();
        for (at, name) in table.key.iter().enumerate() {
            fields.push(shape::key_field(name));
            values.push(Arc::new(keys.iter().map(|key| key.values().nth(at)).collect::<StringArray>()));
        }
        fields.push(shape::time_field(table));
        values.push(by_day::time_column(times_us));
        for (name, value) in &columns {
            fields.push(Field::new(name, value.data_type().clone(), true));
            values.push(take(value, &same, None)?);
        }
        fix.rows.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?);
        Ok(fix)
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_held_exactly_or_refused() {
        let decimal = DataType::Decimal128(10, 2);
        for (value, kind, held) in [
            (json!(0), DataType::Int64, Some("0")),
            (json!(5.0), DataType::Int32, Some("5")),
            (json!(1.5), DataType::Int64, None),
            (json!(300), DataType::Int8, None),
            (json!(0.1), DataType::Float64, Some("0.1")),
            (json!(0.25), decimal.clone(), Some("0.25")),
            (json!(0.125), decimal, None),
            (json!("unknown"), DataType::Utf8, Some("unknown")),
            (json!("2024-03-04"), DataType::Date32, Some("2024-03-04")),
            (json!("soon"), DataType::Date32, None),
            (json!("5"), DataType::Int64, None),
            (json!(5), DataType::Utf8, None),
            (json!(true), DataType::Boolean, Some("true")),
            (json!(1), DataType::Boolean, None),
        ] {
            let found = typed(&value, &kind).map(|array| array_value_to_string(&array, 0).unwrap());
            assert_eq!(found.as_deref(), held, "{value} as {kind}");
        }
    }
}
