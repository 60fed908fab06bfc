//! `Publish` as the real SDK calls it.

use std::collections::BTreeMap;

use aws_sandbox::{Fault, Options, Rule, Sandbox, Service};
use aws_sdk_sns::Client;
use aws_sdk_sns::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_sns::error::ProvideErrorMetadata as _;
use aws_sdk_sns::types::MessageAttributeValue;

fn client(sandbox: &Sandbox) -> Client {
    let config = aws_sdk_sns::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::for_tests())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(sandbox.endpoint());
    Client::from_conf(config.build())
}

#[tokio::test]
async fn what_is_published_is_kept_as_it_was_sent() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let topic = sandbox.sns().create_topic("us-east-1", "alerts");
    let attribute = MessageAttributeValue::builder().data_type("String").string_value("a & b").build().unwrap();
    let request = client(&sandbox).publish().topic_arn(&topic).subject("[repair] x").message("ü = 100 % & more\n+");
    let sent = request.message_attributes("what", attribute).send().await.unwrap();
    let published = sandbox.sns().published();
    assert_eq!(published.len(), 1);
    assert_eq!(sent.message_id(), Some(published[0].message_id.as_str()));
    assert_eq!((published[0].topic.as_str(), published[0].message.as_str()), (topic.as_str(), "ü = 100 % & more\n+"));
    assert_eq!(published[0].subject.as_deref(), Some("[repair] x"));
    assert_eq!(published[0].attributes, BTreeMap::from([("what".to_owned(), "a & b".to_owned())]));
    assert_eq!(sandbox.faults().served(Service::Sns, "Publish"), 1);
}

#[tokio::test]
async fn what_sns_refuses_is_refused_in_its_words() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (topic, in_order) = (sandbox.sns().create_topic("us-east-1", "alerts"), sandbox.sns().create_topic("us-east-1", "alerts.fifo"));
    let publish = || client(&sandbox).publish().topic_arn(&topic).message("text");
    for (request, code) in [
        (client(&sandbox).publish().topic_arn("arn:aws:sns:us-east-1:123456789012:other").message("text"), "NotFound"),
        (publish().subject("two\nlines"), "InvalidParameter"),
        (publish().subject("ü"), "InvalidParameter"),
        (publish().subject("x".repeat(101)), "InvalidParameter"),
        (publish().message("x".repeat(256 * 1_024 + 1)), "InvalidParameter"),
        (publish().message_structure("json"), "InvalidParameter"),
        (publish().message_structure("json").message("{\"email\": \"text\"}"), "InvalidParameter"),
        (client(&sandbox).publish().topic_arn(&in_order).message("text"), "InvalidParameter"),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{error:?}");
    }
    assert_eq!(sandbox.sns().published(), []);
    // In a topic in order, a message that comes again is the same.
    let again = || client(&sandbox).publish().topic_arn(&in_order).message("text").message_group_id("run").message_deduplication_id("1");
    let (first, second) = (again().send().await.unwrap(), again().send().await.unwrap());
    assert_eq!(first.message_id(), second.message_id());
    assert_eq!(sandbox.sns().published().len(), 1);
}

#[tokio::test]
async fn faults_look_as_those_of_sns() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let topic = sandbox.sns().create_topic("us-east-1", "alerts");
    for (fault, code) in [
        (Fault::Throttled, "Throttling"),
        (Fault::Internal, "InternalFailure"),
        (Fault::AccessDenied, "AuthorizationError"),
        (Fault::ExpiredToken, "ExpiredToken"),
    ] {
        sandbox.faults().add(Rule::new(Service::Sns, "Publish", fault).times(1));
        let error = client(&sandbox).publish().topic_arn(&topic).message("text").send().await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{error:?}");
    }
}
