//! APIs that a workflow describes, against a server on loopback: paging, forms of rows, what answers mean; and answers that are hostile.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use repair_core::engine::Outcome;
use repair_core::model::{ColumnRule, ColumnType, Interval, Table};
use repair_core::plugin::{Answer, Plugin, PluginKind, Request, Source};
use repair_core::{ErrorKind, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::conformance::{table, within};
use crate::world::{MISSING, SECRET, VARIABLE, World, options, registry, value};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    head: String,
    body: String,
}

impl Seen {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A reply: a status, headers, a body, and how many bytes follow it.
pub(crate) struct Reply(u16, Vec<(&'static str, String)>, Vec<u8>, u64);

fn ok(body: impl ToString) -> Reply {
    Reply(200, Vec::new(), body.to_string().into(), 0)
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Seen, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answer, seen, base) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())), url.clone());
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, noted, base) = (answer.clone(), noted.clone(), base.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &*answer, &noted, &base).await;
                });
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(&Seen, &str) -> Reply + Send + Sync),
    noted: &Mutex<Vec<Seen>>,
    base: &str,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(|length| length.parse().unwrap()));
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    let mut line = head.lines().next().unwrap().split(' ');
    let (method, target) = (line.next().unwrap().to_owned(), line.next().unwrap());
    let url: reqwest::Url = format!("{base}{target}").parse().unwrap();
    let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let seen = Seen { method, path: url.path().to_owned(), query, head: head.clone(), body: String::from_utf8(body).unwrap() };
    noted.lock().unwrap().push(seen.clone());
    let Reply(status, headers, body, more) = answer(&seen, base);
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len() as u64 + more);
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.write_all(&body).await?;
    let chunk = vec![b' '; 1 << 16];
    for _ in 0..more / (1 << 16) {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await
}

fn source(url: &str, more: Value) -> Result<Arc<dyn Source>> {
    let mut with = json!({ "base_url": url, "path": "rows/{key}", "query": { "from": "{from}" }, "name": "The API" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = registry(&options()).make(PluginKind::Source, "http", &with)?;
    let Plugin::Source(source) = made else { panic!("not a source") };
    Ok(source)
}

fn request(world: &World) -> Request {
    Request::new(table(world), vec!["a".into()], Interval::parse("2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z").unwrap())
}

async fn fetched(server: &Server, more: Value) -> Result<Answer> {
    let world = World::new();
    source(&server.url, more)?.fetch(&within(&world), &request(&world)).await
}

fn row(hour: u32) -> Value {
    json!({ "ts": format!("2024-03-04T{hour:02}:00:00Z"), "value": value("a", hour) })
}

/// The rows that the table lacks, as far as they are asked for by `from` and `to`.
pub(crate) fn rows_within(seen: &Seen) -> Reply {
    let is_asked = |hour: &u32| {
        let time = format!("2024-03-04T{hour:02}:00:00Z");
        seen.query("from").is_some_and(|from| from <= time.as_str()) && seen.query("to").is_some_and(|to| time.as_str() < to)
    };
    ok(Value::from(MISSING.into_iter().filter(is_asked).map(row).collect::<Vec<_>>()))
}

/// The hours of an answer, whose values must be theirs.
fn hours(answer: &Answer) -> Vec<u32> {
    let mut all = Vec::new();
    for batch in &answer.rows {
        let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
        let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>();
        for index in 0..batch.num_rows() {
            let hour = u32::try_from(times.value(index) / 3_600_000_000 % 24).unwrap();
            assert_eq!(values.value(index), value("a", hour));
            all.push(hour);
        }
    }
    all
}

#[tokio::test]
async fn pages_follow_each_other_in_each_way() {
    // Three pages of two hours each.
    let page = |number: u32| json!([row(2 * number), row(2 * number + 1)]);
    let by_token = |seen: &Seen| seen.query("t").map_or(0, |token| token[1..].parse::<u32>().unwrap());
    let body = move |number: u32| json!({ "rows": page(number), "next": (number < 2).then(|| format!("p{}", number + 1)) });
    let at = json!({ "at": "/rows" });

    let server = Server::start(move |seen, _| ok(body(by_token(seen)))).await;
    let answer = fetched(&server, json!({ "rows": at, "pages": { "token": "/next", "parameter": "t" } })).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![0, 1, 2, 3, 4, 5], 3));
    assert!(server.seen().iter().all(|seen| seen.query("from") == Some("2024-03-04T00:00:00Z") && seen.path == "/rows/a"));

    let server = Server::start(move |seen, _| {
        let number = by_token(seen);
        let token = if number < 2 { format!("p{}", number + 1) } else { String::new() };
        Reply(200, vec![("X-Next", token)], page(number).to_string().into(), 0)
    })
    .await;
    let answer = fetched(&server, json!({ "pages": { "token_header": "X-Next", "parameter": "t" } })).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![0, 1, 2, 3, 4, 5], 3));

    let next = |seen: &Seen| seen.query("page").map_or(0, |number| number.parse::<u32>().unwrap());
    let server = Server::start(move |seen, base| {
        let number = next(seen);
        ok(json!({ "rows": page(number), "next": (number < 2).then(|| format!("{base}/other?page={}", number + 1)) }))
    })
    .await;
    let keyed = json!({ "rows": at, "pages": { "next": "/next" }, "auth": { "query": [{ "name": "key", "variable": VARIABLE }] } });
    let answer = fetched(&server, keyed).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![0, 1, 2, 3, 4, 5], 3));
    assert!(server.seen().iter().all(|seen| seen.query("key") == Some(SECRET)), "the key goes with each page");

    let server = Server::start(move |seen, _| {
        let number = next(seen);
        let link = if number < 2 {
            format!("</rows/a?page={}>; rel=\"next\", </>; rel=\"first\"", number + 1)
        } else {
            "</>; rel=first".to_owned()
        };
        Reply(200, vec![("Link", link)], page(number).to_string().into(), 0)
    })
    .await;
    let answer = fetched(&server, json!({ "pages": { "link": true } })).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![0, 1, 2, 3, 4, 5], 3));

    let server = Server::start(move |seen, _| ok(if next(seen) < 3 { page(next(seen)) } else { json!([]) })).await;
    let answer = fetched(&server, json!({ "pages": { "page": "page", "first": 0 } })).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![0, 1, 2, 3, 4, 5], 4));

    // By time: pages overlap in the last row.
    let server = Server::start(move |seen, _| {
        let from: u32 = seen.query("from").unwrap()[11..13].parse().unwrap();
        ok(Value::from((from..(from + 3).min(6)).map(row).collect::<Vec<_>>()))
    })
    .await;
    let answer = fetched(&server, json!({ "pages": { "after": "from" } })).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![0, 1, 2, 3, 4, 5], 4));
}

