//! Who hears of a run, and of what: the `notify` and `lineage` of a workflow. What a run then says is [`news`](crate::engine::news); how it is sent
//! is not known here.

use std::collections::BTreeSet;
use std::time::Duration;

/// Somebody who hears of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notifier {
    /// Where messages go.
    pub to: Receiver,
    /// What they are about.
    pub on: BTreeSet<Occasion>,
    /// At most one message in this time, which gathers what there is to say. Without it, each message is sent at once.
    pub digest: Option<Duration>,
}

impl Notifier {
    /// Messages to a receiver about some occasions, each sent at once.
    ///
    /// ```
    /// use repair_core::workflow::{Address, Notifier, Occasion, Receiver};
    ///
    /// let to = Receiver::Webhook { address: Address::Variable("HOOK_URL".into()), secret_env: Some("HOOK_SECRET".into()) };
    /// let notifier = Notifier::new(to, [Occasion::Failed, Occasion::Changed]);
    /// assert!(notifier.digest.is_none());
    /// ```
    pub fn new(to: Receiver, on: impl IntoIterator<Item = Occasion>) -> Self {
        Self { to, on: on.into_iter().collect(), digest: None }
    }

    /// Sends at most one message in this time.
    #[must_use]
    pub fn with_digest(mut self, digest: Duration) -> Self {
        self.digest = Some(digest);
        self
    }
}

/// Where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// At this URL, which holds no secret.
    Url(String),
    /// At the URL in this variable of the environment. It is never shown.
    Variable(String),
}

/// Where messages go. Secrets are named by the variables of the environment that hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receiver {
    /// They are posted as JSON.
    Webhook {
        /// To whom.
        address: Address,
        /// The variable with the secret by which they are signed.
        secret_env: Option<String>,
    },
    /// They are posted to a channel of Slack, or of whatever takes the same: `{"text": …}`.
    Slack {
        /// The variable with the URL of the webhook.
        url_env: String,
    },
    /// A program is run for each, which reads it as JSON from its input.
    Command {
        /// The program and its arguments.
        run: Vec<String>,
        /// The variables that it gets from the environment, beside `PATH`.
        env: Vec<String>,
    },
    /// They are published to a topic of Amazon SNS.
    Sns {
        /// The ARN of the topic, as [`Topic::read`] takes it.
        topic: Topic,
    },
    /// They are sent as mail, by SMTP.
    Email {
        /// To whom.
        to: Vec<MailAddress>,
        /// Who they are from.
        from: MailAddress,
        /// By which server.
        server: MailServer,
    },
}

/// A server that takes mail by SMTP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailServer {
    /// Its name, or its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How what is sent to it is encrypted.
    pub security: MailSecurity,
    /// The variables of the environment with the user and the password, if it wants to know who sends.
    pub login: Option<(String, String)>,
}

impl MailServer {
    /// A server at the usual port of a kind of encryption, without a login.
    pub fn new(host: impl Into<String>, security: MailSecurity) -> Self {
        Self { host: host.into(), port: security.port(), security, login: None }
    }

    /// At another port.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With the user and the password in these variables of the environment.
    #[must_use]
    pub fn with_login(mut self, user_env: impl Into<String>, password_env: impl Into<String>) -> Self {
        self.login = Some((user_env.into(), password_env.into()));
        self
    }
}

/// How what is sent to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailSecurity {
    /// From the first byte on.
    Tls,
    /// After the server was asked to. Where it refuses, nothing is sent.
    StartTls,
    /// Not at all: only for a server on this machine.
    None,
}

