//! The part of a configuration that says what is sent.

use std::collections::BTreeMap;

use repair_core::builtin::Period;
use repair_core::plugin::StepContext;
use repair_core::{Error, Result};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::http::NAME;
use crate::http::api::{Api, Call, Words};
use crate::http::auth::{AuthConfig, Keys};
use crate::secret::Environment;
use crate::template::Argument;

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestMethod {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
}

impl From<RequestMethod> for Method {
    fn from(method: RequestMethod) -> Self {
        match method {
            RequestMethod::Get => Self::GET,
            RequestMethod::Post => Self::POST,
            RequestMethod::Put => Self::PUT,
        }
    }
}

/// The parameters of a query: by name, or as a list, which keeps its order and may have a name several times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "NamedOrListed")]
#[schemars(with = "NamedOrListed")]
pub struct QueryConfig(Vec<(String, String)>);

/// The parameters of a query as they are written.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "texts by name, such as `{ limit: \"10\" }`, or a list of single ones, such as `[{ limit: \"10\" }]`")]
enum NamedOrListed {
    Named(BTreeMap<String, String>),
    Listed(Vec<BTreeMap<String, String>>),
}

impl TryFrom<NamedOrListed> for QueryConfig {
    type Error = String;

    fn try_from(written: NamedOrListed) -> Result<Self, String> {
        let mut all = Vec::new();
        match written {
            NamedOrListed::Named(named) => all.extend(named),
            NamedOrListed::Listed(listed) => {
                for one in listed {
                    if one.len() != 1 {
                        return Err(format!("an entry of `query` has {} parameters; in a list, each has an entry of its own", one.len()));
                    }
                    all.extend(one);
                }
            }
        }
        Ok(Self(all))
    }
}

impl QueryConfig {
    /// Sets a parameter in the place of the first of its name, or as the last. Its text may name values, as in a workflow.
    pub fn set(&mut self, name: &str, text: impl Into<String>) {
        let text = text.into();
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = text,
            None => self.0.push((name.to_owned(), text)),
        }
    }
}

/// Declares a configuration: its own fields, and those that say what is sent.
macro_rules! config {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$field_about:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_about])* pub $field: $kind,)*
            /// Where the API is: a host, and perhaps the beginning of a path. It must be encrypted, unless it is on this machine.
            pub base_url: String,
            /// The path below it. `{key}` and other names stand for values, here and in `query`, `headers` and `body`.
            #[serde(default)]
            pub path: String,
            /// The parameters of the query: by name, or as a list of single ones, which keeps its order and may have a name several times.
            #[serde(default)]
            pub query: $crate::http::request::QueryConfig,
            /// The headers, other than those for keys.
            #[serde(default)]
            pub headers: std::collections::BTreeMap<String, String>,
            /// The body, sent as JSON.
            #[serde(default)]
            pub body: Option<serde_json::Value>,
            /// How it is sent: `get`, `post` or `put`. By default `get`, or `post` if there is a body.
            #[serde(default)]
            pub method: Option<$crate::http::request::RequestMethod>,
            /// Where keys go, which come from the environment.
            #[serde(default)]
            pub auth: $crate::http::auth::AuthConfig,
            /// How long one request may take; 1m by default.
            #[serde(default)]
            pub timeout: Option<repair_core::builtin::Period>,
            /// What errors call the API; by default its host.
            #[serde(default)]
            pub name: Option<String>,
        }

        impl $name {
            /// The part that says what is sent.
            fn request(&self) -> $crate::http::request::RequestConfig {
                $crate::http::request::RequestConfig {
                    base_url: self.base_url.clone(),
                    path: self.path.clone(),
                    query: self.query.clone(),
                    headers: self.headers.clone(),
                    body: self.body.clone(),
                    method: self.method,
                    auth: self.auth.clone(),
                    timeout: self.timeout,
                    name: self.name.clone(),
                }
            }
        }
    };
}
pub(super) use config;

/// The part of a configuration that says what is sent.
pub(super) struct RequestConfig {
    pub(super) base_url: String,
    pub(super) path: String,
    pub(super) query: QueryConfig,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Option<Value>,
    pub(super) method: Option<RequestMethod>,
    pub(super) auth: AuthConfig,
    pub(super) timeout: Option<Period>,
    pub(super) name: Option<String>,
}

