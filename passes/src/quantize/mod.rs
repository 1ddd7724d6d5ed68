//! Quantises weights of linear layers, embeddings and experts.
//!
//! The pass writes what torchao's quantised modules export as: codes and scales as constants, and a dequantisation in front of
//! every use, which the backend lowers like that of any quantised program. Codes and scales are descriptions; the weight is
//! read twice when the file is written, in pieces: once to choose scales, once to make codes.

mod affine;
mod element;
mod float;
mod kernel;
mod rules;
mod same;
mod weight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, NodeId, ValueId};
use etx_ir::op::OpId;
use etx_ir::program::{InputKind, OutputKind};
use etx_ir::weights::{Identity, TensorData};
use etx_ir::{infer, op};

use crate::calls::{args, ints};
use crate::driver::{Context, Pass};
use affine::Affine;
use element::Element;
use float::{Float, Kind};
use kernel::Kernel;
pub use rules::{Format, Group, Method, Rules, Use};
use same::Alike;
pub use weight::Loss;
use weight::{Budget, Quantiser};

const LINEAR: OpId = op!("aten.linear.default");
const EMBEDDING: OpId = op!("aten.embedding.default");
const GATHER: OpId = op!("mlx.gather_mm.default");
const GATHER_QUANTISED: OpId = op!("mlx.gather_qmm.default");
const AFFINE: OpId = op!("torchao.dequantize_affine.default");
const NVFP4: OpId = op!("torchao.dequantize_nvfp4.default");
const MX: OpId = op!("torchao.dequantize_mx.default");

/// Where an operator has its weight.
fn weight_of(op: OpId) -> Option<(Use, usize)> {
    match op {
        _ if op == LINEAR => Some((Use::Linear, 1)),
        _ if op == EMBEDDING => Some((Use::Embedding, 0)),
        _ if op == GATHER => Some((Use::Expert, 1)),
        _ => None,
    }
}

/// The pass. Clones share what they found, so that one can stay behind when the other goes into a pipeline:
///
/// ```
/// use etx_ir::text::{self, NoFiles};
/// use etx_passes::{Options, Pipeline, quantize::Quantize};
///
/// // 1, -2, 3, -4, 5, -6, 7, -8, four times.
/// let bytes = "0000803f000000c000004040000080c00000a0400000c0c00000e040000000c1".repeat(4);
/// let source = r#"etir 1
/// weight @0 "up.weight" f32[1, 32] inline 0xBYTES
/// method "forward" functional {
///   input %x : f32[2, 32] = user
///   input %w : f32[1, 32] = parameter @0
///   %y : f32[2, 1] = aten.linear.default(%x, %w)
///   return %y
/// }"#;
/// let mut program = text::parse(&source.replace("BYTES", &bytes), &mut NoFiles)?;
/// let quantize = Quantize::new("4w".parse()?);
/// Pipeline::standard().then(quantize.clone()).run(&mut program, &mut Options::verified())?;
/// assert!(text::print(&program).contains("torchao.dequantize_affine"));
/// let planned = &quantize.plan()[0];
/// assert_eq!((planned.name.as_str(), planned.bytes_before, planned.bytes_after), ("up.weight", 128, 16 + 4));
/// assert_eq!(planned.settle()?.max_error, 0.0);
/// # Ok::<(), etx_ir::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Quantize {
    rules: Arc<Rules>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    matched: Vec<bool>,
    planned: Vec<Planned>,
    /// Position in `planned`, by weight and format.
    known: BTreeMap<(Identity, Format), usize>,
    refusals: Vec<String>,
    refused: BTreeSet<(Identity, Format)>,
    alike: Alike,
    /// Weights that rules can be for, by use.
    candidates: BTreeMap<Use, Vec<String>>,
    budget: Arc<Budget>,
}

