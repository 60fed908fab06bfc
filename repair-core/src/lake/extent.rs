//! What of a table lies in a stretch of time, as listings tell it: how much, and a digest by which a change is noticed. Pure.

use serde::{Deserialize, Serialize};

/// The objects that may hold rows of an interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// How many objects (files), those of the overlay included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// A digest of their names, sizes and versions. What listings cannot tell has a digest that is like no other.
    pub digest: String,
}

/// Which of the tables an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The table itself.
    Table,
    /// Its repairs.
    Repairs,
    /// Its exceptions.
    Exceptions,
    /// What was taken back of both.
    Retractions,
}

/// Objects as they are listed, in any order.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    objects: Vec<(Part, String, u64, String)>,
}

impl Listing {
    /// Adds an object. `version` is what changes when it is written anew: its tag, or when it was written.
    pub fn add(&mut self, part: Part, name: impl Into<String>, bytes: u64, version: impl Into<String>) {
        self.objects.push((part, name.into(), bytes, version.into()));
    }

    /// What they come to.
    ///
    /// ```
    /// use repair_core::lake::extent::{Listing, Part};
    /// let (mut one, mut other) = (Listing::default(), Listing::default());
    /// one.add(Part::Table, "bars/a.parquet", 10, "v1");
    /// one.add(Part::Table, "bars/b.parquet", 20, "v1");
    /// other.add(Part::Table, "bars/b.parquet", 20, "v1");
    /// other.add(Part::Table, "bars/a.parquet", 10, "v1");
    /// assert_eq!(one.extent(), other.clone().extent());
    /// other.add(Part::Repairs, "bars/a.parquet", 10, "v1");
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
    /// Of a table of which listings tell nothing: it is never the same.
    pub fn unknown() -> Self {
        Self { objects: 0, bytes: 0, digest: format!("unknown-{}", uuid::Uuid::now_v7().simple()) }
    }
}
