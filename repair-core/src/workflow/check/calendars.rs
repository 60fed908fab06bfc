//! Makes the calendars of a draft, and checks that their names are free and that they extend something.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::read::{did_you_mean, one_of, quoted};
use super::Checker;
use crate::model::Calendar;
use crate::plugin::Registry;

impl<'a> Checker<'a> {
    /// The calendars that could be made, by name.
    pub(super) fn calendars(&mut self) -> BTreeMap<String, Arc<dyn Calendar>> {
        let (draft, registry): (&'a _, &'a Registry) = (self.draft, self.registry);
        let mut made: BTreeMap<String, Arc<dyn Calendar>> = BTreeMap::new();
        let mut waiting = Vec::new();
        for calendar in &draft.calendars {
            if registry.calendars().contains_key(calendar.name) {
                let message = format!("there is a built-in calendar {} already", quoted(calendar.name));
                let help = format!("give yours another name, e.g. `my-{}`", calendar.name);
                self.error(calendar.place, message, help);
            } else {
                waiting.push(calendar);
            }
        }
        // Each round makes those whose base is there, until no more can be made.
        loop {
            let before = waiting.len();
            waiting.retain(|calendar| {
                let base = calendar.rule.extends().map(|name| registry.calendars().get(name).or_else(|| made.get(name)));
                if base.is_some_and(|base| base.is_none()) {
                    return true;
                }
                match calendar.rule.calendar(calendar.name, base.flatten()) {
                    Ok(calendar) => drop(made.insert(calendar.name().to_owned(), calendar)),
                    Err(error) => {
                        let message = format!("calendar {}: {}", quoted(calendar.name), error.message());
                        self.diagnostics.push(calendar.place, message, None);
                    }
                }
                false
            });
            if waiting.len() == before {
                break;
            }
        }
        for calendar in waiting {
            let name = calendar.rule.extends().unwrap_or_default();
            let place = calendar.extends.unwrap_or(calendar.place);
            let others = || draft.calendar_names.iter().copied().filter(|other| *other != calendar.name);
            if draft.calendars.iter().any(|other| other.name == name) {
                // Unless a mistake in the other one was reported, it waits for this one.
                if !self.broken(name) {
                    let message = format!("calendar {} would extend itself", quoted(calendar.name));
                    self.error(place, message, "extend a calendar that does not extend this one".to_owned());
                }
            } else if draft.complete && !draft.calendar_names.contains(&name) {
                let known = || registry.calendars().keys().map(String::as_str).chain(others());
                let help = did_you_mean(name, known()).unwrap_or_else(|| one_of(known()));
                self.error(place, format!("there is no calendar {}", quoted(name)), help);
            }
        }
        made
    }

    /// Whether a calendar, or one that it extends, could not be made although nothing extends itself.
    fn broken(&self, name: &str) -> bool {
        let find = |name: &str| self.draft.calendars.iter().find(|other| other.name == name);
        let mut at = name;
        for _ in 0..=self.draft.calendars.len() {
            match find(at).map(|calendar| calendar.rule.extends()) {
                Some(Some(next)) => at = next,
                // It ends at a calendar of another kind, so the mistake is there.
                _ => return true,
            }
        }
        false
    }
}
