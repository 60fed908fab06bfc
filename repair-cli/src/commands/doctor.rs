//! `repair doctor`

use std::path::PathBuf;

use clap::Args;
use repair::Repair;
use repair::doctor::{Examination, Health};

use crate::exit::Exit;
use crate::format::Format;
use crate::open::{LakeArg, by_name, parameter};
use crate::output::{Failure, print_json, print_lines};

/// Look at everything that runs need, and say what to do about what is not in order.
///
/// It looks at the program, the clock, the lake, its disk and journal, the calendars, and with FILE at the workflow's plug-ins, sources and
/// tables. It leaves nothing behind, and asks no source for rows. It exits with 1 if runs would fail.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A workflow, to look at what it needs too.
    file: Option<PathBuf>,
    /// Where it would run, by its name under `profiles` [default: local, or the only one].
    #[arg(long, requires = "file")]
    profile: Option<String>,
    /// A parameter; may be repeated.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter, requires = "file")]
    params: Vec<(String, String)>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Doctor {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let examination = match self.file {
            Some(file) => {
                let opening = Repair::open(file).profile(self.profile.as_deref()).params(by_name(self.params)?);
                self.lake.opening(Format::Text, lake_before, opening).examine().await
            }
            None => self.lake.open(lake_before)?.examine().await,
        };
        if self.json {
            print_json(&examination)?;
        } else {
            print_lines(&lines(&examination))?;
        }
        Ok(if examination.health() == Health::Bad { Exit::Failed } else { Exit::Success })
    }
}

/// A line for each thing, and one for what to do about it.
fn lines(examination: &Examination) -> Vec<String> {
    let mut lines = Vec::new();
    for check in &examination.checks {
        let word = match check.health {
            Health::Good => "ok     ",
            Health::Warning => "warning",
            _ => "BAD    ",
        };
        lines.push(format!("{word}  {}: {}", check.what, check.seen));
        lines.extend(check.remedy.iter().map(|remedy| format!("         {remedy}")));
    }
    let bad = examination.checks.iter().filter(|check| check.health == Health::Bad).count();
    let warnings = examination.checks.iter().filter(|check| check.health == Health::Warning).count();
    lines.push(String::new());
    lines.push(match (bad, warnings) {
        (0, 0) => "all is in order".to_owned(),
        (0, _) => "runs can go on; see the warnings".to_owned(),
        _ => "runs would fail, or cannot begin, until what is BAD is put right".to_owned(),
    });
    lines
}
