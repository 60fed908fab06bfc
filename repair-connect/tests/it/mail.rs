//! Messages to a small double of a mail server on loopback, as RFC 5321 has it: what it gets, what it refuses, and that no secret is shown or sent unprotected.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use repair_connect::Options;
use repair_connect::notify::receiver;
use repair_core::plugin::{Clock as _, Message, SystemClock};
use repair_core::workflow::{MailAddress, MailSecurity, MailServer, Receiver};
use repair_core::{Error, ErrorKind};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};

const USER: &str = "mailer@example.org";
const PASSWORD: &str = "pass word s3cr3t ünd so";

/// What a server does other than take everything.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Takes,
    /// It answers a command that begins so with this line.
    Refuses(&'static str, &'static str),
    /// It closes the connection when a command begins so.
    Closes(&'static str),
    /// It wants a login, and repeats it when it refuses one.
    RefusesLogin,
}

/// What a server got.
#[derive(Debug, Clone, Default, PartialEq)]
struct Got {
    /// All lines of the client but those of letters.
    commands: Vec<String>,
    letters: Vec<String>,
}

async fn server(does: Does) -> (u16, Arc<Mutex<Got>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let got = Arc::<Mutex<Got>>::default();
    let noted = got.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let _ = stream.write_all(b"220 double\r\n").await;
            let mut letter: Option<String> = None;
            loop {
                let mut line = Vec::new();
                if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                    break;
                }
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(text) = &mut letter {
                    if line == ".\r\n" {
                        noted.lock().unwrap().letters.push(std::mem::take(text));
                        letter = None;
                        let _ = stream.write_all(b"250 taken\r\n").await;
                    } else {
                        text.push_str(line.strip_prefix('.').unwrap_or(&line));
                    }
                    continue;
                }
                let command = line.trim_end().to_owned();
                noted.lock().unwrap().commands.push(command.clone());
                let answer = match does {
                    Does::Closes(begins) if command.starts_with(begins) => break,
                    Does::Refuses(begins, answer) if command.starts_with(begins) => answer.to_owned(),
                    Does::RefusesLogin if command.starts_with("AUTH") => {
                        let encoded = command.rsplit(' ').next().unwrap_or_default();
                        let plain = String::from_utf8_lossy(&STANDARD.decode(encoded).unwrap()).replace('\0', "|");
                        format!("535 5.7.8 no: {encoded} {plain} {PASSWORD}")
                    }
                    _ if command.starts_with("EHLO") => "250-double\r\n250-8BITMIME\r\n250 AUTH PLAIN".to_owned(),
                    _ if command.starts_with("AUTH") => "235 welcome".to_owned(),
                    _ if command == "DATA" => {
                        letter = Some(String::new());
                        "354 go on".to_owned()
                    }
                    _ if command == "QUIT" => "221 bye".to_owned(),
                    _ => "250 ok".to_owned(),
                };
                let _ = stream.write_all(format!("{answer}\r\n").as_bytes()).await;
            }
        }
    });
    (port, got)
}

fn options() -> Options {
    Options::default().with_environment(Arc::new(|name| match name {
        "MAIL_USER" => Some(USER.to_owned()),
        // As a file has it that ends with a line break.
        "MAIL_PASSWORD" => Some(format!("{PASSWORD}\n")),
        "MAIL_ODD" => Some("one\ntwo".to_owned()),
        _ => None,
    }))
}

fn to(server: MailServer) -> Receiver {
    let address = |text: &str| MailAddress::read(text).unwrap();
    Receiver::Email { to: vec![address("ops@example.org"), address("team@example.org")], from: address("repair@example.org"), server }
}

fn plain(port: u16) -> MailServer {
    MailServer::new("127.0.0.1", MailSecurity::None).at_port(port)
}

fn message(subject: &str, text: &str) -> Message {
    let body = json!({ "format": 1, "id": "run.7.failed.ops", "what": "failed", "text": text, "problems": ["fill: denied"] });
    Message::new("run.7.failed.ops", subject, text, body, SystemClock.now())
}

async fn sent(server: MailServer, message: &Message) -> Result<(), Error> {
    receiver(&to(server), &options()).unwrap().deliver(message).await
}

