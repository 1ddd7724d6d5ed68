//! One weight on its way into a quantised format: scales are chosen once, codes are made when the file is written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::{Derive, TensorData};
use rayon::prelude::*;

use super::affine::{Search, TURNS};
use super::float::{Float, Kind};
use super::kernel::Kernel;
use super::rules::Method;

/// Elements that a thread works on at a time, about.
const CHUNK: usize = 1 << 18;
/// Bytes of scales that are kept in memory, of all weights of a program together. Beyond, scales are chosen again for each
/// piece that is written: slower, but memory does not grow with the weights.
const KEPT: u64 = 192 << 20;

/// Room for scales, shared by the weights of a program.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Self {
        Budget(AtomicU64::new(KEPT))
    }
}

impl Budget {
    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What the codes of a weight miss of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The largest difference between an element and what stands for it.
    pub max_error: f64,
    /// Sum of the squares of the differences.
    pub error_squares: f64,
    /// Sum of the squares of the elements.
    pub squares: f64,
    /// Number of elements.
    pub count: u64,
}

impl Loss {
    /// Root of the mean of the squared differences.
    pub fn rms(&self) -> f64 {
        (self.error_squares / self.count.max(1) as f64).sqrt()
    }

    /// Ratio of signal to noise in decibels; infinite if nothing is lost.
    pub fn snr_db(&self) -> f64 {
        if self.error_squares == 0.0 { f64::INFINITY } else { 10.0 * (self.squares / self.error_squares).log10() }
    }

    fn merge(&mut self, other: &Loss) {
        self.max_error = self.max_error.max(other.max_error);
        self.error_squares += other.error_squares;
        self.squares += other.squares;
        self.count += other.count;
    }
}

/// What was found out about one chunk, or all of them.
#[derive(Clone, Debug, Default)]
struct Findings {
    search: Search,
    loss: Loss,
    /// NaN or infinite elements, and the first of them.
    not_finite: u64,
    first: Option<u64>,
}

impl Findings {
    fn merge(&mut self, other: &Findings) {
        self.search.merge(&other.search);
        self.loss.merge(&other.loss);
        self.not_finite += other.not_finite;
        self.first = self.first.or(other.first);
    }
}

/// Scales that were chosen.
#[derive(Debug)]
struct Chosen {
    /// How often scales are improved, at most, in each matrix.
    turns: Vec<usize>,
    /// Scales, not yet rounded, and zero points, if there is room for them.
    kept: Option<(Vec<f32>, Vec<i8>)>,
    loss: Loss,
}

/// A weight and its format.
pub(super) struct Quantiser {
    name: String,
    pub(super) data: TensorData,
    /// Matrices that lie one behind the other, each of which is a weight of its own to torchao.
    matrices: usize,
    pub(super) kernel: Kernel,
    budget: Arc<Budget>,
    chosen: OnceLock<Result<Chosen, Error>>,
}

/// Some groups of a weight, their scales, and zero points or the bytes of scales.
struct Piece<'a> {
    /// Left out where nobody looks at them.
    numbers: &'a [f32],
    scales: &'a [f32],
    beside: &'a [i8],
}

/// Scratch of a thread.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    numbers: Vec<f32>,
    scales: Vec<f32>,
    beside: Vec<i8>,
    restored: Vec<f32>,
}

impl Quantiser {
    /// `data` is a matrix, or a stack of matrices.
    pub(super) fn new(name: String, data: TensorData, kernel: Kernel, budget: Arc<Budget>) -> Self {
        let matrices = match *data.shape() {
            [stack, _, _] => stack as usize,
            _ => 1,
        };
        Quantiser { name, data, matrices, kernel, budget, chosen: OnceLock::new() }
    }

    fn groups(&self) -> usize {
        (self.data.numel() / self.kernel.group() as u64) as usize
    }

    /// Chooses all scales, on all threads; nothing if that was done.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when elements are not finite or cannot be read.
    pub(super) fn settle(&self) -> Result<Loss, Error> {
        if self.chosen.get().is_none() {
            let chosen = self.choose(true);
            // Another thread may have been first; both found the same.
            let _ = self.chosen.set(chosen);
        }
        self.chosen().map(|c| c.loss)
    }

    /// The scales. Where nobody settled them before, this thread does it alone: it may be one of a pool, which must not
    /// wait here for others of the pool.
    fn chosen(&self) -> Result<&Chosen, Error> {
        self.chosen.get_or_init(|| self.choose(false)).as_ref().map_err(Clone::clone)
    }

