//! What is simulated or replayed, and the workflow's parameters for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use repair::core::model::{Interval, SlotSet, Table, expected_slots};
use repair::core::plugin::Registry;
use repair::core::workflow::Workflow;
use repair::jiff::civil::Date;
use repair::stocks::source::simulated::Market;
use serde::{Deserialize, Serialize};

use crate::feed::{Feed, Replay};

/// Longer than any silence within a replay.
pub(crate) const WHOLE_REPLAY: &str = "365d";

/// What the user of the demo chooses; all else are the workflow's defaults. Kept with the lake, so that it can be looked at again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choices {
    /// The day to simulate.
    pub(crate) date: Date,
    /// A folder of real bars, to be replayed instead.
    pub(crate) data: Option<PathBuf>,
    /// The calendar.
    pub(crate) calendar: String,
    /// How many stocks are dropped each minute.
    pub(crate) glitch: usize,
    /// Which market, and which drops.
    pub(crate) seed: Option<u64>,
    /// The share of minutes without a trade.
    pub(crate) quiet: Option<f64>,
}

/// The workflow's parameters, as far as the pipeline must agree with them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Agreed {
    /// The first day.
    from: String,
    /// The last day.
    to: String,
    /// The calendar.
    calendar: String,
    /// The interested stocks.
    pub(crate) symbols: Vec<String>,
    /// Where chance begins.
    pub(crate) seed: u64,
    /// The share of minutes without a trade.
    quiet: f64,
}

/// What is captured, and what the workflow is asked to do about it.
pub(crate) struct Scenario {
    /// The parameters that are not defaults, as `repair run --param` takes them.
    pub(crate) given: BTreeMap<String, String>,
    /// Those that the pipeline must agree with.
    pub(crate) agreed: Agreed,
    /// The days.
    pub(crate) interval: Interval,
    /// The minutes in which bars are expected.
    pub(crate) expected: SlotSet,
    /// Where bars come from.
    pub(crate) feed: Arc<dyn Feed>,
}

impl Scenario {
    /// Works out what a user's choices mean.
    ///
    /// # Errors
    /// If they mean nothing: no such calendar, no session on that date, no bars in that folder, no stock left by the glitch.
    pub(crate) async fn new(choices: &Choices, workflow: &Workflow, registry: &Registry) -> Result<Self> {
        let bars = table(workflow, "bars")?;
        let mut given = BTreeMap::from([("calendar".to_owned(), choices.calendar.clone())]);
        given.extend(choices.seed.map(|seed| ("seed".to_owned(), seed.to_string())));
        given.extend(choices.quiet.map(|quiet| ("quiet".to_owned(), quiet.to_string())));
        let replay = match &choices.data {
            Some(folder) => Some(replay(folder, bars, &mut given).await?),
            None => None,
        };
        let (from, to) = replay.as_ref().map_or((choices.date, choices.date), Replay::days);
        given.insert("from".to_owned(), from.to_string());
        given.insert("to".to_owned(), to.to_string());

        let params = workflow.bind(&given)?;
        let agreed: Agreed =
            serde_json::from_value(params.into_iter().collect()).context("the workflow's parameters are not those that this demo knows")?;
        let known = registry.calendars();
        let calendar = known.get(&agreed.calendar).with_context(|| {
            format!("there is no calendar `{}`; there are {}", agreed.calendar, known.keys().cloned().collect::<Vec<_>>().join(", "))
        })?;
        let interval = Interval::parse(&agreed.from, &agreed.to)?;
        let grid = bars.grid()?;
        let expected = expected_slots(grid, grid.slots_in(&interval), &calendar.open(&interval)?);
        if expected.is_empty() {
            bail!("{} has no session from {from} to {to}; choose another --date", agreed.calendar);
        }
        let stocks = agreed.symbols.len();
        if choices.glitch >= stocks {
            bail!("a glitch that drops {} of {stocks} stocks leaves no bars at all; choose a smaller --glitch", choices.glitch);
        }
        let feed: Arc<dyn Feed> = match replay {
            Some(replay) => Arc::new(replay),
            None => Arc::new(Market::new(agreed.seed, calendar.clone(), agreed.quiet)),
        };
        Ok(Self { given, agreed, interval, expected, feed })
    }
}

/// A table of the workflow.
///
/// # Errors
/// If the workflow has none of that name.
pub(crate) fn table<'a>(workflow: &'a Workflow, name: &str) -> Result<&'a Table> {
    workflow.tables.get(name).with_context(|| format!("the workflow has no table `{name}`"))
}

/// Real bars: the folder is what the pipeline replays, and also the archive that the workflow asks for what the pipeline lost.
async fn replay(folder: &Path, bars: &Table, given: &mut BTreeMap<String, String>) -> Result<Replay> {
    let folder = folder.canonicalize().with_context(|| format!("the folder {} can't be opened", folder.display()))?;
    let replay = Replay::read(&folder, bars).await?;
    given.extend([
        ("symbols".to_owned(), replay.symbols().join(",")),
        ("source".to_owned(), "archive".to_owned()),
        ("archive".to_owned(), folder.display().to_string()),
        ("archive_format".to_owned(), "csv".to_owned()),
        // The archive is all that there is of this market: where it is silent, however long, nothing is to be had.
        ("quiet_spell".to_owned(), WHOLE_REPLAY.to_owned()),
    ]);
    Ok(replay)
}
