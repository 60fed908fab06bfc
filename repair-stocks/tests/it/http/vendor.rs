//! Loopback servers that imitate the vendors' APIs, and the wrong answers that they can be made to give.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use futures::FutureExt;
use repair_core::model::Key;
use repair_core::plugin::{Limits, Request, Source};
use repair_core::testing::liar as lies;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) url: Url,
    /// The headers, by name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }
}

/// A reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How much of the body is sent before the connection breaks off.
    pub(crate) cut_at: Option<usize>,
    /// Whether nothing is ever sent.
    pub(crate) hangs: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type".into(), kind.into())], body: body.into(), cut_at: None, hangs: false }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn with(mut self, name: &str, value: &dyn std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), format!("{value}")));
        self
    }
}

type Answers = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A server.
pub(crate) struct Vendor {
    /// Its address, without a slash at the end.
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Vendor {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answer, seen) = (Arc::new(answer) as Answers, Arc::new(Mutex::new(Vec::new())));
        let (base, noted) = (url.clone(), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, base.clone(), answer.clone(), noted.clone()));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Serves one request per connection, which is all that the tests need.
async fn serve(mut stream: TcpStream, base: String, answer: Answers, noted: Arc<Mutex<Vec<Seen>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let target = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let seen = Seen { url: Url::parse(&format!("{base}{target}")).unwrap(), headers };
    noted.lock().unwrap().push(seen.clone());
    let reply = answer(&seen);
    if reply.hangs {
        tokio::time::sleep(Duration::from_secs(60)).await;
        return;
    }
    let mut text = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = &reply.body[..reply.cut_at.unwrap_or(reply.body.len())];
    // Whoever asked may have gone.
    let _ = stream.write_all(&[text.as_bytes(), b"\r\n", body].concat()).await;
    let _ = stream.shutdown().await;
}

/// The bars of a market: by symbol and minute since the epoch.
pub(crate) type Market = BTreeMap<String, BTreeMap<i64, [f64; 5]>>;

pub(crate) const KEY_ID: &str = "PKTESTKEYIDENTIFIER";
pub(crate) const SECRET: &str = "s3cr3tOfTheTestsThatNobodyMaySee";

/// How the answers of an API are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// The bars of one day, whatever is requested.
    IgnoresTheDate,
    /// The same values for every day, at the requested minutes.
    SameValues,
    AnotherSymbol,
    /// Each page leads to yet another one.
    NeverEnds,
    /// Each page leads to itself.
    SamePage,
    Html,
    AnotherShape,
    Future,
    HighBelowLow,
    NegativeVolume,
    OutOfOrder,
    Twice,
}

/// All lies.
pub(crate) const LIES: [Lie; 12] = [
    Lie::IgnoresTheDate,
    Lie::SameValues,
    Lie::AnotherSymbol,
    Lie::NeverEnds,
    Lie::SamePage,
    Lie::Html,
    Lie::AnotherShape,
    Lie::Future,
    Lie::HighBelowLow,
    Lie::NegativeVolume,
    Lie::OutOfOrder,
    Lie::Twice,
];

/// A minute in 2035.
const LATER: i64 = 34_200_000;

type Found = (String, i64, [f64; 5]);

/// The bars of some symbols and minutes, both ends included, as the API returns them, true or not.
fn bars(market: &Market, symbols: &[&str], from: i64, to: i64, lie: Lie) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for &symbol in symbols {
        let Some(of_symbol) = market.get(symbol) else { continue };
        let first = *of_symbol.keys().next().unwrap();
        let shift = from - first;
        match lie {
            Lie::IgnoresTheDate => found.extend(of_symbol.range(..first + 10).map(|(minute, bar)| (symbol.to_owned(), *minute, *bar))),
            Lie::SameValues => {
                let moved = of_symbol.iter().map(|(minute, bar)| (symbol.to_owned(), minute + shift, *bar));
                found.extend(moved.take_while(|(_, minute, _)| *minute <= to));
            }
            _ => found.extend(of_symbol.range(from..=to).map(|(minute, bar)| (symbol.to_owned(), *minute, *bar))),
        }
    }
    match (lie, found.len()) {
        (_, 0) => {}
        (Lie::AnotherSymbol, _) => found.iter_mut().for_each(|(symbol, ..)| *symbol = "ZZZ".to_owned()),
        (Lie::Future, last) => found[last - 1].1 = LATER,
        (Lie::HighBelowLow, last) => found[last - 1].2 = [10.0, 9.0, 11.0, 10.0, 5.0],
        (Lie::NegativeVolume, last) => found[last - 1].2[4] = -5.0,
        (Lie::OutOfOrder, last) if last > 1 => found.swap(0, 1),
        (Lie::Twice, last) if last > 1 => found[1].1 = found[0].1,
        _ => {}
    }
    found
}

