//! The server: its options, its state, and what runs beside each other in it.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::future::BoxFuture;
use jiff::Timestamp;
use repair::core::plugin::{Clock, SystemClock};
use repair::notify::{Notifications, PATIENCE};
use repair::schedule::{Alert, ScheduleStatus};
use repair::{CancellationToken, Error, OpenLake, Opening, Registry, Result};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::folder::{Folder, Loaded};
use crate::guard::Guard;
use crate::watch::Watched;

/// How many alerts are shown.
const MOST_ALERTS: usize = 50;
/// How many pages are kept until something changes.
const MOST_PAGES: usize = 200;
/// The least characters of a token. A short one could be guessed.
const TOKEN_LENGTH: usize = 16;

/// How a server serves.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The folder of the workflows.
    pub folder: PathBuf,
    /// Where it listens. Off loopback, it needs a token.
    pub address: SocketAddr,
    /// What a reader must know. It is the password of HTTP's basic authentication, and a bearer token.
    pub token: Option<String>,
    /// The profile of workflows whose schedule names none.
    pub profile: Option<String>,
    /// The lake, instead of those that profiles name.
    pub lake: Option<PathBuf>,
    /// The plug-ins, with the programs that may be run.
    pub registry: Arc<Registry>,
    /// Whether schedules are run.
    pub schedules: bool,
    /// The clock of schedules and runs.
    pub clock: Arc<dyn Clock>,
    /// Delivers messages about runs and schedules.
    pub notifications: Notifications,
}

impl Options {
    /// A folder of workflows, on a free port of loopback, with schedules, and without programs.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            token: None,
            profile: None,
            lake: None,
            registry: Arc::new(registry(&[])),
            schedules: true,
            clock: Arc::new(SystemClock),
            notifications: Notifications::new().options(reach(&[])),
        }
    }

    /// Lets workflows run these programs, by name or absolute path. One that runs whatever it is given, such as a shell, allows everything.
    #[must_use]
    pub fn allow(mut self, programs: &[String]) -> Self {
        self.registry = Arc::new(registry(programs));
        self.notifications = Notifications::new().options(reach(programs));
        self
    }

    /// Uses these plug-ins.
    #[must_use]
    pub fn with_registry(mut self, registry: impl Into<Arc<Registry>>) -> Self {
        self.registry = registry.into();
        self
    }

    /// Listens there.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Asks for a token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Option<String>>) -> Self {
        self.token = token.into();
        self
    }

    /// Works on a lake, instead of those that profiles name.
    #[must_use]
    pub fn with_lake(mut self, lake: impl Into<Option<PathBuf>>) -> Self {
        self.lake = lake.into();
        self
    }

    /// Uses a profile where a schedule names none.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<Option<String>>) -> Self {
        self.profile = profile.into();
        self
    }

    /// Uses another clock than the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Leaves schedules to others, and only shows them.
    #[must_use]
    pub fn without_schedules(mut self) -> Self {
        self.schedules = false;
        self
    }

    /// Opens a file of the folder.
    pub(crate) fn opening(&self, file: PathBuf, profile: Option<&str>, stop: CancellationToken) -> Opening {
        let mut opening = repair::Repair::open(file)
            .registry(self.registry.clone())
            .profile(profile.or(self.profile.as_deref()))
            .stop(stop)
            .clock(self.clock.clone())
            .notify(&self.notifications);
        if let Some(lake) = &self.lake {
            opening = opening.lake(lake);
        }
        opening
    }
}

/// All plug-ins, where only these programs may be run.
fn registry(programs: &[String]) -> Registry {
    let mut registry = repair::registry();
    repair::connect::register_with(&mut registry, &reach(programs));
    registry
}

/// What workflows may reach.
fn reach(programs: &[String]) -> repair::connect::Options {
    repair::connect::Options::default().with_commands(repair::connect::Commands::only(programs.iter().cloned()))
}

