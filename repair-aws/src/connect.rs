//! The connection to AWS: credentials, region and endpoints as every AWS tool takes them.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_types::retry::RetryConfig;
use repair_core::{Error, Result};

#[cfg(test)]
mod log_in;

/// A call that has sent nothing back for so long has failed; a body may take longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that is not there by then will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What S3 and Athena are reached with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    config: SdkConfig,
}

impl Connection {
    /// Finds credentials, region and endpoints where every AWS tool does: the environment (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL`), `~/.aws`, or the role of the machine. Profiles may log in by all means that they know: keys, roles, IAM Identity
    /// Center (`aws sso login`), the console (`aws login`), a process, a web identity. A region that is given comes first.
    ///
    /// # Errors
    /// `invalid` if nothing says the region.
    pub async fn open(region: Option<String>) -> Result<Self> {
        Self::load(loader(region)).await
    }

    async fn load(loader: ConfigLoader) -> Result<Self> {
        let config = Box::pin(loader.load()).await;
        if config.region().is_none() {
            return Err(Error::invalid("nothing says which AWS region to use; set AWS_REGION, or `region` of the profile"));
        }
        Ok(Self { config })
    }

    /// A connection that is configured already. Its own retries should be off: see [`Connection::open`].
    pub fn of(config: SdkConfig) -> Self {
        Self { config }
    }

    pub(crate) fn s3(&self) -> aws_sdk_s3::Client {
        let mut config = aws_sdk_s3::config::Builder::from(&self.config);
        // What is not AWS itself mostly has no names for buckets.
        if self.config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some() {
            config = config.force_path_style(true);
        }
        aws_sdk_s3::Client::from_conf(config.build())
    }

    pub(crate) fn athena(&self) -> aws_sdk_athena::Client {
        aws_sdk_athena::Client::new(&self.config)
    }
}

/// How every connection is configured.
fn loader(region: Option<String>) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        // Retries are declared in workflows: attempts of the SDK would multiply with them.
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