/// A value by its name, and how it is written.
pub(super) type ValueOf<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<String>;

/// The values that every request has.
const EVERY: [&str; 5] = ["run", "step", "visit", "attempt", "id"];

/// Text of JSON with places for values.
enum Body {
    Text(Argument),
    List(Vec<Body>),
    Object(Vec<(String, Body)>),
    Plain(Value),
}

/// Requests of one kind to one API.
pub(super) struct Requests {
    pub(super) api: Api,
    pub(super) provider: String,
    method: Method,
    path: Vec<Argument>,
    query: Vec<(String, Argument)>,
    headers: Vec<(HeaderName, Argument)>,
    body: Option<Body>,
    auth: AuthConfig,
    environment: Environment,
}

impl Requests {
    /// Requests, with the names of the values that they may have, and those that say how they are written.
    ///
    /// # Errors
    /// `invalid` if the configuration makes no sense.
    pub(super) fn new(
        config: RequestConfig,
        method: Method,
        names: &[&str],
        formatted: &[&str],
        environment: &Environment,
        words: Words,
    ) -> Result<Self> {
        config.auth.check()?;
        let names: Vec<&str> = names.iter().chain(&EVERY).copied().collect();
        let parse = |text: &str| Argument::parsed(text, &names, formatted);
        let base = Url::parse(&config.base_url).ok();
        let host = base.as_ref().and_then(Url::host_str).unwrap_or(NAME).to_owned();
        let provider = config.name.unwrap_or(host);
        if config.path.contains(['?', '#']) {
            return Err(Error::invalid("`path` has a query; write its parameters under `query`"));
        }
        let path = config.path.split('/').filter(|part| !part.is_empty()).map(parse).collect::<Result<_>>()?;
        let query = config.query.0.iter().map(|(name, text)| Ok((name.clone(), parse(text)?))).collect::<Result<_>>()?;
        let mut headers = Vec::new();
        for (name, text) in &config.headers {
            let header =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| Error::invalid(format!("`{name}` cannot be the name of a header")))?;
            if ["authorization", "proxy-authorization", "cookie", "host", "content-length"].contains(&header.as_str()) {
                return Err(Error::invalid(format!(
                    "`{name}` under `headers` may hold a key, or is set by itself; write keys under `auth`"
                )));
            }
            headers.push((header, parse(text)?));
        }
        let body = config.body.as_ref().map(|body| Body::parse(body, &parse)).transpose()?;
        Ok(Self {
            api: Api::new(provider.clone(), &config.base_url, config.timeout, words)?,
            provider,
            method: config.method.map_or(if body.is_some() { Method::POST } else { method }, Method::from),
            path,
            query,
            headers,
            body,
            auth: config.auth,
            environment: environment.clone(),
        })
    }

    /// Whether a value of this name is a part of them.
    pub(super) fn uses(&self, name: &str) -> bool {
        let in_body = self.body.as_ref().is_some_and(|body| body.uses(name));
        let query = self.query.iter().map(|(_, text)| text);
        in_body || self.path.iter().chain(query).chain(self.headers.iter().map(|(_, text)| text)).any(|text| text.uses(name))
    }

    /// Checks that the keys are there, and that a secure connection is possible.
    ///
    /// # Errors
    /// `denied` if not.
    pub(super) fn ready(&self) -> Result<()> {
        self.auth.keys(&self.environment, &self.provider)?;
        self.api.client().map(drop)
    }

    /// A request with these values.
    ///
    /// # Errors
    /// `denied` if a key is not set; `invalid` if a value does not fit where it stands.
    pub(super) fn call(&self, context: &StepContext, id: &str, value: ValueOf<'_>) -> Result<Call> {
        let value: ValueOf<'_> = &|name, form| match name {
            "run" => Ok(context.run.to_string()),
            "step" => Ok(context.step.to_string()),
            "visit" => Ok(context.visit.to_string()),
            "attempt" => Ok(context.attempt.to_string()),
            "id" => Ok(id.to_owned()),
            other => value(other, form),
        };
        let Keys { headers: mut all, query, secrets } = self.auth.keys(&self.environment, &self.provider)?;
        let path = self.path.iter().map(|part| part.filled(value)).collect::<Result<Vec<String>>>()?;
        if let Some(odd) = path.iter().find(|part| part.is_empty() || *part == "." || *part == "..") {
            return Err(Error::invalid(format!("`{odd}` cannot be a part of a path; the request would go elsewhere")));
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut url = self.api.url(&path)?;
        for (name, text) in &self.query {
            url.query_pairs_mut().append_pair(name, &text.filled(value)?);
        }
        for (name, key) in &query {
            set_parameter(&mut url, name, key.reveal());
        }
        for (name, text) in &self.headers {
            let text = HeaderValue::from_str(&text.filled(value)?)
                .map_err(|_| Error::invalid(format!("the value of the header `{name}` cannot be one")))?;
            all.push((name.clone(), text));
        }
        let body = self.body.as_ref().map(|body| body.filled(value)).transpose()?;
        let body =
            body.map(|body| serde_json::to_vec(&body)).transpose().map_err(|error| Error::internal("a body is not JSON").because(error))?;
        if body.is_some() && !all.iter().any(|(name, _)| name == CONTENT_TYPE) {
            all.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        Ok(Call { method: self.method.clone(), url, headers: all, body, secrets, variables: self.auth.variables() })
    }

    /// The same request at another address of the same host, to which keys of the query are added.
    ///
    /// # Errors
    /// `denied` if a key is not set.
    pub(super) fn at(&self, call: &Call, mut url: Url) -> Result<Call> {
        for (name, key) in &self.auth.keys(&self.environment, &self.provider)?.query {
            set_parameter(&mut url, name, key.reveal());
        }
        Ok(Call { url, ..call.clone() })
    }

    /// Refuses a reply that holds a key.
    ///
    /// # Errors
    /// `invalid` if it does.
    pub(super) fn check_secrets(&self, call: &Call, body: &[u8]) -> Result<()> {
        if call.secrets.iter().any(|secret| secret.is_in(body)) {
            let provider = &self.provider;
            return Err(Error::invalid(format!("{provider} answered with the key that it was sent, so the answer was discarded")));
        }
        Ok(())
    }
}

