//! The task `command`: runs a program for what it does, such as fetching a file that is then examined.

use async_trait::async_trait;
use repair_core::model::Usage;
use repair_core::plugin::{Registry, StepContext, Task};
use repair_core::text::visible_lines;
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ONE_CALL;
use crate::allowed::Options;
use crate::command::program::{Program, config};
use crate::command::sensor::one_value;
use crate::command::{NAME, OUTPUT_BYTES};
use crate::template::Values;

/// How many characters of a text are in the output of a step.
const SHOWN_CHARS: usize = 4_000;

/// What the output of a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskAnswer {
    /// `stdout` and `stderr`, their texts.
    #[default]
    Text,
    /// The value of JSON that it writes.
    Json,
}

config! {
    /// The configuration of the task.
    pub struct CommandTaskConfig {
        /// What `$output` is: `text` (`stdout` and `stderr`, up to 4,000 and 1,000 characters; the default), or `json` (the value that it writes).
        #[serde(default)]
        pub answer: TaskAnswer,
    }
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry.task(NAME, "runs a program", move |config: CommandTaskConfig| {
        let program = Program::new(config.program(), &[], OUTPUT_BYTES, &options)?;
        Ok(CommandTask { program, answer: config.answer })
    });
}

struct CommandTask {
    program: Program,
    answer: TaskAnswer,
}

#[async_trait]
impl Task for CommandTask {
    async fn perform(&self, context: &StepContext) -> Result<(Value, Usage)> {
        // The same for each attempt, so that a program which is run again after a crash can know it.
        let id = format!("{}/{}/{}", context.run, context.step, context.visit);
        let call = context.calls.begin(ONE_CALL).await?;
        let answered = self.program.call(context, self.program.request("task", context, &id), Values::new(), &[]).await;
        context.calls.end(call, answered.is_ok().then_some(ONE_CALL)).await?;
        let answered = answered?;
        let output = match self.answer {
            TaskAnswer::Json => one_value(&answered.answer),
            TaskAnswer::Text => match std::str::from_utf8(&answered.answer) {
                Ok(text) => Ok(json!({ "stdout": shown(text), "stderr": answered.errors })),
                Err(_) => Err(Error::invalid("something that is not text")),
            },
        };
        Ok((output.map_err(|error| answered.refused(&error))?, Usage::default()))
    }
}

fn shown(text: &str) -> String {
    let text = visible_lines(text.trim_end());
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
