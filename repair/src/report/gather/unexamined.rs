//! A report on a table that no run need have examined: a detector looks at it now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::completeness::{Examined, Found, last_expected};
use super::held;
use super::listings::{Part, add_defects, defects, exceptions, fixes};
use super::{empty, numbers_now, rows, sentence_of_table};
use crate::report::TableReportRequest;
use crate::report::model::{Report, Subject};
use repair_core::engine::FindingsRecord;
use repair_core::engine::prepare::{self, Preparer, Setting};
use repair_core::model::{Calendar, DefectKind, Findings, Key, Rows, Table};
use repair_core::plugin::{Detector, PluginKind, Registry};
use repair_core::workflow::{Variables, Workflow};
use repair_core::yaml::closest;
use repair_core::{Error, ErrorKind, Result};

/// The detector that looks for missing rows of any table.
const GAPS: &str = "gaps";
/// The detector that looks for several versions of the rows of a table whose key identifies a row.
const DUPLICATES: &str = "duplicates";

/// How a table is looked at: a detector, and its configuration.
struct Look<'a> {
    step: &'a str,
    plugin: &'a str,
    config: Value,
}

impl TableReportRequest<'_> {
    pub(crate) async fn perform(self) -> Result<Report> {
        let Self { repair, table, from, to, beside } = self;
        let (workflow, around) = (repair.workflow(), repair.around());
        let table = declared(workflow, &table)?;
        let variables = repair.variables()?;
        let look = look(&around.registry, workflow, table, &variables, (from, to))?;
        let made_at = around.clock.now();
        let now = repair.now.unwrap_or(made_at);
        let setting = Setting {
            run: "report".into(),
            now,
            turn: 0,
            lake: repair.opened.clone(),
            lakes: repair.lakes.clone(),
            clock: around.clock.clone(),
            cancel: around.stop.clone(),
            progress: around.observer(),
        };
        let shared = prepare::shared_context(&around.registry, workflow, &variables, setting)?;
        let context = Preparer { registry: &around.registry, workflow, shared: &shared }.once(look.step).context;
        let detector = Arc::<dyn Detector>::try_from(around.registry.make(PluginKind::Detector, look.plugin, &look.config)?)?;
        let findings = detector.detect(&context, None).await?;
        let mut found = as_found(look.step, findings);
        let scope = found.findings.scope.clone();
        let mut calendars: BTreeMap<String, Arc<dyn Calendar>> = around.registry.calendars().clone();
        calendars.extend(workflow.calendars.iter().map(|(name, calendar)| (name.clone(), Arc::clone(calendar))));
        let examined = Examined {
            lake: repair.opened.as_ref(),
            table,
            step: look.step,
            scope: &scope,
            last: last_expected(table, now),
            as_of: made_at,
            calendars: &calendars,
        };
        let page = beside.as_deref();
        let (mut all_defects, mut all_fixes, mut all_exceptions) = (defects(page), fixes(page), exceptions(page));
        let part = Part { lake: repair.opened.as_ref(), table, interval: scope.interval, run: None, beside: &BTreeSet::new() };
        let mut patched: BTreeSet<(Key, i64)> = BTreeSet::new();
        part.exceptions(&mut all_exceptions).await?;
        let mut report = Report {
            subject: Subject::Table { table: table.name.clone(), run: None, workflow: workflow.name.clone() },
            notes: found.findings.notices.clone(),
            ..empty(made_at)?
        };
        if table.rows == Rows::Unique {
            let mut note = |key: &Key, time_us: i64| {
                patched.insert((key.clone(), time_us));
            };
            part.fixes(&mut all_fixes, &mut note).await?;
            let held = held::look(&part, &found.findings.counts, &patched, made_at).await?;
            report.notes.push(not_examined(&around.registry, workflow, table, &variables));
            (report.sentence, report.numbers, report.held) = (held.sentence(), held.numbers(), vec![held]);
        } else {
            let drawing = around.registry.get(PluginKind::Detector, look.plugin).and_then(|entry| entry.drawing.clone());
            let mut pictured = examined.look(&mut [&mut found]).await?;
            pictured.series = rows::series(&examined, &pictured, drawing.as_ref()).await?;
            part.fixes(&mut all_fixes, &mut |key: &Key, slot| found.patched(key, slot)).await?;
            report.tables.push(pictured);
            report.numbers = numbers_now(&report.tables);
            report.sentence = sentence_of_table(&table.name, &report.tables, &report.numbers);
        }
        add_defects(&mut all_defects, &found)?;
        Ok(Report { defects: all_defects.finish()?, fixes: all_fixes.finish()?, exceptions: all_exceptions.finish()?, ..report })
    }
}

