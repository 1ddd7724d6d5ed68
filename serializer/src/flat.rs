//! A checked reader of FlatBuffers: no schema compiler, no generated code, no trust.
//!
//! [`Flat`] stands for one buffer, [`Table`] for one table in it. Fields are asked for by *slot id* (the field's number
//! in the schema, from 0; a union takes two). An absent field gives the default, `None`, or an error, as the caller asks;
//! unknown trailing slots are ignored, so newer writers can be read.
//!
//! Laws:
//! * Every offset is checked against the window before it is followed; errors carry absolute file offsets.
//! * Alignment is not required: bytes are read one by one. (A program inside a `.pte` may be moved by its header.)
//! * Work is bounded. An offset may be followed from many places, so a small buffer can describe an exponentially large
//!   tree. Each table, vector and string that is visited is charged its bytes; more than [`VISITS_PER_BYTE`] times the
//!   length of the buffer ends the reading with [`ErrorKind::Limit`]. What a reader allocates is proportional to what it
//!   visits. Nesting deeper than [`MAX_DEPTH`] is refused.
//!
//! Format: a root `u32` offset, then optionally a four-byte identifier; a table begins with an `i32` distance *back* to its
//! vtable: `u16` vtable bytes, `u16` table bytes, then a `u16` offset into the table for each slot (0: absent). Strings,
//! vectors and tables are referred to by `u32` offsets forward from where the offset lies.

use std::cell::Cell;

use crate::error::{Error, ErrorKind, Result};
use crate::window::{Scalar, Window};

/// How many times its own length a buffer may be visited. Honest writers visit each byte once, those that share strings a
/// few times.
pub const VISITS_PER_BYTE: u64 = 16;

/// Deepest nesting of tables; the same as upstream's verifier.
pub const MAX_DEPTH: u32 = 64;

/// One FlatBuffers buffer.
pub struct Flat<'a> {
    window: Window<'a>,
    budget: Cell<u64>,
}

impl<'a> Flat<'a> {
    /// A buffer that fills `window`; its root offset is the first four bytes.
    pub fn new(window: Window<'a>) -> Self {
        Flat { window, budget: Cell::new(window.len().saturating_mul(VISITS_PER_BYTE)) }
    }

    /// The four bytes after the root offset, where formats with an identifier keep it.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when the buffer is shorter than that.
    pub fn identifier(&self) -> Result<[u8; 4]> {
        self.window.get::<u32>(4).map(u32::to_le_bytes)
    }

    /// The root table.
    ///
    /// # Errors
    /// When the buffer is too short or the root offset does not lead to a table.
    pub fn root(&self) -> Result<Table<'_, 'a>> {
        self.follow(0).and_then(|position| Table::open(self, position, 0)).map_err(|e| e.within("root table"))
    }

    /// Where the offset that lies at `at` leads.
    fn follow(&self, at: u64) -> Result<u64> {
        match self.window.get::<u32>(at)? {
            0 => Err(Error::new(ErrorKind::Malformed, "an offset points to itself").at(self.window.absolute(at))),
            // Both are far below 2^63: `at` lies inside a slice.
            distance => Ok(at + u64::from(distance)),
        }
    }

    fn charge(&self, bytes: u64, at: u64) -> Result<()> {
        let left = self.budget.get().checked_sub(bytes).ok_or_else(|| {
            let text = format!("the buffer refers to its own bytes more than {VISITS_PER_BYTE} times over");
            Error::new(ErrorKind::Limit, text).at(self.window.absolute(at))
        })?;
        self.budget.set(left);
        Ok(())
    }

    /// The vector at `position`: element count and bytes.
    fn vector(&self, position: u64, element: u64) -> Result<(u64, Window<'a>)> {
        let count = u64::from(self.window.get::<u32>(position)?);
        // At most 2^32 elements of at most 2^16 bytes.
        let bytes = self.window.slice(position + 4, count * element)?;
        self.charge(4 + bytes.len(), position)?;
        Ok((count, bytes))
    }