#[tokio::test]
async fn pages_that_do_not_end_are_an_error() {
    let server = Server::start(|seen, _| {
        let number: u32 = seen.query("page_token").map_or(0, |token| token.parse().unwrap());
        ok(json!({ "rows": [row(number % 24)], "next": number + 1 }))
    })
    .await;
    for (more, why) in [
        (json!({}), "more rows than the 24 requested slots"),
        (json!({ "max_pages": 5 }), "more than 5 pages, the limit that `max_pages` sets"),
    ] {
        let mut with = json!({ "rows": { "at": "/rows" }, "pages": { "token": "/next" } });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = fetched(&server, with).await.map(|answer| hours(&answer)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(why), "{error}");
    }
    let server = Server::start(|_, _| ok(json!({ "rows": [], "next": "same" }))).await;
    let error = fetched(&server, json!({ "rows": { "at": "/rows" }, "pages": { "token": "/next" } }))
        .await
        .map(|answer| hours(&answer))
        .unwrap_err();
    assert!(error.to_string().contains("leads to an earlier page"), "{error}");
    let server = Server::start(|seen, _| ok(json!({ "rows": [], "next": seen.query("page_token").unwrap_or_default().len() + 1 }))).await;
    let error = fetched(&server, json!({ "rows": { "at": "/rows" }, "pages": { "token": "/next" } }))
        .await
        .map(|answer| hours(&answer))
        .unwrap_err();
    assert!(error.to_string().contains("leads to an earlier page") || error.to_string().contains("pages in a row have no rows"), "{error}");
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    let elsewhere = Server::start(|_, _| ok(json!([row(5)]))).await;
    let away = elsewhere.url.clone();
    let key = json!({ "bearer": VARIABLE });
    let with = |more: Value| {
        let mut with = json!({ "auth": key });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with
    };
    let pages = json!({ "rows": { "at": "/rows" }, "pages": { "next": "/next" } });
    let link = |next: String| move |_: &Seen, _: &str| ok(json!({ "rows": [row(5)], "next": next }));
    type Lie = Box<dyn Fn(&Seen, &str) -> Reply + Send + Sync>;
    let lies: Vec<(Lie, Value, &str)> = vec![
        (Box::new(link(away.clone())), pages.clone(), "which is not where it was asked"),
        (Box::new(link("file:///etc/passwd".into())), pages.clone(), "which is not where it was asked"),
        (Box::new(link("https://127.0.0.1/".into())), pages.clone(), "which is not where it was asked"),
        (Box::new(link("http://[".into())), pages.clone(), "no URL"),
        (Box::new(move |_, _| Reply(302, vec![("Location", away.clone())], Vec::new(), 0)), json!({}), "a redirect to"),
        (Box::new(|_, _| Reply(200, Vec::new(), "[".into(), 10_000_000_000)), json!({}), "more than 32 MiB"),
        (Box::new(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "value": 1, "note": SECRET }]))), json!({}), "answered with the key"),
        (Box::new(|_, _| Reply(500, Vec::new(), format!("no {SECRET} here").into(), 0)), json!({}), "500"),
        (Box::new(|_, _| ok(format!("<html>{SECRET}</html>"))), json!({}), "not a page of rows"),
        (Box::new(|_, _| ok("<html>down</html>")), json!({}), "not a page of rows"),
        (Box::new(|_, _| ok(json!({ "message": "what" }))), json!({}), "where a list of rows belongs"),
        (Box::new(|_, _| ok(json!([{ "ts": "yesterday", "value": 1 }]))), json!({}), "not written as `time` says"),
        (Box::new(|_, _| ok(json!([{ "ts": "2024-03-04 05:00", "value": 1 }]))), json!({}), "without a zone"),
        (Box::new(|_, _| ok(json!([{ "value": 1 }]))), json!({}), "without the field `ts`"),
        (Box::new(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "value": "high" }]))), json!({}), "which is no Float64"),
        (Box::new(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "level": 1 }]))), json!({}), "a column `level`"),
        (
            Box::new(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "level": 1 }]))),
            json!({ "columns": { "value": "v" } }),
            "without the field `v`",
        ),
    ];
    for (lie, more, why) in lies {
        let server = Server::start(lie).await;
        let error = fetched(&server, with(more.clone())).await.map(|answer| hours(&answer)).unwrap_err();
        assert!(error.full().contains(why), "{more}: `{why}` is not in {}", error.full());
        assert!(!error.full().contains(SECRET), "{}", error.full());
        assert_eq!(server.seen().len(), 1, "{why}");
    }
    assert_eq!(elsewhere.seen().len(), 0, "nothing is sent to another host");
}

