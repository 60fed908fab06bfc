//! repair-aws
