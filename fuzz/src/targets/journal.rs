//! Events as a journal keeps them, one JSON a line. Their numbers are set right, since every other is refused at once. What folds can be
//! reported, and it can be decided what happens next.

use jiff::Timestamp;
use repair_core::ErrorKind;
use repair_core::engine::{Recorded, RunReport, RunState, decide};
use repair_core::plugin::Registry;
use repair_core::workflow::Workflow;

pub fn run(data: &[u8]) {
    let mut events = Vec::new();
    for (sequence, line) in (0..).zip(data.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())) {
        let Ok(mut recorded) = serde_json::from_slice::<Recorded>(line) else { break };
        recorded.sequence = sequence;
        // What is written again is the same event.
        let written = serde_json::to_vec(&recorded).expect("an event is JSON");
        assert_eq!(serde_json::from_slice::<Recorded>(&written).expect("an event is read again"), recorded);
        events.push(recorded);
    }
    let mut state = match events.first().map(RunState::begin) {
        Some(Ok(state)) => state,
        _ => return,
    };
    for recorded in &events[1..] {
        if let Err(error) = state.apply(recorded) {
            assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
            break;
        }
    }
    serde_json::to_string(&RunReport::new("one", &state)).expect("a report is JSON");
    let text = state.started.definition.to_string();
    if let Ok(workflow) = Workflow::parse_with("w.yaml", &text, &Registry::default(), &state.started.children.clone().into_iter().collect())
    {
        let soon = state.updated_at.checked_add(jiff::SignedDuration::from_secs(60)).unwrap_or(Timestamp::MAX);
        decide(&state, &workflow, soon);
    }
}
