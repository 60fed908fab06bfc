//! `repair aws-sandbox`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use repair_aws::Location;
use repair_aws_sandbox::{Condition, Metadata, Options, Rule, Sandbox};
use repair_core::lake::ReadLake;
use repair_core::lake::partition::time_partition;
use repair_core::model::{Format, Table};
use repair_core::workflow::{Variables, Workflow};
use repair_core::{Error, ErrorKind, Result};
use repair_local::LocalLake;

use crate::aws::Bucket;
use crate::output::{Failure, count, print};
use crate::session::{registry, told_to_stop};

/// Serve S3, Athena and Glue on this machine, in memory, to try a lake in S3 without an account.
#[derive(Debug, Args)]
pub(crate) struct AwsSandbox {
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 9324)]
    port: u16,
    /// A workflow whose profile says what to make: the bucket, the database, the workgroup.
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// Which of its profiles.
    #[arg(long, default_value = "aws")]
    profile: String,
    /// The folder of a lake: the files of the workflow's tables are put into the bucket, and the tables declared.
    #[arg(long, value_name = "DIR", requires = "workflow")]
    from: Option<PathBuf>,
    /// One more table, of rows as the workflow's first table has them, such as an archive; once for each.
    #[arg(long = "table", value_name = "NAME=DIR", requires = "from", value_parser = named)]
    tables: Vec<(String, PathBuf)>,
    /// What is to go wrong: a JSON list of rules, such as
    /// [{"service": "athena", "operation": "StartQueryExecution", "times": 3, "fault": "throttled"}].
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or_else(|| "write it as NAME=DIR".to_owned())?;
    Ok((name.to_owned(), PathBuf::from(folder)))
}

impl AwsSandbox {
    /// Does it, until the process is told to stop.
    pub(crate) async fn execute(self) -> Result<ExitCode, Failure> {
        let rules = self.faults.as_deref().map(rules).transpose()?.unwrap_or_default();
        let sandbox = Sandbox::start(Options::default().port(self.port)).await.map_err(|error| {
            Error::new(ErrorKind::Conflict, format!("can't listen on 127.0.0.1:{}; name another with --port", self.port)).because(error)
        })?;
        let mut made = Vec::new();
        if let Some(file) = &self.workflow {
            let workflow = Workflow::load(file, &registry())?;
            made = self.furnish(&sandbox, &workflow).await?;
        }
        rules.into_iter().for_each(|rule| sandbox.faults().add(rule));
        let mut lines = vec![
            format!("AWS sandbox at {}, until it is stopped (Ctrl-C); all in it is in memory", sandbox.endpoint()),
            String::new(),
            "In another terminal:".to_owned(),
            String::new(),
        ];
        let variables = [
            ("AWS_ENDPOINT_URL", sandbox.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "sandbox".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "sandbox".to_owned()),
        ];
        lines.extend(variables.map(|(name, value)| format!("export {name}={value}")));
        if let Some(file) = &self.workflow {
            lines.push(format!("repair run {} --profile {} …", file.display(), self.profile));
        }
        if !made.is_empty() {
            lines.push(String::new());
            lines.extend(made);
        }
        print(&lines.join("\n"))?;
        told_to_stop().await;
        sandbox.stop().await;
        Ok(ExitCode::SUCCESS)
    }

