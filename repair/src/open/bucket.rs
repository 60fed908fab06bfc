//! Lakes in S3, read through Athena.

#[cfg(feature = "aws")]
pub(crate) use with_aws::Bucket;
#[cfg(not(feature = "aws"))]
pub(crate) use without_aws::Bucket;

#[cfg(feature = "aws")]
mod with_aws {
    use std::sync::Arc;

    use repair_aws::{AwsLake, AwsOptions, Connection, S3Journal};
    use repair_core::engine::{Journal, load};
    use repair_core::lake::Lake;
    use repair_core::{Error, ErrorKind, Hint, Result};
    use serde::{Deserialize, Serialize};
    use serde_json::Value;

    /// The `with` of a profile with `lake: athena`.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        /// `s3://bucket/lake`: everything is written below it.
        location: String,
        /// The database that has the tables.
        database: String,
        /// The workgroup; `{tag}` stands for a tag of the workflow.
        workgroup: String,
        /// Creates a workgroup that is missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        create_workgroups: bool,
        /// The catalog, if it is not Glue's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        catalog: Option<String>,
        /// Where results go, if not within the lake.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        results: Option<String>,
        /// A query that reads more than this is stopped.
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
        /// `None` if only its location was named; then the journal of a run says the rest.
        config: Option<Config>,
    }

    #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "the signatures are those of a program without AWS, too")]
    impl Bucket {
        /// The lake at a location.
        pub(crate) fn at(location: &str) -> Result<Self> {
            Ok(Self { location: location.to_owned(), config: None })
        }

        /// The lake of a profile.
        pub(crate) fn of_profile(profile: &str, with: Value) -> Result<Self> {
            let config: Config = serde_json::from_value(with).map_err(|error| {
                Error::invalid(format!(
                    "the `with` of profile `{profile}` is not usable; it takes `location`, `database` and `workgroup`, and optionally \
                     `create_workgroups`, `catalog`, `results`, `bytes_limit` and `region`"
                ))
                .because(error)
            })?;
            Ok(Self { location: config.location.clone(), config: Some(config) })
        }

        /// The same configuration at another location.
        pub(crate) fn moved_to(self, other: Self) -> Self {
            let config = self.config.map(|config| Config { location: other.location.clone(), ..config });
            Self { location: other.location.clone(), config }
        }

        /// Where it is.
        pub(crate) fn location(&self) -> &str {
            &self.location
        }

        /// Whether only its location is known, and not which database has its tables.
        pub(crate) fn is_bare(&self) -> bool {
            self.config.is_none()
        }

        /// What a later process needs to know to continue.
        pub(crate) fn with(&self) -> Value {
            self.config.as_ref().and_then(|config| serde_json::to_value(config).ok()).unwrap_or_default()
        }

        async fn connect(&self) -> Result<Connection> {
            Connection::open(self.config.as_ref().and_then(|config| config.region.clone())).await
        }

        /// The lake itself. If its location alone is known, the journal of a run says which database it works on.
        pub(crate) async fn lake(&self, run: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
            let config = match (&self.config, run) {
                (Some(config), _) => config.clone(),
                (None, Some((journal, run))) => {
                    let mut with = load(journal, run).await?.started.environment.get("with").cloned().unwrap_or_default();
                    if let Some(with) = with.as_object_mut() {
                        with.insert("location".to_owned(), Value::String(self.location.clone()));
                    }
                    serde_json::from_value(with).map_err(|error| {
                        Error::invalid(format!("run `{run}` was not started on a lake in S3, or by another program")).because(error)
                    })?
                }
                (None, None) => {
                    let message = format!(
                        "{} is a lake in S3, and nothing says which database has its tables; a profile with `lake: athena` does",
                        self.location
                    );
                    return Err(Error::invalid(message).hint(Hint::Profile { known: Vec::new() }));
                }
            };
            Self::open(config, false).await
        }

        /// The lake of a profile, in which nothing is written.
        pub(crate) async fn lake_to_read(&self) -> Result<Arc<dyn Lake>> {
            let config = self.config.clone().ok_or_else(|| Error::internal("a lake to read has a profile"))?;
            Self::open(config, true).await
        }

        async fn open(config: Config, only_read: bool) -> Result<Arc<dyn Lake>> {
            let connection = Self { location: config.location.clone(), config: Some(config.clone()) }.connect().await?;
            let mut options = AwsOptions::new(config.location, config.database, config.workgroup);
            options.create_workgroups = config.create_workgroups;
            options.results = config.results;
            options.bytes_limit = config.bytes_limit;
            options.catalog = config.catalog.unwrap_or(options.catalog);
            options.only_read = only_read;
            Ok(Arc::new(AwsLake::open(&connection, options)?))
        }

        fn journal_at(&self) -> String {
            format!("{}/_repair/journal", self.location.trim_end_matches('/'))
        }

        /// Its journal, which begins with the first run.
        pub(crate) async fn journal_to_write(&self) -> Result<Arc<dyn Journal>> {
            Ok(Arc::new(S3Journal::open(&self.connect().await?, &self.journal_at())?))
        }

        /// Its journal, if something was run there.
        pub(crate) async fn journal_to_read(&self) -> Result<Arc<dyn Journal>> {
            let journal = S3Journal::open(&self.connect().await?, &self.journal_at())?;
            if journal.exists().await? {
                return Ok(Arc::new(journal));
            }
            let message = format!("there is no journal at {}: nothing was ever run there", self.journal_at());
            Err(Error::new(ErrorKind::NotFound, message).hint(Hint::OtherLake))
        }
    }
}