    fn choose(&self, parallel: bool) -> Result<Chosen, Error> {
        let keep = self.budget.take(self.groups() as u64 * 5);
        let (mut scales, mut zeros) = if keep { (vec![0.0; self.groups()], vec![0; self.groups()]) } else { Default::default() };
        let mut turns = vec![TURNS; self.matrices];
        let mut each = self.go_through(&turns, keep.then_some((&mut scales, &mut zeros)), parallel)?;
        let merged = |each: &[Findings]| {
            let mut all = Findings::default();
            each.iter().for_each(|f| all.merge(f));
            all
        };
        let found = merged(&each);
        if found.not_finite > 0 {
            let at = found.first.unwrap_or(0);
            let what = format!(
                "weight {}: {} of {} elements {} NaN or infinite, the first at {:?}",
                self.name,
                found.not_finite,
                self.data.numel(),
                if found.not_finite == 1 { "is" } else { "are" },
                index(self.data.shape(), at),
            );
            return Err(
                Error::new(ErrorKind::Weight, what).help("mend the checkpoint, or leave the weight as it is with a rule `/NAME/=none`")
            );
        }
        if each.iter().any(|f| f.search.stops_short().is_some()) {
            turns = each.iter().map(|f| f.search.stops_short().unwrap_or(TURNS)).collect();
            each = self.go_through(&turns, keep.then_some((&mut scales, &mut zeros)), parallel)?;
        }
        Ok(Chosen { turns, kept: keep.then_some((scales, zeros)), loss: merged(&each).loss })
    }

    /// How many groups are worked on at a time: so many that no chunk reaches over the end of a matrix.
    fn chunk(&self) -> usize {
        let most = (CHUNK / self.kernel.group()).max(1);
        let groups = self.groups() / self.matrices.max(1);
        (1..=most.min(groups.max(1))).rev().find(|n| groups.is_multiple_of(*n) || self.matrices == 1).unwrap_or(1)
    }

    /// Chooses scales chunk by chunk; what was found in each matrix.
    fn go_through(&self, turns: &[usize], keep: Option<(&mut Vec<f32>, &mut Vec<i8>)>, parallel: bool) -> Result<Vec<Findings>, Error> {
        let step = self.chunk();
        let chunk = |scratch: &mut Scratch, first: usize, out: Option<(&mut [f32], &mut [i8])>| -> Result<Findings, Error> {
            let count = step.min(self.groups() - first);
            let found = self.look(scratch, first, count, turns)?;
            if let Some((scales, zeros)) = out {
                scales.copy_from_slice(&scratch.scales);
                zeros.copy_from_slice(&scratch.beside);
            }
            Ok(found)
        };
        let starts: Vec<usize> = (0..self.groups()).step_by(step).collect();
        let each: Vec<Findings> = match (keep, parallel) {
            (Some((scales, zeros)), true) => starts
                .par_iter()
                .zip(scales.par_chunks_mut(step).zip(zeros.par_chunks_mut(step)))
                .map_init(Scratch::default, |scratch, (&first, out)| chunk(scratch, first, Some(out)))
                .collect::<Result<_, _>>()?,
            (None, true) => {
                starts.par_iter().map_init(Scratch::default, |scratch, &first| chunk(scratch, first, None)).collect::<Result<_, _>>()?
            }
            (keep, false) => {
                let mut scratch = Scratch::default();
                let mut outs = keep.map(|(s, z)| s.chunks_mut(step).zip(z.chunks_mut(step)));
                starts.iter().map(|&first| chunk(&mut scratch, first, outs.as_mut().and_then(Iterator::next))).collect::<Result<_, _>>()?
            }
        };
        // In order, so that sums do not depend on who was first.
        let mut found = vec![Findings::default(); self.matrices];
        for (first, chunk) in starts.into_iter().zip(&each) {
            if let Some(matrix) = found.get_mut(self.matrix_of(first)) {
                matrix.merge(chunk);
            }
        }
        Ok(found)
    }

    fn matrix_of(&self, group: usize) -> usize {
        group / (self.groups() / self.matrices.max(1)).max(1)
    }

