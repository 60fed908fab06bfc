//! The workflow language: it turns text into a checked [`Workflow`], and evaluates the expressions in it.

mod bind;
mod bounded;
pub mod builder;
mod calendar;
mod check;
mod definition;
mod document;
mod duration;
mod expression;
mod graph;
mod include;
mod limits;
mod locate;
mod notify;
mod parse;
mod read;
mod references;
pub mod schedule;
mod schema;

pub use bind::{MAX_PARAM_BYTES, MAX_PARAM_ITEMS};
pub use calendar::CalendarRule;
pub use definition::*;
pub use document::{Document, Shared};
pub use duration::{MAX_DURATION, parse_duration, parse_rate};
pub use expression::{EVALUATOR, Evaluate, Expression, MAX_EXPRESSION_BYTES, evaluate_apart_with};
pub use graph::{Arrow, Way, arrows, graph, subject, to_dot, to_mermaid};
pub use limits::{BudgetLimit, BudgetScope, Prices, detector_of, limits, source_of};
pub use notify::{Address, Lineage, MailAddress, MailSecurity, MailServer, Notifier, Occasion, Receiver, Topic};
pub use schema::schema;