fn html() -> Reply {
    Reply::new(200, "text/html", format!("<html><body>Down for maintenance, {SECRET}</body></html>"))
}

/// `GET /v2/stocks/bars`, in pages of a fixed number of bars.
pub(crate) fn alpaca(market: Market, page_rows: usize, lie: Lie) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| {
        if seen.url.path() != "/v2/stocks/bars" {
            return Reply::new(404, "text/plain", "404 page not found");
        }
        if (seen.headers.get("apca-api-key-id").map(String::as_str), seen.headers.get("apca-api-secret-key").map(String::as_str))
            != (Some(KEY_ID), Some(SECRET))
        {
            return Reply::json(401, &json!({ "code": 40_110_000, "message": "request is not authorized" }));
        }
        let query = |name: &str| seen.query(name).unwrap_or_default();
        let minute = |name: &str| query(name).parse::<jiff::Timestamp>().unwrap().as_second() / 60;
        assert_eq!((query("timeframe"), query("sort")), ("1Min".to_owned(), "asc".to_owned()));
        match lie {
            Lie::Html => return html(),
            Lie::AnotherShape => return Reply::json(200, &json!({ "bars": [{ "t": "2024-03-11T13:30:00Z" }] })),
            Lie::SamePage | Lie::NeverEnds => {
                let token = if lie == Lie::SamePage { "again".to_owned() } else { format!("{}x", query("page_token")) };
                return Reply::json(200, &json!({ "bars": {}, "next_page_token": token }));
            }
            _ => {}
        }
        let symbols = query("symbols");
        let found = bars(&market, &symbols.split(',').collect::<Vec<_>>(), minute("start"), minute("end"), lie);
        let offset: usize = query("page_token").strip_prefix("after-").map_or(0, |offset| offset.parse().unwrap());
        let rows = page_rows.min(query("limit").parse().unwrap());
        let end = found.len().min(offset + rows);
        let mut page: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (symbol, minute, [o, h, l, c, v]) in &found[offset..end] {
            let t = jiff::Timestamp::from_second(minute * 60).unwrap().to_string();
            let bar = json!({ "t": t, "o": o, "h": h, "l": l, "c": c, "v": v, "n": 7, "vw": c });
            page.entry(symbol).or_default().push(bar);
        }
        let next = (end < found.len()).then(|| format!("after-{end}"));
        Reply::json(200, &json!({ "bars": page, "next_page_token": next }))
            .with("X-RateLimit-Limit", &200)
            .with("X-RateLimit-Remaining", &199)
            .with("X-RateLimit-Reset", &1_710_163_860)
    }
}

/// `GET /v2/aggs/ticker/{t}/range/1/minute/{from}/{to}`, in pages of a fixed number of bars. It names another host as its own, like an API behind a proxy.
pub(crate) fn massive(market: Market, page_rows: usize, lie: Lie) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| {
        let parts: Vec<&str> = seen.url.path().split('/').collect();
        let &["", "v2", "aggs", "ticker", ticker, "range", "1", "minute", from, to] = parts.as_slice() else {
            return Reply::new(404, "text/plain", "404 page not found");
        };
        if seen.headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {SECRET}")) {
            return Reply::json(401, &json!({ "status": "ERROR", "request_id": "1", "error": "Unknown API Key" }));
        }
        let minute = |ms: &str| ms.parse::<i64>().unwrap() / 60_000;
        let cursor = seen.query("cursor").unwrap_or_default();
        let next = |cursor: &str| {
            format!("http://api.vendor.example:9/v2/aggs/ticker/{ticker}/range/1/minute/{from}/{to}?cursor={cursor}&apiKey=K")
        };
        match lie {
            Lie::Html => return html(),
            Lie::AnotherShape => return Reply::json(200, &json!({ "status": "OK", "ticker": ticker, "results": [{ "t": "13:30" }] })),
            Lie::SamePage | Lie::NeverEnds => {
                let cursor = if lie == Lie::SamePage { "again".to_owned() } else { format!("{cursor}x") };
                return Reply::json(200, &json!({ "status": "OK", "ticker": ticker, "next_url": next(&cursor) }));
            }
            _ => {}
        }
        let found = bars(&market, &[ticker], minute(from), minute(to), lie);
        let offset: usize = cursor.parse().unwrap_or(0);
        let rows = page_rows.min(seen.query("limit").map_or(page_rows, |limit| limit.parse().unwrap()));
        let end = found.len().min(offset + rows);
        let mut body = json!({ "ticker": found.first().map_or(ticker, |(symbol, ..)| symbol), "queryCount": end - offset,
            "resultsCount": end - offset, "adjusted": false, "status": "OK", "request_id": "1" });
        if end > offset {
            let bar = |(_, minute, [o, h, l, c, v]): &Found| json!({ "v": v, "vw": c, "o": o, "c": c, "h": h, "l": l, "t": minute * 60_000, "n": 7 });
            body["results"] = found[offset..end].iter().map(bar).collect();
            body["count"] = json!(end - offset);
        }
        if end < found.len() {
            body["next_url"] = json!(next(&end.to_string()));
        }
        Reply::json(200, &body)
    }
}

