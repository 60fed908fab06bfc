//! The pipeline on a clock: each minute it asks its feed for the bars of the minute before, and writes what it gets. It is what the demo simulates, as it
//! would run: it knows nothing of the workflow that repairs what it loses, and can be killed at any instant.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng, seq};
use repair::arrow::array::RecordBatch;
use repair::arrow::compute::concat_batches;
use repair::core::engine::prepare::{Setting, shared_context};
use repair::core::model::{Calendar, Interval, Key, Table};
use repair::core::plugin::{Clock, Request, ScaledClock, Source, StepContext, SystemClock};
use repair::core::workflow::{Variables, parse_duration};
use repair::jiff::tz::TimeZone;
use repair::jiff::{SignedDuration, Timestamp};
use repair::local::LocalLake;
use repair::{CancellationToken, Registry, Workflow};
use serde::Deserialize;

use crate::pipeline::land_rows;
use crate::report::say;

/// The workflow that repairs beside it, whose sources are its feeds.
const WORKFLOW: &str = include_str!("../standing/ticker-standing.yaml");
/// Where its text is, from the root of the repository.
const WORKFLOW_FILE: &str = "examples/stock-pipeline/standing/ticker-standing.yaml";
/// How long after the end of a minute its bars are asked for.
const AFTER_MINUTE: SignedDuration = SignedDuration::from_secs(2);
const MINUTE_S: i64 = 60;

/// Runs the pipeline on a clock, until it is stopped.
///
/// Beside it, `repair serve examples/stock-pipeline/standing --lake DIR` finds and repairs what it loses.
#[derive(Debug, Args)]
pub(crate) struct Live {
    /// The source of the workflow that is asked for bars.
    #[arg(long, value_name = "SOURCE", default_value = "exchange")]
    feed: String,
    /// The workflow that repairs beside it, with the parameters calendar and symbols, a table `bars`, and the feed [default: one with a simulated market].
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// How often it asks: a whole number of minutes.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    every: String,
    /// Where the lake is. It is created, and never cleared.
    #[arg(long, value_name = "DIR", default_value = "./lake")]
    lake: PathBuf,
    /// How many stocks the glitch drops each minute; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1)]
    glitch: usize,
    /// The share of the dropped bars that arrive after all, half an hour late.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    late: f64,
    /// A parameter of the workflow; may be repeated.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Let time pass so many times as fast. Only a simulated market has bars of the future.
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: Option<u32>,
    /// The instant from which time passes faster [default: now].
    #[arg(long, value_name = "INSTANT", requires = "speed")]
    since: Option<Timestamp>,
    /// Stop after so much time on its clock.
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
}

/// The parameters of the workflow that the pipeline must agree with.
#[derive(Debug, Deserialize)]
struct Agreed {
    calendar: String,
    symbols: Vec<String>,
    #[serde(default)]
    seed: u64,
}

/// A pipeline that is about to run.
struct Running {
    symbols: Vec<Arc<str>>,
    source: Arc<dyn Source>,
    context: StepContext,
    table: Table,
    calendar: Arc<dyn Calendar>,
    clock: Arc<dyn Clock>,
    bars: PathBuf,
    dropped_per_minute: usize,
    late: f64,
    seed: u64,
}

