//! The profile of a series: what repeats with its periods, such as the hours of a day and the days of a week.
//!
//! The shortest period has up to [`MOST_BINS`] places of its own, with straight lines between them where slots are closer. A longer period that is
//! a multiple of a shorter one has one place for each of these, so a day and a week have 24 hours and 7 days, not 168 hours: a window of a few
//! weeks holds enough of each.

/// The maximum number of places of one period.
pub(super) const MOST_BINS: usize = 24;

/// The places of one period.
#[derive(Debug, Clone, PartialEq)]
struct Bins {
    period_s: i64,
    count: usize,
    /// Whether a time between two places belongs to both.
    is_smooth: bool,
}

/// What repeats, with times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    bins: Vec<Bins>,
    /// For each slot, its time on the clock of the zone, in seconds.
    times_s: Vec<i64>,
}

impl Profile {
    /// The profile of slots at these times, with these periods: those that are at least two slots long, and of which the slots span at least two.
    pub(crate) fn new(step_s: i64, periods_s: &[i64], times_s: Vec<i64>) -> Self {
        let span_s = times_s.first().zip(times_s.last()).map_or(0, |(first, last)| last - first + step_s);
        let mut periods: Vec<i64> = periods_s.iter().copied().filter(|period| *period >= 2 * step_s && 2 * period <= span_s).collect();
        periods.sort_unstable();
        periods.dedup();
        let mut bins: Vec<Bins> = Vec::with_capacity(periods.len());
        for period_s in periods {
            let shorter = bins.iter().rev().map(|bins| bins.period_s).find(|shorter| period_s % shorter == 0);
            let unit_s = shorter.unwrap_or(step_s);
            let whole = usize::try_from(period_s / unit_s).unwrap_or(MOST_BINS);
            let count = whole.min(MOST_BINS);
            bins.push(Bins { period_s, count, is_smooth: shorter.is_none() && (whole > count || period_s % unit_s != 0) });
        }
        Self { bins, times_s }
    }

    /// How many columns a row of the profile has.
    pub(super) fn width(&self) -> usize {
        self.bins.iter().map(|bins| bins.count).sum()
    }

    /// The shortest period in slots of a length, if there is one.
    pub(super) fn period_slots(&self, step_s: i64) -> Option<usize> {
        let bins = self.bins.first()?;
        usize::try_from(bins.period_s / step_s.max(1)).ok().filter(|slots| *slots > 1)
    }

    /// Adds the columns of a slot to a row: each place of a period, by how much the slot belongs to it.
    pub(super) fn extend(&self, at: usize, row: &mut Vec<f64>) {
        let time_s = self.times_s.get(at).copied().unwrap_or_default();
        for bins in &self.bins {
            let first = row.len();
            row.resize(first + bins.count, 0.0);
            let [(one, part), (other, rest)] = bins.places(time_s);
            if let Some(value) = row.get_mut(first + one) {
                *value += part;
            }
            if let Some(value) = row.get_mut(first + other) {
                *value += rest;
            }
        }
    }

    /// The nearest place of the shortest period, or 0, and how many there are.
    fn place(&self, at: usize) -> usize {
        let (Some(bins), Some(&time_s)) = (self.bins.first(), self.times_s.get(at)) else { return 0 };
        let [(one, part), (other, _)] = bins.places(time_s);
        if part >= 0.5 { one } else { other }
    }

    /// A series without holes: where it has no value, the median of its place in the shortest period, with the level of the values before and
    /// after.
    pub(super) fn filled(&self, series: &[f64]) -> Vec<f64> {
        let medians = self.medians(series);
        let usual = |at: usize| medians.get(self.place(at)).copied().unwrap_or_default();
        let known: Vec<usize> = (0..series.len()).filter(|&at| series.get(at).is_some_and(|value| value.is_finite())).collect();
        let mut filled = series.to_vec();
        let mut next = 0usize;
        for (at, value) in filled.iter_mut().enumerate() {
            if value.is_finite() {
                next += 1;
                continue;
            }
            let off = |of: usize| series.get(of).map_or(0.0, |value| value - usual(of));
            let (before, after) = (next.checked_sub(1).and_then(|last| known.get(last)), known.get(next));
            let level = match (before, after) {
                (Some(&before), Some(&after)) => {
                    let part = part_of(at - before, after - before);
                    off(before) * (1.0 - part) + off(after) * part
                }
                (Some(&one), None) | (None, Some(&one)) => off(one),
                (None, None) => 0.0,
            };
            *value = usual(at) + level;
        }
        filled
    }

