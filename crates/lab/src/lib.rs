//! The laboratory: the published experiment and its kin, measured through the same door as everyone else.

pub mod results;
pub mod stats;
pub mod summary;
pub mod files;
pub mod charts;
pub mod report;