/// What becomes of one weight.
#[derive(Clone)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Other names it has.
    pub ties: Vec<String>,
    /// What uses it in this format.
    pub uses: Vec<Use>,
    /// What still uses it as it was: operators, by name.
    pub kept_for: Vec<String>,
    /// Its format.
    pub format: Format,
    /// Its element type.
    pub dtype: DType,
    /// Its sizes.
    pub shape: Vec<u64>,
    /// Bytes of it as it was; 0 where the weight stands above in another format already.
    pub bytes_before: u64,
    /// Bytes in the file, the weight as it was included if something still uses it.
    pub bytes_after: u64,
    quantiser: Arc<Quantiser>,
}

impl Planned {
    /// Chooses its scales, on all threads, if that is not done yet, and says what is lost.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when elements are NaN or infinite, or cannot be read.
    pub fn settle(&self) -> Result<Loss, Error> {
        self.quantiser.settle()
    }
}

impl Quantize {
    /// The pass for these rules.
    pub fn new(rules: Rules) -> Self {
        let state = State { matched: vec![false; rules.len()], ..State::default() };
        Quantize { rules: Arc::new(rules), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The weights that were quantised, in the order in which programs use them.
    pub fn plan(&self) -> Vec<Planned> {
        self.state().planned.clone()
    }
}

impl Pass for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn law(&self) -> &'static str {
        "weights that rules name become codes and scales, dequantised before each use; other weights and all activations stay"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut state = self.state();
        let calls: Vec<(NodeId, Use, usize, ValueId)> = cx
            .graph()
            .nodes()
            .filter_map(|(id, node)| {
                let (used, at) = weight_of(node.op)?;
                Some((id, used, at, node.args.get(at)?.as_value()?))
            })
            .collect();
        let mut rewritten: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
        let mut constants = BTreeMap::new();
        for (id, used, at, v) in calls {
            let Some(weight) = stored(cx, v, used)? else { continue };
            let Some(index) = state.choose(&self.rules, cx, id, used, &weight) else { continue };
            rewritten.entry(v).or_default().push(index);
            let Some(planned) = state.planned.get(index) else { continue };
            let inputs = match constants.get(&index) {
                Some(inputs) => inputs,
                None => constants.entry(index).or_insert(inputs_of(cx, planned)?),
            };
            let old = cx.graph().node(id).args.clone();
            if used == Use::Expert {
                let call = gathered(old, planned, inputs);
                cx.edit().graph.set_call(id, GATHER_QUANTISED, call);
            } else {
                let w = dequantised(cx, id, planned, inputs)?;
                let call = old.into_iter().enumerate().map(|(i, a)| if i == at { Arg::Value(w) } else { a }).collect();
                cx.edit().graph.set_args(id, call);
            }
            cx.changed(1);
        }
        for (v, indices) in rewritten {
            state.note_kept(cx, v, indices);
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Error> {
        let state = self.state();
        let idle = self.rules.idle(&state.matched);
        let all_fit = idle.is_empty();
        let findings: Vec<String> = state.refusals.iter().cloned().chain(idle).collect();
        if findings.is_empty() {
            return Ok(());
        }
        let error = Error::many(ErrorKind::Unsupported, findings);
        if all_fit {
            return Err(error);
        }
        let known: Vec<String> = state
            .candidates
            .iter()
            .filter_map(|(used, names)| Some(format!("{} of {}, such as `{}`", names.len(), used.name(), names.first()?)))
            .collect();
        Err(error.help(if known.is_empty() {
            "the program has no linear layer, embedding or expert with a weight of its own".to_owned()
        } else {
            format!("weights that rules can be for: {}", known.join("; "))
        }))
    }
}

/// A weight that nothing writes to.
struct Stored {
    name: String,
    /// Its other names.
    ties: Vec<String>,
    /// Rows of elements that are multiplied together: of experts, which are stored for the other order, transposed.
    data: TensorData,
}

fn stored(cx: &Context<'_>, v: ValueId, used: Use) -> Result<Option<Stored>, Error> {
    let method = cx.method();
    let Some((at, kind)) = method.input_of(v).and_then(|at| Some((at, &method.inputs.get(at)?.kind))) else { return Ok(None) };
    let fixed = match kind {
        InputKind::Parameter(_) | InputKind::Constant(_) => true,
        InputKind::Buffer { persistent, .. } => *persistent,
        _ => false,
    };
    let weights = cx.program().weights();
    let Some(weight) = kind.weight().and_then(|w| weights.get(w.index())) else { return Ok(None) };
    if !fixed || method.outputs.contains(&OutputKind::StateMutation(at as u32)) || !weight.data.dtype().is_float() {
        return Ok(None);
    }
    let identity = weight.data.identity();
    let same = |other: &TensorData| other.byte_len() == weight.data.byte_len() && other.identity() == identity;
    let mut ties: Vec<String> = weights.iter().filter(|w| w.name != weight.name && same(&w.data)).map(|w| w.name.to_string()).collect();
    ties.dedup();
    let data = match (used, weight.data.shape()) {
        (Use::Expert, &[stack, rows, columns]) => {
            weight.data.strided(weight.data.dtype(), vec![stack, columns, rows], vec![rows * columns, 1, columns], 0)?
        }
        _ => weight.data.clone(),
    };
    Ok(Some(Stored { name: weight.name.to_string(), ties, data }))
}

impl State {
    /// Which planned weight this use gets; `None` if none, because no rule wants it or it cannot be (noted then).
    fn choose(&mut self, rules: &Rules, cx: &Context<'_>, id: NodeId, used: Use, weight: &Stored) -> Option<usize> {
        let Stored { name, ties, data } = weight;
        let candidates = self.candidates.entry(used).or_default();
        if !candidates.contains(name) {
            candidates.push(name.clone());
        }
        let module = cx.graph().node(id).source.clone();
        let module = module.as_deref().map_or("", |s| &*s.module);
        let module = Some(module).filter(|m| !m.is_empty());
        let names: Vec<&str> = ties.iter().chain([name]).map(String::as_str).chain(module).collect();
        let format = rules.format(used, &names, &mut self.matched)?;
        let key = (data.identity(), format);
        if let Some(&index) = self.known.get(&key) {
            self.use_again(index, used, name);
            return Some(index);
        }
        let head = Alike::head(data, format);
        let equal = |&&i: &&usize| self.planned.get(i).is_some_and(|p| same::equal(&p.quantiser.data, data).unwrap_or(false));
        if let Some(&index) = self.alike.candidates(head).iter().find(equal) {
            self.known.insert(key, index);
            self.use_again(index, used, name);
            return Some(index);
        }
        let kernel = match kernel(data, used, format) {
            Ok(kernel) => kernel,
            Err(why) => {
                if self.refused.insert(key) {
                    let rule = regex::escape(name).replace('/', "\\/");
                    let refusal = format!(
                        "weight {name} {}{:?} cannot become {format}: {why}, or leave it as it is with `/{rule}/=none`",
                        data.dtype(),
                        data.shape()
                    );
                    // Methods that come from files of their own bring it once each.
                    if !self.refusals.contains(&refusal) {
                        self.refusals.push(refusal);
                    }
                }
                return None;
            }
        };
        let again = self.known.range((data.identity(), least())..).next().is_some_and(|((i, _), _)| *i == key.0);
        let quantiser = Arc::new(Quantiser::new(name.clone(), data.clone(), kernel, self.budget.clone()));
        self.planned.push(Planned {
            name: name.clone(),
            ties: ties.clone(),
            uses: vec![used],
            kept_for: Vec::new(),
            format,
            dtype: data.dtype(),
            shape: data.shape().to_vec(),
            bytes_before: if again { 0 } else { data.byte_len() },
            bytes_after: packed_bytes(data, format),
            quantiser,
        });
        self.alike.note(head, self.planned.len() - 1);
        self.known.insert(key, self.planned.len() - 1);
        Some(self.planned.len() - 1)
    }

    /// Notes one more use of a planned weight, perhaps under another name.
    fn use_again(&mut self, index: usize, used: Use, name: &str) {
        let Some(planned) = self.planned.get_mut(index) else { return };
        if !planned.uses.contains(&used) {
            planned.uses.push(used);
        }
        if planned.name != name && !planned.ties.iter().any(|t| t == name) {
            planned.ties.push(name.to_owned());
        }
    }

    /// Notes what still uses a weight as it was.
    fn note_kept(&mut self, cx: &Context<'_>, v: ValueId, indices: Vec<usize>) {
        let value = cx.graph().value(v);
        let users = value.users().iter().map(|&n| cx.graph().node(n).op.target().to_owned());
        let users: BTreeSet<String> = users.chain((value.output_uses() > 0).then(|| "the output".to_owned())).collect();
        let Some(planned) = indices.first().and_then(|&i| self.planned.get_mut(i)) else { return };
        if !users.is_empty() && planned.kept_for.is_empty() {
            planned.bytes_after += planned.shape.iter().product::<u64>() * planned.dtype.size() as u64;
        }
        for user in users {
            if !planned.kept_for.contains(&user) {
                planned.kept_for.push(user);
            }
        }
    }
}

/// The format that sorts before all.
fn least() -> Format {
    Format::Affine { bits: 0, group: Group::Of(0), method: Method::Hqq }
}

/// What the format means for this weight, or why it cannot be.
fn kernel(data: &TensorData, used: Use, format: Format) -> Result<Kernel, String> {
    let Some(element) = Element::of(data.dtype()) else {
        return Err("weights of f32, f16 and bf16 are quantised; convert it".to_owned());
    };
    let axes = if used == Use::Expert { 3 } else { 2 };
    let Some(&columns) = data.shape().last().filter(|_| data.shape().len() == axes) else {
        return Err(format!("it must have {axes} axes; reshape it"));
    };
    if data.numel() == 0 {
        return Err("it has no elements; remove it".to_owned());
    }
    let needed = match format {
        Format::Affine { group: Group::Of(n), .. } => n,
        Format::Affine { group: Group::Row, .. } | Format::Mxfp4 | Format::Mxfp8 => 32,
        Format::Nvfp4 => 16,
    };
    if !columns.is_multiple_of(needed.into()) {
        return Err(no_group(columns, needed));
    }
    Ok(match format {
        Format::Affine { bits, group, method } => {
            let group = match group {
                Group::Of(n) => usize::from(n),
                Group::Row => columns as usize,
            };
            let high = f32::from(1u8 << (bits - 1)) - 1.0;
            Kernel::Affine(Affine { group, low: -high - 1.0, high, method, element })
        }
        Format::Nvfp4 => Kernel::Float(Float { kind: Kind::Nvfp4, element }),
        Format::Mxfp4 => Kernel::Float(Float { kind: Kind::Mxfp4, element }),
        Format::Mxfp8 => Kernel::Float(Float { kind: Kind::Mxfp8, element }),
    })
}

fn no_group(columns: u64, group: u16) -> String {
    let fits = [128, 64, 32].into_iter().find(|&n| columns.is_multiple_of(n));
    let remedy = fits.map_or("pad it to a multiple of 32".to_owned(), |n| format!("take groups of {n}"));
    format!("groups of {group} do not divide its rows of {columns}; {remedy}")
}

/// Bytes in the file: codes, and for each group that MLX has a scale, and a bias where there are zero points.
fn packed_bytes(data: &TensorData, format: Format) -> u64 {
    let columns = data.shape().last().copied().unwrap_or(0);
    let n = data.numel();
    match format {
        Format::Affine { bits, group, method } => {
            let unit = match group {
                Group::Of(n) => u64::from(n),
                Group::Row => [128, 64, 32].into_iter().find(|u| columns.is_multiple_of(*u)).unwrap_or(32),
            };
            let tables = if method == Method::Asymmetric { 2 } else { 1 };
            n * u64::from(bits) / 8 + n / unit * data.dtype().size() as u64 * tables
        }
        Format::Nvfp4 => n / 2 + n / 16,
        Format::Mxfp4 => n / 2 + n / 32,
        Format::Mxfp8 => n + n / 32,
    }
}

/// New inputs of the method for the tensors of a quantised weight, named as torchao's modules export theirs.
fn inputs_of(cx: &mut Context<'_>, planned: &Planned) -> Result<Vec<ValueId>, Error> {
    let (module, leaf) = planned.name.rsplit_once('.').unwrap_or(("", &planned.name));
    let stem = if module.is_empty() { format!("parametrizations.{leaf}") } else { format!("{module}.parametrizations.{leaf}") };
    let tensors = weight::tensors(&planned.quantiser)?;
    Ok(tensors.into_iter().enumerate().map(|(i, t)| cx.add_parameter(&format!("{stem}.original{i}"), t)).collect())
}

/// The call that picks matrices of codes, for one that picks matrices.
fn gathered(old: Vec<Arg>, planned: &Planned, inputs: &[ValueId]) -> Vec<Arg> {
    let input = |i: usize| inputs.get(i).map_or(Arg::None, |&v| Arg::Value(v));
    let given = |name| GATHER.schema().position(name).and_then(|i| old.get(i)).cloned().unwrap_or(Arg::None);
    let kernel = &planned.quantiser.kernel;
    let (mode, bits, zeros) = match planned.format {
        Format::Affine { bits, .. } => ("affine", bits, input(2)),
        Format::Nvfp4 => ("nvfp4", 4, Arg::None),
        Format::Mxfp4 => ("mxfp4", 4, Arg::None),
        Format::Mxfp8 => ("mxfp8", 8, Arg::None),
    };
    let named = [
        ("biases", zeros),
        ("rhs_indices", given("rhs_indices")),
        ("lhs_indices", given("lhs_indices")),
        ("group_size", Arg::Int(kernel.group() as i64)),
        ("bits", Arg::Int(bits.into())),
        ("mode", Arg::Str(mode.into())),
        ("sorted_indices", given("sorted_indices")),
    ];
    args(GATHER_QUANTISED, [given("a"), input(0), input(1)], &named)
}

/// Writes the dequantisation in front of a call.
fn dequantised(cx: &mut Context<'_>, at: NodeId, planned: &Planned, inputs: &[ValueId]) -> Result<ValueId, Error> {
    let input = |i: usize| inputs.get(i).map_or(Arg::None, |&v| Arg::Value(v));
    let dtype = Arg::DType(planned.dtype);
    let (op, call) = match planned.quantiser.kernel {
        Kernel::Affine(Affine { group, low, high, .. }) => {
            let mut block = vec![1; planned.shape.len()];
            block.last_mut().into_iter().for_each(|n| *n = group as i64);
            let bound = |x: f32| Arg::Int(x as i64);
            let call = [input(0), ints(block), input(1), input(2), Arg::DType(DType::Int8), bound(low), bound(high), dtype];
            (AFFINE, args(AFFINE, call, &[]))
        }
        Kernel::Float(f) if f.kind == Kind::Nvfp4 => {
            (NVFP4, args(NVFP4, [input(0), input(1), input(2), Arg::Int(f.group() as i64), dtype], &[]))
        }
        Kernel::Float(f) => {
            let element = if f.kind == Kind::Mxfp4 { DType::UInt8 } else { DType::Float8E4M3 };
            (MX, args(MX, [input(0), input(1), Arg::DType(element), Arg::Int(f.group() as i64), dtype], &[]))
        }
    };
    let types = infer::infer(cx.graph(), cx.ranges(), op, &call)?;
    let graph = &mut cx.edit().graph;
    let source = graph.node(at).source.clone();
    let name = crate::rewrite::stem(op);
    let node = graph.insert(Some(at), op, call, name, types.into_iter().map(|t| (name, t)).collect(), source);
    graph.node(node).outputs.first().copied().ok_or_else(|| Error::new(ErrorKind::Bug, "a dequantisation without a result"))
}
