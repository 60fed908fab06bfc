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
}

impl Receiver {
    /// The word for its kind, as in a workflow.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Command { .. } => "command",
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
