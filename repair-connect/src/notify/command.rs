//! Messages for a program.

use async_trait::async_trait;
use repair_core::Result;
use repair_core::plugin::{Deliver, Message};
use tokio_util::sync::CancellationToken;

use crate::allowed::Options;
use crate::command::program::{self, ProgramConfig};
use crate::template::Values;

/// How much a program may write, which nobody reads.
const ANSWER_BYTES: u64 = 1 << 20;

/// The values that its arguments may have.
const NAMES: [&str; 2] = ["subject", "text"];

/// A program that is run for each message, and reads it as JSON from its input.
pub(super) struct Program {
    program: program::Program,
}

impl Program {
    pub(super) fn new(run: &[String], env: &[String], options: &Options) -> Result<Self> {
        let config = ProgramConfig {
            run: Some(run.to_vec()),
            shell: None,
            folder: None,
            env: env.to_vec(),
            params: serde_json::Map::new(),
            timeout: Some(super::PROGRAM_TIMEOUT),
            exit_codes: std::collections::BTreeMap::new(),
            max_bytes: None,
        };
        Ok(Self { program: program::Program::new(config, &NAMES, ANSWER_BYTES, options)? })
    }
}

#[async_trait]
impl Deliver for Program {
    async fn deliver(&self, message: &Message) -> Result<()> {
        let body = message.body.to_string().into_bytes();
        let text = |name: &str| message.body.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let values = Values::from([
            ("id", message.id.clone()),
            ("subject", message.subject.clone()),
            ("text", message.text.clone()),
            ("run", text("run")),
            ("step", text("step")),
            ("visit", String::new()),
            ("attempt", String::new()),
            ("now", message.sent_at.to_string()),
        ]);
        self.program.perform(body, &values, &[], &CancellationToken::new(), || ()).await.map(drop)
    }
}
