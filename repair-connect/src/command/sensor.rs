//! The sensor `command`: asks a program whether something has happened.

use async_trait::async_trait;
use repair_core::plugin::{Registry, Sensor, StepContext};
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::ONE_CALL;
use crate::allowed::Options;
use crate::command::program::{Program, config};
use crate::command::{NAME, OUTPUT_BYTES};
use crate::template::Values;

/// How a sensor answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SensorAnswer {
    /// A value of JSON, which is `$output` of the condition.
    #[default]
    Json,
    /// Its exit code: 0 is true, 1 is false.
    ExitCode,
}

config! {
    /// The configuration of the sensor.
    pub struct CommandSensorConfig {
        /// How it answers: `json` (a value, the default), or `exit_code` (0 is true, 1 is false, as `test -e FILE` answers).
        #[serde(default)]
        pub answer: SensorAnswer,
    }
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry.sensor(NAME, "asks a program whether something has happened", move |config: CommandSensorConfig| {
        let program = Program::new(config.program(), &[], OUTPUT_BYTES, &options)?;
        if config.answer == SensorAnswer::ExitCode && config.exit_codes.contains_key(&1) {
            return Err(Error::invalid(
                "exit code 1 is the answer false of `answer: exit_code`, and cannot be an error; remove it from `exit_codes`",
            ));
        }
        Ok(CommandSensor { program, answer: config.answer })
    });
}

struct CommandSensor {
    program: Program,
    answer: SensorAnswer,
}

#[async_trait]
impl Sensor for CommandSensor {
    async fn sense(&self, context: &StepContext) -> Result<Value> {
        let id = format!("{}/{}/{}", context.run, context.step, context.visit);
        let expected: &[u8] = if self.answer == SensorAnswer::ExitCode { &[1] } else { &[] };
        let call = context.calls.begin(ONE_CALL).await?;
        let answered = self.program.call(context, self.program.request("sensor", context, &id), Values::new(), expected).await;
        context.calls.end(call, answered.is_ok().then_some(ONE_CALL)).await?;
        let answered = answered?;
        match self.answer {
            SensorAnswer::ExitCode => Ok((answered.code == 0).into()),
            SensorAnswer::Json => one_value(&answered.answer).map_err(|error| answered.refused(&error)),
        }
    }
}

/// The one value of JSON that an answer is.
///
/// # Errors
/// `invalid` if it is none.
pub(super) fn one_value(answer: &[u8]) -> Result<Value> {
    if answer.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid("nothing, where a value of JSON belongs"));
    }
    serde_json::from_slice(answer).map_err(|error| Error::invalid(format!("something that is not one value of JSON ({error})")))
}
