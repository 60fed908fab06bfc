//! What of a table lies in a stretch of time, according to listings: how much, and a digest that shows a change. Values only, no I/O.

use serde::{Deserialize, Serialize};

/// The objects that may hold rows of an interval.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Extent {
    /// The number of objects (files), including those of the overlay.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// A digest of their names, sizes and versions. If listings are no evidence, it differs from every other digest.
    pub digest: String,
    /// A digest that changes with every write, even one that keeps the size and the time of an object. It also changes where nothing was
    /// written, such as when a lake moves. `None` if the lake has none, or if an object was written so lately that another write might not show.
    #[serde(skip)]
    pub evidence: Option<String>,
}

/// By what is listed. Evidence may come by the mere passing of time.
impl PartialEq for Extent {
    fn eq(&self, other: &Self) -> bool {
        (self.objects, self.bytes, &self.digest) == (other.objects, other.bytes, &other.digest)
    }
}

impl Eq for Extent {}

/// Which of the tables an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtentPart {
    /// The table itself.
    Table,
    /// Its repairs.
    Repairs,
    /// Its exceptions.
    Exceptions,
    /// The retractions of both.
    Retractions,
}

/// Listed objects, in any order.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    objects: Vec<(ExtentPart, String, u64, String)>,
    evidence: Option<Vec<String>>,
}

impl Listing {
    /// Adds an object. `version` changes whenever the object is written: its tag, or the time it was written.
    pub fn add(&mut self, part: ExtentPart, name: impl Into<String>, bytes: u64, version: impl Into<String>) {
        self.objects.push((part, name.into(), bytes, version.into()));
    }

    /// Adds evidence of the object that was added last: whatever changes with every write of it. Evidence counts if every object has some.
    pub fn add_evidence(&mut self, evidence: impl Into<String>) {
        self.evidence.get_or_insert_default().push(evidence.into());
    }

    /// The extent of the objects.
    ///
    /// ```
    /// use repair_core::lake::extent::{Listing, ExtentPart};
    /// let (mut one, mut other) = (Listing::default(), Listing::default());
    /// one.add(ExtentPart::Table, "bars/a.parquet", 10, "v1");
    /// one.add(ExtentPart::Table, "bars/b.parquet", 20, "v1");
    /// other.add(ExtentPart::Table, "bars/b.parquet", 20, "v1");
    /// other.add(ExtentPart::Table, "bars/a.parquet", 10, "v1");
    /// assert_eq!(one.extent(), other.clone().extent());
    /// other.add(ExtentPart::Repairs, "bars/a.parquet", 10, "v1");
    /// assert_eq!(other.extent().bytes, 40);
    /// ```
    #[must_use]
    pub fn extent(mut self) -> Extent {
        // That there is nothing is evidence, too.
        let nothing = self.objects.is_empty().then(Vec::new);
        let evidence = self.evidence.take().or(nothing).filter(|all| all.len() == self.objects.len()).map(|evidence| {
            let mut all: Vec<_> = self.objects.iter().map(|(part, name, bytes, _)| (part, name, bytes)).zip(&evidence).collect();
            all.sort_unstable();
            let mut hasher = blake3::Hasher::new();
            for ((part, name, bytes), evidence) in all {
                hasher.update(&[*part as u8]).update(&bytes.to_le_bytes());
                for text in [name, evidence] {
                    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
                }
            }
            hasher.finalize().to_hex().to_string()
        });
        self.objects.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for (part, name, bytes, version) in &self.objects {
            hasher.update(&[*part as u8]).update(&bytes.to_le_bytes());
            for text in [name, version] {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        Extent {
            objects: self.objects.len() as u64,
            bytes: self.objects.iter().map(|(_, _, bytes, _)| bytes).sum(),
            digest: hasher.finalize().to_hex().to_string(),
            evidence,
        }
    }
}

impl Extent {
    /// The extent of a table of which listings say nothing: it is never equal to another.
    pub fn unknown() -> Self {
        Self { objects: 0, bytes: 0, digest: format!("unknown-{}", uuid::Uuid::now_v7().simple()), evidence: None }
    }
}
