//! Weights that are made out of other weights, described.

pub(crate) mod gguf;

use std::sync::Arc;

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::{Derive, TensorData};
use half::{bf16, f16};

/// The weight with its axes in this order.
///
/// # Errors
/// When `perm` is no permutation of the axes.
pub(crate) fn permuted_data(data: &TensorData, perm: &[usize]) -> Result<TensorData, Error> {
    let shape = data.shape();
    let mut strides = vec![1u64; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    let pick = |list: &[u64]| perm.iter().map(|&p| list.get(p).copied()).collect::<Option<Vec<u64>>>();
    match (pick(shape), pick(&strides)) {
        (Some(sizes), Some(steps)) if perm.len() == shape.len() => data.strided(data.dtype(), sizes, steps, 0),
        _ => Err(Error::new(ErrorKind::Weight, format!("{perm:?} does not order the axes of {shape:?}"))),
    }
}

/// How many rows are worked on at a time: bounds memory whatever the weight's size.
const ROWS_AT_ONCE: usize = 64;

/// Bytes of `data`, in place if they exist, else made into `held`.
fn piece<'a>(data: &'a TensorData, offset: u64, len: usize, held: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
    if let Some(bytes) = data.bytes() {
        return bytes
            .get(offset as usize..offset as usize + len)
            .ok_or_else(|| Error::new(ErrorKind::Weight, "the weight is shorter than it was"));
    }
    held.resize(len, 0);
    data.produce(offset, held)?;
    Ok(held)
}

/// Pieces of the tensor are multiples of so many elements.
fn elements_at_once(data: &TensorData) -> u64 {
    data.granule().div_ceil(data.dtype().size() as u64)
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Codes, one a byte, as a little-endian stream of unsigned ones of `bits` bits, a row at a time (`mlx-patterns.md` §2.2).
struct Pack {
    codes: [TensorData; 1],
    layout: Layout,
    columns: usize,
}

/// How codes become a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Width of a code in the stream.
    pub(crate) bits: usize,
    /// What is added to a code to make it unsigned.
    pub(crate) offset: i16,
    /// Each so many codes of a row …
    pub(crate) group: usize,
    /// … take the room of this many; what is left over is zeros.
    pub(crate) padded: usize,
}

impl Layout {
    /// Signed codes without gaps, in rows of `columns`.
    pub(crate) fn dense(bits: usize, columns: usize) -> Self {
        Self { bits, offset: 1 << (bits - 1), group: columns, padded: columns }
    }

    /// Length of the rows that hold `columns` codes.
    fn width(&self, columns: usize) -> usize {
        columns / self.group.max(1) * self.padded
    }
}

impl Derive for Pack {
    fn recipe(&self) -> String {
        let Layout { bits, offset, group, padded } = self.layout;
        let signed = self.codes[0].dtype() == DType::Int8;
        format!("pack {bits} bits, rows of {}, from {offset}, {group} in {padded}, signed {signed}", self.columns)
    }

    fn inputs(&self) -> &[TensorData] {
        &self.codes
    }

    fn granule(&self) -> u64 {
        (self.layout.width(self.columns) * self.layout.bits / 8) as u64
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let Layout { bits, offset: zero, group, padded } = self.layout;
        let row_bytes = self.granule() as usize;
        if row_bytes == 0 {
            return Ok(());
        }
        let mask = (1i16 << bits) - 1;
        // A signed code with its sign turned is what it is above the least one.
        let (flip, zero) = if self.codes[0].dtype() == DType::Int8 { (0x80, zero - 128) } else { (0, zero) };
        let mut held = Vec::new();
        let mut row = offset / row_bytes as u64;
        for rows in out.chunks_mut(row_bytes * ROWS_AT_ONCE) {
            let n = rows.len() / row_bytes;
            let codes = piece(&self.codes[0], row * self.columns as u64, n * self.columns, &mut held)?;
            let mut outside = 0;
            let mut word_of = |codes: &[u8]| {
                codes.iter().enumerate().fold(0u64, |word, (i, &q)| {
                    let q = i16::from(q ^ flip) + zero;
                    outside |= q & !mask;
                    word | u64::from((q & mask) as u16) << (i * bits)
                })
            };
            for (codes, bytes) in codes.chunks_exact(group).zip(rows.chunks_exact_mut(padded * bits / 8)) {
                // Eight codes fill `bits` whole bytes.
                let (eights, rest) = codes.as_chunks::<8>();
                let (full, mut left) = bytes.split_at_mut(eights.len() * bits);
                for (eight, bytes) in eights.iter().zip(full.chunks_exact_mut(bits)) {
                    bytes.copy_from_slice(&word_of(eight).to_le_bytes()[..bits]);
                }
                for byte in word_of(rest).to_le_bytes().iter().take(bits) {
                    if let Some((first, others)) = std::mem::take(&mut left).split_first_mut() {
                        *first = *byte;
                        left = others;
                    }
                }
                left.fill(0);
            }
            if outside != 0 {
                let what = format!("a code among rows {row} to {} is outside of its {bits} bits", row + n as u64);
                return Err(Error::new(ErrorKind::Weight, what).help("quantise the weight again, or declare the range of its codes"));
            }
            row += n as u64;
        }
        Ok(())
    }
}

