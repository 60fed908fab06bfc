//! The format of an object with events: bytes to events and back. No I/O.
//!
//! The first line is a header; each further line is an event with its number and time.

use bytes::Bytes;
use jiff::Timestamp;
use repair_core::engine::{Event, Recorded};
use repair_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The version of the format that is written here.
const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    run: String,
    first: u64,
    events: u64,
    /// A hash of the lines that follow.
    hash: String,
    /// A nonce of the append that wrote it, which no other append has, even of the same events. A fold has none, so that its bytes are
    /// always the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// Consecutive events in one object.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The id of their run.
    pub(crate) run: String,
    /// The number of the first event.
    pub(crate) first: u64,
    /// The events in order; at least one.
    pub(crate) events: Vec<Recorded>,
    /// The events as lines.
    pub(crate) lines: Bytes,
}

impl Segment {
    /// The number after the last event.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.events.len() as u64)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// A description of what is wrong with it, as the end of a sentence.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, String> {
        let break_at = bytes.iter().position(|&byte| byte == b'\n').ok_or("it was cut off")?;
        let header: Header =
            serde_json::from_slice(&bytes[..break_at]).map_err(|error| format!("its first line cannot be read: {error}"))?;
        if header.format != FORMAT {
            return Err(format!("it has format {}, and this version knows only {FORMAT}; use the version that wrote it", header.format));
        }
        let lines = bytes.slice(break_at + 1..);
        if hash(&lines) != header.hash {
            return Err("its events were changed, or some are missing".to_owned());
        }
        let mut events = Vec::new();
        for (sequence, line) in (header.first..).zip(lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())) {
            let event: Recorded = serde_json::from_slice(line)
                .map_err(|error| format!("event {sequence} cannot be read: {error}; if a newer version wrote it, use that version"))?;
            if event.sequence != sequence {
                return Err(format!("event {} is in the place of event {sequence}", event.sequence));
            }
            events.push(event);
        }
        if events.is_empty() || events.len() as u64 != header.events {
            return Err(format!("it should hold {} events, and holds {}", header.events, events.len()));
        }
        Ok(Self { run: header.run, first: header.first, events, lines })
    }
}

/// The lines of events that are numbered from `first` on.
pub(crate) fn lines(first: u64, at: Timestamp, events: &[Event]) -> Result<Bytes> {
    let mut lines = Vec::new();
    for (sequence, event) in (first..).zip(events) {
        let recorded = Recorded { sequence, at, event: event.clone() };
        serde_json::to_writer(&mut lines, &recorded).map_err(|error| Error::internal("an event is not JSON").because(error))?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}

/// The bytes of an object. A fold has no `nonce`.
pub(crate) fn object(run: &str, first: u64, events: usize, lines: &[u8], nonce: Option<&str>) -> Result<Bytes> {
    let nonce = nonce.map(str::to_owned);
    let header = Header { format: FORMAT, run: run.to_owned(), first, events: events as u64, hash: hash(lines), nonce };
    let mut bytes = serde_json::to_vec(&header).map_err(|error| Error::internal("a first line is not JSON").because(error))?;
    bytes.push(b'\n');
    bytes.extend_from_slice(lines);
    Ok(bytes.into())
}

/// A hash of lines. S3 keeps objects intact, but does not protect them from others who may write to the bucket.
pub(crate) fn hash(lines: &[u8]) -> String {
    blake3::hash(lines).to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Bytes {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let events = [1, 2, 3].map(|visit| Event::StepEntered { step: "a\nb\u{2028}".to_owned(), visit });
        object("run", 5, 3, &lines(5, at, &events).unwrap(), Some("n")).unwrap()
    }

    #[test]
    fn events_come_back() {
        let read = Segment::read(&written()).unwrap();
        assert_eq!((read.run.as_str(), read.first, read.end()), ("run", 5, 8));
        assert_eq!(read.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [5, 6, 7]);
    }

    #[test]
    fn wherever_it_is_cut_or_changed_it_is_refused() {
        let whole = written();
        for end in 0..whole.len() {
            Segment::read(&whole.slice(..end)).unwrap_err();
        }
        let body = whole.iter().position(|&byte| byte == b'\n').unwrap();
        for at in body..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] ^= 1;
            Segment::read(&changed.into()).unwrap_err();
        }
    }
}
