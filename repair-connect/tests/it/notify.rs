//! Messages to a receiver on loopback that fails, hangs or hangs up; signatures; programs and files; and that no secret is shown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};

use repair_connect::notify::{lineage, receiver, signature};
use repair_connect::secret::Secret;
use repair_connect::{Commands, Options};
use repair_core::plugin::{Clock, Deliver, Message, SystemClock};
use repair_core::workflow::{Address, Lineage, Receiver};
use repair_core::{Error, ErrorKind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::world::{SECRET, VARIABLE, options};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answers(u16, &'static str, &'static str),
    Closes,
    /// It never answers; the clock jumps.
    Hangs,
}

/// Accepts one connection after another, and returns what arrived.
async fn server(does: Does) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            loop {
                let mut chunk = [0; 4_096];
                let length = stream.read(&mut chunk).await.unwrap_or(0);
                bytes.extend_from_slice(&chunk[..length]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                    length.and_then(|length| length.parse::<usize>().ok()).is_none_or(|length| body.len() >= length)
                });
                if length == 0 || whole {
                    noted.lock().unwrap().push(text);
                    break;
                }
            }
            match does {
                Does::Answers(status, headers, body) => {
                    let answer =
                        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                Does::Closes => {}
                Does::Hangs => {
                    // From here on, time passes as soon as everybody waits.
                    tokio::time::pause();
                    std::future::pending::<()>().await;
                }
            }
        }
    });
    (url, seen)
}

fn message() -> Message {
    let body = json!({ "format": 1, "id": "run.7.failed.ops", "what": "failed", "text": "run `run` failed <&>" });
    Message::new("run.7.failed.ops", "[repair] nightly: failed", "run `run` failed <&>", body, SystemClock.now())
}

/// The options of these tests, with more variables.
fn with(name: &'static str, value: String) -> Options {
    let before = options().environment;
    Options::default().with_environment(Arc::new(move |asked| if asked == name { Some(value.clone()) } else { before(asked) }))
}

fn webhook(url: &str) -> Receiver {
    Receiver::Webhook { address: Address::Url(url.to_owned()), secret_env: Some(VARIABLE.to_owned()) }
}

fn shows_no_secret(error: &Error) {
    let all = format!("{error:?} {}", error.full());
    assert!(!all.contains(SECRET) && !all.contains("T0K3N"), "{all}");
}

#[tokio::test]
async fn a_message_is_posted_with_its_id_and_a_signature_that_verifies() {
    let (url, seen) = server(Does::Answers(204, "", "")).await;
    let deliver = receiver(&webhook(&format!("{url}/hooks/repair")), &options()).unwrap();
    let message = message();
    deliver.deliver(&message).await.unwrap();
    deliver.deliver(&message).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hooks/repair HTTP/1.1"), "{head}");
        let header =
            |name: &str| head.lines().find_map(|line| line.to_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned)).unwrap();
        assert_eq!((header("content-type").as_str(), header("repair-message-id").as_str()), ("application/json", "run.7.failed.ops"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), message.body);
        let (secret, now) = (Secret::new(SECRET), SystemClock.now());
        assert!(signature::is_of(&header("repair-signature"), &secret, body.as_bytes(), now));
        assert!(!signature::is_of(&header("repair-signature"), &secret, format!("{body} ").as_bytes(), now));
        assert!(!request.contains(SECRET));
    }
}

