//! Messages to a topic of SNS, on the sandbox.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use aws_sandbox::{Fault, Rule, Sandbox, Service};
use repair_aws::{Connection, Messages};
use repair_core::ErrorKind;
use repair_core::plugin::{Deliver, Message};
use repair_core::workflow::Topic;
use serde_json::{Value, json};

use crate::common::config;

fn message(id: &str) -> Message {
    let text = "run `one` of workflow `nightly` failed: ü & <b>";
    let body = json!({ "format": 1, "id": id, "run": "one", "workflow": "nightly", "what": "failed", "text": text });
    Message::new(id, "[repair] nightly: failed", text, body, "2024-03-04T00:00:00Z".parse().unwrap())
}

fn messages(sandbox: &Sandbox, topic: &str) -> Messages {
    Messages::to(Topic::read(topic).unwrap()).over(Connection::of(config(&sandbox.endpoint())))
}

#[tokio::test]
async fn a_message_is_published_as_json_with_its_id_and_as_text_for_mailboxes() {
    let sandbox = Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
    let topic = sandbox.sns().create_topic("us-east-1", "alerts");
    let (deliver, message) = (messages(&sandbox, &topic), message("one.7.failed.ops"));
    deliver.deliver(&message).await.unwrap();
    let published = sandbox.sns().published();
    assert_eq!(published.len(), 1);
    assert_eq!((published[0].topic.as_str(), published[0].subject.as_deref()), (topic.as_str(), Some("[repair] nightly: failed")));
    assert_eq!(published[0].structure.as_deref(), Some("json"));
    let parts: BTreeMap<String, String> = serde_json::from_str(&published[0].message).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&parts["default"]).unwrap(), message.body);
    assert_eq!((parts["email"].as_str(), parts["sms"].as_str()), (message.text.as_str(), message.text.as_str()));
    let attributes = [("id", "one.7.failed.ops"), ("what", "failed"), ("workflow", "nightly")];
    assert_eq!(published[0].attributes, attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!((&published[0].group, &published[0].deduplication), (&None, &None));
}

#[tokio::test]
async fn a_topic_in_order_leaves_out_a_message_that_comes_again() {
    let sandbox = Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
    let deliver = messages(&sandbox, &sandbox.sns().create_topic("us-east-1", "alerts.fifo"));
    // The first answer is lost, so it is sent again.
    sandbox.faults().add(Rule::new(Service::Sns, "Publish", Fault::DropAfter).times(1));
    assert_eq!(deliver.deliver(&message("one.7.failed.ops")).await.unwrap_err().kind(), ErrorKind::Transient);
    deliver.deliver(&message("one.7.failed.ops")).await.unwrap();
    deliver.deliver(&message("one.9.failed.ops")).await.unwrap();
    let published = sandbox.sns().published();
    assert_eq!(published.len(), 2);
    assert_eq!(published[0].group, published[1].group, "messages about a run are in order");
    assert_ne!(published[0].deduplication, published[1].deduplication);
}

#[tokio::test]
async fn what_sns_answers_decides_whether_another_attempt_makes_sense() {
    let sandbox = Sandbox::start(aws_sandbox::Options::default()).await.unwrap();
    let topic = sandbox.sns().create_topic("us-east-1", "alerts");
    let deliver = messages(&sandbox, &topic);
    for (fault, kind, says) in [
        (Fault::Throttled, ErrorKind::Throttled, "Rate exceeded"),
        (Fault::Internal, ErrorKind::Transient, "InternalFailure"),
        (Fault::DropBefore, ErrorKind::Transient, "sns:Publish"),
        (Fault::AccessDenied, ErrorKind::Denied, "allow the action `sns:Publish`"),
        (Fault::ExpiredToken, ErrorKind::Denied, "the credentials are expired or invalid"),
    ] {
        sandbox.faults().add(Rule::new(Service::Sns, "Publish", fault.clone()).times(1));
        let error = deliver.deliver(&message("one.7.failed.ops")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {}", error.full());
        assert!(error.full().contains(says) && error.full().contains(&topic), "{fault:?}: {}", error.full());
    }
    let other = messages(&sandbox, "arn:aws:sns:us-east-1:123456789012:other");
    assert_eq!(other.deliver(&message("one.7.failed.ops")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sandbox.sns().published(), []);
}
