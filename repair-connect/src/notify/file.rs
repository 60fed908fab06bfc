//! Messages as lines of a file.

use std::io::Write;
use std::path::PathBuf;

use async_trait::async_trait;
use repair_core::plugin::{Deliver, Message};
use repair_core::{Error, ErrorKind, Result};

/// A file to which a line of JSON is added for each message. Lines of several processes do not mix: each is written at once.
pub(super) struct Lines {
    path: PathBuf,
}

impl Lines {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Deliver for Lines {
    async fn deliver(&self, message: &Message) -> Result<()> {
        let path = self.path.clone();
        let line = format!("{}\n", message.body);
        let written = tokio::task::spawn_blocking(move || {
            let cannot = |error: std::io::Error| {
                let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Denied };
                Error::new(kind, format!("{} cannot be written to", path.display())).because(error)
            };
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).map_err(cannot)?;
            file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(cannot)
        });
        written.await.map_err(|error| Error::internal("writing a line was broken off").because(error))?
    }
}
