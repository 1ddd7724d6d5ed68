//! The text form of a program: for people, and for comparing.
//!
//! Tensors are printed as `%` with the first letter of their space and the number there (`%c0` a constant, `%i` an
//! input, `%o` an output, `%m` a mutable buffer, `%t` a temp), values as `%v0`. What an instruction writes stands left of
//! the `=`; fields that are absent or at their default are left out. The text is a function of the program alone.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::field::{FieldValue, Presence, Scalar};
use super::ids::{Access, FloatOrVid, IntOrVid, IntOrVidOrTid, SlotRef, Tid, Vid, VidOrTid};
use super::program::{Program, ShapeDim, Slot, Space, TensorMeta};
use super::table::Instr;

impl Display for Space {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Constant => "constant",
            Space::Input => "input",
            Space::Output => "output",
            Space::MutableBuffer => "mutable buffer",
            Space::Temp => "temp",
        })
    }
}

impl Space {
    const fn letter(self) -> char {
        match self {
            Space::Constant => 'c',
            Space::Input => 'i',
            Space::Output => 'o',
            Space::MutableBuffer => 'm',
            Space::Temp => 't',
        }
    }
}

impl Display for ShapeDim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ShapeDim::Static(size) => write!(f, "{size}"),
            ShapeDim::Dynamic { min, max: Some(max) } => write!(f, "{min}..={max}"),
            ShapeDim::Dynamic { min, max: None } => write!(f, "{min}.."),
        }
    }
}

impl Display for TensorMeta {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        list(f, &self.shape, |f, dim| dim.fmt(f))?;
        f.write_str("]")?;
        match &self.dim_order {
            Some(order) if !order.iter().zip(0..).all(|(&axis, i)| axis == i) => write!(f, " dim_order {order:?}"),
            _ => Ok(()),
        }
    }
}

impl Program {
    /// How a slot is printed: `%c3`, `%v0`.
    pub fn slot_name(&self, slot: impl Into<SlotRef>) -> SlotName {
        let slot = slot.into();
        SlotName { slot, place: if let SlotRef::Tensor(tensor) = slot { self.space_of(tensor) } else { None } }
    }

    /// How an instruction of this program is printed.
    pub fn show<'a>(&'a self, instr: &'a Instr) -> impl Display + 'a {
        Shown { program: self, instr }
    }
}

/// A slot with the name it is printed by; see [`Program::slot_name`].
#[derive(Clone, Copy, Debug)]
pub struct SlotName {
    slot: SlotRef,
    place: Option<(Space, u32)>,
}

impl Display for SlotName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.slot, self.place) {
            (SlotRef::Value(Vid(v)), _) => write!(f, "%v{v}"),
            (SlotRef::Tensor(_), Some((space, index))) => write!(f, "%{}{index}", space.letter()),
            (SlotRef::Tensor(Tid(t)), None) => write!(f, "%?{t}"),
        }
    }
}

struct Shown<'a> {
    program: &'a Program,
    instr: &'a Instr,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut written = Vec::new();
        self.instr.visit_slots(|slot, access| {
            if access == Access::Write {
                written.push(slot);
            }
        });
        if !written.is_empty() {
            list(f, &written, |f, &slot| self.program.slot_name(slot).fmt(f))?;
            f.write_str(" = ")?;
        }
        write!(f, "{}(", self.instr.name())?;
        let mut first = true;
        for (spec, value) in self.instr.fields() {
            let Some(value) = value else { continue };
            // Scan writes two lists; only names tell them apart.
            if spec.access == Access::Write && !matches!(self.instr, Instr::Scan { .. }) {
                continue;
            }
            if let (FieldValue::Scalar(value), Presence::Default(default)) = (&value, spec.presence)
                && value.same(default)
            {
                continue;
            }
            if !std::mem::take(&mut first) {
                f.write_str(", ")?;
            }
            write!(f, "{}=", spec.name)?;
            self.value(f, &value)?;
        }
        f.write_str(")")
    }
}

