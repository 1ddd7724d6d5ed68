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
}

impl Entry {
    pub(super) fn new(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into(), deflated: false, crc: None, size: None, packed: None, method: None, offset: None }
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
        out.extend(4u16.to_le_bytes());
        out.extend(&e.name);
        out.extend(b"FB\0\0");
        out.extend(&packed);
        let numbers =
            [e.crc.unwrap_or(rawzip::crc32(&e.bytes)), e.packed.unwrap_or(packed.len() as u32), e.size.unwrap_or(e.bytes.len() as u32)];
        directory.extend(b"PK\x01\x02\0\0\0\0\x08\x08");
        directory.extend(method.to_le_bytes());
        directory.extend([0; 4]);
        numbers.iter().for_each(|n| directory.extend(n.to_le_bytes()));
        directory.extend((e.name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(&e.name);
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
