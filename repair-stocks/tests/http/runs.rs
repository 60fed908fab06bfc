//! What runs make of it.