#[tokio::test]
async fn what_was_packed_for_the_way_is_unpacked_within_limits() {
    let rows = json!([row(5), row(6)]).to_string();
    let packed = testdata::gzip(rows.as_bytes());
    let in_two = [testdata::gzip(&rows.as_bytes()[..7]), testdata::gzip(&rows.as_bytes()[7..])].concat();
    let answering = async |encoding: &'static str, body: Vec<u8>| {
        let server = Server::start(move |_, _| Reply(200, vec![("Content-Encoding", encoding.to_owned())], body.clone(), 0)).await;
        let answer = fetched(&server, json!({})).await.map(|answer| hours(&answer));
        assert!(server.seen()[0].head.to_lowercase().contains("accept-encoding: gzip\r\n"), "{}", server.seen()[0].head);
        answer
    };
    for (encoding, body) in
        [("gzip", packed.clone()), ("X-GZIP", packed.clone()), ("gzip", in_two), ("identity", rows.clone().into_bytes())]
    {
        assert_eq!(answering(encoding, body).await.unwrap(), [5, 6], "{encoding}");
    }
    // A bomb: 1 GiB in 1 MiB. Then what broke off, what was damaged, and what nobody asked for.
    let mut wrong = packed.clone();
    let last = wrong.len() - 8;
    wrong[last] ^= 1;
    for (encoding, body, kind, why) in [
        ("gzip", testdata::gzip(&vec![b' '; 1 << 30]), ErrorKind::Invalid, "more than 32 MiB"),
        ("gzip", packed[..packed.len() - 9].to_vec(), ErrorKind::Transient, "cannot be unpacked"),
        ("gzip", wrong, ErrorKind::Transient, "cannot be unpacked"),
        ("gzip", rows.clone().into_bytes(), ErrorKind::Transient, "cannot be unpacked"),
        ("br", packed.clone(), ErrorKind::Invalid, "packed as `br`; only gzip is asked for and read"),
        ("gzip, gzip", packed.clone(), ErrorKind::Invalid, "packed as `gzip, gzip`"),
    ] {
        let error = answering(encoding, body).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{encoding}: {error}");
        assert!(error.to_string().contains(why), "{encoding}: {error}");
    }
}

#[tokio::test]
async fn rows_are_read_in_each_form() {
    for (body, more) in [
        (json!([row(5), row(6)]), json!({})),
        (json!({ "data": { "items": [row(5), row(6)] } }), json!({ "rows": { "at": "/data/items" } })),
        (
            json!({ "a": { "2024-03-04 06:00": { "v": "6.25" }, "2024-03-04 05:00": { "v": "5.25" } } }),
            json!({
                "rows": { "by_key": "sensor", "by_time": "when" }, "time_field": "when", "time": { "zone": "UTC" }, "columns": { "value": "v" },
            }),
        ),
        (
            json!({ "t": [1_709_528_400, 1_709_532_000], "v": [5.25, 6.25] }),
            json!({
                "rows": { "arrays": true }, "time_field": "t", "time": { "form": "s" }, "columns": { "value": "v" },
            }),
        ),
        (
            json!({ "x": [[1_709_528_400_000_u64, 5.25], [1_709_532_000_000_u64, 6.25]] }),
            json!({
                "rows": { "jsonata": "$output.x.{ 'ts': $[0], 'value': $[1] }" }, "time": { "form": "ms" },
            }),
        ),
        (
            json!([{ "at": "04.03.2024 07:00", "m": { "v": 6.25 } }, { "at": "04.03.2024 06:00", "m": { "v": 5.25 } }]),
            json!({
                "time_field": "at", "time": { "form": "%d.%m.%Y %H:%M", "zone": "Europe/Berlin" }, "columns": { "value": "/m/v" }, "order": "newest_first",
            }),
        ),
        (json!([row(5), row(6), { "ts": "2024-03-07T00:00:00Z", "value": 3 }]), json!({ "outside": "drop" })),
    ] {
        let text = body.to_string();
        let server = Server::start(move |_, _| ok(&text)).await;
        let answer = fetched(&server, more.clone()).await.unwrap_or_else(|error| panic!("{more}: {}", error.full()));
        assert_eq!(hours(&answer), [5, 6], "{more}");
    }
    let server = Server::start(|_, _| ok("ts;x\n".replace(';', ",") + "2024-03-04T05:00:00Z,5.25\n")).await;
    let answer = fetched(&server, json!({ "rows": { "csv": true }, "columns": { "value": "x" } })).await.unwrap();
    assert_eq!(hours(&answer), [5]);
    let server = Server::start(|_, _| ok(json!([row(5), { "ts": "2024-03-07T00:00:00Z", "value": 3 }]))).await;
    let answer = fetched(&server, json!({})).await.unwrap();
    assert_eq!(answer.rows[0].num_rows(), 2, "whoever asked judges what is outside");
}