/// Sets a parameter of the query in place of any of its name.
pub(super) fn set_parameter(url: &mut Url, name: &str, value: &str) {
    let kept: Vec<(String, String)> =
        url.query_pairs().filter(|(own, _)| own != name).map(|(own, value)| (own.into_owned(), value.into_owned())).collect();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair(name, value);
}

impl Body {
    fn parse(value: &Value, parse: &impl Fn(&str) -> Result<Argument>) -> Result<Self> {
        Ok(match value {
            Value::String(text) => Self::Text(parse(text)?),
            Value::Array(items) => Self::List(items.iter().map(|item| Self::parse(item, parse)).collect::<Result<_>>()?),
            Value::Object(fields) => {
                Self::Object(fields.iter().map(|(name, field)| Ok((name.clone(), Self::parse(field, parse)?))).collect::<Result<_>>()?)
            }
            plain => Self::Plain(plain.clone()),
        })
    }

    fn uses(&self, name: &str) -> bool {
        match self {
            Self::Text(text) => text.uses(name),
            Self::List(items) => items.iter().any(|item| item.uses(name)),
            Self::Object(fields) => fields.iter().any(|(_, field)| field.uses(name)),
            Self::Plain(_) => false,
        }
    }

    fn filled(&self, value: ValueOf<'_>) -> Result<Value> {
        Ok(match self {
            Self::Text(text) => text.filled(value)?.into(),
            Self::List(items) => items.iter().map(|item| item.filled(value)).collect::<Result<Vec<_>>>()?.into(),
            Self::Object(fields) => {
                Value::Object(fields.iter().map(|(name, field)| Ok((name.clone(), field.filled(value)?))).collect::<Result<_>>()?)
            }
            Self::Plain(plain) => plain.clone(),
        })
    }
}
