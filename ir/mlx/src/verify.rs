//! What must hold of an MLX program.
//!
//! The verifier stands between every writer and the file, and between every file and the interpreter. It finds all that
//! is wrong, each finding with its chain and instruction. Invariants, by [`ProblemKind`]:
//!
//! - **Limit**: at most [`MAX_ITEMS`] tensors, values, chains, instructions in a chain, entries of a map and elements of
//!   a list; at most [`MAX_RANK`] axes; chains call each other at most [`MAX_CALL_DEPTH`] deep. (The first two are the
//!   loader's limits; the last is ours and lets an interpreter recurse.)
//! - **Range**: every tensor, value and chain that is referred to exists.
//! - **Chain**: there is a main chain; the init chain, if any, is another one; no chain runs itself, directly or through
//!   others.
//! - **Map**: the input map lists every input once, the output map every output once, the buffer map every mutable
//!   buffer once; scalars in the first two are integers (runtimes pass no others), and there are none in the third.
//! - **Name**: names are unique and every constant has one (it is the key of its bytes).
//! - **Meta**: every tensor but the temps is described; sizes fit `i32` and ranges are not empty; a dim order is a
//!   permutation of the axes; constants and mutable buffers are of static shape; mutable buffers are not empty and take
//!   at most 4 GiB.
//! - **DType**: dtypes are those the delegate knows ([`Program::accepts`]).
//! - **Operands**: lists that belong together have equal lengths, and the like (see `verify_instr.rs`).
//! - **Write**: inputs are never written; constants only by the init chain and the chains it runs. `SliceUpdate` and `IndexCopy` take
//!   no constant as `dst`, wherever they write.
//! - **Unwritten**: whatever an instruction reads was possibly written before: by an earlier instruction, by the caller,
//!   at load. "Possibly" means that one branch of an `If` suffices, but the other branch does not see it. The same for
//!   outputs when the main chain ends, and for what a `Scan` collects when its body ends.

use std::collections::BTreeMap;
use std::fmt;

use super::ids::{Access, SlotRef, Tid, Vid};
use super::program::{Program, ShapeDim, Slot, Space, TensorMeta};
use super::table::Instr;
use super::verify_instr;

/// Most elements of anything (the loader's limit).
pub const MAX_ITEMS: u64 = 1_000_000;

/// Most axes of a tensor (the loader's limit).
pub const MAX_RANK: usize = 16;

/// Deepest nesting of chains. The reference nests two deep; its loader has no limit.
pub const MAX_CALL_DEPTH: u32 = 64;

/// Largest mutable buffer in bytes (the loader's limit).
pub const MAX_BUFFER_BYTES: u128 = 4 << 30;

/// Findings beyond these are counted, not kept: a damaged file may have one for each of its bytes.
const MAX_PROBLEMS: usize = 1000;

/// The rule that is broken; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the module says what each rule is")]
pub enum ProblemKind {
    Limit,
    Range,
    Chain,
    Map,
    Name,
    Meta,
    DType,
    Operands,
    Write,
    Unwritten,
}

