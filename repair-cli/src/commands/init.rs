//! `repair init`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use repair::Error;
use repair::first_steps::{FirstSteps, Guess, Look};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{Failure, count, print, print_json, table};

/// Look at the files of a folder, and write a workflow that finds and repairs what is broken in them.
///
/// Some rows of at most 20 files are looked at. A table in S3, such as s3://bucket/lake/bars, is looked at in the same way, if the command has the
/// feature `aws`: at most 20,000 objects are listed, and at most 64 MB are read. Each guess is printed with a reason, and stands in the workflow as a comment: read it, correct
/// what is wrong, then plan and run. The files themselves are never changed.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder in which the files of one table are, or its place in S3.
    folder: PathBuf,
    /// Where to write the workflow [default: TABLE.yaml].
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The name of the table [default: that of the folder].
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// A folder with true rows, such as a vendor's files, from which gaps are filled.
    #[arg(long, value_name = "FOLDER")]
    source: Option<PathBuf>,
    /// For a table in S3: the database that has it [default: default].
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// For a table in S3: the workgroup in which queries run [default: primary].
    #[arg(long, value_name = "NAME")]
    workgroup: Option<String>,
    /// Overwrite the file.
    #[arg(long)]
    force: bool,
    /// Print a JSON object with the guesses and the workflow.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Init {
    pub(crate) async fn execute(self) -> Result<Exit, Failure> {
        let is_in_s3 = self.folder.to_str().is_some_and(|place| place.starts_with("s3://"));
        if !is_in_s3 && (self.database.is_some() || self.workgroup.is_some()) {
            return Err(Error::invalid("--database and --workgroup are for a table in S3; leave them out").into());
        }
        let look = Look::at(&self.folder).table(self.table).source(self.source).database(self.database).workgroup(self.workgroup);
        #[cfg(feature = "aws")]
        let found = look.anywhere().await?;
        #[cfg(not(feature = "aws"))]
        let found = look.now()?;
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("{}.yaml", found.table)));
        write(&out, &found.workflow, self.force)?;
        let next = next(&out.display().to_string(), &found);
        if self.json {
            let mut object = serde_json::to_value(&found).context("the result can't be written as JSON")?;
            object["file"] = json!(out.display().to_string());
            object["next"] = Value::from(next);
            print_json(&object)?;
            return Ok(Exit::Success);
        }
        let rows: Vec<Vec<String>> = found.guesses.iter().map(row).collect();
        let files = if found.files == found.files_read {
            count(found.files as u64, "file")
        } else {
            format!("{} of {}", found.files_read, count(found.files as u64, "file"))
        };
        let mut text = table(&["what", "guess", "sure?", "why"], &rows);
        text.push_str(&format!("\n\n{} of {files} were looked at.", count(found.rows_read as u64, "row")));
        if let Some(objects) = &found.objects {
            let more = if objects.are_more { " There are more objects, which were not listed." } else { "" };
            text.push_str(&format!(
                "\n{} listed; {} of {} read.{more}",
                count(objects.listed, "object"),
                count(objects.bytes, "byte"),
                objects.read
            ));
        }
        text.push_str(&format!("\n{} is written. Read it, correct what is wrong, then:\n", out.display()));
        for command in next {
            text.push_str(&format!("\n    {command}"));
        }
        print(&text)?;
        Ok(Exit::Success)
    }
}

fn row(guess: &Guess) -> Vec<String> {
    vec![guess.what.clone(), guess.value.clone(), guess.sure.as_str().to_owned(), guess.why.clone()]
}

/// A word as a shell takes it.
fn word(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./:=".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The commands that come next.
fn next(file: &str, found: &FirstSteps) -> Vec<String> {
    let lake = if found.lake == "./lake" || found.lake == "lake" { String::new() } else { format!(" --lake {}", word(&found.lake)) };
    vec![format!("repair plan {}", word(file)), format!("repair run {}", word(file)), format!("repair report {}{lake}", word(&found.table))]
}

/// Writes the workflow, unless a file is there that must stay.
fn write(out: &PathBuf, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = match options.open(out) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let message = format!("{} is there already; name another file with --out, or overwrite it with --force", out.display());
            return Err(Error::invalid(message).into());
        }
        opened => opened.with_context(|| format!("{} cannot be written; choose another file with --out", out.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("{} cannot be written", out.display()))?;
    Ok(())
}
