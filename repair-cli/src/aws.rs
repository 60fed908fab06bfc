//! Lakes in S3, read through Athena.

use std::sync::Arc;

use repair_aws::{AwsLake, Connection, Options, S3Journal};
use repair_core::engine::{Journal, load};
use repair_core::lake::Lake;
use repair_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The `with` of a profile with `lake: athena`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `s3://bucket/lake`: below it alone we write.
    location: String,
    /// The database that has the tables.
    database: String,
    /// The workgroup; `{tag}` stands for a tag of the workflow.
    workgroup: String,
    /// Makes a workgroup that is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    create_workgroups: bool,
    /// The catalog, if it is not Glue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    catalog: Option<String>,
    /// Where results go; else within the lake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    results: Option<String>,
    /// A query that reads more is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_limit: Option<u64>,
    /// The region, if the environment does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// A lake in S3.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    location: String,
    /// `None` if only a command names it: what else is needed, the journal of a run says.
    config: Option<Config>,
}

impl Bucket {
    /// The lake at a place.
    pub(crate) fn at(location: &str) -> Self {
        Self { location: location.to_owned(), config: None }
    }

    /// The lake of a profile.
    pub(crate) fn of_profile(profile: &str, with: Value) -> Result<Self> {
        let config: Config = serde_json::from_value(with).map_err(|error| {
            Error::invalid(format!(
                "the `with` of profile `{profile}` is not usable; it takes `location`, `database` and `workgroup`, and if need be `create_workgroups`, \
                 `catalog`, `results`, `bytes_limit` and `region`"
            ))
            .because(error)
        })?;
        Ok(Self { location: config.location.clone(), config: Some(config) })
    }

    /// The same, elsewhere.
    pub(crate) fn moved_to(self, other: Self) -> Self {
        let config = self.config.map(|config| Config { location: other.location.clone(), ..config });
        Self { location: other.location, config }
    }

    /// What a later process needs to know to go on.
    pub(crate) fn with(&self) -> Value {
        self.config.as_ref().and_then(|config| serde_json::to_value(config).ok()).unwrap_or_default()
    }

    async fn connect(&self) -> Result<Connection> {
        Connection::open(self.config.as_ref().and_then(|config| config.region.clone())).await
    }

    /// The lake itself. Of a run that has begun, its journal says which database it works on.
    pub(crate) async fn lake(&self, run: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
        let config = match (&self.config, run) {
            (Some(config), _) => config.clone(),
            (None, Some((journal, run))) => {
                let mut with = load(journal, run).await?.started.environment.get("with").cloned().unwrap_or_default();
                if let Some(with) = with.as_object_mut() {
                    with.insert("location".to_owned(), Value::String(self.location.clone()));
                }
                serde_json::from_value(with).map_err(|error| {
                    Error::new(ErrorKind::Invalid, format!("run `{run}` was not started on a lake in S3, or by another program"))
                        .because(error)
                })?
            }
            (None, None) => {
                return Err(Error::invalid(format!(
                    "{} is a lake in S3, and nothing says which database has its tables; name a profile with `lake: athena`",
                    self.location
                )));
            }
        };
        let connection = Self { location: self.location.clone(), config: Some(config.clone()) }.connect().await?;
        let mut options = Options::new(config.location, config.database, config.workgroup);
        options.create_workgroups = config.create_workgroups;
        options.results = config.results;
        options.bytes_limit = config.bytes_limit;
        options.catalog = config.catalog.unwrap_or(options.catalog);
        Ok(Arc::new(AwsLake::open(&connection, options)?))
    }

    /// Its journal.
    pub(crate) async fn journal(&self) -> Result<Arc<dyn Journal>> {
        let location = format!("{}/_repair/journal", self.location.trim_end_matches('/'));
        Ok(Arc::new(S3Journal::open(&self.connect().await?, &location)?))
    }
}
