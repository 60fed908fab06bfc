//! Workflows as people write them: every text is read, or refused with diagnostics that can be shown.

use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Workflow::parse("fuzz.yaml", text, &Registry::default()) {
        Ok(workflow) => {
            // What was read once is read again, to the same.
            let again = Workflow::parse("fuzz.yaml", text, &Registry::default()).expect("what was read is read again");
            assert_eq!(workflow.tables, again.tables);
            assert_eq!(workflow.steps.len(), again.steps.len());
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "refused without a reason");
            assert!(!diagnostics.render(false).is_empty());
            diagnostics.render(true);
        }
    }
}