    /// Makes what the profile names, and says what.
    async fn furnish(&self, sandbox: &Sandbox, workflow: &Workflow) -> Result<Vec<String>> {
        let Some(profile) = workflow.profiles.get(&self.profile) else {
            return Err(Error::invalid(format!("the workflow has no profile `{}`; name one with --profile", self.profile)));
        };
        let bucket = Bucket::of_profile(&self.profile, profile.with.resolve(&Variables::default())?)?;
        let location = Location::parse(bucket.location())?;
        let (database, workgroup) = bucket.names(&workflow.tags)?;
        sandbox.store().create_bucket(&location.bucket).map_err(refused)?;
        sandbox.create_workgroup(&workgroup, &format!("s3://{}/results/", location.bucket)).map_err(refused)?;
        sandbox.run(None, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await.map_err(refused)?;
        let mut made = vec![format!("made: bucket {}, database {database}, workgroup {workgroup}", location.bucket)];
        let Some(from) = &self.from else { return Ok(made) };
        let lake = LocalLake::open(from)?;
        for table in workflow.tables.values() {
            if lake.root().join(&table.location).exists() {
                made.push(load(sandbox, &lake, table, &location, &database).await?);
            }
        }
        let first = workflow.tables.values().next();
        for (name, folder) in &self.tables {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            let like = first.ok_or_else(|| Error::invalid("the workflow has no table whose rows those of --table could be like"))?;
            let files = files_below(&folder)?;
            let endings: Vec<&str> = files.iter().filter_map(|path| path.extension()?.to_str()).collect();
            let format = [Format::Parquet, Format::Csv, Format::Jsonl]
                .into_iter()
                .find(|format| endings.iter().any(|ending| format.endings().contains(ending)))
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no files of a table in {}", folder.display())))?;
            let table =
                Table { name: name.clone(), location: folder.display().to_string(), format, partition_by: Vec::new(), ..like.clone() };
            made.push(load(sandbox, &lake, &table, &location, &database).await?);
        }
        Ok(made)
    }
}

/// Puts the files of a table into the bucket, and declares the table.
async fn load(sandbox: &Sandbox, lake: &LocalLake, table: &Table, to: &Location, database: &str) -> Result<String> {
    let schema = lake.describe(table).await?;
    let folder = lake.root().join(&table.location);
    // A folder from elsewhere gets the table's name in the lake.
    let inside = if Path::new(&table.location).is_absolute() { &table.name } else { &table.location };
    let place = to.join(inside);
    let files = files_below(&folder)?;
    let mut partitions: Vec<String> = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&folder).unwrap_or(file);
        let relative: Vec<&str> = relative.iter().filter_map(|part| part.to_str()).collect();
        let bytes = std::fs::read(file)
            .map_err(|error| Error::new(ErrorKind::NotFound, format!("could not read {}", file.display())).because(error))?;
        let key = format!("{}/{}", place.prefix, relative.join("/"));
        sandbox.store().put(&place.bucket, &key, bytes.into(), Condition::Always, Metadata::default()).map_err(refused)?;
        if let (Some(by), [first, ..]) = (time_partition(table)?, relative.as_slice())
            && let Some(value) = first.strip_prefix(&format!("{}=", by.column))
            && !partitions.iter().any(|known| known == value)
        {
            partitions.push(value.to_owned());
        }
    }
    sandbox.run(Some(database), &repair_aws::declaration(database, table, &schema, &format!("{place}/"))?).await.map_err(refused)?;
    if let Some(by) = time_partition(table)? {
        for value in &partitions {
            let sql = format!(
                "ALTER TABLE `{database}`.`{}` ADD IF NOT EXISTS PARTITION (`{column}` = '{value}') LOCATION '{place}/{column}={value}/'",
                table.name,
                column = by.column
            );
            sandbox.run(Some(database), &sql).await.map_err(refused)?;
        }
    }
    Ok(format!("made: table {database}.{} at {place}, {}", table.name, count(files.len() as u64, "object")))
}

/// The files below a folder, in order; those that are hidden are nobody's.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| Error::new(ErrorKind::NotFound, format!("could not read the folder {}", folder.display())).because(error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '_']));
        match (is_hidden, path.is_dir()) {
            (true, _) => {}
            (false, true) => files.extend(files_below(&path)?),
            (false, false) => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}

fn rules(file: &Path) -> Result<Vec<Rule>> {
    let unusable = || Error::invalid(format!("{} is not a JSON list of faults", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unusable().because(error))?;
    serde_json::from_str(&text).map_err(|error| unusable().because(error))
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the sandbox refused: {error}"))
}
