//! A real Trino as the engine: its REST protocol, with answers in Athena's form.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;

use super::engine::{Answer, CATALOG, Kind, ResultColumn};
use super::error::{Category, QueryError};
use super::scanned::Scanned;
use super::text::double;

/// One page of a result is a few megabytes at most.
const PAGE_LIMIT_BYTES: usize = 256 * 1_024 * 1_024;

/// A Trino server.
#[derive(Debug, Clone)]
pub(crate) struct Trino {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Page {
    next_uri: Option<String>,
    columns: Option<Vec<Column>>,
    data: Option<Vec<Vec<Value>>>,
    error: Option<Failure>,
    stats: Stats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    physical_input_bytes: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Failure {
    message: String,
    error_name: String,
    error_type: String,
}

fn unreachable(url: &str, why: &dyn std::fmt::Display) -> QueryError {
    QueryError::system("GENERIC_INTERNAL_ERROR", format!("the Trino at {url} did not answer: {why}"))
}

impl Trino {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Makes Trino read from the sandbox at this endpoint: Glue and S3 are both there, and any credentials work. The catalog has Athena's
    /// name, because views are stored with the name of the catalog that they were created in.
    ///
    /// A Trino therefore belongs to the sandbox that was started last.
    pub(crate) async fn attach(&self, endpoint: &str) -> Result<(), QueryError> {
        let properties = [
            ("hive.metastore", "glue"),
            ("hive.metastore.glue.endpoint-url", endpoint),
            ("hive.metastore.glue.region", "us-east-1"),
            ("hive.metastore.glue.aws-access-key", "sandbox"),
            ("hive.metastore.glue.aws-secret-key", "sandbox"),
            ("fs.hadoop.enabled", "false"),
            ("fs.native-s3.enabled", "true"),
            ("s3.endpoint", endpoint),
            ("s3.region", "us-east-1"),
            ("s3.path-style-access", "true"),
            ("s3.aws-access-key", "sandbox"),
            ("s3.aws-secret-key", "sandbox"),
            ("hive.non-managed-table-writes-enabled", "true"),
            ("hive.partition-projection-enabled", "true"),
            ("hive.recursive-directories", "true"),
            ("hive.timestamp-precision", "MILLISECONDS"),
        ];
        let properties: Vec<String> = properties.iter().map(|(name, value)| format!("\"{name}\" = '{value}'")).collect();
        let nothing = Scanned::default();
        self.query(&format!("DROP CATALOG IF EXISTS {CATALOG}"), "default", &nothing).await?;
        let create = format!("CREATE CATALOG {CATALOG} USING hive WITH ({})", properties.join(", "));
        self.query(&create, "default", &nothing).await.map(drop)
    }

    /// Runs a query to its end.
    pub(crate) async fn query(&self, sql: &str, database: &str, scanned: &Scanned) -> Result<Answer, QueryError> {
        let start = Request::post(format!("{}/v1/statement", self.url))
            .header("X-Trino-User", "athena")
            .header("X-Trino-Catalog", CATALOG)
            .header("X-Trino-Schema", database)
            .header("X-Trino-Time-Zone", "UTC")
            // Without it, all times are cut to milliseconds, whatever their type.
            .header("X-Trino-Client-Capabilities", "PARAMETRIC_DATETIME")
            .body(Full::from(sql.to_owned()))
            .map_err(|error| unreachable(&self.url, &error))?;
        let mut page = self.page(start).await?;
        let mut columns: Vec<Column> = Vec::new();
        let mut rows = Vec::new();
        let mut counted = 0_u64;
        loop {
            if let Some(failure) = page.error {
                return Err(failure.into());
            }
            if let Some(found) = page.columns {
                columns = found;
            }
            for row in page.data.unwrap_or_default() {
                rows.push(row.iter().zip(&columns).map(|(value, column)| text(value, &column.kind)).collect());
            }
            let bytes = page.stats.physical_input_bytes.parse().unwrap_or(counted);
            let over = scanned.add(bytes.saturating_sub(counted));
            counted = counted.max(bytes);
            if let Err(error) = over {
                if let Some(next) = page.next_uri {
                    let cancel = Request::delete(next).body(Full::default()).map_err(|error| unreachable(&self.url, &error))?;
                    // The query fails here, whether or not Trino received the cancellation.
                    let _ = self.client.request(cancel).await;
                }
                return Err(error);
            }
            let Some(next) = page.next_uri else { break };
            let next = Request::get(next).header("X-Trino-User", "athena").body(Full::default());
            page = self.page(next.map_err(|error| unreachable(&self.url, &error))?).await?;
        }
        let columns = columns.into_iter().map(|column| ResultColumn { name: column.name, kind: column.kind }).collect();
        Ok(Answer { kind: Kind::Dml, sub_kind: "SELECT", columns, rows })
    }

