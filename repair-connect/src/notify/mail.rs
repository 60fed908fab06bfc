//! Messages as mail, handed to a server by SMTP.
//!
//! What a message says comes from workflows, tables and sources, which may name anything. Headers are made of one line each, whatever is in it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message as Letter};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{SmtpTransport, Transport, transport::smtp};
use repair_core::plugin::{Deliver, Message};
use repair_core::workflow::{MailAddress, MailSecurity, MailServer};
use repair_core::{Error, ErrorKind, Result};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::allowed::Options;
use crate::secret::{Environment, Secret, without};

/// How long the server may take for each step: to connect, and to answer a command.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The most characters of a subject. Programs show fewer.
const SUBJECT_CHARS: usize = 200;
/// The id of a message, by which a receiver knows one that comes again.
const ID: HeaderName = HeaderName::new_from_ascii_str("Repair-Message-Id");
/// Says that no person wrote it, so that no machine answers: RFC 3834.
const AUTOMATIC: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");

/// Sends messages as mail.
pub(super) struct Mail {
    to: Vec<Mailbox>,
    from: Mailbox,
    server: MailServer,
    environment: Environment,
}

impl Mail {
    pub(super) fn new(to: &[MailAddress], from: &MailAddress, server: &MailServer, options: &Options) -> Result<Self> {
        let is_here = server.host == "localhost" || server.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if server.security == MailSecurity::None && !is_here {
            return Err(Error::invalid(format!("mail to {} must be encrypted, unless the server is on this machine", server.host)));
        }
        let to = to.iter().map(mailbox).collect::<Result<Vec<_>>>()?;
        Ok(Self { to, from: mailbox(from)?, server: server.clone(), environment: options.environment.clone() })
    }

    /// What errors call the server.
    fn name(&self) -> String {
        format!("mail server {}:{}", self.server.host, self.server.port)
    }

    /// Reads a part of the login. A password may hold spaces, and characters of any language.
    fn secret(&self, variable: &str) -> Result<Secret> {
        let denied = |what: &str| Error::new(ErrorKind::Denied, format!("{} needs a login, and {what}", self.name()));
        let value =
            (self.environment)(variable).map(|value| value.trim_end_matches(['\r', '\n']).to_owned()).filter(|value| !value.is_empty());
        let value =
            value.ok_or_else(|| denied(&format!("the environment holds no {variable}; set it, and never write it into a workflow")))?;
        if value.chars().any(char::is_control) {
            return Err(denied(&format!("the value of {variable} has a control character; set it again")));
        }
        Ok(Secret::new(value))
    }

    /// What sends, and what may not be shown of it.
    fn transport(&self) -> Result<(SmtpTransport, Vec<Secret>)> {
        let MailServer { host, port, security, login, .. } = &self.server;
        let mut secrets = Vec::new();
        let parameters = || TlsParameters::new(host.clone()).map_err(|error| self.failed(&error, &[]));
        let tls = match security {
            MailSecurity::Tls => Tls::Wrapper(parameters()?),
            MailSecurity::StartTls => Tls::Required(parameters()?),
            // It is on this machine, which was checked.
            _ => Tls::None,
        };
        let mut builder = SmtpTransport::builder_dangerous(host).port(*port).tls(tls).timeout(Some(TIMEOUT));
        if let Some((user, password)) = login {
            let (user, password) = (self.secret(user)?, self.secret(password)?);
            builder = builder.credentials(Credentials::new(user.reveal().to_owned(), password.reveal().to_owned()));
            // A server may say of a login what it was as it was sent.
            secrets.push(Secret::new(format!("\0{}\0{}", user.reveal(), password.reveal())));
            secrets.extend([user, password]);
        }
        Ok((builder.build(), secrets))
    }

