//! The state of a run as text, so that it can be kept and a long history need not be folded from its beginning. Pure.
//!
//! The text is only for the program that wrote it: to another one, and to another run, it means nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::engine::pure::state::RunState;
use crate::error::{Error, Result};

/// What folds events into states: a hash of the code that does, as it was compiled. A state that was folded by other code is not used, so a change of
/// that code needs no thought of states that are kept somewhere.
const FOLDED_BY: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    hash = hashed(hash, include_bytes!("state.rs"));
    hash = hashed(hash, include_bytes!("units.rs"));
    hash = hashed(hash, include_bytes!("answers.rs"));
    hash = hashed(hash, include_bytes!("event.rs"));
    hash = hashed(hash, include_bytes!("kept.rs"));
    hash = hashed(hash, include_bytes!("../../model/defect.rs"));
    hash = hashed(hash, include_bytes!("../../model/fix.rs"));
    hashed(hash, include_bytes!("../../model/usage.rs"))
};

/// FNV-1a.
const fn hashed(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    folded_by: u64,
    run: Cow<'a, str>,
    state: Cow<'a, RunState>,
}

/// The text of a state.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn to_text(run: &str, state: &RunState) -> Result<String> {
    let kept = Kept { folded_by: FOLDED_BY, run: Cow::Borrowed(run), state: Cow::Borrowed(state) };
    serde_json::to_string(&kept).map_err(|error| Error::internal("the state of a run cannot be written as JSON").because(error))
}

/// The state of a run after so many events; `None` if the text is of another run, number, or program, or is none at all.
pub(crate) fn from_text(run: &str, events: u64, text: &str) -> Option<RunState> {
    let kept: Kept<'_> = serde_json::from_str(text).ok()?;
    let is_ours = kept.folded_by == FOLDED_BY && kept.run == run && kept.state.next_sequence == events;
    is_ours.then(|| kept.state.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pure::event::Recorded;

    /// Of every kind of event, and after each of them.
    #[test]
    fn a_state_comes_back_as_it_was_after_any_event_of_any_golden_journal() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut journals = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let events: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let mut state = RunState::begin(&events[0]).unwrap();
            let mut from_kept = state.clone();
            for recorded in &events[1..] {
                state.apply(recorded).unwrap();
                from_kept.apply(recorded).unwrap();
                let kept = to_text("run", &from_kept).unwrap();
                from_kept = from_text("run", state.next_sequence, &kept).unwrap();
                assert_eq!(from_kept, state, "after event {}", recorded.sequence);
                assert!(from_text("run", state.next_sequence + 1, &kept).is_none());
                assert!(from_text("other", state.next_sequence, &kept).is_none());
            }
            journals += 1;
        }
        assert!(journals > 5, "there are golden journals");
    }
}