/// Packs codes `[rows…, columns]` into `[rows…, width * bits / 32]` words.
///
/// # Errors
/// When a row does not fill whole words or whole groups, or codes are not bytes.
pub(crate) fn packed(codes: &TensorData, layout: Layout) -> Result<TensorData, Error> {
    let columns = codes.shape().last().map_or(0, |&n| n as usize);
    let width = layout.width(columns);
    if layout.group == 0 || !columns.is_multiple_of(layout.group) || !(width * layout.bits).is_multiple_of(32) {
        let what = format!("{columns} codes of {} bits in groups of {} do not fill 32-bit words", layout.bits, layout.group);
        return Err(Error::new(ErrorKind::Weight, what));
    }
    if !matches!(codes.dtype(), DType::Int8 | DType::UInt8) {
        return Err(Error::new(ErrorKind::Weight, format!("codes of type {}", codes.dtype())));
    }
    let mut shape = codes.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = (width * layout.bits / 32) as u64;
    }
    let recipe = Pack { codes: [codes.clone()], layout, columns };
    TensorData::derived(DType::UInt32, shape, Arc::new(recipe))
}

/// Several codes a byte as one signed code a byte: the middle code of each width is 0.
struct Unpacked {
    bytes: [TensorData; 1],
    per_byte: usize,
    high_first: bool,
}

impl Derive for Unpacked {
    fn recipe(&self) -> String {
        format!("unpack {} a byte, high first {}", self.per_byte, self.high_first)
    }

    fn inputs(&self) -> &[TensorData] {
        &self.bytes
    }

    fn granule(&self) -> u64 {
        self.per_byte as u64 * elements_at_once(&self.bytes[0])
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let (n, bits) = (self.per_byte, 8 / self.per_byte);
        let mut held = Vec::new();
        let bytes = piece(&self.bytes[0], offset / n as u64, out.len() / n, &mut held)?;
        for (byte, codes) in bytes.iter().zip(out.chunks_exact_mut(n)) {
            for (i, code) in codes.iter_mut().enumerate() {
                let place = if self.high_first { n - 1 - i } else { i };
                let unsigned = byte >> (place * bits) & ((1 << bits) - 1);
                *code = unsigned.wrapping_sub(1 << (bits - 1));
            }
        }
        Ok(())
    }
}

/// Codes of `8 / per_byte` bits that lie side by side in bytes, as signed bytes.
///
/// # Errors
/// When the last axis has too many codes to count.
pub(crate) fn unpacked(bytes: &TensorData, per_byte: usize, high_first: bool) -> Result<TensorData, Error> {
    let mut shape = bytes.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = last.saturating_mul(per_byte as u64);
    }
    TensorData::derived(DType::Int8, shape, Arc::new(Unpacked { bytes: [bytes.clone()], per_byte, high_first }))
}

/// `-scale * (zero + offset)` in the type of the scales, rounding after each step as the reference does.
struct Bias {
    /// Scales, then zero points (absent: all zero).
    parts: Vec<TensorData>,
    offset: f32,
}

impl Derive for Bias {
    fn recipe(&self) -> String {
        format!("bias, zero points from {}", self.offset)
    }

    fn inputs(&self) -> &[TensorData] {
        &self.parts
    }

