//! Programs: named methods over one store of weights.

use std::sync::Arc;

use crate::conditions::Guard;
use crate::graph::{Arg, Graph, ValueId};
use crate::sym::Ranges;
use crate::weights::TensorData;

/// A weight of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(pub(crate) u32);

impl WeightId {
    /// Position in [`Program::weights`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A named tensor that methods share.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Fully qualified name in the model, such as `model.layers.0.mlp.up_proj.weight`. Two programs loaded together may
    /// bring different weights of one name; ids tell them apart.
    pub name: Arc<str>,
    /// Its bytes, described.
    pub data: TensorData,
}

/// Which rules a graph keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// torch.export's training IR: in-place and composite operators, mutation implied by node order.
    Training,
    /// Functional: no operator mutates, mutations are outputs.
    Functional,
}

impl Dialect {
    /// Name in `.etir`.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Training => "training",
            Dialect::Functional => "functional",
        }
    }
}

/// What an input of a method is. `value` is `None` for literals that were given at export and are burnt in.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its value in the graph.
    pub value: Option<ValueId>,
    /// What it stands for.
    pub kind: InputKind,
}

/// See [`Input`].
#[derive(Clone, Debug)]
pub enum InputKind {
    /// Given by the caller at each run.
    User,
    /// Given by the caller, ignored: this value was fixed at export.
    Literal {
        /// Name of the Python argument.
        name: Arc<str>,
        /// What it was.
        value: Arg,
    },
    /// A parameter.
    Parameter(WeightId),
    /// A buffer; its data are the initial state if the method mutates it.
    Buffer {
        /// Initial value.
        weight: WeightId,
        /// Whether it is part of the model's state dict.
        persistent: bool,
    },
    /// A tensor that the model's code holds.
    Constant(WeightId),
    /// A token of ordered effects.
    Token,
    /// A custom object.
    Object {
        /// Name.
        name: Arc<str>,
        /// Class.
        class: Arc<str>,
    },
}

impl InputKind {
    /// The weight behind it, if there is one.
    pub fn weight(&self) -> Option<WeightId> {
        match self {
            InputKind::Parameter(w) | InputKind::Constant(w) | InputKind::Buffer { weight: w, .. } => Some(*w),
            _ => None,
        }
    }
}

/// What an output of a graph stands for; pairs with [`Graph::outputs`] by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Returned to the caller.
    User,
    /// New value of the buffer or parameter that is input number `.0` of the method.
    StateMutation(u32),
    /// New value of the user's tensor that is input number `.0` of the method.
    InputMutation(u32),
    /// A token of ordered effects.
    Token,
}

/// One entry point of a program.
#[derive(Clone, Debug)]
pub struct Method {
    /// Name, `forward` by custom.
    pub name: Arc<str>,
    /// Its calls.
    pub graph: Graph,
    /// Inputs in order; those with a value are the graph's inputs, in the same order.
    pub inputs: Vec<Input>,
    /// What each output of the graph stands for.
    pub outputs: Vec<OutputKind>,
    /// Bounds of its symbols.
    pub ranges: Ranges,
    /// What the exporter took for granted of sizes and numbers that are left open. A call for which one of these does not hold is
    /// not the program that was exported.
    pub guards: Vec<Guard>,
    /// Which rules the graph keeps.
    pub dialect: Dialect,
    /// Structure of the arguments as torch's pytree text (`pt2-format.md` §2.9); empty if unknown.
    pub in_spec: Arc<str>,
    /// Structure of the results, likewise.
    pub out_spec: Arc<str>,
}

impl Method {
    /// The method's input whose value is `v`, by position.
    pub fn input_of(&self, v: ValueId) -> Option<usize> {
        self.inputs.iter().position(|i| i.value == Some(v))
    }

    /// Values of user inputs, in order.
    pub fn user_inputs(&self) -> impl Iterator<Item = ValueId> {
        self.inputs.iter().filter(|i| matches!(i.kind, InputKind::User)).filter_map(|i| i.value)
    }
}

/// A program.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Methods in the order they were given.
    pub methods: Vec<Method>,
    weights: Vec<Weight>,
}

impl Program {
    /// A program without methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a weight to the store.
    pub fn add_weight(&mut self, name: &str, data: TensorData) -> WeightId {
        self.weights.push(Weight { name: name.into(), data });
        WeightId(self.weights.len() as u32 - 1)
    }

    /// The weight.
    ///
    /// # Panics
    /// When `id` is of another program.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.index()]
    }

    /// All weights, in order of their ids.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Replaces the bytes of a weight.
    pub fn set_weight_data(&mut self, id: WeightId, data: TensorData) {
        self.weights[id.index()].data = data;
    }

    /// The method of this name.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|m| &*m.name == name)
    }

    /// Adds all methods and weights of another program.
    pub fn merge(&mut self, other: Program) {
        let base = self.weights.len() as u32;
        self.weights.extend(other.weights);
        for mut m in other.methods {
            for i in &mut m.inputs {
                if let InputKind::Parameter(w) | InputKind::Constant(w) | InputKind::Buffer { weight: w, .. } = &mut i.kind {
                    w.0 += base;
                }
            }
            self.methods.push(m);
        }
    }
}
