//! The page: one HTML file with everything in it. A policy in it forbids all network, and all scripts and styles but its own, by their
//! hashes.

use super::csv::Csv;
use super::model::{CandleChart, Defect, Exception, Fix, Held, Listing, Numbers, Report, Subject, TableReport};
use super::picture::heat::{self, When};
use super::picture::markup::{Markup, base64, count, grouped};
use super::picture::{Picture, STYLE, Size, calendar, candles, graph, points, series, timeline, times};
use crate::ledger::{CostGroup, Costs, INFRASTRUCTURE, NONE};
use crate::status::TableStatus;
use repair_core::engine::Outcome;
use repair_core::model::Zone;

/// How the page looks, in addition to its pictures.
pub(super) const PAGE_STYLE: &str = include_str!("page.css");
/// Sorts tables. Without it, everything can be read.
pub(super) const SCRIPT: &str = include_str!("page.js");
/// The hashes of both styles and of the script, by which the page allows them. A test computes them.
const POLICY: &str = "default-src 'none'; style-src 'sha256-l3rOWTJa/NMTi5g/vV8BJZB1vznbqG1gl+6pD+JMD3k=' \
     'sha256-qOzzDThztQ0mvuKKw40xaGI2QYnlIOqj/Y8hne3CfTc='; script-src 'sha256-8oUy30nzHB0TmrVqrOT7EGghE4D4h+iyRt1sOg54mAI='; \
     img-src data:; base-uri 'none'; form-action 'none'";

/// The page of a report.
pub(super) fn page(report: &Report) -> String {
    let mut page = Markup::default();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.open("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &Policy)]);
    page.raw("<meta name=\"referrer\" content=\"no-referrer\"><meta name=\"generator\" content=\"repair\">");
    page.leaf("title", &[], title(report));
    page.raw("<style>").raw(PAGE_STYLE).raw("</style><style>").raw(STYLE).raw("</style></head>\n<body>");
    header(&mut page, report);
    page.raw("\n<main>");
    for table in &report.tables {
        completeness(&mut page, table);
    }
    report.held.iter().for_each(|of| held(&mut page, of));
    if let Some(of) = &report.status {
        status(&mut page, of);
    }
    if report.tables.is_empty() && report.held.is_empty() {
        page.raw("<h2>Completeness</h2><p>No table could be looked at, so there is nothing to show. ");
        page.raw("This does not mean that nothing is missing.</p>");
    }
    what_is_left(&mut page, report);
    report.candles.iter().for_each(|chart| candle_charts(&mut page, chart));
    listings(&mut page, report);
    if let Some(of) = &report.graph {
        workflow(&mut page, of);
    }
    if let Some(of) = report.timeline.as_ref().filter(|of| !of.rows.is_empty()) {
        page.raw("\n<h2>When the steps worked and waited</h2>");
        scrolled(&mut page, &timeline::chart(of), "");
        legend(
            &mut page,
            &[("done", "worked"), ("broken", "failed"), ("busy", "not ended"), ("waited", "waited"), ("backoff", "waited before a retry")],
        );
    }
    if let Some(costs) = &report.costs {
        cost(&mut page, costs, report.lake_costs.as_ref());
    }
    if !report.notes.is_empty() {
        page.raw("\n<h2>What this report does not show</h2>");
        list(&mut page, &report.notes);
    }
    page.raw("\n</main>");
    page.open("footer", &[]);
    page.text(format!(
        "Made at {:.0}. The state of tables is that of this instant; what a run did is what its journal says.",
        report.made_at
    ));
    page.close("footer").raw("<script>").raw(SCRIPT).raw("</script></body></html>\n");
    page.into_text()
}

/// The policy of the page, with the hashes.
struct Policy;

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(POLICY)
    }
}

fn title(report: &Report) -> String {
    match &report.subject {
        Subject::Run { run, workflow, .. } => format!("Run {run} of {workflow}"),
        Subject::Table { table, .. } => format!("Table {table}"),
    }
}

