//! Zip files as tests need them: small, and wrong in one place.

/// One entry of a zip file to be.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) deflated: bool,
    /// What the directory says about it, where that is not the truth.
    pub(super) crc: Option<u32>,
    pub(super) size: Option<u32>,
    pub(super) packed: Option<u32>,
    pub(super) method: Option<u16>,
    pub(super) offset: Option<u32>,
    /// Whether sizes and offset stand in an extra field, as those beyond 4 GiB do.
    pub(super) wide: Wide,
}

/// What of an entry stands in an extra field of the directory.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wide {
    Nothing,
    /// The entry is too large.
    Sizes,
    /// It stands behind one that is.
    Offset,
}

impl Entry {
    pub(super) fn new(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            deflated: false,
            crc: None,
            size: None,
            packed: None,
            method: None,
            offset: None,
            wide: Wide::Nothing,
        }
    }
}

/// The file. Local headers carry no sizes, as torch writes them.
pub(super) fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for e in entries {
        let packed = if e.deflated { miniz_oxide::deflate::compress_to_vec(&e.bytes, 6) } else { e.bytes.clone() };
        let method = e.method.unwrap_or(if e.deflated { 8 } else { 0 });
        let offset = e.offset.unwrap_or(out.len() as u32);
        out.extend(b"PK\x03\x04\0\0\x08\x08");
        out.extend(method.to_le_bytes());
        out.extend([0; 16]);
        out.extend((e.name.len() as u16).to_le_bytes());
        // What torch pads with, and for entries behind a large one a field that has no business there.
        let local = if e.wide == Wide::Offset {
            [&b"\x01\0\x08\0"[..], &u64::from(offset).to_le_bytes(), b"FB\x03\0ZZZ"].concat()
        } else {
            b"FB\0\0".to_vec()
        };
        out.extend((local.len() as u16).to_le_bytes());
        out.extend(&e.name);
        out.extend(&local);
        out.extend(&packed);
        let (crc, stored) = (e.crc.unwrap_or(rawzip::crc32(&e.bytes)), packed.len() as u32);
        let (stored, size) = (e.packed.unwrap_or(stored), e.size.unwrap_or(e.bytes.len() as u32));
        let (numbers, at, extra) = match e.wide {
            Wide::Nothing => ([crc, stored, size], offset, vec![]),
            Wide::Sizes => ([crc, u32::MAX, u32::MAX], offset, [u64::from(size), u64::from(stored)].map(u64::to_le_bytes).concat()),
            Wide::Offset => ([crc, stored, size], u32::MAX, u64::from(offset).to_le_bytes().to_vec()),
        };
        let extra = if extra.is_empty() { extra } else { [&b"\x01\0"[..], &(extra.len() as u16).to_le_bytes(), &extra].concat() };
        directory.extend(b"PK\x01\x02\0\0\0\0\x08\x08");
        directory.extend(method.to_le_bytes());
        directory.extend([0; 4]);
        numbers.iter().for_each(|n| directory.extend(n.to_le_bytes()));
        directory.extend((e.name.len() as u16).to_le_bytes());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(&e.name);
        directory.extend(&extra);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}
