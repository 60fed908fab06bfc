//! When a file was last written, as far as its file system shows it.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A second write within this time after the first might leave the same times, since some file systems keep them to two seconds only.
pub(crate) const SETTLES: Duration = Duration::from_secs(3);

/// What changes with every write of a file or folder: besides its own time, its number and the time at which the system last changed it, which
/// nobody can set. Of a folder, it changes when a name in it comes or goes.
///
/// On a file system that keeps no such times, only a change of size shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Stamp {
    bytes: u64,
    /// The time in the file, in seconds since 1970 and nanoseconds.
    modified: Option<(i64, u32)>,
    system: Option<System>,
}

/// What only the system sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct System {
    device: u64,
    number: u64,
    /// The time of the last change, in seconds since 1970 and nanoseconds.
    changed: (i64, u32),
}

impl Stamp {
    /// The bytes of [`Stamp::to_bytes`].
    pub(crate) const BYTES: usize = 48;

    pub(crate) fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let nanos = |nanos: i64| u32::try_from(nanos).unwrap_or(0);
            let changed = (metadata.ctime(), nanos(metadata.ctime_nsec()));
            let system = System { device: metadata.dev(), number: metadata.ino(), changed };
            Self { bytes: metadata.len(), modified: Some((metadata.mtime(), nanos(metadata.mtime_nsec()))), system: Some(system) }
        }
        // Elsewhere a file may be written so that nothing shows it.
        #[cfg(not(unix))]
        {
            let since = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified = since.and_then(|since| Some((i64::try_from(since.as_secs()).ok()?, since.subsec_nanos())));
            Self { bytes: metadata.len(), modified, system: None }
        }
    }

    /// What another file of the same name and size would have otherwise, and what changes with every write; as text, for a digest.
    pub(crate) fn identity(&self) -> String {
        let (seconds, nanos) = self.modified.unwrap_or_default();
        let System { number, changed: (changed_s, changed_ns), .. } = self.system.unwrap_or_default();
        format!("{seconds}.{nanos:09} {number} {changed_s}.{changed_ns:09}")
    }

    /// Whether the file may be known again by its size and times, within this process and for a short time.
    pub(crate) fn has_time(&self) -> bool {
        self.modified.is_some()
    }

    /// Whether every later write would change the stamp, if the file was looked at after `now`.
    pub(crate) fn is_settled(&self, now: SystemTime, settles: Duration) -> bool {
        let at = |(seconds, nanos): (i64, u32)| {
            let since = Duration::new(seconds.unsigned_abs(), nanos);
            if seconds < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) }
        };
        let last = self.system.zip(self.modified).and_then(|(system, modified)| Some(at(system.changed)?.max(at(modified)?)));
        last.zip(now.checked_sub(settles)).is_some_and(|(last, settled)| last <= settled)
    }

    /// What differs after every write; `None` where the system does not show it.
    pub(crate) fn evidence(&self) -> Option<String> {
        self.system.map(|System { device, number, changed }| {
            let (changed_s, changed_ns) = changed;
            let (seconds, nanos) = self.modified.unwrap_or_default();
            format!("{device} {number} {} {changed_s}.{changed_ns} {seconds}.{nanos}", self.bytes)
        })
    }

    /// The same as bytes; `None` where the system does not show it.
    pub(crate) fn to_bytes(self) -> Option<[u8; Self::BYTES]> {
        let System { device, number, changed } = self.system?;
        let (seconds, nanos) = self.modified?;
        let mut bytes = [0; Self::BYTES];
        let words = [self.bytes, device, number, changed.0.cast_unsigned(), seconds.cast_unsigned()];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&changed.1.to_le_bytes());
        bytes[44..].copy_from_slice(&nanos.to_le_bytes());
        Some(bytes)
    }
}
