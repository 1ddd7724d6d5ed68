//! The MLX backend.
//!
//! A lowering is a function from a call to instructions, found by the call's operator in one table ([`operators`]).
//! Asking for a verdict runs the lowering and keeps only whether it went through and what it read; so a verdict and the
//! lowering that follows cannot disagree. Everything a lowering looks at is metadata: weights are descriptions, repacked
//! ones are descriptions of repacking.
//!
//! A lowering may look through an operand at what computes it. Whatever then nobody reads is not emitted.

mod call;
mod consts;
mod cx;
mod derive;
mod dtype;
mod host;
mod layout;
mod ops;
mod slots;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Source, ValueId};
use etx_ir::program::{Method, Program};
use etx_mlx::{BACKEND, Instr};

use crate::backend::{Backend, Delegate, Partition, Refusal, Verdict};
use call::Call;
use cx::{Cx, Origin};
pub use ops::{Operator, operators, refusal};

/// Sizes without an upper bound are taken to be at most this, unless [`Mlx::max_size`] says more or less.
pub const DEFAULT_MAX_SIZE: u32 = 4096;

/// The MLX backend; see the module page.
#[derive(Clone, Debug)]
pub struct Mlx {
    max_size: u32,
}

impl Default for Mlx {
    fn default() -> Self {
        Mlx { max_size: DEFAULT_MAX_SIZE }
    }
}

impl Mlx {
    /// The backend with its default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// For at most this many elements along dimensions of inputs that have no upper bound.
    #[must_use]
    pub fn max_size(self, elements: u32) -> Self {
        Mlx { max_size: elements }
    }
}

impl Backend for Mlx {
    fn id(&self) -> &'static str {
        BACKEND
    }

    fn verdicts(&self, program: &Program, method: &Method) -> Vec<Option<Verdict>> {
        let graph = &method.graph;
        let mut verdicts = vec![None; graph.node_bound()];
        let mut cx = Cx::new(program, method, &[]);
        cx.max_size = self.max_size.into();
        for (id, _) in graph.nodes() {
            let mark = cx.begin(id);
            verdicts[id.index()] = Some(match ops::lower(&mut cx, Call::new(graph, id)) {
                Ok(()) => Verdict::Yes(cx.take_reads()),
                Err(refusal) => {
                    cx.rollback(&mark, id);
                    Verdict::No(refusal)
                }
            });
        }
        verdicts
    }

    fn compile(&self, program: &Program, method: &Method, partition: &Partition<'_>) -> Result<Delegate, Error> {
        let graph = &method.graph;
        let mut cx = Cx::new(program, method, partition.outputs);
        cx.reads_weights = true;
        cx.max_size = self.max_size.into();
        for &id in partition.nodes {
            cx.begin(id);
            ops::lower(&mut cx, Call::new(graph, id))
                .map_err(|e| bug(graph.node(id).name.as_ref(), graph.node(id).source.as_deref(), &e))?;
        }
        cx.check_scales()?;
        cx.settle_biases()?;
        start_state(&mut cx)?;
        slots::finish(cx, partition.number, partition.outputs).map_err(|e| bug("outputs", None, &e))
    }
}

fn bug(node: &str, source: Option<&Source>, refusal: &Refusal) -> Error {
    let at = source.map_or_else(String::new, |s| format!(" ({s})"));
    Error::new(ErrorKind::Bug, format!("node {node}{at} was accepted but not lowered: {refusal}")).into_bug()
}

/// Buffers start as zeros; the init chain gives those their contents that start as something else.
fn start_state(cx: &mut Cx<'_>) -> Result<(), Error> {
    let buffers: Vec<(etx_mlx::Tid, ValueId)> = (0u32..)
        .zip(&cx.slots)
        .filter_map(|(t, s)| if let Origin::Buffer(v) = s.origin { Some((etx_mlx::Tid(t), v)) } else { None })
        .collect();
    for (t, v) in buffers {
        let Some(weight) = cx.method.input_of(v).and_then(|i| cx.method.inputs[i].kind.weight()) else { continue };
        let weight = cx.program.weight(weight);
        if is_zero(&weight.data)? {
            continue;
        }
        let name = format!("{}.initial", weight.name);
        let x = cx.constant(&name, weight.data.clone()).map_err(|e| bug(&name, None, &e))?;
        cx.init.push(Instr::IdCopy { x, out: t });
    }
    Ok(())
}

/// Whether all bytes are zero. Mapped bytes are looked at in place.
fn is_zero(data: &etx_ir::weights::TensorData) -> Result<bool, Error> {
    let zero = |bytes: &[u8]| {
        let words = bytes.chunks_exact(64);
        words.remainder().iter().all(|&b| b == 0) && words.into_iter().all(|w| w.iter().fold(0, |a, b| a | b) == 0)
    };
    Ok(match data.bytes() {
        Some(bytes) => zero(bytes),
        None => zero(&data.to_vec()?),
    })
}

#[cfg(test)]
mod tests;
