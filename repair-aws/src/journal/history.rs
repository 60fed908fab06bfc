//! The events of runs as they lie in the bucket: reads them, finds their end, and folds many small objects into few.
//!
//! It must not know who drives a run, and it never rewrites or removes a segment.

use futures::{StreamExt, TryStreamExt};
use repair_core::engine::{Recorded, RunHead};
use repair_core::{Error, ErrorKind, Result};

use super::keys::{self, Keys, bounds_of, first_of};
use super::segment::{Segment, object};
use crate::objects::{Condition, Object, Objects};

/// Segments in a fold, unless they are large. For a history of 10,000 appends, about 80 folds and at most as many segments are read.
pub(super) const SEGMENTS_A_FOLD: usize = 128;

/// A fold ends with the segment that reaches this size, so that reading one event does not read much more.
pub(super) const BYTES_A_FOLD: u64 = 4 << 20;

/// Objects of one run that are read at once.
const READS: usize = 16;

/// Runs that are read at once.
const RUNS: usize = 16;

/// The events of all runs. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) objects: Objects,
    pub(super) keys: Keys,
}

/// The end of a history at the time it was read; the history may have grown since, but not shrunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tail {
    /// The number of the next event.
    pub(super) next: u64,
    /// The number of segments that are in no fold.
    pub(super) segments: usize,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// A fold, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fold {
    key: String,
    first: u64,
    end: u64,
}

/// A segment, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    first: u64,
    object: Object,
}

