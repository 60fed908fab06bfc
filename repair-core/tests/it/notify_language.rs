//! `notify` and `lineage` in a workflow: what is accepted, how mistakes are reported, and that Rust says the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use repair_core::plugin::Registry;
use repair_core::workflow::{
    Address, Lineage, MailAddress, MailSecurity, MailServer, Notifier, Occasion, Receiver, Step, Topic, Workflow, schema,
};

fn parse(more: &str) -> Result<Workflow, String> {
    let text = format!("workflow: w\nkind: state-machine\nstart: done\nsteps:\n  done: {{ task: usage, end: true }}\n{more}\n");
    Workflow::parse("w.yaml", &text, &Registry::default()).map_err(|diagnostics| diagnostics.to_string())
}

fn notifier(to: &str) -> Result<Notifier, String> {
    parse(&format!("notify: {{ ops: {{ to: {to}, on: [failed, changed] }} }}")).map(|workflow| workflow.notify["ops"].clone())
}

#[test]
fn all_receivers_are_read() {
    let of = |to: &str| notifier(to).unwrap().to;
    let webhook = of("{ webhook: { url: https://hooks.example/repair, secret_env: HOOK_SECRET } }");
    let url = Address::Url("https://hooks.example/repair".to_owned());
    assert_eq!(webhook, Receiver::Webhook { address: url, secret_env: Some("HOOK_SECRET".to_owned()) });
    let of_variable = Receiver::Webhook { address: Address::Variable("HOOK_URL".to_owned()), secret_env: None };
    assert_eq!(of("{ webhook: { url_env: HOOK_URL } }"), of_variable);
    assert_eq!(of("{ slack: { url_env: SLACK_URL } }"), Receiver::Slack { url_env: "SLACK_URL".to_owned() });
    let command = Receiver::Command { run: vec!["page".to_owned(), "ops".to_owned()], env: vec!["PAGER_KEY".to_owned()] };
    assert_eq!(of("{ command: { run: [page, ops], env: [PAGER_KEY] } }"), command);
    let topic = Topic::read("arn:aws-cn:sns:cn-north-1:123456789012:alerts.fifo").unwrap();
    assert!(topic.is_in_order() && topic.region() == "cn-north-1");
    assert_eq!(of("{ sns: { topic: \"arn:aws-cn:sns:cn-north-1:123456789012:alerts.fifo\" } }"), Receiver::Sns { topic });
    let mailbox = |text: &str| MailAddress::read(text).unwrap();
    let mail = |to: &[&str], server| Receiver::Email {
        to: to.iter().map(|text| mailbox(text)).collect(),
        from: mailbox("repair@example.org"),
        server,
    };
    let server = MailServer::new("smtp.example.org", MailSecurity::Tls);
    assert_eq!(
        of("{ email: { to: ops@example.org, from: repair@example.org, server: smtp.example.org } }"),
        mail(&["ops@example.org"], server.clone())
    );
    assert_eq!((server.port, MailSecurity::StartTls.port()), (465, 587));
    let server = MailServer::new("smtp.example.org", MailSecurity::StartTls).at_port(2525).with_login("MAIL_USER", "MAIL_PASSWORD");
    let text = "{ email: { to: [ops@example.org, 'a+b@x-y.example'], from: repair@example.org, server: smtp.example.org, port: 2525, security: starttls, \
                user_env: MAIL_USER, password_env: MAIL_PASSWORD } }";
    assert_eq!(of(text), mail(&["ops@example.org", "a+b@x-y.example"], server));
    for host in ["localhost", "127.0.0.1", "'::1'"] {
        let server = MailServer::new(host.trim_matches('\''), MailSecurity::None);
        let text = format!("{{ email: {{ to: ops@example.org, from: repair@example.org, server: {host}, security: none }} }}");
        assert_eq!(of(&text), mail(&["ops@example.org"], server));
    }
    let with = parse("notify: { ops: { to: { slack: { url_env: S } }, on: failed, digest: 1h } }").unwrap();
    assert_eq!(with.notify["ops"].digest, Some(Duration::from_secs(3_600)));
    for (word, occasion) in Occasion::ALL {
        let workflow = parse(&format!("notify: {{ ops: {{ to: {{ slack: {{ url_env: S }} }}, on: [{word}] }} }}")).unwrap();
        assert_eq!(workflow.notify["ops"].on.iter().copied().collect::<Vec<_>>(), [occasion]);
    }
}

