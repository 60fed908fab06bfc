//! Where the rows are in a reply: in a list, by key, by time, in parallel lists, or where an expression finds them. Pure.

use std::collections::BTreeMap;

use repair_core::text::visible;
use repair_core::workflow::{Expression, Variables};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::answers::check_pointer;
use crate::rows;

/// How many characters of a header are shown.
const SHOWN_CHARS: usize = 80;

/// How many rows one page may have.
const MOST_ROWS: usize = 1_000_000;

/// Below this, a float has every whole number, and JSONata computes with floats.
const EXACT_WHOLE: f64 = 9_007_199_254_740_992.0;

/// What to do about an answer that has nothing where its rows belong.
const NOTHING: &str = "if that is how it says that there are none, add `optional: true` to `rows`, or a rule to `answers`";

/// Where the rows are in a reply.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RowsConfig {
    /// The place in the body, as a JSON Pointer such as `/results`; by default the whole body.
    pub at: Option<String>,
    /// Whether an answer without rows may have nothing there, or null; of CSV, not even a header. Otherwise it is refused, since it may be an error, or a page of another form.
    pub optional: bool,
    /// Whether there is an object by key, and the name of the field for the key that each row then gets.
    pub by_key: Option<String>,
    /// Whether there is an object by time, and the name of the field for the time that each row then gets.
    pub by_time: Option<String>,
    /// Fields that each row gets from elsewhere in the body: a name, and its place as a JSON Pointer. So what an answer says it is about is compared with
    /// what was asked for.
    pub shared: BTreeMap<String, String>,
    /// Whether there are lists that run in parallel, one for each field.
    pub arrays: bool,
    /// An expression (JSONata) that finds the rows in `$output`, the body.
    pub jsonata: Option<String>,
    /// Whether the body is CSV with a header, and not JSON.
    pub csv: bool,
}

/// Where the rows are.
pub(super) enum Shape {
    Json { at: String, by_key: Option<String>, by_time: Option<String>, arrays: bool, shared: BTreeMap<String, String>, optional: bool },
    Expression { expression: Expression, optional: bool },
    Csv { optional: bool },
}