    fn granule(&self) -> u64 {
        // As many elements as every part can be asked for.
        let elements = self.parts.iter().map(elements_at_once).fold(1, least_common_multiple);
        self.parts.first().map_or(1, |s| s.dtype().size() as u64 * elements)
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let [scales, zeros @ ..] = self.parts.as_slice() else { return Ok(()) };
        let size = scales.dtype().size();
        let (mut held, mut held_zeros) = (Vec::new(), Vec::new());
        let s = piece(scales, offset, out.len(), &mut held)?;
        let z = match zeros.first() {
            None => None,
            Some(z) => {
                let n = out.len() / size;
                let at = offset / size as u64 * z.dtype().size() as u64;
                Some((z.dtype(), piece(z, at, n * z.dtype().size(), &mut held_zeros)?))
            }
        };
        let round = |x: f32| element_as(scales.dtype(), x);
        for (i, (s, o)) in s.chunks_exact(size).zip(out.chunks_exact_mut(size)).enumerate() {
            let zero = match z {
                None => 0.0,
                Some((t, bytes)) => round(number(t, bytes.get(i * t.size()..(i + 1) * t.size()).unwrap_or(&[]))?),
            };
            let shifted = round(zero + self.offset);
            write(scales.dtype(), round(-(number(scales.dtype(), s)? * shifted)), o);
        }
        Ok(())
    }
}

/// Biases of an affine quantisation for codes whose zero stands at `offset`.
///
/// # Errors
/// When scales and zero points differ in shape, or are of types that are not numbers.
pub(crate) fn biases(scales: &TensorData, zeros: Option<&TensorData>, offset: f32) -> Result<TensorData, Error> {
    if !matches!(scales.dtype(), DType::Float32 | DType::Float16 | DType::BFloat16) {
        return Err(Error::new(ErrorKind::Weight, format!("scales of type {}", scales.dtype())));
    }
    if let Some(z) = zeros {
        if z.shape() != scales.shape() {
            return Err(Error::new(ErrorKind::Weight, format!("zero points {:?} for scales {:?}", z.shape(), scales.shape())));
        }
        number(z.dtype(), &[0; 8])?;
    }
    let parts = std::iter::once(scales).chain(zeros).cloned().collect();
    TensorData::derived(scales.dtype(), scales.shape().to_vec(), Arc::new(Bias { parts, offset }))
}

/// Every element of the last axis `times` times.
struct RepeatLast {
    source: [TensorData; 1],
    times: usize,
}

impl Derive for RepeatLast {
    fn recipe(&self) -> String {
        format!("repeat {}", self.times)
    }

    fn inputs(&self) -> &[TensorData] {
        &self.source
    }

    fn granule(&self) -> u64 {
        elements_at_once(&self.source[0]) * (self.source[0].dtype().size() * self.times) as u64
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let size = self.source[0].dtype().size();
        let mut held = Vec::new();
        let from = piece(&self.source[0], offset / self.times as u64, out.len() / self.times, &mut held)?;
        for (x, copies) in from.chunks_exact(size).zip(out.chunks_exact_mut(size * self.times)) {
            copies.chunks_exact_mut(size).for_each(|c| c.copy_from_slice(x));
        }
        Ok(())
    }
}

/// The weight with every element of its last axis repeated.
///
/// # Errors
/// When the result is too large to describe.
pub(crate) fn repeated(data: &TensorData, times: usize) -> Result<TensorData, Error> {
    if times == 1 {
        return Ok(data.clone());
    }
    let mut shape = data.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = last.saturating_mul(times as u64);
    }
    TensorData::derived(data.dtype(), shape, Arc::new(RepeatLast { source: [data.clone()], times }))
}

/// One of the two numbers a channel that a batch norm in inference comes down to.
struct Line {
    /// Variance, then mean, weight and bias as far as they matter.
    parts: Vec<TensorData>,
    eps: f64,
    has_weight: bool,
    has_bias: bool,
    shift: bool,
}

impl Derive for Line {
    fn recipe(&self) -> String {
        format!("batch norm {} of eps {:?}, {} {}", if self.shift { "shift" } else { "scale" }, self.eps, self.has_weight, self.has_bias)
    }

    fn inputs(&self) -> &[TensorData] {
        &self.parts
    }

