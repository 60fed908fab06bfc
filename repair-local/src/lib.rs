//! repair-local