#[tokio::test]
async fn requests_are_made_of_their_parts_and_nothing_leaves_its_place() {
    let server = Server::start(|_, _| ok(json!([row(5)]))).await;
    let world = World::new();
    let more = json!({
        "path": "v1/{key}/x", "query": { "keys": "{keys}", "s": "{from:s}", "day": "{last:%Y-%m-%d %H:%M}" }, "headers": { "X-Table": "{table}" },
        "body": { "filter": ["{key}", 3, { "until": "{to:ms}" }] },
        "auth": { "basic": [VARIABLE, VARIABLE], "headers": [{ "name": "X-Key", "variable": VARIABLE, "prefix": "Token " }] },
    });
    let source = source(&server.url, more).unwrap();
    let mut asked = request(&world);
    asked.keys = vec!["a/../b?c=d&e#f".into()];
    source.fetch(&within(&world), &asked).await.unwrap();
    let seen = server.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/a%2F..%2Fb%3Fc=d&e%23f/x"));
    assert_eq!(
        (seen.query("keys"), seen.query("s"), seen.query("day")),
        (Some("a/../b?c=d&e#f"), Some("1709510400"), Some("2024-03-04 23:00"))
    );
    assert_eq!(
        serde_json::from_str::<Value>(&seen.body).unwrap(),
        json!({ "filter": ["a/../b?c=d&e#f", 3, { "until": "1709596800000" }] })
    );
    let head = seen.head.to_lowercase();
    assert!(
        head.contains("x-table: readings") && head.contains("authorization: basic ") && head.contains("content-type: application/json"),
        "{head}"
    );
    assert!(seen.head.contains(&format!("Token {SECRET}")));
    asked.keys = vec!["..".into()];
    assert!(source.fetch(&within(&world), &asked).await.unwrap_err().to_string().contains("cannot be a part of a path"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_list_of_parameters_keeps_its_order_and_may_repeat_a_name() {
    let server = Server::start(|_, _| ok(json!([row(5)]))).await;
    fetched(&server, json!({ "query": [{ "z": "1" }, { "from": "{first:s}" }, { "z": "{limit}" }], "rows_per_request": 50 }))
        .await
        .unwrap();
    let query = server.seen().remove(0).query;
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(query, [("z", "1"), ("from", "1709510400"), ("z", "50")]);
    for odd in [json!([{ "a": "1", "b": "2" }]), json!([{}]), json!({ "a": 1 }), json!("a=1")] {
        assert!(source(&server.url, json!({ "query": odd })).is_err(), "{odd}");
    }
}

#[tokio::test]
async fn the_first_variable_that_is_set_holds_the_key() {
    let server = Server::start(|_, _| ok(json!([row(5)]))).await;
    fetched(&server, json!({ "auth": { "bearer": ["NO_SUCH_VARIABLE_OF_OURS", VARIABLE] } })).await.unwrap();
    assert!(server.seen().remove(0).head.contains(&format!("Bearer {SECRET}")));
    let none = json!({ "auth": { "headers": [{ "name": "X-Key", "variable": ["NO_SUCH_VARIABLE_OF_OURS", "NOR_THIS_ONE"] }] } });
    let error = fetched(&server, none).await.map(|answer| hours(&answer)).unwrap_err();
    assert!(error.to_string().contains("set NO_SUCH_VARIABLE_OF_OURS (or NOR_THIS_ONE)"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_the_api_cannot_be_asked_is_refused_before_it_is_asked() {
    let server = Server::start(|_, _| ok(json!([row(5)]))).await;
    let world = World::new();
    let keys = json!({ "path": "rows", "query": { "keys": "{keys}" }, "keys_per_request": 9 });
    let asked = |keys: &[&str]| Request::new(table(&world), keys.iter().map(|key| (*key).into()).collect(), request(&world).interval);
    let within_a_slot = Interval::parse("2024-03-04T00:10:00Z", "2024-03-04T00:20:00Z").unwrap();
    for (more, request, why) in [
        (keys.clone(), asked(&["b", "a,c"]), "`a,c` has a comma"),
        (keys.clone(), asked(&[]), "this request is for all keys"),
        (json!({}), asked(&[]), "this request is for all keys"),
        (json!({ "cadence": "1m" }), asked(&["a"]), "rows with a cadence of 1m, and table `readings` has one of 1h"),
        (json!({ "key": ["one", "two"] }), asked(&["a"]), "is one, two, and table `readings` is identified by sensor"),
        (json!({}), Request::new(table(&world), vec!["a".into()], within_a_slot), "none begins within"),
    ] {
        let error = source(&server.url, more.clone()).unwrap().fetch(&within(&world), &request).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(why), "{more}: {error}");
    }
    assert_eq!(server.seen().len(), 0);
    source(&server.url, json!({ "cadence": "1h", "key": ["sensor"] })).unwrap();
}

#[tokio::test]
async fn what_rows_are_about_is_compared_with_what_was_asked_for() {
    let of = |sensor: Value| json!([row(4), { "ts": "2024-03-04T05:00:00Z", "value": 5.25, "sensor": sensor }]);
    let keyed = json!({ "key": ["sensor"] });
    for (body, more, why) in [
        (of("b".into()), json!({}), "(at `/1`: a row of `b`, which was not asked for)"),
        (of("b".into()), keyed.clone(), "(at `/0`: a row without the field `sensor`"),
        (
            json!({ "rows": [row(5)] }),
            json!({ "rows": { "at": "/rows", "shared": { "sensor": "/about" } }, "key": ["sensor"] }),
            "without the field `sensor`",
        ),
        (
            json!({ "rows": [row(5)], "about": 7 }),
            json!({ "rows": { "at": "/rows", "shared": { "sensor": "/about" } }, "key": ["sensor"] }),
            "a row of `7`",
        ),
    ] {
        let text = body.to_string();
        let server = Server::start(move |_, _| ok(&text)).await;
        let error = fetched(&server, more).await.map(|answer| hours(&answer)).unwrap_err();
        assert!(error.to_string().contains(why), "{body}: {error}");
    }
    let server = Server::start(move |_, _| ok(of("a".into()))).await;
    assert_eq!(hours(&fetched(&server, json!({})).await.unwrap()), [4, 5]);
}

#[tokio::test]
async fn a_page_of_another_form_is_not_the_end_of_the_data() {
    for (pages, second) in [
        (json!({ "token": "/next", "parameter": "page" }), json!({ "error": "slow down" })),
        (json!({ "token": "/next", "parameter": "page" }), json!({ "items": null })),
        (json!({ "page": "page" }), json!({ "error": "slow down" })),
    ] {
        let then = second.clone();
        let server = Server::start(move |seen, _| match seen.query("page") {
            None | Some("1") => ok(json!({ "items": [row(5), row(6)], "next": "2" })),
            _ => ok(then.clone()),
        })
        .await;
        let mut with = json!({ "rows": { "at": "/items" }, "pages": pages, "vouches": true });
        let error = fetched(&server, with.clone()).await.map(|answer| hours(&answer)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("nothing at `/items`, where rows belong"), "{error}");
        with["rows"]["optional"] = true.into();
        assert_eq!(hours(&fetched(&server, with).await.unwrap()), [5, 6], "{second}");
    }
}

#[tokio::test]
async fn a_value_that_is_null_is_one_or_refuses_the_answer() {
    let server = Server::start(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "v": null }]))).await;
    let answer = fetched(&server, json!({ "columns": { "value": "v" } })).await.unwrap();
    assert_eq!(answer.rows[0].column_by_name("value").unwrap().null_count(), 1);
    let error = fetched(&server, json!({ "columns": { "value": "v" }, "nulls": "refuse" })).await.map(|answer| hours(&answer)).unwrap_err();
    assert!(error.to_string().contains("a row without a value of `v`, which is column `value`"), "{error}");
}

#[tokio::test]
async fn a_word_of_the_table_for_no_value_is_none_in_an_answer() {
    for body in [json!([{ "ts": "2024-03-04T05:00:00Z", "value": "N/A" }]).to_string(), "ts,value\n2024-03-04T05:00:00Z,N/A\n".to_owned()] {
        let csv = body.starts_with("ts");
        let server = Server::start(move |_, _| ok(body.clone())).await;
        let world = World::new();
        let ask = async |words: &[&str], more: Value| {
            let mut asked = request(&world);
            asked.table.nulls = words.iter().map(|word| (*word).to_owned()).collect();
            let mut with = json!({ "rows": { "csv": csv } });
            with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            source(&server.url, with)?.fetch(&within(&world), &asked).await
        };
        let answer = ask(&["-", "N/A"], json!({})).await.unwrap();
        assert_eq!(answer.rows[0].column_by_name("value").unwrap().null_count(), 1);
        let error = ask(&["N/A"], json!({ "nulls": "refuse" })).await.map(|answer| hours(&answer)).unwrap_err();
        assert!(error.to_string().contains("a row without a value of `value`"), "{error}");
        let error = ask(&[], json!({})).await.map(|answer| hours(&answer)).unwrap_err();
        let hint = "`value`: N/A in row 1, which is no Float64; if it means that there is no value, add `columns: { value: { nulls: [\"N/A\"] } }` to the table; \
                    if it is one, declare the column: `columns: { value: text }`";
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_fields_of_a_row_is_said_with_what_to_do() {
    let time = "2024-03-04T05:00:00Z";
    for (body, more, why) in [
        (
            json!([{ "ts": time, "value": 1.0, "unit": "C" }]).to_string(),
            json!({}),
            "a column `unit`, and table `readings` has no such column; it has sensor, ts, value; name the fields that are wanted under \
             `columns` of the source",
        ),
        (json!([{ "ts": time, "v": 1.0 }]).to_string(), json!({ "columns": { "unit": "v" } }), "; correct `columns` of the source"),
        (
            json!([{ "ts": time, "value": 1.0 }, { "ts": "2024-03-04T06:00:00Z", "other": 1.0 }]).to_string(),
            json!({}),
            "rows of different columns: row 2 and the first differ in `other`",
        ),
        (
            json!([{ "ts": time, "value": 1.0, "Sensor": "a" }]).to_string(),
            json!({ "key": ["sensor"] }),
            "a row without the field `sensor` (it has `Sensor`), a part of its key",
        ),
        (json!([{ "ts": time, "value": 1.0, "SENSOR": "b" }]).to_string(), json!({}), "a row of `b`, which was not asked for"),
        (format!("[{{\"ts\":\"{time}\",\"value\":1.0,\"value\":2.0}}]"), json!({}), "the field `value` twice in one object"),
    ] {
        let answer = body.clone();
        let server = Server::start(move |_, _| ok(answer.clone())).await;
        let error = fetched(&server, more).await.map(|answer| hours(&answer)).unwrap_err();
        assert!(error.full().contains(why), "{body}: {}", error.full());
    }
    let server = Server::start(move |_, _| ok(json!([{ "TS": time, "value": value("a", 5), "Sensor": "a" }]))).await;
    assert_eq!(hours(&fetched(&server, json!({})).await.unwrap()), [5], "names of columns in another case");
}

#[tokio::test]
async fn an_answer_that_says_of_another_key_that_there_is_nothing_proves_nothing() {
    let with = json!({
        "rows": { "at": "/results", "shared": { "sensor": "/about" } },
        "answers": [{ "status": 200, "at": "/count", "equals": 0, "means": "absent" }],
    });
    for (about, is_ok) in [(json!("a"), true), (Value::Null, true), (json!("b"), false)] {
        let body = json!({ "about": about, "count": 0 });
        let server = Server::start(move |_, _| ok(body.clone())).await;
        match fetched(&server, with.clone()).await {
            Ok(answer) => assert!(is_ok && !answer.covered.is_empty(), "{about}"),
            Err(error) => assert!(
                !is_ok && error.full().contains("nothing about `b` (`sensor` under `shared`), which was not asked for"),
                "{}",
                error.full()
            ),
        }
    }
}

#[tokio::test]
async fn without_columns_any_value_that_is_null_refuses_the_answer() {
    let server = Server::start(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "value": null }]))).await;
    assert_eq!(fetched(&server, json!({})).await.unwrap().rows[0].num_rows(), 1);
    let error = fetched(&server, json!({ "nulls": "refuse" })).await.map(|answer| hours(&answer)).unwrap_err();
    assert!(error.to_string().contains("a row without a value of `value`"), "{error}");
}

