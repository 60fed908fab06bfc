//! The source `command`: asks a program for the rows of some keys and an interval.

use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::builtin::Period;
use repair_core::lake::shape::KeyTime;
use repair_core::model::{Interval, Key};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, Result};
use serde_json::json;

use crate::allowed::Options;
use crate::columns::TableColumns;
use crate::command::program::{Program, config, described};
use crate::command::{NAME, OF_TABLE, ROW_BYTES, id_of, kept, values_of};
use crate::rows::{self, RowFormat, Rows};

/// The default number of slots that one call asks for.
const ROWS: u64 = 10_000;
/// The default number of keys that one call asks for.
const KEYS: usize = 100;

config! {
    /// The configuration of the source.
    pub struct CommandSourceConfig {
        /// How it writes rows: `jsonl` (an object a line, the default), `csv` or `arrow`.
        #[serde(default)]
        pub rows: RowFormat,
        /// Whether a slot that an answer leaves out has no row, if the answer has other rows of its key; false by default. An answer of `jsonl` can also
        /// vouch for a stretch of a key by a line `{"$covered": {"key": …, "from": …, "to": …}}`.
        #[serde(default)]
        pub vouches: bool,
        /// How long after a slot its row may still arrive; for younger slots, silence proves nothing. 15m by default.
        #[serde(default)]
        pub settles_after: Option<Period>,
        /// The most slots, over all keys, that one call asks for; 10,000 by default.
        #[serde(default)]
        pub rows_per_request: Option<u64>,
        /// The most keys that one call asks for; 100 by default.
        #[serde(default)]
        pub keys_per_request: Option<usize>,
    }
}

/// By default, how long after a slot its row may still arrive.
const SETTLES_AFTER: Period = Period::minutes(15);

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry.source(NAME, "asks a program for missing rows", move |config: CommandSourceConfig| CommandSource::new(&config, &options));
}

/// The limits of a configuration.
///
/// # Errors
/// `invalid` if they allow nothing.
pub(super) fn limits(rows: Option<u64>, keys: Option<usize>) -> Result<Limits> {
    let limits = Limits::new(rows.unwrap_or(ROWS), keys.unwrap_or(KEYS));
    if limits.rows_per_request == 0 || limits.keys_per_request == 0 {
        return Err(Error::invalid("`rows_per_request` and `keys_per_request` must be at least 1; correct them, or remove them"));
    }
    Ok(limits)
}

struct CommandSource {
    program: Program,
    rows: RowFormat,
    vouches: bool,
    settles_after: Period,
    limits: Limits,
    columns: TableColumns,
}

impl CommandSource {
    fn new(config: &CommandSourceConfig, options: &Options) -> Result<Self> {
        if config.source.is_some() {
            return Err(Error::invalid(
                "`source` is the name of a price, and calls of a source have the price of their own name; remove it",
            ));
        }
        Ok(Self {
            program: Program::new(config.program(), &OF_TABLE, ROW_BYTES, options)?,
            rows: config.rows,
            vouches: config.vouches,
            settles_after: config.settles_after.unwrap_or(SETTLES_AFTER),
            limits: limits(config.rows_per_request, config.keys_per_request)?,
            columns: TableColumns::default(),
        })
    }
}

#[async_trait]
impl Source for CommandSource {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn ready(&self) -> Result<()> {
        self.program.ready()
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        let table = &request.table;
        let columns = self.columns.of(context, table, None).await?;
        let id = id_of(&[&context.run, &context.step, "source"], table, &request.interval, &request.keys);
        let mut asked = self.program.request("source", context, &id);
        asked.extend([
            ("table".to_owned(), described(table, columns.as_deref())),
            ("from".to_owned(), request.interval.from().to_string().into()),
            ("to".to_owned(), request.interval.to().to_string().into()),
            ("keys".to_owned(), json!(request.keys)),
        ]);
        let values = values_of(table, &request.interval, &request.keys);
        let answered = self.program.call(context, asked, values, &[]).await?;
        let decoded = rows::decoded(self.rows, answered.answer.clone(), kept(table), columns).await;
        let found = decoded.and_then(Rows::without_estimates).and_then(|rows| self.covered(request, rows, context.clock.now()));
        let (rows, covered) = found.map_err(|error| answered.refused(&error))?;
        let said = format!("`{}`, exit code {}", self.program.name(), answered.code);
        Ok(Answer::new(rows.batches).with_covered(covered).with_said(said))
    }
}

impl CommandSource {
    /// The stretches for which an answer vouches: those that it says, and those of keys with rows, if silence means something.
    fn covered(&self, request: &Request, mut rows: Rows, now: Timestamp) -> Result<(Rows, Vec<Covered>)> {
        let mut covered = Vec::new();
        for said in std::mem::take(&mut rows.covered) {
            let is_of_request = request.keys.is_empty() || request.keys.contains(&said.key);
            if !is_of_request || !request.interval.covers(&said.interval) {
                return Err(Error::invalid(format!("a `$covered` of {} for {}, which was not asked for", said.key, said.interval)));
            }
            covered.extend(until(now, said.interval).map(|interval| Covered { key: said.key, interval }));
        }
        if self.vouches {
            let settled = now
                .checked_sub(self.settles_after.signed())
                .map_err(|error| Error::invalid("`settles_after` is out of range").because(error))?;
            let known = keys_of(request, &rows)?;
            if let Some(interval) = until(settled, request.interval) {
                covered.extend(known.into_iter().map(|key| Covered { key, interval }));
            }
        }
        Ok((rows, covered))
    }
}

/// The part of an interval that lies before an instant.
fn until(end: Timestamp, interval: Interval) -> Option<Interval> {
    Interval::new(interval.from(), interval.to().min(end)).ok()
}

/// The requested keys that an answer has rows of; in an answer about rows without slots, all of them as one.
fn keys_of(request: &Request, rows: &Rows) -> Result<Vec<Key>> {
    if request.keys.is_empty() {
        return Ok(if rows.count() > 0 { vec![Key::default()] } else { Vec::new() });
    }
    let mut known = std::collections::BTreeSet::new();
    for batch in &rows.batches {
        let places = KeyTime::of(&request.table, batch)?;
        known.extend(places.runs().map(|run| places.key(run.start)));
    }
    Ok(request.keys.iter().filter(|key| known.contains(*key)).cloned().collect())
}
