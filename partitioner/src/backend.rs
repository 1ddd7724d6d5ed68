//! What a backend is asked, and what it answers.

use std::fmt;

use etx_ir::error::Error;
use etx_ir::graph::{NodeId, ValueId};
use etx_ir::program::{Method, Program};
use etx_ir::weights::TensorData;

/// Why a node is not taken, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What stands in the way: names the argument, type or shape.
    pub reason: String,
    /// What a person can do about it; empty where nothing is known.
    pub remedy: String,
    /// Whether it is the operator that stands in the way, whatever its arguments: why its formula does not apply, if it has
    /// one, then says more than this.
    pub of_operator: bool,
}

impl Refusal {
    /// A refusal without a remedy.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: String::new(), of_operator: false }
    }

    /// Says first what it is about.
    #[must_use]
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.reason = format!("{what}: {}", self.reason);
        self
    }

    /// Adds what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Says that no arguments would make a difference.
    #[must_use]
    pub fn of_operator(mut self) -> Self {
        self.of_operator = true;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, " ({})", self.remedy) }
    }
}

/// What a backend says of one node.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It would run the node, reading these values. They need not be the node's operands: a lowering may look through
    /// an operand at what made it (a quantised linear reads packed weights, not the dequantised ones).
    Yes(Vec<ValueId>),
    /// It would not.
    No(Refusal),
}

/// What a backend made of a partition.
#[derive(Clone, Debug)]
pub struct Delegate {
    /// Name under which the runtime finds the backend.
    pub backend: &'static str,
    /// The program.
    pub payload: Payload,
    /// Values that the caller passes in, in the order the payload takes them.
    pub inputs: Vec<ValueId>,
    /// Values that the caller gets back, in the order the payload gives them.
    pub outputs: Vec<ValueId>,
    /// Constants by the key the payload knows them under.
    pub named_data: Vec<(String, TensorData)>,
    /// Constants that stand for several weights, or for one that is used in several ways.
    pub ties: Vec<Tie>,
    /// Nodes that draw random numbers, others at every call, in order: what the payload does, not what the operator may do.
    pub draws: Vec<NodeId>,
}

/// A constant that several things share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// Its key.
    pub key: String,
    /// Names of the weights it stands for, in alphabetical order.
    pub weights: Vec<String>,
    /// How many constants there would be without.
    pub uses: u64,
}

/// The program of a delegate.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A program for MLX; the writer encodes it.
    Mlx(etx_mlx::Program),
    /// Bytes of another backend.
    Bytes(Vec<u8>),
}

/// Nodes that go to a backend together.
#[derive(Clone, Debug)]
pub struct Partition<'a> {
    /// Number of the partition in its program, over all methods: makes names unique.
    pub number: u32,
    /// Nodes to run, in order.
    pub nodes: &'a [NodeId],
    /// Values that are needed outside, or are results of the method, in order.
    pub outputs: &'a [ValueId],
}

/// A target that runs parts of programs.
pub trait Backend {
    /// Name under which the runtime finds it.
    fn id(&self) -> &'static str;

    /// A verdict for every node of the method, by node index (`None` where there is no node).
    ///
    /// Reads metadata only, never the bytes of a weight.
    fn verdicts(&self, program: &Program, method: &Method) -> Vec<Option<Verdict>>;

    /// Makes the delegate for some of the nodes it said yes to.
    ///
    /// # Errors
    /// When a weight cannot be read. A node that had a yes and is refused here is a bug of the backend.
    fn compile(&self, program: &Program, method: &Method, partition: &Partition<'_>) -> Result<Delegate, Error>;
}