/// The same rows as text.
fn csv_of(rows: std::ops::Range<u32>) -> String {
    rows.fold("ts,value\n".to_owned(), |text, hour| text + &format!("2024-03-04T{hour:02}:00:00Z,{}\n", value("a", hour)))
}

#[tokio::test]
async fn what_is_not_the_csv_that_was_expected_is_not_an_answer_without_rows() {
    let noted = csv_of(5..7).replacen(",value", ",value,note", 1);
    let (open, closed_elsewhere) = (noted.replacen("00Z,", "00Z,7,\"a", 1), noted.replace("00Z,", "00Z,7,\"a"));
    for (body, why) in [
        (String::new(), "add `optional: true` to `rows`"),
        ("\n  \n".to_owned(), "add `optional: true` to `rows`"),
        ("<html>Too many requests</html>".to_owned(), "no column `ts` in the header `<html>Too many requests</html>`"),
        (json!({ "error": "slow down" }).to_string(), "no column `ts` in the header"),
        ("time,value\n".to_owned(), "no column `ts` in the header `time,value`"),
        (open, "a quote in line 2 that is never closed"),
        (closed_elsewhere, "a quote in line 2 that line 3 closes"),
    ] {
        for number in ["1", "3"] {
            let odd = body.clone();
            let server = Server::start(move |seen, _| match seen.query("page") {
                page if page == Some(number) => ok(odd.clone()),
                Some("1") => ok(csv_of(4..6)),
                Some("2") => ok(csv_of(6..8)),
                _ => ok("ts,value\n"),
            })
            .await;
            let mut with = json!({ "rows": { "csv": true }, "pages": { "page": "page" }, "vouches": true });
            let error = fetched(&server, with.clone()).await.map(|answer| hours(&answer)).unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(why), "{body}: {error}");
            if why.contains("optional") {
                with["rows"]["optional"] = true.into();
                let found = hours(&fetched(&server, with).await.unwrap());
                assert_eq!(found, if number == "1" { vec![] } else { vec![4, 5, 6, 7] }, "{body:?}");
            }
        }
    }
}