    fn letter(&self, message: &Message) -> Result<Letter> {
        let domain = self.from.email.domain();
        let at = Duration::try_from(message.sent_at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        let id = format!("<{}@{domain}>", blake3::hash(message.id.as_bytes()).to_hex());
        let mut builder = Letter::builder()
            .from(self.from.clone())
            .subject(one_line(&message.subject, SUBJECT_CHARS))
            .message_id(Some(id))
            .date(SystemTime::UNIX_EPOCH + at)
            .raw_header(HeaderValue::new(ID, one_line(&message.id, 500)))
            .raw_header(HeaderValue::new(AUTOMATIC, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        builder.body(text(message)).map_err(|error| Error::internal("a message cannot be written as mail").because(error))
    }

    /// An error of SMTP in our kinds, without what may not be shown.
    fn failed(&self, error: &smtp::Error, secrets: &[Secret]) -> Error {
        let code = error.status().map(u16::from);
        let said = one_line(&without(&chain(error), secrets), 500);
        let kind = match code {
            // Who sends must log in, or has no right to.
            Some(454 | 530 | 534 | 535 | 538) => ErrorKind::Denied,
            Some(550 | 551 | 553) => ErrorKind::NotFound,
            Some(400..=499) => ErrorKind::Transient,
            Some(_) => ErrorKind::Invalid,
            // A read that takes too long may look as if it would block.
            None if error.is_timeout() || is_of_io(error, std::io::ErrorKind::WouldBlock) => ErrorKind::Timeout,
            // As when nobody vouches for the server's certificate, which is an error of reading, too.
            None if error.is_tls() || is_of_io(error, std::io::ErrorKind::InvalidData) => ErrorKind::Denied,
            None if error.is_client() => ErrorKind::Invalid,
            None => ErrorKind::Transient,
        };
        Error::new(kind, format!("{} did not take a message: {said}", self.name()))
    }
}

#[async_trait]
impl Deliver for Mail {
    async fn deliver(&self, message: &Message) -> Result<()> {
        let letter = self.letter(message)?;
        let (transport, secrets) = self.transport()?;
        // A thread of its own, not one of the runtime's: a process that ends does not wait for it.
        let (done, sent) = oneshot::channel();
        let thread = std::thread::Builder::new().name("mail".to_owned()).spawn(move || drop(done.send(transport.send(&letter))));
        thread.map_err(|error| Error::new(ErrorKind::Transient, "no thread could be started to send mail").because(error))?;
        match sent.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(&error, &secrets)),
            Err(error) => Err(Error::internal("sending mail was broken off").because(error)),
        }
    }
}

fn mailbox(address: &MailAddress) -> Result<Mailbox> {
    let read = address.as_str().parse::<lettre::Address>();
    let email = read.map_err(|error| Error::invalid(format!("`{}` is not the address of a mailbox", address.as_str())).because(error))?;
    Ok(Mailbox::new(None, email))
}

/// A text as one line of a header: what would begin another line, or control whoever reads it, is a space.
fn one_line(text: &str, most: usize) -> String {
    let is_visible = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if is_visible(c) { c } else { ' ' }).take(most).collect::<String>().trim().to_owned()
}

/// What people read: the text, the problems, and the id, by which one that comes again is known.
fn text(message: &Message) -> String {
    let mut text = format!("{}\n", message.text);
    let problems = message.body.get("problems").and_then(Value::as_array);
    for problem in problems.into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("- {problem}\n"));
    }
    text.push_str(&format!("\n{}\n", message.id));
    text
}

fn chain(error: &smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors say what their source says.
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

/// Whether an error comes from one of reading or writing, of a kind.
fn is_of_io(error: &smtp::Error, kind: std::io::ErrorKind) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == kind) {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_one_line_whatever_is_in_it() {
        assert_eq!(one_line("[repair] nightly: failed", 200), "[repair] nightly: failed");
        assert_eq!(one_line("a\r\nBcc: all@example.org\u{85}\u{2028}b\u{202e}\u{1b}[31m", 200), "a  Bcc: all@example.org  b  [31m");
        assert_eq!(one_line(&"ü".repeat(300), 200).chars().count(), 200);
    }
}