    fn string(&self, position: u64) -> Result<&'a str> {
        let (length, bytes) = self.vector(position, 1)?;
        let malformed = |text: &'static str| Error::new(ErrorKind::Malformed, text).at(self.window.absolute(position));
        if self.window.get::<u8>(position + 4 + length)? != 0 {
            return Err(malformed("a string does not end in a zero byte"));
        }
        std::str::from_utf8(bytes.bytes()).map_err(|e| malformed("a string is not UTF-8").because(e))
    }
}

/// One table of a [`Flat`]; cheap to copy.
#[derive(Clone, Copy)]
pub struct Table<'f, 'a> {
    flat: &'f Flat<'a>,
    /// Relative to the buffer.
    position: u64,
    /// The table's own bytes, from `position`.
    inline: Window<'a>,
    vtable: Window<'a>,
    depth: u32,
}

impl<'f, 'a> Table<'f, 'a> {
    fn open(flat: &'f Flat<'a>, position: u64, depth: u32) -> Result<Self> {
        let window = flat.window;
        let here = window.absolute(position);
        if depth >= MAX_DEPTH {
            let text = format!("tables are nested deeper than {MAX_DEPTH}");
            return Err(Error::new(ErrorKind::Limit, text).at(here));
        }
        let back = i64::from(window.get::<i32>(position)?);
        let start = position
            .checked_add_signed(-back)
            .ok_or_else(|| Error::new(ErrorKind::OutOfRange, "the vtable lies before the buffer").at(here))?;
        let bytes = u64::from(window.get::<u16>(start)?);
        let size = u64::from(window.get::<u16>(start.saturating_add(2))?);
        if bytes < 4 || bytes % 2 != 0 || size < 4 {
            let text = format!("a vtable of {bytes} bytes for a table of {size}");
            return Err(Error::new(ErrorKind::Malformed, text).at(window.absolute(start)));
        }
        flat.charge(size, position)?;
        Ok(Table { flat, position, inline: window.slice(position, size)?, vtable: window.slice(start, bytes)?, depth })
    }

    /// Absolute offset of the table.
    pub fn offset(&self) -> u64 {
        self.inline.base()
    }

    /// How many slots the writer knew of (later ones are absent).
    pub fn slots(&self) -> u64 {
        self.vtable.len() / 2 - 2
    }

    /// Whether the field is written at all.
    ///
    /// # Errors
    /// As every access: when the bytes contradict the format.
    pub fn has(&self, slot: u16) -> Result<bool> {
        Ok(self.inside(slot)? != 0)
    }

    /// Offset of the field in the table, 0 when absent.
    fn inside(&self, slot: u16) -> Result<u64> {
        let entry = 4 + 2 * u64::from(slot);
        if entry >= self.vtable.len() {
            return Ok(0);
        }
        match self.vtable.get::<u16>(entry)? {
            inside @ 1..4 => {
                let text = format!("slot {slot} lies inside the head of its table (offset {inside})");
                Err(Error::new(ErrorKind::Malformed, text).at(self.vtable.absolute(entry)))
            }
            inside => Ok(u64::from(inside)),
        }
    }

    /// The number in `slot`, `None` when absent.
    ///
    /// # Errors
    /// When the field leaves the table.
    pub fn optional<T: Scalar>(&self, slot: u16) -> Result<Option<T>> {
        match self.inside(slot)? {
            0 => Ok(None),
            inside => self.inline.get(inside).map(Some),
        }
    }

    /// The number in `slot`, or the schema's `default` for it.
    ///
    /// # Errors
    /// When the field leaves the table.
    pub fn scalar<T: Scalar>(&self, slot: u16, default: T) -> Result<T> {
        Ok(self.optional(slot)?.unwrap_or(default))
    }

