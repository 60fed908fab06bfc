//! Messages that are published to a topic of SNS. <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>

use async_trait::async_trait;
use aws_sdk_sns::types::MessageAttributeValue;
use repair_core::plugin::{Deliver, Message};
use repair_core::workflow::Topic;
use repair_core::{Error, Result};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::connect::Connection;
use crate::error::of_sdk;

const ACTION: &str = "sns:Publish";
/// The most characters of a subject: SNS's own limit.
const SUBJECT_CHARS: usize = 100;
/// The most characters of a text message for a phone that is sent in one piece.
const PHONE_CHARS: usize = 140;
/// The most bytes that a message may have. SNS's own limit is 256 KiB, with attributes.
const MOST_BYTES: usize = 250 * 1_024;

/// Publishes messages to a topic. Subscribers get them as JSON; mailboxes and phones get the text. Their id is an attribute, and in a topic in order what makes a
/// message that comes again the same.
pub struct Messages {
    topic: Topic,
    given: Option<Connection>,
    connection: OnceCell<Connection>,
}

impl Messages {
    /// To a topic, in its region, with the credentials that every AWS tool uses. They are looked for when the first message is sent.
    pub fn to(topic: Topic) -> Self {
        Self { topic, given: None, connection: OnceCell::new() }
    }

    /// Over a connection that exists. It must be one to the region of the topic.
    #[must_use]
    pub fn over(self, connection: Connection) -> Self {
        Self { given: Some(connection), ..self }
    }

    async fn connection(&self) -> Result<&Connection> {
        match &self.given {
            Some(given) => Ok(given),
            None => self.connection.get_or_try_init(|| Connection::open(Some(self.topic.region().to_owned()))).await,
        }
    }
}

#[async_trait]
impl Deliver for Messages {
    async fn deliver(&self, message: &Message) -> Result<()> {
        let client = self.connection().await?.sns();
        let mut request = client
            .publish()
            .topic_arn(self.topic.arn())
            .subject(subject(&message.subject))
            .message_structure("json")
            .message(parts(message).to_string());
        let word = |name: &str| message.body.get(name).and_then(Value::as_str).filter(|word| !word.is_empty());
        for (name, value) in [("id", Some(message.id.as_str())), ("what", word("what")), ("workflow", word("workflow"))] {
            if let Some(value) = value {
                let attribute = MessageAttributeValue::builder().data_type("String").string_value(value).build();
                let attribute = attribute.map_err(|error| Error::internal("an attribute of a message has no type").because(error))?;
                request = request.message_attributes(name, attribute);
            }
        }
        if self.topic.is_in_order() {
            // Messages about one run are to be in order.
            let group = word("run").or(word("workflow")).unwrap_or("repair");
            request = request.message_group_id(digest(group)).message_deduplication_id(digest(&message.id));
        }
        Box::pin(request.send()).await.map(drop).map_err(|error| of_sdk(ACTION, self.topic.arn(), error))
    }
}

/// A name of any length, in the characters and the length that SNS allows.
fn digest(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex().to_string()
}

/// A subject as SNS takes it: ASCII, in one line, and short.
fn subject(text: &str) -> String {
    let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    let subject: String = text.trim_start().chars().take(SUBJECT_CHARS).map(plain).collect();
    if subject.is_empty() { "repair".to_owned() } else { subject }
}

/// What each kind of subscriber gets.
fn parts(message: &Message) -> Value {
    let all = json!({ "default": message.body.to_string(), "email": message.text, "sms": cut(&message.text, PHONE_CHARS) });
    if all.to_string().len() <= MOST_BYTES {
        return all;
    }
    // Only what many messages are gathered in is so long: the texts are in it once more, and where all is to be had is known.
    let mut body = message.body.clone();
    let text = cut(&message.text, MOST_BYTES / 16);
    if let Some(fields) = body.as_object_mut() {
        let count = fields.remove("messages").and_then(|messages| messages.as_array().map(Vec::len)).unwrap_or(0);
        fields.insert("messages_left_out".to_owned(), count.into());
        fields.insert("text".to_owned(), text.clone().into());
    }
    json!({ "default": body.to_string(), "email": text, "sms": cut(&message.text, PHONE_CHARS) })
}

/// The beginning of a text.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(most.saturating_sub(1)).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_short_line_of_plain_characters() {
        assert_eq!(subject("[repair] nightly: failed"), "[repair] nightly: failed");
        assert_eq!(subject("  a\r\nBcc: b\u{1b}ü"), "a??Bcc: b??");
        assert_eq!(subject(&"x".repeat(500)).len(), 100);
        assert_eq!(subject(" "), "repair");
    }

    #[test]
    fn a_message_that_is_too_long_leaves_out_what_it_gathers() {
        let now = "2024-03-04T00:00:00Z".parse().unwrap();
        let many: Vec<Value> = (0..2_000).map(|number| json!({ "id": number, "text": "ü\"".repeat(200) })).collect();
        let message =
            Message::new("digest.1", "s", "ü\"".repeat(200_000), json!({ "id": "digest.1", "what": "digest", "messages": many }), now);
        let parts = parts(&message).to_string();
        assert!(parts.len() <= MOST_BYTES, "{}", parts.len());
        let parts: std::collections::BTreeMap<String, String> = serde_json::from_str(&parts).unwrap();
        let body: Value = serde_json::from_str(&parts["default"]).unwrap();
        assert_eq!((&body["id"], &body["messages_left_out"]), (&"digest.1".into(), &2_000.into()));
        assert!(parts["sms"].chars().count() <= PHONE_CHARS);
    }
}
