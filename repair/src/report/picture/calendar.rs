//! The status of a table as a calendar: a row for each key, a column for each day, coloured by what a reader should know of the day.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::ToSpan;
use jiff::civil::Date;

use super::heat::Exact;
use super::markup::{At, Markup, count, grouped, shortened};
use super::{Picture, float};
use crate::status::{States, TableStatus};

/// The classes of the colours, and what they mean: the worst first, in the order of [`States::by_name`].
const SHADES: [(&str, &str); 12] = [
    ("st-missing", "missing"),
    ("st-wrong", "wrong"),
    ("st-suspect", "suspect"),
    ("st-unexamined", "not examined for gaps"),
    ("st-given-up", "given up"),
    ("st-frozen", "frozen"),
    ("st-elsewhere", "handled elsewhere"),
    ("absent", "mostly absent"),
    ("healed", "repaired"),
    ("full", "complete"),
    ("none", "nothing is expected"),
    ("st-never", "never looked at"),
];
/// From here on, nothing is open or set aside.
const ABSENT: usize = 7;
const REPAIRED: usize = 8;
const COMPLETE: usize = 9;
const NOTHING: usize = 10;
const NEVER: usize = 11;

/// More keys would be lower than a pixel, and more days narrower than half of one.
const MOST_KEYS: usize = 500;
const MOST_DAYS: usize = 1_440;
const KEY_CHARACTERS: usize = 18;
const LETTER: f64 = 9.2;
const CHARACTER: f64 = 6.7;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 900.0;
const TOP: f64 = 36.0;

/// The colour of a day: by the worst state that a slot of it is in, as long as something is open or set aside, however little of it. Of the days that need
/// nobody, one counts as absent only if most of its slots are: that a few minutes had no trade is nothing to see, but that almost all had none is. Any
/// other is repaired if one of its slots is.
fn shade(states: &States) -> usize {
    if states.expected == 0 {
        return NOTHING;
    }
    let worst = states.by_name().iter().take(ABSENT).position(|(_, slots)| *slots > 0);
    worst.unwrap_or(match states {
        States { absent, expected, .. } if *absent > expected / 2 => ABSENT,
        States { repaired: 1.., .. } => REPAIRED,
        _ => COMPLETE,
    })
}

/// What the picture shows, row by row.
struct Grid {
    dates: Vec<Date>,
    rows: Vec<(String, Vec<usize>)>,
    all_keys: usize,
}