/// The beginning of a text, for messages.
fn shortened(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// A row as an API has it.
pub(super) type Fields = Map<String, Value>;

impl Shape {
    pub(super) fn new(config: &RowsConfig) -> Result<Self> {
        let RowsConfig { at, optional, by_key, by_time, shared, arrays, jsonata, csv } = config.clone();
        let forms = usize::from(by_time.is_some()) + usize::from(arrays);
        let is_json = at.is_some() || by_key.is_some() || !shared.is_empty() || forms > 0;
        if (csv && (is_json || jsonata.is_some())) || (jsonata.is_some() && is_json) || forms > 1 {
            return Err(Error::invalid(
                "`rows` says in several ways where the rows are; keep one of `csv`, `jsonata`, `by_time` and `arrays`",
            ));
        }
        if csv {
            return Ok(Self::Csv { optional });
        }
        if let Some(text) = jsonata {
            let text = text.trim().strip_prefix("{%").and_then(|text| text.strip_suffix("%}")).unwrap_or(&text).to_owned();
            return Ok(Self::Expression { expression: Expression::parse(&text)?, optional });
        }
        let at = at.unwrap_or_default();
        shared.values().chain([&at]).try_for_each(|at| check_pointer(at))?;
        Ok(Self::Json { at, by_key, by_time, arrays, shared, optional })
    }

    pub(super) fn is_csv(&self) -> bool {
        matches!(self, Self::Csv { .. })
    }

    /// What a body says of a field that each of its rows would get.
    pub(super) fn shared<'b>(&self, field: &str, body: &'b Value) -> Option<&'b Value> {
        match self {
            Self::Json { shared, .. } => body.pointer(shared.get(field)?).filter(|value| !value.is_null()),
            _ => None,
        }
    }

    /// Where a row is, for messages.
    pub(super) fn place(&self, rows: &[Fields], index: usize) -> String {
        let field = |name: &Option<String>| {
            let value = rows.get(index)?.get(name.as_deref()?)?.as_str()?;
            Some(format!("/{}", value.replace('~', "~0").replace('/', "~1")))
        };
        match self {
            Self::Csv { .. } => format!("in row {}", index + 1),
            Self::Expression { .. } => format!("in row {} of what `jsonata` finds", index + 1),
            Self::Json { at, by_key, by_time, arrays, .. } => {
                let key = field(by_key).unwrap_or_default();
                let is_of_key =
                    |row: &&Fields| by_key.as_ref().is_none_or(|name| row.get(name) == rows.get(index).and_then(|own| own.get(name)));
                let number = rows.iter().take(index).rev().take_while(is_of_key).count();
                match field(by_time) {
                    Some(time) => format!("at `{at}{key}{time}`"),
                    None if *arrays && at.is_empty() && key.is_empty() => format!("in row {} of the lists", number + 1),
                    None if *arrays => format!("in row {} of the lists at `{at}{key}`", number + 1),
                    None => format!("at `{at}{key}/{number}`"),
                }
            }
        }
    }

    /// The rows of a body of CSV, whose header must have these columns.
    ///
    /// # Errors
    /// `invalid` if it has not, or is no CSV.
    pub(super) fn rows_of_csv<'a>(&self, body: &[u8], columns: impl Iterator<Item = &'a str>) -> Result<Vec<Fields>> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if body.iter().all(u8::is_ascii_whitespace) {
            return match self {
                Self::Csv { optional: true } => Ok(Vec::new()),
                _ => Err(Error::invalid(
                    "nothing, where CSV with a header belongs; if that is how it says that there are no rows, add `optional: true` to `rows`",
                )),
            };
        }
        rows::refuse_open_quote(body)?;
        let broken = |error: csv::Error| Error::invalid(format!("something that is not CSV ({error})"));
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(body);
        let names: Vec<String> = reader.headers().map_err(broken)?.iter().map(|name| name.trim().to_owned()).collect();
        // What has no such header may be a page of another kind, such as one that says what is wrong.
        if let Some(column) = columns.into_iter().find(|column| !names.iter().any(|name| name == column)) {
            return Err(Error::invalid(format!("no column `{column}` in the header `{}`", visible(&shortened(&names.join(","))))));
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(broken)?;
            let value = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
            rows.push(names.iter().cloned().zip(record.iter().map(value)).collect());
        }
        Ok(rows)
    }

    /// The rows of a body of JSON, which are taken out of it.
    ///
    /// # Errors
    /// `invalid` if what is there are no rows.
    pub(super) fn rows(&self, body: &mut Value) -> Result<Vec<Fields>> {
        let rows = match self {
            Self::Csv { .. } => Err(Error::internal("a body of CSV is read as JSON")),
            Self::Expression { expression, optional } => {
                let found = expression.evaluate(&Variables { output: body.clone(), ..Variables::default() })?;
                if found.is_null() && !optional {
                    return Err(Error::invalid(format!("nothing where the expression of `jsonata` looks; {NOTHING}")));
                }
                // An expression that finds one thing returns it without a list.
                let rows = list(if found.is_object() { Value::Array(vec![found]) } else { found }, "the expression")?;
                match rows.iter().flatten().find(|(_, value)| value.as_f64().is_some_and(|number| number.abs() >= EXACT_WHOLE)) {
                    None => Ok(rows),
                    Some((name, value)) => Err(Error::invalid(format!(
                        "a `{name}` of {value}, and `jsonata` keeps all digits of whole numbers only below 2^53; find the rows with `at`, or have this sent as a text"
                    ))),
                }
            }
            Self::Json { at, by_key, by_time, arrays, shared, optional } => {
                let shared: Vec<(String, Value)> =
                    shared.iter().map(|(name, at)| (name.clone(), body.pointer(at).cloned().unwrap_or(Value::Null))).collect();
                let there = if at.is_empty() { body.clone() } else { body.pointer_mut(at).map(Value::take).unwrap_or_default() };
                let place = if at.is_empty() { "the body" } else { at.as_str() };
                let rows: Result<Vec<Fields>> = match (by_key, there) {
                    (_, Value::Null) if *optional => Ok(Vec::new()),
                    (_, Value::Null) => Err(Error::invalid(format!("nothing at `{place}`, where rows belong; {NOTHING}"))),
                    (None, there) => of_key(there, by_time.as_deref(), *arrays, place),
                    (Some(name), Value::Object(keys)) => {
                        let mut all = Vec::new();
                        for (key, there) in keys {
                            for mut row in of_key(there, by_time.as_deref(), *arrays, place)? {
                                row.insert(name.clone(), key.clone().into());
                                all.push(row);
                            }
                        }
                        Ok(all)
                    }
                    (Some(_), other) => Err(odd(place, "an object by key", &other)),
                };
                rows.map(|mut rows| {
                    rows.iter_mut().for_each(|row| row.extend(shared.iter().cloned()));
                    rows
                })
            }
        }?;
        if rows.len() > MOST_ROWS {
            return Err(Error::invalid(format!("{} rows in one page; at most {MOST_ROWS} are read", rows.len())));
        }
        Ok(rows)
    }
}