#[tokio::test]
async fn what_a_receiver_answers_decides_whether_another_attempt_makes_sense() {
    for (status, kind) in [
        (500, ErrorKind::Transient),
        (503, ErrorKind::Transient),
        (429, ErrorKind::Throttled),
        (408, ErrorKind::Timeout),
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (410, ErrorKind::NotFound),
        (400, ErrorKind::Invalid),
        (302, ErrorKind::Invalid),
    ] {
        let (url, seen) = server(Does::Answers(status, "retry-after: 7\r\nlocation: http://127.0.0.1:9/\r\n", "sorry")).await;
        let error = receiver(&webhook(&url), &options()).unwrap().deliver(&message()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert!(error.full().contains(&status.to_string()) && error.full().contains("sorry"), "{}", error.full());
        let waits = matches!(kind, ErrorKind::Transient | ErrorKind::Throttled);
        assert_eq!(error.wait_hint().map(|wait| wait.as_secs()), waits.then_some(7), "{status}");
        assert_eq!(seen.lock().unwrap().len(), 1, "it is asked once, and no redirect is followed");
        shows_no_secret(&error);
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_up_or_is_not_there_may_be_there_later() {
    let (url, _) = server(Does::Closes).await;
    let error = receiver(&webhook(&url), &options()).unwrap().deliver(&message()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{}", error.full());
    shows_no_secret(&error);
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}", deaf.local_addr().unwrap());
    let error = receiver(&webhook(&nobody), &options()).unwrap().deliver(&message()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{}", error.full());
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_given_up() {
    let (url, seen) = server(Does::Hangs).await;
    let error = receiver(&webhook(&url), &options()).unwrap().deliver(&message()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.full());
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_channel_gets_the_text_and_nobody_sees_its_url() {
    let (url, seen) = server(Does::Answers(200, "", "ok")).await;
    let options_of = |url: &str| with("SLACK_URL", format!("{url}/services/T0K3N?key=T0K3N"));
    let slack = Receiver::Slack { url_env: "SLACK_URL".to_owned() };
    receiver(&slack, &options_of(&url)).unwrap().deliver(&message()).await.unwrap();
    let request = seen.lock().unwrap()[0].clone();
    assert!(request.starts_with("POST /services/T0K3N?key=T0K3N HTTP/1.1"), "{request}");
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, json!({ "text": "run `run` failed &lt;&amp;&gt;" }));
    // Whatever goes wrong, its URL is not shown, nor what the other side says of it.
    let (echoes, _) = server(Does::Answers(404, "", "no /services/T0K3N?key=T0K3N here")).await;
    for url in [&echoes, "ftp://T0K3N", "not a url T0K3N", "http://hooks.example", "https://user:T0K3N@hooks.example"] {
        let error = receiver(&slack, &options_of(url)).unwrap().deliver(&message()).await.unwrap_err();
        shows_no_secret(&error);
        assert!(error.full().contains("the URL in `SLACK_URL`"), "{}", error.full());
    }
    let error = receiver(&slack, &options()).unwrap().deliver(&message()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.full().contains("SLACK_URL"), "{}", error.full());
}

#[tokio::test]
async fn a_program_reads_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("page");
    let got = folder.path().join("got");
    let text = format!(
        "#!/bin/sh\ncat > {0}\nprintf '%s|%s|%s' \"$1\" \"$REPAIR_ID\" \"${VARIABLE}\" >> {0}\nexit \"${{2:-0}}\"\n",
        got.display()
    );
    std::fs::write(&script, text).unwrap();
    let program = |more: &[&str]| {
        // A shell reads it, since a file that was just written may still be open in a process that was forked meanwhile, and is then not executed.
        let run = [&["sh", script.to_str().unwrap(), "{subject}"], more].concat().into_iter().map(str::to_owned).collect();
        Receiver::Command { run, env: vec![VARIABLE.to_owned()] }
    };
    receiver(&program(&[]), &options()).unwrap().deliver(&message()).await.unwrap();
    let read = std::fs::read_to_string(&got).unwrap();
    assert_eq!(read, format!("{}[repair] nightly: failed|run.7.failed.ops|{SECRET}", message().body));
    for (code, kind) in [("75", ErrorKind::Transient), ("77", ErrorKind::Denied), ("1", ErrorKind::Invalid)] {
        let error = receiver(&program(&[code]), &options()).unwrap().deliver(&message()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        shows_no_secret(&error);
    }
    let refused = receiver(&program(&[]), &options().with_commands(Commands::None)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn events_go_to_a_file_line_by_line_or_to_a_url_with_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let file: Arc<dyn Deliver> = lineage(&Lineage::File(path.to_str().unwrap().to_owned()), &options()).unwrap();
    file.deliver(&message()).await.unwrap();
    file.deliver(&message()).await.unwrap();
    let lines = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>(),
        vec![message().body; 2]
    );
    let gone = lineage(&Lineage::File(folder.path().join("no/such").to_str().unwrap().to_owned()), &options()).unwrap();
    assert_eq!(gone.deliver(&message()).await.unwrap_err().kind(), ErrorKind::NotFound);
    let (url, seen) = server(Does::Answers(201, "", "")).await;
    let to = Lineage::Url { address: Address::Url(format!("{url}/api/v1/lineage")), key_env: Some(VARIABLE.to_owned()) };
    lineage(&to, &options()).unwrap().deliver(&message()).await.unwrap();
    let request = seen.lock().unwrap()[0].clone();
    assert!(request.to_lowercase().contains(&format!("authorization: bearer {}", SECRET.to_lowercase())), "{request}");
}
