//! Messages that are posted over HTTP.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use repair_core::plugin::{Deliver, Message};
use repair_core::workflow::Address;
use repair_core::{Error, ErrorKind, Result};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};

use super::signature;
use crate::allowed::Options;
use crate::http::{Api, Words, header, place, seconds, shown};
use crate::secret::{Environment, Secret, without};

/// How long a receiver may take to answer. It should note the message and answer; work on it can come later.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read: what it says is of interest only if it is a refusal.
const READ_BYTES: usize = 8 << 10;
/// The longest wait that a receiver can ask for.
const LONGEST_WAIT_S: u64 = 3_600;
/// How many characters a message in Slack has at most. Slack cuts texts at 40,000.
const SLACK_CHARS: usize = 30_000;

/// A URL to which messages are posted.
struct Target {
    address: Address,
    environment: Environment,
    /// Where it is, and what sends there; found when the first message is sent.
    found: OnceLock<(Url, Api)>,
}

impl Target {
    fn new(address: Address, options: &Options) -> Result<Self> {
        let target = Self { address, environment: options.environment.clone(), found: OnceLock::new() };
        if matches!(target.address, Address::Url(_)) {
            target.find()?;
        }
        Ok(target)
    }

    /// What errors call it.
    fn name(&self) -> String {
        match &self.address {
            Address::Url(url) => {
                Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "the receiver".to_owned())
            }
            Address::Variable(variable) => format!("the URL in `{variable}`"),
            _ => "the receiver".to_owned(),
        }
    }

    /// Where it is, and what may not be shown of that.
    fn find(&self) -> Result<&(Url, Api)> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let name = self.name();
        let text = match &self.address {
            Address::Url(url) => url.clone(),
            Address::Variable(variable) => Secret::read(&self.environment, &name, &[variable])?.reveal().to_owned(),
            _ => return Err(Error::internal("an address of an unknown kind")),
        };
        // The text may be a secret, so the error of the parser, which may show it, is left out.
        let url = Url::parse(&text).map_err(|_| Error::new(ErrorKind::Denied, format!("{name} is not a URL; set it again")))?;
        let mut bare = url.clone();
        bare.set_query(None);
        bare.set_fragment(None);
        let hidden = |error: Error| match &self.address {
            Address::Url(_) => error,
            _ => Error::new(ErrorKind::Denied, format!("{name} must use https (or http on this machine), and hold no user or password")),
        };
        let words = Words::default().with("messages", "messages", "messages").with_address("url");
        let api = Api::new(name.clone(), bare.as_str(), None, words).map_err(hidden)?;
        Ok(self.found.get_or_init(|| (url, api)))
    }

    /// The secrets that its address has.
    fn secrets(&self, url: &Url) -> Vec<Secret> {
        match &self.address {
            Address::Url(_) => Vec::new(),
            // The host alone is none, but what stands after it is.
            _ => [Some(url.as_str()), Some(url.path()).filter(|path| path.len() > 1), url.query()]
                .into_iter()
                .flatten()
                .map(Secret::new)
                .collect(),
        }
    }

    async fn post(&self, body: Vec<u8>, headers: Vec<(HeaderName, HeaderValue)>, mut secrets: Vec<Secret>) -> Result<()> {
        let (url, api) = self.find()?;
        secrets.extend(self.secrets(url));
        let name = self.name();
        let mut request = api.client()?.post(url.clone()).timeout(TIMEOUT).header(CONTENT_TYPE, "application/json").body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(|error| {
            let (kind, what) = match &error {
                error if error.is_timeout() => (ErrorKind::Timeout, format!("did not answer within {} s", TIMEOUT.as_secs())),
                error if error.is_connect() => (ErrorKind::Transient, "could not be reached".to_owned()),
                _ => (ErrorKind::Transient, "broke off its answer".to_owned()),
            };
            let why = without(&Error::internal("").because(error.without_url()).full(), &secrets);
            tracing::debug!(receiver = name, why, "a message was not delivered");
            Error::new(kind, format!("{name} {what}"))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let wait = response.headers().get(RETRY_AFTER).and_then(|wait| seconds(wait.to_str().ok()?));
        let mut said = Vec::new();
        while said.len() < READ_BYTES {
            // What a refusal says is only for people, so one that breaks off is shown as far as it came.
            let Ok(Some(chunk)) = response.chunk().await else { break };
            said.extend_from_slice(chunk.get(..chunk.len().min(READ_BYTES - said.len())).unwrap_or_default());
        }
        let said = shown(&said, &secrets);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let at = match &self.address {
            Address::Url(_) => format!(" at {}", place(url)),
            _ => String::new(),
        };
        let error = Error::new(kind_of(status), format!("{name}{at} answered with {}{said}", status.as_u16()));
        Err(match wait.filter(|_| matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Transient)) {
            Some(wait) => error.retry_after(Duration::from_secs(wait.min(LONGEST_WAIT_S))),
            None => error,
        })
    }
}