fn odd(place: &str, wanted: &str, found: &Value) -> Error {
    let what = match found {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Error::invalid(format!("{what} at `{place}`, where {wanted} belongs"))
}

fn list(found: Value, place: &str) -> Result<Vec<Fields>> {
    match found {
        Value::Null => Ok(Vec::new()),
        Value::Array(rows) => rows
            .into_iter()
            .map(|row| match row {
                Value::Object(row) => Ok(row),
                other => Err(odd(place, "a list of objects", &other)),
            })
            .collect(),
        other => Err(odd(place, "a list of rows", &other)),
    }
}

/// The rows of one key.
fn of_key(there: Value, by_time: Option<&str>, arrays: bool, place: &str) -> Result<Vec<Fields>> {
    match (there, by_time, arrays) {
        (Value::Null, ..) => Ok(Vec::new()),
        (Value::Object(times), Some(name), _) => {
            // In order of their texts, since an object has no order.
            let times: BTreeMap<String, Value> = times.into_iter().collect();
            times
                .into_iter()
                .map(|(time, row)| match row {
                    Value::Object(mut row) => {
                        row.insert(name.to_owned(), time.into());
                        Ok(row)
                    }
                    other => Err(odd(place, "an object of objects", &other)),
                })
                .collect()
        }
        (Value::Object(lists), None, true) => {
            let lists: Vec<(String, Vec<Value>)> = lists
                .into_iter()
                .filter_map(|(name, list)| match list {
                    Value::Array(list) => Some((name, list)),
                    _ => None,
                })
                .collect();
            let length = lists.first().map_or(0, |(_, list)| list.len());
            if let Some((name, list)) = lists.iter().find(|(_, list)| list.len() != length) {
                return Err(Error::invalid(format!("lists of different lengths: `{name}` has {}, and others have {length}", list.len())));
            }
            let mut rows = vec![Fields::new(); length];
            for (name, list) in lists {
                for (row, value) in rows.iter_mut().zip(list) {
                    row.insert(name.clone(), value);
                }
            }
            Ok(rows)
        }
        (other, Some(_), _) => Err(odd(place, "an object by time", &other)),
        (other, None, true) => Err(odd(place, "an object of lists", &other)),
        (other, None, false) => list(other, place),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(config: Value) -> Result<Shape> {
        Shape::new(&serde_json::from_value(config).unwrap())
    }

    fn rows(config: Value, mut body: Value) -> Result<Vec<Fields>> {
        shape(config)?.rows(&mut body)
    }

    #[test]
    fn rows_are_found_wherever_they_are() {
        let expected = json!([{ "t": 1, "v": 5 }, { "t": 2, "v": 6 }]);
        for (config, body) in [
            (json!({}), expected.clone()),
            (json!({ "at": "/a/b" }), json!({ "a": { "b": expected } })),
            (json!({ "arrays": true }), json!({ "t": [1, 2], "v": [5, 6], "s": "ok" })),
            (
                json!({ "jsonata": "$output.x.{ 't': $number(time), 'v': value }" }),
                json!({ "x": [{ "time": "1", "value": 5 }, { "time": "2", "value": 6 }] }),
            ),
            (json!({ "jsonata": "{% $output.x %}" }), json!({ "x": expected })),
        ] {
            assert_eq!(json!(rows(config.clone(), body).unwrap()), expected, "{config}");
        }
        let by = rows(json!({ "by_key": "k", "by_time": "t" }), json!({ "A": { "2": { "v": 6 }, "1": { "v": 5 } } })).unwrap();
        assert_eq!(json!(by), json!([{ "v": 5, "t": "1", "k": "A" }, { "v": 6, "t": "2", "k": "A" }]));
        let about =
            rows(json!({ "at": "/rows", "shared": { "of": "/meta/name" } }), json!({ "meta": { "name": "A" }, "rows": [{ "v": 1 }] }))
                .unwrap();
        assert_eq!(json!(about), json!([{ "v": 1, "of": "A" }]));
        assert_eq!(rows(json!({ "jsonata": "$output.one" }), json!({ "one": { "v": 1 } })).unwrap().len(), 1);
        for nothing in [json!({}), json!({ "at": null }), json!({ "results": null }), json!({ "error": "slow down" })] {
            for rows_at in
                [json!({ "at": "/results" }), json!({ "jsonata": "$output.results" }), json!({ "at": "/results", "by_key": "k" })]
            {
                let refused = rows(rows_at.clone(), nothing.clone()).unwrap_err();
                assert!(refused.message().contains("add `optional: true` to `rows`"), "{rows_at} {nothing}: {refused}");
                let mut optional = rows_at;
                optional["optional"] = true.into();
                assert_eq!(rows(optional, nothing.clone()).unwrap(), [] as [Fields; 0]);
            }
        }
    }

    #[test]
    fn messages_say_where_a_row_is() {
        let of_keys = json!({ "bars": { "A": [{}, {}], "B/C": [{}, {}, {}] } });
        let of_times = json!({ "A": { "10:00": {}, "11:00": {} } });
        for (config, body, index, place) in [
            (json!({ "at": "/bars", "by_key": "k" }), of_keys.clone(), 1, "at `/bars/A/1`"),
            (json!({ "at": "/bars", "by_key": "k" }), of_keys, 4, "at `/bars/B~1C/2`"),
            (json!({ "by_key": "k", "by_time": "t" }), of_times, 1, "at `/A/11:00`"),
            (json!({}), json!([{}, {}]), 1, "at `/1`"),
            (json!({ "at": "/r" }), json!({ "r": [{}] }), 0, "at `/r/0`"),
            (json!({ "arrays": true }), json!({ "t": [1, 2] }), 1, "in row 2 of the lists"),
            (json!({ "jsonata": "$output" }), json!([{ "a": 1 }, { "a": 2 }]), 1, "in row 2 of what `jsonata` finds"),
        ] {
            let found = rows(config.clone(), body).unwrap();
            assert_eq!(shape(config.clone()).unwrap().place(&found, index), place, "{config}");
        }
    }

    #[test]
    fn what_are_no_rows_is_refused() {
        for (config, body, why) in [
            (json!({}), json!({ "message": "x" }), "an object at `the body`, where a list of rows belongs"),
            (json!({ "at": "/a" }), json!({ "a": [1] }), "a number at `/a`, where a list of objects belongs"),
            (json!({ "arrays": true }), json!({ "t": [1, 2], "v": [5] }), "lists of different lengths"),
            (json!({ "by_key": "k" }), json!([1]), "where an object by key belongs"),
            (json!({ "by_time": "t" }), json!([1]), "where an object by time belongs"),
            (json!({ "at": "a.b" }), json!({}), "write a JSON Pointer, such as `/a/b`"),
            (json!({ "csv": true, "at": "/a" }), json!({}), "in several ways"),
            (json!({ "jsonata": "$output" }), json!([{ "n": 9_007_199_254_740_993_u64 }]), "only below 2^53"),
        ] {
            assert!(rows(config.clone(), body).unwrap_err().to_string().contains(why), "{config}");
        }
    }
}