impl History {
    /// Events from a number on, and the end of the history if it was reached.
    ///
    /// # Errors
    /// `invalid` with the object's name, if an object that is needed is damaged.
    pub(super) async fn read(&self, run: &str, from: u64, limit: usize) -> Result<(Vec<Recorded>, Option<Tail>)> {
        let mut page = Vec::new();
        if limit == 0 {
            return Ok((page, None));
        }
        let until = from.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX));
        let folds = self.folds(run).await?;
        let folded = folds.last().map_or(0, |fold| fold.end);
        let wanted: Vec<Fold> = folds.into_iter().filter(|fold| fold.end > from && fold.first < until).collect();
        let mut reads = futures::stream::iter(wanted).map(|fold| self.fold_at(run, fold)).buffered(READS);
        while let Some(fold) = reads.try_next().await? {
            take(&mut page, fold, from, limit);
        }
        drop(reads);
        if page.len() == limit {
            return Ok((page, None));
        }
        let segments = self.segments(run, folded).await?;
        let bytes = segments.iter().map(|segment| segment.object.bytes).sum();
        let mut tail = Tail { next: folded, segments: segments.len(), bytes };
        if segments.is_empty() {
            self.refuse_folds_alone(run, folded)?;
            return Ok((page, Some(tail)));
        }
        // The last one that begins at or before the requested number, if there is one.
        let skip = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        let mut next = if skip == 0 { folded } else { segments.get(skip).map_or(folded, |segment| segment.first) };
        let firsts: Vec<u64> = segments.iter().skip(skip).map(|segment| segment.first).collect();
        let read = |&first: &u64| self.clone().segment_of(run.to_owned(), first);
        let mut reads = futures::stream::iter(firsts.iter().map(read).collect::<Vec<_>>()).buffered(READS.min(limit));
        let mut done = 0;
        for &first in &firsts {
            if page.len() == limit {
                break;
            }
            let segment = reads.try_next().await?.flatten();
            next = self.continue_with(run, next, first, segment, &mut page, (from, limit)).await?;
            done += 1;
        }
        tail.next = next;
        Ok((page, (done == firsts.len()).then_some(tail)))
    }

    /// Adds a segment to a page, preceded by any segments that the listing lacked; returns the number after it.
    async fn continue_with(
        &self,
        run: &str,
        mut next: u64,
        first: u64,
        segment: Option<Segment>,
        page: &mut Vec<Recorded>,
        (from, limit): (u64, usize),
    ) -> Result<u64> {
        while next < first {
            // A listing made while others write may lack some objects.
            let Some(missing) = self.clone().segment_of(run.to_owned(), next).await? else {
                return Err(self.missing(run, next));
            };
            next = missing.end();
            take(page, missing, from, limit);
        }
        if next > first {
            let uri = self.objects.uri(&self.keys.segment(run, first));
            return Err(damaged(run, &uri, &format!("it overlaps the events before it, which end with number {}", next - 1)));
        }
        let segment = segment.ok_or_else(|| self.missing(run, first))?;
        next = segment.end();
        take(page, segment, from, limit);
        Ok(next)
    }

    /// The end of a history.
    pub(super) async fn tail(&self, run: &str) -> Result<Tail> {
        let folded = self.folds(run).await?.last().map_or(0, |fold| fold.end);
        let segments = self.segments(run, folded).await?;
        let bytes = segments.iter().map(|segment| segment.object.bytes).sum();
        let Some(last) = segments.last() else {
            self.refuse_folds_alone(run, folded)?;
            return Ok(Tail::default());
        };
        let last_segment = self.clone().segment_of(run.to_owned(), last.first).await?.ok_or_else(|| self.missing(run, last.first))?;
        Ok(Tail { next: last_segment.end(), segments: segments.len(), bytes })
    }

    /// Whether a run has begun.
    pub(super) async fn has_begun(&self, run: &str) -> Result<bool> {
        Ok(self.objects.find(&self.keys.segment(run, 0)).await?.is_some())
    }

    /// The first and last event of every run, oldest first.
    pub(super) async fn heads(&self) -> Result<Vec<RunHead>> {
        let folders = self.objects.folders(&self.keys.runs()).await?;
        let mut heads: Vec<RunHead> =
            futures::stream::iter(folders).map(|folder| self.head(folder)).buffer_unordered(RUNS).try_collect().await?;
        heads.sort_by(|a, b| (a.first.at, &a.run).cmp(&(b.first.at, &b.run)));
        Ok(heads)
    }

    async fn head(&self, folder: String) -> Result<RunHead> {
        // The folder's name may be a hash of the run's id; the first segment holds the whole id.
        let key = keys::first_in(&folder);
        let uri = self.objects.uri(&key);
        let Some((bytes, _)) = self.objects.find(&key).await? else {
            return Err(damaged(&folder, &uri, "it is missing, but there are events after it"));
        };
        let segment = Segment::read(&bytes).map_err(|why| damaged(&folder, &uri, &why))?;
        let run = segment.run.clone();
        let first = self.checked(&run, &key, 0, segment)?.events.swap_remove(0);
        let folded = self.folds(&run).await?.last().map_or(0, |fold| fold.end);
        let Some(last) = self.segments(&run, folded).await?.pop() else {
            self.refuse_folds_alone(&run, folded)?;
            return Err(self.missing(&run, 0));
        };
        let last = self.clone().segment_of(run.clone(), last.first).await?.ok_or_else(|| self.missing(&run, last.first))?;
        let last = last.events.into_iter().next_back().ok_or_else(|| Error::internal("a segment without events was read"))?;
        Ok(RunHead { run, first, last })
    }

    /// Folds all segments of a run that fill a fold; returns how many segments and bytes it folded.
    ///
    /// The content of a fold follows from the segments alone, so two processes that fold at once write the same objects.
    pub(super) async fn fold(&self, run: &str) -> Result<(usize, u64)> {
        let folded = self.folds(run).await?.last().map_or(0, |fold| fold.end);
        let segments = self.segments(run, folded).await?;
        let mut rest = segments.as_slice();
        let (mut next, mut count, mut all_bytes) = (folded, 0, 0);
        while let Some(length) = fill(&rest.iter().map(|segment| segment.object.bytes).collect::<Vec<_>>()) {
            let (some, others) = rest.split_at(length);
            let first = next;
            let mut lines = Vec::new();
            let read = |named: &Named| self.clone().segment_of(run.to_owned(), named.first);
            let mut reads = futures::stream::iter(some.iter().map(read).collect::<Vec<_>>()).buffered(READS);
            for named in some {
                let segment = reads.try_next().await?.flatten();
                // Once folded, a missing event could no longer be noticed.
                let segment =
                    segment.filter(|segment| segment.first == next && named.first == next).ok_or_else(|| self.missing(run, next))?;
                next = segment.end();
                lines.extend_from_slice(&segment.lines);
            }
            let events = usize::try_from(next - first).unwrap_or(usize::MAX);
            let object = object(run, first, events, &lines, None)?;
            // If there is one already, it is the same.
            self.objects.put_if(&self.keys.fold(run, first, next), object, Condition::IfNoneMatch).await?;
            count += length;
            all_bytes += some.iter().map(|segment| segment.object.bytes).sum::<u64>();
            rest = others;
        }
        Ok((count, all_bytes))
    }

    /// The folds that follow one another from the first event on. What comes after a missing fold is read from segments.
    async fn folds(&self, run: &str) -> Result<Vec<Fold>> {
        let listed = self.objects.list(&self.keys.folds(run)).await?;
        Ok(chain(listed.into_iter().filter_map(|object| {
            let (first, end) = bounds_of(&object.key)?;
            Some(Fold { key: object.key, first, end })
        })))
    }

    /// The segments that begin at or after a number.
    async fn segments(&self, run: &str, from: u64) -> Result<Vec<Named>> {
        let after = from.checked_sub(1).map(|before| self.keys.segment(run, before));
        let listed = self.objects.list_after(&self.keys.segments(run), after.as_deref()).await?;
        let named = |object: Object| Some(Named { first: first_of(&object.key)?, object });
        Ok(listed.into_iter().filter_map(named).collect())
    }

    async fn fold_at(&self, run: &str, fold: Fold) -> Result<Segment> {
        let uri = self.objects.uri(&fold.key);
        let advice = "it only repeats segments, so you can remove it";
        let read = match self.objects.find(&fold.key).await? {
            Some((bytes, _)) => Segment::read(&bytes),
            // This program never removes a fold.
            None => return Err(Error::new(ErrorKind::Transient, format!("{uri} was removed while it was being read"))),
        };
        let read = read.map_err(|why| damage(run, &uri, &why, advice))?;
        if read.run != run || (read.first, read.end()) != (fold.first, fold.end) {
            return Err(damage(run, &uri, "its content does not match its name", advice));
        }
        Ok(read)
    }

    /// The segment that begins with a number, if there is one. It owns its arguments, so several can run at once.
    pub(super) async fn segment_of(self, run: String, first: u64) -> Result<Option<Segment>> {
        let key = self.keys.segment(&run, first);
        let Some((bytes, _)) = self.objects.find(&key).await? else { return Ok(None) };
        let segment = Segment::read(&bytes).map_err(|why| damaged(&run, &self.objects.uri(&key), &why))?;
        self.checked(&run, &key, first, segment).map(Some)
    }

    fn checked(&self, run: &str, key: &str, first: u64, segment: Segment) -> Result<Segment> {
        let belongs = segment.run == run && segment.first == first && self.keys.segment(run, first) == key;
        belongs.then_some(segment).ok_or_else(|| damaged(run, &self.objects.uri(key), "it belongs to another run or place"))
    }

    fn missing(&self, run: &str, first: u64) -> Error {
        damaged(run, &self.objects.uri(&self.keys.segment(run, first)), "it is missing, but there are events after it")
    }

    /// The last segment is in no fold; if there are only folds, segments were removed.
    fn refuse_folds_alone(&self, run: &str, folded: u64) -> Result<()> {
        if folded == 0 { Ok(()) } else { Err(damaged(run, &self.objects.uri(&self.keys.segment(run, folded)), "it is missing")) }
    }
}

