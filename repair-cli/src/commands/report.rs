//! `repair report`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use repair::PriceBook;

use crate::exit::Exit;
use crate::files::{Rights, write_whole};
use crate::open::{LakeArg, subject_meant};
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
    /// Where to write it [default: repair-report-RUN|TABLE.html].
    #[arg(long, short, value_name = "FILE.html", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// Price by this book instead of those that the runs were started with.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print a JSON object with all that the report says, and write no file.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl ReportOn {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
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
        if self.json {
            print_json(&report)?;
            return Ok(Exit::Success);
        }
        write(&out, &report.html())?;
        print(&format!("{}\n{}", report.sentence, out.display()))?;
        Ok(Exit::Success)
    }
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