/// Whether another attempt may succeed. A redirect is not followed: messages are sent where the workflow says.
fn kind_of(status: StatusCode) -> ErrorKind {
    const TOO_EARLY: u16 = 425;
    match status {
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Throttled,
        StatusCode::REQUEST_TIMEOUT => ErrorKind::Timeout,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
        status if status.is_server_error() || status.as_u16() == TOO_EARLY => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    }
}

fn json_of(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

/// The id of a message, by which a receiver knows one that comes again.
const ID: HeaderName = HeaderName::from_static("repair-message-id");

/// Posts messages as JSON.
pub(super) struct Webhook {
    target: Target,
    secret: Option<String>,
}

impl Webhook {
    pub(super) fn new(address: &Address, secret: Option<&str>, options: &Options) -> Result<Self> {
        Ok(Self { target: Target::new(address.clone(), options)?, secret: secret.map(str::to_owned) })
    }
}

#[async_trait]
impl Deliver for Webhook {
    async fn deliver(&self, message: &Message) -> Result<()> {
        let body = json_of(&message.body);
        let mut headers = Vec::new();
        if let Ok(id) = HeaderValue::from_str(&message.id) {
            headers.push((ID, id));
        }
        let mut secrets = Vec::new();
        if let Some(variable) = &self.secret {
            let secret = Secret::read(&self.target.environment, &self.target.name(), &[variable])?;
            let signature = HeaderValue::from_str(&signature::of(&secret, message.sent_at, &body))
                .map_err(|error| Error::internal("a signature is not a header").because(error))?;
            headers.push((HeaderName::from_static("repair-signature"), signature));
            secrets.push(secret);
        }
        self.target.post(body, headers, secrets).await
    }
}

/// Posts messages to a channel of Slack.
pub(super) struct Slack {
    target: Target,
}

impl Slack {
    pub(super) fn new(url_env: &str, options: &Options) -> Self {
        let address = Address::Variable(url_env.to_owned());
        Self { target: Target { address, environment: options.environment.clone(), found: OnceLock::new() } }
    }
}

/// A text as Slack takes it: three characters control how it looks (<https://docs.slack.dev/messaging/formatting-message-text>).
fn for_slack(text: &str) -> String {
    let cut: String = text.chars().take(SLACK_CHARS).collect();
    cut.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[async_trait]
impl Deliver for Slack {
    async fn deliver(&self, message: &Message) -> Result<()> {
        self.target.post(json_of(&json!({ "text": for_slack(&message.text) })), Vec::new(), Vec::new()).await
    }
}

/// Posts OpenLineage events.
pub(super) struct Lineage {
    target: Target,
    key: Option<String>,
}

impl Lineage {
    pub(super) fn new(address: &Address, key: Option<&str>, options: &Options) -> Result<Self> {
        Ok(Self { target: Target::new(address.clone(), options)?, key: key.map(str::to_owned) })
    }
}

#[async_trait]
impl Deliver for Lineage {
    async fn deliver(&self, message: &Message) -> Result<()> {
        let (mut headers, mut secrets) = (Vec::new(), Vec::new());
        if let Some(variable) = &self.key {
            let key = Secret::read(&self.target.environment, &self.target.name(), &[variable])?;
            headers.push((AUTHORIZATION, header("Bearer ", &key)?));
            secrets.push(key);
        }
        self.target.post(json_of(&message.body), headers, secrets).await
    }
}