#[test]
fn lineage_is_read() {
    let of = |more: &str| parse(&format!("lineage: {more}")).map(|workflow| workflow.lineage.unwrap());
    assert_eq!(of("{ file: events.jsonl }"), Ok(Lineage::File("events.jsonl".to_owned())));
    let url = Lineage::Url { address: Address::Url("http://127.0.0.1:5000/api/v1/lineage".to_owned()), key_env: Some("KEY".to_owned()) };
    assert_eq!(of("{ url: \"http://127.0.0.1:5000/api/v1/lineage\", key_env: KEY }"), Ok(url));
    assert!(of("{ file: events.jsonl, url_env: U }").unwrap_err().contains("not to both"));
    assert!(of("{ key_env: U }").unwrap_err().contains("needs one of `url` and `url_env`"));
}

#[test]
fn mistakes_are_reported_and_show_no_secret() {
    for (to, expected) in [
        ("{ webhook: { url: http://hooks.example/repair } }", "must be encrypted (https)"),
        ("{ webhook: { url: \"https://hooks.example/?token=s3cr3t\" } }", "may hold a secret"),
        ("{ webhook: { url: \"https://user:s3cr3t@hooks.example/\" } }", "may hold a secret"),
        ("{ webhook: { url: \"http://127.0.0.1.evil.example/\" } }", "must be encrypted (https)"),
        ("{ webhook: { url: https://a.example, url_env: U } }", "needs one of `url` and `url_env`"),
        ("{ webhook: { url: https://a.example, secret_env: s3cr3t-key } }", "cannot be the name of a variable"),
        ("{ slack: { url: https://hooks.slack.example/s3cr3t } }", "unknown key `url`"),
        ("{ slack: { url_env: \"https://hooks.slack.example/s3cr3t\" } }", "cannot be the name of a variable"),
        ("{ webhok: { url: https://a.example } }", "did you mean `webhook`?"),
        ("{ slack: { url_env: A }, command: { run: [b] } }", "`to` must name one receiver"),
        ("{ command: { run: [] } }", "`run` names no program"),
        ("{ email: { from: a@b.example, server: c } }", "has no `to`"),
        ("{ email: { to: a@b.example, server: c } }", "has no `from`"),
        ("{ email: { to: a@b.example, from: a@b.example } }", "has no `server`"),
        ("{ email: { to: [], from: a@b.example, server: c } }", "`to` names no mailbox"),
        ("{ email: { to: Ops <a@b.example>, from: a@b.example, server: c } }", "is not the address of a mailbox"),
        ("{ email: { to: \"a@b.example\\r\\nBcc: c@d.example\", from: a@b.example, server: c } }", "is not the address of a mailbox"),
        ("{ email: { to: \"a@b.example, c@d.example\", from: a@b.example, server: c } }", "is not the address of a mailbox"),
        ("{ email: { to: a@b.example, from: a, server: c } }", "is not the address of a mailbox"),
        ("{ email: { to: a@b.example, from: a@b.example, server: \"smtp://user:s3cr3t@c\" } }", "`server` is not the name of a server"),
        ("{ email: { to: a@b.example, from: a@b.example, server: \"c:25\" } }", "`server` is not the name of a server"),
        ("{ email: { to: a@b.example, from: a@b.example, server: c, security: none } }", "mail must be encrypted"),
        ("{ email: { to: a@b.example, from: a@b.example, server: c, security: ssl } }", "`security` cannot be"),
        ("{ email: { to: a@b.example, from: a@b.example, server: c, port: 0 } }", "whole number from 1 to 65535"),
        ("{ email: { to: a@b.example, from: a@b.example, server: c, user_env: U } }", "needs both `user_env` and `password_env`"),
        ("{ email: { to: a@b.example, from: a@b.example, server: c, password: s3cr3t } }", "unknown key `password`"),
        ("{ sns: {} }", "has no `topic`"),
        ("{ sns: { topic: alerts } }", "is not the ARN of a topic"),
        ("{ sns: { topic: \"arn:aws:sqs:eu-west-1:123456789012:alerts\" } }", "is not the ARN of a topic"),
        ("{ sns: { topic: \"arn:aws:sns:eu-west-1:12345:alerts\" } }", "is not the ARN of a topic"),
        ("{ sns: { topic: \"arn:aws:sns:eu-west-1:123456789012:alerts:5be6-subscription\" } }", "is not the ARN of a topic"),
    ] {
        match notifier(to) {
            Err(said) => {
                assert!(said.contains(expected), "{to}: {said}");
                // The text of the workflow itself is shown, which is where the mistake is.
                let messages: Vec<&str> = said.lines().filter(|line| !line.contains("notify:")).collect();
                assert!(messages.iter().all(|line| !line.contains("s3cr3t")), "{to}: {said}");
            }
            Ok(read) => panic!("{to} is no mistake: {read:?}"),
        }
    }
    assert!(parse("notify: { ops: { to: { slack: { url_env: S } }, on: [fialed] } }").unwrap_err().contains("did you mean `failed`?"));
    assert!(parse("notify: { ops: { to: { slack: { url_env: S } }, on: [] } }").unwrap_err().contains("`on` is empty"));
    assert!(parse("notify: { ops: { on: [failed] } }").unwrap_err().contains("has no `to`"));
    assert!(
        parse("notify: { ops: { to: { slack: { url_env: S } }, on: [failed], digest: 0s } }").unwrap_err().contains("longer than nothing")
    );
    assert!(parse("alerts: { ops: { on: [failed] } }").unwrap_err().contains("did you mean `notify`?"));
}

