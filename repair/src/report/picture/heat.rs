//! The heat map: how complete each key is in each stretch of time. Cells of one colour that lie side by side are one stroke, and all
//! strokes of a colour are one path, so that a picture of 200,000 cells has eight elements.

use std::fmt::Write;

use super::markup::{At, Markup, count, grouped, shortened};
use super::times::{self, labels};
use super::{Cells, Picture, float};
use crate::report::model::{Cell, TableReport};

/// Which of the two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum When {
    /// What the table holds of its own.
    Before,
    /// The same, with repairs and confirmed absences.
    After,
}

/// A colour.
type Shade = usize;

/// The classes of the colours, what they mean, and whether text on them is light.
pub(in crate::report) const SHADES: [(&str, &str, bool); 8] = [
    ("full", "complete", true),
    ("healed", "complete, with repairs or confirmed absences", false),
    ("p95", "95 % and more", false),
    ("p80", "80 % and more", false),
    ("p50", "half and more", false),
    ("p1", "less than half", true),
    ("p0", "nothing at all", true),
    ("none", "nothing is expected", false),
];
const NONE: Shade = 7;

/// The colour of a cell.
fn shade(cell: Cell, when: When) -> Shade {
    let there = match when {
        When::Before => cell.own,
        When::After => cell.expected - cell.missing(),
    };
    let (there, expected) = (u64::from(there), u64::from(cell.expected));
    match () {
        () if expected == 0 => NONE,
        () if cell.own >= cell.expected => 0,
        () if there >= expected => 1,
        () if there * 100 >= expected * 95 => 2,
        () if there * 100 >= expected * 80 => 3,
        () if there * 2 >= expected => 4,
        () if there > 0 => 5,
        () => 6,
    }
}

/// How wide a character of a label of time is, and one of a key: capitals are wider than digits.
const CHARACTER: f64 = 6.7;
const LETTER: f64 = 9.2;
/// How many characters of a key are shown.
const KEY_CHARACTERS: usize = 18;
/// How wide the cells may be together.
const WIDTH: f64 = 720.0;
/// How high the cells may be together, if they are many.
const HEIGHT: f64 = 900.0;
/// The labels above.
const TOP: f64 = 36.0;

/// The map of a table.
pub(in crate::report) fn map(table: &TableReport, when: When) -> Picture {
    let (columns, rows) = (table.starts.len(), table.keys.len());
    let keys: Vec<String> = table.keys.iter().map(|row| shortened(&row.key.to_string(), KEY_CHARACTERS)).collect();
    let left = keys.iter().map(|key| float(key.chars().count())).fold(3.0, f64::max) * LETTER + 8.0;
    let width = (WIDTH / float(columns.max(1))).clamp(0.5, 44.0);
    let height = (HEIGHT / float(rows.max(1))).clamp(1.0, 20.0);
    let numbers = width >= 34.0 && height >= 16.0;
    let mut body = Markup::default();
    let of = labels(&table.starts, table.bucket, &times::zone(&table.zone));
    let at = |column: usize| left + float(column) * width;
    let mut free = 0.0;
    for (column, label) in &of.coarse {
        if at(*column) >= free {
            body.leaf("text", &[("x", &At(at(*column))), ("y", &"12")], label);
            free = at(*column) + float(label.len()) * CHARACTER + 8.0;
        }
    }
    let mut free = 0.0;
    for (column, label) in of.fine.iter().enumerate() {
        let (middle, half) = (at(column) + width / 2.0, float(label.len()) * 3.0);
        if middle - half >= free {
            body.leaf("text", &[("class", &"soft small mid"), ("x", &At(middle)), ("y", &"28")], label);
            free = middle + half + 5.0;
        }
    }
    let mut free = 0.0;
    for (row, key) in keys.iter().enumerate() {
        let middle = TOP + (float(row) + 0.5) * height;
        if middle - 7.0 >= free {
            body.leaf("text", &[("class", &"end"), ("x", &At(left - 6.0)), ("y", &At(middle + 4.0))], key);
            free = middle + 7.0;
        }
    }
    // A stroke is half a cell below the line on which its cells begin.
    let place = format!("translate({} {}) scale({} {})", At(left), At(TOP + height / 2.0), Exact(width), Exact(height));
    body.open("g", &[("class", &"heat"), ("transform", &place)]);
    let common = most_common(table, when);
    let class = SHADES[common].0;
    body.empty("rect", &[("class", &class), ("y", &"-0.5"), ("width", &columns), ("height", &rows)]);
    for (path, (class, ..)) in strokes(table, when, common).iter().zip(SHADES) {
        if !path.is_empty() {
            body.empty("path", &[("class", &class), ("d", path)]);
        }
    }
    body.close("g");
    if width >= 8.0 && height >= 8.0 {
        let mut lines = String::new();
        for column in 1..columns {
            let _ = write!(lines, "M{} {}V{}", At(at(column)), At(TOP), At(TOP + float(rows) * height));
        }
        for row in 1..rows {
            let _ = write!(lines, "M{} {}H{}", At(left), At(TOP + float(row) * height), At(at(columns)));
        }
        body.empty("path", &[("class", &"gap"), ("d", &lines)]);
    }
    if numbers {
        for (row, of_key) in table.keys.iter().enumerate() {
            let y = TOP + (float(row) + 0.5) * height + 3.8;
            for (column, cell) in of_key.cells.iter().enumerate().filter(|(_, cell)| cell.expected > 0) {
                let class = if SHADES[shade(*cell, when)].2 { "on-dark small mid" } else { "on-light small mid" };
                body.leaf("text", &[("class", &class), ("x", &At(at(column) + width / 2.0)), ("y", &At(y))], in_cell(*cell, when));
            }
        }
    }
    let zone = times::zone(&table.zone);
    let cells = Cells {
        place: [left, TOP, width, height],
        rows: table.keys.iter().map(|row| shortened(&row.key.to_string(), 80)).collect(),
        columns: table.starts.iter().map(|start| times::minute(*start, &zone)).collect(),
    };
    Picture { title: title(table, when), width: at(columns) + 1.0, height: TOP + float(rows) * height + 1.0, body, cells: Some(cells) }
}

