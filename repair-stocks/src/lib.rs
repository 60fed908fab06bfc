//! repair-stocks
