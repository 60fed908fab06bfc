//! Checks that what a schedule names is there, and that its runs have all parameters.

use super::Checker;
use crate::workflow::read::{did_you_mean, one_of, quoted};
use crate::workflow::schedule::Starts;

impl Checker<'_> {
    pub(super) fn schedule(&mut self) {
        let draft = self.draft;
        let workflow = &draft.workflow;
        let (Some(schedule), Some(places)) = (&workflow.schedule, &draft.schedule) else { return };
        if let Err(error) = workflow.bind_values(&schedule.params) {
            let help = "give the parameters of scheduled runs under `schedule: { params: … }`, or give them defaults".to_owned();
            self.error(places.params.unwrap_or(places.schedule), format!("the schedule: {}", error.message()), help);
        }
        if let (Some(profile), Some(place)) = (&schedule.profile, places.profile)
            && !workflow.profiles.contains_key(profile)
        {
            let known = || workflow.profiles.keys().map(String::as_str);
            let help = did_you_mean(profile, known()).unwrap_or_else(|| one_of(known()));
            self.error(place, format!("there is no profile {}", quoted(profile)), help);
        }
        match (&schedule.starts, places.after) {
            (Starts::AfterWorkflow(name), Some(place)) if *name == workflow.name => {
                self.error(place, "the workflow would start itself again and again", "name another workflow".to_owned());
            }
            (Starts::AfterTable(table), Some(place)) if workflow.writes(table) => {
                let help = "name a table that other workflows write".to_owned();
                self.error(place, format!("this workflow writes {} itself, so it would start itself again and again", quoted(table)), help);
            }
            _ => {}
        }
    }
}