/// The rows of a cell; confirmed absences are added with a plus.
fn in_cell(cell: Cell, when: When) -> String {
    match when {
        When::Before => cell.own.to_string(),
        When::After if cell.absent > 0 => format!("{}+{}", cell.own + cell.repaired, cell.absent),
        When::After => (cell.own + cell.repaired).to_string(),
    }
}

/// What a map shows, in words.
pub(in crate::report) fn title(table: &TableReport, when: When) -> String {
    let (total, bucket) = (&table.total, table.bucket.as_str());
    let (complete, before) = match when {
        When::Before => (total.complete_before, "before repairs"),
        When::After => (total.complete_after, "with repairs and confirmed absences"),
    };
    format!(
        "Completeness of table {} {before}: {} of {} of {} are complete",
        table.table,
        grouped(complete),
        count(total.cells, &format!("{bucket}-cell")),
        count(u64::try_from(table.all_keys).unwrap_or(u64::MAX), "key"),
    )
}

/// The colour of most cells, which is painted first, as one rectangle.
fn most_common(table: &TableReport, when: When) -> Shade {
    let mut counts = [0u64; 8];
    table.keys.iter().flat_map(|key| &key.cells).for_each(|cell| counts[shade(*cell, when)] += 1);
    counts.iter().enumerate().max_by_key(|(_, count)| **count).map_or(NONE, |(shade, _)| shade)
}

/// The path of each colour but the common one. Within a path every number is relative to the last one, which keeps it short.
fn strokes(table: &TableReport, when: When, common: Shade) -> [String; 8] {
    let mut paths: [String; 8] = Default::default();
    // Where the pen of each colour is.
    let mut pens: [(usize, usize); 8] = [(0, 0); 8];
    for (row, of_key) in table.keys.iter().enumerate() {
        let mut cells = of_key.cells.iter().map(|cell| shade(*cell, when)).enumerate().peekable();
        while let Some((first, of)) = cells.next() {
            let mut end = first + 1;
            while cells.next_if(|(_, next)| *next == of).is_some() {
                end += 1;
            }
            if of == common {
                continue;
            }
            let (path, pen) = (&mut paths[of], &mut pens[of]);
            let (down, right) = (row - pen.1, i64::try_from(first).unwrap_or(0) - i64::try_from(pen.0).unwrap_or(0));
            let _ = write!(path, "m{right} {down}h{}", end - first);
            *pen = (end, row);
        }
    }
    paths
}

/// A factor, with three digits after the point.
pub(super) struct Exact(pub(super) f64);

impl std::fmt::Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", (self.0 * 1_000.0).round() / 1_000.0)
    }
}

/// The colours of a table's two maps, and what they mean.
pub(in crate::report) fn shades_of(table: &TableReport) -> Vec<(&'static str, &'static str)> {
    let mut seen = [false; 8];
    for cell in table.keys.iter().flat_map(|key| &key.cells) {
        [When::Before, When::After].into_iter().for_each(|when| seen[shade(*cell, when)] = true);
    }
    // What is good and what is bad is said in any case.
    (seen[0], seen[6]) = (true, true);
    SHADES.iter().zip(seen).filter(|(_, seen)| *seen).map(|((class, words, _), _)| (*class, *words)).collect()
}

/// What the colours mean, as a picture.
pub(in crate::report) fn legend(table: &TableReport) -> Picture {
    let mut body = Markup::default();
    let mut x = 0.0;
    for (class, words) in shades_of(table) {
        let words = if class == "healed" { "complete with repairs" } else { words };
        body.empty("rect", &[("class", &class), ("x", &At(x)), ("y", &"1"), ("width", &"12"), ("height", &"12"), ("rx", &"2")]);
        body.leaf("text", &[("class", &"soft small"), ("x", &At(x + 16.0)), ("y", &"11")], words);
        x += 16.0 + float(words.len()) * 6.1 + 14.0;
    }
    Picture { title: "What the colours mean".to_owned(), width: x, height: 15.0, body, cells: None }
}
