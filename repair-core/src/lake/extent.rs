//! What of a table lies in a stretch of time, according to listings: how much, and a digest that shows a change. Values only, no I/O.

use serde::{Deserialize, Serialize};

/// The objects that may hold rows of an interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The number of objects (files), including those of the overlay.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// A digest of their names, sizes and versions. If listings are no evidence, it differs from every other digest.
    pub digest: String,
}

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
}

impl Listing {
    /// Adds an object. `version` changes whenever the object is written: its tag, or the time it was written.
    pub fn add(&mut self, part: ExtentPart, name: impl Into<String>, bytes: u64, version: impl Into<String>) {
        self.objects.push((part, name.into(), bytes, version.into()));
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
        }
    }
}

impl Extent {
    /// The extent of a table of which listings say nothing: it is never equal to another.
    pub fn unknown() -> Self {
        Self { objects: 0, bytes: 0, digest: format!("unknown-{}", uuid::Uuid::now_v7().simple()) }
    }
}