    /// Chooses scales of some groups into the scratch, and looks at what is lost.
    fn look(&self, scratch: &mut Scratch, first: usize, count: usize, turns: &[usize]) -> Result<Findings, Error> {
        let mut found = Findings::default();
        self.read(scratch, first, count)?;
        let wrong = scratch.numbers.iter().filter(|x| !x.is_finite()).count() as u64;
        scratch.scales.resize(count, 0.0);
        scratch.beside.resize(count, 0);
        if wrong > 0 {
            let at = scratch.numbers.iter().position(|x| !x.is_finite()).unwrap_or(0);
            found.not_finite = wrong;
            found.first = Some((first * self.kernel.group() + at) as u64);
            return Ok(found);
        }
        let Scratch { numbers, scales, beside, restored, .. } = scratch;
        let turns = turns.get(self.matrix_of(first)).copied().unwrap_or(TURNS);
        self.kernel.choose(numbers, turns, scales, beside, &mut found.search);
        restored.resize(numbers.len(), 0.0);
        self.kernel.numbers(numbers, scales, beside, restored);
        found.loss = loss(numbers, restored);
        Ok(found)
    }

    /// Reads groups of the weight as numbers.
    fn read(&self, scratch: &mut Scratch, first: usize, count: usize) -> Result<(), Error> {
        let element = self.kernel.element();
        let (start, len) = (first * self.kernel.group() * element.size(), count * self.kernel.group() * element.size());
        // A weight that is made comes in whole granules.
        let granule = self.data.granule();
        let low = start as u64 / granule * granule;
        let high = ((start + len) as u64).next_multiple_of(granule).min(self.data.byte_len());
        scratch.bytes.resize((high - low) as usize, 0);
        self.data.produce(low, &mut scratch.bytes)?;
        let at = start - low as usize;
        element.read(scratch.bytes.get(at..at + len).unwrap_or(&[]), &mut scratch.numbers);
        Ok(())
    }

    /// Calls `f` with the numbers, scales and zero points of chunks of groups, in order.
    fn with_scales(&self, mut first: usize, mut count: usize, numbers: bool, f: &mut dyn FnMut(Piece<'_>)) -> Result<(), Error> {
        let chosen = self.chosen()?;
        let mut scratch = Scratch::default();
        let step = self.chunk();
        while count > 0 {
            // Up to where the next chunk would begin.
            let n = count.min(step - first % step);
            match &chosen.kept {
                Some((scales, zeros)) => {
                    if numbers {
                        self.read(&mut scratch, first, n)?;
                    }
                    let (s, z) = (scales.get(first..first + n).unwrap_or(&[]), zeros.get(first..first + n).unwrap_or(&[]));
                    f(Piece { numbers: &scratch.numbers, scales: s, beside: z });
                }
                None => {
                    self.look(&mut scratch, first, n, &chosen.turns)?;
                    f(Piece { numbers: &scratch.numbers, scales: &scratch.scales, beside: &scratch.beside });
                }
            }
            (first, count) = (first + n, count - n);
        }
        Ok(())
    }
}

/// Coordinates of an element.
fn index(shape: &[u64], mut at: u64) -> Vec<u64> {
    let mut out: Vec<u64> = shape
        .iter()
        .rev()
        .map(|&n| {
            let i = at % n.max(1);
            at /= n.max(1);
            i
        })
        .collect();
    out.reverse();
    out
}

fn loss(numbers: &[f32], restored: &[f32]) -> Loss {
    const BLOCK: usize = 1024;
    let mut total = Loss { count: numbers.len() as u64, ..Loss::default() };
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (a, b) in numbers.chunks(BLOCK).zip(restored.chunks(BLOCK)) {
                // Sums of a block in single precision are good to six digits and vectorise.
                let (mut max, mut errors, mut squares) = ([0f32; 16], [0f32; 16], [0f32; 16]);
                for (a, b) in a.chunks(16).zip(b.chunks(16)) {
                    for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
                        let e = (x - y).abs();
                        max[i] = if e > max[i] { e } else { max[i] };
                        errors[i] += e * e;
                        squares[i] += x * x;
                    }
                }
                total.max_error = total.max_error.max(f64::from(max.into_iter().fold(0f32, f32::max)));
                total.error_squares += errors.iter().map(|&x| f64::from(x)).sum::<f64>();
                total.squares += squares.iter().map(|&x| f64::from(x)).sum::<f64>();
            }
        },
    );
    total
}

/// One of the tensors that a weight becomes.
#[derive(Clone, Copy, Debug)]
enum Part {
    Codes,
    /// Codes of four bits, less the least, two a byte, the first in the lower half.
    Pairs,
    /// Scales, in the type of the weight.
    Scales,
    /// Zero points, or the bytes of scales.
    Beside,
}

