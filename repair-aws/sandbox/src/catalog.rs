//! Databases and tables: what both Glue and Athena see.

/// The catalog. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Catalog {}