#[test]
fn a_workflow_in_rust_says_what_yaml_says() {
    let address = Address::Url("https://hooks.example/repair".to_owned());
    let webhook = Notifier::new(Receiver::Webhook { address, secret_env: Some("S".to_owned()) }, [Occasion::Failed, Occasion::Changed]);
    let command = Notifier::new(Receiver::Command { run: vec!["page".to_owned()], env: vec!["K".to_owned()] }, [Occasion::Blind]);
    let slack = Notifier::new(Receiver::Slack { url_env: "SLACK".to_owned() }, Occasion::ALL.map(|(_, occasion)| occasion));
    let slack = slack.with_digest(Duration::from_secs(5_400));
    let lineage = Lineage::File("events.jsonl".to_owned());
    let sns = Receiver::Sns { topic: Topic::read("arn:aws:sns:eu-west-1:123456789012:alerts").unwrap() };
    let sns = Notifier::new(sns, [Occasion::Budget]);
    let (to, from) = (vec![MailAddress::read("ops@example.org").unwrap()], MailAddress::read("repair@example.org").unwrap());
    let server = MailServer::new("smtp.example.org", MailSecurity::StartTls).with_login("U", "P");
    let email = Notifier::new(Receiver::Email { to, from, server }, [Occasion::Deadline]);
    let all = [("command", command), ("email", email), ("slack", slack), ("sns", sns), ("webhook", webhook)];
    let mut builder = Workflow::state_machine("w").step("done", Step::succeed()).lineage(&lineage);
    for (name, notifier) in &all {
        builder = builder.notify(name, notifier);
    }
    let built = builder.build(Registry::default()).unwrap().workflow;
    assert_eq!(built.notify.into_iter().collect::<Vec<_>>(), all.map(|(name, notifier)| (name.to_owned(), notifier)));
    assert_eq!(built.lineage, Some(lineage));
}

#[test]
fn the_schema_knows_all_occasions_and_receivers() {
    let schema = schema(&Registry::default());
    let notifier = &schema["properties"]["notify"]["additionalProperties"]["properties"];
    assert_eq!(notifier["on"]["anyOf"][0]["enum"].as_array().unwrap().len(), Occasion::ALL.len());
    let receivers = notifier["to"]["oneOf"].as_array().unwrap().iter();
    let receivers: Vec<&str> = receivers.map(|one| one["required"][0].as_str().unwrap()).collect();
    assert_eq!(receivers, ["webhook", "slack", "command", "email", "sns"]);
    assert!(schema["properties"]["lineage"]["properties"]["file"].is_object());
}
