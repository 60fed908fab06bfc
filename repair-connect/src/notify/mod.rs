//! How messages about runs reach people and other systems: [`receiver`] makes what delivers them.
//!
//! | to | how |
//! | --- | --- |
//! | `webhook` | posted as JSON, and [signed](signature) with a shared secret (feature `http`) |
//! | `slack` | posted as `{"text": …}` to the URL in a variable of the environment (feature `http`) |
//! | `command` | a program reads the JSON from its input |
//! | `email` | sent by SMTP (feature `smtp`) |
//!
//! [`lineage`] does the same for OpenLineage events, which go to a URL or a file.
//!
//! Secrets come from the environment. They are in no message, log or error. This module must not know what a message is about, nor when it is sent
//! again.

mod command;
mod file;
#[cfg(feature = "smtp")]
mod mail;
#[cfg(feature = "http")]
mod post;
#[cfg(feature = "http")]
pub mod signature;

use std::sync::Arc;

use repair_core::builtin::Period;
use repair_core::plugin::Deliver;
use repair_core::workflow::{Lineage, Receiver};
use repair_core::{Error, Hint, Result};

use crate::allowed::Options;

/// How long a program may take with a message.
const PROGRAM_TIMEOUT: Period = Period::minutes(1);

/// What delivers messages to a receiver. Nothing is sent, and no variable of the environment is read, before the first message is.
///
/// # Errors
/// `invalid` if the receiver makes no sense, or this program was built without the feature for it; `denied` if it runs a program that may not be run.
///
/// ```
/// use repair_connect::{Commands, Options, notify};
/// use repair_core::workflow::Receiver;
///
/// let page = |program: &str| Receiver::Command { run: vec![program.into()], env: Vec::new() };
/// let options = Options::default().with_commands(Commands::only(["page-somebody"]));
/// assert!(notify::receiver(&page("page-somebody"), &options).is_ok());
/// assert!(notify::receiver(&page("rm"), &options).is_err());
/// ```
pub fn receiver(to: &Receiver, options: &Options) -> Result<Arc<dyn Deliver>> {
    match to {
        #[cfg(feature = "http")]
        Receiver::Webhook { address, secret_env } => Ok(Arc::new(post::Webhook::new(address, secret_env.as_deref(), options)?)),
        #[cfg(feature = "http")]
        Receiver::Slack { url_env } => Ok(Arc::new(post::Slack::new(url_env, options))),
        Receiver::Command { run, env } => Ok(Arc::new(command::Program::new(run, env, options)?)),
        #[cfg(feature = "smtp")]
        Receiver::Email { to, from, server } => Ok(Arc::new(mail::Mail::new(to, from, server, options)?)),
        #[cfg(not(feature = "smtp"))]
        Receiver::Email { .. } => Err(lacking(to.word(), "smtp")),
        Receiver::Sns { .. } => Err(lacking(to.word(), "aws")),
        other => Err(lacking(other.word(), "http")),
    }
}

/// What delivers OpenLineage events.
///
/// # Errors
/// As [`receiver`].
pub fn lineage(to: &Lineage, options: &Options) -> Result<Arc<dyn Deliver>> {
    #[cfg(not(feature = "http"))]
    let _ = options;
    match to {
        #[cfg(feature = "http")]
        Lineage::Url { address, key_env } => Ok(Arc::new(post::Lineage::new(address, key_env.as_deref(), options)?)),
        Lineage::File(path) => Ok(Arc::new(file::Lines::new(path))),
        _ => Err(lacking("lineage", "http")),
    }
}

fn lacking(what: &str, feature: &'static str) -> Error {
    Error::invalid(format!("this program was built without `{what}`")).hint(Hint::Feature { name: feature })
}
