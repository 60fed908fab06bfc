//! Writes a schedule for others that start programs: cron, systemd, EventBridge Scheduler. What they cannot do is said, and what would mean something
//! else there is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use repair_core::workflow::Workflow;
use repair_core::workflow::schedule::{Cron, Missed, PerDay, Schedule, Starts};
use repair_core::{Error, Result};
use serde::Serialize;

/// Who starts the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timer {
    /// A line for a crontab.
    Cron,
    /// A service and a timer of systemd.
    Systemd,
    /// Resources of CloudFormation for EventBridge Scheduler.
    EventBridge,
}

/// A schedule as others write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Exported {
    /// The files: their names, and their texts.
    pub files: Vec<(String, String)>,
    /// What of the schedule is not in them.
    pub notes: Vec<String>,
}

/// Writes the schedule of a workflow for somebody else, who then starts `command`, which runs the workflow.
///
/// ```
/// use repair::schedule::{Timer, export};
/// use repair::{Registry, Workflow};
///
/// let text = "
/// workflow: nightly
/// kind: dag
/// schedule: { cron: '30 2 * * mon-fri', zone: Europe/Berlin }
/// steps:
///   rest: { wait: { for: 1s } }
/// ";
/// let workflow = Workflow::parse("nightly.yaml", text, &Registry::default())?;
/// let command = ["repair", "run", "/srv/nightly.yaml"].map(String::from);
/// let exported = export(&workflow, Timer::Systemd, &command)?;
/// assert!(exported.files[1].1.contains("OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 2:30:00 Europe/Berlin"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `invalid` if the workflow has no schedule, or one that cannot be said there.
pub fn export(workflow: &Workflow, timer: Timer, command: &[String]) -> Result<Exported> {
    let name = &workflow.name;
    let schedule = workflow.schedule.as_ref().ok_or_else(|| Error::invalid(format!("workflow `{name}` has no `schedule`")))?;
    if !schedule.starts.is_timed() {
        return Err(Error::invalid("a schedule that other runs start cannot be written as times; run it with `repair serve`"));
    }
    let mut notes = lost(schedule);
    let files = match timer {
        Timer::Cron => {
            if schedule.missed != Missed::None {
                notes.push("cron starts nothing for times at which the machine was off".to_owned());
            }
            if !schedule.jitter.is_zero() {
                notes.push("cron has no `jitter`".to_owned());
            }
            vec![(format!("{name}.crontab"), crontab(schedule, command)?)]
        }
        Timer::Systemd => {
            if schedule.missed == Missed::All {
                notes.push("systemd makes up for missed times with one run, not with one for each".to_owned());
            }
            let service = format!(
                "[Unit]\nDescription=repair: {name}\n\n[Service]\nType=oneshot\nExecStart={}\n",
                command.iter().map(|word| systemd_word(word)).collect::<Vec<_>>().join(" ")
            );
            vec![(format!("repair-{name}.service"), service), (format!("repair-{name}.timer"), systemd(name, schedule)?)]
        }
        Timer::EventBridge => {
            if schedule.missed != Missed::None {
                notes.push("EventBridge starts nothing for times at which it could not reach its target, after its retries".to_owned());
            }
            vec![(format!("{name}-schedule.yaml"), eventbridge(name, schedule, command)?)]
        }
    };
    Ok(Exported { files, notes })
}

/// What only `repair serve` keeps.
fn lost(schedule: &Schedule) -> Vec<String> {
    let mut notes =
        vec!["two runs may overlap if one takes longer than the time between two starts; they do not wait for each other".to_owned()];
    if schedule.per_day != PerDay::default() {
        notes.push("`per_day` is kept only by `repair serve`".to_owned());
    }
    if schedule.complete_by.is_some() {
        notes.push("`complete_by` is watched only by `repair serve`".to_owned());
    }
    notes
}

fn crontab(schedule: &Schedule, command: &[String]) -> Result<String> {
    let words: Vec<String> = command.iter().map(|word| shell_word(word)).collect();
    // In a crontab, `%` ends the command unless it is escaped.
    let command = words.join(" ").replace('%', "\\%");
    let (zone, pattern) = match &schedule.starts {
        Starts::Cron(cron) => {
            Fields::of(cron)?;
            (schedule.zone.name(), cron.to_string())
        }
        Starts::Every(every) => ("UTC", every_as_cron(*every)?),
        _ => return Err(Error::internal("a schedule without times")),
    };
    Ok(format!("CRON_TZ={zone}\n{pattern} {command}\n"))
}

