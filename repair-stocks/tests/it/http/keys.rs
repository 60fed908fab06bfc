//! Keys come from the environment before a run begins, are sent to one host only, and are shown nowhere.

use repair_core::ErrorKind;
use serde_json::{Value, json};

use super::vendor::{KEY_ID, Reply, SECRET, Vendor};
use super::{request, source, source_with, with_variables, world};

const FROM: &str = "2024-03-11T13:30:00Z";
const TO: &str = "2024-03-11T13:40:00Z";

#[tokio::test]
async fn a_missing_key_is_denied_with_the_variable_to_set_before_anything_is_asked() {
    let vendor = Vendor::start(|_| Reply::new(500, "text/plain", "")).await;
    let with = json!({ "base_url": vendor.url });
    for (name, set, missing) in [
        ("stocks.alpaca", &[][..], "APCA_API_KEY_ID"),
        ("stocks.alpaca", &[("APCA_API_KEY_ID", KEY_ID)], "APCA_API_SECRET_KEY"),
        ("stocks.alpaca", &[("APCA_API_KEY_ID", KEY_ID), ("APCA_API_SECRET_KEY", " ")], "APCA_API_SECRET_KEY"),
        ("stocks.massive", &[], "set MASSIVE_API_KEY (or POLYGON_API_KEY)"),
        ("stocks.polygon", &[("MASSIVE_API_KEY", "two words")], "MASSIVE_API_KEY"),
    ] {
        // It can be made all the same: a workflow is checked where it is not run.
        let source = source_with(&with_variables(set), name, &with).unwrap();
        for error in [source.ready().await.unwrap_err(), source.fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.message().contains(missing), "{error}");
            assert!(!error.full().contains(KEY_ID) && !error.full().contains("two words"), "{error}");
        }
    }
    assert!(vendor.seen().is_empty());
    for set in [[("MASSIVE_API_KEY", SECRET)], [("POLYGON_API_KEY", SECRET)]] {
        source_with(&with_variables(&set), "stocks.massive", &with).unwrap().ready().await.unwrap();
    }
}

#[test]
fn keys_go_nowhere_unencrypted_and_are_no_part_of_a_url() {
    let make = |url: &str| source_with(&with_variables(&[]), "stocks.massive", &json!({ "base_url": url })).map(|_| ());
    for (url, word) in [
        ("http://proxy.example/massive", "not encrypted"),
        ("http://127.0.0.1.example", "not encrypted"),
        ("https://proxy.example/?apiKey=x", "environment"),
        ("https://user:password@proxy.example", "environment"),
        ("ftp://127.0.0.1", "must use https"),
        ("proxy.example", "not a URL"),
    ] {
        let error = make(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(word), "{error}");
        assert!(!error.message().contains("password"), "{error}");
    }
    for url in ["https://proxy.example/massive", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1/x"] {
        make(url).unwrap();
    }
}

#[test]
fn what_cannot_be_asked_is_refused_when_the_workflow_is_read() {
    let make = |name: &str, with: Value| source_with(&with_variables(&[]), name, &with).map(|_| ());
    for (name, with) in [
        ("stocks.alpaca", json!({ "rows_per_request": 10_001 })),
        ("stocks.alpaca", json!({ "keys_per_request": 501 })),
        ("stocks.alpaca", json!({ "keys_per_request": 0 })),
        ("stocks.alpaca", json!({ "feed": "everything" })),
        ("stocks.alpaca", json!({ "asof": "yesterday" })),
        ("stocks.alpaca", json!({ "api_key": SECRET })),
        ("stocks.massive", json!({ "rows_per_request": 50_001 })),
        ("stocks.massive", json!({ "keys_per_request": 2 })),
    ] {
        assert_eq!(make(name, with.clone()).unwrap_err().kind(), ErrorKind::Invalid, "{with}");
    }
    make("stocks.alpaca", json!({ "feed": "delayed_sip", "adjustment": "all", "asof": "2022-06-09", "timeout": "5s" })).unwrap();
}

#[tokio::test]
async fn a_symbol_that_is_none_is_not_sent() {
    let vendor = Vendor::start(|_| Reply::new(500, "text/plain", "")).await;
    for name in ["stocks.alpaca", "stocks.massive"] {
        for symbol in ["A,B", "..", "A B", "A?x=1"] {
            let error = source(name, &vendor.url).fetch(&world(), &request(&[symbol], FROM, TO)).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.message().contains(symbol), "{error}");
        }
    }
    assert!(vendor.seen().is_empty());
}

#[tokio::test]
async fn no_redirect_is_followed_so_that_each_request_is_counted_and_keys_stay_with_one_host() {
    let elsewhere = Vendor::start(|_| Reply::json(200, &json!({ "bars": {} }))).await;
    let to = format!("{}/stolen?apiKey=K", elsewhere.url);
    let vendor = Vendor::start(move |seen| match seen.url.path() {
        "/v2/stocks/bars" if seen.query("feed").is_some() => Reply::new(302, "text/plain", "").with("Location", &"/moved"),
        "/moved" => Reply::json(200, &json!({ "bars": {} })),
        _ => Reply::new(307, "text/plain", "").with("Location", &to),
    })
    .await;
    let error = source("stocks.alpaca", &vendor.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains(&format!("a redirect to {}/moved", vendor.url)), "{error}");
    let error = source("stocks.massive", &vendor.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains(&format!("a redirect to {}/stolen, which is not followed", elsewhere.url)), "{error}");
    assert!(elsewhere.seen().is_empty(), "nothing was sent there");
    assert_eq!(vendor.seen().len(), 2, "one request for each fetch");
}

/// A proxy or a confused API may send a key back: as a symbol, in an error, in a redirect, behind blanks, in another form.
#[tokio::test]
async fn a_key_that_comes_back_is_shown_nowhere() {
    let encoded: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let split: String = SECRET.chars().map(|character| format!("{character}\n")).collect();
    let bar = json!({ "t": FROM, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1, "n": 1, "vw": 1 });
    for back in [SECRET.to_owned(), SECRET.to_uppercase(), encoded, split, format!("x{}", &SECRET[..SECRET.len() - 3])] {
        let at_the_cut = format!("{}{back}", " ".repeat(8_192 - SECRET.len() + 3));
        let replies = [
            Reply::json(200, &json!({ "bars": { back.clone(): [bar.clone()] } })),
            Reply::json(200, &json!({ "ticker": back, "status": "OK", "results": [{ "t": 1, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1 }] })),
            Reply::json(403, &json!({ "message": back })),
            Reply::new(500, "text/plain", at_the_cut.clone()),
            Reply::new(200, "text/html", at_the_cut),
            Reply::new(301, "text/plain", back.clone()).with("Location", &format!("/moved/{}", back.replace('\n', "%0A"))),
        ];
        for reply in replies {
            let sent = reply.clone();
            let vendor = Vendor::start(move |_| sent.clone()).await;
            for name in ["stocks.alpaca", "stocks.massive"] {
                let said = match source(name, &vendor.url).fetch(&world(), &request(&["AAA"], FROM, TO)).await {
                    Ok(answer) => format!("{answer:?}"),
                    Err(error) => error.full(),
                };
                let letters: String = said.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
                let parts = SECRET.as_bytes().windows(8).map(|part| String::from_utf8_lossy(part).to_lowercase());
                let hexadecimal = SECRET[..8].bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
                for part in parts.chain([hexadecimal]) {
                    assert!(!letters.contains(&part), "{part} is in {said}, which answers {reply:?}");
                }
            }
        }
    }
}
