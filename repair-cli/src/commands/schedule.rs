//! `repair schedule`

use std::path::PathBuf;

use clap::Args;
use repair::core::workflow::Workflow;
use repair::jiff::Timestamp;
use repair::schedule::{Exported, Timer, export, upcoming};
use repair::{Error, Result};
use serde_json::json;

use crate::exit::Exit;
use crate::open::{LakeArg, instant, parameter};
use crate::output::{Failure, print, print_json};
use crate::progress::Console;

/// Show when a workflow starts by itself, or write its schedule for cron, systemd or EventBridge.
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// The workflow.
    file: PathBuf,
    /// Write a line for a crontab.
    #[arg(long, group = "timer")]
    cron: bool,
    /// Write a service and a timer of systemd.
    #[arg(long, group = "timer")]
    systemd: bool,
    /// Write resources of CloudFormation for EventBridge Scheduler.
    #[arg(long, group = "timer")]
    eventbridge: bool,
    /// The folder for the files, instead of printing them.
    #[arg(long, value_name = "DIR", requires = "timer")]
    out: Option<PathBuf>,
    /// Where to run, by its name under `profiles`, instead of the one that the schedule names.
    #[arg(long)]
    profile: Option<String>,
    /// A parameter of the runs, beside those that the schedule gives; may be repeated.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// How many of the next times are shown.
    #[arg(long, default_value_t = 10, value_name = "NUMBER")]
    next: u16,
    /// Show the times after this instant [default: now].
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    now: Option<Timestamp>,
    /// Print a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Schedule {
    pub(crate) fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let workflow = Workflow::load(&self.file, &repair::registry())?;
        let schedule = workflow.schedule.clone().ok_or_else(|| {
            Error::invalid(format!(
                "workflow `{}` has no `schedule`; add e.g. `schedule: {{ cron: \"30 17 * * mon-fri\", zone: Europe/Berlin }}`",
                workflow.name
            ))
        })?;
        let timer = match (self.cron, self.systemd, self.eventbridge) {
            (true, ..) => Timer::Cron,
            (_, true, _) => Timer::Systemd,
            (.., true) => Timer::EventBridge,
            _ => {
                let times = upcoming(&schedule, self.now.unwrap_or_else(Timestamp::now), usize::from(self.next))?;
                if self.json {
                    print_json(&json!({ "format": 1, "workflow": workflow.name, "next": times }))?;
                } else if times.is_empty() {
                    print("other runs start it, so there are no times")?;
                } else {
                    for time in times {
                        let local = schedule.zone.local(time);
                        print(&format!("{time:.0}  {} {}", local.strftime("%a %Y-%m-%d %H:%M:%S"), schedule.zone.name()))?;
                    }
                }
                return Ok(Exit::Success);
            }
        };
        let exported = export(&workflow, timer, &self.command(&schedule, lake_before)?)?;
        let Exported { files, notes, .. } = &exported;
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out).map_err(|error| Error::invalid(format!("{} cannot be created", out.display())).because(error))?;
            for (name, text) in files {
                let path = out.join(name);
                std::fs::write(&path, text)
                    .map_err(|error| Error::invalid(format!("{} cannot be written", path.display())).because(error))?;
            }
        }
        if self.json {
            print_json(
                &json!({ "format": 1, "files": files.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect::<Vec<_>>(), "notes": notes }),
            )?;
            return Ok(Exit::Success);
        }
        for (name, text) in files {
            match &self.out {
                Some(out) => print(&out.join(name).display().to_string())?,
                None if files.len() > 1 => print(&format!("# {name}\n{}", text.trim_end()))?,
                None => print(text.trim_end())?,
            }
        }
        let console = Console::new();
        for note in notes {
            console.line(&format!("note: {note}"));
        }
        Ok(Exit::Success)
    }

    /// The command that runs the workflow as its schedule says.
    fn command(&self, schedule: &repair::core::workflow::schedule::Schedule, lake_before: Option<PathBuf>) -> Result<Vec<String>> {
        let program = std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| "repair".to_owned());
        let absolute = |path: &PathBuf| {
            std::path::absolute(path)
                .map(|path| path.display().to_string())
                .map_err(|error| Error::invalid("the path is not usable").because(error))
        };
        let mut command = vec![program, "run".to_owned(), absolute(&self.file)?];
        for (name, value) in &schedule.params {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(items) => {
                    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            command.extend(["--param".to_owned(), format!("{name}={value}")]);
        }
        for (name, value) in &self.params {
            command.extend(["--param".to_owned(), format!("{name}={value}")]);
        }
        if let Some(profile) = self.profile.as_ref().or(schedule.profile.as_ref()) {
            command.extend(["--profile".to_owned(), profile.clone()]);
        }
        if let Some(lake) = self.lake.given_here(lake_before) {
            let place = if lake.to_string_lossy().starts_with("s3://") { lake.display().to_string() } else { absolute(&lake)? };
            command.extend(["--lake".to_owned(), place]);
        }
        Ok(command)
    }
}