/// One broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The rule.
    pub kind: ProblemKind,
    /// The chain, if it lies in one.
    pub chain: Option<u32>,
    /// The instruction in that chain.
    pub instr: Option<u32>,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.chain, self.instr) {
            (Some(chain), Some(instr)) => write!(f, "chain {chain}, instruction {instr}: ")?,
            (Some(chain), None) => write!(f, "chain {chain}: ")?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

impl Program {
    /// Checks every invariant of the [`verify`](self) module.
    ///
    /// # Errors
    /// All that is wrong, in the order of the rules and then of the instructions.
    pub fn verify(&self) -> Result<(), Vec<Problem>> {
        let mut verifier = Verifier { program: self, problems: Vec::new(), unkept: 0 };
        verifier.all();
        let Verifier { mut problems, unkept, .. } = verifier;
        if unkept > 0 {
            let message = format!("{unkept} further problems are not listed");
            problems.push(Problem { kind: ProblemKind::Limit, chain: None, instr: None, message });
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

struct Verifier<'p> {
    program: &'p Program,
    problems: Vec<Problem>,
    unkept: u64,
}

impl Verifier<'_> {
    fn say(&mut self, kind: ProblemKind, place: Option<(u32, Option<u32>)>, message: String) {
        if self.problems.len() >= MAX_PROBLEMS {
            self.unkept += 1;
            return;
        }
        let (chain, instr) = (place.map(|p| p.0), place.and_then(|p| p.1));
        self.problems.push(Problem { kind, chain, instr, message });
    }

    fn all(&mut self) {
        self.limits();
        if !self.problems.is_empty() {
            // Everything below takes time and memory by these numbers.
            return;
        }
        self.maps();
        self.names();
        self.metas();
        self.instructions();
        if let Some(tree) = self.calls() {
            self.flow(tree);
        }
    }

    fn limits(&mut self) {
        let p = self.program;
        let counts = [
            ("tensors", p.num_tensors()),
            ("values", u64::from(p.num_values)),
            ("chains", p.chains.len() as u64),
            ("inputs", p.input_map.len() as u64),
            ("outputs", p.output_map.len() as u64),
            ("mutable buffers", p.mutable_buffer_map.len() as u64),
            ("named slots", p.named_slots.len() as u64),
            ("tensor descriptions", p.tensor_meta.len() as u64),
        ];
        for (what, count) in counts {
            if count > MAX_ITEMS {
                self.say(ProblemKind::Limit, None, format!("{count} {what}; at most {MAX_ITEMS} are allowed"));
            }
        }
        for (chain, instrs) in (0..).zip(&p.chains) {
            if instrs.len() as u64 > MAX_ITEMS {
                let message = format!("{} instructions; at most {MAX_ITEMS} are allowed", instrs.len());
                self.say(ProblemKind::Limit, Some((chain, None)), message);
            }
        }
    }

    /// Whether the slot exists.
    fn exists(&self, slot: SlotRef) -> bool {
        match slot {
            SlotRef::Tensor(t) => u64::from(t.0) < self.program.num_tensors(),
            SlotRef::Value(v) => v.0 < self.program.num_values,
        }
    }

    fn maps(&mut self) {
        let p = self.program;
        let maps = [
            ("input map", &p.input_map, Space::Input, true),
            ("output map", &p.output_map, Space::Output, true),
            ("mutable buffer map", &p.mutable_buffer_map, Space::MutableBuffer, false),
        ];
        for (what, map, space, scalars) in maps {
            let mut seen = vec![false; p.len_of(space) as usize];
            for (i, &slot) in map.iter().enumerate() {
                match slot {
                    Slot::Tensor(tensor) => match p.space_of(tensor) {
                        Some((s, index)) if s == space => match seen.get_mut(index as usize) {
                            Some(seen) if !*seen => *seen = true,
                            _ => {
                                let message = format!("{what}, entry {i}: {} is listed twice", p.slot_name(tensor));
                                self.say(ProblemKind::Map, None, message);
                            }
                        },
                        _ => {
                            let message = format!("{what}, entry {i}: {} is not of space {space}", p.slot_name(tensor));
                            self.say(ProblemKind::Map, None, message);
                        }
                    },
                    Slot::Int(value) if scalars => {
                        if !self.exists(value.into()) {
                            let message = format!("{what}, entry {i}: value {} does not exist; there are {}", value.0, p.num_values);
                            self.say(ProblemKind::Range, None, message);
                        }
                    }
                    Slot::Int(_) | Slot::Float(_) | Slot::Bool(_) => {
                        let message = format!("{what}, entry {i}: {slot:?} cannot be passed");
                        self.say(ProblemKind::Map, None, message);
                    }
                }
            }
            let absent = seen.iter().filter(|seen| !**seen).count();
            if let Some(first) = seen.iter().position(|seen| !*seen) {
                let message = format!("{what}: {absent} tensors of space {space} are not listed, the first is number {first}");
                self.say(ProblemKind::Map, None, message);
            }
        }
    }

    fn names(&mut self) {
        let p = self.program;
        let mut named = vec![false; p.num_constants as usize];
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, entry) in p.named_slots.iter().enumerate() {
            if let Some(first) = seen.insert(&entry.name, i) {
                let message = format!("named slots {first} and {i} have the same name {:?}", entry.name);
                self.say(ProblemKind::Name, None, message);
            }
            let slot = entry.slot.slot_ref();
            if !self.exists(slot) {
                let message = format!("named slot {i} ({:?}): {:?} does not exist", entry.name, entry.slot);
                self.say(ProblemKind::Range, None, message);
            }
            if let SlotRef::Tensor(tensor) = slot
                && let Some(named) = named.get_mut(tensor.0 as usize)
            {
                *named = true;
            }
        }
        let absent = named.iter().filter(|named| !**named).count();
        if let Some(first) = named.iter().position(|named| !*named) {
            let message = format!("{absent} constants have no name, the first is number {first}");
            self.say(ProblemKind::Name, None, message);
        }
    }

    fn metas(&mut self) {
        let p = self.program;
        if p.tensor_meta.len() as u64 != p.num_declared() {
            let message = format!(
                "{} tensor descriptions for {} constants, inputs, outputs and mutable buffers",
                p.tensor_meta.len(),
                p.num_declared()
            );
            self.say(ProblemKind::Meta, None, message);
        }
        for (tensor, meta) in (0..).map(Tid).zip(&p.tensor_meta) {
            if !Program::accepts(meta.dtype) {
                let message = format!("{}: dtype {} is not supported by MLX programs", p.slot_name(tensor), meta.dtype);
                self.say(ProblemKind::DType, None, message);
            }
            if meta.shape.len() > MAX_RANK {
                let message = format!("{}: {} axes; at most {MAX_RANK} are allowed", p.slot_name(tensor), meta.shape.len());
                self.say(ProblemKind::Limit, None, message);
                continue;
            }
            let space = p.space_of(tensor).map(|(space, _)| space);
            if let Some(message) = meta_problem(meta, space) {
                self.say(ProblemKind::Meta, None, format!("{}: {message}", p.slot_name(tensor)));
            }
        }
    }

    fn instructions(&mut self) {
        let p = self.program;
        for (chain, instrs) in (0..).zip(&p.chains) {
            for (at, instr) in (0..).zip(instrs) {
                let place = Some((chain, Some(at)));
                let mut missing = Vec::new();
                instr.visit_slots(|slot, _| {
                    if !self.exists(slot) {
                        missing.push(slot);
                    }
                });
                for slot in missing {
                    let (what, number, count) = match slot {
                        SlotRef::Tensor(Tid(t)) => ("tensor", t, p.num_tensors()),
                        SlotRef::Value(Vid(v)) => ("value", v, u64::from(p.num_values)),
                    };
                    let message = format!("{} refers to {what} {number}; there are {count}", instr.name());
                    self.say(ProblemKind::Range, place, message);
                }
                for callee in instr.calls().filter(|&callee| p.chain(callee).is_none()) {
                    let message = format!("{} runs chain {callee}; there are {}", instr.name(), p.chains.len());
                    self.say(ProblemKind::Range, place, message);
                }
                verify_instr::check(instr, |kind, message| self.say(kind, place, format!("{}: {message}", instr.name())));
            }
        }
    }

    /// Checks how chains run each other. If they do so without cycles: whether each is run from one place only.
    fn calls(&mut self) -> Option<bool> {
        let p = self.program;
        let mut fine = true;
        for (what, chain) in [("main", Some(p.main_chain)), ("init", p.init_chain)] {
            if let Some(chain) = chain
                && p.chain(i64::from(chain)).is_none()
            {
                let message = format!("the {what} chain is number {chain}; there are {}", p.chains.len());
                self.say(ProblemKind::Chain, None, message);
                fine = false;
            }
        }
        if p.init_chain == Some(p.main_chain) {
            self.say(ProblemKind::Chain, None, format!("chain {} is both the main and the init chain", p.main_chain));
            fine = false;
        }

        let callees: Vec<Vec<usize>> =
            p.chains.iter().map(|instrs| instrs.iter().flat_map(Instr::calls).filter_map(|callee| p.chain(callee)).collect()).collect();
        let mut callers = vec![0u32; callees.len()];
        for &callee in callees.iter().flatten() {
            if let Some(n) = callers.get_mut(callee) {
                *n = n.saturating_add(1);
            }
        }
        let tree = callers.iter().all(|&n| n <= 1);

        // Chains that nobody runs come first, then those whose callers have all come; a cycle never comes.
        let mut ready: Vec<usize> = (0..callees.len()).filter(|&c| callers.get(c) == Some(&0)).collect();
        let mut depth = vec![0u32; callees.len()];
        let mut come = 0;
        while let Some(chain) = ready.pop() {
            come += 1;
            let below = depth.get(chain).map_or(0, |d| d + 1);
            for &callee in callees.get(chain).into_iter().flatten() {
                if let (Some(n), Some(d)) = (callers.get_mut(callee), depth.get_mut(callee)) {
                    *d = below.max(*d);
                    *n -= 1;
                    if *n == 0 {
                        ready.push(callee);
                    }
                }
            }
        }
        if come < callees.len() {
            let stuck: Vec<usize> = (0..callees.len()).filter(|&c| callers.get(c) != Some(&0)).take(8).collect();
            self.say(ProblemKind::Chain, None, format!("chains run themselves; chains {stuck:?} are on or behind the cycle"));
            fine = false;
        }
        if let Some(&deepest) = depth.iter().max()
            && deepest > MAX_CALL_DEPTH
        {
            let message = format!("chains run each other {deepest} deep; at most {MAX_CALL_DEPTH} are allowed");
            self.say(ProblemKind::Limit, None, message);
            fine = false;
        }
        fine.then_some(tree)
    }

    /// Follows the init chain, then the main chain. `tree`: every chain is run from one place only.
    fn flow(&mut self, tree: bool) {
        let p = self.program;
        if let Some(init) = p.init_chain {
            let mut flow = Flow::new(p, self, tree, true);
            flow.chain(init);
        }
        let mut flow = Flow::new(p, self, tree, false);
        for slot in &p.input_map {
            flow.written.set(slot.slot_ref());
        }
        flow.chain(p.main_chain);
        let written = flow.written;
        for (i, slot) in p.output_map.iter().enumerate() {
            if written.get(slot.slot_ref()) == Some(false) {
                let message = format!("output map, entry {i}: no instruction writes {}", p.slot_name(slot.slot_ref()));
                self.say(ProblemKind::Unwritten, Some((p.main_chain, None)), message);
            }
        }
    }
}

fn meta_problem(meta: &TensorMeta, space: Option<Space>) -> Option<String> {
    const MAX_DIM: u32 = i32::MAX as u32;
    for (axis, &dim) in meta.shape.iter().enumerate() {
        let (min, max) = match dim {
            ShapeDim::Static(size) => (size, size),
            ShapeDim::Dynamic { min, max } => (min, max.unwrap_or(MAX_DIM)),
        };
        if min > max || max > MAX_DIM {
            return Some(format!("axis {axis}: no size from {min} to {max} fits i32"));
        }
    }
    if let Some(order) = &meta.dim_order {
        let mut seen = vec![false; meta.shape.len()];
        for &axis in order {
            match seen.get_mut(usize::from(axis)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Some(format!("dim order {order:?} is not a permutation")),
            }
        }
        if order.len() != seen.len() {
            return Some(format!("dim order {order:?} for {} axes", seen.len()));
        }
    }
    if !matches!(space, Some(Space::Constant | Space::MutableBuffer)) {
        return None;
    }
    let Some(sizes) = meta.shape.iter().map(|dim| dim.as_static()).collect::<Option<Vec<u32>>>() else {
        return Some("the shape of a constant or mutable buffer must be static".into());
    };
    if space == Some(Space::MutableBuffer) {
        let bytes = sizes.iter().fold(meta.dtype.size() as u128, |n, &size| n.saturating_mul(u128::from(size)));
        if bytes == 0 || bytes > MAX_BUFFER_BYTES {
            return Some(format!("a mutable buffer of {bytes} bytes; 1 to {MAX_BUFFER_BYTES} are allowed"));
        }
    }
    None
}

/// Which slots have possibly been written.
struct Written {
    tensors: Vec<bool>,
    values: Vec<bool>,
}

impl Written {
    fn get(&self, slot: SlotRef) -> Option<bool> {
        match slot {
            SlotRef::Tensor(t) => self.tensors.get(t.0 as usize).copied(),
            SlotRef::Value(v) => self.values.get(v.0 as usize).copied(),
        }
    }

    fn at(&mut self, slot: SlotRef) -> Option<&mut bool> {
        match slot {
            SlotRef::Tensor(t) => self.tensors.get_mut(t.0 as usize),
            SlotRef::Value(v) => self.values.get_mut(v.0 as usize),
        }
    }

    /// Whether that is news.
    fn set(&mut self, slot: SlotRef) -> bool {
        self.at(slot).is_some_and(|written| !std::mem::replace(written, true))
    }
}

/// One run of a chain and of those it runs.
struct Flow<'v, 'p> {
    program: &'p Program,
    verifier: &'v mut Verifier<'p>,
    written: Written,
    /// Slots in the order in which they were first written; lets a branch be undone.
    log: Vec<SlotRef>,
    /// Chains are followed once: being run again later, they could only find more written.
    followed: Vec<bool>,
    /// Every chain is run from one place only. Otherwise branches cannot be kept apart without following chains many
    /// times over (exponentially many, in a hostile file); then a branch is allowed to see what the other one wrote.
    tree: bool,
    init: bool,
}

impl<'v, 'p> Flow<'v, 'p> {
    fn new(program: &'p Program, verifier: &'v mut Verifier<'p>, tree: bool, init: bool) -> Self {
        let tensors = (0..program.num_tensors())
            .map(|t| u32::try_from(t).ok().and_then(|t| program.space_of(Tid(t))))
            .map(|place| matches!(place, Some((Space::Constant | Space::MutableBuffer, _))))
            .collect();
        let written = Written { tensors, values: vec![false; program.num_values as usize] };
        Flow { program, verifier, written, log: Vec::new(), followed: vec![false; program.chains.len()], tree, init }
    }

    fn chain(&mut self, chain: u32) {
        match self.followed.get_mut(chain as usize) {
            Some(followed) if !*followed => *followed = true,
            _ => return,
        }
        let Some(instrs) = self.program.chains.get(chain as usize) else { return };
        for (at, instr) in (0..).zip(instrs) {
            self.instr(instr, (chain, Some(at)));
        }
    }

    fn instr(&mut self, instr: &Instr, place: (u32, Option<u32>)) {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        instr.visit_slots(|slot, access| match access {
            Access::Read => reads.push(slot),
            Access::Write => writes.push(slot),
        });
        for slot in reads {
            self.read(slot, place, || format!("{} reads", instr.name()));
        }
        match instr {
            Instr::If { then_chain_idx, else_chain_idx, .. } => {
                let before = self.log.len();
                self.chain(*then_chain_idx);
                if self.tree {
                    let then = self.log.split_off(before);
                    for &slot in &then {
                        if let Some(written) = self.written.at(slot) {
                            *written = false;
                        }
                    }
                    self.chain(*else_chain_idx);
                    then.into_iter().for_each(|slot| self.write(slot));
                } else {
                    self.chain(*else_chain_idx);
                }
            }
            Instr::Scan { sliced, outputs, body_chain_idx, .. } => {
                sliced.iter().for_each(|&tensor| self.write(tensor.into()));
                if let Ok(body) = u32::try_from(*body_chain_idx) {
                    self.chain(body);
                }
                for &tensor in outputs {
                    self.read(tensor.into(), place, || "the body of Scan never writes".into());
                }
            }
            _ => {}
        }
        if let Instr::SliceUpdate { dst, .. } | Instr::IndexCopy { dst, .. } = instr
            && matches!(self.program.space_of(*dst), Some((Space::Constant, _)))
        {
            let message =
                format!("{} takes the constant {} as `dst`, which the delegate refuses", instr.name(), self.program.slot_name(*dst));
            self.verifier.say(ProblemKind::Write, Some(place), message);
        }
        for slot in writes {
            if let SlotRef::Tensor(tensor) = slot {
                let why = match self.program.space_of(tensor) {
                    Some((Space::Input, _)) => Some("inputs are never written"),
                    Some((Space::Constant, _)) if !self.init => Some("constants are written by the init chain only"),
                    _ => None,
                };
                if let Some(why) = why {
                    let message = format!("{} writes {}; {why}", instr.name(), self.program.slot_name(tensor));
                    self.verifier.say(ProblemKind::Write, Some(place), message);
                }
            }
            self.write(slot);
        }
    }

    fn write(&mut self, slot: SlotRef) {
        if self.written.set(slot) {
            self.log.push(slot);
        }
    }

    fn read(&mut self, slot: SlotRef, place: (u32, Option<u32>), what: impl FnOnce() -> String) {
        if self.written.get(slot) == Some(false) {
            let message = format!("{} {}, which nothing has written before", what(), self.program.slot_name(slot));
            self.verifier.say(ProblemKind::Unwritten, Some(place), message);
            // One finding a slot; what follows from it is not news.
            self.write(slot);
        }
    }
}