    async fn page(&self, request: Request<Full<Bytes>>) -> Result<Page, QueryError> {
        let response = self.client.request(request).await.map_err(|error| unreachable(&self.url, &error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), PAGE_LIMIT_BYTES).collect().await.map_err(|error| unreachable(&self.url, &error))?;
        let body = body.to_bytes();
        if !status.is_success() {
            return Err(unreachable(&self.url, &format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&numbers_as_texts(&body)).map_err(|error| unreachable(&self.url, &error))
    }
}

impl From<Failure> for QueryError {
    fn from(failure: Failure) -> Self {
        let own = if failure.error_type == "USER_ERROR" {
            Self::user(failure.error_name, failure.message)
        } else {
            Self::system(failure.error_name, failure.message)
        };
        let retryable = own.category == Category::System && failure.error_type == "INSUFFICIENT_RESOURCES";
        Self { retryable, ..own }
    }
}

/// The same JSON, with numbers as texts, as they were written: `serde_json` may turn a number of more than fifteen digits into another
/// double, unless a feature is on, which would then be on in all crates.
fn numbers_as_texts(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 4);
    let (mut in_text, mut escaped, mut in_number) = (false, false, false);
    for &byte in json {
        let of_number = !in_text && matches!(byte, b'0'..=b'9' | b'-') || in_number && matches!(byte, b'+' | b'.' | b'e' | b'E');
        if of_number != in_number {
            out.push(b'"');
            in_number = of_number;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ => {}
        }
        out.push(byte);
    }
    if in_number {
        out.push(b'"');
    }
    out
}

/// A value of Trino's JSON as Athena writes it.
fn text(value: &Value, kind: &str) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) if kind == "double" || kind == "real" => text.parse().map_or_else(|_| text.clone(), double),
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => {
            let inner = kind.strip_prefix("array(").and_then(|kind| kind.strip_suffix(')')).unwrap_or("");
            let items: Vec<String> = items.iter().map(|item| text(item, inner).unwrap_or_else(|| "null".to_owned())).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{key}={}", text(value, "").unwrap_or_else(|| "null".to_owned()))).collect();
            format!("{{{}}}", members.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_texts_are_left_alone() {
        let json = br#"{"a 1":[[97.71428571428571,"x-1 \" 2",-1.0E-7,null,true],[5,"",[0]]],"n":12}"#;
        let texts = br#"{"a 1":[["97.71428571428571","x-1 \" 2","-1.0E-7",null,true],["5","",["0"]]],"n":"12"}"#;
        assert_eq!(String::from_utf8_lossy(&numbers_as_texts(json)), String::from_utf8_lossy(texts));
        assert_eq!(numbers_as_texts(b"7"), br#""7""#);
    }

    #[test]
    fn values_are_written_as_athena_writes_them() {
        for (value, kind, written) in [
            (serde_json::json!("97.71428571428571"), "double", Some("97.71428571428571")),
            (serde_json::json!("1.0E7"), "double", Some("1.0E7")),
            (serde_json::json!("NaN"), "double", Some("NaN")),
            (serde_json::json!("12"), "bigint", Some("12")),
            (serde_json::json!("1.50"), "varchar", Some("1.50")),
            (serde_json::json!(["0.5", null]), "array(double)", Some("[0.5, null]")),
            (Value::Null, "double", None),
        ] {
            assert_eq!(text(&value, kind).as_deref(), written, "{value} {kind}");
        }
    }
}
