//! Where a text of a workflow's file is, for what is found out about it after it was read.

use super::Workflow;
use crate::yaml::tree::{Node, Yaml, parse};

impl Workflow {
    /// The line and column of the workflow's file at which a place of a text lies, both from 1. The text is that under `with` of a step (or of a source, if
    /// `under` is `sources`) and has the given key; the place is a line and column of it. `None` if the text is not in this file, as with what is included.
    ///
    /// ```
    /// use repair_core::plugin::Registry;
    /// use repair_core::workflow::Workflow;
    ///
    /// let text = "workflow: w\nkind: dag\nsteps:\n  count:\n    task: sql\n    with:\n      query: |\n        SELECT 1\n        FROM x\n";
    /// let workflow = Workflow::parse("w.yaml", text, &Registry::default())?;
    /// assert_eq!(workflow.place_in("steps", "count", "query", (2, 6)), Some((9, 14)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn place_in(&self, under: &str, name: &str, key: &str, (line, column): (usize, usize)) -> Option<(usize, usize)> {
        // The text of the steps within a map is made of parts of a file. If the run of an item is continued, nothing else is known of that.
        let (file, steps): (&str, &[String]) = match &self.outer {
            Some(outer) => (&outer.text, &outer.steps),
            None if self.items.is_empty() => (&self.text, &[]),
            None => return None,
        };
        let tree = parse(file, 0).ok()?;
        let around = if under == "steps" { steps } else { &[] };
        let within = around.iter().try_fold(&tree, |node, step| find(node, "steps", step))?;
        let step = find(within, under, name)?;
        let rows = || step.get("map")?.get("over")?.get("rows").filter(|_| key == "query");
        let node = rows().or_else(|| step.get("with")?.get(key))?;
        let text = node.text()?;
        let of_line = text.lines().nth(line.checked_sub(1)?)?;
        let after = file.get(node.place.start..)?;
        // The lines of a block are those of the text behind an indent; a text in one line is as it is, unless it has escapes.
        let at = match of_line.trim() {
            "" => 0,
            _ => {
                after.find(of_line).map(|at| at + of_line.char_indices().nth(column.saturating_sub(1)).map_or(0, |(at, _)| at)).unwrap_or(0)
            }
        };
        let before = file.get(..node.place.start + at)?;
        Some((before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1))
    }
}

/// The entry of a name in any mapping that is called `under`.
fn find<'a>(node: &'a Node, under: &str, name: &str) -> Option<&'a Node> {
    match &node.value {
        Yaml::Map(entries) => {
            let own = entries.iter().find(|(key, _)| key.name == under).and_then(|(_, within)| within.get(name));
            own.or_else(|| entries.iter().find_map(|(_, within)| find(within, under, name)))
        }
        Yaml::List(all) => all.iter().find_map(|within| find(within, under, name)),
        _ => None,
    }
}
