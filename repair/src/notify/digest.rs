//! Gathers messages for a receiver that wants at most one in a while.

use std::time::Duration;

use jiff::Timestamp;
use repair_core::engine::JsonFormat;
use repair_core::lake::notified::{Digests, Gathered};
use repair_core::plugin::Message;
use repair_core::{Result, text};
use serde_json::json;

use super::desk::{Desk, Served, attempt, left_over};
use super::said::{Reading, Said};

/// How many messages one gathers. What is more waits for the next.
const MOST_GATHERED: usize = 200;
/// How many other runs are looked at for something to gather.
const MOST_RUNS: usize = 100;

/// What came of gathering.
pub(super) enum Due {
    /// A message was delivered.
    Delivered,
    /// The next one is due then.
    At(Timestamp),
}

impl Desk {
    /// Gathers what there is to say about a run, and about others of its workflow that nobody drives, and delivers it, if it is time.
    ///
    /// # Errors
    /// Those of the receiver, the lake and the journal.
    pub(super) async fn gather(&self, served: &Served, every: Duration, run: &str) -> Result<Due> {
        let _alone = self.gathering.lock().await;
        let mut digests = Digests::read(self.lake.as_ref(), &served.workflow, &served.name).await?;
        let sending = match digests.sending.take() {
            // A process ended before it had noted that this was delivered.
            Some(sending) => sending,
            None => {
                let now = self.clock.now();
                let due = digests.last.and_then(|last| last.checked_add(every).ok());
                if let Some(due) = due.filter(|due| *due > now) {
                    return Ok(Due::At(due));
                }
                let gathered = self.gathered(served, run, now).await?;
                digests.sending = Some(gathered.clone());
                digests.keep(self.lake.as_ref(), &served.workflow, &served.name).await?;
                gathered
            }
        };
        let said = self.said_of(served, &sending).await?;
        attempt(served.deliver.as_ref(), &message(served, &sending, &said, self.clock.now())).await?;
        for (run, ids) in &sending.of {
            self.note(run, served, ids.iter().map(|(sequence, id)| (*sequence, id.as_str()))).await?;
        }
        (digests.last, digests.sending) = (Some(sending.at), None);
        digests.keep(self.lake.as_ref(), &served.workflow, &served.name).await?;
        Ok(Due::Delivered)
    }

    /// What there is to say to a receiver now.
    async fn gathered(&self, served: &Served, run: &str, now: Timestamp) -> Result<Gathered> {
        let runs = left_over(self.journal.as_ref(), self.clock.as_ref(), Some(&served.workflow), MOST_RUNS).await?;
        let mut runs: Vec<String> = runs.into_iter().map(|(run, _)| run).collect();
        runs.retain(|other| other != run);
        runs.push(run.to_owned());
        let (mut of, mut count) = (Vec::new(), 0);
        let mut hasher = blake3::Hasher::new();
        for run in runs {
            let mut reading = Reading::new(&run, self.at.clone());
            let said = match reading.read(self.journal.as_ref(), &self.registry).await {
                Ok(said) => said.to_vec(),
                Err(error) => {
                    tracing::warn!(run, error = error.full(), "messages about the run cannot be found now");
                    continue;
                }
            };
            let mut pending = self.pending(&run, served, &said).await?;
            pending.truncate(MOST_GATHERED - count);
            count += pending.len();
            for said in &pending {
                hasher.update(said.id.as_bytes()).update(&[0]);
            }
            if !pending.is_empty() {
                of.push((run, pending.iter().map(|said| (said.sequence, said.id.clone())).collect()));
            }
        }
        let hash = hasher.finalize().to_hex();
        Ok(Gathered::new(format!("digest.{}.{}", hash.get(..24).unwrap_or_default(), served.name), now, of))
    }

    /// The messages that are gathered.
    async fn said_of(&self, served: &Served, gathered: &Gathered) -> Result<Vec<std::sync::Arc<Said>>> {
        let mut all = Vec::new();
        for (run, ids) in &gathered.of {
            let mut reading = Reading::new(run, self.at.clone());
            let said = reading.read(self.journal.as_ref(), &self.registry).await?;
            all.extend(said.iter().filter(|said| served.wants(said) && ids.contains(&(said.sequence, said.id.clone()))).cloned());
        }
        all.sort_by_key(|said| said.at);
        Ok(all)
    }
}

fn message(served: &Served, gathered: &Gathered, said: &[std::sync::Arc<Said>], now: Timestamp) -> Message {
    let count = text::count(said.len() as u64, "message");
    let lines: Vec<String> = said.iter().map(|said| format!("- {}: {}", said.at.strftime("%Y-%m-%d %H:%M:%SZ"), said.text())).collect();
    let all = format!("{count} of workflow `{}`:\n{}", served.workflow, lines.join("\n"));
    let messages: Vec<serde_json::Value> = said.iter().map(|said| said.body(&served.name)).collect();
    let body = json!({
        "format": JsonFormat,
        "id": gathered.id,
        "to": served.name,
        "workflow": served.workflow,
        "what": "digest",
        "at": gathered.at,
        "messages": messages,
        "text": all,
    });
    Message::new(gathered.id.clone(), format!("[repair] {}: {count}", served.workflow), all, body, now)
}