/// A table of the workflow of which there is something to say: it has slots, or its key identifies a row.
fn declared<'a>(workflow: &'a Workflow, name: &str) -> Result<&'a Table> {
    let table = workflow.tables.get(name).ok_or_else(|| {
        let close = closest(name, workflow.tables.keys().map(String::as_str)).map(|close| format!("; did you mean `{close}`?"));
        Error::new(ErrorKind::NotFound, format!("workflow `{}` has no table `{name}`{}", workflow.name, close.unwrap_or_default()))
    })?;
    if table.rows == Rows::Unique { Ok(table) } else { table.grid().map(|_| table) }
}

/// How a table is looked at within this part of time.
fn look<'a>(
    registry: &Registry,
    workflow: &'a Workflow,
    table: &Table,
    variables: &Variables,
    (from, to): (Option<String>, Option<String>),
) -> Result<Look<'a>> {
    let unique = table.rows == Rows::Unique;
    let (plugin, kind) = if unique { (DUPLICATES, DefectKind::Duplicate) } else { (GAPS, DefectKind::Missing) };
    let seeks = |plugin: &str| registry.get(PluginKind::Detector, plugin).is_some_and(|entry| entry.finds == Some(kind));
    // A detector with other words for its interval cannot be asked for another one.
    let all = || detectors(workflow, table, variables).filter(|look| ["from", "to"].iter().all(|name| look.config.get(name).is_some()));
    let first = all().find(|look| seeks(look.plugin)).or_else(|| {
        // Where nothing is expected, any step says which time is meant.
        let other = all().next().filter(|_| unique)?;
        let config = json!({ "table": table.name, "from": other.config["from"], "to": other.config["to"] });
        Some(Look { step: other.step, plugin, config })
    });
    let mut look = match (first, &from, &to) {
        (Some(look), _, _) => look,
        (None, Some(_), Some(_)) => Look { step: plugin, plugin, config: json!({ "table": table.name }) },
        (None, _, _) => {
            let looks = if unique { "looks at" } else { "looks for missing rows of" };
            return Err(Error::invalid(format!(
                "no step of workflow `{}` {looks} table `{}`, so nothing says which time is meant; give a beginning and an end",
                workflow.name, table.name
            )));
        }
    };
    if let Some(config) = look.config.as_object_mut() {
        config.extend([("from", from), ("to", to)].into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))));
    }
    Ok(look)
}

/// The detectors of a table in a workflow, with their configuration. One whose configuration cannot be computed without a run is left out.
fn detectors<'a>(workflow: &'a Workflow, table: &Table, variables: &Variables) -> impl Iterator<Item = Look<'a>> {
    let all = workflow.steps.iter().flat_map(|step| step.kind.plugins().into_iter().map(move |plugin| (step, plugin)));
    all.filter_map(|(step, (kind, plugin, with))| {
        let config = (kind == PluginKind::Detector).then(|| with.resolve(variables).ok()).flatten()?;
        let is_of_table = config.get("table").and_then(Value::as_str) == Some(table.name.as_str());
        is_of_table.then_some(Look { step: &step.name, plugin, config })
    })
}

/// What nobody looked for in a table whose key identifies a row, and who would.
fn not_examined(registry: &Registry, workflow: &Workflow, table: &Table, variables: &Variables) -> String {
    let finds = |plugin: &str| registry.get(PluginKind::Detector, plugin).and_then(|entry| entry.finds);
    let others: Vec<String> = detectors(workflow, table, variables)
        .filter(|look| finds(look.plugin) != Some(DefectKind::Duplicate))
        .map(|look| format!("{} ({})", look.step, look.plugin))
        .collect();
    let known =
        "Only several versions of a row were looked for: neither rows that never came, nor wrong values, nor differences from a source.";
    let who = match others.as_slice() {
        [] => format!("No step of workflow {} looks for them: `arrivals`, `invalid` and `differs` do.", workflow.name),
        [one] => format!("A run of workflow {} looks for more, in step {one}.", workflow.name),
        more => format!("A run of workflow {} looks for more, in steps {}.", workflow.name, more.join(", ")),
    };
    format!("{known} {who}")
}

/// What a detector found, as the journal of a run would keep it.
fn as_found(step: &str, findings: Findings) -> Found {
    let record = FindingsRecord {
        of: step.to_owned(),
        kind: findings.kind,
        scope: findings.scope,
        counts: findings.counts,
        artifact: String::new(),
        examples: findings.examples,
        bad_rows: Vec::new(),
        notices: findings.notices,
        other_keys: findings.other_keys,
        taken_from: None,
        seen: None,
    };
    Found::new(step.to_owned(), record, findings.gaps)
}
