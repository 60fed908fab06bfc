//! The source `stocks.simulated`, and the simulated market behind it, which is always the same for a seed.
//!
//! Each bar is computed independently from seed, symbol and minute, so any bar can be requested at any time and in any order, and nothing is
//! stored. The random numbers come from the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
//! generators", 2014), and everything after that uses only arithmetic that IEEE 754 defines to the last bit (not `f64::exp`, which differs
//! between platforms). So a seed gives the same market on every machine and with every version.

use std::f64::consts::LN_10;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::model::day_start;
use repair_core::model::expected_slots;
use repair_core::model::{Calendar, Interval, Key, SlotRange};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bar::Bar;
use crate::minute_gaps::check_minutes;

/// The default share of minutes without a trade.
pub const QUIET: f64 = 0.02;

const MINUTE_S: i64 = 60;

/// The configuration of `stocks.simulated`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SimulatedConfig {
    /// The seed of the market: each seed gives another one.
    pub seed: u64,
    /// The calendar that defines when the market is open.
    #[schemars(extend("x-names" = "calendar"))]
    pub calendar: String,
    /// The share of minutes in which a stock does not trade, from 0 to 1; default 0.02.
    #[serde(default)]
    pub quiet: Option<f64>,
    /// The most rows that one request may return; default 10,000.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// The most stocks that one request may name; default 1.
    #[serde(default)]
    pub keys_per_request: Option<usize>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.source("stocks.simulated", "a simulated market, the same for each seed", |config: SimulatedConfig| {
        let quiet = config.quiet.unwrap_or(QUIET);
        if !(0.0..=1.0).contains(&quiet) {
            return Err(Error::invalid(format!("`quiet: {quiet}` is not a share; give a number from 0 (never) to 1 (always)")));
        }
        let limits = super::limits(config.rows_per_request, config.keys_per_request)?;
        Ok(Simulated { seed: config.seed, calendar: config.calendar, quiet, limits })
    });
}

/// A simulated market, with bars for any symbol in every minute in which its calendar is open.
///
/// Prices resemble a random walk. They are the sum of eleven waves of noise; as in a random walk, the wave of 4ᵏ minutes is 2ᵏ times as high
/// as that of one minute. A bar opens where the one before closed. Volumes are whole numbers with a roughly log-normal distribution.
///
/// ```
/// use std::sync::Arc;
/// use repair_core::model::Always;
/// use repair_stocks::source::simulated::Market;
///
/// let market = Market::new(7, Arc::new(Always), 0.0);
/// let bar = market.bar("IBM", 29_545_350).ok_or("the market is always open and never quiet")?;
/// assert_eq!(market.bar("IBM", 29_545_351).map(|next| next.open), Some(bar.close));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone)]
pub struct Market {
    seed: u64,
    calendar: Arc<dyn Calendar>,
    quiet: f64,
}

impl Market {
    /// The market of a seed. `quiet` is the share of minutes in which a stock does not trade, from 0 (it always trades) to 1 (it never does).
    pub fn new(seed: u64, calendar: Arc<dyn Calendar>, quiet: f64) -> Self {
        Self { seed, calendar, quiet }
    }

    /// The bar of a minute, given in minutes since the Unix epoch; `None` if the market is closed, the calendar does not cover the minute, or
    /// the stock did not trade.
    pub fn bar(&self, symbol: &str, minute: i64) -> Option<Bar> {
        if self.is_open(minute) { Stock::new(self.seed, symbol).bar(minute, self.quiet) } else { None }
    }

    /// Whether the market is open at the beginning of a minute.
    fn is_open(&self, minute: i64) -> bool {
        let start = minute_start(minute);
        let Ok(within) = Interval::new(start, minute_start(minute.saturating_add(1))) else { return false };
        self.calendar.open(&within).is_ok_and(|open| open.iter().any(|open| open.contains(start)))
    }
}

fn minute_start(minute: i64) -> Timestamp {
    Timestamp::from_second(minute.saturating_mul(MINUTE_S)).unwrap_or(Timestamp::MAX)
}

