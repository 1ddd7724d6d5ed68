//! The `.pte` container: [`PteFile`] opens one, [`write()`] makes one, [`model`] is what both speak about.

mod check;
mod codec;
mod layout;
pub mod model;
mod read;
mod share;
mod stream;
mod write;

pub use layout::{CONSTANT_ALIGNMENT, Contents, NamedBlob, SEGMENT_ALIGNMENT, SharedBlob};
pub use read::{Header, PteFile};
pub use write::{Stats, write, write_to, write_watched};

#[cfg(test)]
mod tests;
