//! The connection to AWS: credentials, region and endpoints from the places that every AWS tool uses.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_types::retry::RetryConfig;
use repair_core::{Error, Result};

use crate::patience::Patience;

#[cfg(test)]
mod log_in;

/// A call whose answer has not begun after this time has failed; the body may take longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The configuration for reaching S3 and Athena. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    config: SdkConfig,
    patience: Patience,
}

impl Connection {
    /// Finds credentials, region and endpoints where every AWS tool does: the environment (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL`), `~/.aws`, or the role of the machine. Profiles may log in in every way that profiles know: keys, roles, IAM Identity
    /// Center (`aws sso login`), the console (`aws login`), a process, a web identity. A given region takes precedence.
    ///
    /// # Errors
    /// `invalid` if no region is configured.
    pub async fn open(region: Option<String>) -> Result<Self> {
        Self::load(loader(region)).await
    }

    async fn load(loader: ConfigLoader) -> Result<Self> {
        let config = Box::pin(loader.load()).await;
        if config.region().is_none() {
            return Err(Error::invalid("no AWS region is configured; set AWS_REGION, or `region` of the profile"));
        }
        Ok(Self::of(config))
    }

    /// Uses an existing configuration. Its own retries should be off: see [`Connection::open`].
    pub fn of(config: SdkConfig) -> Self {
        Self { config, patience: Patience::default() }
    }

    /// How long a call is repeated if AWS is busy or out of reach, but at least three times; three minutes unless set. Longer waits are left to the workflow's `retry`.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience: Patience(patience), ..self }
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn s3(&self) -> aws_sdk_s3::Client {
        let mut config = aws_sdk_s3::config::Builder::from(&self.config);
        // Servers other than AWS mostly have no host names for buckets.
        if self.config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some() {
            config = config.force_path_style(true);
        }
        aws_sdk_s3::Client::from_conf(config.build())
    }

    pub(crate) fn athena(&self) -> aws_sdk_athena::Client {
        aws_sdk_athena::Client::new(&self.config)
    }

    pub(crate) fn sns(&self) -> aws_sdk_sns::Client {
        aws_sdk_sns::Client::new(&self.config)
    }
}

/// The configuration of every connection.
fn loader(region: Option<String>) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        // Calls are repeated here, and workflows declare retries; attempts by the SDK would multiply with them.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts());
    match region {
        Some(region) => loader.region(Region::new(region)),
        None => loader,
    }
}

/// Timeouts for every call.
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(CALL_TIMEOUT).build()
}