    fn granule(&self) -> u64 {
        4
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let mut held = vec![Vec::new(); self.parts.len()];
        let mut columns = Vec::new();
        for (part, held) in self.parts.iter().zip(&mut held) {
            let size = part.dtype().size();
            let bytes = piece(part, offset / 4 * size as u64, out.len() / 4 * size, held)?;
            columns.push(bytes.chunks_exact(size).map(|b| number(part.dtype(), b)).collect::<Result<Vec<f32>, _>>()?);
        }
        for (i, o) in out.chunks_exact_mut(4).enumerate() {
            let mut rest = columns.iter().map(|c| c.get(i).copied().unwrap_or(0.0));
            let mut next = || rest.next().unwrap_or(0.0);
            let (var, mean) = (next(), next());
            let scale = (1.0 / (var + self.eps as f32).sqrt()) * if self.has_weight { next() } else { 1.0 };
            let value = if self.shift { (if self.has_bias { next() } else { 0.0 }) - mean * scale } else { scale };
            o.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }
}

/// Scale and shift of a batch norm over `[N, C, …]` of so many axes, as singles `[1, C, 1, …]`.
///
/// # Errors
/// When a part is of a type that is no number.
pub(crate) fn batch_norm_line(
    mean: &TensorData,
    var: &TensorData,
    weight: Option<TensorData>,
    bias: Option<TensorData>,
    eps: f64,
    rank: usize,
) -> Result<(TensorData, TensorData), Error> {
    let mut shape = vec![1; rank];
    if let Some(channels) = shape.get_mut(1) {
        *channels = var.numel();
    }
    let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
    let parts: Vec<TensorData> = [Some(var.clone()), Some(mean.clone()), weight, bias].into_iter().flatten().collect();
    for p in &parts {
        number(p.dtype(), &[0; 8])?;
    }
    let line = |shift| {
        let recipe = Line { parts: parts.clone(), eps, has_weight, has_bias, shift };
        TensorData::derived(DType::Float32, shape.clone(), Arc::new(recipe))
    };
    Ok((line(false)?, line(true)?))
}

/// The first element that `wrong` says so of, with its place. Reads the weight.
fn find(data: &TensorData, wrong: impl Fn(f32) -> bool) -> Result<Option<(u64, f32)>, Error> {
    let size = data.dtype().size();
    let step = (1 << 20) / size * size;
    let mut held = Vec::new();
    let mut at = 0;
    while at < data.byte_len() {
        let n = step.min((data.byte_len() - at) as usize);
        for (i, b) in (0..).zip(piece(data, at, n, &mut held)?.chunks_exact(size)) {
            let x = number(data.dtype(), b)?;
            if wrong(x) {
                return Ok(Some((at / size as u64 + i, x)));
            }
        }
        at += n as u64;
    }
    Ok(None)
}

/// Whether every element is one of `low..=high`. Reads the weight.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn is_within(data: &TensorData, low: f32, high: f32) -> Result<bool, Error> {
    Ok(find(data, |x| !(low..=high).contains(&x))?.is_none())
}

/// The place and value of the first element that is NaN or infinite. Reads the weight.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn first_not_finite(data: &TensorData) -> Result<Option<(u64, f32)>, Error> {
    find(data, |x| !x.is_finite())
}

