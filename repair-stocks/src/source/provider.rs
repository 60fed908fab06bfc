//! Providers of bars over HTTP. What is asked and what answers mean is described by the files of `providers`, which workflows can include; the plug-ins of
//! this folder add settings of their own to them.
//!
//! Only what is known of stocks is here: that bars are of minutes, and what a symbol looks like.

use async_trait::async_trait;
use repair_connect::http::Words;
use repair_connect::http::source::{HttpSource, HttpSourceConfig};
use repair_connect::{Environment, Options};
use repair_core::model::Key;
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::workflow::{Shared, Variables};
use repair_core::{Error, Result};

use crate::minute_gaps::check_minutes;

/// A provider's file.
pub(super) struct Provider {
    /// The name of its source.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) text: &'static str,
}

impl Provider {
    /// What the file says about the source.
    ///
    /// # Errors
    /// `internal` if the file, which is a part of this program, is not sound.
    pub(super) fn described(&self) -> Result<HttpSourceConfig> {
        let unsound = |why: String| Error::internal(format!("the description of {} is not sound: {why}", self.name));
        let mut registry = Registry::empty();
        repair_connect::register(&mut registry);
        let shared = Shared::parse(self.name, self.text, &registry).map_err(|mistakes| unsound(mistakes.to_string()))?;
        let source = shared.sources.get(self.name).ok_or_else(|| unsound("it has no source of this name".to_owned()))?;
        let with = source.with.resolve(&Variables::default())?;
        serde_json::from_value(with).map_err(|error| unsound(error.to_string()))
    }
}

/// Takes a setting in place of what a file says.
pub(super) fn set<T>(described: &mut T, own: Option<T>) {
    if let Some(own) = own {
        *described = own;
    }
}

/// Sets how many bars one request may return, of which the file says the most.
///
/// # Errors
/// `invalid` if there are more.
pub(super) fn set_rows(config: &mut HttpSourceConfig, own: Option<u64>) -> Result<()> {
    if let (Some(rows), Some(most)) = (own, config.rows_per_request)
        && rows > most
    {
        let name = config.name.as_deref().unwrap_or_default();
        return Err(Error::invalid(format!("`rows_per_request` must be at most {most} for {name}")));
    }
    config.rows_per_request = own.or(config.rows_per_request);
    Ok(())
}

/// The source of a provider.
pub(super) struct Bars(HttpSource);

impl Bars {
    /// # Errors
    /// `invalid` if the settings make no sense.
    pub(super) fn new(config: &HttpSourceConfig, variables: &Environment) -> Result<Self> {
        let options = Options::default().with_environment(variables.clone());
        HttpSource::new(config, &options, Words::default().with("bars", "minutes", "symbols")).map(Self)
    }
}

#[async_trait]
impl Source for Bars {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn requests_at_worst(&self) -> u64 {
        self.0.requests_at_worst()
    }

    async fn ready(&self) -> Result<()> {
        self.0.ready().await
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        check_minutes(&request.table)?;
        if request.keys.is_empty() {
            return Err(Error::invalid("the request names no symbol"));
        }
        request.keys.iter().try_for_each(check_symbol)?;
        self.0.fetch(context, request).await
    }
}

/// Checks that a key is a symbol, so that what is no symbol is asked of nobody.
fn check_symbol(key: &Key) -> Result<()> {
    let symbol = key.single().ok_or_else(|| Error::invalid(format!("`{key}` is not one symbol")))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '^' | '/' | '=' | '+');
    if symbol.is_empty() || symbol.chars().all(|c| c == '.') || !symbol.chars().all(fits) {
        return Err(Error::invalid(format!("`{key}` cannot be a symbol; correct `symbols`")));
    }
    Ok(())
}