/// The API has starts of slots, and the table their ends.
#[tokio::test]
async fn pages_after_a_time_and_rows_outside_are_found_by_the_times_of_the_api_and_the_slots_of_the_table() {
    let server = Server::start(|seen, _| {
        let after = seen.query("since").unwrap_or("2024-03-03");
        let all = (3..8).filter(|hour| format!("2024-03-04T{hour:02}:00:00Z").as_str() > after).take(2);
        ok(Value::from(all.map(row).collect::<Vec<_>>()))
    })
    .await;
    let world = World::new();
    let asked = |from: &str, to: &str| {
        let table = table(&world).with_time_marks(repair_core::model::TimeMark::End);
        Request::new(table, vec!["a".into()], Interval::parse(from, to).unwrap())
    };
    let times = |answer: &Answer| -> Vec<i64> {
        let of = |batch: &arrow::array::RecordBatch| {
            let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
            times.values().iter().map(|us| us / 3_600_000_000 % 24).collect::<Vec<_>>()
        };
        answer.rows.iter().flat_map(of).collect()
    };
    let with = json!({ "time": { "marks": "start" }, "pages": { "after": "since" } });
    let all = asked("2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z");
    let answer = source(&server.url, with.clone()).unwrap().fetch(&within(&world), &all).await.unwrap();
    assert_eq!((times(&answer), answer.requests), (vec![4, 5, 6, 7, 8], 4));
    // The row that ends where the interval begins is of the slot before.
    let some = asked("2024-03-04T05:00:00Z", "2024-03-04T07:00:00Z");
    let mut dropping = with;
    dropping["outside"] = "drop".into();
    let answer = source(&server.url, dropping).unwrap().fetch(&within(&world), &some).await.unwrap();
    assert_eq!(times(&answer), [6, 7]);
}

#[tokio::test]
async fn an_answer_vouches_only_if_all_of_its_pages_do() {
    for (status, rule, expected) in [
        (404, Some("empty"), Ok(0)),
        (404, Some("end"), Ok(1)),
        (404, None, Err(ErrorKind::NotFound)),
        (206, None, Err(ErrorKind::Invalid)),
        (206, Some("rows"), Ok(1)),
    ] {
        let server = Server::start(move |seen, _| match seen.query("page") {
            Some("1") => ok(json!([row(5), row(6)])),
            Some("2") => Reply(status, Vec::new(), b"[]".to_vec(), 0),
            _ => ok(json!([])),
        })
        .await;
        let answers: Vec<Value> = rule.iter().map(|means| json!({ "status": status, "means": means })).collect();
        let answer = fetched(&server, json!({ "pages": { "page": "page" }, "vouches": true, "answers": answers })).await;
        let found = answer.map(|answer| (hours(&answer), answer.covered.len())).map_err(|error| error.kind());
        assert_eq!(found, expected.map(|covered| (vec![5, 6], covered)), "{status} {rule:?}");
    }
}

