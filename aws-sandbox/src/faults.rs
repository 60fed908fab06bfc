//! Which faults occur, and when: rules from a test or the command, and the log of served requests. It must not know how a fault looks on
//! the wire ([`server`](crate::server) does) or in a query ([`athena`](crate::athena) does).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The log keeps this many requests, so that a sandbox that runs for days does not grow without limit.
pub const LOG_LIMIT: usize = 200_000;

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Objects.
    S3,
    /// Queries.
    Athena,
    /// The catalog.
    Glue,
    /// Messages.
    Sns,
}

impl Service {
    /// The service's prefix in the actions of a policy.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Athena => "athena",
            Self::Glue => "glue",
            Self::Sns => "sns",
        }
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// `ThrottlingException`: too many calls. From S3, `SlowDown`.
    Throttled,
    /// `TooManyRequestsException`: too many queries at once. From S3, `SlowDown`.
    TooManyRequests,
    /// `SlowDown`, 503: S3's word for too many calls. From the others, `ThrottlingException`.
    SlowDown,
    /// An internal error of the service, 500.
    Internal,
    /// The caller is not allowed to do this; the message names the action and the resource.
    AccessDenied,
    /// The caller's credentials have expired.
    ExpiredToken,
    /// `ConditionalRequestConflict`, 409: S3 saw another write of the same key in progress, and wrote nothing.
    Conflict,
    /// The request is served after this long.
    Delay {
        /// How long.
        delay_ms: u64,
    },
    /// The connection closes without an answer, and nothing was done.
    DropBefore,
    /// The request is performed, and the connection closes without an answer.
    DropAfter,
    /// The body of the answer ends after this many bytes, though its head promised all.
    Truncate {
        /// How many bytes arrive.
        keep_bytes: usize,
    },
    /// A running query returns to the queue once. For Athena's `StartQueryExecution`.
    BackToQueued,
    /// A query runs at least this long. For Athena's `StartQueryExecution`.
    DelayQuery {
        /// How long.
        delay_ms: u64,
    },
    /// A query fails after it was accepted. For Athena's `StartQueryExecution`.
    FailQuery {
        /// `AthenaError.ErrorCategory`: 1 is a system error, 2 the user's, 3 other.
        category: i32,
        /// `AthenaError.ErrorType`.
        kind: i32,
        /// `AthenaError.Retryable`.
        retryable: bool,
        /// `StateChangeReason` and `AthenaError.ErrorMessage`.
        message: String,
    },
}

impl Fault {
    /// Whether it affects a query, after the request that started it was answered.
    pub fn is_of_query(&self) -> bool {
        matches!(self, Self::BackToQueued | Self::DelayQuery { .. } | Self::FailQuery { .. })
    }
}

/// When a fault occurs. All given conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The service.
    pub service: Service,
    /// The operation, as AWS names it (`PutObject`); `None` means all.
    #[serde(default)]
    pub operation: Option<String>,
    /// A prefix of the resource. For S3, the resource is `bucket/key`, and for a listing `bucket/prefix`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// A part of the resource. For Athena's `StartQueryExecution`, the resource is the SQL.
    #[serde(default)]
    pub contains: Option<String>,
    /// How many matching requests pass first.
    #[serde(default)]
    pub skip: u64,
    /// How many requests it affects; `None` means all that follow.
    #[serde(default)]
    pub times: Option<u64>,
    /// The fault.
    pub fault: Fault,
}

impl Rule {
    /// A rule that affects every request of an operation (of all operations, if it is `"*"`).
    pub fn new(service: Service, operation: &str, fault: Fault) -> Self {
        let operation = (operation != "*").then(|| operation.to_owned());
        Self { service, operation, prefix: None, contains: None, skip: 0, times: None, fault }
    }

    /// Only resources that begin with this.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: Some(prefix.into()), ..self }
    }

    /// Only resources that contain this.
    #[must_use]
    pub fn contains(self, text: impl Into<String>) -> Self {
        Self { contains: Some(text.into()), ..self }
    }

    /// Only after this many matching requests.
    #[must_use]
    pub fn skip(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// At most this many times.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times: Some(times), ..self }
    }

    fn matches(&self, service: Service, operation: &str, resource: &str) -> bool {
        self.service == service
            && self.operation.as_deref().is_none_or(|of| of == operation)
            && self.prefix.as_deref().is_none_or(|prefix| resource.starts_with(prefix))
            && self.contains.as_deref().is_none_or(|text| resource.contains(text))
    }
}

