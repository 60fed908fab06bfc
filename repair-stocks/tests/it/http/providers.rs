//! The providers that a workflow can include, each against a server on loopback that answers as the provider does.

use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use repair_core::ErrorKind;
use repair_core::plugin::{Answer, Plugin, PluginKind, Source};
use repair_core::workflow::{Variables, Workflow};
use serde_json::Value;

use super::vendor::{Reply, SECRET, Seen, Vendor};
use super::{registry, request, with_variables, world};

const PROVIDERS: [(&str, &[&str]); 6] = [
    ("alpaca", &["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"]),
    ("alphavantage", &["ALPHAVANTAGE_API_KEY"]),
    ("finnhub", &["FINNHUB_API_KEY"]),
    ("massive", &["MASSIVE_API_KEY"]),
    ("tiingo", &["TIINGO_API_KEY"]),
    ("twelvedata", &["TWELVEDATA_API_KEY"]),
];

/// What a provider answers, from the file of that name.
fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/providers").join(name)).unwrap()
}

fn definition(provider: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("providers").join(format!("{provider}.yaml"))).unwrap()
}

/// The source of a provider as a workflow includes it, with the address of a server here in place of its own.
fn included(provider: &str, url: &str) -> std::sync::Arc<dyn Source> {
    let (_, variables) = PROVIDERS.iter().find(|(name, _)| *name == provider).unwrap();
    let set: Vec<(&str, &str)> = variables.iter().map(|name| (*name, SECRET)).collect();
    let registry = {
        let variables = with_variables(&set);
        let mut registry = registry(&variables);
        let options = repair_connect::Options::default().with_environment(variables);
        repair_connect::register_with(&mut registry, &options);
        registry
    };
    let text = definition(provider);
    let own = text.lines().find_map(|line| line.trim().strip_prefix("base_url: ")).unwrap();
    let children = [(format!("{provider}.yaml"), text.replace(own, url))].into();
    let workflow = format!(
        "workflow: bars\nkind: state-machine\ninclude: [{provider}.yaml]\n\
         tables: {{ bars: {{ location: bars, format: csv, key: [symbol], time: ts, cadence: 1m }} }}\n\
         start: find\nsteps:\n  find: {{ detect: gaps, with: {{ table: bars, keys: [AAA], from: 2024-03-11, to: 2024-03-11 }}, next: fill }}\n  \
         fill: {{ repair: stocks.backfill, of: find, with: {{ source: {provider} }}, end: true }}\n"
    );
    let workflow = Workflow::parse_with("workflow.yaml", &workflow, &registry, &children).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let with = workflow.sources[provider].with.resolve(&Variables::default()).unwrap();
    let Plugin::Source(source) = registry.make(PluginKind::Source, "http", &with).unwrap() else { panic!("not a source") };
    source
}

/// The rows of an answer: symbol, minute after 13:30, close, volume.
fn rows(answer: &Answer) -> Vec<(String, i64, f64, f64)> {
    let start = "2024-03-11T13:30:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let mut all = Vec::new();
    for batch in &answer.rows {
        let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        let (symbols, times) = (column("symbol").as_string::<i32>(), column("ts").as_primitive::<TimestampMicrosecondType>());
        let (close, volume) = (column("close").as_primitive::<Float64Type>(), column("volume").as_primitive::<Float64Type>());
        for row in 0..batch.num_rows() {
            all.push((symbols.value(row).to_owned(), (times.value(row) - start) / 60_000_000, close.value(row), volume.value(row)));
        }
    }
    all
}

/// Twelve Data, asked for UTC and the oldest first, which its file is not.
fn in_utc(text: &str) -> String {
    let mut body: Value = serde_json::from_str(text).unwrap();
    let values = body["values"].as_array_mut().unwrap();
    values.reverse();
    for value in values {
        value["datetime"] = value["datetime"].as_str().unwrap().replace(" 09:", " 13:").into();
    }
    body.to_string()
}

/// What each provider answers to a request that it accepts.
fn answer(provider: &str, seen: &Seen) -> String {
    let query = |name: &str| seen.query(name).unwrap_or_else(|| panic!("{provider} is not asked for {name}: {}", seen.url));
    let header = |name: &str| seen.headers.get(name).map(String::as_str).unwrap_or_default().to_owned();
    let path = seen.url.path();
    match provider {
        "alpaca" => {
            assert_eq!((path, query("symbols"), query("timeframe")), ("/v2/stocks/bars", "AAA,BBB".into(), "1Min".into()));
            assert_eq!((query("start"), query("end")), ("2024-03-11T13:30:00Z".into(), "2024-03-11T13:39:00Z".into()), "both are included");
            assert_eq!((header("apca-api-key-id").as_str(), header("apca-api-secret-key").as_str()), (SECRET, SECRET));
            file(if seen.query("page_token").is_some() { "alpaca/bars_page2.json" } else { "alpaca/bars_page1.json" })
        }
        "massive" => {
            assert_eq!(header("authorization"), format!("Bearer {SECRET}"));
            if seen.query("cursor").is_some() {
                return file("massive/aggs_page2.json");
            }
            assert_eq!(path, "/v2/aggs/ticker/AAA/range/1/minute/1710163800000/1710164340000");
            let own = format!("http://{}:{}", seen.url.host_str().unwrap(), seen.url.port().unwrap());
            file("massive/aggs_page1.json").replace("http://127.0.0.1:0", &own)
        }
        "tiingo" => {
            assert_eq!(
                (path, query("startDate"), query("columns")),
                ("/iex/AAA/prices", "2024-03-11".into(), "date,open,high,low,close,volume".into())
            );
            assert_eq!(header("authorization"), format!("Token {SECRET}"));
            file("tiingo/iex_prices_volume.json")
        }
        "twelvedata" => {
            assert_eq!(
                (path, query("apikey"), query("timezone"), query("order")),
                ("/time_series", SECRET.into(), "UTC".into(), "asc".into())
            );
            assert_eq!((query("start_date"), query("end_date")), ("2024-03-11 13:30:00".into(), "2024-03-11 13:39:00".into()));
            in_utc(&file("twelvedata/time_series.json"))
        }
        "alphavantage" => {
            assert_eq!((path, query("apikey"), query("month"), query("symbol")), ("/query", SECRET.into(), "2024-03".into(), "AAA".into()));
            file("alphavantage/intraday.json")
        }
        "finnhub" => {
            assert_eq!((path, query("from"), query("to")), ("/api/v1/stock/candle", "1710163800".into(), "1710164340".into()));
            assert_eq!(header("x-finnhub-token"), SECRET);
            file("finnhub/candle.json")
        }
        other => panic!("{other} is not known"),
    }
}

