//! Every read of untrusted bytes goes through here: a slice that knows where in the file it lies.

use crate::error::{Error, ErrorKind, Result};

/// A little-endian number (or boolean) of fixed size.
pub trait Scalar: Copy + Default + PartialEq + sealed::Sealed {
    /// Bytes it takes.
    const SIZE: usize;
    /// Reads it from the start of `bytes`; `None` when they are too few.
    fn from_le(bytes: &[u8]) -> Option<Self>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! scalars {
    ($($ty:ty),*) => { $(
        impl sealed::Sealed for $ty {}
        impl Scalar for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn from_le(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|b| <$ty>::from_le_bytes(*b))
            }
        }
    )* };
}
scalars!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl sealed::Sealed for bool {}
/// One byte; anything but zero is true, as every FlatBuffers reader has it.
impl Scalar for bool {
    const SIZE: usize = 1;
    fn from_le(bytes: &[u8]) -> Option<Self> {
        bytes.first().map(|b| *b != 0)
    }
}

/// A part of a file: its bytes, and where they begin in the whole.
///
/// Offsets given to methods are relative to the window; offsets in errors are absolute.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    bytes: &'a [u8],
    base: u64,
}

impl<'a> Window<'a> {
    /// A window over a whole file.
    pub fn new(bytes: &'a [u8]) -> Self {
        Window { bytes, base: 0 }
    }

    /// A window over bytes that begin at `base` of the file that errors should speak of.
    pub fn at(bytes: &'a [u8], base: u64) -> Self {
        Window { bytes, base }
    }

    /// The bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Absolute offset of the first byte.
    pub fn base(self) -> u64 {
        self.base
    }

    /// Number of bytes.
    pub fn len(self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// `offset` made absolute. Saturates: it is for messages.
    pub fn absolute(self, offset: u64) -> u64 {
        self.base.saturating_add(offset)
    }

    /// The `len` bytes from `start`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when they are not all inside.
    pub fn slice(self, start: u64, len: u64) -> Result<Window<'a>> {
        let bytes = start
            .checked_add(len)
            .and_then(|end| self.bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?))
            .ok_or_else(|| self.out_of_range(start, len))?;
        Ok(Window { bytes, base: self.absolute(start) })
    }

    /// Everything from `start` on.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when `start` is behind the end.
    pub fn tail(self, start: u64) -> Result<Window<'a>> {
        let len = self.len().checked_sub(start).ok_or_else(|| self.out_of_range(start, 0))?;
        self.slice(start, len)
    }

    /// The number at `offset`; no alignment is required.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when it is not all inside.
    pub fn get<T: Scalar>(self, offset: u64) -> Result<T> {
        let size = T::SIZE as u64;
        T::from_le(self.slice(offset, size)?.bytes).ok_or_else(|| self.out_of_range(offset, size))
    }

    #[cold]
    fn out_of_range(self, start: u64, len: u64) -> Error {
        let left = self.len().saturating_sub(start);
        Error::new(ErrorKind::OutOfRange, format!("{len} bytes wanted, {left} left")).at(self.absolute(start))
    }
}

impl std::fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({:#x}..{:#x})", self.base, self.absolute(self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::Window;
    use crate::error::ErrorKind;

    #[test]
    fn reads_inside_and_refuses_outside_with_absolute_offsets() {
        let w = Window::at(&[1, 0, 0, 0, 2, 0], 100);
        assert_eq!(w.get::<u32>(0).unwrap(), 1);
        assert_eq!(w.get::<u16>(4).unwrap(), 2);
        let e = w.slice(4, 2).unwrap().get::<u32>(0).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ErrorKind::OutOfRange, Some(104)));
        for (start, len) in [(7, 0), (0, 7), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(w.slice(start, len).unwrap_err().kind(), ErrorKind::OutOfRange);
        }
        assert!(w.tail(6).unwrap().is_empty());
        assert!(w.tail(7).is_err());
    }
}
