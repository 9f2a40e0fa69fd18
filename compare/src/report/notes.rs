//! The prose of `RESULTS.md`.

pub const HEAD: &str = "# Results\n";
pub const READING: &str = "";
pub const BETTER: &str = "";
pub const ALL_FAILED: &str = "";
pub const LEFT_OUT: &str = "";