/// What a random number of a stock is used for. Numbers for different purposes are independent.
#[derive(Clone, Copy)]
enum Purpose {
    Price = 1,
    Size = 2,
    Quiet = 3,
    Above = 4,
    Below = 5,
    Volume = 6,
    /// The waves of the price, counted up from here.
    Wave = 16,
}

/// One stock of the market.
struct Stock {
    stream: u64,
    /// The price around which the stock moves.
    price: f64,
    /// The median volume of a minute.
    volume: f64,
}

impl Stock {
    /// The price moves in one minute with a standard deviation of about half this share.
    const STEP: f64 = 0.0004;
    /// The number of waves, of 1, 4, 16 … minutes; the longest lasts two years.
    const WAVES: u8 = 11;

    fn new(seed: u64, symbol: &str) -> Self {
        let stream = symbol.bytes().fold(mix(seed), |stream, byte| mix(stream ^ u64::from(byte)));
        let stock = Self { stream, price: 0.0, volume: 0.0 };
        // Prices are around 40 to 400 and volumes around 100 to 10,000, evenly spread on a logarithmic scale.
        let price = 40.0 * exp(stock.draw(Purpose::Price as u8, 0) * LN_10);
        let volume = 100.0 * exp(stock.draw(Purpose::Size as u8, 0) * 2.0 * LN_10);
        Self { price, volume, ..stock }
    }

    fn bar(&self, minute: i64, quiet: f64) -> Option<Bar> {
        if self.draw(Purpose::Quiet as u8, minute) < quiet {
            return None;
        }
        let (open, close) = (self.price_at(minute), self.price_at(minute.saturating_add(1)));
        let high = open.max(close) * (1.0 + Self::STEP * self.draw(Purpose::Above as u8, minute));
        let low = open.min(close) * (1.0 - Self::STEP * self.draw(Purpose::Below as u8, minute));
        // Rounding keeps the order, so a valid bar stays valid.
        let [open, high, low, close] = [open, high, low, close].map(cents);
        Some(Bar { open, high, low, close, volume: self.volume_of(minute) })
    }

    /// The price at the beginning of a minute, before rounding.
    fn price_at(&self, minute: i64) -> f64 {
        let mut height = Self::STEP;
        let mut length = 1;
        let mut logarithm = 0.0;
        for wave in 0..Self::WAVES {
            logarithm += height * self.noise(wave, minute, length);
            height *= 2.0;
            length *= 4;
        }
        self.price * exp(logarithm)
    }

    /// A smooth line through random numbers from -1 to 1, one every `length` minutes.
    fn noise(&self, wave: u8, minute: i64, length: i64) -> f64 {
        let lane = Purpose::Wave as u8 + wave;
        let (knot, since) = (minute.div_euclid(length), minute.rem_euclid(length));
        let at = since as f64 / length as f64;
        let weight = at * at * (3.0 - 2.0 * at);
        let value = |knot| 2.0 * self.draw(lane, knot) - 1.0;
        value(knot) * (1.0 - weight) + value(knot + 1) * weight
    }

    /// A volume. The sum of four uniform numbers is almost normal, so its exponential is almost log-normal.
    fn volume_of(&self, minute: i64) -> f64 {
        const SQRT_3: f64 = 1.732_050_807_568_877_2;
        let sum: f64 = (0..4).map(|part| self.draw(Purpose::Volume as u8 + part, minute)).sum();
        (self.volume * exp(0.8 * SQRT_3 * (sum - 2.0))).round().max(1.0)
    }

