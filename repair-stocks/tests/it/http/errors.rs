//! How the errors of an API are reported.

use std::time::Duration;

use repair_core::Error;
use repair_core::ErrorKind::{self, Denied, Invalid, NotFound, Throttled, Timeout, Transient};
use serde_json::json;

use super::vendor::{KEY_ID, Reply, SECRET, Vendor};
use super::{request, source, source_with, variables, world};

const FROM: &str = "2024-03-11T13:30:00Z";
const TO: &str = "2024-03-11T13:40:00Z";

/// The errors of both sources for a reply.
async fn both(reply: Reply) -> [Error; 2] {
    // Only what never answers has to time out.
    let timeout = if reply.hangs { "1s" } else { "60s" };
    let vendor = Vendor::start(move |_| reply.clone()).await;
    let mut errors = Vec::new();
    for name in ["stocks.alpaca", "stocks.massive"] {
        let source = source_with(&variables(), name, &json!({ "base_url": vendor.url, "timeout": timeout })).unwrap();
        let error = source.fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
        let said = format!("{} {error:?}", error.full());
        assert!(!said.contains(SECRET) && !said.contains(KEY_ID), "a key is shown: {said}");
        errors.push(error);
    }
    errors.try_into().unwrap()
}

#[tokio::test]
async fn each_refusal_has_its_kind_and_says_what_came_back() {
    let text = |status, body: &str| Reply::new(status, "text/plain", body);
    for (reply, kind, word) in [
        (text(429, "too many requests\n"), Throttled, "with 429: too many requests; lower the source's `rate_limit`"),
        (Reply::json(429, &json!({ "status": "ERROR", "error": "maximum requests per minute exceeded" })), Throttled, "maximum requests"),
        (Reply::json(401, &json!({ "code": 40_110_000, "message": "request is not authorized" })), Denied, "_API_"),
        (Reply::json(403, &json!({ "message": "subscription does not permit querying recent SIP data" })), Denied, "recent SIP data"),
        (Reply::json(403, &json!({ "status": "NOT_AUTHORIZED", "message": "not entitled to this data" })), Denied, "your plan"),
        (text(404, "404 page not found"), NotFound, "check `base_url`"),
        (Reply::json(400, &json!({ "message": "invalid symbol: AAA" })), Invalid, "with 400: invalid symbol: AAA"),
        (Reply::json(422, &json!({ "message": "unprocessable" })), Invalid, "422"),
        (text(408, ""), Timeout, "408"),
        (text(413, ""), Transient, "413"),
        (text(499, ""), Transient, "499"),
        (text(500, &format!("<html>\n <b>oops</b> {SECRET}")), Transient, "with 500: <html> <b>oops</b>"),
        (text(503, ""), Transient, "503"),
        (text(504, ""), Transient, "504"),
    ] {
        for error in both(reply.clone()).await {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(word), "{error}");
            assert!(error.message().contains("answered http://127.0.0.1:") && !error.message().contains('?'), "{error}");
        }
    }
}

#[tokio::test]
async fn how_long_to_wait_is_what_the_api_says() {
    // Now is 2024-03-12T00:00:00Z, Unix second 1,710,201,600.
    let wait = |reply: Reply| async move {
        let [one, other] = both(reply).await;
        assert_eq!(one.wait_hint(), other.wait_hint());
        one.wait_hint()
    };
    let refused = |status| Reply::new(status, "text/plain", "");
    assert_eq!(wait(refused(429)).await, None);
    assert_eq!(wait(refused(429).with("Retry-After", &7)).await, Some(Duration::from_secs(7)));
    assert_eq!(wait(refused(503).with("Retry-After", &7)).await, Some(Duration::from_secs(7)));
    assert_eq!(wait(refused(429).with("Retry-After", &"Tue, 12 Mar 2024 00:00:09 GMT")).await, Some(Duration::from_secs(9)));
    assert_eq!(wait(refused(429).with("X-RateLimit-Reset", &1_710_201_630)).await, Some(Duration::from_secs(30)));
    assert_eq!(wait(refused(429).with("X-RateLimit-Reset", &1_710_201_630).with("Retry-After", &3)).await, Some(Duration::from_secs(3)));
    // What is past, or makes no sense.
    assert_eq!(wait(refused(429).with("X-RateLimit-Reset", &5)).await, Some(Duration::ZERO));
    assert_eq!(wait(refused(429).with("Retry-After", &"soon")).await, None);
    assert_eq!(wait(refused(429).with("Retry-After", &i64::MAX)).await, Some(Duration::from_secs(3_600)));
}

