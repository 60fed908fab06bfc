//! The chart of data points by key and stretch of time: a bar for each, below the line of what is expected.

use std::fmt::Write;

use super::markup::{At, Markup, grouped};
use super::times::{self, labels};
use super::{Picture, Size, float, float_of};
use crate::report::model::{Cell, TableReport};

/// With more bars than this, all keys are added up.
pub(in crate::report) const MOST_BARS: usize = 600;
/// How high the bars may be.
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 12.0;

/// One bar, and what it stands for.
struct Bar {
    words: String,
    expected: u64,
    parts: [u64; 3],
}

impl Bar {
    fn of(words: String, cell: Cell) -> Self {
        Self { words, expected: cell.expected.into(), parts: [cell.own, cell.repaired, cell.absent].map(u64::from) }
    }

    fn there(&self) -> u64 {
        self.parts.iter().sum()
    }
}

/// Whether the chart has a bar for each key, or one for all.
pub(in crate::report) fn by_key(table: &TableReport) -> bool {
    table.starts.len() * table.keys.len() <= MOST_BARS
}

/// The chart of a table, in a size.
pub(in crate::report) fn chart(table: &TableReport, size: Size) -> Picture {
    let whole = size.width();
    let zone = times::zone(&table.zone);
    let columns = table.starts.len();
    let words = |column: usize| table.starts.get(column).map(|start| times::minute(*start, &zone)).unwrap_or_default();
    let each = by_key(table);
    let groups: Vec<Vec<Bar>> = (0..columns)
        .map(|column| {
            let cells = table.keys.iter().filter_map(|key| Some((&key.key, *key.cells.get(column)?)));
            if each {
                return cells.map(|(key, cell)| Bar::of(format!("{key}, {}", words(column)), cell)).collect();
            }
            let mut all = Bar { words: words(column), expected: 0, parts: [0; 3] };
            for (_, cell) in cells {
                all.expected += u64::from(cell.expected);
                for (sum, part) in all.parts.iter_mut().zip([cell.own, cell.repaired, cell.absent]) {
                    *sum += u64::from(part);
                }
            }
            vec![all]
        })
        .collect();
    let most = groups.iter().flatten().map(|bar| bar.expected.max(bar.there())).max().unwrap_or(0).max(1);
    let scale = HEIGHT / float_of(most);
    let (group, bars) = ((whole - LEFT) / float(columns.max(1)), groups.iter().map(Vec::len).max().unwrap_or(1).max(1));
    let group = group.min(130.0);
    let space = match () {
        () if each && bars > 1 => (group * 0.12).min(10.0),
        // Bars as thin as this stand side by side.
        () if group < 8.0 => 0.0,
        () => (group * 0.15).min(4.0),
    };
    let width = (group - space) / float(bars);
    let floor = TOP + HEIGHT;
    let right = LEFT + group * float(columns);
    let mut body = Markup::default();
    for share in [0, 1, 2] {
        let value = most * share / 2;
        let y = floor - float_of(value) * scale;
        body.empty("path", &[("class", &"grid"), ("d", &format!("M{} {}H{}", At(LEFT), At(y), At(right)))]);
        body.leaf("text", &[("class", &"soft small end"), ("x", &At(LEFT - 6.0)), ("y", &At(y + 3.6))], grouped(value));
    }
    let mut expected = String::new();
    for (column, bars) in groups.iter().enumerate() {
        let from = LEFT + float(column) * group + space / 2.0;
        for (at, bar) in bars.iter().enumerate() {
            let x = from + float(at) * width;
            let thick = if width > 4.0 { width - 1.0 } else { width + 0.15 };
            body.open("g", &[]);
            if each && size == Size::Wide {
                let [own, repaired, absent] = bar.parts;
                let missing = bar.expected.saturating_sub(bar.there());
                body.leaf(
                    "title",
                    &[],
                    format!(
                        "{}: {own} of {} of its own, {repaired} repaired, {absent} confirmed absent, {missing} missing",
                        bar.words, bar.expected
                    ),
                );
            }
            let mut top = floor;
            for (part, class) in bar.parts.iter().zip(["own", "fix", "absent"]) {
                let high = float_of(*part) * scale;
                if *part > 0 {
                    top -= high;
                    body.empty(
                        "rect",
                        &[("class", &class), ("x", &At(x)), ("y", &At(top)), ("width", &At(thick)), ("height", &At(high.max(0.5)))],
                    );
                }
            }
            let missing = bar.expected.saturating_sub(bar.there());
            if missing > 0 {
                let high = float_of(missing) * scale;
                body.empty(
                    "rect",
                    &[("class", &"lost"), ("x", &At(x)), ("y", &At(top - high)), ("width", &At(thick)), ("height", &At(high.max(0.5)))],
                );
            }
            body.close("g");
            let _ = write!(expected, "M{} {}h{}", At(x - 0.5), At(floor - float_of(bar.expected) * scale), At(thick + 1.0));
        }
    }
    body.empty("path", &[("class", &"expected"), ("d", &expected)]);
    let of = labels(&table.starts, table.bucket, &zone);
    let at = |column: usize| LEFT + float(column) * group;
    let mut free = 0.0;
    for (column, label) in of.fine.iter().enumerate() {
        let (middle, half) = (at(column) + group / 2.0, float(label.len()) * 3.0);
        if middle - half >= free {
            body.leaf("text", &[("class", &"small mid"), ("x", &At(middle)), ("y", &At(floor + 14.0))], label);
            free = middle + half + 5.0;
        }
    }
    let mut free = 0.0;
    for (column, label) in &of.coarse {
        if at(*column) >= free {
            body.leaf("text", &[("class", &"soft small"), ("x", &At(at(*column))), ("y", &At(floor + 28.0))], label);
            free = at(*column) + float(label.len()) * 6.5 + 8.0;
        }
    }
    let what = if each { "key and" } else { "" };
    let title = format!("Data points of table {} by {what} {}, below the line of what is expected", table.table, table.bucket.as_str());
    Picture { title: title.replace("  ", " "), width: right + 4.0, height: floor + 34.0, body, cells: None }
}

/// What the colours mean.
pub(in crate::report) fn legend() -> Picture {
    let mut body = Markup::default();
    let mut x = 0.0;
    for (class, words) in [("own", "the table's own"), ("fix", "repaired"), ("absent", "confirmed absent"), ("lost", "missing")] {
        body.empty("rect", &[("class", &class), ("x", &At(x)), ("y", &"1"), ("width", &"12"), ("height", &"12"), ("rx", &"2")]);
        body.leaf("text", &[("class", &"soft small"), ("x", &At(x + 16.0)), ("y", &"11")], words);
        x += 16.0 + float(words.len()) * 6.1 + 14.0;
    }
    body.empty("path", &[("class", &"expected"), ("d", &format!("M{} 7h12", At(x)))]);
    body.leaf("text", &[("class", &"soft small"), ("x", &At(x + 16.0)), ("y", &"11")], "expected");
    Picture { title: "What the colours mean".to_owned(), width: x + 70.0, height: 15.0, body, cells: None }
}
