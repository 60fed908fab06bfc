//! `notify` and `lineage`: who hears of a run.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fields, MAX_ENTRIES, Reader, did_you_mean, one_of, quoted};
use crate::workflow::{Address, Lineage, MailAddress, MailSecurity, MailServer, Notifier, Occasion, Receiver, Topic};
use crate::yaml::tree::{Node, Place, Yaml};

/// How many notifiers a workflow may have. Each is served on its own, so this bounds what a run does beside its work.
const MAX_NOTIFIERS: usize = 20;
/// To how many mailboxes a message may go. More belong on a mailing list.
const MAX_MAILBOXES: usize = 20;
const RECEIVERS: [&str; 5] = ["webhook", "slack", "command", "sns", "email"];

impl<'a> Reader<'a> {
    pub(super) fn notifiers(&mut self, fields: &Fields<'a>) -> BTreeMap<String, Notifier> {
        let mut notifiers = BTreeMap::new();
        for (key, node) in self.section(fields, "notify", MAX_NOTIFIERS) {
            let what = format!("notifier `{}`", key.name);
            let Some(inner) = self.fields(node, key.place, &what, &["to", "on", "digest"]) else { continue };
            let to = self.required(&inner, "to", "e.g. `to: { webhook: { url: https://hooks.example/repair } }`");
            let to = to.and_then(|node| self.receiver(node, &inner));
            let on = self.required(&inner, "on", "e.g. `on: [failed, changed]`").map(|node| self.occasions(node)).unwrap_or_default();
            let digest = self.duration(&inner, "digest");
            if digest.is_some_and(|digest| digest.is_zero()) {
                let help = "leave it out to send each message at once".to_owned();
                self.error(inner.key_place("digest"), "`digest` must be longer than nothing", Some(help));
            }
            if let Some(to) = to {
                notifiers.insert(key.name.clone(), Notifier { to, on, digest });
            }
        }
        notifiers
    }

    fn occasions(&mut self, node: &'a Node) -> BTreeSet<Occasion> {
        let mut occasions = BTreeSet::new();
        let texts = self.texts(node, "`on`");
        if texts.is_empty() && matches!(&node.value, Yaml::List(items) if items.is_empty()) {
            self.error(node.place, "`on` is empty", Some("name what messages are about, e.g. `[failed, changed]`".to_owned()));
        }
        for (text, place) in texts {
            match Occasion::ALL.into_iter().find(|(word, _)| *word == text) {
                Some((_, occasion)) => {
                    occasions.insert(occasion);
                }
                None => {
                    let words = || Occasion::ALL.into_iter().map(|(word, _)| word);
                    let help = did_you_mean(&text, words()).unwrap_or_else(|| one_of(words()));
                    self.error(place, format!("a message cannot be about {}", quoted(&text)), Some(help));
                }
            }
        }
        occasions
    }

