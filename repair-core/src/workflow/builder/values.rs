//! Values of the language: how durations, rates, rules and tables are written, and short ways to make them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::print::Tree;
use crate::error::ErrorKind;
use crate::model::Zone;
use crate::model::{
    BadRowLimit, Cadence, ColumnRule, Csv, ExpectedKeys, Key, OnBadRow, PartitionUnit, Repeated, Rows, Skipped, Slack, SlotRule, Table,
    TimeForm, TimeMark, TimeReading,
};
use crate::price::Budget;
use crate::workflow::calendar::{Basis, WEEKDAYS};
use crate::workflow::read::{DEFAULT_ATTEMPTS, DEFAULT_BACKOFF, DEFAULT_INTERVAL};
use crate::workflow::schedule::{Schedule, Starts};
use crate::workflow::{
    Address, CalendarRule, ErrorMatch, Jitter, Lineage, MailAddress, Notifier, Param, ParamType, Rate, Receiver, RetryRule, RunIf,
    Tolerance,
};

/// A JSONata expression that is computed when the run comes there; made by [`computed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed(String);

/// A value that is computed when the run comes there, `{% … %}` in YAML. It may stand anywhere in a `with`.
///
/// ```
/// use repair_core::workflow::builder::computed;
///
/// let with = serde_json::json!({ "table": "readings", "from": computed("$params.from") });
/// assert_eq!(with["from"], "{% $params.from %}");
/// ```
pub fn computed(expression: &str) -> Computed {
    Computed(format!("{{% {expression} %}}"))
}

impl Serialize for Computed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A duration or an instant to wait for: given, or [`computed`].
#[derive(Debug, Clone)]
pub struct When<T> {
    pub(super) tree: Tree,
    given: std::marker::PhantomData<T>,
}

impl<T> When<T> {
    fn of(tree: Tree) -> Self {
        Self { tree, given: std::marker::PhantomData }
    }
}

impl<T> From<Computed> for When<T> {
    fn from(computed: Computed) -> Self {
        Self::of(Tree::Text(computed.0))
    }
}

impl From<Duration> for When<Duration> {
    fn from(duration: Duration) -> Self {
        Self::of(self::duration(duration))
    }
}

impl From<Timestamp> for When<Timestamp> {
    fn from(instant: Timestamp) -> Self {
        Self::of(Tree::Text(instant.to_string()))
    }
}

/// A duration in the largest unit of which it is a whole number. One that is finer than the language is written so that the reader refuses it.
pub(super) fn duration(duration: Duration) -> Tree {
    const UNITS: [(&str, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let ms = duration.as_millis();
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Tree::Text(format!("{}ns", duration.as_nanos()));
    }
    let unit = UNITS.into_iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms));
    Tree::Text(match unit {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => format!("{ms}ms"),
    })
}

pub(super) fn rate(rate: Rate) -> Tree {
    let unit = match (rate.per.as_secs(), rate.per.subsec_nanos()) {
        (1, 0) => "s".to_owned(),
        (60, 0) => "min".to_owned(),
        (3_600, 0) => "h".to_owned(),
        (86_400, 0) => "d".to_owned(),
        _ => format!("{:?}", rate.per),
    };
    Tree::Text(format!("{}/{unit}", rate.count))
}

pub(super) fn number(value: f64) -> Tree {
    if value.is_finite() { Tree::Number(value.to_string()) } else { Tree::Text(value.to_string()) }
}

pub(super) fn count(value: impl Into<u64>) -> Tree {
    Tree::Number(value.into().to_string())
}

