//! What a person can do about an error, in the words of this command: flags and other commands.

use repair::Hint;

/// The advice, as a clause that follows the error after a semicolon; `None` if the error says all.
pub(crate) fn advice(hint: &Hint) -> Option<String> {
    Some(match hint {
        Hint::Resume { run } => format!("continue with `repair resume {run}`"),
        Hint::Redrive { run } => format!("continue from where it failed with `repair redrive {run}`"),
        Hint::Cancel { run } => format!("end it with `repair cancel {run}`"),
        Hint::DrivenElsewhere { run } => format!("stop it with `repair pause {run}` or `repair cancel {run}`, or wait for it to end"),
        Hint::OtherRunId => "use another --run-id, or continue that run with `repair resume`".to_owned(),
        Hint::PriceBook => "name a price book with --prices FILE, or in the workflow with `prices:`".to_owned(),
        Hint::OtherLake => "name another lake with --lake DIR".to_owned(),
        Hint::MissingLake { profile: Some(profile) } => {
            format!("create it, correct `root` of profile `{profile}`, or name another lake with --lake DIR")
        }
        Hint::MissingLake { profile: None } => "create it, or name another lake with --lake DIR".to_owned(),
        Hint::DetectStep { known } => format!("choose one with --of: {}", known.join(", ")),
        Hint::Strategies => "name strategies with --strategies".to_owned(),
        Hint::Profile { known } if known.is_empty() => "name a workflow that has one, or a run".to_owned(),
        Hint::Profile { known } => format!("choose one with --profile: {}", known.join(", ")),
        Hint::PlanAgain => "make a new plan with `repair plan FILE -o PLAN`".to_owned(),
        Hint::Anyway => "raise the budget and plan again, or use --anyway to do what the budget allows".to_owned(),
        Hint::Key { columns } if columns.is_empty() => "leave out --key".to_owned(),
        Hint::Key { columns } => format!("choose a series with --key {}", columns.join(",")),
        Hint::DeclaringWorkflow => "name the workflow that declares it with --workflow FILE".to_owned(),
        Hint::Lift { table, id } => {
            format!("lift the decision with `repair except {table} --lift {id} --reason …`, or change another part")
        }
        Hint::Retractions => "`repair why` shows the ids of undos".to_owned(),
        Hint::Replace => "replace it with --force, or name another file with --out".to_owned(),
        Hint::FileFormat { name } => format!("use --format {name}"),
        Hint::Feature { name } => format!("build it with the feature `{name}`"),
        // The list of mistakes says where to correct what.
        Hint::CorrectFile { .. } => return None,
        // A hint that this version of the command has no words for.
        _ => return None,
    })
}
