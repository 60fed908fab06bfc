//! SNS's query protocol: one call, `Publish` to a topic. <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>
//!
//! Nothing is delivered: what was published is kept, to be looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::AwsError;

/// The most bytes of a message: SNS's own limit.
const MESSAGE_LIMIT_BYTES: usize = 256 * 1_024;
/// The most characters of a subject: SNS's own limit.
const SUBJECT_LIMIT: usize = 100;
/// This many messages are kept, so that a sandbox that runs for days does not grow without limit.
const KEPT_LIMIT: usize = 10_000;

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The id that SNS gave it.
    pub message_id: String,
    /// The ARN of the topic.
    pub topic: String,
    /// The subject, if it has one.
    pub subject: Option<String>,
    /// The message, as it was sent.
    pub message: String,
    /// `MessageStructure`, if it was given.
    pub structure: Option<String>,
    /// The attributes that are texts, by name.
    pub attributes: BTreeMap<String, String>,
    /// `MessageGroupId`, for a topic that is in order.
    pub group: Option<String>,
    /// `MessageDeduplicationId`, for a topic that is in order.
    pub deduplication: Option<String>,
}

/// The topics, and what was published to them. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Sns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    topics: Vec<String>,
    published: Vec<Published>,
    count: u64,
}

impl Sns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a topic, and returns its ARN. One whose name ends with `.fifo` is in order.
    pub fn create_topic(&self, region: &str, name: &str) -> String {
        let arn = format!("arn:aws:sns:{region}:{}:{name}", crate::ACCOUNT);
        let mut state = self.state();
        if !state.topics.contains(&arn) {
            state.topics.push(arn.clone());
        }
        arn
    }

    /// What was published, in order.
    pub fn published(&self) -> Vec<Published> {
        self.state().published.clone()
    }

    /// Serves a call, whose parameters are those of a form. Returns the XML of the answer.
    ///
    /// # Errors
    /// The error that SNS would return.
    pub(crate) fn handle(&self, operation: &str, form: &BTreeMap<String, String>) -> Result<String, AwsError> {
        if operation != "Publish" {
            return Err(AwsError::new("InvalidAction", format!("the sandbox does not serve {operation}")));
        }
        let invalid = |what: String| AwsError::new("InvalidParameter", format!("Invalid parameter: {what}"));
        let text = |name: &str| form.get(name).filter(|value| !value.is_empty()).cloned();
        let topic = text("TopicArn").ok_or_else(|| invalid("TopicArn or TargetArn Reason: no value for required parameter".to_owned()))?;
        let message = text("Message").ok_or_else(|| invalid("Empty message".to_owned()))?;
        if message.len() > MESSAGE_LIMIT_BYTES {
            return Err(invalid("Message too long".to_owned()));
        }
        let subject = text("Subject");
        if let Some(subject) = &subject {
            let fits = subject.chars().count() <= SUBJECT_LIMIT && subject.chars().all(|c| c.is_ascii() && !c.is_ascii_control());
            if !fits || subject.starts_with(' ') {
                return Err(invalid("Subject".to_owned()));
            }
        }
        let structure = text("MessageStructure");
        if structure.as_deref() == Some("json") {
            let parts: BTreeMap<String, String> =
                serde_json::from_str(&message).map_err(|_| invalid("Message Structure - JSON message body failed to parse".to_owned()))?;
            if !parts.contains_key("default") {
                return Err(invalid("Message Structure - No default entry in JSON message body".to_owned()));
            }
        }
        let (group, deduplication) = (text("MessageGroupId"), text("MessageDeduplicationId"));
        if topic.ends_with(".fifo") && group.is_none() {
            return Err(invalid("The MessageGroupId parameter is required for FIFO topics".to_owned()));
        }
        let mut state = self.state();
        if !state.topics.contains(&topic) {
            return Err(AwsError::new("NotFound", "Topic does not exist").status(404));
        }
        let again = deduplication.as_ref().and_then(|id| {
            let is_same = |known: &&Published| known.topic == topic && known.deduplication.as_ref() == Some(id);
            state.published.iter().find(is_same).map(|known| known.message_id.clone())
        });
        let message_id = match again {
            Some(known) => known,
            None => {
                state.count += 1;
                let message_id = format!("00000000-0000-0000-0000-{:012}", state.count);
                if state.published.len() == KEPT_LIMIT {
                    state.published.remove(0);
                }
                let attributes = attributes(form);
                let message_id_kept = message_id.clone();
                state.published.push(Published {
                    message_id: message_id_kept,
                    topic,
                    subject,
                    message,
                    structure,
                    attributes,
                    group,
                    deduplication,
                });
                message_id
            }
        };
        Ok(format!(
            "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>{message_id}</MessageId></PublishResult>\
             <ResponseMetadata><RequestId>sandbox</RequestId></ResponseMetadata></PublishResponse>"
        ))
    }
}

/// The attributes of a message: `MessageAttributes.entry.N.Name` and `….Value.StringValue`.
fn attributes(form: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of = |(key, name): (&String, &String)| {
        let entry = key.strip_prefix("MessageAttributes.entry.")?.strip_suffix(".Name")?;
        let value = form.get(&format!("MessageAttributes.entry.{entry}.Value.StringValue"))?;
        Some((name.clone(), value.clone()))
    };
    form.iter().filter_map(of).collect()
}

/// An error as the query protocol writes it.
pub(crate) fn error_xml(error: &AwsError) -> String {
    let kind = if error.status < 500 { "Sender" } else { "Receiver" };
    format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>{kind}</Type><Code>{}</Code><Message>{}</Message></Error>\
         <RequestId>sandbox</RequestId></ErrorResponse>",
        escaped(&error.kind),
        escaped(&error.message)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
