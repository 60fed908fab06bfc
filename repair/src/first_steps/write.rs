//! The workflow as text, with a comment for each guess.

use std::fmt::Write;

use repair_core::model::{Csv, Encoding, TimeForm};
use repair_core::text::visible_json;

use super::series::{CalendarGuess, Doubled, times_as};
use super::{Guess, Picture, is_plain_time, zone_to_write};

/// How many slots a gap may have that a line is drawn through.
const BRIDGED_SLOTS: i64 = 6;

/// A comment is no longer than this.
const COMMENT: usize = 130;

/// A text as YAML takes it.
fn quoted(text: &str) -> String {
    let is_plain = text.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { visible_json(&serde_json::Value::from(text).to_string()).into_owned() }
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// The lines of a text.
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, indent: usize, text: &str) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.text, "{:indent$}{text}", "");
    }

    /// A line, under the reasons of the guesses about it.
    fn guessed(&mut self, guesses: &[Guess], what: &[&str], text: &str) {
        for guess in guesses.iter().filter(|guess| what.contains(&guess.what.as_str())) {
            let named = if what.len() > 1 { format!("{} {}: ", guess.what, guess.value) } else { String::new() };
            self.comment(4, &format!("{}: {named}{}", capital(guess.sure.as_str()), guess.why));
        }
        self.line(4, text);
    }

    /// What is between brackets, on as many lines as it takes.
    fn list(&mut self, open: &str, items: &[String], close: &str) {
        let mut line = open.to_owned();
        for (nth, item) in items.iter().enumerate() {
            if line.len() + item.len() > 120 {
                self.line(4, line.trim_end());
                line = "  ".to_owned();
            }
            line.push_str(item);
            line.push_str(if nth + 1 < items.len() { ", " } else { close });
        }
        self.line(4, &line);
    }

    fn comment(&mut self, indent: usize, text: &str) {
        let mut line = String::new();
        for word in text.split(' ') {
            if !line.is_empty() && indent + 2 + line.chars().count() + 1 + word.chars().count() > COMMENT {
                self.line(indent, &format!("# {line}"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(indent, &format!("# {line}"));
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// How duplicates are resolved, as `keep` takes it.
pub(super) fn keep_of(picture: &Picture, doubled: Doubled) -> String {
    match picture.version.as_slice() {
        _ if doubled.are_same => "first".to_owned(),
        [] => "mean".to_owned(),
        [one] => format!("{{ latest_by: {} }}", quoted(one)),
        several => format!("{{ latest_by: {} }}", list(several)),
    }
}

fn csv_of(csv: &Csv) -> Option<String> {
    let plain = Csv::default();
    let mark = |mark: char| match mark {
        '\t' => "tab".to_owned(),
        ' ' => "space".to_owned(),
        other => serde_json::Value::from(other.to_string()).to_string(),
    };
    let mut parts = Vec::new();
    if csv.delimiter != plain.delimiter {
        parts.push(format!("delimiter: {}", mark(csv.delimiter)));
    }
    if csv.quote != plain.quote {
        parts.push(format!("quote: {}", csv.quote.map_or_else(|| "none".to_owned(), mark)));
    }
    if csv.decimal != plain.decimal {
        parts.push(format!("decimal: {}", mark(csv.decimal)));
    }
    if let Some(thousands) = csv.thousands {
        parts.push(format!("thousands: {}", mark(thousands)));
    }
    if csv.encoding != Encoding::Utf8 {
        parts.push(format!("encoding: {}", csv.encoding.as_str()));
    }
    if let Some(comment) = csv.comment {
        parts.push(format!("comment: {}", mark(comment)));
    }
    if csv.skip_lines > 0 {
        parts.push(format!("skip_lines: {}", csv.skip_lines));
    }
    if csv.trim {
        parts.push("trim: true".to_owned());
    }
    if !csv.header {
        parts.push(format!("header: false, names: {}", list(&csv.names)));
    }
    (!parts.is_empty()).then(|| format!("csv: {{ {} }}", parts.join(", ")))
}

fn time_of(picture: &Picture) -> String {
    let columns = &picture.time.columns;
    if is_plain_time(picture) {
        return format!("time: {}", quoted(&columns[0]));
    }
    let mut parts = vec![match columns.as_slice() {
        [one] => format!("column: {}", quoted(one)),
        several => format!("columns: {}", list(several)),
    }];
    match &picture.time.form {
        TimeForm::Pattern(pattern) => parts.push(format!("format: {}", serde_json::Value::from(pattern.as_str()))),
        TimeForm::Epoch(units) => {
            let units: Vec<&str> = units.iter().map(|unit| unit.as_str()).collect();
            parts.push(if let [one] = units[..] { format!("epoch: {one}") } else { format!("epoch: [{}]", units.join(", ")) });
        }
        _ => {}
    }
    if let Some(zone) = zone_to_write(picture) {
        parts.push(format!("zone: {}", zone.name()));
        if picture.zone.as_ref().is_some_and(|zone| zone.is_doubled) {
            parts.push("repeated: file-order".to_owned());
        }
        if picture.zone.as_ref().is_some_and(|zone| zone.is_shown) {
            parts.push("skipped: shift".to_owned());
        }
    }
    if picture.time.is_end {
        parts.push("marks: end".to_owned());
    }
    format!("time: {{ {} }}", parts.join(", "))
}

fn cadence_of(picture: &Picture) -> Option<String> {
    let cadence = picture.cadence.as_ref()?;
    let mut parts = vec![format!("every: {}", cadence.every)];
    if let Some(at) = &cadence.at {
        parts.push(format!("at: {}", serde_json::Value::from(at.as_str())));
    }
    if cadence.tolerance_s > 0 {
        parts.push(format!("tolerance: {}s", cadence.tolerance_s));
    }
    if let Some(percent) = cadence.misaligned {
        parts.push(format!("misaligned: {percent}%"));
    }
    Some(if parts.len() == 1 { format!("cadence: {}", cadence.every) } else { format!("cadence: {{ {} }}", parts.join(", ")) })
}

/// The whole workflow.
pub(super) fn workflow(picture: &Picture, guesses: &[Guess]) -> String {
    let mut lines = Lines { text: String::new() };
    let name = &picture.table;
    lines.line(0, "# yaml-language-server: $schema=./workflow.schema.json");
    lines.comment(0, "For an editor that completes and checks: repair schema > workflow.schema.json");
    lines.comment(
        0,
        "Written by `repair init` after a look at some of the files. Each guess says how sure it is; read it, and correct what is wrong.",
    );
    lines.line(0, &format!("workflow: {name}"));
    lines.line(0, "kind: state-machine");
    lines.line(0, "params:");
    for guess in guesses.iter().filter(|guess| guess.what == "from, to") {
        lines.comment(2, &format!("{}: {}. For a nightly run: `default: yesterday`", capital(guess.sure.as_str()), guess.why));
    }
    lines.line(2, &format!("from: {{ type: date, default: {} }}", picture.days.0));
    lines.line(2, &format!("to: {{ type: date, default: {} }}", picture.days.1));
    lines.line(0, "profiles:");
    if let Some((database, workgroup)) = &picture.athena {
        lines.comment(
            2,
            "Repairs are kept beside the table's prefix; the objects of the table are never changed. The database must have the table, under this name; \
             queries run in the workgroup, and the names of both are guesses unless you gave them",
        );
        lines.line(2, "aws:");
        lines.line(4, "lake: athena");
        let [lake, database, workgroup] = [&picture.lake, database, workgroup].map(|text| quoted(text));
        lines.line(4, &format!("with: {{ location: {lake}, database: {database}, workgroup: {workgroup} }}"));
    } else {
        lines.comment(2, "Repairs are kept beside the table's folder; the files of the table are never changed");
        lines.line(2, &format!("local: {{ lake: local, with: {{ root: {} }} }}", quoted(&picture.lake)));
    }
    lines.line(0, "tables:");
    table(&mut lines, picture, guesses);
    if picture.calendar == CalendarGuess::Weekdays {
        let zone = picture.cadence.as_ref().and_then(|cadence| cadence.zone.as_ref()).or_else(|| zone_to_write(picture));
        lines.line(0, "calendars:");
        lines.comment(2, "Add the days on which no row is expected: closed: [2024-12-25]");
        let zone = zone.map_or("UTC", |zone| zone.name());
        lines.line(2, &format!("weekdays: {{ zone: {zone}, open: {{ mon-fri: \"00:00-24:00\" }} }}"));
    }
    if let Some((place, format)) = &picture.source {
        lines.line(0, "sources:");
        lines.line(
            2,
            &format!("archive: {{ source: stocks.archive, with: {{ location: {}, format: {} }} }}", quoted(place), format.as_str()),
        );
    }
    steps(&mut lines, picture);
    lines.text
}

fn table(lines: &mut Lines, picture: &Picture, guesses: &[Guess]) {
    lines.line(2, &format!("{}:", picture.table));
    lines.line(4, &format!("location: {}", quoted(&picture.location)));
    lines.guessed(guesses, &["format"], &format!("format: {}", picture.format.as_str()));
    if !picture.ignore.is_empty() {
        lines.guessed(guesses, &["ignore"], &format!("ignore: {}", list(&picture.ignore)));
    }
    if let Some(csv) = csv_of(&picture.csv) {
        let what = ["encoding", "comment", "quote", "delimiter", "skip_lines", "trim", "header", "decimal", "thousands"];
        lines.guessed(guesses, &what, &csv);
    }
    if !picture.nested.is_empty() {
        lines.comment(4, "These columns are within records");
        let paths: Vec<String> =
            picture.nested.iter().map(|(name, path)| format!("{}: {{ path: {} }}", quoted(name), quoted(path))).collect();
        lines.list("columns: { ", &paths, " }");
    }
    if !picture.nulls.is_empty() {
        lines.guessed(guesses, &["nulls", "no value"], &format!("nulls: {}", list(&picture.nulls)));
    }
    if let Some(percent) = picture.quarantine {
        lines.guessed(guesses, &["on_bad_row"], &format!("on_bad_row: {{ quarantine: {percent}% }}"));
    }
    lines.guessed(guesses, &["time", "time format", "zone"], &time_of(picture));
    if let Some(zone) = picture.cadence.as_ref().and_then(|cadence| cadence.zone.as_ref()) {
        lines.line(4, &format!("zone: {}", zone.name()));
    }
    if let Some(identity) = &picture.identity {
        lines.guessed(guesses, &["key"], &format!("key: [{}]", quoted(identity)));
        lines.guessed(guesses, &["rows"], "rows: unique");
        if !picture.version.is_empty() {
            lines.comment(4, "A guess: the latest of several versions of a row is found by its name");
            lines.line(4, &format!("version: {}", list(&picture.version)));
        }
    } else if !picture.key.is_empty() {
        lines.guessed(guesses, &["key"], &format!("key: {}", list(&picture.key)));
        lines.comment(
            4,
            "The keys that were seen. One that never arrived is not among them: add it, or name a file or a table that lists all",
        );
        let keys: Vec<String> = picture.keys.iter().map(|key| if let [one] = key.as_slice() { quoted(one) } else { list(key) }).collect();
        lines.list("keys: [", &keys, "]");
    }
    if let Some(cadence) = cadence_of(picture) {
        lines.guessed(guesses, &["cadence"], &cadence);
    }
    if let Some(pattern) = &picture.partition {
        let pattern = serde_json::Value::from(pattern.as_str()).to_string();
        let zone = zone_to_write(picture).filter(|zone| !zone.is_utc());
        let text = match zone {
            Some(zone) => format!("partition_by: {{ path: {pattern}, zone: {} }}", zone.name()),
            None => format!("partition_by: {pattern}"),
        };
        lines.guessed(guesses, &["partition_by"], &text);
    }
}

fn steps(lines: &mut Lines, picture: &Picture) {
    let has_slots = picture.cadence.is_some();
    let calendar = match picture.calendar {
        CalendarGuess::Always => "",
        CalendarGuess::Named(name) => &format!(", calendar: {name}"),
        CalendarGuess::Weekdays => ", calendar: weekdays",
    };
    let table = &picture.table;
    let range = "from: \"{% $params.from %}\", to: \"{% $params.to %}\"";
    let with = format!("table: {table}{}, {range}", if has_slots { calendar } else { "" });
    let has_duplicates = picture.doubled.is_some() || !has_slots;
    let has_wrong = !picture.sentinels.is_empty() && has_slots;
    let after_duplicates = if has_wrong {
        "find_wrong"
    } else if has_slots {
        "find_gaps"
    } else {
        "done"
    };
    let first = if has_duplicates {
        "find_duplicates"
    } else if has_wrong {
        "find_wrong"
    } else {
        "find_gaps"
    };
    lines.line(0, &format!("start: {first}"));
    lines.line(0, "steps:");
    if has_duplicates {
        let keep = match (picture.doubled, has_slots) {
            (_, false) if !picture.version.is_empty() => String::new(),
            (_, false) => ", with: { keep: last_file }".to_owned(),
            (Some(doubled), true) => format!(", with: {{ keep: {} }}", keep_of(picture, doubled)),
            (None, true) => String::new(),
        };
        lines.line(2, "find_duplicates:");
        lines.line(4, "detect: duplicates");
        lines.line(4, &format!("with: {{ {with} }}"));
        lines.line(4, &format!("next: [{{ when: $output.defective = 0, goto: {after_duplicates} }}, {{ goto: keep_one }}]"));
        if has_slots {
            lines.comment(2, "Other rules: first, last, first_file, last_file, mean, { max: COLUMN }, { latest_by: COLUMN }");
        }
        lines.line(2, &format!("keep_one: {{ repair: keep, of: find_duplicates{keep}, next: {after_duplicates} }}"));
    }
    if !has_slots {
        lines.line(2, "done: { succeed: true }");
        return;
    }
    if has_wrong {
        lines.line(2, "find_wrong:");
        lines.line(4, "detect: invalid");
        lines.comment(4, "Numbers that stand for something else. Add `min` and `max` where you know them");
        lines.line(4, "with:");
        lines.line(6, &format!("table: {table}"));
        if !calendar.is_empty() {
            lines.line(6, calendar.trim_start_matches(", "));
        }
        lines.line(6, "from: \"{% $params.from %}\"");
        lines.line(6, "to: \"{% $params.to %}\"");
        lines.line(6, "rules:");
        let columns: std::collections::BTreeSet<&str> = picture.sentinels.iter().map(|sentinel| sentinel.column.as_str()).collect();
        for column in columns {
            let values = picture.sentinels.iter().filter(|sentinel| sentinel.column == column).map(|sentinel| sentinel.value.to_string());
            lines.line(8, &format!("- {{ column: {}, not: [{}] }}", quoted(column), values.collect::<Vec<_>>().join(", ")));
        }
        lines.line(4, "next: [{ when: $output.defective = 0, goto: find_gaps }, { goto: correct }]");
        let limit = picture.cadence.as_ref().map_or_else(String::new, |cadence| times_as(BRIDGED_SLOTS, cadence));
        lines.line(2, &format!("correct: {{ repair: interpolate, of: find_wrong, with: {{ max_gap: {limit} }}, next: find_gaps }}"));
    }
    lines.line(2, "find_gaps:");
    lines.line(4, "detect: gaps");
    lines.line(4, &format!("with: {{ {with} }}"));
    let limit = picture.cadence.as_ref().map_or_else(String::new, |cadence| times_as(BRIDGED_SLOTS, cadence));
    let fill = if picture.source.is_some() {
        lines.line(4, "next: [{ when: $output.missing = 0, goto: done }, { goto: fill }]");
        "repair: backfill, of: find_gaps, with: { source: archive }".to_owned()
    } else {
        lines.line(4, "next: [{ when: $output.missing = 0, goto: done }, { goto: fill }]");
        if picture.numbers.is_empty() {
            lines.comment(2, "Repeats the last row before a gap, for a short time. With a source of true rows, `backfill` is better");
            format!("repair: carry-forward, of: find_gaps, with: {{ max_age: {limit} }}")
        } else {
            lines.comment(
                2,
                "A straight line through gaps that are short; longer ones stay missing. With a source of true rows, `backfill` is better",
            );
            format!("repair: interpolate, of: find_gaps, with: {{ max_gap: {limit} }}")
        }
    };
    lines.line(2, &format!("fill: {{ {fill}, next: check }}"));
    lines.line(2, "check: { verify: find_gaps, next: done }");
    lines.line(2, "done: { succeed: true }");
}