    fn receiver(&mut self, node: &'a Node, of: &Fields<'a>) -> Option<Receiver> {
        let fields = self.fields(node, of.key_place("to"), "`to`", &RECEIVERS)?;
        let mut named = RECEIVERS.into_iter().filter(|word| fields.get(word).is_some());
        let (Some(word), None) = (named.next(), named.next()) else {
            let help = format!("name one receiver; for several, write a notifier for each; {}", one_of(RECEIVERS.into_iter()));
            self.error(node.place, "`to` must name one receiver", Some(help));
            return None;
        };
        let node = fields.get(word)?;
        let place = fields.key_place(word);
        match word {
            "webhook" => {
                let inner = self.fields(node, place, "`webhook`", &["url", "url_env", "secret_env"])?;
                let address = self.address(&inner);
                let secret_env = self.variable(&inner, "secret_env");
                Some(Receiver::Webhook { address: address?, secret_env })
            }
            "slack" => {
                let inner = self.fields(node, place, "`slack`", &["url_env"])?;
                self.required(&inner, "url_env", "name the variable of the environment that holds the URL of the webhook")?;
                Some(Receiver::Slack { url_env: self.variable(&inner, "url_env")? })
            }
            "email" => self.email(node, place),
            "sns" => {
                let inner = self.fields(node, place, "`sns`", &["topic"])?;
                let example = "write the ARN of the topic, e.g. `topic: arn:aws:sns:eu-west-1:123456789012:alerts`";
                let node = self.required(&inner, "topic", example)?;
                let text = self.text(node, "`topic`")?;
                let topic = Topic::read(&text);
                if topic.is_none() {
                    self.error(node.place, format!("{} is not the ARN of a topic", quoted(&text)), Some(example.to_owned()));
                }
                Some(Receiver::Sns { topic: topic? })
            }
            _ => {
                let inner = self.fields(node, place, "`command`", &["run", "env"])?;
                let node = self.required(&inner, "run", "write the program and its arguments, e.g. `run: [python3, page.py]`")?;
                let run: Vec<String> = self.texts(node, "`run`").into_iter().map(|(text, _)| text).collect();
                if run.is_empty() {
                    let help = "write the program and its arguments, e.g. `[python3, page.py]`".to_owned();
                    self.error(node.place, "`run` names no program", Some(help));
                    return None;
                }
                Some(Receiver::Command { run, env: self.variables(&inner, "env") })
            }
        }
    }

    fn email(&mut self, node: &'a Node, place: Place) -> Option<Receiver> {
        let keys = ["to", "from", "server", "port", "security", "user_env", "password_env"];
        let fields = self.fields(node, place, "`email`", &keys)?;
        let to = self.required(&fields, "to", "write the address of a mailbox, e.g. `to: ops@example.org`");
        let to: Option<Vec<MailAddress>> = to.map(|node| {
            let texts = self.texts(node, "`to`");
            if texts.is_empty() && matches!(&node.value, Yaml::List(items) if items.is_empty()) {
                self.error(node.place, "`to` names no mailbox", None);
            }
            if texts.len() > MAX_MAILBOXES {
                let help = format!("at most {MAX_MAILBOXES} are allowed; write to a mailing list");
                self.error(node.place, format!("`to` names {} mailboxes", texts.len()), Some(help));
            }
            texts.into_iter().filter_map(|(text, place)| self.mail_address(&text, place)).collect()
        });
        let from = self.required(&fields, "from", "write the address that messages are from, e.g. `from: repair@example.org`");
        let from = from.and_then(|node| self.text(node, "`from`").and_then(|text| self.mail_address(&text, node.place)));
        let host = self.required(&fields, "server", "write the name of the server that sends mail, e.g. `server: smtp.example.org`");
        let host = host.and_then(|node| {
            let text = self.text(node, "`server`")?;
            let is_host = text.len() <= 255 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
            let is_address = text.parse::<std::net::IpAddr>().is_ok();
            if !is_host || (text.contains(':') && !is_address) {
                let help = "write its name without a scheme, and its port as `port`".to_owned();
                // It may be a URL with a password in it, which is not shown again.
                self.error(node.place, "`server` is not the name of a server", Some(help));
                return None;
            }
            Some((text, node.place))
        });
        let security = match fields.get("security") {
            Some(node) => self.word(node, "`security`", &MailSecurity::ALL)?,
            None => MailSecurity::Tls,
        };
        let port = match fields.get("port") {
            Some(_) => u16::try_from(self.count(&fields, "port", 1..=u32::from(u16::MAX))?).ok()?,
            None => security.port(),
        };
        let (user, password) = (self.variable(&fields, "user_env"), self.variable(&fields, "password_env"));
        if fields.get("user_env").is_some() != fields.get("password_env").is_some() {
            let help = "write both, or none of them".to_owned();
            self.error(fields.place, "`email` needs both `user_env` and `password_env` to log in", Some(help));
        }
        let (to, from, (host, place)) = (to.filter(|to| !to.is_empty())?, from?, host?);
        if security == MailSecurity::None && !is_loopback(&host) {
            let help = "write `security: tls` or `security: starttls`".to_owned();
            self.error(place, "mail must be encrypted, unless the server is on this machine", Some(help));
            return None;
        }
        Some(Receiver::Email { to, from, server: MailServer { host, port, security, login: user.zip(password) } })
    }