/// A cron pattern for the multiples of a duration, which exists where a day is a whole number of them.
fn every_as_cron(every: Duration) -> Result<String> {
    let minutes = every.as_secs() / 60;
    let refuse = || {
        let shown = super::scheduler::humane(every);
        Error::invalid(format!(
            "every {shown} cannot be written as times of a day; use minutes that divide an hour, hours that divide a day, or `cron`"
        ))
    };
    if !every.as_secs().is_multiple_of(60) || minutes == 0 {
        return Err(refuse());
    }
    match minutes {
        1 => Ok("* * * * *".to_owned()),
        60 => Ok("0 * * * *".to_owned()),
        1_440 => Ok("0 0 * * *".to_owned()),
        minutes if minutes < 60 && 60 % minutes == 0 => Ok(format!("*/{minutes} * * * *")),
        minutes if minutes % 60 == 0 && 1_440 % minutes == 0 => Ok(format!("0 */{} * * *", minutes / 60)),
        _ => Err(refuse()),
    }
}

fn systemd(name: &str, schedule: &Schedule) -> Result<String> {
    let mut text = format!("[Unit]\nDescription=repair: when {name} starts\n\n[Timer]\n");
    for line in calendars(schedule)? {
        text.push_str(&format!("OnCalendar={line}\n"));
    }
    if !schedule.jitter.is_zero() {
        text.push_str(&format!("RandomizedDelaySec={}\nFixedRandomDelay=true\n", schedule.jitter.as_secs()));
    }
    if schedule.missed != Missed::None {
        text.push_str("Persistent=true\n");
    }
    text.push_str("AccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n");
    Ok(text)
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The times as systemd writes them.
fn calendars(schedule: &Schedule) -> Result<Vec<String>> {
    let (zone, fields) = match &schedule.starts {
        Starts::Cron(cron) => (schedule.zone.name().to_owned(), Fields::of(cron)?),
        Starts::Every(every) => ("UTC".to_owned(), Fields::of(&every_as_cron(*every)?.parse()?)?),
        _ => return Err(Error::internal("a schedule without times")),
    };
    if zone.starts_with(['+', '-']) {
        return Err(Error::invalid(format!("systemd knows no zone `{zone}`; name one such as Europe/Berlin")));
    }
    let time =
        format!("{}:{}:00", list(&fields.hours, 0..24), fields.minutes.iter().map(|m| format!("{m:02}")).collect::<Vec<_>>().join(","));
    let date = |days: &BTreeSet<u8>| format!("*-{}-{}", list(&fields.months, 1..13), list(days, 1..32));
    let week = |days: &BTreeSet<u8>| {
        let mut names: Vec<&str> = (1..=6).chain([0]).filter(|day| days.contains(day)).map(|day| DAYS[usize::from(day)]).collect();
        names.dedup();
        names.join(",")
    };
    let all: BTreeSet<u8> = (1..32).collect();
    let mut lines = Vec::new();
    match (fields.any_day, fields.any_weekday) {
        (true, true) => lines.push(format!("{} {time} {zone}", date(&all))),
        (false, true) => lines.push(format!("{} {time} {zone}", date(&fields.days))),
        (true, false) => lines.push(format!("{} {} {time} {zone}", week(&fields.weekdays), date(&all))),
        // If both are restricted, either is enough.
        (false, false) => {
            lines.push(format!("{} {time} {zone}", date(&fields.days)));
            lines.push(format!("{} {} {time} {zone}", week(&fields.weekdays), date(&all)));
        }
    }
    Ok(lines)
}

fn eventbridge(name: &str, schedule: &Schedule, command: &[String]) -> Result<String> {
    let (zone, expressions) = match &schedule.starts {
        Starts::Cron(cron) => {
            let fields = Fields::of(cron)?;
            let join = |numbers: &BTreeSet<u8>, all: std::ops::Range<u8>| list(numbers, all);
            let start = format!("{} {}", join(&fields.minutes, 0..60), join(&fields.hours, 0..24));
            let month = join(&fields.months, 1..13);
            let days = format!("cron({start} {} {month} ? *)", join(&fields.days, 1..32));
            let weekdays: Vec<String> = fields.weekdays.iter().map(|day| DAYS[usize::from(day % 7)].to_uppercase()).collect();
            let weekdays = format!("cron({start} ? {month} {} *)", weekdays.join(","));
            let expressions = match (fields.any_day, fields.any_weekday) {
                (_, true) => vec![days],
                (true, false) => vec![weekdays],
                (false, false) => vec![days, weekdays],
            };
            (schedule.zone.name().to_owned(), expressions)
        }
        Starts::Every(every) => {
            let minutes = every.as_secs() / 60;
            if minutes == 0 || !every.as_secs().is_multiple_of(60) {
                return Err(Error::invalid("EventBridge counts in whole minutes"));
            }
            ("UTC".to_owned(), vec![format!("rate({minutes} minute{})", if minutes == 1 { "" } else { "s" })])
        }
        _ => return Err(Error::internal("a schedule without times")),
    };
    if zone.starts_with(['+', '-']) {
        return Err(Error::invalid(format!("EventBridge knows no zone `{zone}`; name one such as Europe/Berlin")));
    }
    let input = serde_json::json!({ "command": command }).to_string();
    let window = match schedule.jitter.as_secs().div_ceil(60) {
        0 => "{ Mode: 'OFF' }".to_owned(),
        minutes => format!("{{ Mode: FLEXIBLE, MaximumWindowInMinutes: {} }}", minutes.min(1_440)),
    };
    let id: String = name
        .split(['-', '_'])
        .flat_map(|part| {
            let mut letters = part.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect();
    let mut text = "Parameters:\n  TargetArn: { Type: String, Description: What is started with the command as its input }\n  RoleArn: { Type: String, Description: The role that may start it }\nResources:\n".to_owned();
    for (number, expression) in expressions.iter().enumerate() {
        let number = if expressions.len() > 1 { (number + 1).to_string() } else { String::new() };
        text.push_str(&format!(
            "  {id}Schedule{number}:\n    Type: AWS::Scheduler::Schedule\n    Properties:\n      ScheduleExpression: {expression}\n      ScheduleExpressionTimezone: {zone}\n      FlexibleTimeWindow: {window}\n      Target:\n        Arn: {{ Ref: TargetArn }}\n        RoleArn: {{ Ref: RoleArn }}\n        Input: {}\n",
            yaml_text(&input)
        ));
    }
    Ok(text)
}

fn yaml_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Numbers as a list, and `*` if it is all of them.
fn list(numbers: &BTreeSet<u8>, all: std::ops::Range<u8>) -> String {
    if all.clone().all(|number| numbers.contains(&number)) {
        return "*".to_owned();
    }
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The fields of a pattern, as the numbers that they mean.
struct Fields {
    minutes: BTreeSet<u8>,
    hours: BTreeSet<u8>,
    days: BTreeSet<u8>,
    months: BTreeSet<u8>,
    weekdays: BTreeSet<u8>,
    any_day: bool,
    any_weekday: bool,
}

impl Fields {
    fn of(cron: &Cron) -> Result<Self> {
        const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let text = cron.to_string().to_lowercase();
        let words: Vec<&str> = text.split(' ').collect();
        let [minute, hour, day, month, weekday] = words.as_slice() else {
            return Err(Error::internal("a cron pattern without five fields"));
        };
        let refuse = |field: &str| Error::invalid(format!("`{field}` in the cron pattern `{cron}` can only be run by `repair serve`"));
        let read = |field: &str, low: u8, high: u8, names: &[&str], first: u8| -> Result<BTreeSet<u8>> {
            let number = |word: &str| {
                let named = names.iter().position(|name| *name == word).and_then(|at| u8::try_from(at).ok()).map(|at| at + first);
                named.or_else(|| word.parse().ok()).filter(|number| (low..=high).contains(number)).ok_or_else(|| refuse(field))
            };
            let mut found = BTreeSet::new();
            for item in field.split(',') {
                let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
                let every: u8 = step.map_or(Ok(1), str::parse).map_err(|_| refuse(field))?;
                let (from, to) = match range.split_once('-') {
                    Some((from, to)) => (number(from)?, number(to)?),
                    None if range == "*" => (low, high),
                    None if step.is_some() => (number(range)?, high),
                    None => (number(range)?, number(range)?),
                };
                if every == 0 || from > to {
                    return Err(refuse(field));
                }
                found.extend((from..=to).step_by(usize::from(every)));
            }
            Ok(found)
        };
        let lower: Vec<String> = DAYS.iter().map(|day| day.to_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        let weekdays = read(weekday, 0, 7, &lower, 0)?.into_iter().map(|day| day % 7).collect();
        Ok(Self {
            minutes: read(minute, 0, 59, &[], 0)?,
            hours: read(hour, 0, 23, &[], 0)?,
            days: read(day, 1, 31, &[], 0)?,
            months: read(month, 1, 12, &MONTHS, 1)?,
            weekdays,
            any_day: *day == "*",
            any_weekday: *weekday == "*",
        })
    }
}

/// A word of a command line for a shell.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '=' | ':' | ',' | '@' | '+');
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A word of `ExecStart`.
fn systemd_word(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if escaped.is_empty() || escaped.contains([' ', '\t', '"', '\'', ';', '\\']) { format!("\"{escaped}\"") } else { escaped }
}

/// The next ticks of a schedule after an instant, at most so many.
///
/// # Errors
/// `invalid` at the ends of the range of instants.
pub fn upcoming(schedule: &Schedule, now: Timestamp, most: usize) -> Result<Vec<Timestamp>> {
    let mut times = Vec::new();
    let mut after = now;
    while times.len() < most
        && let Some(next) = schedule.next(after)?
    {
        times.push(next);
        after = next;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(cron: &str, timer: Timer) -> Result<Exported> {
        let text = format!("workflow: a-b\nkind: dag\nschedule: {cron}\nsteps: {{ rest: {{ wait: {{ for: 1s }} }} }}\n");
        let workflow = Workflow::parse("w.yaml", &text, &repair_core::plugin::Registry::default())
            .map_err(|error| Error::invalid(error.to_string()))?;
        export(
            &workflow,
            timer,
            &["repair".to_owned(), "run".to_owned(), "/a b/w.yaml".to_owned(), "--param".to_owned(), "x=50%".to_owned()],
        )
    }

    #[test]
    fn each_form_says_the_same() {
        let schedule = "{ cron: '*/15 9-16 1,15 * mon-fri', zone: America/New_York, jitter: 2m }";
        let cron = exported(schedule, Timer::Cron).unwrap();
        assert_eq!(cron.files[0].1, "CRON_TZ=America/New_York\n*/15 9-16 1,15 * mon-fri repair run '/a b/w.yaml' --param 'x=50\\%'\n");
        let systemd = exported(schedule, Timer::Systemd).unwrap();
        assert!(systemd.files[0].1.contains("ExecStart=repair run \"/a b/w.yaml\" --param x=50%%\n"), "{}", systemd.files[0].1);
        assert_eq!(
            systemd.files[1].1.lines().filter(|line| line.starts_with("OnCalendar")).collect::<Vec<_>>(),
            [
                "OnCalendar=*-*-1,15 9,10,11,12,13,14,15,16:00,15,30,45:00 America/New_York",
                "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 9,10,11,12,13,14,15,16:00,15,30,45:00 America/New_York"
            ]
        );
        assert!(systemd.files[1].1.contains("RandomizedDelaySec=120\n") && systemd.files[1].1.contains("Persistent=true\n"));
        let aws = exported(schedule, Timer::EventBridge).unwrap().files.remove(0).1;
        assert!(aws.contains("ABSchedule1") && aws.contains("cron(0,15,30,45 9,10,11,12,13,14,15,16 ? * MON,TUE,WED,THU,FRI *)"), "{aws}");
        assert!(aws.contains("MaximumWindowInMinutes: 2"));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for (schedule, timer) in [
            ("{ every: 7m }", Timer::Cron),
            ("{ every: 90s }", Timer::EventBridge),
            ("{ cron: '0 0 L * *' }", Timer::Systemd),
            ("{ cron: '0 0 * * 5#3' }", Timer::EventBridge),
            ("{ after: { workflow: other } }", Timer::Cron),
            ("{ cron: '0 0 * * *', zone: '+02:00' }", Timer::Systemd),
        ] {
            assert!(exported(schedule, timer).is_err(), "{schedule}");
        }
    }
}