/// A mapping of what is there.
fn mapping(entries: impl IntoIterator<Item = Option<(&'static str, Tree)>>) -> Tree {
    Tree::Map(entries.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn address(address: &Address) -> (&'static str, Tree) {
    match address {
        Address::Url(url) => ("url", Tree::text(url)),
        Address::Variable(variable) => ("url_env", Tree::text(variable)),
    }
}

pub(super) fn notifier(notifier: &Notifier) -> Tree {
    let named = |name: &'static str, value: &Option<String>| value.as_ref().map(|value| (name, Tree::text(value)));
    let to = match &notifier.to {
        Receiver::Webhook { address: to, secret_env } => mapping([Some(address(to)), named("secret_env", secret_env)]),
        Receiver::Slack { url_env } => mapping([Some(("url_env", Tree::text(url_env)))]),
        Receiver::Command { run, env } => mapping([Some(("run", Tree::texts(run))), (!env.is_empty()).then(|| ("env", Tree::texts(env)))]),
        Receiver::Email { to, from, server } => mapping([
            Some(("to", Tree::texts(to.iter().map(MailAddress::as_str)))),
            Some(("from", Tree::text(from.as_str()))),
            Some(("server", Tree::text(&server.host))),
            Some(("port", count(server.port))),
            Some(("security", Tree::text(server.security.as_str()))),
            server.login.as_ref().map(|(user, _)| ("user_env", Tree::text(user))),
            server.login.as_ref().map(|(_, password)| ("password_env", Tree::text(password))),
        ]),
        Receiver::Sns { topic } => mapping([Some(("topic", Tree::text(topic.arn())))]),
    };
    mapping([
        Some(("to", Tree::Map(vec![(notifier.to.word().to_owned(), to)]))),
        Some(("on", Tree::texts(notifier.on.iter().map(|occasion| occasion.as_str())))),
        notifier.digest.map(|digest| ("digest", duration(digest))),
    ])
}

pub(super) fn lineage(lineage: &Lineage) -> Tree {
    match lineage {
        Lineage::Url { address: to, key_env } => mapping([Some(address(to)), key_env.as_ref().map(|key| ("key_env", Tree::text(key)))]),
        Lineage::File(file) => mapping([Some(("file", Tree::text(file)))]),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "methods of builders take values")]
pub(super) fn budget(budget: Budget) -> Tree {
    let usd = budget.usd.map(|usd| ("usd".to_owned(), Tree::Number(usd.to_string())));
    let calls = budget.calls.map(|calls| ("calls".to_owned(), count(calls)));
    let bytes = budget.bytes.map(|bytes| ("bytes".to_owned(), Tree::Text(format!("{bytes}B"))));
    Tree::Map([usd, calls, bytes].into_iter().flatten().collect())
}

/// A schedule, without what it has by default.
pub(super) fn schedule(schedule: Schedule) -> Tree {
    let default = Schedule::new(Starts::Every(Duration::MAX));
    let after = |what: &str, name: String| Tree::Map(vec![(what.to_owned(), Tree::Text(name))]);
    let mut fields = vec![match schedule.starts {
        Starts::Cron(cron) => ("cron".to_owned(), Tree::text(cron.to_string())),
        Starts::Every(every) => ("every".to_owned(), duration(every)),
        Starts::AfterWorkflow(name) => ("after".to_owned(), after("workflow", name)),
        Starts::AfterTable(name) => ("after".to_owned(), after("table", name)),
    }];
    let mut set = |name: &str, value: Option<Tree>| fields.extend(value.map(|value| (name.to_owned(), value)));
    set("zone", (schedule.zone != default.zone).then(|| Tree::text(schedule.zone.name())));
    set("jitter", (!schedule.jitter.is_zero()).then(|| duration(schedule.jitter)));
    set("missed", (schedule.missed != default.missed).then(|| Tree::text(schedule.missed.as_str())));
    set("complete_by", schedule.complete_by.map(|time| Tree::text(time.strftime("%H:%M:%S").to_string())));
    let params = schedule.params.iter().map(|(name, value)| (name.clone(), Tree::from(value))).collect();
    set("params", (!schedule.params.is_empty()).then_some(Tree::Map(params)));
    set("profile", schedule.profile.map(Tree::Text));
    if schedule.per_day != default.per_day {
        let mut per_day = schedule.per_day.runs.map(|runs| ("runs".to_owned(), count(runs))).into_iter().collect::<Vec<_>>();
        if let Tree::Map(amounts) = budget(schedule.per_day.budget) {
            per_day.extend(amounts);
        }
        set("per_day", Some(Tree::Map(per_day)));
    }
    Tree::Map(fields)
}

pub(super) fn errors(errors: ErrorMatch) -> Tree {
    match errors {
        ErrorMatch::Any => Tree::text("any"),
        ErrorMatch::Kinds(kinds) => Tree::texts(kinds.into_iter().map(ErrorKind::as_str)),
    }
}

pub(super) fn retry(rule: RetryRule) -> Tree {
    let mut fields = vec![
        ("on".to_owned(), errors(rule.on)),
        ("attempts".to_owned(), count(rule.attempts)),
        ("interval".to_owned(), duration(rule.interval)),
        ("backoff".to_owned(), number(rule.backoff)),
    ];
    fields.extend(rule.max_interval.map(|longest| ("max_interval".to_owned(), duration(longest))));
    fields.extend((rule.jitter == Jitter::Full).then(|| ("jitter".to_owned(), Tree::text("full"))));
    Tree::Map(fields)
}

pub(super) fn tolerance(tolerance: Tolerance) -> Tree {
    let failed = match tolerance {
        Tolerance::Count(failed) => count(failed),
        Tolerance::Percent(percent) => Tree::Text(format!("{percent}%")),
    };
    Tree::Map(vec![("failed".to_owned(), failed)])
}

pub(super) fn run_if(run_if: RunIf) -> Tree {
    let word = RunIf::ALL.into_iter().find(|(_, known)| *known == run_if).map_or("all_succeeded", |(word, _)| word);
    Tree::text(word)
}

pub(super) fn param(param: Param) -> Tree {
    let mut fields = vec![("type".to_owned(), Tree::text(param.kind.as_str()))];
    fields.extend(param.default.as_ref().map(|value| ("default".to_owned(), Tree::from(value))));
    fields.extend(param.about.map(|about| ("about".to_owned(), Tree::Text(about))));
    if !param.one_of.is_empty() {
        fields.push(("one_of".to_owned(), Tree::List(param.one_of.iter().map(Tree::from).collect())));
    }
    fields.extend(param.zone.map(|zone| ("zone".to_owned(), Tree::Text(zone.to_string()))));
    Tree::Map(fields)
}

/// A calendar as it is written. Sessions that are listed one by one are in a file, which a rule does not know.
pub(super) fn calendar(rule: CalendarRule) -> Result<Tree, &'static str> {
    let mut fields = match rule.basis {
        Basis::Weekly { zone, week } => {
            let open = WEEKDAYS.iter().map(|(word, day)| (word, week.hours(*day))).filter(|(_, hours)| !hours.is_closed());
            let open = open.map(|(word, hours)| ((*word).to_owned(), Tree::Text(hours.to_string()))).collect();
            vec![("zone".to_owned(), Tree::Text(zone.to_string())), ("open".to_owned(), Tree::Map(open))]
        }
        Basis::Extends { name, until } => {
            let mut fields = vec![("extends".to_owned(), Tree::Text(name))];
            fields.extend(until.map(|until| ("until".to_owned(), Tree::Text(until.to_string()))));
            fields
        }
        Basis::Listed { .. } => return Err("its sessions are a list; give it as a calendar of your own"),
    };
    let (closed, special): (Vec<_>, Vec<_>) = rule.days.into_iter().partition(|(_, hours)| hours.is_closed());
    if !closed.is_empty() {
        fields.push(("closed".to_owned(), Tree::texts(closed.into_iter().map(|(date, _)| date.to_string()))));
    }
    if !special.is_empty() {
        let special = special.into_iter().map(|(date, hours)| (date.to_string(), Tree::Text(hours.to_string())));
        fields.push(("special".to_owned(), Tree::Map(special.collect())));
    }
    Ok(Tree::Map(fields))
}

pub(super) fn table(table: Table) -> Tree {
    let mut fields = vec![("location".to_owned(), Tree::Text(table.location)), ("format".to_owned(), Tree::text(table.format.as_str()))];
    let texts = |fields: &mut Vec<(String, Tree)>, name: &str, texts: Vec<String>| {
        if !texts.is_empty() {
            fields.push((name.to_owned(), Tree::texts(texts)));
        }
    };
    texts(&mut fields, "ignore", table.ignore);
    fields.extend((!table.csv.is_plain()).then(|| ("csv".to_owned(), csv(table.csv))));
    texts(&mut fields, "nulls", table.nulls);
    if !table.columns.is_empty() {
        let columns = table.columns.into_iter().map(|(name, rule)| (name, column(rule)));
        fields.push(("columns".to_owned(), Tree::Map(columns.collect())));
    }
    if let OnBadRow::Quarantine(limit) = table.on_bad_row {
        let limit = match limit {
            BadRowLimit::Rows(rows) => Tree::Number(rows.to_string()),
            share @ BadRowLimit::PerMillion(_) => Tree::Text(share.to_string()),
        };
        fields.push(("on_bad_row".to_owned(), Tree::Map(vec![("quarantine".to_owned(), limit)])));
    }
    if let Some(layout) = table.layout {
        let mut by =
            vec![("path".to_owned(), Tree::Text(layout.path.to_string())), ("zone".to_owned(), Tree::Text(layout.zone.to_string()))];
        if let Slack::Seconds(seconds) = table.slack {
            by.push(("slack".to_owned(), Tree::Text(format!("{seconds}s"))));
        }
        fields.push(("partition_by".to_owned(), Tree::Map(by)));
    } else if !table.partition_by.is_empty() {
        let partitions = table.partition_by.into_iter().map(|partition| {
            let unit = match partition.unit {
                PartitionUnit::Year => "year",
                PartitionUnit::Month => "month",
                PartitionUnit::Day => "day",
                PartitionUnit::Hour => "hour",
            };
            Tree::Map(vec![(partition.column, Tree::text(unit))])
        });
        fields.push(("partition_by".to_owned(), Tree::List(partitions.collect())));
    }
    if !table.key.is_empty() {
        fields.push(("key".to_owned(), Tree::texts(table.key)));
    }
    fields.extend(table.keys.map(|keys| ("keys".to_owned(), self::keys(keys))));
    fields.push(("time".to_owned(), if table.reading.is_plain() { Tree::Text(table.time) } else { time(table.time, table.reading) }));
    if table.time_marks == TimeMark::End {
        fields.push(("time_marks".to_owned(), Tree::text("end")));
    }
    fields.extend(table.zone.map(|zone| ("zone".to_owned(), Tree::Text(zone.to_string()))));
    fields.extend(table.cadence.map(|cadence| ("cadence".to_owned(), self::cadence(cadence, table.slots, table.misaligned))));
    match table.rows {
        Rows::One => {}
        Rows::Many => fields.push(("rows".to_owned(), Tree::text("many"))),
        Rows::Unique => fields.push(("rows".to_owned(), Tree::text("unique"))),
    }
    if !table.version.is_empty() {
        fields.push(("version".to_owned(), Tree::texts(table.version)));
    }
    fields.extend(table.lookback.map(|lookback| ("lookback".to_owned(), duration(lookback))));
    fields.extend(table.settles_after.map(|after| ("settles_after".to_owned(), duration(after))));
    Tree::Map(fields)
}

fn cadence(every: Cadence, slots: SlotRule, misaligned: Option<BadRowLimit>) -> Tree {
    if slots.is_plain() && misaligned.is_none() {
        return Tree::Text(every.to_string());
    }
    let mut fields = vec![("every".to_owned(), Tree::Text(every.to_string()))];
    fields.extend(slots.at.map(|at| ("at".to_owned(), Tree::Text(at.to_string()))));
    if slots.tolerance_s > 0 {
        fields.push(("tolerance".to_owned(), Tree::Text(format!("{}s", slots.tolerance_s))));
    }
    fields.extend(misaligned.map(|limit| ("misaligned".to_owned(), Tree::Text(limit.to_string()))));
    if !slots.before.is_empty() {
        let before = slots.before.into_iter().map(|(date, every)| (date.to_string(), Tree::Text(every.to_string())));
        fields.push(("before".to_owned(), Tree::Map(before.collect())));
    }
    Tree::Map(fields)
}

fn keys(keys: ExpectedKeys) -> Tree {
    let key = |key: &Key| match key.single() {
        Some(value) => Tree::text(value),
        None => Tree::texts(key.values()),
    };
    let from = match keys {
        ExpectedKeys::List(keys) => return Tree::List(keys.iter().map(key).collect()),
        ExpectedKeys::Table(from) => from,
    };
    let mut fields = vec![("table".to_owned(), Tree::Text(from.table))];
    fields.extend(from.columns.map(|columns| ("columns".to_owned(), Tree::texts(columns))));
    for (name, column) in [("since", from.since), ("until", from.until), ("calendar", from.calendar), ("cadence", from.cadence)] {
        fields.extend(column.map(|column| (name.to_owned(), Tree::Text(column))));
    }
    Tree::Map(fields)
}

fn csv(csv: Csv) -> Tree {
    let default = Csv::default();
    let mut fields: Vec<(String, Tree)> = Vec::new();
    let mut add = |name: &str, differs: bool, value: Tree| {
        if differs {
            fields.push((name.to_owned(), value));
        }
    };
    let mark = |mark: Option<char>| Tree::Text(mark.map_or_else(|| "none".to_owned(), |mark| mark.to_string()));
    add("delimiter", csv.delimiter != default.delimiter, mark(Some(csv.delimiter)));
    add("quote", csv.quote != default.quote, mark(csv.quote));
    add("decimal", csv.decimal != default.decimal, mark(Some(csv.decimal)));
    add("thousands", csv.thousands.is_some(), mark(csv.thousands));
    add("encoding", csv.encoding != default.encoding, Tree::text(csv.encoding.as_str()));
    add("header", !csv.header, Tree::Bool(csv.header));
    add("comment", csv.comment.is_some(), mark(csv.comment));
    add("skip_lines", csv.skip_lines > 0, Tree::Number(csv.skip_lines.to_string()));
    add("trim", csv.trim, Tree::Bool(csv.trim));
    add("final_newline", csv.final_newline, Tree::text("required"));
    add("names", !csv.names.is_empty(), Tree::List(csv.names.into_iter().map(Tree::Text).collect()));
    Tree::Map(fields)
}

fn column(rule: ColumnRule) -> Tree {
    let mut fields: Vec<(String, Tree)> = Vec::new();
    fields.extend(rule.kind.map(|kind| ("type".to_owned(), Tree::Text(kind.to_string()))));
    if !rule.nulls.is_empty() {
        fields.push(("nulls".to_owned(), Tree::texts(rule.nulls)));
    }
    fields.extend(rule.path.map(|path| ("path".to_owned(), Tree::Text(path))));
    Tree::Map(fields)
}

fn time(name: String, reading: TimeReading) -> Tree {
    let mut fields: Vec<(String, Tree)> = Vec::new();
    let in_path = matches!(reading.form, TimeForm::Path(_));
    if reading.columns.is_empty() && !in_path {
        fields.push(("column".to_owned(), Tree::Text(name)));
    } else {
        if !in_path {
            fields.push(("columns".to_owned(), Tree::List(reading.columns.into_iter().map(Tree::Text).collect())));
        }
        fields.push(("name".to_owned(), Tree::Text(name)));
    }
    match reading.form {
        TimeForm::Iso => {}
        TimeForm::Pattern(pattern) => fields.push(("format".to_owned(), Tree::Text(pattern))),
        TimeForm::Epoch(units) => {
            fields.push(("epoch".to_owned(), Tree::List(units.into_iter().map(|unit| Tree::text(unit.as_str())).collect())));
        }
        TimeForm::Path(path) => fields.push(("path".to_owned(), Tree::Text(path.to_string()))),
    }
    fields.extend(reading.zone.map(|zone| ("zone".to_owned(), Tree::Text(zone.to_string()))));
    let word = |words: &[(&'static str, Repeated)], wanted| words.iter().find(|(_, one)| *one == wanted).map(|(word, _)| *word);
    if reading.repeated != Repeated::Refuse {
        fields.push(("repeated".to_owned(), Tree::text(word(&Repeated::ALL, reading.repeated).unwrap_or("refuse"))));
    }
    if reading.skipped == Skipped::Shift {
        fields.push(("skipped".to_owned(), Tree::text("shift")));
    }
    Tree::Map(fields)
}

impl Rate {
    /// So many a second.
    pub fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// So many a minute.
    pub fn per_minute(count: u32) -> Self {
        Self { count, per: Duration::from_secs(60) }
    }

    /// So many an hour.
    pub fn per_hour(count: u32) -> Self {
        Self { count, per: Duration::from_secs(3_600) }
    }

    /// So many a day.
    pub fn per_day(count: u32) -> Self {
        Self { count, per: Duration::from_secs(86_400) }
    }
}

impl Param {
    /// A parameter that must be given.
    pub fn new(kind: ParamType) -> Self {
        Self { kind, default: None, about: None, one_of: Vec::new(), zone: None }
    }

    /// The zone of dates and instants that are relative to now, such as `yesterday`.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// What it is when it is not given.
    #[must_use]
    pub fn with_default(mut self, value: impl Into<serde_json::Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// What it is for.
    #[must_use]
    pub fn with_about(mut self, about: impl Into<String>) -> Self {
        self.about = Some(about.into());
        self
    }

    /// The values allowed.
    #[must_use]
    pub fn with_one_of<T: Into<serde_json::Value>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.one_of = values.into_iter().map(Into::into).collect();
        self
    }
}

impl From<ErrorKind> for ErrorMatch {
    fn from(kind: ErrorKind) -> Self {
        Self::Kinds(vec![kind])
    }
}

impl<const N: usize> From<[ErrorKind; N]> for ErrorMatch {
    fn from(kinds: [ErrorKind; N]) -> Self {
        Self::Kinds(kinds.into())
    }
}

impl From<Vec<ErrorKind>> for ErrorMatch {
    fn from(kinds: Vec<ErrorKind>) -> Self {
        Self::Kinds(kinds)
    }
}

impl RetryRule {
    /// Tries again after these errors: three times, after 1 s, 2 s and 4 s, unless changed. [`ErrorMatch::Any`] is all errors but `budget`,
    /// `blind` and `cancelled`.
    pub fn on(errors: impl Into<ErrorMatch>) -> Self {
        Self {
            on: errors.into(),
            attempts: DEFAULT_ATTEMPTS,
            interval: DEFAULT_INTERVAL,
            backoff: DEFAULT_BACKOFF,
            max_interval: None,
            jitter: Jitter::None,
        }
    }

    /// How many times to try again; 0 is never.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The wait before the first.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// By how much each wait is longer than the one before.
    #[must_use]
    pub fn with_backoff(mut self, backoff: f64) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest wait.
    #[must_use]
    pub fn with_max_interval(mut self, longest: Duration) -> Self {
        self.max_interval = Some(longest);
        self
    }

    /// Whether the wait is drawn at random.
    #[must_use]
    pub fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }
}
