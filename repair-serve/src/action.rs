//! What readers may start: runs, plans, and what is said to runs. A run that is started here is driven here, beside all readers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use repair::core::engine::new_run_id;
use repair::plan::Plan;
use repair::{Error, ErrorKind, Repair, Result};

use crate::server::Shared;
use crate::watch::Watched;

/// How many plans are kept.
const MOST_PLANS: usize = 20;
/// The beginning of the names of fields that are parameters.
const PARAM: &str = "param.";

/// A plan that a reader has made.
pub(crate) struct Planned {
    pub(crate) id: String,
    pub(crate) made_at: Timestamp,
    pub(crate) repair: Repair,
    pub(crate) plan: Plan,
}

/// The fields of a form.
pub(crate) type Form = BTreeMap<String, String>;

/// The parameters of a form; a field that was left empty is not given.
fn params(form: &Form) -> impl Iterator<Item = (&str, &str)> {
    form.iter().filter_map(|(name, value)| Some((name.strip_prefix(PARAM)?, value.trim()))).filter(|(_, value)| !value.is_empty())
}

impl Shared {
    async fn open(&self, workflow: &str, form: &Form) -> Result<Repair> {
        let loaded = self.workflow(workflow)?;
        let profile = loaded.workflow.schedule.as_ref().and_then(|schedule| schedule.profile.as_deref());
        self.options.opening(loaded.file.clone(), profile, self.stop.child_token()).params(params(form)).connect().await
    }

    /// Starts a run, and returns where it is seen: once it is on record, or if it could not begin, the error.
    pub(crate) async fn start(self: &Arc<Self>, workflow: &str, form: &Form) -> Result<String> {
        let repair = self.open(workflow, form).await?;
        let (lake, run) = (self.watch(repair.lake()), new_run_id());
        let id = run.clone();
        let driving = tokio::spawn(async move { repair.run().id(id.as_str()).await.map(drop) });
        self.begun(lake, &run, 0, driving).await
    }

    /// Waits until a run has more than so many events on record, or until what drives it ends with an error.
    async fn begun(
        self: &Arc<Self>,
        lake: usize,
        run: &str,
        events: u64,
        mut driving: tokio::task::JoinHandle<Result<()>>,
    ) -> Result<String> {
        let watched = self.lake(lake)?;
        loop {
            tokio::select! {
                done = &mut driving => {
                    done.map_err(|error| Error::internal("what drives the run has ended by itself").because(error))??;
                    break;
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {
                    if watched.lake.state(run).await.is_ok_and(|state| state.next_sequence > events) {
                        break;
                    }
                }
            }
        }
        if !driving.is_finished() {
            self.look_after(run.to_owned(), driving);
        }
        self.wake.notify_waiters();
        Ok(format!("/lakes/{lake}/runs/{run}"))
    }

    /// Writes into the log how driving a run ended, if it ended with an error.
    fn look_after(self: &Arc<Self>, run: String, driving: tokio::task::JoinHandle<Result<()>>) {
        let shared = self.clone();
        tokio::spawn(async move {
            match driving.await {
                Ok(Err(error)) if error.kind() != ErrorKind::Cancelled => {
                    tracing::warn!(run, error = error.full(), "the run is no longer driven");
                }
                Err(error) => tracing::error!(run, %error, "what drives the run has ended by itself"),
                Ok(_) => {}
            }
            shared.wake.notify_waiters();
        });
    }

    /// Makes a plan, and returns where it is seen.
    pub(crate) async fn plan(&self, workflow: &str, form: &Form) -> Result<String> {
        let repair = self.open(workflow, form).await?;
        let plan = repair.plan().await?;
        let planned = Planned { id: new_run_id(), made_at: self.options.clock.now(), repair, plan };
        let place = format!("/plans/{}", planned.id);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.push_front(Arc::new(planned));
        plans.truncate(MOST_PLANS);
        Ok(place)
    }

    /// The plan of an id.
    ///
    /// # Errors
    /// `not-found` if it is not kept any more.
    pub(crate) fn planned(&self, id: &str) -> Result<Arc<Planned>> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let found = plans.iter().find(|planned| planned.id == id).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "this plan is not kept any more; make another one"))
    }

    /// Does what a plan says.
    pub(crate) async fn apply(self: &Arc<Self>, id: &str) -> Result<String> {
        let planned = self.planned(id)?;
        let (lake, run) = (self.watch(planned.repair.lake()), planned.plan.run_id());
        let driving = tokio::spawn(async move { planned.repair.apply(&planned.plan).await.map(drop) });
        self.begun(lake, &run, 0, driving).await
    }

    /// The lake of a number.
    ///
    /// # Errors
    /// `not-found` if there is none.
    pub(crate) fn lake(&self, number: usize) -> Result<Arc<Watched>> {
        self.lakes().get(number).cloned().ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such lake"))
    }

    /// Does something with a run, and returns where it is seen.
    pub(crate) async fn act(self: &Arc<Self>, lake: usize, run: &str, what: &str, form: &Form) -> Result<String> {
        let watched = self.lake(lake)?;
        let opened = watched.lake.clone().stop(self.stop.child_token());
        let text = |name: &str| form.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        match what {
            "cancel" => drop(opened.cancel(run).await?),
            "pause" => drop(opened.pause(run).await?),
            "approve" | "reject" => {
                let by = text("by");
                drop(opened.decide(run, text("step").as_deref(), what == "approve", by.as_deref(), text("reason")).await?);
            }
            "resume" | "redrive" => {
                // Whether it can go on at all is known before anything is driven.
                let state = opened.state(run).await?;
                let before = state.next_sequence;
                let (id, again) = (run.to_owned(), what == "redrive");
                let lake_of_run = opened.clone();
                let driving = tokio::spawn(async move {
                    let request = if again { lake_of_run.redrive(id) } else { lake_of_run.resume(id) };
                    request.await.map(drop)
                });
                return self.begun(lake, run, before, driving).await;
            }
            _ => return Err(Error::new(ErrorKind::NotFound, format!("`{what}` is nothing that can be done with a run"))),
        }
        self.wake.notify_waiters();
        Ok(format!("/lakes/{lake}/runs/{run}"))
    }
}
