//! Who runs what.
pub mod backend;
pub mod cluster;
pub mod mlx;
pub mod report;