/// A value of a column, as JSON.
fn value(rows: &RecordBatch, name: &str, row: usize) -> Value {
    let Some(column) = rows.column_by_name(name) else { return Value::Null };
    match arrow::compute::cast(&column.slice(row, 1), &DataType::Float64) {
        Ok(_) if *column.data_type() == DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        Ok(number) if number.is_valid(0) => json!(number.as_primitive::<Float64Type>().value(0)),
        _ => Value::Null,
    }
}

/// Both APIs, whose answers are those of a liar, in one page.
pub(crate) fn lying(market: &Market, lie: lies::Lie) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let table = crate::common::bars();
    let time = |minute: i64| jiff::Timestamp::from_second(minute * 60).unwrap();
    let rows: Vec<(&str, String, [f64; 5])> = market
        .iter()
        .flat_map(|(symbol, bars)| bars.iter().map(move |(minute, bar)| (symbol.as_str(), time(*minute).to_string(), *bar)))
        .collect();
    let rows: Vec<(&str, &str, [f64; 5])> = rows.iter().map(|(symbol, at, bar)| (*symbol, at.as_str(), *bar)).collect();
    let truth = lies::Truth::new(crate::common::batch(&table, &rows), Limits::new(10_000, 1));
    let known: Vec<Key> = market.keys().map(|symbol| Key::from(symbol.as_str())).collect();
    let liar = lies::Liar::new(Arc::new(truth), lie, known);
    let context = super::world();
    move |seen| {
        let of_alpaca = seen.url.path().starts_with("/v2/stocks/");
        let parts: Vec<&str> = seen.url.path().split('/').collect();
        let symbols = seen.query("symbols").unwrap_or_else(|| parts.get(4).copied().unwrap_or_default().to_owned());
        let minute_of =
            |text: &str| text.parse::<i64>().map_or_else(|_| text.parse::<jiff::Timestamp>().unwrap().as_second() / 60, |ms| ms / 60_000);
        let (from, to) = match of_alpaca {
            true => (minute_of(&seen.query("start").unwrap()), minute_of(&seen.query("end").unwrap())),
            false => (minute_of(parts[8]), minute_of(parts[9])),
        };
        let interval = repair_core::model::Interval::new(time(from), time(to + 1)).unwrap();
        let request = Request::new(table.clone(), symbols.split(',').map(Key::from).collect(), interval);
        let answer = AssertUnwindSafe(liar.fetch(&context, &request)).catch_unwind().now_or_never().unwrap();
        let Ok(Ok(answer)) = answer else { return Reply::new(500, "text/plain", "out of order") };
        let mut bars: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for batch in &answer.rows {
            for row in 0..batch.num_rows() {
                let symbol = match batch.column_by_name("symbol").and_then(|symbols| symbols.as_string_opt::<i32>()) {
                    Some(symbols) if symbols.is_valid(row) => symbols.value(row).to_owned(),
                    _ => symbols.clone(),
                };
                let us = batch.column_by_name("ts").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
                let us = us.filter(|times| times.is_valid(row)).map(|times| jiff::Timestamp::from_microsecond(times.value(row)).unwrap());
                let t = match (us, of_alpaca) {
                    (Some(at), true) => json!(at.to_string()),
                    (Some(at), false) => json!(at.as_millisecond()),
                    (None, _) => Value::Null,
                };
                let [o, h, l, c, v] = ["open", "high", "low", "close", "volume"].map(|name| value(batch, name, row));
                bars.entry(symbol).or_default().push(json!({ "t": t, "o": o, "h": h, "l": l, "c": c, "v": v, "n": 7, "vw": 1.0 }));
            }
        }
        if of_alpaca {
            return Reply::json(200, &json!({ "bars": bars, "next_page_token": null }));
        }
        let (ticker, results) = bars.into_iter().next().unwrap_or((symbols, Vec::new()));
        let count = results.len();
        Reply::json(
            200,
            &json!({ "ticker": ticker, "queryCount": count, "resultsCount": count, "adjusted": false, "results": results,
            "status": "OK", "request_id": "1", "count": count }),
        )
    }
}