impl Shown<'_> {
    fn value(&self, f: &mut Formatter<'_>, value: &FieldValue<'_>) -> fmt::Result {
        match value {
            FieldValue::Scalar(Scalar::I32(x)) => write!(f, "{x}"),
            FieldValue::Scalar(Scalar::U32(x)) => write!(f, "{x}"),
            FieldValue::Scalar(Scalar::U64(x)) => write!(f, "{x}"),
            FieldValue::Scalar(Scalar::F32(x)) => write!(f, "{x:?}"),
            FieldValue::Scalar(Scalar::Bool(x)) => write!(f, "{x}"),
            FieldValue::Scalar(Scalar::DType(x)) => write!(f, "{x}"),
            FieldValue::Str(x) => write!(f, "{x:?}"),
            FieldValue::Tid(x) => self.slot(f, *x),
            FieldValue::Vid(x) => self.slot(f, *x),
            FieldValue::IntOrVid(x) => self.int_or_vid(f, x),
            FieldValue::FloatOrVid(FloatOrVid::Float(x)) => write!(f, "{x:?}"),
            FieldValue::FloatOrVid(FloatOrVid::Vid(x)) => self.slot(f, *x),
            FieldValue::VidOrTid(VidOrTid::Vid(x)) => self.slot(f, *x),
            FieldValue::VidOrTid(VidOrTid::Tid(x)) => self.slot(f, *x),
            FieldValue::IntOrVidOrTid(IntOrVidOrTid::Int(x)) => write!(f, "{x}"),
            FieldValue::IntOrVidOrTid(IntOrVidOrTid::Vid(x)) => self.slot(f, *x),
            FieldValue::IntOrVidOrTid(IntOrVidOrTid::Tid(x)) => self.slot(f, *x),
            FieldValue::Tids(x) => self.list(f, x, |f, &x| self.slot(f, x)),
            FieldValue::IntOrVids(x) => self.list(f, x, |f, x| self.int_or_vid(f, x)),
            FieldValue::I32s(x) => self.list(f, x, |f, x| write!(f, "{x}")),
            FieldValue::I8s(x) => self.list(f, x, |f, x| write!(f, "{x}")),
            FieldValue::DTypes(x) => self.list(f, x, |f, x| write!(f, "{x}")),
            FieldValue::Strs(x) => self.list(f, x, |f, x| write!(f, "{x:?}")),
        }
    }

    fn slot(&self, f: &mut Formatter<'_>, slot: impl Into<SlotRef>) -> fmt::Result {
        self.program.slot_name(slot).fmt(f)
    }

    fn int_or_vid(&self, f: &mut Formatter<'_>, x: &IntOrVid) -> fmt::Result {
        match x {
            IntOrVid::Int(x) => write!(f, "{x}"),
            IntOrVid::Vid(x) => self.slot(f, *x),
        }
    }

    fn list<T>(&self, f: &mut Formatter<'_>, items: &[T], item: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result) -> fmt::Result {
        f.write_str("[")?;
        list(f, items, item)?;
        f.write_str("]")
    }
}

fn list<T>(f: &mut Formatter<'_>, items: &[T], item: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result) -> fmt::Result {
    for (i, x) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        item(f, x)?;
    }
    Ok(())
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut names: BTreeMap<SlotRef, Vec<&str>> = BTreeMap::new();
        for named in &self.named_slots {
            names.entry(named.slot.slot_ref()).or_default().push(&named.name);
        }
        writeln!(f, "mlx program: {} temps, {} values", self.num_temps, self.num_values)?;
        for (tensor, meta) in (0..).map(Tid).zip(&self.tensor_meta) {
            write!(f, "  {}: {meta}", self.slot_name(tensor))?;
            names.remove(&SlotRef::Tensor(tensor)).into_iter().flatten().try_for_each(|name| write!(f, " {name:?}"))?;
            writeln!(f)?;
        }
        for (slot, names) in names {
            write!(f, "  {}:", self.slot_name(slot))?;
            names.into_iter().try_for_each(|name| write!(f, " {name:?}"))?;
            writeln!(f)?;
        }
        for (what, map) in [("inputs", &self.input_map), ("outputs", &self.output_map), ("buffers", &self.mutable_buffer_map)] {
            write!(f, "{what} (")?;
            list(f, map, |f, slot| {
                self.slot_name(slot.slot_ref()).fmt(f)?;
                f.write_str(match slot {
                    Slot::Tensor(_) => "",
                    Slot::Int(_) => ": int",
                    Slot::Float(_) => ": float",
                    Slot::Bool(_) => ": bool",
                })
            })?;
            writeln!(f, ")")?;
        }
        for (chain, instrs) in (0..).zip(&self.chains) {
            let role = match chain {
                _ if chain == self.main_chain => " (main)",
                _ if Some(chain) == self.init_chain => " (init)",
                _ => "",
            };
            writeln!(f, "chain {chain}{role}:")?;
            instrs.iter().try_for_each(|instr| writeln!(f, "  {}", self.show(instr)))?;
        }
        Ok(())
    }
}