impl Live {
    /// Runs until it is stopped, or its time is over.
    ///
    /// # Errors
    /// If the flags make no sense, or the lake cannot be written. What the feed does not answer is lost, as in any pipeline.
    pub(crate) async fn perform(self, registry: &Arc<Registry>) -> Result<()> {
        let every = parse_duration(&self.every)?.as_secs();
        ensure!(every > 0 && every.is_multiple_of(60), "--every must be a whole number of minutes");
        let every = i64::try_from(every)?;
        ensure!((0.0..=1.0).contains(&self.late), "--late must be a share, from 0 to 1");
        std::fs::create_dir_all(&self.lake).with_context(|| format!("the folder {} cannot be created", self.lake.display()))?;
        let clock: Arc<dyn Clock> = match self.speed {
            None => Arc::new(SystemClock),
            Some(speed) => {
                let since = self.since.unwrap_or_else(Timestamp::now);
                say(&format!(
                    "beside it: repair serve examples/stock-pipeline/standing --lake {} --speed {speed} --since {since:.0}",
                    self.lake.display()
                ))?;
                Arc::new(ScaledClock::new(since, speed).context("--speed must be from 1 to 10,000")?)
            }
        };
        let running = self.running(registry, clock.clone())?;
        // One reading, so that the first minute lies before the end however long this takes.
        let from = clock.now();
        let until = match &self.lasts {
            None => Timestamp::MAX,
            Some(lasts) => from.checked_add(SignedDuration::try_from(parse_duration(lasts)?)?)?,
        };
        running.run(every, from, until).await
    }

    fn running(&self, registry: &Arc<Registry>, clock: Arc<dyn Clock>) -> Result<Running> {
        let workflow = match &self.workflow {
            Some(file) => Workflow::load(file, registry)?,
            None => Workflow::parse(WORKFLOW_FILE, WORKFLOW, registry)?,
        };
        let mut given = BTreeMap::new();
        for param in &self.params {
            let (name, value) = param.split_once('=').with_context(|| format!("--param {param}: write it as NAME=VALUE"))?;
            given.insert(name.to_owned(), value.to_owned());
        }
        let (params, now) = (workflow.bind(&given)?, clock.now());
        let fixed = workflow.fix(&params, now)?;
        let agreed: Agreed = serde_json::from_value(fixed.clone().into_iter().collect()).context("the workflow has other parameters")?;
        let known = registry.calendars();
        let calendar = known.get(&agreed.calendar).with_context(|| format!("there is no calendar `{}`", agreed.calendar))?.clone();
        if !workflow.sources.contains_key(&self.feed) {
            bail!("there is no feed `{}`; the feeds are {}", self.feed, workflow.sources.keys().cloned().collect::<Vec<_>>().join(", "));
        }
        if self.glitch >= agreed.symbols.len() {
            bail!("a glitch that drops {} of {} stocks leaves no bars; choose a smaller --glitch", self.glitch, agreed.symbols.len());
        }
        // Sources that are not used need no keys.
        let mut only = workflow.clone();
        only.sources.retain(|name, _| *name == self.feed);
        let setting = Setting {
            run: "pipeline".into(),
            now,
            turn: 0,
            lake: Arc::new(LocalLake::open(&self.lake)?),
            lakes: Arc::default(),
            clock: clock.clone(),
            cancel: CancellationToken::new(),
            progress: Arc::new(()),
        };
        let context = shared_context(registry, &only, &Variables::at_start(&fixed, now, now), setting)?;
        let source = context.source(&self.feed)?.clone();
        let table = workflow.tables.get("bars").context("the workflow has no table `bars`")?.clone();
        Ok(Running {
            symbols: agreed.symbols.iter().map(|symbol| symbol.as_str().into()).collect(),
            source,
            context,
            bars: self.lake.join(&table.location),
            table,
            calendar,
            clock,
            dropped_per_minute: self.glitch,
            late: self.late,
            seed: agreed.seed,
        })
    }
}

impl Running {
    async fn run(self, every_s: i64, from: Timestamp, until: Timestamp) -> Result<()> {
        self.source.ready().await?;
        // What was dropped and arrives late: when, the stock, and its minute.
        let mut late: VecDeque<(Timestamp, Arc<str>, i64)> = VecDeque::new();
        let (mut next, last) = (from.as_second().div_euclid(every_s) + 1, until.as_second().div_euclid(every_s));
        let mut minute = from.as_second().div_euclid(MINUTE_S);
        while next <= last {
            let due = Timestamp::from_second(next * every_s)?;
            self.clock.sleep_until(due.checked_add(AFTER_MINUTE)?).await;
            let over = due.as_second().div_euclid(MINUTE_S);
            while minute < over {
                self.capture(minute, &mut late).await?;
                minute += 1;
            }
            self.deliver(&mut late, due).await?;
            // One that is late catches up, and leaves out nothing before its end.
            let now = self.clock.now().as_second().div_euclid(every_s);
            next = (next + 1).max(now.min(last));
        }
        Ok(())
    }