fn header(page: &mut Markup, report: &Report) {
    page.raw("\n<header>").leaf("h1", &[], title(report));
    let facts = match &report.subject {
        Subject::Run { started_at, ended_at, outcome, .. } => {
            let outcome = outcome.map_or("not ended", Outcome::as_str);
            let took = ended_at.map(|ended| format!(", took {}", times::duration(*started_at, ended))).unwrap_or_default();
            format!("{outcome} · started {started_at:.0}{took}")
        }
        Subject::Table { run: Some(run), workflow, .. } => format!("as run {run} of workflow {workflow} last examined it"),
        Subject::Table { run: None, workflow, .. } => {
            let says = if report.held.is_empty() { "what is expected" } else { "what its rows are" };
            format!("as it is at {:.0}; workflow {workflow} says {says}", report.made_at)
        }
    };
    page.leaf("p", &[("class", &"dim")], facts).leaf("p", &[("class", &"lead")], &report.sentence);
    let Numbers { expected, found, repaired, absent, left } = report.numbers;
    let words = if matches!(report.subject, Subject::Run { .. }) { "found missing or wrong" } else { "without a row of the table's own" };
    let [of, words, still] = match report.held.as_slice() {
        [] => ["slots expected", words, "still missing or wrong"],
        _ => ["keys with a row", "rows with several versions", "of these, not repaired"],
    };
    page.raw("<dl class=\"numbers\">");
    for (words, number, bad) in [
        (of, expected, false),
        (words, found, false),
        ("repaired", repaired, false),
        ("confirmed absent", absent, false),
        (still, left, left > 0),
    ] {
        page.open("div", &[("class", &if bad { "bad" } else { "" })]).leaf("dt", &[], words).leaf("dd", &[], grouped(number)).close("div");
    }
    page.raw("</dl></header>");
}

/// A picture that may be wider than the page.
fn scrolled(page: &mut Markup, picture: &Picture, class: &'static str) {
    let class = format!("scroll {class}");
    page.open("div", &[("class", &class), ("tabindex", &"0"), ("role", &"region"), ("aria-label", &picture.title)]);
    page.add(&picture.element()).close("div");
}

