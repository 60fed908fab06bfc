//! One series, with its repaired stretches in the colour of their strategy.

use std::fmt::Write;

use super::candles::short;
use super::markup::{At, Markup, shortened};
use super::times;
use super::{Picture, Size, float};
use crate::report::model::{Point, Series};
use repair_core::model::Zone;

const LEFT: f64 = 60.0;
const TOP: f64 = 8.0;
const HEIGHT: f64 = 170.0;
/// How many strategies have a colour of their own; the others share the last one.
const COLOURS: usize = 5;
/// With more days than this, only days are labelled.
const MOST_DAYS: usize = 3;

/// The chart of a series, in a size.
pub(in crate::report) fn chart(series: &Series, zone: &Zone, size: Size) -> Picture {
    let whole = size.width() - 8.0;
    let shown = |point: &Point| point.value.into_iter().chain(point.estimated.into_iter().flatten()).collect::<Vec<f64>>();
    let values = || series.points.iter().flat_map(shown).filter(|value| value.is_finite());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let span = if high > low { high - low } else { 1.0 };
    let step = (whole - LEFT) / float(series.points.len().max(1));
    let x = |index: usize| LEFT + step * (float(index) + 0.5);
    let y = |value: f64| TOP + HEIGHT * (1.0 - (value - low) / span);
    let floor = TOP + HEIGHT;
    let mut body = Markup::default();
    if high >= low {
        for value in [low, f64::midpoint(low, high), high] {
            body.empty("path", &[("class", &"grid"), ("d", &format!("M{} {}H{}", At(LEFT), At(y(value)), At(whole)))]);
            body.leaf("text", &[("class", &"soft small end"), ("x", &At(LEFT - 6.0)), ("y", &At(y(value) + 3.6))], short(value));
        }
    }
    body.empty("path", &[("class", &"line"), ("d", &own(series, &x, &y))]);
    let strategies = strategies(series);
    for (index, strategy) in strategies.iter().enumerate() {
        let number = index.min(COLOURS - 1) + 1;
        let within = within(series, strategy, &x, &y);
        if !within.is_empty() {
            body.empty("path", &[("class", &format!("within s{number}")), ("d", &within)]);
        }
        let class = format!("by s{number}");
        body.empty("path", &[("class", &class), ("d", &repaired(series, strategy, &x, &y))]);
    }
    let mut marks = [String::new(), String::new()];
    for (index, point) in series.points.iter().enumerate().filter(|(_, point)| point.value.is_none()) {
        let of = &mut marks[usize::from(!point.absent)];
        let _ = write!(of, "M{} {}h{}v5h-{}z", At(x(index) - step / 2.0), At(floor + 4.0), At(step.max(1.0)), At(step.max(1.0)));
    }
    for (marks, class) in marks.iter().zip(["absent", "lost"]) {
        if !marks.is_empty() {
            body.empty("path", &[("class", &class), ("d", marks)]);
        }
    }
    let (mut free, mut day) = (0.0, None);
    let dates: std::collections::BTreeSet<_> = series.points.iter().map(|point| zone.local(point.at).date()).collect();
    let by_day = dates.len() > MOST_DAYS;
    for (index, point) in series.points.iter().enumerate() {
        let local = zone.local(point.at);
        let is_new = day.replace(local.date()).is_none_or(|last| last != local.date());
        if (is_new || !by_day && local.minute() == 0) && x(index) >= free {
            let label = local
                .strftime(if by_day {
                    "%Y-%m-%d"
                } else if is_new {
                    "%Y-%m-%d %H:%M"
                } else {
                    "%H:%M"
                })
                .to_string();
            let wide = float(label.len()) * 5.6;
            if x(index) + wide > whole + 8.0 {
                continue;
            }
            body.leaf("text", &[("class", &"soft small"), ("x", &At(x(index))), ("y", &At(floor + 22.0))], &label);
            free = x(index) + wide + 12.0;
        }
    }
    let key = shortened(&series.key.to_string(), 40);
    let count = series.points.iter().filter(|point| point.repaired_by.is_some()).count();
    let span = series.points.first().zip(series.points.last());
    let span = span
        .map(|(first, last)| format!(" from {} to {}", times::minute(first.at, zone), times::minute(last.at, zone)))
        .unwrap_or_default();
    let title = format!("Column {} of {key}{span}; {count} of {} slots are repaired", series.column, series.points.len());
    Picture { title, width: whole + 8.0, height: floor + 28.0, body, cells: None }
}

/// A line for each estimate of a strategy, from one end of the interval of the true value to the other.
fn within(series: &Series, strategy: &str, x: &impl Fn(usize) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (index, point) in series.points.iter().enumerate().filter(|(_, point)| point.repaired_by.as_deref() == Some(strategy)) {
        if let Some([low, high]) = point.estimated {
            let _ = write!(path, "M{} {}V{}", At(x(index)), At(y(low)), At(y(high)));
        }
    }
    path
}

/// The strategies of the repaired points, by name.
pub(in crate::report) fn strategies(series: &Series) -> Vec<&str> {
    let mut all: Vec<&str> = series.points.iter().filter_map(|point| point.repaired_by.as_deref()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The line through the table's own points; it has a gap where there is none.
fn own(series: &Series, x: &impl Fn(usize) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (index, point) in series.points.iter().enumerate() {
        match point.value.filter(|value| value.is_finite() && point.repaired_by.is_none()) {
            Some(value) => {
                let _ = write!(path, "{}{} {}", if drawing { "L" } else { "M" }, At(x(index)), At(y(value)));
                drawing = true;
            }
            None => drawing = false,
        }
    }
    path
}

/// The repaired stretches of a strategy, each joined to the points beside it.
fn repaired(series: &Series, strategy: &str, x: &impl Fn(usize) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let is = |point: &Point| point.repaired_by.as_deref() == Some(strategy);
    let value = |index: usize| series.points.get(index).and_then(|point| point.value).filter(|value| value.is_finite());
    let mut last = None;
    for (index, _) in series.points.iter().enumerate().filter(|(_, point)| is(point)) {
        let Some(here) = value(index) else { continue };
        if last != Some(index.wrapping_sub(1)) {
            let before = index.checked_sub(1).and_then(|before| Some((before, value(before)?)));
            let (from, at) = before.unwrap_or((index, here));
            let _ = write!(path, "M{} {}", At(x(from)), At(y(at)));
        }
        let _ = write!(path, "L{} {}", At(x(index)), At(y(here)));
        let goes_on = series.points.get(index + 1).is_some_and(&is);
        if let (false, Some(after)) = (goes_on, value(index + 1)) {
            let _ = write!(path, "L{} {}", At(x(index + 1)), At(y(after)));
        }
        last = Some(index);
    }
    path
}
