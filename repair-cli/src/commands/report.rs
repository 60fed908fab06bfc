//! `repair report`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use repair::report::Report;
use repair::{PriceBook, Repair};

use crate::exit::Exit;
use crate::files::{Rights, write_whole};
use crate::open::{LakeArg, by_name, parameter, subject_meant};
use crate::output::{Failure, print, print_json};

/// Write what a run found and did, or how complete a table is, as one HTML file with pictures.
///
/// The file needs no network. It shows how complete each key was in each hour or day, before and after repairs; what was wrong, repaired or
/// confirmed absent, and by whom; the path that the run took; and what it cost.
#[derive(Debug, Args)]
pub(crate) struct ReportOn {
    /// The name of a table that a run has examined; or a run's id, the beginning of it (see `repair runs`), or `last`.
    #[arg(value_name = "RUN|TABLE")]
    subject: String,
    /// Look at the table now, as this workflow declares it. It needs no run: what is expected is what the workflow's step expects that looks for
    /// missing rows of the table, or the table's own `keys` at all times.
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// With --workflow: look from here on: an instant, a date, or relative to now, such as `yesterday` [default: as the step].
    #[arg(long, requires = "workflow")]
    from: Option<String>,
    /// With --workflow: look up to this instant, or the end of this date [default: as the step].
    #[arg(long, requires = "workflow")]
    to: Option<String>,
    /// With --workflow: a parameter of it; may be repeated.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter, requires = "workflow")]
    params: Vec<(String, String)>,
    /// With --workflow: where the lake is, by its name under `profiles`.
    #[arg(long, requires = "workflow")]
    profile: Option<String>,
    /// Where to write it [default: repair-report-RUN|TABLE.html].
    #[arg(long, short, value_name = "FILE.html", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// Price by this book instead of those that the runs were started with.
    #[arg(long, value_name = "FILE", conflicts_with = "workflow")]
    prices: Option<PathBuf>,
    /// Print a JSON object with all that the report says, and write no file.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl ReportOn {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        if let Some(workflow) = self.workflow.clone() {
            return self.unexamined(workflow, lake_before).await;
        }
        let book = self.prices.as_deref().map(PriceBook::load).transpose()?;
        let lake = self.lake.open(lake_before)?;
        let ask = async |subject: &str| {
            let out = self.out.clone().unwrap_or_else(|| default_file(subject));
            let request = lake.report_on(subject).prices(book.clone());
            let report = if self.json { request.await } else { request.beside(out.as_path()).await };
            report.map(|report| (report, out))
        };
        let (report, out) = match ask(&self.subject).await {
            Err(error) => ask(&subject_meant(&lake, &self.subject, error).await?).await?,
            Ok(done) => done,
        };
        shown(&report, &out, self.json)
    }

    /// Reports on a table that no run need have examined.
    async fn unexamined(self, workflow: PathBuf, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let Self { subject, from, to, params, profile, out, json, lake, .. } = self;
        let opening = Repair::open(workflow).profile(profile.as_deref()).params(by_name(params)?);
        let repair = lake.connect(lake_before, opening).await?;
        let out = out.unwrap_or_else(|| default_file(&subject));
        let request = repair.report_on_table(subject).within(from.as_deref(), to.as_deref());
        let report = if json { request.await } else { request.beside(out.as_path()).await }?;
        shown(&report, &out, json)
    }
}

/// Prints a report as JSON, or writes its page.
fn shown(report: &Report, out: &Path, json: bool) -> Result<Exit, Failure> {
    if json {
        print_json(report)?;
    } else {
        write(out, &report.html())?;
        print(&format!("{}\n{}", report.sentence, out.display()))?;
    }
    Ok(Exit::Success)
}

/// The file of a report, if none is named. A subject may hold characters that no file name can.
fn default_file(subject: &str) -> PathBuf {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    PathBuf::from(format!("repair-report-{}.html", subject.chars().map(plain).collect::<String>()))
}

/// Writes the page, whole or not at all, with the rights that files get here: it is made to be shown to others.
fn write(out: &Path, html: &str) -> anyhow::Result<()> {
    write_whole(out, html, Rights::Usual).with_context(|| format!("{} cannot be written; choose another file with --out", out.display()))
}
