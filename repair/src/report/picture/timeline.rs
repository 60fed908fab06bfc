//! When which step worked or waited.

use super::markup::{At, Markup, shortened};
use super::times::{self, duration};
use super::{Picture, float};
use crate::report::model::{Doing, Span, Timeline, TimelineRow};
use repair_core::model::Zone;

const LEFT: f64 = 134.0;
const WIDTH: f64 = 660.0;
const RIGHT: f64 = 130.0;
const ROW: f64 = 24.0;
const TOP: f64 = 22.0;
/// What is shorter is drawn this wide, or it could not be seen.
const LEAST: f64 = 2.0;

/// The class of what a step did, and its word.
fn of(doing: Doing) -> (&'static str, &'static str) {
    match doing {
        Doing::Succeeded => ("done", "succeeded"),
        Doing::Failed => ("broken", "failed"),
        Doing::Working => ("busy", "not ended"),
        Doing::Waited => ("waited", "waited"),
        Doing::Backoff => ("backoff", "waited before a retry"),
    }
}

/// The picture of a timeline.
pub(in crate::report) fn chart(timeline: &Timeline) -> Picture {
    let millis = |span: (jiff::Timestamp, jiff::Timestamp)| span.1.as_millisecond().saturating_sub(span.0.as_millisecond()).max(0);
    let whole = millis((timeline.from, timeline.to)).max(1);
    let share = |at: jiff::Timestamp| {
        let part = millis((timeline.from, at.min(timeline.to)));
        super::float_of(u64::try_from(part).unwrap_or(0)) / super::float_of(u64::try_from(whole).unwrap_or(1))
    };
    let mut body = Markup::default();
    let bottom = TOP + ROW * float(timeline.rows.len());
    let utc = Zone::utc();
    for part in 0..5u32 {
        let x = LEFT + WIDTH * f64::from(part) / 4.0;
        body.empty("path", &[("class", &"grid"), ("d", &format!("M{} {}V{}", At(x), At(TOP - 4.0), At(bottom)))]);
        let at = timeline.from.as_millisecond().saturating_add(whole / 4 * i64::from(part));
        if let Ok(at) = jiff::Timestamp::from_millisecond(at) {
            let label = if part == 0 { format!("{} UTC", times::minute(at, &utc)) } else { format!("+{}", duration(timeline.from, at)) };
            let class = if part == 0 { "soft small" } else { "soft small mid" };
            body.leaf("text", &[("class", &class), ("x", &At(if part == 0 { 0.0 } else { x })), ("y", &"12")], label);
        }
    }
    for (index, row) in timeline.rows.iter().enumerate() {
        let y = TOP + ROW * float(index);
        body.leaf("text", &[("x", &"0"), ("y", &At(y + 15.0))], shortened(&row.step, 16));
        for span in &row.spans {
            let (from, to) = (share(span.from), share(span.to));
            let width = ((to - from) * WIDTH).max(LEAST);
            let x = (LEFT + from * WIDTH).min(LEFT + WIDTH - width);
            let (class, word) = of(span.doing);
            body.open(
                "rect",
                &[("class", &class), ("x", &At(x)), ("y", &At(y + 4.0)), ("width", &At(width)), ("height", &At(ROW - 9.0)), ("rx", &"2")],
            );
            body.leaf("title", &[], format!("{}: {word} for {}, from {}", row.step, duration(span.from, span.to), span.from));
            body.close("rect");
        }
        body.leaf("text", &[("class", &"soft small"), ("x", &At(LEFT + WIDTH + 8.0)), ("y", &At(y + 15.0))], words(row));
    }
    let title = format!("When the steps worked or waited; the run took {}", duration(timeline.from, timeline.to));
    Picture { title, width: LEFT + WIDTH + RIGHT, height: bottom + 4.0, body, cells: None }
}

/// How long a step worked and waited.
fn words(row: &TimelineRow) -> String {
    let sum = |is: fn(&Span) -> bool| {
        let all = row.spans.iter().filter(|span| is(span));
        all.map(|span| span.to.as_millisecond() - span.from.as_millisecond()).sum::<i64>()
    };
    let attempts = row.spans.iter().filter(|span| matches!(span.doing, Doing::Succeeded | Doing::Failed | Doing::Working)).count();
    let waited = sum(|span| matches!(span.doing, Doing::Waited | Doing::Backoff));
    let worked = sum(|span| !matches!(span.doing, Doing::Waited | Doing::Backoff));
    let epoch = jiff::Timestamp::UNIX_EPOCH;
    let long = |millis: i64| jiff::Timestamp::from_millisecond(millis.max(0)).map(|at| duration(epoch, at)).unwrap_or_default();
    match (attempts, waited) {
        (0, _) => format!("waited {}", long(waited)),
        (1, 0) => long(worked),
        (many, 0) => format!("{} in {many} attempts", long(worked)),
        (many, _) => format!("{} in {many}, waited {}", long(worked), long(waited)),
    }
}