    fn mail_address(&mut self, text: &str, place: Place) -> Option<MailAddress> {
        let address = MailAddress::read(text);
        if address.is_none() {
            let help = "write the address alone, e.g. `ops@example.org`".to_owned();
            self.error(place, format!("{} is not the address of a mailbox", quoted(text)), Some(help));
        }
        address
    }

    /// Reads `url` or `url_env`.
    fn address(&mut self, fields: &Fields<'a>) -> Option<Address> {
        match (fields.get("url"), fields.get("url_env")) {
            (Some(node), None) => {
                let url = self.text(node, "`url`")?;
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://").filter(|rest| is_this_machine(rest)));
                let why = match rest {
                    None => Some("must be encrypted (https), unless it is on this machine"),
                    Some(rest) if rest.contains(['?', '#', '@']) => {
                        Some("may hold a secret; put the URL into a variable of the environment, and name that as `url_env`")
                    }
                    Some(rest) if rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace) => Some("names no host"),
                    Some(_) => None,
                };
                if let Some(why) = why {
                    // What may hold a secret is not shown.
                    self.error(node.place, format!("`url` {why}"), None);
                    return None;
                }
                Some(Address::Url(url))
            }
            (None, Some(_)) => self.variable(fields, "url_env").map(Address::Variable),
            _ => {
                let help = "e.g. `url: https://hooks.example/repair`; if the URL holds a secret, `url_env` names the variable that has it";
                let message = format!("{} needs one of `url` and `url_env`", fields.what);
                self.error(fields.place, message, Some(help.to_owned()));
                None
            }
        }
    }

    /// Reads the name of a variable of the environment. What cannot be one may be a secret itself, so it is not shown.
    fn variable(&mut self, fields: &Fields<'a>, name: &str) -> Option<String> {
        let node = fields.get(name)?;
        let text = self.text(node, &format!("`{name}`"))?;
        if is_variable(&text) {
            return Some(text);
        }
        let help = "write the name of a variable of the environment, and never a key".to_owned();
        self.error(node.place, format!("the value of `{name}` cannot be the name of a variable"), Some(help));
        None
    }

    fn variables(&mut self, fields: &Fields<'a>, name: &str) -> Vec<String> {
        let Some(node) = fields.get(name) else { return Vec::new() };
        let texts = self.texts(node, &format!("`{name}`"));
        if texts.len() > MAX_ENTRIES {
            return Vec::new();
        }
        let mut variables = Vec::with_capacity(texts.len());
        for (text, place) in texts {
            if is_variable(&text) {
                variables.push(text);
            } else {
                let help = "write the name of a variable of the environment, and never a key".to_owned();
                self.error(place, format!("an entry of `{name}` cannot be the name of a variable"), Some(help));
            }
        }
        variables
    }

    pub(super) fn lineage(&mut self, fields: &Fields<'a>) -> Option<Lineage> {
        let node = fields.get("lineage")?;
        let inner = self.fields(node, fields.key_place("lineage"), "`lineage`", &["url", "url_env", "key_env", "file"])?;
        let Some(file) = inner.get("file") else {
            let address = self.address(&inner);
            let key_env = self.variable(&inner, "key_env");
            return Some(Lineage::Url { address: address?, key_env });
        };
        if ["url", "url_env", "key_env"].iter().any(|other| inner.get(other).is_some()) {
            let help = "keep `file`, or keep where events are posted".to_owned();
            self.error(node.place, "`lineage` goes to a file or to a URL, not to both", Some(help));
        }
        self.text(file, "`file`").map(Lineage::File)
    }
}

/// Whether a text can be the name of a variable: letters, digits and `_`, as every system allows.
fn is_variable(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether what follows `http://` is on this machine.
fn is_this_machine(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(inside) => inside.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    is_loopback(host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