#[tokio::test]
async fn a_table_without_a_file_has_the_types_that_are_declared() {
    let server = Server::start(|_, _| ok(json!([{ "ts": "2024-03-04T05:00:00Z", "value": 5, "other": "1.50" }]))).await;
    let world = World::new();
    let new = || table(&world).with_location("nowhere");
    let asked = |table: Table| Request::new(table, vec!["a".into()], request(&world).interval);
    let types = json!({ "types": { "value": "number", "other": "decimal(9,2)" } });
    let answer = source(&server.url, types.clone()).unwrap().fetch(&within(&world), &asked(new())).await.unwrap();
    let kind = |answer: &Answer, name: &str| answer.rows[0].column_by_name(name).unwrap().data_type().clone();
    assert_eq!([kind(&answer, "value"), kind(&answer, "other")], [DataType::Float64, DataType::Decimal128(9, 2)]);
    // What the table declares goes before.
    let declared = new().with_column("value", ColumnRule::of_type(ColumnType::Integer));
    let answer = source(&server.url, types).unwrap().fetch(&within(&world), &asked(declared)).await.unwrap();
    assert_eq!(kind(&answer, "value"), DataType::Int64);
    let error = source(&server.url, json!({})).unwrap().fetch(&within(&world), &asked(new())).await.map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("no file that says which types they have; declare its `columns`, or `types` of the source"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_recorded_of_an_answer_is_what_the_workflow_says() {
    let server = Server::start(|_, _| ok(json!([row(5)]))).await;
    assert_eq!(fetched(&server, json!({})).await.unwrap().said, "The API");
    assert_eq!(fetched(&server, json!({ "said": "The API, as measured" })).await.unwrap().said, "The API, as measured");
}

#[tokio::test]
async fn pages_that_name_another_host_are_asked_for_here_if_that_is_declared() {
    let server = Server::start(|seen, _| match seen.query("page") {
        None => ok(json!({ "rows": [row(5)], "next": "http://own.example:9/rows/a?page=2&token=K" })),
        _ => ok(json!({ "rows": [row(6)], "next": "" })),
    })
    .await;
    let pages = json!({ "next": "/next", "other_hosts": "ask_here", "below": "rows", "without": ["TOKEN"] });
    let answer = fetched(&server, json!({ "rows": { "at": "/rows" }, "pages": pages })).await.unwrap();
    assert_eq!((hours(&answer), answer.requests), (vec![5, 6], 2));
    let second = server.seen().remove(1);
    assert_eq!((second.path.as_str(), second.query.len(), second.query("page")), ("/rows/a", 1, Some("2")));
    let mut astray = pages.clone();
    astray["below"] = "rows/{key}/of".into();
    let error = fetched(&server, json!({ "rows": { "at": "/rows" }, "pages": astray })).await.map(|answer| hours(&answer)).unwrap_err();
    assert!(error.to_string().contains("does not hold what was asked for") && error.to_string().contains("/rows/a/of"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn pages_have_the_same_columns() {
    let server = Server::start(|seen, _| {
        ok(match seen.query("page_token") {
            None => json!({ "rows": [row(5)], "next": "x" }),
            _ => json!({ "rows": [{ "ts": "2024-03-04T06:00:00Z" }] }),
        })
    })
    .await;
    let with = json!({ "rows": { "at": "/rows" }, "pages": { "token": "/next" } });
    let error = fetched(&server, with).await.map(|answer| hours(&answer)).unwrap_err();
    assert!(error.to_string().contains("rows of different columns"), "{error}");
}

#[tokio::test]
async fn the_newest_rows_come_first_on_the_first_page_and_are_put_in_order() {
    let server = Server::start(|seen, _| {
        ok(match seen.query("page_token") {
            None => json!({ "rows": [row(7), row(6)], "next": "x" }),
            _ => json!({ "rows": [row(5), row(4)] }),
        })
    })
    .await;
    let with = json!({ "rows": { "at": "/rows" }, "pages": { "token": "/next" }, "order": "newest_first" });
    assert_eq!(hours(&fetched(&server, with).await.unwrap()), [4, 5, 6, 7]);
}

#[tokio::test]
async fn rules_say_what_answers_mean() {
    use ErrorKind::{Denied, Invalid, NotFound, Throttled, Transient};
    let rules = json!({ "answers": [
        { "status": 404, "means": "empty" },
        { "status": 410, "means": "absent" },
        { "at": "/error/code", "equals": 7, "means": "throttled" },
        { "at": "/error/code", "equals": 8, "means": "denied" },
        { "at": "/error/code", "equals": 9, "means": "not-found" },
        { "at": "/error", "means": "transient" },
        { "status": 206, "at": "/rows", "missing": true, "means": "invalid" },
        { "status": 206, "at": "/rows", "equals": null, "means": "empty" },
    ] });
    for (status, body, expected) in [
        (404, json!({}), Ok((0, 0))),
        (410, json!({}), Ok((0, 1))),
        (200, json!({ "error": { "code": 7 } }), Err(Throttled)),
        (200, json!({ "error": { "code": 8 } }), Err(Denied)),
        (200, json!({ "error": { "code": 9 } }), Err(NotFound)),
        (400, json!({ "error": "x" }), Err(Transient)),
        (400, json!({}), Err(Invalid)),
        (503, json!({}), Err(Transient)),
        (200, json!([row(5)]), Ok((1, 0))),
        (206, json!({}), Err(Invalid)),
        (206, json!({ "rows": null }), Ok((0, 0))),
    ] {
        let text = body.to_string();
        let server = Server::start(move |_, _| Reply(status, vec![("Retry-After", "7".into())], text.clone().into(), 0)).await;
        let answer = fetched(&server, rules.clone()).await;
        if let Err(error) = &answer {
            let waits = matches!(error.kind(), Throttled | Transient);
            assert_eq!(error.wait_hint(), waits.then_some(Duration::from_secs(7)), "{error}");
        }
        let found = answer.map(|answer| (answer.rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), answer.covered.len()));
        assert_eq!(found.map_err(|error| error.kind()), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_source_promises_what_sources_promise() {
    let server = Server::start(|seen, _| {
        let hours = if seen.path == "/rows/a" { 4..20 } else { 0..0 };
        ok(Value::from(hours.map(row).collect::<Vec<_>>()))
    })
    .await;
    let world = World::new();
    let asked = Request::new(table(&world), vec!["a".into()], Interval::parse("2024-03-04T04:00:00Z", "2024-03-04T20:00:00Z").unwrap());
    for vouches in [true, false] {
        let source = source(&server.url, json!({ "vouches": vouches })).unwrap();
        repair_core::testing::plugin_suite::source(source.as_ref(), &within(&world), &asked, Some(&"z".into())).await;
    }
}

#[test]
fn what_cannot_be_meant_is_refused_when_a_workflow_is_read() {
    let url = "https://api.example";
    for (more, why) in [
        (json!({ "base_url": "http://api.example" }), "not encrypted"),
        (json!({ "base_url": "file:///etc" }), "must use https"),
        (json!({ "path": "a?b=c" }), "write its parameters under `query`"),
        (json!({ "path": "{kye}" }), "did you mean `{key}`?"),
        (json!({ "headers": { "Authorization": "x" } }), "write keys under `auth`"),
        (json!({ "auth": { "bearer": "sk-live-1234" } }), "the name of a variable"),
        (json!({ "pages": {} }), "must have one of"),
        (json!({ "pages": { "token": "/a", "next": "/b" } }), "must have one of"),
        (json!({ "max_pages": 7 }), "no meaning without `pages`"),
        (json!({ "rows": { "csv": true, "jsonata": "x" } }), "in several ways"),
        (json!({ "rows": { "jsonata": "(((" } }), "not a JSONata expression"),
        (json!({ "time": { "form": "soon" } }), "no form of times"),
        (json!({ "time": { "zone": "Mars/Base" } }), "no time zone"),
        (json!({ "answers": [{ "means": "empty" }] }), "would apply to every answer"),
        (json!({ "answers": [{ "missing": true, "means": "empty", "status": 200 }] }), "needs the place in the body"),
        (json!({ "answers": [{ "at": "/a", "equals": 1, "missing": true, "means": "empty" }] }), "needs the place in the body"),
        (json!({ "auth": { "bearer": [] } }), "the name of a variable"),
        (json!({ "auth": { "basic": [VARIABLE, ["sk-live-1234"]] } }), "the name of a variable"),
        (json!({ "types": { "value": "float" } }), "not a column's type"),
        (json!({ "rows_per_request": 0 }), "at least 1"),
        (json!({ "keys_per_request": 2 }), "`{key}` stands for one key"),
    ] {
        let error = source(url, more.clone()).map(drop).unwrap_err();
        assert!(error.full().contains(why), "{more}: {}", error.full());
        assert!(!error.full().contains("1234"), "what may be a key is not shown");
    }
}

#[tokio::test]
async fn a_key_that_is_not_set_is_found_out_before_the_run() {
    let source = source("https://api.example", json!({ "auth": { "bearer": "NO_SUCH_VARIABLE_OF_OURS" } })).unwrap();
    let error = source.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("set NO_SUCH_VARIABLE_OF_OURS"), "{error}");
}

#[tokio::test]
async fn a_run_repairs_from_an_api_waits_for_it_and_reports_to_a_webhook() {
    let states = Mutex::new(0);
    let server = Server::start(move |seen, _| match seen.path.as_str() {
        "/status" => {
            let mut asked = states.lock().unwrap();
            *asked += 1;
            ok(json!({ "export": { "ready": *asked > 2 } }))
        }
        "/hook" => Reply(if seen.body.contains("filled") { 202 } else { 400 }, Vec::new(), json!({ "taken": true }).to_string().into(), 0),
        _ => ok(Value::from(MISSING.map(row).to_vec())),
    })
    .await;
    let world = World::new();
    let workflow = world.filling("exit 1", "");
    let from = workflow.find("sources:").unwrap();
    let workflow = format!(
        "{}sources:\n  api: {{ source: http, with: {{ base_url: '{url}', path: 'rows/{{key}}', auth: {{ bearer: {VARIABLE} }} }} }}
start: ready
steps:
  ready:
    wait: {{ until: {{ sensor: http, with: {{ base_url: '{url}', path: status, at: /export/ready }}, every: 1s, timeout: 1h }} }}
    next: find
  find: {{ detect: gaps, with: {{ table: readings, from: 2024-03-04, to: 2024-03-04 }}, next: fill }}
  fill: {{ repair: backfill, of: find, with: {{ source: api }}, next: report }}
  report:
    task: http
    with: {{ base_url: '{url}', path: hook, body: {{ text: filled, run: '{{run}}' }} }}
    end: true
",
        &workflow[..from],
        url = server.url
    );
    let ran = world.run(&workflow).await;
    assert_eq!((ran.report.outcome, world.repaired().await), (Some(Outcome::Succeeded), 4), "{}", ran.said);
    assert_eq!(ran.report.step("report").unwrap().output, json!({ "status": 202, "body": { "taken": true } }));
    let hook = server.seen().into_iter().find(|seen| seen.path == "/hook").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&hook.body).unwrap(), json!({ "text": "filled", "run": "one" }));
    assert!(hook.head.to_lowercase().contains("idempotency-key: one/report/1"), "{}", hook.head);
    assert_eq!(ran.report.usage.source_requests, 3 + 1 + 1, "each request is a call");
    assert!(!ran.said.contains(SECRET));
}
