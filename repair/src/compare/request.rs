//! Asks for a comparison of an opened workflow's strategies.

use super::{CompareOptions, CompareReport, CompareSetting, CostLimit, Pattern, Share, compare};
use crate::open::Repair;
use crate::request::awaitable;
use repair_core::Result;

/// The share that is hidden unless another is asked for.
const DEFAULT_SHARE: &str = "5%";

/// Compares strategies: await it. [`Repair::compare`] makes it.
#[must_use = "nothing is compared before this is awaited"]
pub struct CompareRequest<'a> {
    repair: &'a Repair,
    share: Option<Share>,
    options: CompareOptions,
}

impl CompareRequest<'_> {
    /// Compares only these: names of strategies, of repair steps with a single strategy, or of repairers that need nothing.
    pub fn strategies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.strategies = names.into_iter().map(Into::into).collect();
        self
    }

    /// Chooses the detect step that defines which rows are expected. Without this, the only one.
    pub fn of<'b>(mut self, step: impl Into<Option<&'b str>>) -> Self {
        self.options.of = step.into().map(str::to_owned);
        self
    }

    /// Hides this share of what is there, instead of 5 %.
    pub fn share(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    /// Chooses how the hidden slots are distributed.
    pub fn pattern(mut self, pattern: Pattern) -> Self {
        self.options.pattern = pattern;
        self
    }

    /// Chooses the seed from which the hidden slots are drawn: the same seed hides the same slots. Without this, 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Hides slots in so many rounds, from 1 to [`MOST_ROUNDS`], no slot in two of them. Each strategy is tried in each round, and may spend what its budget says
    /// in all of them together. [`CompareOptions::rounds`] says how many there are without this.
    ///
    /// [`MOST_ROUNDS`]: super::MOST_ROUNDS
    pub fn rounds(mut self, rounds: impl Into<Option<u32>>) -> Self {
        self.options.rounds = rounds.into();
        self
    }

    /// Lets these columns decide which strategy is best. Without this, all that hold numbers.
    pub fn columns<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.columns = names.into_iter().map(Into::into).collect();
        self
    }

    /// Limits what the best strategy may cost.
    pub fn limit(mut self, limit: CostLimit) -> Self {
        self.options.limit = limit;
        self
    }

    async fn perform(self) -> Result<CompareReport> {
        let Self { repair, share, options } = self;
        let share = share.map_or_else(|| DEFAULT_SHARE.parse(), Ok)?;
        let around = repair.around();
        let setting = CompareSetting {
            workflow: &repair.workflow,
            params: &repair.params,
            now: repair.now,
            registry: &around.registry,
            lake: repair.opened.clone(),
            lakes: repair.lakes.clone(),
            clock: around.clock.clone(),
            cancel: around.stop.clone(),
        };
        compare(setting, share, &options).await
    }
}

awaitable!(CompareRequest => CompareReport);

impl Repair {
    /// Hides some rows that are there, lets each strategy repair them, and compares its repairs with the hidden rows. Nothing is written to the lake;
    /// sources are really asked.
    ///
    /// # Errors
    /// As [`compare`].
    ///
    /// ```no_run
    /// # async fn example(repair: repair::Repair) -> repair::Result<()> {
    /// let report = repair.compare().strategies(["line", "carry-forward"]).share("2%".parse()?).seed(7).await?;
    /// println!("best: {:?}", report.best);
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare(&self) -> CompareRequest<'_> {
        CompareRequest { repair: self, share: None, options: CompareOptions { seed: 1, ..CompareOptions::default() } }
    }
}