impl Grid {
    fn of(table: &TableStatus) -> Option<Self> {
        let (first, last) = table.days?;
        let mut dates: Vec<Date> = first.series(1.day()).take_while(|date| *date <= last).collect();
        dates.drain(..dates.len().saturating_sub(MOST_DAYS));
        let (&from, places) = (dates.first()?, dates.len());
        let mut keys: Vec<_> = table.keys.iter().collect();
        if keys.len() > MOST_KEYS {
            keys.sort_by_cached_key(|key| std::cmp::Reverse(key.total.open()));
            keys.truncate(MOST_KEYS);
            keys.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let row = |key: &crate::status::KeyStatus| {
            let mut row = vec![NEVER; places];
            for day in &key.days {
                let place = usize::try_from((day.date - from).get_days()).ok();
                place.and_then(|place| row.get_mut(place)).into_iter().for_each(|cell| *cell = shade(&day.states));
            }
            (shortened(&key.key.to_string(), KEY_CHARACTERS), row)
        };
        Some(Self { rows: keys.into_iter().map(row).collect(), dates, all_keys: table.keys.len() })
    }

    /// The path of each colour. Within a path every number is relative to the last one, which keeps it short.
    fn strokes(&self) -> [String; 12] {
        let mut paths: [String; 12] = Default::default();
        let mut pens = [(0usize, 0usize); 12];
        for (number, (_, row)) in self.rows.iter().enumerate() {
            let mut cells = row.iter().copied().enumerate().peekable();
            while let Some((first, of)) = cells.next() {
                let mut end = first + 1;
                while cells.next_if(|(_, next)| *next == of).is_some() {
                    end += 1;
                }
                let (Some(path), Some(pen)) = (paths.get_mut(of), pens.get_mut(of)) else { continue };
                let right = i64::try_from(first).unwrap_or(0) - i64::try_from(pen.0).unwrap_or(0);
                let _ = write!(path, "m{right} {}h{}", number - pen.1, end - first);
                *pen = (end, number);
            }
        }
        paths
    }
}

/// The calendar of a table; `None` if no day was looked at.
pub(crate) fn map(table: &TableStatus) -> Option<Picture> {
    let grid = Grid::of(table)?;
    let (columns, rows) = (grid.dates.len(), grid.rows.len());
    let left = grid.rows.iter().map(|(key, _)| float(key.chars().count())).fold(3.0, f64::max) * LETTER + 8.0;
    let width = (WIDTH / float(columns.max(1))).clamp(0.5, 44.0);
    let height = (HEIGHT / float(rows.max(1))).clamp(1.0, 20.0);
    let at = |column: usize| left + float(column) * width;
    let mut body = Markup::default();
    let (mut free, mut month) = (0.0, String::new());
    for (column, date) in grid.dates.iter().enumerate() {
        let label = date.strftime("%Y-%m").to_string();
        if label != month && at(column) >= free {
            body.leaf("text", &[("x", &At(at(column))), ("y", &"12")], &label);
            free = at(column) + float(label.len()) * CHARACTER + 8.0;
        }
        month = label;
    }
    let of_months = free;
    let mut free = 0.0;
    for (column, date) in grid.dates.iter().enumerate() {
        let middle = at(column) + width / 2.0;
        if middle - 7.0 >= free {
            body.leaf("text", &[("class", &"soft small mid"), ("x", &At(middle)), ("y", &"28")], date.strftime("%d"));
            free = middle + 12.0;
        }
    }
    let mut free = 0.0;
    for (row, (key, _)) in grid.rows.iter().enumerate() {
        let middle = TOP + (float(row) + 0.5) * height;
        if middle - 7.0 >= free {
            body.leaf("text", &[("class", &"end"), ("x", &At(left - 6.0)), ("y", &At(middle + 4.0))], key);
            free = middle + 7.0;
        }
    }
    // A stroke is half a cell below the line on which its cells begin.
    let place = format!("translate({} {}) scale({} {})", At(left), At(TOP + height / 2.0), Exact(width), Exact(height));
    body.open("g", &[("class", &"heat"), ("transform", &place)]);
    let paths = grid.strokes();
    for (path, (class, _)) in paths.iter().zip(SHADES) {
        if !path.is_empty() {
            body.empty("path", &[("class", &class), ("d", path)]);
        }
    }
    body.close("g");
    let bottom = TOP + float(rows) * height;
    if width >= 8.0 && height >= 8.0 {
        let mut lines = String::new();
        (1..columns).for_each(|column| _ = write!(lines, "M{} {}V{}", At(at(column)), At(TOP), At(bottom)));
        (1..rows).for_each(|row| _ = write!(lines, "M{} {}H{}", At(left), At(TOP + float(row) * height), At(at(columns))));
        body.empty("path", &[("class", &"gap"), ("d", &lines)]);
    }
    let right = legend(&paths, &mut body, bottom + 10.0).max(at(columns)).max(of_months);
    Some(Picture { title: title(table, &grid), width: right + 1.0, height: bottom + 26.0, body, cells: None })
}

/// What the colours mean that are there. Returns how far it reaches.
fn legend(paths: &[String; 12], body: &mut Markup, y: f64) -> f64 {
    let mut x = 0.0;
    for ((class, words), _) in SHADES.iter().zip(paths).filter(|(_, path)| !path.is_empty()) {
        body.empty("rect", &[("class", class), ("x", &At(x)), ("y", &At(y)), ("width", &"12"), ("height", &"12"), ("rx", &"2")]);
        body.leaf("text", &[("class", &"soft small"), ("x", &At(x + 16.0)), ("y", &At(y + 10.0))], words);
        x += 16.0 + float(words.len()) * 6.1 + 14.0;
    }
    x
}

/// What the picture shows, in words: for those who do not see it.
fn title(table: &TableStatus, grid: &Grid) -> String {
    let mut by_shade: BTreeMap<usize, u64> = BTreeMap::new();
    grid.rows.iter().flat_map(|(_, row)| row).for_each(|shade| *by_shade.entry(*shade).or_default() += 1);
    let states: Vec<String> =
        by_shade.iter().filter_map(|(shade, days)| SHADES.get(*shade).map(|(_, words)| format!("{} {words}", grouped(*days)))).collect();
    let dates = grid.dates.first().zip(grid.dates.last()).map(|(first, last)| format!(" from {first} to {last}")).unwrap_or_default();
    let shown = if grid.rows.len() < grid.all_keys { format!(" (the worst {} are drawn)", grid.rows.len()) } else { String::new() };
    format!(
        "Status of table {}, {}{shown}{dates}, by what is worst of each key and day: {}",
        table.table,
        count(u64::try_from(grid.all_keys).unwrap_or(u64::MAX), "key"),
        states.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_the_colour_of_what_a_reader_should_know() {
        let of = |states: States| {
            let others: u64 = states.by_name().iter().map(|(_, slots)| slots).sum();
            SHADES[shade(&States { expected: others, ..states })].1
        };
        let none = States::default();
        assert_eq!(of(none), "nothing is expected");
        assert_eq!(of(States { complete: 390, ..none }), "complete");
        // What needs somebody counts, however little of it there is; what a person has decided counts next.
        assert_eq!(of(States { complete: 389, missing: 1, ..none }), "missing");
        assert_eq!(of(States { wrong: 200, missing: 1, ..none }), "missing");
        assert_eq!(of(States { repaired: 389, wrong: 1, suspect: 5, ..none }), "wrong");
        assert_eq!(of(States { frozen: 389, suspect: 1, ..none }), "suspect");
        assert_eq!(of(States { unexamined: 1, absent: 389, ..none }), "not examined for gaps");
        assert_eq!(of(States { given_up: 1, frozen: 10, elsewhere: 100, complete: 1_000, ..none }), "given up");
        assert_eq!(of(States { elsewhere: 1, absent: 389, ..none }), "handled elsewhere");
        // Of days that need nobody, a few absences are nothing to see.
        assert_eq!(of(States { repaired: 389, absent: 1, ..none }), "repaired");
        assert_eq!(of(States { complete: 389, absent: 1, ..none }), "complete");
        assert_eq!(of(States { complete: 389, repaired: 1, ..none }), "repaired");
        assert_eq!(of(States { complete: 195, absent: 195, ..none }), "complete");
        assert_eq!(of(States { complete: 194, absent: 196, ..none }), "mostly absent");
        assert_eq!(of(States { repaired: 10, absent: 380, ..none }), "mostly absent");
        assert_eq!(of(States { absent: 1, ..none }), "mostly absent");
    }

    #[test]
    fn the_colours_are_in_the_order_of_the_states() {
        let names: Vec<&str> = States::default().by_name().map(|(name, _)| name).to_vec();
        assert_eq!((names[ABSENT], names[REPAIRED], names[COMPLETE]), ("absent", "repaired", "complete"));
        assert_eq!((SHADES[NOTHING].0, SHADES[NEVER].0), ("none", "st-never"));
    }
}