/// What colours mean, as a list.
fn legend(page: &mut Markup, items: &[(&'static str, &str)]) {
    page.raw("<ul class=\"legend\">");
    for (class, words) in items {
        page.raw("<li><svg class=\"picture\" width=\"13\" height=\"13\" aria-hidden=\"true\">");
        match *class {
            "expected" | "line" => page.empty("path", &[("class", class), ("d", &"M0 6.5h13")]),
            line if line.starts_with("by ") => page.empty("path", &[("class", class), ("d", &"M1.5 6.5h10")]),
            "alarm" => page.empty("path", &[("class", class), ("d", &"M3 3l7 7m0 -7l-7 7")]),
            "flag" => page.empty("circle", &[("class", class), ("cx", &"6.5"), ("cy", &"6.5"), ("r", &"3")]),
            _ => page.empty("rect", &[("class", class), ("x", &"0.5"), ("y", &"0.5"), ("width", &"12"), ("height", &"12"), ("rx", &"2")]),
        };
        page.raw("</svg>").text(words).raw("</li>");
    }
    page.raw("</ul>");
}

fn completeness(page: &mut Markup, table: &TableReport) {
    let bucket = table.bucket.as_str();
    let zone = times::zone(&table.zone);
    page.raw("\n<h2>").text(format!("Completeness of {} by key and {bucket}", table.table)).raw("</h2>");
    let total = &table.total;
    let sentence = format!(
        "{} of {} {} complete before repairs, and {} {} now.",
        grouped(total.complete_before),
        count(total.cells, &format!("key-{bucket}")),
        if total.complete_before == 1 { "was" } else { "were" },
        grouped(total.complete_after),
        if total.complete_after == 1 { "is" } else { "are" }
    );
    page.leaf("p", &[], sentence);
    let mut facts = format!(
        "From {} to {} ({}), every {}, by calendar {}. Times at which nothing is expected are left out.",
        times::minute(table.interval.from(), &zone),
        times::minute(table.interval.to(), &zone),
        table.zone,
        table.cadence,
        table.calendar,
    );
    if table.keys.len() < table.all_keys {
        facts.push_str(&format!(
            " The {} least complete of {} are shown.",
            table.keys.len(),
            grouped(u64::try_from(table.all_keys).unwrap_or(0))
        ));
    }
    page.leaf("p", &[("class", &"dim")], facts);
    page.raw("<div class=\"pair\">");
    for (when, words) in [(When::Before, "Before: the table's own rows"), (When::After, "After: with repairs + confirmed absences")] {
        page.raw("<figure>").leaf("h3", &[], words);
        scrolled(page, &heat::map(table, when), "");
        page.raw("</figure>");
    }
    page.raw("</div>");
    legend(page, &heat::shades_of(table));
    numbers_of(page, table, &zone);
    let words = if points::by_key(table) {
        format!("Data points by key and {bucket}")
    } else {
        format!("Data points by {bucket}, all keys together")
    };
    page.raw("<figure>").leaf("h3", &[], words);
    scrolled(page, &points::chart(table, Size::Wide), "wide");
    scrolled(page, &points::chart(table, Size::Narrow), "narrow");
    page.raw("</figure>");
    legend(
        page,
        &[("own", "the table's own"), ("fix", "repaired"), ("absent", "confirmed absent"), ("lost", "missing"), ("expected", "expected")],
    );
    if let Some(of) = &table.series {
        let picture = series::chart(of, &zone, Size::Wide);
        page.raw("<figure>").leaf("h3", &[], format!("{} of {}, with its repaired stretches", of.column, of.key));
        scrolled(page, &picture, "wide");
        scrolled(page, &series::chart(of, &zone, Size::Narrow), "narrow");
        let has_estimates = of.points.iter().any(|point| point.estimated.is_some());
        let lines = if has_estimates { " A thin upright line reaches as far as the true value lies in 95 % of cases." } else { "" };
        page.leaf("figcaption", &[], format!("{}. This key had most repairs.{lines}", picture.title)).raw("</figure>");
        let mut items = vec![("line", "the table's own")];
        const CLASSES: [&str; 5] = ["by s1", "by s2", "by s3", "by s4", "by s5"];
        let strategies = series::strategies(of);
        items.extend(strategies.iter().enumerate().map(|(index, name)| (CLASSES[index.min(4)], *name)));
        items.extend([("absent", "confirmed absent"), ("lost", "missing")]);
        legend(page, &items);
    }
}

/// How many days are listed on which something is open.
const MOST_DAYS: usize = 20;

/// The status of a table's slots by key and day.
fn status(page: &mut Markup, of: &TableStatus) {
    let Some(picture) = calendar::map(of) else { return };
    page.raw("\n<h2>").text(format!("Status of {} by key and day", of.table)).raw("</h2>");
    let mut facts = format!(
        "As runs last saw it, days of {}. A day has the colour of its worst state, however few slots are in it; where none is open or set aside, it is absent \
         if most of its slots are, and repaired if one is.",
        of.zone
    );
    if let Some(look) = of.latest() {
        facts.push_str(&format!(" Last looked at by step {} of run {}, at {:.0}.", look.step, look.run, look.at));
    }
    if of.never_looked > 0 {
        facts.push_str(&format!(" Nobody looked at {}.", count(of.never_looked, "key-day")));
    }
    page.leaf("p", &[("class", &"dim")], facts);
    scrolled(page, &picture, "");
    page.raw("<details><summary>The numbers behind this picture</summary>");
    tabular(page, "Slots by state");
    head(page, &["state", "slots"], 1..2);
    for (name, slots) in of.total.by_name().into_iter().filter(|(_, slots)| *slots > 0) {
        page.raw("<tr>").leaf("td", &[], name);
        numbers(page, [slots]);
    }
    page.raw("</tbody></table></div>");
    let worst = of.worst_days(MOST_DAYS);
    if !worst.is_empty() {
        tabular(page, "The days on which most slots are open");
        head(page, &["day", "expected", "open", "missing", "wrong", "suspect", "not examined for gaps"], 1..7);
        for (date, states) in worst {
            page.raw("<tr>").leaf("td", &[], date);
            numbers(page, [states.expected, states.open(), states.missing, states.wrong, states.suspect, states.unexamined]);
        }
        page.raw("</tbody></table></div>");
    }
    page.raw("</details>");
    if !of.notes.is_empty() {
        list(page, &of.notes);
    }
}

/// What a table holds whose key identifies a row.
fn held(page: &mut Markup, of: &Held) {
    let zone = times::zone(&of.zone);
    page.raw("\n<h2>").text(format!("What {} holds", of.table)).raw("</h2>");
    let [from, to] = [of.interval.from(), of.interval.to()].map(|at| times::minute(at, &zone));
    let mut facts = format!("Rows whose time lies from {from} to {to} ({}).", of.zone);
    let empty = of.days.iter().filter(|day| day.rows == 0).count() as u64;
    if !of.days.is_empty() {
        facts.push_str(&format!(" {} of {} without a row.", grouped(empty), count(of.days.len() as u64, "day")));
    }
    page.leaf("p", &[("class", &"dim")], facts);
    let record = &of.on_record;
    tabular(page, "What it holds, and what is on record");
    head(page, &["what", "rows"], 1..2);
    for (what, rows) in [
        ("the table's own, all versions", of.rows),
        ("could not be read", of.unreadable),
        ("with several versions that no repair replaces", of.several),
        ("versions of these beyond the first", of.surplus),
        ("with several versions that a repair replaces", of.settled),
        ("whose versions changed since a repair replaced them", of.changed),
        ("on record: added", record.added),
        ("on record: replaced", record.replaced),
        ("on record: removed", record.removed),
        ("on record: some cells changed", record.patched),
        ("shown with repairs", of.shown),
    ] {
        page.raw("<tr>").leaf("td", &[], what);
        numbers(page, [rows]);
    }
    page.raw("</tbody></table></div>");
    if of.days.is_empty() {
        return;
    }
    page.raw("<details><summary>Rows by day</summary>");
    tabular(page, "Rows by day");
    head(page, &["day", "rows"], 1..2);
    for day in &of.days {
        page.raw("<tr>").leaf("td", &[], zone.local(day.from).date());
        numbers(page, [day.rows]);
    }
    page.raw("</tbody></table></div></details>");
}

/// With more cells than this, only the sums of keys are a table.
const MOST_CELLS: usize = 800;

/// The numbers behind the pictures, for those who cannot see them.
fn numbers_of(page: &mut Markup, table: &TableReport, zone: &Zone) {
    page.raw("<details><summary>The numbers behind these pictures</summary>");
    let each = table.keys.len() * table.starts.len() <= MOST_CELLS;
    let label = format!("Completeness of {} in numbers", table.table);
    page.open("div", &[("class", &"scroll tall"), ("tabindex", &"0"), ("role", &"region"), ("aria-label", &label)]);
    if each {
        head(page, &["key", "from", "expected", "own", "repaired", "absent", "missing"], 2..7);
        for row in &table.keys {
            for (start, cell) in table.starts.iter().zip(&row.cells).filter(|(_, cell)| cell.expected > 0) {
                page.raw("<tr>").leaf("td", &[], &row.key).leaf("td", &[], times::minute(*start, zone));
                numbers(page, [cell.expected, cell.own, cell.repaired, cell.absent, cell.missing()].map(u64::from));
            }
        }
    } else {
        head(page, &["key", "expected", "own", "repaired", "absent", "missing"], 1..6);
        for row in &table.keys {
            let sum = |of: fn(&super::model::Cell) -> u32| row.cells.iter().map(|cell| u64::from(of(cell))).sum::<u64>();
            page.raw("<tr>").leaf("td", &[], &row.key);
            numbers(
                page,
                [
                    sum(|cell| cell.expected),
                    sum(|cell| cell.own),
                    sum(|cell| cell.repaired),
                    sum(|cell| cell.absent),
                    sum(|cell| cell.missing()),
                ],
            );
        }
    }
    page.raw("</tbody></table></div></details>");
}

/// Begins a table that can be sorted; some columns are numbers.
fn head(page: &mut Markup, names: &[&str], numbers: std::ops::Range<usize>) {
    page.raw("<table><thead><tr>");
    for (index, name) in names.iter().enumerate() {
        page.open("th", &[("scope", &"col"), ("class", &if numbers.contains(&index) { "n" } else { "" })]);
        page.raw("<button type=\"button\">").text(name).raw("</button></th>");
    }
    page.raw("</tr></thead><tbody>");
}

/// The last cells of a row.
fn numbers<const COUNT: usize>(page: &mut Markup, numbers: [u64; COUNT]) {
    for number in numbers {
        page.leaf("td", &[("class", &"n")], grouped(number));
    }
    page.raw("</tr>");
}

fn list(page: &mut Markup, items: &[String]) {
    page.raw("<ul class=\"plain\">");
    for item in items {
        page.leaf("li", &[], item);
    }
    page.raw("</ul>");
}

fn what_is_left(page: &mut Markup, report: &Report) {
    let Subject::Run { outcome, .. } = &report.subject else { return };
    page.raw("\n<h2>What is left, and why</h2>");
    if !report.left.is_empty() {
        list(page, &report.left);
    } else if report.numbers.left == 0 && matches!(outcome, Some(Outcome::Succeeded | Outcome::SucceededWithExceptions)) {
        page.raw("<p>Nothing is left.</p>");
    } else {
        page.raw("<p>The run gives no reasons.</p>");
    }
}

fn candle_charts(page: &mut Markup, chart: &CandleChart) {
    let zone = times::zone(&chart.zone);
    page.raw("\n<h2>").text(format!("Candles of {}", chart.table)).raw("</h2>");
    let all = || chart.keys.iter().flat_map(|key| &key.candles);
    let incomplete = all().filter(|candle| !candle.complete).count();
    let mut words = format!("{incomplete} of {} candles are incomplete.", all().count());
    if chart.keys.len() < chart.all_keys {
        words.push_str(&format!(" The {} keys of {} that lacked most are shown.", chart.keys.len(), chart.all_keys));
    }
    page.leaf("p", &[("class", &"dim")], format!("{words} Step {} wrote them; times are in {}.", chart.step, chart.zone));
    page.raw("<div class=\"many\">");
    for of in &chart.keys {
        scrolled(page, &candles::chart(of, &zone), "");
    }
    page.raw("</div>");
    legend(page, &[("up", "rose"), ("down", "fell"), ("flag", "computed with repaired rows"), ("alarm", "incomplete (hollow)")]);
}

/// The head of a listing: how many there are, and all of them as CSV.
fn listing_head<T>(page: &mut Markup, listing: &Listing<T>, name: &'static str, what: &str) {
    page.raw("\n<h2>").text(name).raw("</h2><p>");
    let lower = name.to_lowercase();
    page.text(format!(
        "{}.",
        if listing.total == 0 {
            "None".to_owned()
        } else if listing.total == 1 {
            format!("1 {what}")
        } else {
            format!("{} {what}es", grouped(listing.total))
        }
    ));
    if u64::try_from(listing.rows.len()).is_ok_and(|shown| shown < listing.total) {
        page.text(format!(" The first {} are shown.", grouped(u64::try_from(listing.rows.len()).unwrap_or(0))));
    }
    match &listing.csv {
        Csv::Nothing => {}
        Csv::Embedded(text) => {
            let link = format!("data:text/csv;charset=utf-8;base64,{}", base64(text.as_bytes()));
            page.raw(" ").leaf("a", &[("href", &link), ("download", &format!("{lower}.csv"))], format!("All {lower} as CSV"));
        }
        Csv::Beside(path) => {
            let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            page.text(format!(" All of them are in the file {file} beside this page."));
        }
        Csv::LeftOut => {
            page.raw(" The list of all is too long to be embedded; it is written beside a report that is written to a file.");
        }
    }
    page.raw("</p>");
}

fn listings(page: &mut Markup, report: &Report) {
    listing_head(page, &report.defects, "Defects", "stretch");
    if !report.defects.rows.is_empty() {
        tabular(page, "Defects");
        head(page, &["key", "from (UTC)", "to (UTC)", "kind", "table", "found by", "slots", "repaired", "absent", "arrived since"], 6..10);
        report.defects.rows.iter().for_each(|row| defect(page, row));
        page.raw("</tbody></table></div>");
    }
    listing_head(page, &report.fixes, "Fixes", "stretch");
    if !report.fixes.rows.is_empty() {
        tabular(page, "Fixes");
        let names =
            ["key", "from (UTC)", "to (UTC)", "slots", "table", "strategy", "source", "operation", "at (UTC)", "run", "step", "undone by"];
        // Only some strategies estimate.
        let has_estimates = report.fixes.rows.iter().any(|row| !row.within.is_empty());
        let mut names = names.to_vec();
        names.extend(has_estimates.then_some("true value, in 95 % of cases"));
        head(page, &names, 3..4);
        report.fixes.rows.iter().for_each(|row| fix(page, row, has_estimates));
        page.raw("</tbody></table></div>");
    }
    listing_head(page, &report.exceptions, "Exceptions", "stretch");
    if !report.exceptions.rows.is_empty() {
        tabular(page, "Exceptions");
        let names = [
            "key",
            "from (UTC)",
            "to (UTC)",
            "slots",
            "table",
            "source",
            "asked at (UTC)",
            "asked again after",
            "answer",
            "run",
            "step",
            "undone by",
        ];
        head(page, &names, 3..4);
        report.exceptions.rows.iter().for_each(|row| exception(page, row));
        page.raw("</tbody></table></div>");
    }
}

/// Begins a part of the page that is a table, which may be wider than it.
fn tabular(page: &mut Markup, name: &'static str) {
    page.open("div", &[("class", &"scroll tall"), ("tabindex", &"0"), ("role", &"region"), ("aria-label", &name)]);
}

fn at(instant: jiff::Timestamp) -> String {
    let text = instant.strftime("%Y-%m-%d %H:%M:%S").to_string();
    text.strip_suffix(":00").unwrap_or(&text).to_owned()
}

fn defect(page: &mut Markup, row: &Defect) {
    page.raw("<tr>").leaf("td", &[], &row.key).leaf("td", &[], at(row.from)).leaf("td", &[], at(row.to));
    page.leaf("td", &[], row.kind.as_str()).leaf("td", &[], &row.table).leaf("td", &[], &row.step);
    numbers(page, [row.slots, row.repaired, row.absent, row.arrived]);
}

fn fix(page: &mut Markup, row: &Fix, has_estimates: bool) {
    page.raw("<tr>").leaf("td", &[], &row.key).leaf("td", &[], at(row.from)).leaf("td", &[], at(row.to));
    page.leaf("td", &[("class", &"n")], grouped(row.slots)).leaf("td", &[], &row.table).leaf("td", &[], &row.strategy);
    page.leaf("td", &[], &row.source).leaf("td", &[], &row.op).leaf("td", &[], at(row.at)).leaf("td", &[], &row.run);
    page.leaf("td", &[], &row.step).leaf("td", &[], row.retracted_by.as_deref().unwrap_or_default());
    if has_estimates {
        page.leaf("td", &[], row.within_text());
    }
    page.raw("</tr>");
}

fn exception(page: &mut Markup, row: &Exception) {
    page.raw("<tr>").leaf("td", &[], &row.key).leaf("td", &[], at(row.from)).leaf("td", &[], at(row.to));
    page.leaf("td", &[("class", &"n")], grouped(row.slots)).leaf("td", &[], &row.table).leaf("td", &[], &row.source);
    page.leaf("td", &[], at(row.at)).leaf("td", &[], at(row.recheck_after)).leaf("td", &[("class", &"text")], &row.answer);
    page.leaf("td", &[], &row.run).leaf("td", &[], &row.step);
    page.leaf("td", &[], row.retracted_by.as_deref().unwrap_or_default()).raw("</tr>");
}

fn workflow(page: &mut Markup, of: &super::model::Graph) {
    page.raw("\n<h2>The path that the run took</h2>");
    if of.nodes.len() > graph::MOST_STEPS {
        page.leaf("p", &[], format!("The workflow has {} steps, too many to draw. The times below list those that ran.", of.nodes.len()));
        return;
    }
    scrolled(page, &graph::chart(of), "");
    page.raw("<p class=\"dim\">Solid: the run went there. Dotted: it could have. A step that it entered several times has a number.</p>");
}

fn cost(page: &mut Markup, costs: &Costs, lake: Option<&Costs>) {
    page.raw("\n<h2>What it cost</h2>");
    let priced = costs.total.usd.is_some();
    let remarks = if priced {
        let books: Vec<&str> = costs.prices.iter().map(String::as_str).collect();
        format!("By strategy, at the prices of {}.", books.join(", "))
    } else {
        "By strategy. The run has no price book, so this is usage only.".to_owned()
    };
    page.leaf("p", &[("class", &"dim")], remarks);
    page.open("div", &[("class", &"scroll"), ("tabindex", &"0"), ("role", &"region"), ("aria-label", &"Costs by strategy")]);
    let mut names = vec!["strategy", "requests", "queries", "bytes scanned", "repaired", "absent"];
    names.extend(if priced { &["USD", "USD a row"][..] } else { &[] });
    head(page, &names, 1..names.len());
    let row = |page: &mut Markup, name: &str, group: &CostGroup| {
        page.raw("<tr>").leaf("td", &[], name);
        let usage = &group.usage;
        for number in [usage.source_requests, usage.queries, usage.bytes_scanned, group.rows_repaired, group.slots_absent] {
            page.leaf("td", &[("class", &"n")], grouped(number));
        }
        if priced {
            page.leaf("td", &[("class", &"n")], dollars(group.usd)).leaf("td", &[("class", &"n")], dollars(group.usd_per_row));
        }
        page.raw("</tr>");
    };
    for group in &costs.groups {
        let name = group.tags.get("strategy").map_or(NONE, String::as_str);
        row(page, if name == NONE { "(other steps)" } else { name }, group);
    }
    row(page, "all together", &costs.total);
    page.raw("</tbody></table></div>");
    if let Some(pipeline) =
        lake.and_then(|all| all.groups.iter().find(|group| group.tags.get("component").is_some_and(|name| name == INFRASTRUCTURE)))
    {
        let words = format!(
            "The pipeline itself, as recorded in this lake over the last month: {} to its sources, {} USD.",
            count(pipeline.usage.source_requests, "request"),
            dollars(pipeline.usd)
        );
        page.leaf("p", &[], words);
    }
}

/// Dollars, to four significant digits.
fn dollars(usd: Option<rust_decimal::Decimal>) -> String {
    usd.map_or_else(|| NONE.to_owned(), |usd| usd.round_sf(4).unwrap_or(usd).normalize().to_string())
}