    /// The inline struct of `size` bytes in `slot`, `None` when absent.
    ///
    /// # Errors
    /// When the field leaves the table.
    pub fn structure(&self, slot: u16, size: u64) -> Result<Option<Window<'a>>> {
        match self.inside(slot)? {
            0 => Ok(None),
            inside => self.inline.slice(inside, size).map(Some),
        }
    }

    /// Position (in the buffer) that the offset in `slot` leads to.
    fn target(&self, slot: u16) -> Result<Option<u64>> {
        match self.inside(slot)? {
            0 => Ok(None),
            inside => {
                self.inline.slice(inside, 4)?;
                self.flat.follow(self.position + inside).map(Some)
            }
        }
    }

    /// The table in `slot`.
    ///
    /// # Errors
    /// When the offset does not lead to a table, or a limit is reached.
    pub fn table(&self, slot: u16) -> Result<Option<Table<'f, 'a>>> {
        self.target(slot)?.map(|position| Table::open(self.flat, position, self.depth + 1)).transpose()
    }

    /// The union whose type is in `type_slot` and whose value is in the next: its tag and its table.
    ///
    /// `None` when the tag is absent or 0 (`NONE`).
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] for a tag without a value; else as [`Table::table`].
    pub fn union(&self, type_slot: u16) -> Result<Option<(u8, Table<'f, 'a>)>> {
        match self.scalar(type_slot, 0u8)? {
            0 => Ok(None),
            tag => match self.table(type_slot.saturating_add(1))? {
                Some(value) => Ok(Some((tag, value))),
                None => Err(self.missing(&format!("the value of the union with tag {tag}"))),
            },
        }
    }

    /// The string in `slot`. Must be UTF-8.
    ///
    /// # Errors
    /// When it leaves the buffer, is not UTF-8, or a limit is reached.
    pub fn string(&self, slot: u16) -> Result<Option<&'a str>> {
        self.target(slot)?.map(|position| self.flat.string(position)).transpose()
    }

    /// The bytes of the vector of structs of `size` bytes in `slot`: `size` × count. With size 1, a byte vector.
    ///
    /// # Errors
    /// When it leaves the buffer, or a limit is reached.
    pub fn structures(&self, slot: u16, size: u16) -> Result<Option<Window<'a>>> {
        self.target(slot)?.map(|p| self.flat.vector(p, u64::from(size)).map(|v| v.1)).transpose()
    }

    /// The byte vector in `slot`, borrowed.
    ///
    /// # Errors
    /// When it leaves the buffer, or a limit is reached.
    pub fn bytes(&self, slot: u16) -> Result<Option<Window<'a>>> {
        self.structures(slot, 1)
    }

    /// The vector of numbers in `slot`.
    ///
    /// # Errors
    /// When it leaves the buffer, or a limit is reached.
    pub fn scalars<T: Scalar>(&self, slot: u16) -> Result<Option<Vec<T>>> {
        let size = T::SIZE;
        // `size` is at most 8.
        let Some(bytes) = self.structures(slot, size as u16)? else { return Ok(None) };
        Ok(Some(bytes.bytes().chunks_exact(size).filter_map(T::from_le).collect()))
    }

    /// The vector of strings in `slot`.
    ///
    /// # Errors
    /// When it or one of them leaves the buffer, or a limit is reached.
    pub fn strings(&self, slot: u16) -> Result<Option<Vec<&'a str>>> {
        let Some(places) = self.offsets(slot)? else { return Ok(None) };
        places.map(|at| self.flat.string(self.flat.follow(at)?)).collect::<Result<_>>().map(Some)
    }

    /// The vector of tables in `slot`.
    ///
    /// # Errors
    /// When it or one of them leaves the buffer, or a limit is reached.
    pub fn tables(&self, slot: u16) -> Result<Option<Vec<Table<'f, 'a>>>> {
        let Some(places) = self.offsets(slot)? else { return Ok(None) };
        places.map(|at| Table::open(self.flat, self.flat.follow(at)?, self.depth + 1)).collect::<Result<_>>().map(Some)
    }

    /// Element `index` of the vector of tables in `slot`; `None` when there is no vector or it is shorter.
    ///
    /// # Errors
    /// As [`Table::tables`].
    pub fn element(&self, slot: u16, index: usize) -> Result<Option<Table<'f, 'a>>> {
        let Some(position) = self.target(slot)? else { return Ok(None) };
        let index = index as u64;
        if index >= u64::from(self.flat.window.get::<u32>(position)?) {
            return Ok(None);
        }
        let at = self.flat.follow(position + 4 + 4 * index)?;
        Table::open(self.flat, at, self.depth + 1).map(Some)
    }

    /// Where the offsets of the vector of offsets in `slot` lie.
    fn offsets(&self, slot: u16) -> Result<Option<impl Iterator<Item = u64> + use<>>> {
        let Some(position) = self.target(slot)? else { return Ok(None) };
        let (count, _) = self.flat.vector(position, 4)?;
        Ok(Some((0..count).map(move |i| position + 4 + 4 * i)))
    }

    /// Unwraps a field that the format requires; `name` is what the schema calls it.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] when it is absent.
    pub fn require<T>(&self, field: Option<T>, name: &str) -> Result<T> {
        field.ok_or_else(|| self.missing(&format!("field `{name}`")))
    }

    #[cold]
    fn missing(&self, what: &str) -> Error {
        Error::new(ErrorKind::Missing, format!("{what} is missing")).at(self.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::Flat;
    use crate::error::{ErrorKind, Result};
    use crate::window::Window;
    use flatbuffers::FlatBufferBuilder;

    /// Slots: 0 i32 = 7 (written -3), 1 absent, 2 string, 3 [i64], 4/5 union tag 9, 6 [string], 7 [table], 8 bool, 9 f64.
    fn sample() -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        let text = b.create_string("grüß");
        let numbers = b.create_vector(&[1i64, -2, i64::MAX]);
        let words = [b.create_string("a"), b.create_string("")];
        let words = b.create_vector(&words);
        let start = b.start_table();
        b.push_slot_always(4, 5u32);
        let inner = b.end_table(start);
        let tables = b.create_vector(&[inner, inner]);
        let start = b.start_table();
        b.push_slot_always(4, -3i32);
        b.push_slot_always(8, text);
        b.push_slot_always(10, numbers);
        b.push_slot_always(12, 9u8);
        b.push_slot_always(14, inner);
        b.push_slot_always(16, words);
        b.push_slot_always(18, tables);
        b.push_slot_always(20, true);
        b.push_slot_always(22, 0.5f64);
        let root = b.end_table(start);
        b.finish(root, Some("TEST"));
        b.finished_data().to_vec()
    }

    /// Reads everything there is; what matters is that it returns.
    fn read_all(bytes: &[u8]) -> Result<usize> {
        let flat = Flat::new(Window::at(bytes, 1000));
        let root = flat.root()?;
        let mut n = root.scalar(0, 7i32)?.unsigned_abs() as usize;
        n += root.optional::<u64>(1)?.map_or(0, |v| v as usize);
        n += root.string(2)?.map_or(0, str::len);
        n += root.scalars::<i64>(3)?.map_or(0, |v| v.len());
        n += root.union(4)?.map_or(0, |u| usize::from(u.0));
        n += root.strings(6)?.map_or(0, |v| v.len());
        for t in root.tables(7)?.unwrap_or_default() {
            n += t.scalar(0, 0u32)? as usize;
        }
        n += usize::from(root.scalar(8, false)?);
        n += root.structure(9, 8)?.map_or(0, |w| w.bytes().len());
        n += root.bytes(6)?.map_or(0, |w| w.bytes().len());
        Ok(n)
    }

    #[test]
    fn reads_every_kind_of_field() {
        let bytes = sample();
        let flat = Flat::new(Window::new(&bytes));
        assert_eq!(&flat.identifier().unwrap(), b"TEST");
        let root = flat.root().unwrap();
        assert_eq!(root.scalar(0, 7i32).unwrap(), -3);
        assert_eq!(root.scalar(1, 7i32).unwrap(), 7);
        assert_eq!(root.optional::<i32>(1).unwrap(), None);
        assert_eq!(root.scalar(999, 7i32).unwrap(), 7);
        assert_eq!(root.string(2).unwrap(), Some("grüß"));
        assert_eq!(root.scalars::<i64>(3).unwrap(), Some(vec![1, -2, i64::MAX]));
        let (tag, value) = root.union(4).unwrap().unwrap();
        assert_eq!((tag, value.scalar(0, 0u32).unwrap()), (9, 5));
        assert_eq!(root.strings(6).unwrap(), Some(vec!["a", ""]));
        let tables = root.tables(7).unwrap().unwrap();
        assert_eq!(tables.len(), 2);
        assert_eq!(root.element(7, 1).unwrap().unwrap().offset(), tables[1].offset());
        assert!(root.element(7, 2).unwrap().is_none() && root.element(1, 0).unwrap().is_none());
        assert!(root.scalar(8, false).unwrap() && root.has(8).unwrap() && !root.has(1).unwrap());
        assert_eq!(root.scalar(9, 0.0f64).unwrap(), 0.5);
        assert_eq!(root.slots(), 10);
        let e = root.require(root.string(1).unwrap(), "name").unwrap_err();
        assert_eq!((e.kind(), e.to_string().contains("`name`")), (ErrorKind::Missing, true));
    }

    #[test]
    fn truncation_anywhere_is_an_error_or_a_smaller_reading() {
        let bytes = sample();
        assert!(read_all(&bytes).is_ok());
        for n in 0..bytes.len() {
            if let Err(e) = read_all(&bytes[..n]) {
                let at = e.offset().unwrap();
                assert!(at >= 1000, "{e}");
            }
        }
    }

    #[test]
    fn any_changed_byte_is_survived() {
        let bytes = sample();
        for i in 0..bytes.len() {
            for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[i] = value;
                let _ = read_all(&changed).map_err(|e| assert!(!e.to_string().is_empty()));
            }
        }
    }

    #[test]
    fn shared_subtrees_cannot_blow_up() {
        // 40 levels, each a vector of two offsets to the next level: 2^40 tables in under 2 kB.
        let mut b = FlatBufferBuilder::new();
        let start = b.start_table();
        let mut level = b.end_table(start);
        for _ in 0..40 {
            let both = b.create_vector(&[level, level]);
            let start = b.start_table();
            b.push_slot_always(4, both);
            level = b.end_table(start);
        }
        b.finish(level, None);
        fn walk(t: super::Table<'_, '_>) -> Result<u64> {
            t.tables(0)?.unwrap_or_default().into_iter().map(walk).sum::<Result<u64>>().map(|n| n + 1)
        }
        let flat = Flat::new(Window::new(b.finished_data()));
        assert_eq!(flat.root().and_then(walk).unwrap_err().kind(), ErrorKind::Limit);
    }

    #[test]
    fn nesting_is_limited() {
        let mut b = FlatBufferBuilder::new();
        let start = b.start_table();
        let mut level = b.end_table(start);
        for _ in 0..100 {
            let start = b.start_table();
            b.push_slot_always(4, level);
            level = b.end_table(start);
        }
        b.finish(level, None);
        let flat = Flat::new(Window::new(b.finished_data()));
        let mut table = flat.root().unwrap();
        let e = loop {
            match table.table(0) {
                Ok(next) => table = next.unwrap(),
                Err(e) => break e,
            }
        };
        assert_eq!(e.kind(), ErrorKind::Limit);
    }
}