fn element_as(t: DType, x: f32) -> f32 {
    match t {
        DType::Float16 => f16::from_f32(x).to_f32(),
        DType::BFloat16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

fn number(t: DType, b: &[u8]) -> Result<f32, Error> {
    Ok(match (t, b) {
        (DType::Int8, &[a, ..]) => f32::from(a as i8),
        (DType::UInt8, &[a, ..]) => f32::from(a),
        (DType::Int32, &[a, b, c, d, ..]) => i32::from_le_bytes([a, b, c, d]) as f32,
        (DType::Int64, &[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
        (DType::Float32, &[a, b, c, d, ..]) => f32::from_le_bytes([a, b, c, d]),
        (DType::Float16, &[a, b, ..]) => f16::from_le_bytes([a, b]).to_f32(),
        (DType::BFloat16, &[a, b, ..]) => bf16::from_le_bytes([a, b]).to_f32(),
        // Scales of blocks of small floats: the last code is no number.
        (DType::Float8E8M0, &[a, ..]) => {
            if a == 255 {
                f32::NAN
            } else {
                2f32.powi(i32::from(a) - 127)
            }
        }
        (DType::Float8E4M3, &[a, ..]) => match (a >> 3 & 15, f32::from(a & 7) / 8.0) {
            (15, 0.875) => f32::NAN,
            (0, fraction) => fraction * 2f32.powi(-6),
            (exponent, fraction) => (1.0 + fraction) * 2f32.powi(i32::from(exponent) - 7),
        },
        _ => return Err(Error::new(ErrorKind::Weight, format!("zero points or scales of type {t}"))),
    })
}

fn write(t: DType, x: f32, out: &mut [u8]) {
    match t {
        DType::Float16 => out.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
        DType::BFloat16 => out.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
        _ => out.copy_from_slice(&x.to_le_bytes()),
    }
}

/// `cos(2πi/size), -sin(2πi/size)`, scaled, for each `i`.
fn turns(size: u64, scale: f64) -> Vec<[f32; 2]> {
    let angle = |i: u64| i as f64 / size as f64 * std::f64::consts::TAU;
    (0..size).map(|i| [(angle(i).cos() * scale) as f32, (-angle(i).sin() * scale) as f32]).collect()
}

/// The numbers that a Fourier matrix consists of, `[size, 2]`: row `i` is a turn by `i` steps of the circle.
///
/// # Errors
/// When there are too many.
pub(crate) fn circle(size: u64, scale: f64) -> Result<TensorData, Error> {
    let bytes: Vec<u8> = turns(size, scale).into_iter().flatten().flat_map(f32::to_le_bytes).collect();
    TensorData::inline(DType::Float32, vec![size, 2], bytes)
}

/// The matrix of a Fourier transform, `[rows, 2·bins]`: row `n` is `cos(2πkm/size), -sin(2πkm/size)` for each `k`, `m = first + n`.
struct Fourier {
    size: u64,
    first: u64,
    bins: u64,
    scale: f64,
}

impl Derive for Fourier {
    fn recipe(&self) -> String {
        format!("fourier {} from {}, {} bins, scale {:?}", self.size, self.first, self.bins, self.scale)
    }

    fn inputs(&self) -> &[TensorData] {
        &[]
    }

    fn granule(&self) -> u64 {
        self.bins * 8
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let circle = turns(self.size, self.scale);
        let row_bytes = self.granule();
        let start = self.first + offset.checked_div(row_bytes).unwrap_or(0);
        for (m, row) in (start..).zip(out.chunks_mut((row_bytes as usize).max(1))) {
            for (k, pair) in (0..self.bins).zip(row.chunks_exact_mut(8)) {
                let [cos, sin] = circle.get((m * k % self.size) as usize).copied().unwrap_or_default();
                let (a, b) = pair.split_at_mut(4);
                a.copy_from_slice(&cos.to_le_bytes());
                b.copy_from_slice(&sin.to_le_bytes());
            }
        }
        Ok(())
    }
}

/// The matrix that takes `rows` samples, from sample `first` of `size` on, to real and imaginary parts of the first `bins`
/// frequencies, side by side; `f32`.
///
/// # Errors
/// When `size` is 0 or the matrix is too large to describe.
pub(crate) fn fourier(size: u64, first: u64, rows: u64, bins: u64, scale: f64) -> Result<TensorData, Error> {
    if size == 0 {
        return Err(Error::new(ErrorKind::Weight, "a Fourier transform of nothing"));
    }
    let shape = vec![rows, bins.saturating_mul(2)];
    TensorData::derived(DType::Float32, shape, Arc::new(Fourier { size, first, bins, scale }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_packed_from_the_lowest_bit_on() {
        let codes: Vec<u8> = (0..32).map(|i| (i % 8 - 4) as i8 as u8).collect();
        let data = TensorData::inline(DType::Int8, vec![1, 32], codes.clone()).unwrap();
        for bits in [2usize, 3, 4, 5, 6, 8] {
            let data = if bits < 4 {
                TensorData::inline(DType::Int8, vec![1, 32], codes.iter().map(|&q| ((q as i8) / 2) as u8).collect::<Vec<_>>()).unwrap()
            } else {
                data.clone()
            };
            let words = packed(&data, Layout::dense(bits, 32)).unwrap().to_vec().unwrap();
            let source = data.bytes().unwrap();
            for (i, &q) in source.iter().enumerate() {
                let code = (0..bits).map(|b| usize::from(words[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1) << b).sum::<usize>();
                assert_eq!(code as i16, i16::from(q as i8) + (1 << (bits - 1)), "{bits} bits, code {i}");
            }
        }
    }

    #[test]
    fn pieces_of_a_packed_weight_are_its_rows() {
        let data = TensorData::inline(DType::Int8, vec![3, 8], (0..24u8).map(|i| i % 7).collect::<Vec<_>>()).unwrap();
        let all = packed(&data, Layout::dense(4, 8)).unwrap();
        let mut row = vec![0; 4];
        all.produce(4, &mut row).unwrap();
        assert_eq!(row, all.to_vec().unwrap()[4..8]);
    }

    #[test]
    fn groups_that_are_too_short_are_padded_with_zeros() {
        let data = TensorData::inline(DType::UInt8, vec![2, 6], (0..12u8).collect::<Vec<_>>()).unwrap();
        let layout = Layout { bits: 4, offset: 0, group: 3, padded: 8 };
        let all = packed(&data, layout).unwrap();
        assert_eq!(all.shape(), [2, 2]);
        assert_eq!(all.to_vec().unwrap(), [0x10, 2, 0, 0, 0x43, 5, 0, 0, 0x76, 8, 0, 0, 0xa9, 0xb, 0, 0]);
        assert!(packed(&data, Layout { group: 4, ..layout }).is_err(), "groups must divide rows");
    }

    #[test]
    fn codes_side_by_side_are_taken_apart() {
        let bytes = TensorData::inline(DType::UInt8, vec![1, 2], vec![0x8f, 0x70]).unwrap();
        let halves = unpacked(&bytes, 2, true).unwrap();
        assert_eq!(halves.to_vec().unwrap().iter().map(|&b| b as i8).collect::<Vec<_>>(), [0, 7, -1, -8]);
        let quarters = unpacked(&bytes, 4, false).unwrap();
        assert_eq!(quarters.to_vec().unwrap().iter().map(|&b| b as i8).collect::<Vec<_>>(), [1, 1, -2, 0, -2, -2, 1, -1]);
    }

    #[test]
    fn codes_outside_of_their_range_are_an_error() {
        let data = TensorData::inline(DType::Int8, vec![1, 8], vec![0, 1, 2, 3, 8, 0, 0, 0]).unwrap();
        let e = packed(&data, Layout::dense(4, 8)).unwrap().to_vec().unwrap_err();
        assert!(e.to_string().contains("outside of its 4 bits"), "{e}");
        assert!(packed(&data, Layout::dense(5, 8)).is_err(), "rows of 40 bits");
    }

    #[test]
    fn biases_round_in_the_type_of_the_scales() {
        let s = bf16::from_f32(0.3);
        let scales = TensorData::inline(DType::BFloat16, vec![1, 1], s.to_le_bytes().to_vec()).unwrap();
        let zeros = TensorData::inline(DType::Int8, vec![1, 1], vec![3u8]).unwrap();
        let b = biases(&scales, Some(&zeros), 8.0).unwrap().to_vec().unwrap();
        assert_eq!(bf16::from_le_bytes([b[0], b[1]]), bf16::from_f32(-(s.to_f32() * 11.0)));
        assert!(biases(&zeros, None, 8.0).is_err());
    }

    #[test]
    fn fourier_rows_are_turns_of_the_circle() {
        let m = fourier(4, 1, 3, 3, 1.0).unwrap();
        let mut bytes = vec![0; m.byte_len() as usize];
        let (head, tail) = bytes.split_at_mut(24);
        m.produce(0, head).unwrap();
        m.produce(24, tail).unwrap();
        let found: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).round() + 0.0).collect();
        let one = [1.0, 0.0, 0.0, -1.0, -1.0, 0.0];
        let two = [1.0, 0.0, -1.0, 0.0, 1.0, 0.0];
        let three = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
        assert_eq!(found, [one, two, three].concat());
        let turns = circle(4, 1.0).unwrap().to_vec().unwrap();
        assert_eq!(turns[..24], bytes[..24], "the first row goes through the circle step by step");
    }
}