impl MailSecurity {
    /// All of them, with the words used in workflows.
    pub const ALL: [(&'static str, Self); 3] = [("tls", Self::Tls), ("starttls", Self::StartTls), ("none", Self::None)];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, security)| *security == self).map_or("", |(word, _)| word)
    }

    /// The usual port: those of RFC 8314 for mail that is handed in, and the one of all mail.
    pub fn port(self) -> u16 {
        match self {
            Self::Tls => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }
}

/// The address of a mailbox, without a name: nothing in it can begin another address or another header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailAddress(String);

impl MailAddress {
    /// Reads an address.
    ///
    /// ```
    /// use repair_core::workflow::MailAddress;
    ///
    /// assert!(MailAddress::read("ops+repair@example.org").is_some());
    /// assert!(MailAddress::read("ops@example.org\r\nBcc: all@example.org").is_none());
    /// ```
    pub fn read(text: &str) -> Option<Self> {
        let (user, domain) = text.split_once('@')?;
        let is_of_user = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
        let is_of_domain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        // The limits are those of RFC 5321.
        let is_dotted = |text: &str| !text.is_empty() && !text.starts_with('.') && !text.ends_with('.') && !text.contains("..");
        let fits = user.len() <= 64 && domain.len() <= 255 && user.chars().all(is_of_user) && domain.chars().all(is_of_domain);
        (fits && is_dotted(user) && is_dotted(domain)).then(|| Self(text.to_owned()))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A topic of Amazon SNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    arn: String,
    region: String,
}

impl Topic {
    /// Reads the ARN of a topic.
    ///
    /// ```
    /// use repair_core::workflow::Topic;
    ///
    /// let topic = Topic::read("arn:aws:sns:eu-west-1:123456789012:alerts").ok_or("it is one")?;
    /// assert_eq!(topic.region(), "eu-west-1");
    /// assert!(Topic::read("arn:aws:sqs:eu-west-1:123456789012:alerts").is_none());
    /// # Ok::<(), &str>(())
    /// ```
    pub fn read(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        let [_, partition, service, region, account, name] = parts.try_into().ok()?;
        let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let fits = arn.starts_with("arn:aws") && service == "sns" && account.len() == 12 && account.chars().all(|c| c.is_ascii_digit());
        let is_name = name.len() <= 256 && is_word(name.strip_suffix(".fifo").unwrap_or(name));
        (fits && is_name && is_word(partition) && is_word(region)).then(|| Self { arn: arn.to_owned(), region: region.to_owned() })
    }

    /// The ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The region in which it is.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Whether it keeps messages in order, and leaves out one that comes again.
    pub fn is_in_order(&self) -> bool {
        self.arn.ends_with(".fifo")
    }
}

impl Receiver {
    /// The word for its kind, as in a workflow.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Command { .. } => "command",
            Self::Sns { .. } => "sns",
            Self::Email { .. } => "email",
        }
    }
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Occasion {
    /// A run ended well.
    Succeeded,
    /// A run ended, and something is still wrong.
    SucceededWithExceptions,
    /// A run failed.
    Failed,
    /// Somebody cancelled a run.
    Cancelled,
    /// A run could not look at some of the data.
    Blind,
    /// A run ended because its budget did not allow more.
    OverBudget,
    /// A table that was whole after the run before has something wrong now, or the other way round.
    Changed,
    /// A budget is running out, or did not allow what a step wanted to do.
    Budget,
    /// A source had nothing for some slots, which does not prove that nothing is missing.
    Suspects,
    /// The run or a step took longer than its `timeout`, or the run of a schedule had not ended well by its `complete_by`.
    Deadline,
}

impl Occasion {
    /// All of them, with the words used in workflows and messages.
    pub const ALL: [(&'static str, Occasion); 10] = [
        ("succeeded", Self::Succeeded),
        ("succeeded-with-exceptions", Self::SucceededWithExceptions),
        ("failed", Self::Failed),
        ("cancelled", Self::Cancelled),
        ("blind", Self::Blind),
        ("over-budget", Self::OverBudget),
        ("changed", Self::Changed),
        ("budget", Self::Budget),
        ("suspects", Self::Suspects),
        ("deadline", Self::Deadline),
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, occasion)| *occasion == self).map_or("", |(word, _)| word)
    }
}

/// Where OpenLineage events of runs go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lineage {
    /// They are posted to this URL, such as `https://marquez.example/api/v1/lineage`.
    Url {
        /// To whom.
        address: Address,
        /// The variable with the key that is sent as a bearer token, if one is needed.
        key_env: Option<String>,
    },
    /// They are added to this file, one line of JSON for each. The name is relative to the folder of the process that drives the run.
    File(String),
}
