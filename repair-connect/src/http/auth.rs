//! How an API knows who asks: by keys from the environment, in a header or in the query.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use repair_core::{Error, Result};
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::http::api::header;
use crate::secret::{Environment, Secret};

/// The variable of the environment that holds a key, or several, of which the first that is set counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the name of a variable of the environment, or a list of such names")]
pub enum Variable {
    /// One.
    One(String),
    /// Several, such as the one of an API and that of its old name.
    Several(Vec<String>),
}

impl Variable {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }

    /// The names, for messages.
    fn shown(&self) -> String {
        match self.names() {
            [] => String::new(),
            [name] => name.clone(),
            [first, others @ ..] => format!("{first} (or {})", others.join(", or ")),
        }
    }

    fn read(&self, variables: &Environment, provider: &str) -> Result<Secret> {
        let names: Vec<&str> = self.names().iter().map(String::as_str).collect();
        Secret::read(variables, provider, &names)
    }
}

/// A key in a header or a parameter of the query.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The name of the header or the parameter.
    pub name: String,
    /// The variable of the environment that holds the key, or a list, of which the first that is set counts.
    pub variable: Variable,
    /// What stands before the key in a header, such as `Token `.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// Where keys go. Only names of variables are written here; their values come from the environment. In place of a name there may be a list of names, of
/// which the first that is set counts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The variable with the token of `Authorization: Bearer`.
    pub bearer: Option<Variable>,
    /// The variables with the user and the password of `Authorization: Basic`.
    pub basic: Option<[Variable; 2]>,
    /// Keys in headers.
    pub headers: Vec<Named>,
    /// Keys in the query.
    pub query: Vec<Named>,
}

/// The keys of one request.
pub(super) struct Keys {
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) query: Vec<(String, Secret)>,
    pub(super) secrets: Vec<Secret>,
}

impl AuthConfig {
    /// Checks what can be checked without the environment.
    pub(super) fn check(&self) -> Result<()> {
        for named in &self.headers {
            named.header_name()?;
        }
        if let Some(odd) = self.query.iter().find(|named| named.prefix.is_some()) {
            return Err(Error::invalid(format!("`prefix` of `{}` is for headers; remove it", odd.name)));
        }
        let is_no_name = |name: &String| name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match self.all().find(|variable| variable.names().is_empty() || variable.names().iter().any(is_no_name)) {
            None => Ok(()),
            // It may be the key itself, so it is not shown.
            Some(_) => Err(Error::invalid(
                "a variable under `auth` cannot be the name of one; write the name of a variable of the environment, and never a key",
            )),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Variable> {
        let named = self.headers.iter().chain(&self.query).map(|named| &named.variable);
        self.bearer.iter().chain(self.basic.iter().flatten()).chain(named)
    }

    /// The variables, for messages that say what to check.
    pub(super) fn variables(&self) -> String {
        let all: Vec<String> = self.all().map(Variable::shown).collect();
        if all.is_empty() { "whether it needs a key, under `auth`".to_owned() } else { all.join(" and ") }
    }

    /// The keys, read from the environment.
    ///
    /// # Errors
    /// `denied` if one is not set.
    pub(super) fn keys(&self, variables: &Environment, provider: &str) -> Result<Keys> {
        let read = |variable: &Variable| variable.read(variables, provider);
        let mut keys = Keys { headers: Vec::new(), query: Vec::new(), secrets: Vec::new() };
        if let Some(variable) = &self.bearer {
            let key = read(variable)?;
            keys.headers.push((AUTHORIZATION, header("Bearer ", &key)?));
            keys.secrets.push(key);
        }
        if let Some([user, password]) = &self.basic {
            let (user, password) = (read(user)?, read(password)?);
            let both = Secret::new(STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal())));
            keys.headers.push((AUTHORIZATION, header("Basic ", &both)?));
            keys.secrets.extend([user, password, both]);
        }
        for named in &self.headers {
            let key = read(&named.variable)?;
            keys.headers.push((named.header_name()?, header(named.prefix.as_deref().unwrap_or_default(), &key)?));
            keys.secrets.push(key);
        }
        for named in &self.query {
            let key = read(&named.variable)?;
            keys.query.push((named.name.clone(), key.clone()));
            keys.secrets.push(key);
        }
        Ok(keys)
    }
}

impl Named {
    fn header_name(&self) -> Result<HeaderName> {
        HeaderName::from_bytes(self.name.as_bytes()).map_err(|_| Error::invalid(format!("`{}` cannot be the name of a header", self.name)))
    }
}