    /// The median of the values of each place of the shortest period; of all, where a place has none.
    fn medians(&self, series: &[f64]) -> Vec<f64> {
        let mut of_place = vec![Vec::new(); self.bins.first().map_or(1, |bins| bins.count)];
        for (at, value) in series.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            if let Some(values) = of_place.get_mut(self.place(at)) {
                values.push(*value);
            }
        }
        let all = super::median(&mut series.iter().copied().filter(|value| value.is_finite()).collect::<Vec<_>>()).unwrap_or_default();
        of_place.iter_mut().map(|values| super::median(values).unwrap_or(all)).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of slots are far below 2^52")]
fn part_of(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

impl Bins {
    /// The two places next to a time, and how much it belongs to each.
    fn places(&self, time_s: i64) -> [(usize, f64); 2] {
        let phase_s = time_s.rem_euclid(self.period_s);
        let count = i64::try_from(self.count).unwrap_or(1);
        let place = usize::try_from(phase_s * count / self.period_s).unwrap_or(0);
        if !self.is_smooth {
            return [(place, 1.0), (place, 0.0)];
        }
        let rest_s = phase_s * count % self.period_s;
        #[expect(clippy::cast_precision_loss, reason = "periods in seconds are far below 2^52")]
        let part = rest_s as f64 / self.period_s as f64;
        [(place, 1.0 - part), ((place + 1) % self.count, part)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;
    const DAY: i64 = 86_400;

    fn hours(count: i64) -> Vec<i64> {
        (0..count).map(|hour| hour * HOUR).collect()
    }

    #[test]
    fn a_day_and_a_week_of_hours_have_31_places() {
        let profile = Profile::new(HOUR, &[7 * DAY, DAY], hours(24 * 28));
        assert_eq!((profile.width(), profile.period_slots(HOUR)), (31, Some(24)));
        let mut row = Vec::new();
        profile.extend(24 * 3 + 5, &mut row);
        let places: Vec<usize> = (0..31).filter(|&at| row[at] != 0.0).collect();
        assert_eq!(places, [5, 24 + 3]);
        assert_eq!(row.iter().sum::<f64>(), 2.0);
    }

    #[test]
    fn a_period_must_be_seen_twice_and_be_longer_than_a_slot() {
        assert_eq!(Profile::new(HOUR, &[7 * DAY, DAY], hours(24 * 13)).width(), 24);
        assert_eq!(Profile::new(DAY, &[7 * DAY, DAY], (0..100).map(|day| day * DAY).collect()).width(), 7);
        assert_eq!(Profile::new(HOUR, &[], hours(100)).width(), 0);
        assert_eq!(Profile::new(HOUR, &[DAY], Vec::new()).width(), 0);
    }

    #[test]
    fn slots_between_places_belong_to_both() {
        let profile = Profile::new(60, &[DAY], (0..3 * 1_440).map(|minute| minute * 60).collect());
        let mut row = Vec::new();
        profile.extend(23 * 60 + 45, &mut row);
        assert_eq!((row.len(), row[23], row[0]), (24, 0.25, 0.75));
    }

    #[test]
    fn a_filled_series_follows_the_profile_and_the_level_around() {
        let profile = Profile::new(HOUR, &[DAY], hours(24 * 10));
        let usual = |at: usize| if at % 24 < 12 { 10.0 } else { 20.0 };
        let mut series: Vec<f64> = (0..240).map(usual).collect();
        series.iter_mut().skip(120).take(30).for_each(|value| *value += 4.0);
        series[100..140].fill(f64::NAN);
        let filled = profile.filled(&series);
        assert!(filled.iter().all(|value| value.is_finite()));
        assert_eq!(filled[..100], series[..100]);
        assert!((filled[119] - (usual(119) + 2.0)).abs() < 0.2, "half of the step, half-way: {}", filled[119]);
        assert_eq!(profile.filled(&[f64::NAN; 4]), [0.0; 4]);
    }
}