/// A request that was served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The service.
    pub service: Service,
    /// The operation, as AWS names it.
    pub operation: String,
    /// The resource, as rules see it.
    pub resource: String,
    /// The HTTP status of the answer, or 0 if the connection closed without one.
    pub status: u16,
    /// The fault that affected it.
    pub fault: Option<Fault>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    log: VecDeque<Served>,
}

/// The rules and the log. Clones share them.
#[derive(Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Faults").field("rules", &self.lock().rules).finish_non_exhaustive()
    }
}

impl Faults {
    /// No rules, and an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule. Rules are tried in the order they were added.
    pub fn add(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    /// The fault for this request: that of the first rule that matches and is neither used up nor still skipping. Faults of queries are
    /// left for [`take_of_query`](Self::take_of_query).
    pub fn take(&self, service: Service, operation: &str, resource: &str) -> Option<Fault> {
        self.take_if(service, operation, resource, |fault| !fault.is_of_query())
    }

    /// The fault for the query that this request starts.
    pub fn take_of_query(&self, operation: &str, resource: &str) -> Option<Fault> {
        self.take_if(Service::Athena, operation, resource, Fault::is_of_query)
    }

    fn take_if(&self, service: Service, operation: &str, resource: &str, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.lock();
        for rule in state.rules.iter_mut().filter(|rule| wanted(&rule.fault) && rule.matches(service, operation, resource)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            match &mut rule.times {
                Some(0) => continue,
                Some(times) => *times -= 1,
                None => {}
            }
            return Some(rule.fault.clone());
        }
        None
    }

    /// Removes all rules. The log stays.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// Records a served request; beyond the limit, the oldest are forgotten.
    pub fn record(&self, served: Served) {
        let log = &mut self.lock().log;
        if log.len() == LOG_LIMIT {
            log.pop_front();
        }
        log.push_back(served);
    }

    /// The requests that were served, oldest first.
    pub fn log(&self) -> Vec<Served> {
        self.lock().log.iter().cloned().collect()
    }

    /// How many requests of an operation were served, whatever the answer.
    pub fn served(&self, service: Service, operation: &str) -> usize {
        self.lock().log.iter().filter(|served| served.service == service && served.operation == operation).count()
    }

    /// Forgets what was served. The rules stay.
    pub fn clear_log(&self) {
        self.lock().log.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_skips_then_befalls_then_is_used_up() {
        let faults = Faults::new();
        faults.add(Rule::new(Service::S3, "PutObject", Fault::SlowDown).prefix("lake/bars").skip(1).times(2));
        let take = || faults.take(Service::S3, "PutObject", "lake/bars/a");
        assert_eq!(faults.take(Service::S3, "PutObject", "lake/other"), None);
        assert_eq!(faults.take(Service::S3, "GetObject", "lake/bars/a"), None);
        assert_eq!([take(), take(), take(), take()], [None, Some(Fault::SlowDown), Some(Fault::SlowDown), None]);
    }

    #[test]
    fn faults_of_queries_and_of_requests_are_taken_apart() {
        let faults = Faults::new();
        faults.add(Rule::new(Service::Athena, "StartQueryExecution", Fault::BackToQueued).contains("from bars"));
        faults.add(Rule::new(Service::Athena, "*", Fault::Throttled));
        assert_eq!(faults.take(Service::Athena, "StartQueryExecution", "select 1 from bars"), Some(Fault::Throttled));
        assert_eq!(faults.take_of_query("StartQueryExecution", "select 1 from bars"), Some(Fault::BackToQueued));
        assert_eq!(faults.take_of_query("StartQueryExecution", "select 1"), None);
    }

    #[test]
    fn a_rule_is_read_from_json() {
        let rule: Rule =
            serde_json::from_str(r#"{"service":"s3","operation":"GetObject","times":1,"fault":{"truncate":{"keep_bytes":10}}}"#).unwrap();
        assert_eq!(rule, Rule::new(Service::S3, "GetObject", Fault::Truncate { keep_bytes: 10 }).times(1));
    }
}
