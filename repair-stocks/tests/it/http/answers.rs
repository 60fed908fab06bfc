//! What the sources request, page by page, and what they return.

use arrow::array::{AsArray, RecordBatch};
use repair_core::model::{Key, TimeMark};
use repair_core::plugin::{Answer, Limits, Request};
use repair_core::testing::plugin_suite;
use serde_json::{Value, json};

use super::vendor::{self, Lie, Market, Reply, Vendor};
use super::{minute, request, source, source_with, trade, variables, world};
use crate::common::{bars, interval, number};

const FROM: &str = "2024-03-11T13:30:00Z";
const TO: &str = "2024-03-11T13:40:00Z";

/// Two symbols; BBB does not trade at 13:31.
fn market() -> Market {
    let mut market = Market::new();
    for symbol in ["AAA", "BBB"] {
        trade(&mut market, symbol, "2024-03-11T13:00:00Z", "2024-03-11T14:00:00Z");
    }
    market.get_mut("BBB").unwrap().remove(&minute("2024-03-11T13:31:00Z"));
    market
}

/// The rows of all pages.
fn whole(answer: &Answer) -> RecordBatch {
    arrow::compute::concat_batches(answer.rows[0].schema_ref(), &answer.rows).unwrap()
}

fn count(answer: &Answer) -> usize {
    answer.rows.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn alpaca_is_asked_for_many_symbols_and_all_pages_of_the_answer() {
    let vendor = Vendor::start(vendor::alpaca(market(), 4, Lie::None)).await;
    let alpaca = source("stocks.alpaca", &vendor.url);
    assert_eq!(alpaca.limits(), Limits::new(10_000, 100));
    let answer = alpaca.fetch(&world(), &request(&["AAA", "BBB", "CCC"], FROM, TO)).await.unwrap();
    // 19 bars, four a page; pages end within symbols.
    let rows = whole(&answer);
    assert_eq!((answer.requests, rows.num_rows()), (5, 19));
    let symbols = rows.column_by_name("symbol").unwrap().as_string::<i32>();
    assert_eq!(symbols.iter().filter(|symbol| *symbol == Some("BBB")).count(), 9);
    let first = market()["AAA"][&minute(FROM)];
    assert_eq!(["open", "high", "low", "close", "volume"].map(|column| number(&rows, column, 0)), first.map(Some));
    // CCC is unknown or did not trade. The answer looks the same, so it vouches for neither.
    let vouched: Vec<String> = answer.covered.iter().map(|covered| covered.key.to_string()).collect();
    assert_eq!(vouched, ["AAA", "BBB"]);
    assert!(answer.covered.iter().all(|covered| covered.interval == interval(FROM, TO)));
    assert_eq!(answer.said, "Alpaca, feed sip, adjustment raw");

    let seen = vendor.seen();
    let query = |index: usize, name: &str| seen[index].query(name);
    for (name, value) in [
        ("symbols", "AAA,BBB,CCC"),
        ("timeframe", "1Min"),
        ("start", FROM),
        ("end", "2024-03-11T13:39:00Z"),
        ("limit", "10000"),
        ("adjustment", "raw"),
        ("feed", "sip"),
        ("sort", "asc"),
    ] {
        assert_eq!(query(0, name).as_deref(), Some(value), "{name}");
        assert_eq!(query(4, name), query(0, name), "each page is of the same question");
    }
    assert_eq!((query(0, "page_token"), query(0, "asof"), query(4, "page_token").as_deref()), (None, None, Some("after-16")));
    assert!(seen.iter().all(|seen| !seen.url.as_str().contains(vendor::SECRET) && !seen.url.as_str().contains(vendor::KEY_ID)));
}

#[tokio::test]
async fn massive_is_asked_for_one_symbol_and_all_pages_of_the_answer() {
    let vendor = Vendor::start(vendor::massive(market(), 4, Lie::None)).await;
    for name in ["stocks.massive", "stocks.polygon"] {
        let before = vendor.seen().len();
        let massive = source(name, &vendor.url);
        assert_eq!(massive.limits(), Limits::new(50_000, 1));
        let answer = massive.fetch(&world(), &request(&["BBB"], FROM, TO)).await.unwrap();
        assert_eq!((answer.requests, count(&answer), answer.covered.len()), (3, 9, 1));
        let first = market()["BBB"][&minute(FROM)];
        assert_eq!(["open", "high", "low", "close", "volume"].map(|column| number(&answer.rows[0], column, 0)), first.map(Some));
        let seen = &vendor.seen()[before..];
        assert_eq!(seen[0].url.path(), "/v2/aggs/ticker/BBB/range/1/minute/1710163800000/1710164340000");
        assert_eq!(seen[0].url.query(), Some("adjusted=false&sort=asc&limit=50000"));
        // The answer named another host, and a key in the URL: neither is heeded.
        assert_eq!(seen[1].url.query(), Some("cursor=4"));
        assert_eq!(seen[2].url.path(), seen[0].url.path());
    }
    // Of what it does not know it says nothing, in as many words.
    let answer = source("stocks.massive", &vendor.url).fetch(&world(), &request(&["CCC"], FROM, TO)).await.unwrap();
    assert_eq!((answer.requests, count(&answer), answer.covered.len()), (1, 0, 0));
}

#[tokio::test]
async fn both_keep_the_promises_of_a_source() {
    let unknown = Key::from("CCC");
    let alpaca = Vendor::start(vendor::alpaca(market(), 4, Lie::None)).await;
    plugin_suite::source(source("stocks.alpaca", &alpaca.url).as_ref(), &world(), &request(&["AAA", "BBB"], FROM, TO), Some(&unknown))
        .await;
    let massive = Vendor::start(vendor::massive(market(), 4, Lie::None)).await;
    plugin_suite::source(source("stocks.massive", &massive.url).as_ref(), &world(), &request(&["AAA"], FROM, TO), Some(&unknown)).await;
}

/// Answers with these bodies, one after the other.
async fn says(bodies: Vec<Value>) -> Vendor {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Vendor::start(move |_| Reply::json(200, &bodies[asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(bodies.len() - 1)])).await
}

#[tokio::test]
async fn answers_are_read_as_the_providers_document_them() {
    let bar = |t: &str, c: f64| json!({ "t": t, "o": 20.0, "h": 20.75, "l": 19.75, "c": c, "v": 500, "n": 7, "vw": 20.0 });
    let alpaca = says(vec![
        json!({ "bars": { "AAA": [bar(FROM, 20.25)], "BBB": [bar(FROM, 20.5)] }, "next_page_token": "b3BhcXVlLXRva2VuLTE=" }),
        json!({ "bars": { "BBB": [bar("2024-03-11T13:32:00Z", 20.75)] }, "next_page_token": null }),
    ])
    .await;
    let answer = source("stocks.alpaca", &alpaca.url).fetch(&world(), &request(&["AAA", "BBB"], FROM, TO)).await.unwrap();
    assert_eq!((count(&answer), number(&whole(&answer), "close", 2)), (3, Some(20.75)));
    assert_eq!(alpaca.seen()[1].query("page_token").as_deref(), Some("b3BhcXVlLXRva2VuLTE="));
    for empty in [json!({ "bars": {}, "next_page_token": null }), json!({ "bars": null })] {
        let alpaca = says(vec![empty]).await;
        let answer = source("stocks.alpaca", &alpaca.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap();
        assert_eq!((count(&answer), answer.covered.len()), (0, 0));
    }

    let result = json!({ "v": 900, "vw": 100.62, "o": 100.6, "c": 100.7, "h": 100.7, "l": 100.5, "t": 1_710_163_800_000_i64, "n": 11 });
    let massive = says(vec![json!({ "ticker": "AAA", "queryCount": 1, "resultsCount": 1, "adjusted": false, "results": [result],
        "status": "DELAYED", "request_id": "2", "count": 1 })])
    .await;
    let answer = source("stocks.massive", &massive.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap();
    assert_eq!((count(&answer), number(&answer.rows[0], "volume", 0)), (1, Some(900.0)));
}

#[tokio::test]
async fn a_table_with_more_columns_or_other_marks_gets_what_it_has() {
    let mut table = bars();
    table.time_marks = TimeMark::End;
    let mut wide = crate::common::batch(&table, &[("AAA", "2024-03-08T14:31:00Z", [1.0; 5])]);
    let more = [("trade_count", number_column(7.0)), ("vwap", number_column(1.0))];
    let columns = wide.schema().fields().iter().map(|field| field.name().clone()).zip(wide.columns().to_vec()).collect::<Vec<_>>();
    let all = columns.iter().map(|(name, column)| (name.as_str(), column.clone())).chain(more);
    wide = arrow::array::RecordBatch::try_from_iter(all).unwrap();
    let context = crate::common::context(crate::common::lake_with(&table, &wide), vec![table.clone()], "2024-03-12T00:00:00Z");
    let vendor = Vendor::start(vendor::alpaca(market(), 100, Lie::None)).await;
    let request = {
        let plain = request(&["AAA"], FROM, TO);
        Request::new(table, plain.keys, plain.interval)
    };
    let answer = source("stocks.alpaca", &vendor.url).fetch(&context, &request).await.unwrap();
    let rows = &answer.rows[0];
    assert_eq!((number(rows, "trade_count", 0), number(rows, "vwap", 0)), (Some(7.0), number(rows, "close", 0)));
    let times = rows.column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(times.value(0), crate::common::at("2024-03-11T13:31:00Z").as_microsecond(), "a minute's end marks it");
}

fn number_column(value: f64) -> arrow::array::ArrayRef {
    std::sync::Arc::new(arrow::array::Float64Array::from(vec![value]))
}

#[tokio::test]
async fn silence_proves_nothing_where_it_cannot() {
    let vendor = Vendor::start(vendor::alpaca(market(), 100, Lie::None)).await;
    let covered = async |with: Value, now: &str| {
        let mut with = with;
        with["base_url"] = json!(vendor.url);
        let source = source_with(&variables(), "stocks.alpaca", &with).unwrap();
        let context = crate::common::context(std::sync::Arc::default(), vec![bars()], now);
        source.fetch(&context, &request(&["AAA"], FROM, TO)).await.unwrap().covered
    };
    let late = "2024-03-12T00:00:00Z";
    // One exchange does not know of the others, unless the table is of that one.
    assert!(covered(json!({ "feed": "iex" }), late).await.is_empty());
    assert_eq!(vendor.seen()[0].query("feed").as_deref(), Some("iex"));
    assert_eq!(covered(json!({ "feed": "iex", "vouches": true }), late).await.len(), 1);
    assert!(covered(json!({ "vouches": false }), late).await.is_empty());
    // What is young may still come.
    assert_eq!(covered(json!({}), "2024-03-11T13:50:00Z").await[0].interval, interval(FROM, "2024-03-11T13:35:00Z"));
    assert_eq!(covered(json!({ "settles_after": "1m" }), "2024-03-11T13:50:00Z").await[0].interval, interval(FROM, TO));
    assert!(covered(json!({}), "2024-03-11T13:44:00Z").await.is_empty());
}

#[tokio::test]
async fn prices_of_massive_are_adjusted_as_the_table_wants_them_or_refused() {
    let answers = |adjusted: bool| {
        move |seen: &super::vendor::Seen| {
            assert_eq!(seen.query("adjusted"), Some(adjusted.to_string()));
            let bar = json!({ "v": 900, "o": 100.6, "c": 100.7, "h": 100.7, "l": 100.5, "t": 1_710_163_800_000_i64 });
            Reply::json(200, &json!({ "ticker": "AAA", "adjusted": true, "results": [bar], "status": "OK" }))
        }
    };
    let asked = request(&["AAA"], FROM, TO);
    let adjusted = Vendor::start(answers(true)).await;
    let source = source_with(&variables(), "stocks.massive", &json!({ "base_url": adjusted.url, "adjusted": true })).unwrap();
    let answer = source.fetch(&world(), &asked).await.unwrap();
    assert_eq!((count(&answer), answer.said.as_str()), (1, "Massive, adjusted for splits"));
    // The table has prices as traded, and the answer says that its own are not.
    let ignores = Vendor::start(answers(false)).await;
    let error = super::source("stocks.massive", &ignores.url).fetch(&world(), &asked).await.unwrap_err();
    assert!(error.message().contains("where `/adjusted` is `true`"), "{error}");
}

#[tokio::test]
async fn further_pages_behind_a_proxy_are_asked_for_at_the_proxy() {
    let vendor = vendor::massive(market(), 4, Lie::None);
    let proxy = Vendor::start(move |seen| {
        let mut seen = seen.clone();
        let own = seen.url.path().strip_prefix("/proxied").unwrap().to_owned();
        seen.url.set_path(&own);
        vendor(&seen)
    })
    .await;
    let answer = source("stocks.massive", &format!("{}/proxied", proxy.url)).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap();
    assert_eq!((answer.requests, count(&answer)), (3, 10));
    let paths: Vec<String> = proxy.seen().iter().map(|seen| seen.url.path().to_owned()).collect();
    assert!(paths.iter().all(|path| path.starts_with("/proxied/v2/aggs/ticker/AAA/range/1/minute/")), "{paths:?}");
}

#[tokio::test]
async fn a_bar_without_a_price_is_refused() {
    let bar = json!({ "t": FROM, "o": null, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1 });
    let alpaca = says(vec![json!({ "bars": { "AAA": [bar] } })]).await;
    let error = source("stocks.alpaca", &alpaca.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
    assert!(error.message().contains("at `/bars/AAA/0`: a row without a value of `o`, which is column `open`"), "{error}");
}
