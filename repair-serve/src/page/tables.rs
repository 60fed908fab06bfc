//! The page of tables: which days of which keys are complete, as runs last saw them.

use repair::report::markup::{Markup, grouped, shortened};
use repair::status::{States, Status, TableStatus, element_of};
use repair::{ErrorKind, Result};

use super::{live, page, table};
use crate::server::Shared;
use crate::watch::Watched;

/// How many keys and days are listed of each table.
const MOST_ROWS: usize = 20;

/// The status of a lake's tables; `None` if nothing has looked at any.
///
/// # Errors
/// Those of the journal and the lake.
pub(crate) async fn status_of(watched: &Watched) -> Result<Option<Status>> {
    match watched.lake.status().await {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The status of all tables.
pub(crate) async fn tables(shared: &Shared) -> String {
    let mut body = Markup::default();
    body.raw("<header><h1>Tables</h1><p class=\"dim\">As runs last saw them. A day at which nobody has looked is not complete; it is not shown.</p></header><main>");
    let mut found = Vec::new();
    for watched in shared.lakes() {
        let status = status_of(&watched).await;
        found.push((watched.place.clone(), status));
    }
    live(&mut body, "tables", |body| {
        for (place, status) in &found {
            match status {
                Ok(Some(status)) => status.tables.iter().for_each(|of| one(body, of)),
                Ok(None) => drop(body.leaf("p", &[], format!("Nothing has looked at a table of {place} yet."))),
                Err(error) => drop(body.leaf("p", &[], format!("The tables of {place} cannot be shown:")).leaf(
                    "pre",
                    &[("tabindex", &"0")],
                    error.full(),
                )),
            }
        }
        if found.is_empty() {
            body.raw("<p>No lake is known yet.</p>");
        }
    });
    body.raw("</main>");
    page("Tables", &body)
}

fn one(body: &mut Markup, of: &TableStatus) {
    body.raw("<h2>").text(&of.table).raw("</h2>");
    let total = of.keys.iter().fold(States::default(), |mut total, key| {
        total += key.total;
        total
    });
    body.raw("<dl class=\"numbers\">");
    body.raw("<div>").leaf("dt", &[], "expected").leaf("dd", &[], grouped(total.expected)).raw("</div>");
    for (name, slots) in total.by_name().into_iter().filter(|(_, slots)| *slots > 0) {
        let bad = matches!(name, "missing" | "wrong" | "suspect");
        body.open("div", &[("class", &if bad { "bad" } else { "" })]).leaf("dt", &[], name).leaf("dd", &[], grouped(slots)).close("div");
    }
    body.raw("</dl>");
    if let Some(look) = of.latest() {
        body.leaf("p", &[("class", &"dim")], format!("Last looked at by step {} of run {}, at {:.0}", look.step, look.run, look.at));
    }
    if let Some((title, picture)) = element_of(of) {
        body.open("div", &[("class", &"scroll"), ("tabindex", &"0"), ("role", &"region"), ("aria-label", &title)])
            .add(&picture)
            .close("div");
    }
    let worst = of.worst_days(MOST_ROWS);
    if worst.iter().any(|(_, states)| states.open() > 0) {
        table(body, "The worst days", &["Day", "Expected", "Open", "States"], |body| {
            for (date, states) in worst.iter().filter(|(_, states)| states.open() > 0) {
                let words: Vec<String> = states
                    .by_name()
                    .into_iter()
                    .filter(|(_, slots)| *slots > 0)
                    .map(|(name, slots)| format!("{name} {}", grouped(slots)))
                    .collect();
                body.raw("<tr>").leaf("td", &[], date).leaf("td", &[("class", &"n")], grouped(states.expected));
                body.leaf("td", &[("class", &"n")], grouped(states.open())).leaf("td", &[], shortened(&words.join(", "), 300)).raw("</tr>");
            }
        });
    }
}