#[tokio::test]
async fn each_provider_is_asked_and_understood_as_its_file_says() {
    let first = |volume: f64| ("AAA".to_owned(), 0, 100.4, volume);
    let second = ("AAA".to_owned(), 1, 100.6, 8_000.0);
    for (provider, expected, pages) in [
        ("alpaca", vec![first(12_000.0), second.clone(), ("BBB".into(), 0, 20.01, 500.0), ("BBB".into(), 2, 20.05, 300.0)], 2),
        ("alphavantage", vec![first(12_000.0), second.clone()], 1),
        ("finnhub", vec![first(12_000.0), second.clone()], 1),
        ("massive", vec![first(12_000.0), second.clone(), ("AAA".into(), 3, 100.7, 900.0)], 2),
        ("tiingo", vec![first(210.0)], 1),
        ("twelvedata", vec![first(12_000.0), second], 1),
    ] {
        let vendor = Vendor::start(move |seen| Reply::new(200, "application/json", answer(provider, seen))).await;
        let source = included(provider, &vendor.url);
        source.ready().await.unwrap();
        let symbols: &[&str] = if provider == "alpaca" { &["AAA", "BBB"] } else { &["AAA"] };
        let answer = source.fetch(&world(), &request(symbols, "2024-03-11T13:30:00Z", "2024-03-11T13:40:00Z")).await;
        let answer = answer.unwrap_or_else(|error| panic!("{provider}: {}", error.full()));
        let mut found = rows(&answer);
        found.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        assert_eq!((found, answer.requests), (expected, pages), "{provider}");
        let vouched = answer.covered.iter().map(|covered| covered.key.to_string()).collect::<Vec<_>>();
        assert_eq!(vouched.len(), if matches!(provider, "alpaca" | "massive") { symbols.len() } else { 0 }, "{provider}");
    }
}

#[tokio::test]
async fn what_providers_say_in_place_of_rows_has_its_kind() {
    use ErrorKind::{Denied, Invalid, Throttled};
    for (provider, status, name, kind) in [
        ("alpaca", 403, "alpaca/error_403.json", Denied),
        ("alpaca", 401, "alpaca/error_with_code.json", Denied),
        ("alpaca", 429, "alpaca/error_429.txt", Throttled),
        ("alphavantage", 200, "alphavantage/limit_note.json", Throttled),
        ("alphavantage", 200, "alphavantage/limit_information.json", Throttled),
        ("alphavantage", 200, "alphavantage/error_message.json", Invalid),
        ("finnhub", 403, "finnhub/error_403.json", Denied),
        ("finnhub", 429, "finnhub/error_429.json", Throttled),
        ("massive", 403, "massive/error_403.json", Denied),
        ("massive", 200, "massive/error_403.json", Denied),
        ("massive", 429, "massive/error_429.json", Throttled),
        ("twelvedata", 200, "twelvedata/error_429_http200.json", Throttled),
        ("twelvedata", 429, "twelvedata/error_429_http200.json", Throttled),
    ] {
        let vendor = Vendor::start(move |_| Reply::new(status, "application/json", file(name))).await;
        let asked = request(&["AAA"], "2024-03-11T13:30:00Z", "2024-03-11T13:40:00Z");
        let error = included(provider, &vendor.url).fetch(&world(), &asked).await.map(|answer| rows(&answer)).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(!error.full().contains(SECRET), "{error}");
    }
}

#[tokio::test]
async fn where_providers_have_nothing_there_are_no_rows_and_nothing_is_proved() {
    for (provider, name) in [
        ("alpaca", "alpaca/bars_empty.json"),
        ("finnhub", "finnhub/candle_no_data.json"),
        ("massive", "massive/aggs_empty.json"),
        ("tiingo", "tiingo/iex_prices_empty.json"),
    ] {
        let vendor = Vendor::start(move |_| Reply::new(200, "application/json", file(name))).await;
        let asked = request(&["AAA"], "2024-03-11T13:30:00Z", "2024-03-11T13:40:00Z");
        let answer = included(provider, &vendor.url).fetch(&world(), &asked).await.unwrap();
        assert_eq!((rows(&answer), answer.covered), (Vec::new(), Vec::new()), "{provider}");
    }
}

#[test]
fn every_provider_is_tried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers");
    let mut found: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    found.sort();
    assert_eq!(found, PROVIDERS.map(|(name, _)| name.to_owned()));
}
