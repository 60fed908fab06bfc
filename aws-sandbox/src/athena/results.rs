//! Results as Athena writes them: a CSV object for queries, a text object for `SHOW` and the like; and the pages of `GetQueryResults`.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::sql::{Answer, Kind, ResultColumn, athena_name};

/// Whether the first row of a result holds the names of its columns, as it does for queries.
pub(super) fn has_header(answer: &Answer) -> bool {
    answer.kind == Kind::Dml
}

/// The ending of the result's object.
pub(super) fn extension(kind: Kind) -> &'static str {
    match kind {
        Kind::Dml => "csv",
        Kind::Ddl | Kind::Utility => "txt",
    }
}

/// The bytes of the result's object.
pub(super) fn object(answer: &Answer) -> Bytes {
    let mut text = String::new();
    if has_header(answer) {
        let quoted = |value: &str| format!("\"{}\"", value.replace('"', "\"\""));
        let names: Vec<String> = answer.columns.iter().map(|column| quoted(&column.name)).collect();
        text.push_str(&names.join(","));
        text.push('\n');
        for row in &answer.rows {
            // Null is empty without quotes, an empty text is two quotes.
            let values: Vec<String> = row.iter().map(|value| value.as_deref().map(quoted).unwrap_or_default()).collect();
            text.push_str(&values.join(","));
            text.push('\n');
        }
    } else {
        for row in &answer.rows {
            let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
            text.push_str(&values.join("\t"));
            text.push('\n');
        }
    }
    Bytes::from(text)
}

/// The bytes of the metadata object beside it. Athena's format is not published, so this is the metadata that `GetQueryResults` returns.
pub(super) fn metadata_object(answer: &Answer) -> Bytes {
    Bytes::from(metadata(answer).to_string())
}

fn metadata(answer: &Answer) -> Value {
    json!({ "ColumnInfo": answer.columns.iter().map(column_info).collect::<Vec<_>>() })
}

fn column_info(column: &ResultColumn) -> Value {
    let kind = athena_name(&column.kind);
    let (precision, scale) = sizes(&kind, &column.kind);
    json!({
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": column.name,
        "Label": column.name,
        "Type": kind,
        "Precision": precision,
        "Scale": scale,
        "Nullable": "UNKNOWN",
        "CaseSensitive": matches!(kind.as_str(), "varchar" | "char" | "string"),
    })
}

/// Precision and scale as Athena reports them.
fn sizes(kind: &str, trino: &str) -> (u64, u64) {
    match kind {
        "tinyint" => (3, 0),
        "smallint" => (5, 0),
        "integer" => (10, 0),
        "bigint" => (19, 0),
        "float" | "double" => (17, 0),
        "timestamp" | "timestamp with time zone" => (3, 0),
        "varchar" | "string" => (2_147_483_647, 0),
        "decimal" => {
            let inside = trino.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
            let mut numbers = inside.split(',').map(|number| number.trim().parse().unwrap_or(0));
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
        }
        _ => (0, 0),
    }
}

/// One page of a result: rows from `from` on, at most `limit`, the header counted as a row.
pub(super) fn page(answer: &Answer, from: usize, limit: usize) -> (Value, Option<usize>) {
    let header = usize::from(has_header(answer));
    let total = answer.rows.len() + header;
    let end = from.saturating_add(limit).min(total);
    let rows: Vec<Value> = (from.min(end)..end)
        .map(|index| {
            let data: Vec<Value> = match index.checked_sub(header) {
                None => answer.columns.iter().map(|column| json!({ "VarCharValue": column.name })).collect(),
                // A null has no value member.
                Some(row) => {
                    answer.rows[row].iter().map(|value| value.as_ref().map_or(json!({}), |text| json!({ "VarCharValue": text }))).collect()
                }
            };
            json!({ "Data": data })
        })
        .collect();
    let page = json!({ "ResultSet": { "Rows": rows, "ResultSetMetadata": metadata(answer) }, "UpdateCount": 0 });
    (page, (end < total).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind) -> Answer {
        let column = |name: &str, kind: &str| ResultColumn { name: name.to_owned(), kind: kind.to_owned() };
        Answer {
            kind,
            sub_kind: "SELECT",
            columns: vec![column("a", "varchar"), column("b", "decimal(10,2)")],
            rows: vec![vec![Some("x\"y".to_owned()), None], vec![Some(String::new()), Some("1.50".to_owned())]],
        }
    }

    #[test]
    fn csv_quotes_everything_but_null() {
        assert_eq!(object(&answer(Kind::Dml)), "\"a\",\"b\"\n\"x\"\"y\",\n\"\",\"1.50\"\n");
        assert_eq!(object(&answer(Kind::Utility)), "x\"y\t\n\t1.50\n");
    }

    #[test]
    fn pages_begin_with_the_header_and_leave_null_out() {
        let (first, next) = page(&answer(Kind::Dml), 0, 2);
        assert_eq!(first.pointer("/ResultSet/Rows/0/Data/0/VarCharValue"), Some(&json!("a")));
        assert_eq!(first.pointer("/ResultSet/Rows/1/Data/1"), Some(&json!({})));
        assert_eq!(first.pointer("/ResultSet/ResultSetMetadata/ColumnInfo/1/Scale"), Some(&json!(2)));
        assert_eq!(next, Some(2));
        let (last, next) = page(&answer(Kind::Dml), 2, 1_000);
        assert_eq!(last.pointer("/ResultSet/Rows/0/Data/0/VarCharValue"), Some(&json!("")));
        assert_eq!(next, None);
    }
}
