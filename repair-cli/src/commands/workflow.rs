//! `repair validate`, `repair graph` and `repair schema`: what needs a workflow's text, or less, and no lake.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use repair::Workflow;
use repair::core::workflow::{Document, Shared, schema as schema_of, to_dot, to_mermaid};
use repair::jiff::Timestamp;
use serde_json::json;

use crate::exit::Exit;
use crate::format::FormatArg;
use crate::open::{by_name, instant, parameter};
use crate::output::{Failure, count, print, print_json};

/// Check a workflow, or a file that workflows include, and report all mistakes at once.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// The workflow, or a file with definitions that workflows include.
    file: PathBuf,
    /// A price book, instead of the one that the workflow names.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// A parameter; may be repeated. Without it, a parameter has its default, or examples stand for it.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// Count relative dates such as `yesterday` from this instant [default: when the command begins].
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    now: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

impl Validate {
    pub(crate) async fn execute(self) -> Result<Exit, Failure> {
        let registry = Arc::new(repair::registry());
        let workflow = match Document::load(&self.file, &registry, self.prices.as_deref())? {
            Document::Workflow(workflow) => workflow,
            Document::Shared(shared) => return self.shared(&shared),
        };
        let refused =
            repair::plan::refusals(&registry, &workflow, &by_name(self.params.clone())?, self.now.unwrap_or_else(Timestamp::now)).await?;
        if !refused.is_empty() {
            return Err(Failure::Several(refused));
        }
        if self.format.get().is_json() {
            let (file, steps) = (self.file.display().to_string(), workflow.steps.len());
            print_json(&json!({ "format": repair::JsonFormat, "file": file, "workflow": workflow.name, "steps": steps }))?;
        } else {
            let steps = count(workflow.steps.len() as u64, "step");
            print(&format!("{}: workflow `{}` with {steps} has no mistakes", self.file.display(), workflow.name))?;
        }
        Ok(Exit::Success)
    }

    /// Says what a file of definitions holds.
    fn shared(self, shared: &Shared) -> Result<Exit, Failure> {
        let (tables, sources): (Vec<&String>, Vec<&String>) = (shared.tables.keys().collect(), shared.sources.keys().collect());
        let calendars: Vec<&String> = shared.calendars.keys().collect();
        let file = self.file.display().to_string();
        if self.format.get().is_json() {
            let format = repair::JsonFormat;
            print_json(&json!({ "format": format, "file": file, "tables": tables, "sources": sources, "calendars": calendars }))?;
            return Ok(Exit::Success);
        }
        let listed = |what: &str, names: &[&String]| {
            let counted = count(names.len() as u64, what);
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            if names.is_empty() { counted } else { format!("{counted} ({})", names.join(", ")) }
        };
        let (tables, sources, calendars) = (listed("table", &tables), listed("source", &sources), listed("calendar", &calendars));
        print(&format!("{file}: definitions to include, with {tables}, {sources} and {calendars}, have no mistakes"))?;
        Ok(Exit::Success)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// Draw a workflow.
#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// The workflow.
    file: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    format: GraphFormat,
    /// Print a JSON object that holds the drawing.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Graph {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let workflow = Workflow::load(&self.file, &repair::registry())?;
        let (language, graph) = match self.format {
            GraphFormat::Mermaid => ("mermaid", to_mermaid(&workflow)),
            GraphFormat::Dot => ("dot", to_dot(&workflow)),
        };
        if self.json {
            print_json(&json!({ "format": repair::JsonFormat, "workflow": workflow.name, "language": language, "graph": graph }))?;
        } else {
            print(&graph)?;
        }
        Ok(Exit::Success)
    }
}

/// Print the JSON Schema of the workflow language, for editors.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Print a JSON object that holds the schema in its field `schema`.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Schema {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let schema = schema_of(&repair::registry());
        if self.json {
            print_json(&json!({ "format": repair::JsonFormat, "schema": schema }))?;
        } else {
            print_json(&schema)?;
        }
        Ok(Exit::Success)
    }
}