/// The replacement for lakes in S3 in a program that is built without them: it refuses whatever needs one.
#[cfg(not(feature = "aws"))]
mod without_aws {
    use std::convert::Infallible;
    use std::sync::Arc;

    use repair_core::engine::Journal;
    use repair_core::lake::Lake;
    use repair_core::{Error, Hint, Result};
    use serde_json::Value;

    /// A lake in S3, which this program does not have.
    #[derive(Debug, Clone)]
    pub(crate) struct Bucket(Infallible);

    fn missing(what: &str) -> Error {
        Error::invalid(format!("{what}, and this program was built without AWS")).hint(Hint::Feature { name: "aws" })
    }

    #[allow(clippy::needless_pass_by_value, clippy::unused_async, reason = "the signatures are those of a program with AWS")]
    impl Bucket {
        /// Refuses the lake at a location.
        pub(crate) fn at(location: &str) -> Result<Self> {
            Err(missing(&format!("{location} is a lake in S3")))
        }

        /// Refuses the lake of a profile.
        pub(crate) fn of_profile(profile: &str, _: Value) -> Result<Self> {
            Err(missing(&format!("profile `{profile}` is of a lake in S3")))
        }

        /// The same configuration at another location.
        pub(crate) fn moved_to(self, _: Self) -> Self {
            match self.0 {}
        }

        /// Where it is.
        pub(crate) fn location(&self) -> &str {
            match self.0 {}
        }

        /// Whether only its location is known.
        pub(crate) fn is_bare(&self) -> bool {
            match self.0 {}
        }

        /// What a later process needs to know to continue.
        pub(crate) fn with(&self) -> Value {
            match self.0 {}
        }

        /// The lake itself.
        pub(crate) async fn lake(&self, _: Option<(&dyn Journal, &str)>) -> Result<Arc<dyn Lake>> {
            match self.0 {}
        }

        /// The lake of a profile, in which nothing is written.
        pub(crate) async fn lake_to_read(&self) -> Result<Arc<dyn Lake>> {
            match self.0 {}
        }

        /// Its journal.
        pub(crate) async fn journal_to_write(&self) -> Result<Arc<dyn Journal>> {
            match self.0 {}
        }

        /// Its journal.
        pub(crate) async fn journal_to_read(&self) -> Result<Arc<dyn Journal>> {
            match self.0 {}
        }
    }
}