/// An error for a history that differs from what was written.
pub(super) fn damaged(run: &str, uri: &str, what: &str) -> Error {
    damage(run, uri, what, "restore that object from a version or a backup")
}

fn damage(run: &str, uri: &str, what: &str, advice: &str) -> Error {
    Error::invalid(format!("the history of run {run} is damaged at {uri}: {what}; {advice}")).on("run", run).on("object", uri)
}

fn take(page: &mut Vec<Recorded>, segment: Segment, from: u64, limit: usize) {
    let left = limit - page.len();
    page.extend(segment.events.into_iter().filter(|event| event.sequence >= from).take(left));
}

/// How many of the segments of these sizes go into the next fold; 0 if they do not fill one. The last segment is never folded, since it
/// shows where the history ends.
fn fill(sizes: &[u64]) -> Option<usize> {
    let mut bytes = 0;
    for (count, size) in (1..).zip(&sizes[..sizes.len().saturating_sub(1)]) {
        bytes += size;
        if count == SEGMENTS_A_FOLD || (bytes >= BYTES_A_FOLD && count > 1) {
            return Some(count);
        }
    }
    None
}

/// Whether segments of this total size fill a fold, as far as is known without their single sizes.
pub(super) fn may_fill(segments: usize, bytes: u64) -> bool {
    segments > SEGMENTS_A_FOLD || (segments > 2 && bytes >= BYTES_A_FOLD)
}

/// Those folds that follow one another from 0 on; if several begin alike, the longest.
fn chain(folds: impl Iterator<Item = Fold>) -> Vec<Fold> {
    let mut folds: Vec<Fold> = folds.collect();
    folds.sort_by_key(|fold| (fold.first, std::cmp::Reverse(fold.end)));
    let mut next = 0;
    folds.retain(|fold| {
        let follows = fold.first == next;
        if follows {
            next = fold.end;
        }
        follows
    });
    folds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_is_filled_by_segments_or_by_bytes_and_never_takes_the_last() {
        assert_eq!(fill(&[]), None);
        assert_eq!(fill(&[10; SEGMENTS_A_FOLD]), None);
        assert_eq!(fill(&[10; SEGMENTS_A_FOLD + 1]), Some(SEGMENTS_A_FOLD));
        assert_eq!(fill(&[10; 3 * SEGMENTS_A_FOLD]), Some(SEGMENTS_A_FOLD));
        assert_eq!(fill(&[BYTES_A_FOLD, 1]), None);
        assert_eq!(fill(&[BYTES_A_FOLD, 1, 1]), Some(2));
        for sizes in [vec![10; SEGMENTS_A_FOLD + 1], vec![BYTES_A_FOLD, 1, 1]] {
            assert!(may_fill(sizes.len(), sizes.iter().sum()), "what fills one is noticed");
        }
    }

    #[test]
    fn folds_are_followed_to_the_first_that_is_missing() {
        let fold = |(first, end)| Fold { key: String::new(), first, end };
        let bounds =
            |folds: &[(u64, u64)]| chain(folds.iter().copied().map(fold)).iter().map(|fold| (fold.first, fold.end)).collect::<Vec<_>>();
        assert_eq!(bounds(&[(0, 10), (10, 20), (30, 40)]), [(0, 10), (10, 20)]);
        assert_eq!(bounds(&[(0, 10), (0, 20), (10, 20), (20, 25)]), [(0, 20), (20, 25)]);
        assert_eq!(bounds(&[(5, 10)]), []);
    }
}