    /// A number from 0 up to but not including 1, always the same for a stock, lane and index.
    fn draw(&self, lane: u8, index: i64) -> f64 {
        let bits = mix(mix(self.stream ^ mix(u64::from(lane))) ^ index.cast_unsigned());
        // A float holds 53 bits exactly.
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One step of SplitMix64 with its finalizer: each bit of the result depends on all bits of the number.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The exponential of a small number, accurate to about 1 %, as (1 + x/1024)¹⁰²⁴: it has the same bits everywhere and is always above 0.
fn exp(x: f64) -> f64 {
    let mut power = 1.0 + x / 1024.0;
    for _ in 0..10 {
        power *= power;
    }
    power
}

fn cents(price: f64) -> f64 {
    (price * 100.0).round() / 100.0
}

/// The source `stocks.simulated`.
struct Simulated {
    seed: u64,
    calendar: String,
    quiet: f64,
    limits: Limits,
}

#[async_trait]
impl Source for Simulated {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        check_minutes(&request.table)?;
        let grid = request.table.grid()?;
        let asked = grid.slots_in(&request.interval);
        self.check_limits(request, asked)?;
        let calendar = context.calendar(&self.calendar)?;
        let said = format!("the simulated market {} ({})", self.seed, self.calendar);
        let now = minute_start(context.clock.now().as_second().div_euclid(MINUTE_S));
        let Some(known) = vouched(calendar.as_ref(), &request.interval, now)? else {
            return Ok(Answer::new(Vec::new()).with_said(said));
        };
        let minutes = expected_slots(grid, grid.slots_in(&known), calendar.as_ref())?;
        let mut symbols: Vec<&str> = Vec::new();
        let mut times = Vec::new();
        let mut bars = Vec::new();
        for key in &request.keys {
            let symbol = key.single().ok_or_else(|| Error::invalid(format!("`{key}` is not one symbol")))?;
            let stock = Stock::new(self.seed, symbol);
            for minute in minutes.iter() {
                if let Some(bar) = stock.bar(minute, self.quiet) {
                    symbols.push(symbol);
                    times.push(grid.time_of(minute).as_microsecond());
                    bars.push(bar);
                }
            }
        }
        let covered = request.keys.iter().map(|key: &Key| Covered { key: key.clone(), interval: known }).collect();
        let rows = super::rows(&request.table.key, &request.table.time, &symbols, times, &bars)?;
        Ok(Answer::new(vec![rows]).with_covered(covered).with_said(said))
    }
}

impl Simulated {
    /// Refuses requests beyond the limits, as a real source would.
    fn check_limits(&self, request: &Request, asked: SlotRange) -> Result<()> {
        let keys = request.keys.len();
        let rows = asked.len().saturating_mul(keys as u64);
        let Limits { rows_per_request, keys_per_request, .. } = self.limits;
        if keys > keys_per_request || rows > rows_per_request {
            return Err(Error::invalid(format!(
                "the request is for {keys} stocks and {rows} rows, but at most {keys_per_request} stocks and {rows_per_request} rows are allowed; request less"
            )));
        }
        Ok(())
    }
}

/// The part of an interval for which the market vouches: its calendar knows the hours, and it is in the past.
fn vouched(calendar: &dyn Calendar, interval: &Interval, now: Timestamp) -> Result<Option<Interval>> {
    let (mut from, mut to) = (interval.from(), interval.to().min(now));
    if let Some((first, last)) = calendar.hours_coverage() {
        let after = last.tomorrow().map_err(|error| Error::invalid(format!("{last} is out of range")).because(error))?;
        from = from.max(day_start(first)?);
        to = to.min(day_start(after)?);
        // The session of a date may begin on the evening before it, or end after it.
        if let Some(unknown) = first.yesterday().ok().and_then(|before| calendar.unknown(before)) {
            from = from.max(unknown.to());
        }
        if let Some(unknown) = calendar.unknown(after) {
            to = to.min(unknown.from());
        }
    }
    Ok(Interval::new(from, to).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_splitmix64_as_published() {
        // These are the first numbers of the reference implementation for the seed 0.
        let mut state = 0u64;
        for expected in [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f] {
            assert_eq!(mix(state), expected);
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    #[test]
    fn the_exponential_is_near_enough_and_never_zero() {
        for x in [-3.0, -0.5, 0.0, 0.8, 4.7] {
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 0.02, "{x}");
        }
    }
}