struct Made {
    of: Arc<Quantiser>,
    inputs: [TensorData; 1],
    part: Part,
}

impl Derive for Made {
    fn recipe(&self) -> String {
        format!("{:?} of {}", self.part, self.of.kernel.recipe())
    }

    fn inputs(&self) -> &[TensorData] {
        &self.inputs
    }

    fn granule(&self) -> u64 {
        self.bytes_a_group() as u64
    }

    fn is_costly(&self) -> bool {
        true
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let (kernel, size) = (&self.of.kernel, self.bytes_a_group());
        let (first, count) = (offset as usize / size, out.len() / size);
        let mut rest = out;
        self.of.with_scales(first, count, matches!(self.part, Part::Codes | Part::Pairs), &mut |piece| {
            let Piece { numbers, scales, beside } = piece;
            let Some((now, later)) = std::mem::take(&mut rest).split_at_mut_checked(scales.len() * size) else { return };
            match self.part {
                Part::Codes => kernel.codes(numbers, scales, beside, now),
                Part::Pairs => {
                    let mut codes = vec![0; now.len() * 2];
                    kernel.codes(numbers, scales, beside, &mut codes);
                    codes.as_chunks().0.iter().zip(now).for_each(|([a, b], o)| *o = (a ^ 8) & 15 | (b ^ 8) << 4);
                }
                Part::Scales => scales.iter().zip(now.chunks_exact_mut(size)).for_each(|(s, o)| kernel.element().write(*s, o)),
                Part::Beside => beside.iter().zip(now).for_each(|(b, o)| *o = *b as u8),
            }
            rest = later;
        })
    }
}

impl Made {
    fn bytes_a_group(&self) -> usize {
        match self.part {
            Part::Codes => self.of.kernel.code_bytes(),
            Part::Pairs => self.of.kernel.group() / 2,
            Part::Scales => self.of.kernel.element().size(),
            Part::Beside => 1,
        }
    }
}

/// The tensors of a quantised weight as torchao stores them: codes `[…, columns]`, scales and, of asymmetric formats, zero points
/// `[…, columns / group]`; of NVFP4, words of eight codes, and a scale for the whole tensor, which is 1. Stacks of matrices have codes of
/// four bits in pairs.
pub(super) fn tensors(of: &Arc<Quantiser>) -> Result<Vec<TensorData>, Error> {
    let shape = of.data.shape();
    let stacked = shape.len() == 3;
    let with_last = |f: &dyn Fn(u64) -> u64| {
        let mut shape = shape.to_vec();
        shape.last_mut().into_iter().for_each(|n| *n = f(*n));
        shape
    };
    let grouped = with_last(&|n| n / of.kernel.group() as u64);
    let make = |part, dtype, shape| TensorData::derived(dtype, shape, Arc::new(Made { of: of.clone(), inputs: [of.data.clone()], part }));
    match of.kernel {
        Kernel::Affine(a) => {
            let codes = match a.high {
                7.0 if stacked => make(Part::Pairs, DType::UInt8, with_last(&|n| n / 2))?,
                _ => make(Part::Codes, DType::Int8, shape.to_vec())?,
            };
            let mut out = vec![codes, make(Part::Scales, of.data.dtype(), grouped.clone())?];
            if a.method == Method::Asymmetric {
                out.push(make(Part::Beside, DType::Int8, grouped)?);
            }
            Ok(out)
        }
        Kernel::Float(Float { kind: Kind::Nvfp4, .. }) => Ok(vec![
            make(Part::Codes, DType::UInt32, with_last(&|n| n / 8))?,
            make(Part::Beside, DType::UInt8, grouped)?,
            TensorData::inline(DType::Float32, vec![], 1f32.to_le_bytes())?,
        ]),
        Kernel::Float(Float { kind: Kind::Mxfp4, .. }) => {
            Ok(vec![make(Part::Codes, DType::UInt8, with_last(&|n| n / 2))?, make(Part::Beside, DType::Float8E8M0, grouped)?])
        }
        Kernel::Float(Float { kind: Kind::Mxfp8, .. }) => {
            Ok(vec![make(Part::Codes, DType::Float8E4M3, shape.to_vec())?, make(Part::Beside, DType::Float8E8M0, grouped)?])
        }
    }
}