    fn minute(&self, minute: i64) -> Result<Interval> {
        Ok(Interval::new(Timestamp::from_second(minute * MINUTE_S)?, Timestamp::from_second((minute + 1) * MINUTE_S)?)?)
    }

    /// Asks for all stocks of a minute but those that the glitch drops.
    async fn capture(&self, minute: i64, late: &mut VecDeque<(Timestamp, Arc<str>, i64)>) -> Result<()> {
        let interval = self.minute(minute)?;
        if !self.calendar.open(&interval).is_ok_and(|open| open.iter().any(|open| open.contains(interval.from()))) {
            return Ok(());
        }
        let mut chance = SmallRng::seed_from_u64(self.seed ^ minute.unsigned_abs());
        let dropped = seq::index::sample(&mut chance, self.symbols.len(), self.dropped_per_minute).into_vec();
        let (mut asked, mut lost) = (Vec::new(), Vec::new());
        for (index, symbol) in self.symbols.iter().enumerate() {
            if dropped.contains(&index) {
                lost.push(symbol.clone());
                if chance.random_bool(self.late) {
                    late.push_back((interval.to().checked_add(SignedDuration::from_mins(30))?, symbol.clone(), minute));
                }
            } else {
                asked.push(symbol.clone());
            }
        }
        let rows = self.ask(&asked, interval, "bars").await?;
        say(&format!("{:.0}  {rows} bars; dropped: {}", interval.from(), lost.join(", ")))?;
        Ok(())
    }

    /// Delivers what arrives late.
    async fn deliver(&self, late: &mut VecDeque<(Timestamp, Arc<str>, i64)>, now: Timestamp) -> Result<()> {
        while let Some((_, symbol, minute)) = late.pop_front_if(|(at, ..)| *at <= now) {
            let interval = self.minute(minute)?;
            let rows = self.ask(std::slice::from_ref(&symbol), interval, &format!("late-{symbol}")).await?;
            say(&format!("{:.0}  {rows} bars of {symbol}, late", interval.from()))?;
        }
        Ok(())
    }

    /// Asks the feed for a minute, and writes what it answers; returns how many bars that are.
    async fn ask(&self, symbols: &[Arc<str>], interval: Interval, name: &str) -> Result<usize> {
        let most = self.source.limits().keys_per_request.max(1);
        let mut rows: Vec<RecordBatch> = Vec::new();
        for symbols in symbols.chunks(most) {
            let keys = symbols.iter().map(|symbol| Key::from(symbol.as_ref())).collect();
            match self.source.fetch(&self.context, &Request::new(self.table.clone(), keys, interval)).await {
                Ok(answer) => rows.extend(answer.rows.into_iter().filter(|rows| rows.num_rows() > 0)),
                Err(error) => say(&format!("{:.0}  {}: lost: {error}", interval.from(), symbols.join(", ")))?,
            }
        }
        let Some(first) = rows.first() else { return Ok(0) };
        let all = concat_batches(&first.schema(), &rows)?;
        let at = interval.from().to_zoned_datetime(TimeZone::UTC);
        let file = format!("{}/{name}-{}.parquet", at.strftime("date=%Y-%m-%d"), at.strftime("%H%M"));
        let (path, count) = (self.bars.join(file), all.num_rows());
        tokio::task::spawn_blocking(move || land_rows(&all, &path).with_context(|| format!("{} cannot be written", path.display())))
            .await??;
        Ok(count)
    }
}