fn shows_no_secret(error: &Error) {
    let all = format!("{error:?} {}", error.full());
    let encoded = STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
    for secret in [PASSWORD, "s3cr3t", USER, &encoded] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[tokio::test]
async fn a_letter_has_the_text_the_id_and_says_that_no_person_wrote_it() {
    let (port, got) = server(Does::Takes).await;
    let message = message("[repair] nightly: failed", "run `run` failed:\n.a line that begins with a dot\nü");
    sent(plain(port).with_login("MAIL_USER", "MAIL_PASSWORD"), &message).await.unwrap();
    sent(plain(port), &message).await.unwrap();
    let got = got.lock().unwrap().clone();
    let login = format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{USER}\0{PASSWORD}")));
    assert_eq!(got.commands.iter().filter(|command| **command == login).count(), 1, "{:?}", got.commands);
    for expected in ["MAIL FROM:<repair@example.org>", "RCPT TO:<ops@example.org>", "RCPT TO:<team@example.org>"] {
        assert_eq!(got.commands.iter().filter(|command| command.starts_with(expected)).count(), 2, "{:?}", got.commands);
    }
    assert_eq!(got.letters.len(), 2);
    let header = |letter: &str, name: &str| {
        let (head, _) = letter.split_once("\r\n\r\n").unwrap();
        head.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
            .unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    for letter in &got.letters {
        assert_eq!(header(letter, "Subject"), "[repair] nightly: failed");
        assert_eq!(
            (header(letter, "From"), header(letter, "To")),
            ("repair@example.org".to_owned(), "ops@example.org, team@example.org".to_owned())
        );
        assert_eq!(
            (header(letter, "Repair-Message-Id"), header(letter, "Auto-Submitted")),
            ("run.7.failed.ops".to_owned(), "auto-generated".to_owned())
        );
        assert!(header(letter, "Message-ID").ends_with("@example.org>"), "{letter}");
        assert!(letter.contains("\r\n.a line that begins with a dot\r\n") && letter.contains("\r\n- fill: denied\r\n"), "{letter}");
        assert!(!letter.contains("s3cr3t"));
    }
    assert_eq!(header(&got.letters[0], "Message-ID"), header(&got.letters[1], "Message-ID"), "what comes again has the same id");
}

/// What a table, a workflow or a source may be called.
#[tokio::test]
async fn no_name_begins_another_header_another_letter_or_another_command() {
    let (port, got) = server(Does::Takes).await;
    let hostile = "x\r\nBcc: all@example.org\r\n\r\nhello\r\n.\r\nMAIL FROM:<evil@example.org>\r\n";
    let mut message = message(hostile, &format!("table `{hostile}` failed \u{1b}[31m"));
    message.id = format!("run.{hostile}");
    sent(plain(port), &message).await.unwrap();
    let got = got.lock().unwrap().clone();
    assert_eq!(got.letters.len(), 1, "{got:?}");
    assert!(!got.commands.iter().any(|command| command.contains("evil") || command.contains("all@")), "{:?}", got.commands);
    let (head, _) = got.letters[0].split_once("\r\n\r\n").unwrap();
    let names: Vec<&str> =
        head.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let expected = [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "MIME-Version",
        "Message-ID",
        "Repair-Message-Id",
        "Subject",
        "To",
    ];
    assert!(sorted.iter().all(|name| expected.contains(name)), "{head}");
    assert!(!sorted.contains(&"Bcc") && sorted.windows(2).all(|pair| pair[0] != pair[1]), "{head}");
    assert!(!head.contains('\u{1b}'), "{head}");
}

#[tokio::test]
async fn what_a_server_answers_decides_whether_another_attempt_makes_sense() {
    for (does, kind, says) in [
        (Does::Refuses("MAIL", "451 4.3.0 try again later"), ErrorKind::Transient, "try again later"),
        (Does::Refuses("RCPT", "550 5.1.1 no such user"), ErrorKind::NotFound, "no such user"),
        (Does::Refuses("MAIL", "530 5.7.0 log in first"), ErrorKind::Denied, "log in first"),
        (Does::Refuses("DATA", "554 5.7.1 we want none of this"), ErrorKind::Invalid, "we want none of this"),
        (Does::Closes("RCPT"), ErrorKind::Transient, "mail server 127.0.0.1:"),
        (Does::RefusesLogin, ErrorKind::Denied, "no: …"),
    ] {
        let (port, got) = server(does).await;
        let error = sent(plain(port).with_login("MAIL_USER", "MAIL_PASSWORD"), &message("s", "t")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.full());
        assert!(error.full().contains(says), "{}", error.full());
        shows_no_secret(&error);
        assert!(got.lock().unwrap().letters.is_empty());
    }
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = deaf.local_addr().unwrap().port();
    assert_eq!(sent(plain(nobody), &message("s", "t")).await.unwrap_err().kind(), ErrorKind::Transient);
}

/// Whoever sits between us and a server can leave out that it knows STARTTLS, or answer in the clear.
#[tokio::test]
async fn without_the_encryption_that_was_asked_for_nothing_is_sent() {
    for (security, kind) in [(MailSecurity::StartTls, ErrorKind::Invalid), (MailSecurity::Tls, ErrorKind::Denied)] {
        let (port, got) = server(Does::Takes).await;
        let server = MailServer::new("127.0.0.1", security).at_port(port).with_login("MAIL_USER", "MAIL_PASSWORD");
        let error = sent(server, &message("s", "t")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.full());
        shows_no_secret(&error);
        let got = got.lock().unwrap().clone();
        let is_harmless = |command: &String| !command.contains("AUTH") && !command.contains("MAIL") && !command.contains("example.org");
        assert!(got.letters.is_empty() && got.commands.iter().all(is_harmless), "{got:?}");
    }
    let elsewhere = receiver(&to(MailServer::new("smtp.example.org", MailSecurity::None)), &options()).err().unwrap();
    assert_eq!(elsewhere.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_login_that_is_not_there_or_cannot_be_one_is_said_by_the_name_of_its_variable() {
    let (port, got) = server(Does::Takes).await;
    for (user, password, says) in
        [("MAIL_USER", "NOT_SET", "NOT_SET"), ("NOT_SET", "MAIL_PASSWORD", "NOT_SET"), ("MAIL_USER", "MAIL_ODD", "MAIL_ODD")]
    {
        let error = sent(plain(port).with_login(user, password), &message("s", "t")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.full().contains(says) && !error.full().contains("two"), "{}", error.full());
        shows_no_secret(&error);
    }
    assert_eq!(*got.lock().unwrap(), Got::default(), "it is not even asked");
}
