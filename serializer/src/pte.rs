//! The `.pte` container: [`PteFile`] opens one, [`model`] is what is in it.

mod check;
mod codec;
pub mod model;
mod read;

pub use read::{Header, PteFile};
