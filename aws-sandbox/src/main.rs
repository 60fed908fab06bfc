//! `aws-sandbox`: S3, Athena, Glue and SNS on this machine, in memory.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_sandbox::{Options, Rule, Sandbox, StoreError, TableFolder};
use clap::Parser;

/// Serve S3, Athena, Glue and SNS on this machine, in memory, to try programs without an AWS account.
///
/// Any client of AWS works with it; credentials can be anything, and signatures are not checked. It listens on 127.0.0.1 only.
#[derive(Debug, Parser)]
#[command(name = "aws-sandbox", version)]
struct Cli {
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 9324)]
    port: u16,
    /// A place in S3, such as s3://bucket/lake: its bucket is created, and tables are loaded below it.
    #[arg(long, value_name = "S3-URI", value_parser = location)]
    location: Option<Location>,
    /// A database to create.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// A workgroup to create, with results in the bucket of --location.
    #[arg(long, value_name = "NAME", requires = "location")]
    workgroup: Option<String>,
    /// A table to create from a folder of Parquet, CSV or JSON lines files; once for each table. Folders named key=value are partitions.
    #[arg(long = "table", value_name = "NAME=DIR", requires_all = ["location", "database"], value_parser = named)]
    tables: Vec<(String, PathBuf)>,
    /// Faults to inject: a JSON list of rules, such as
    /// [{"service": "athena", "operation": "StartQueryExecution", "times": 3, "fault": "throttled"}].
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// A bucket, and a prefix without slashes around it.
#[derive(Debug, Clone)]
struct Location {
    bucket: String,
    prefix: String,
}

impl Location {
    fn table(&self, name: &str) -> String {
        let below = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        format!("s3://{}/{below}{name}", self.bucket)
    }
}

fn location(text: &str) -> Result<Location, String> {
    let place = text.strip_prefix("s3://").map(|place| place.split_once('/').unwrap_or((place, "")));
    match place {
        Some((bucket, prefix)) if !bucket.is_empty() => {
            Ok(Location { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
        }
        _ => Err("write it as s3://bucket/prefix".to_owned()),
    }
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => Ok((name.to_owned(), PathBuf::from(folder))),
        _ => Err("write it as NAME=DIR".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = serve(Cli::parse()).await;
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to read it if this fails.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Serves until the process is asked to stop.
async fn serve(cli: Cli) -> Result<(), Box<dyn Error>> {
    let rules = cli.faults.as_deref().map(rules).transpose()?.unwrap_or_default();
    let sandbox =
        Sandbox::start(Options::default().port(cli.port)).await.map_err(|error| format!("{error}; choose another with --port"))?;
    let created = furnish(&sandbox, &cli).await?;
    // After what is loaded, so that no fault hits it.
    rules.into_iter().for_each(|rule| sandbox.faults().add(rule));
    let mut lines = vec![
        format!("AWS sandbox at {}, until it is stopped (Ctrl-C); everything in it is in memory", sandbox.endpoint()),
        String::new(),
        "In another terminal:".to_owned(),
        String::new(),
        format!("export AWS_ENDPOINT_URL={}", sandbox.endpoint()),
        "export AWS_REGION=us-east-1".to_owned(),
        "export AWS_ACCESS_KEY_ID=sandbox".to_owned(),
        "export AWS_SECRET_ACCESS_KEY=sandbox".to_owned(),
    ];
    if !created.is_empty() {
        lines.push(String::new());
        lines.extend(created.iter().map(|created| format!("created: {created}")));
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", lines.join("\n"))?;
    out.flush()?;
    asked_to_stop().await;
    sandbox.stop().await;
    Ok(())
}

/// Creates what the command line names, and says what that is.
async fn furnish(sandbox: &Sandbox, cli: &Cli) -> Result<Vec<String>, Box<dyn Error>> {
    let mut created = Vec::new();
    if let Some(location) = &cli.location {
        match sandbox.store().create_bucket(&location.bucket) {
            Ok(()) | Err(StoreError::BucketExists(_)) => created.push(format!("bucket {}", location.bucket)),
            Err(error) => return Err(error.into()),
        }
        if let Some(workgroup) = &cli.workgroup {
            sandbox.create_workgroup(workgroup, &format!("s3://{}/results/", location.bucket))?;
            created.push(format!("workgroup {workgroup}"));
        }
    }
    let Some(database) = &cli.database else { return Ok(created) };
    sandbox.run(None, &format!("CREATE DATABASE `{database}`")).await?;
    created.push(format!("database {database}"));
    // The command line is checked: tables need a location.
    for (location, (name, folder)) in cli.location.iter().flat_map(|location| cli.tables.iter().map(move |table| (location, table))) {
        let place = location.table(name);
        let files = sandbox.load(TableFolder { database, name, folder, location: &place }).await?;
        let objects = if files == 1 { "1 object".to_owned() } else { format!("{files} objects") };
        created.push(format!("table {database}.{name} at {place}, {objects}"));
    }
    Ok(created)
}

fn rules(file: &Path) -> Result<Vec<Rule>, String> {
    let unusable = |error: &dyn Error| format!("{} is not a JSON list of rules: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| format!("can't read {}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| unusable(&error))
}

/// Returns when the process is asked to stop: by Ctrl-C, or SIGTERM.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the process just ends.
        std::future::pending::<()>().await;
    }
}
