//! A server on a folder of workflows and a lake, and a reader that speaks HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use repair::CancellationToken;
use repair_serve::{Options, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Two sensors; one lacks an hour.
pub(crate) const READINGS: &str = "ts,sensor,value\n2024-03-04T00:00:00Z,a,1\n2024-03-04T01:00:00Z,a,2\n2024-03-04T02:00:00Z,a,3\n2024-03-04T00:00:00Z,b,1\n2024-03-04T02:00:00Z,b,3\n";

/// A workflow that interpolates what is missing; `more` is added to it.
pub(crate) fn workflow(name: &str, more: &str) -> String {
    format!(
        "workflow: {name}
kind: state-machine
params:
  day: {{ type: date, default: 2024-03-04, about: The day to look at }}
{more}
tables:
  readings: {{ location: readings, format: csv, key: [sensor], time: ts, cadence: 1h }}
start: look
steps:
  look:
    detect: gaps
    with: {{ table: readings, keys: [a, b], from: '{{% $params.day & \"T00:00:00Z\" %}}', to: '{{% $params.day & \"T03:00:00Z\" %}}' }}
    next: fill
  fill: {{ repair: interpolate, of: look, with: {{ max_gap: 2h }}, next: check }}
  check: {{ verify: look, next: rest }}
  rest: {{ wait: {{ for: 2s }}, end: true }}
"
    )
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    serving: JoinHandle<repair::Result<()>>,
}

impl World {
    pub(crate) async fn new(files: &[(&str, &str)], set: impl FnOnce(Options) -> Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("lake/readings")).unwrap();
        std::fs::write(folder.path().join("lake/readings/all.csv"), READINGS).unwrap();
        std::fs::create_dir(folder.path().join("workflows")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join("workflows").join(name), text).unwrap();
        }
        Self::again(folder, set).await
    }

    /// A server on what another one has left.
    pub(crate) async fn again(folder: tempfile::TempDir, set: impl FnOnce(Options) -> Options) -> Self {
        let options = Options::new(folder.path().join("workflows")).with_lake(folder.path().join("lake"));
        let server = Server::bind(set(options)).await.unwrap_or_else(|error| panic!("{}", error.full()));
        let (address, stop) = (server.address(), CancellationToken::new());
        let serving = tokio::spawn(server.run(stop.clone()));
        Self { folder, address, stop, serving }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.serving).await.expect("the server stops").unwrap().unwrap();
        self.folder
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Sends a form as a page of this server does.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.get("/workflows/nightly").await.body;
        let secret = page
            .split("name=\"secret\" value=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a page has the secret")
            .to_owned();
        let body: Vec<String> =
            fields.iter().chain([&("secret", secret.as_str())]).map(|(name, value)| format!("{name}={value}")).collect();
        let origin = format!("http://{}", self.address);
        self.ask("POST", path, &[("origin", &origin)], &body.join("&")).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = self.address.to_string();
        let mut all: BTreeMap<&str, &str> = BTreeMap::from([("host", host.as_str()), ("connection", "close")]);
        let length = body.len().to_string();
        all.insert("content-length", &length);
        all.extend(headers.iter().copied());
        let head: String = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\n{head}\r\n{body}").as_bytes()).await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        Answer::of(&String::from_utf8(text).unwrap())
    }

    /// Waits until a page holds a text.
    pub(crate) async fn until(&self, path: &str, holds: &str) -> String {
        let began = std::time::Instant::now();
        loop {
            let body = self.get(path).await.body;
            if body.contains(holds) {
                return body;
            }
            assert!(began.elapsed() < Duration::from_secs(90), "`{path}` never held `{holds}`: {body}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Opens the messages, and returns what reads the next one.
    pub(crate) async fn messages(&self) -> Messages {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("GET /events HTTP/1.1\r\nhost: {}\r\n\r\n", self.address).as_bytes()).await.unwrap();
        Messages(BufReader::new(stream))
    }
}

pub(crate) struct Messages(BufReader<TcpStream>);

impl Messages {
    /// The next message; `None` if the server has ended them.
    pub(crate) async fn next(&mut self) -> Option<u64> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.unwrap_or(0) == 0 {
                return None;
            }
            if let Some(version) = line.strip_prefix("data:") {
                return version.trim().parse().ok();
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).unwrap_or(0);
        let headers =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub(crate) fn location(&self) -> &str {
        self.headers.get("location").map_or("", String::as_str)
    }
}