#[tokio::test]
async fn where_no_request_is_left_the_next_one_waits() {
    let page = json!({ "bars": { "AAA": [{ "t": FROM, "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1 }] }, "next_page_token": "two" });
    let last = json!({ "bars": {}, "next_page_token": null });
    let answer = move |reset: i64| {
        let (page, last) = (page.clone(), last.clone());
        move |seen: &super::vendor::Seen| {
            let body = if seen.query("page_token").is_none() { &page } else { &last };
            Reply::json(200, body).with("X-RateLimit-Remaining", &0).with("X-RateLimit-Reset", &reset)
        }
    };
    // In 30 seconds: waited for, on the clock of the run.
    let vendor = Vendor::start(answer(1_710_201_630)).await;
    let mut context = world();
    let clock = std::sync::Arc::new(Jumps(std::sync::Mutex::new(crate::common::at("2024-03-12T00:00:00Z"))));
    context.clock = clock.clone();
    source("stocks.alpaca", &vendor.url).fetch(&context, &request(&["AAA"], FROM, TO)).await.unwrap();
    assert_eq!((vendor.seen().len(), clock.0.lock().unwrap().to_string().as_str()), (2, "2024-03-12T00:00:30Z"));
    // In an hour: the workflow's `retry` decides.
    let vendor = Vendor::start(answer(1_710_205_200)).await;
    let error = source("stocks.alpaca", &vendor.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
    assert_eq!((error.kind(), error.wait_hint(), vendor.seen().len()), (Throttled, Some(Duration::from_secs(3_600)), 1));
}

/// A clock that advances only when somebody waits.
struct Jumps(std::sync::Mutex<jiff::Timestamp>);

#[async_trait::async_trait]
impl repair_core::plugin::Clock for Jumps {
    fn now(&self) -> jiff::Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep_until(&self, due: jiff::Timestamp) {
        let mut now = self.0.lock().unwrap();
        *now = due.max(*now);
    }
}

#[tokio::test]
async fn an_unusable_answer_is_shown_with_its_beginning() {
    let html = format!("<html>\n<body>Down for maintenance {SECRET}</body></html>");
    for error in both(Reply::new(200, "text/html", html)).await {
        assert_eq!(error.kind(), Invalid);
        assert!(error.message().ends_with("the answer begins: <html> <body>Down for maintenance …</body></html>"), "{error}");
        assert!(error.message().contains("text/html: expected value at line 1 column 1"), "{error}");
    }
    for error in
        both(Reply::json(200, &json!({ "bars": { "AAA": [{ "t": FROM, "o": "1.0" }] }, "status": "OK", "results": [{ "t": "x" }] }))).await
    {
        assert_eq!(error.kind(), Invalid);
        assert!(error.message().contains("at `/bars/AAA/0`") || error.message().contains("at `/results/0`: a time \"x\""), "{error}");
    }
    for (reply, word) in [
        (Reply::json(200, &json!({ "code": 429, "message": "out of credits" })), "`: out of credits"),
        (Reply::json(200, &json!([])), "the answer begins: []"),
        (Reply::new(200, "application/json", "{\"bars\": {}, \"status\": \"OK\"} {}"), "more than one value"),
        (Reply::new(200, "application/json", [0xff, 0xfe, 0x00, b'x']), "the answer begins: "),
        (Reply::new(200, "application/json", vec![b' '; (32 << 20) + 1]), "more than 32 MiB"),
    ] {
        for error in both(reply.clone()).await {
            assert_eq!(error.kind(), Invalid, "{error}");
            assert!(error.message().contains(word) && error.message().len() < 600, "{error}");
        }
    }
}

#[tokio::test]
async fn errors_that_massive_reports_under_200_are_errors() {
    for (body, kind, word) in [
        (json!({ "status": "NOT_AUTHORIZED", "message": format!("not entitled, {SECRET}") }), Denied, "not entitled, …"),
        (json!({ "status": "ERROR", "error": "odd" }), Invalid, "`/status` is `ERROR`: odd"),
        (json!({ "status": "OK", "ticker": "ZZZ", "results": [bar()] }), Invalid, "a row of `ZZZ`, which was not asked for"),
        (json!({ "status": "OK", "results": [bar()] }), Invalid, "without the field `ticker`"),
        (json!({ "status": "OK", "ticker": null, "results": [bar()] }), Invalid, "without the field `ticker`"),
        (json!({ "ticker": "AAA", "results": [bar()] }), Invalid, "without anything at `/status`"),
        (json!({ "status": null, "ticker": "AAA", "results": [bar()] }), Invalid, "`/status` is `null`"),
        (json!({ "status": "OK", "adjusted": true, "ticker": "AAA", "results": [bar()] }), Invalid, "`/adjusted` is `true`"),
        (
            json!({ "status": "OK", "ticker": "AAA", "next_url": "https://api.massive.com/v1/account" }),
            Invalid,
            "does not hold what was asked for",
        ),
        (json!({ "status": "OK", "ticker": "AAA", "next_url": "/v2/x" }), Invalid, "does not hold what was asked for"),
    ] {
        let vendor = Vendor::start(move |_| Reply::json(200, &body)).await;
        let error = source("stocks.massive", &vendor.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
        assert_eq!((error.kind(), vendor.seen().len()), (kind, 1), "{error}");
        assert!(error.message().contains(word), "{error}");
    }
}

fn bar() -> serde_json::Value {
    json!({ "v": 1, "o": 1.0, "c": 1.0, "h": 1.0, "l": 1.0, "t": 1_710_163_800_000_i64 })
}

#[tokio::test]
async fn a_connection_that_fails_is_transient_and_one_that_hangs_times_out() {
    let hangs = Reply { hangs: true, ..Reply::new(200, "text/plain", "") };
    for error in both(hangs).await {
        assert_eq!(error.kind(), Timeout);
        assert!(error.message().contains("did not answer within 1s"), "{error}");
    }
    let cut = Reply { cut_at: Some(20), ..Reply::json(200, &json!({ "bars": {}, "status": "OK", "next_page_token": null })) };
    for error in both(cut).await {
        assert_eq!(error.kind(), Transient, "{error}");
    }
    // Nobody listens there, and nobody else can: the port is taken.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", deaf.local_addr().unwrap());
    let error = source("stocks.alpaca", &url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
    assert_eq!(error.kind(), Transient);
    assert!(error.full().contains("could not be reached") && !error.full().contains("symbols="), "{}", error.full());
}

#[tokio::test]
async fn when_asked_to_stop_it_does_not_wait_for_an_answer() {
    let vendor = Vendor::start(|_| Reply { hangs: true, ..Reply::new(200, "text/plain", "") }).await;
    let context = world();
    let cancel = context.cancel.clone();
    let asked = tokio::spawn(async move { source("stocks.alpaca", &vendor.url).fetch(&context, &request(&["AAA"], FROM, TO)).await });
    tokio::task::yield_now().await;
    cancel.cancel();
    let error = tokio::time::timeout(Duration::from_secs(120), asked).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn pages_that_do_not_end_are_given_up() {
    let of = |pages: fn(usize) -> serde_json::Value| async move {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let vendor = Vendor::start(move |_| Reply::json(200, &pages(asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst)))).await;
        let error = source("stocks.alpaca", &vendor.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
        assert_eq!(error.kind(), Invalid);
        (error.message().to_owned(), vendor.seen().len())
    };
    let (said, asked) = of(|_| json!({ "bars": {}, "next_page_token": "same" })).await;
    assert!(said.contains("leads to an earlier page") && asked == 2, "{said}");
    let (said, asked) = of(|page| json!({ "bars": {}, "next_page_token": page.to_string() })).await;
    assert!(said.contains("pages in a row have no bars") && asked == 4, "{said}");
    // Ten minutes were asked for.
    let (said, asked) = of(|page| {
        let t = format!("2024-03-11T13:{:02}:00Z", 30 + page % 10);
        json!({ "bars": { "AAA": [{ "t": t, "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1 }] }, "next_page_token": page.to_string() })
    })
    .await;
    assert!(said.contains("more bars than the 10 requested minutes") && asked == 11, "{said}");
}

/// `max_pages` calls are set aside for a request, so no more may be made.
#[tokio::test]
async fn an_answer_has_as_many_pages_as_are_reckoned_with() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let vendor = Vendor::start(move |_| {
        let page = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let t = format!("2024-03-11T13:{:02}:00Z", 30 + page % 10);
        let bar = json!({ "t": t, "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1 });
        Reply::json(200, &json!({ "bars": { "AAA": [bar] }, "next_page_token": page.to_string() }))
    })
    .await;
    let source = source_with(&variables(), "stocks.alpaca", &json!({ "base_url": vendor.url, "max_pages": 2 })).unwrap();
    assert_eq!(source.requests_at_worst(), 2);
    let error = source.fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
    assert!(error.message().contains("more than 2 pages, the limit that `max_pages` sets"), "{error}");
    assert_eq!(vendor.seen().len(), 2);
}
