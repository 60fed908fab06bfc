//! What is simulated or replayed, and the parameters that the workflow gets.

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

/// A quiet spell that is longer than any silence within a replay.
pub(crate) const WHOLE_REPLAY: &str = "365d";

/// What the user of the demo chooses; everything else is a default of the workflow. The choices are kept with the lake for `--keep`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choices {
    /// The day to simulate.
    pub(crate) date: Date,
    /// A folder of real bars to replay instead.
    pub(crate) data: Option<PathBuf>,
    /// The calendar.
    pub(crate) calendar: String,
    /// How many stocks are dropped each minute.
    pub(crate) glitch: usize,
    /// The seed of the market and of what is dropped.
    pub(crate) seed: Option<u64>,
    /// The share of minutes without a trade.
    pub(crate) quiet: Option<f64>,
}

/// The parameters of the workflow that the pipeline must agree with.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Agreed {
    /// The first day.
    from: String,
    /// The last day.
    to: String,
    /// The calendar.
    calendar: String,
    /// The stocks to capture.
    pub(crate) symbols: Vec<String>,
    /// The seed of the random numbers.
    pub(crate) seed: u64,
    /// The share of minutes without a trade.
    quiet: f64,
}

/// What is captured, and how the workflow runs on it.
pub(crate) struct Scenario {
    /// The parameters that differ from the defaults, as `repair run --param` takes them.
    pub(crate) given: BTreeMap<String, String>,
    /// Those that the pipeline must agree with.
    pub(crate) agreed: Agreed,
    /// The days.
    pub(crate) interval: Interval,
    /// The minutes in which bars are expected.
    pub(crate) expected: SlotSet,
    /// The feed of bars.
    pub(crate) feed: Arc<dyn Feed>,
}

impl Scenario {
    /// Works out the scenario from a user's choices.
    ///
    /// # Errors
    /// Fails if the calendar does not exist, there is no session on the date, there are no bars in the folder, or the glitch leaves no stock.
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
            format!(
                "there is no calendar `{}`; the calendars are {}",
                agreed.calendar,
                known.keys().cloned().collect::<Vec<_>>().join(", ")
            )
        })?;
        let interval = Interval::parse(&agreed.from, &agreed.to)?;
        let grid = bars.grid()?;
        let expected = expected_slots(grid, grid.slots_in(&interval), calendar.as_ref())?;
        if expected.is_empty() {
            bail!("{} has no session from {from} to {to}; choose another --date", agreed.calendar);
        }
        let stocks = agreed.symbols.len();
        if choices.glitch >= stocks {
            bail!("a glitch that drops {} of {stocks} stocks leaves no bars; choose a smaller --glitch", choices.glitch);
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
/// Fails if the workflow has no table of that name.
pub(crate) fn table<'a>(workflow: &'a Workflow, name: &str) -> Result<&'a Table> {
    workflow.tables.get(name).with_context(|| format!("the workflow has no table `{name}`"))
}

/// Reads real bars to replay. The same folder is the archive from which the workflow requests what the pipeline lost.
async fn replay(folder: &Path, bars: &Table, given: &mut BTreeMap<String, String>) -> Result<Replay> {
    let folder = folder.canonicalize().with_context(|| format!("the folder {} cannot be opened", folder.display()))?;
    let replay = Replay::read(&folder, bars).await?;
    given.extend([
        ("symbols".to_owned(), replay.symbols().join(",")),
        ("source".to_owned(), "archive".to_owned()),
        ("archive".to_owned(), folder.display().to_string()),
        ("archive_format".to_owned(), "csv".to_owned()),
        // The archive is all there is of this market, so nothing is missing where it is silent, however long.
        ("quiet_spell".to_owned(), WHOLE_REPLAY.to_owned()),
    ]);
    Ok(replay)
}
