//! The bytes behind tensors: owned, or a window of somebody else's memory (a mapped file).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::limits::Charge;

/// Most bytes one result may take. The reference runtime draws the same line; it also keeps hostile shapes from
/// exhausting the machine. (Unit tests try many absurd sizes and must stay quick.)
pub const MAX_RESULT_BYTES: u64 = if cfg!(test) { 32 << 20 } else { 4 << 30 };

/// Memory that outlives every tensor that looks into it, such as a mapped file. The bytes must never change.
pub trait ByteSource: Send + Sync {
    /// All the bytes.
    fn bytes(&self) -> &[u8];
}

impl<T: AsRef<[u8]> + Send + Sync> ByteSource for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

/// Bytes allocated for one result; whole words of 16 bytes so that every element type is aligned without `unsafe`.
struct Buffer {
    words: Vec<u128>,
    len: usize,
    charge: Charge,
}

/// Above this many bytes an allocation is tried before it is made: a failure is an error then, not the end of the process.
const LARGE: usize = 1 << 20;

/// Reference-counted bytes. Owned bytes can be written when nobody else holds them; windows never.
#[derive(Clone)]
pub(crate) struct Storage(Kind);

#[derive(Clone)]
enum Kind {
    Owned(Arc<Buffer>),
    Window(Arc<dyn ByteSource>, Range<usize>),
}

impl Storage {
    /// `len` zero bytes.
    pub(crate) fn zeroed(len: u64) -> Result<Self> {
        if len > MAX_RESULT_BYTES {
            return Err(Error::limit(format!("a result of {len} bytes is over the limit of {MAX_RESULT_BYTES} bytes")));
        }
        let len = usize::try_from(len).map_err(|_| Error::limit(format!("{len} bytes do not fit this machine")))?;
        let charge = Charge::take(len as u64)?;
        let words = len.div_ceil(size_of::<u128>());
        if len > LARGE {
            let tried = Vec::<u128>::new().try_reserve_exact(words);
            tried.map_err(|_| Error::limit(format!("the system gives no {len} bytes")))?;
        }
        // calloc: large buffers cost nothing until their pages are touched.
        Ok(Storage(Kind::Owned(Arc::new(Buffer { words: vec![0; words], len, charge }))))
    }

    /// No longer counts the bytes as those of a call.
    pub(crate) fn release(&self) {
        if let Kind::Owned(buffer) = &self.0 {
            buffer.charge.release();
        }
    }

    /// A window of shared memory, in place if it is aligned to `align` bytes, as a copy otherwise.
    pub(crate) fn window(source: Arc<dyn ByteSource>, range: Range<usize>, align: usize) -> Result<Self> {
        let all = source.bytes();
        let Some(bytes) = all.get(range.clone()) else {
            return Err(Error::range(format!("bytes {}..{} of a source of {} bytes", range.start, range.end, all.len())));
        };
        if bytes.as_ptr().addr().is_multiple_of(align) {
            return Ok(Storage(Kind::Window(source, range)));
        }
        let mut copy = Self::zeroed(bytes.len() as u64)?;
        if let Some(out) = copy.bytes_mut() {
            out.copy_from_slice(bytes);
        }
        Ok(copy)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Owned(buffer) => &bytemuck::cast_slice(&buffer.words)[..buffer.len],
            // Checked when the window was made; sources do not change.
            Kind::Window(source, range) => source.bytes().get(range.clone()).unwrap_or_default(),
        }
    }

    /// The bytes for writing, if they are owned and nobody else holds them.
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.0 {
            Kind::Owned(buffer) => {
                let buffer = Arc::get_mut(buffer)?;
                Some(&mut bytemuck::cast_slice_mut(&mut buffer.words)[..buffer.len])
            }
            Kind::Window(..) => None,
        }
    }

    /// Whether [`bytes_mut`](Self::bytes_mut) would succeed.
    pub(crate) fn is_unique(&mut self) -> bool {
        match &mut self.0 {
            Kind::Owned(buffer) => Arc::get_mut(buffer).is_some(),
            Kind::Window(..) => false,
        }
    }

    /// The whole storage as elements (a partial element at the end is left out).
    pub(crate) fn elements<P: Pod>(&self) -> &[P] {
        let bytes = self.bytes();
        bytemuck::cast_slice(&bytes[..bytes.len() / size_of::<P>() * size_of::<P>()])
    }

    /// [`elements`](Self::elements) for writing, if nobody else holds them.
    pub(crate) fn elements_mut<P: Pod>(&mut self) -> Option<&mut [P]> {
        let bytes = self.bytes_mut()?;
        let whole = bytes.len() / size_of::<P>() * size_of::<P>();
        Some(bytemuck::cast_slice_mut(&mut bytes[..whole]))
    }

    /// Whether both look at the same memory.
    pub(crate) fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self.bytes().as_ptr(), other.bytes().as_ptr())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Owned(_) => "owned",
            Kind::Window(..) => "window",
        };
        write!(f, "{kind}[{} bytes]", self.bytes().len())
    }
}