/// What everything in the server shares.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) guard: Guard,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
    /// Grows when something has changed that pages show.
    pub(crate) changed: watch::Sender<u64>,
    /// Wakes who looks at lakes.
    pub(crate) wake: Notify,
    folder: RwLock<Arc<Folder>>,
    lakes: RwLock<Vec<Arc<Watched>>>,
    schedules: RwLock<HashMap<String, ScheduleStatus>>,
    alerts: Mutex<VecDeque<(Timestamp, Alert)>>,
    pages: Mutex<HashMap<String, (u64, axum::body::Bytes)>>,
    pub(crate) plans: Mutex<VecDeque<Arc<crate::action::Planned>>>,
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Shared {
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn folder(&self) -> Arc<Folder> {
        read(&self.folder)
    }

    pub(crate) fn set_folder(&self, folder: Folder) {
        *self.folder.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(folder);
        self.touch();
    }

    pub(crate) fn lakes(&self) -> Vec<Arc<Watched>> {
        read(&self.lakes)
    }

    /// The number of a lake, which is watched from now on.
    pub(crate) fn watch(&self, lake: &OpenLake) -> usize {
        let place = lake.place();
        let mut lakes = self.lakes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = lakes.iter().position(|watched| watched.place == place) {
            return at;
        }
        lakes.push(Arc::new(Watched::new(place, lake.clone())));
        self.wake.notify_waiters();
        lakes.len() - 1
    }

    pub(crate) fn schedules(&self) -> HashMap<String, ScheduleStatus> {
        read(&self.schedules)
    }

    pub(crate) fn set_schedule(&self, status: ScheduleStatus) {
        if self.schedules().get(&status.workflow) != Some(&status) {
            self.schedules.write().unwrap_or_else(PoisonError::into_inner).insert(status.workflow.clone(), status);
            self.touch();
        }
    }

    pub(crate) fn forget_schedule(&self, workflow: &str) {
        self.schedules.write().unwrap_or_else(PoisonError::into_inner).remove(workflow);
        self.touch();
    }

    pub(crate) fn alert(&self, alert: Alert) {
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        alerts.push_front((self.options.clock.now(), alert));
        alerts.truncate(MOST_ALERTS);
        drop(alerts);
        self.touch();
    }

    pub(crate) fn alerts(&self) -> Vec<(Timestamp, Alert)> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// A page, made anew only if something has changed since it was made.
    pub(crate) async fn page<F>(&self, path: &str, make: impl FnOnce() -> F) -> Result<axum::body::Bytes>
    where
        F: Future<Output = Result<String>>,
    {
        let version = *self.changed.borrow();
        let known = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some((_, page)) = known.filter(|(of, _)| *of == version) {
            return Ok(page);
        }
        let page = axum::body::Bytes::from(make().await?);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= MOST_PAGES {
            pages.clear();
        }
        pages.insert(path.to_owned(), (version, page.clone()));
        Ok(page)
    }

    /// The workflow of a name.
    ///
    /// # Errors
    /// `not-found` if the folder has none that can be read.
    pub(crate) fn workflow(&self, name: &str) -> Result<Arc<Loaded>> {
        let found = self.folder().workflows.iter().find(|loaded| loaded.name() == name).cloned();
        found.ok_or_else(|| Error::new(repair::ErrorKind::NotFound, format!("there is no workflow `{name}` in the folder")))
    }
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    options: Options,
    folder: Folder,
}

impl Server {
    /// Reads the folder, and begins to listen. Nothing is answered or run yet.
    ///
    /// # Errors
    /// `invalid` if there is no such folder, or the address needs a token and there is none, or a short one; `transient` if it cannot listen there.
    pub async fn bind(options: Options) -> Result<Self> {
        if let Err(error) = std::fs::read_dir(&options.folder) {
            return Err(Error::invalid(format!("the folder {} cannot be read", options.folder.display())).because(error));
        }
        match &options.token {
            None if !options.address.ip().is_loopback() => {
                let message = format!(
                    "{} can be reached from elsewhere, so a token is needed; put one of at least {TOKEN_LENGTH} characters into the environment, and name the variable",
                    options.address.ip()
                );
                return Err(Error::invalid(message));
            }
            Some(token) if token.chars().count() < TOKEN_LENGTH => {
                return Err(Error::invalid(format!("the token is too short; it needs at least {TOKEN_LENGTH} characters")));
            }
            _ => {}
        }
        let cannot = |error: std::io::Error| {
            Error::new(repair::ErrorKind::Transient, format!("cannot listen at {}; choose another port", options.address)).because(error)
        };
        let listener = TcpListener::bind(options.address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (path, registry) = (options.folder.clone(), options.registry.clone());
        let folder = tokio::task::spawn_blocking(move || Folder::read(&path, &registry))
            .await
            .map_err(|error| Error::internal("the folder of workflows could not be read to its end").because(error))?;
        Ok(Self { listener, address, options, folder })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled. Runs that are under way are stopped then, and can be resumed; a schedule resumes its own.
    ///
    /// # Errors
    /// If it can no longer listen.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let guard = Guard::new(self.address, self.options.token.clone());
        let shared = Arc::new(Shared {
            guard,
            stop: stop.clone(),
            changed: watch::Sender::new(1),
            wake: Notify::new(),
            folder: RwLock::new(Arc::new(self.folder)),
            lakes: RwLock::default(),
            schedules: RwLock::default(),
            alerts: Mutex::default(),
            pages: Mutex::default(),
            plans: Mutex::default(),
            options: self.options,
        });
        let app = routes::app(shared.clone());
        let until = stop.clone();
        let serving: BoxFuture<'_, _> = Box::pin(async {
            axum::serve(self.listener, app)
                .with_graceful_shutdown(async move { until.cancelled().await })
                .await
                .map_err(|error| Error::new(repair::ErrorKind::Transient, "the server can no longer listen").because(error))
        });
        let standing: BoxFuture<'_, ()> = Box::pin(crate::standing::keep(shared.clone()));
        let watching: BoxFuture<'_, ()> = Box::pin(crate::watch::keep(shared.clone()));
        let (served, (), ()) = tokio::join!(serving, standing, watching);
        for left in shared.options.notifications.settle(PATIENCE).await.left {
            tracing::warn!(
                run = left.run,
                to = left.to,
                messages = left.messages,
                "messages are still to be delivered; a later run of the workflow does"
            );
        }
        served
    }
}

use crate::routes;
