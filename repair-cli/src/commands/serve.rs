//! `repair serve`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use repair::Error;
use repair::core::plugin::ScaledClock;
use repair::jiff::Timestamp;
use repair_serve::{Options, Server};

use crate::exit::Exit;
use crate::open::{LakeArg, instant, stop_on_signal};
use crate::output::{Failure, print};

/// Run the workflows of a folder by their schedules, and show what they do on a live page.
///
/// Files that come, go or change are noticed within seconds. Several servers may serve one lake: each tick has one run, whoever starts it. The page is for this
/// machine alone, unless there is a token.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder of the workflows.
    folder: PathBuf,
    /// The port of the page; 0 chooses a free one.
    #[arg(long, default_value_t = 4600, value_name = "PORT")]
    port: u16,
    /// The address to listen at. One that can be reached from elsewhere needs a token.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    host: IpAddr,
    /// The variable of the environment that holds the token, which readers give as a password.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// A program that workflows may run, by name or absolute path; may be repeated. Without this they may run none.
    #[arg(long = "allow", value_name = "PROGRAM")]
    allowed: Vec<String>,
    /// Where to run what names no profile in its schedule [default: local, or the only one].
    #[arg(long)]
    profile: Option<String>,
    /// Let time pass so many times as fast, for a trial; with `--since`.
    #[arg(long, value_name = "TIMES", requires = "since", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: Option<u32>,
    /// The instant from which time passes faster.
    #[arg(long, value_name = "INSTANT", requires = "speed", value_parser = instant)]
    since: Option<Timestamp>,
    /// Only show; leave schedules to others.
    #[arg(long)]
    no_schedules: bool,
    #[command(flatten)]
    lake: LakeArg,
}

impl Serve {
    pub(crate) async fn execute(self, lake_before: Option<PathBuf>) -> Result<Exit, Failure> {
        let token = match &self.token_env {
            None => None,
            Some(name) => match std::env::var(name) {
                Ok(token) => Some(token.trim().to_owned()),
                Err(_) => return Err(Error::invalid(format!("--token-env: there is no variable {name} in the environment")).into()),
            },
        };
        let mut options = Options::new(self.folder)
            .at(SocketAddr::new(self.host, self.port))
            .with_token(token)
            .with_lake(self.lake.given(lake_before))
            .with_profile(self.profile)
            .allow(&self.allowed);
        if let Some(clock) = self.since.zip(self.speed).and_then(|(since, speed)| ScaledClock::new(since, speed)) {
            options = options.with_clock(Arc::new(clock));
        }
        if self.no_schedules {
            options = options.without_schedules();
        }
        let stop = stop_on_signal();
        let server = Server::bind(options).await?;
        print(&format!("http://{}", server.address()))?;
        server.run(stop).await?;
        Ok(Exit::Success)
    }
}
