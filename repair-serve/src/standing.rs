//! Runs the schedules of a folder, and reads it again when it changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use repair::schedule::{Alert, Scheduler};
use repair::{CancellationToken, Result};
use tokio::task::JoinHandle;

use crate::folder::{Folder, Loaded};
use crate::server::Shared;

/// How often the folder is looked at.
const LOOK_AT_FOLDER: Duration = Duration::from_secs(2);
/// How often it is looked at how a schedule stands.
const LOOK_AT_SCHEDULE: Duration = Duration::from_secs(2);
/// How long is waited after a workflow could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// A schedule that is being run.
struct Running {
    loaded: Arc<Loaded>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Keeps schedules running, each as its file says, until the server stops. The folder was read before anybody could ask for it.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut running: HashMap<String, Running> = HashMap::new();
    follow(&shared, &mut running).await;
    while !shared.stop.is_cancelled() {
        let path = shared.options.folder.clone();
        if shared.folder().has_changed(&path) {
            let registry = shared.options.registry.clone();
            let read = tokio::task::spawn_blocking(move || Folder::read(&path, &registry)).await;
            if let Ok(folder) = read {
                shared.set_folder(folder);
                follow(&shared, &mut running).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_FOLDER) => {}
            () = shared.stop.cancelled() => {}
        }
    }
    for (_, Running { task, .. }) in running {
        let _ = task.await;
    }
}

/// Starts schedules that are new, and stops those that are no more, or are another one now. A run that is under way stops too, and goes on as it began.
async fn follow(shared: &Arc<Shared>, running: &mut HashMap<String, Running>) {
    let folder = shared.folder();
    let gone: Vec<String> = running
        .iter()
        .filter(|(name, running)| !folder.workflows.iter().any(|loaded| loaded.name() == *name && loaded.is_same(&running.loaded)))
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        if let Some(Running { stop, task, .. }) = running.remove(&name) {
            stop.cancel();
            let _ = task.await;
            shared.forget_schedule(&name);
        }
    }
    for loaded in &folder.workflows {
        if running.contains_key(loaded.name()) {
            continue;
        }
        let stop = shared.stop.child_token();
        let task = tokio::spawn(stand(shared.clone(), loaded.clone(), stop.clone()));
        running.insert(loaded.name().to_owned(), Running { loaded: loaded.clone(), stop, task });
    }
}

/// Runs one schedule, or only watches the lake of a workflow that has none.
async fn stand(shared: Arc<Shared>, loaded: Arc<Loaded>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match begin(&shared, &loaded, &stop).await {
            Ok(None) => return,
            Ok(Some(scheduler)) => {
                let showing = show(&shared, &scheduler, &stop);
                if shared.options.schedules {
                    tokio::join!(scheduler.run(), showing);
                } else {
                    showing.await;
                }
            }
            Err(error) => {
                tracing::warn!(workflow = loaded.name(), error = error.full(), "the workflow cannot be opened; it is tried again");
                tokio::select! {
                    () = tokio::time::sleep(OPEN_AGAIN) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

async fn begin(shared: &Arc<Shared>, loaded: &Loaded, stop: &CancellationToken) -> Result<Option<Scheduler>> {
    let Some(schedule) = &loaded.workflow.schedule else {
        // Where its lake is may depend on parameters; then it is watched once a run has started.
        if let Ok(repair) = shared.options.opening(loaded.file.clone(), None, stop.clone()).connect().await {
            shared.watch(repair.lake());
        }
        return Ok(None);
    };
    let opening = shared.options.opening(loaded.file.clone(), schedule.profile.as_deref(), stop.clone()).values(schedule.params.clone());
    let repair = opening.connect().await?;
    shared.watch(repair.lake());
    let (alerts, writers) = (shared.clone(), shared.clone());
    let say = move |alert: &Alert| alerts.alert(alert.clone());
    let scheduler = Scheduler::of(repair)?.alerts(say).writers(move |table| {
        let folder = writers.folder();
        folder.workflows.iter().filter(|loaded| loaded.workflow.writes(table)).map(|loaded| loaded.name().to_owned()).collect()
    });
    Ok(Some(scheduler))
}

/// Keeps how a schedule stands, for pages.
async fn show(shared: &Arc<Shared>, scheduler: &Scheduler, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match scheduler.status().await {
            Ok(status) => shared.set_schedule(status),
            Err(error) => tracing::debug!(error = error.full(), "how a schedule stands cannot be read"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_SCHEDULE) => {}
            () = stop.cancelled() => {}
        }
    }
}
