//! Rules of single instructions: list lengths and the few attributes that have a fixed set of values.
//!
//! Only what any interpreter would have to refuse whatever the tensors are. Axes, sizes and dtypes of operands are
//! known when the program runs, and are checked there.

use super::field::{FieldValue, Scalar};
use super::program::Program;
use super::table::Instr;
use super::verify::{MAX_ITEMS, ProblemKind};

/// Tells `say` all that is wrong with `instr` by itself.
pub(super) fn check(instr: &Instr, mut say: impl FnMut(ProblemKind, String)) {
    for (spec, value) in instr.fields() {
        let Some(value) = value else { continue };
        let dtypes = match &value {
            FieldValue::Scalar(Scalar::DType(dtype)) => std::slice::from_ref(dtype),
            FieldValue::DTypes(dtypes) => dtypes,
            _ => &[],
        };
        if let Some(dtype) = dtypes.iter().find(|&&dtype| !Program::accepts(dtype)) {
            say(ProblemKind::DType, format!("`{}`: dtype {dtype} is not supported by MLX programs", spec.name));
        }
        let len = value.len() as u64;
        if len > MAX_ITEMS {
            say(ProblemKind::Limit, format!("`{}` has {len} elements; at most {MAX_ITEMS} are allowed", spec.name));
        }
    }
    operands(instr, &mut |message| say(ProblemKind::Operands, message));
}

fn operands(instr: &Instr, say: &mut dyn FnMut(String)) {
    match instr {
        Instr::Split { outs, sizes, .. } => {
            if outs.is_empty() || sizes.is_empty() {
                say("`outs` and `sizes` must not be empty".into());
            } else if sizes.len() > 1 {
                same(say, "outs", outs.len(), "sizes", sizes.len());
            }
        }
        Instr::Pad { pad_width, mode, .. } => {
            if pad_width.len() % 2 != 0 {
                say(format!("`pad_width` has {} elements; it is a list of pairs", pad_width.len()));
            }
            if !matches!(mode.as_str(), "constant" | "edge") {
                say(format!("`mode` is {mode:?}; \"constant\" and \"edge\" are known"));
            }
        }
        Instr::AsStrided { shape, strides, .. } => same(say, "shape", shape.len(), "strides", strides.len()),
        Instr::Gather { indices, axes, .. } => same(say, "indices", indices.len(), "axes", axes.len()),
        Instr::Roll { shift, axes, .. } => same(say, "shift", shift.len(), "axes", axes.len()),
        Instr::Concatenate { tensors, .. } | Instr::Stack { tensors, .. } if tensors.is_empty() => {
            say("`tensors` must not be empty".into());
        }
        Instr::Slice { step: 0, .. } => say("`step` must not be 0".into()),
        Instr::SliceUpdate { step, .. } if *step < 1 => say(format!("`step` is {step}; it must be at least 1")),
        Instr::RandomBits { width, .. } if !matches!(width, 1 | 2 | 4) => {
            say(format!("`width` is {width}; 1, 2 and 4 bytes are known"));
        }
        Instr::Scan { originals, sliced, scan_axis, .. } => {
            same(say, "originals", originals.len(), "sliced", sliced.len());
            if originals.is_empty() {
                say("`originals` must not be empty: the first one says how many steps there are".into());
            }
            if *scan_axis < 0 {
                say(format!("`scan_axis` is {scan_axis}; it must not be negative"));
            }
        }
        Instr::MetalKernel {
            inputs,
            outputs,
            grid,
            threadgroup,
            input_names,
            output_names,
            output_shapes_flat,
            output_shape_lengths,
            output_dtypes,
            template_arg_names,
            template_arg_kinds,
            template_arg_values,
            ..
        } => {
            same(say, "grid", grid.len(), "x, y, z", 3);
            same(say, "threadgroup", threadgroup.len(), "x, y, z", 3);
            if let Some(names) = input_names {
                same(say, "inputs", inputs.len(), "input_names", names.len());
            }
            let of_outputs = [
                ("output_names", output_names.as_ref().map(Vec::len)),
                ("output_shape_lengths", output_shape_lengths.as_ref().map(Vec::len)),
                ("output_dtypes", output_dtypes.as_ref().map(Vec::len)),
            ];
            for (name, len) in of_outputs {
                if let Some(len) = len {
                    same(say, "outputs", outputs.len(), name, len);
                }
            }
            let flat = output_shapes_flat.as_ref().map_or(0, Vec::len);
            let ranks = output_shape_lengths.as_deref().unwrap_or_default();
            let sum = ranks.iter().map(|&rank| i64::from(rank)).sum::<i64>();
            if ranks.iter().any(|&rank| rank < 0) || usize::try_from(sum) != Ok(flat) {
                say(format!("`output_shapes_flat` has {flat} sizes for ranks {ranks:?}"));
            }
            let args = template_arg_names.as_ref().map_or(0, Vec::len);
            same(say, "template_arg_names", args, "template_arg_kinds", template_arg_kinds.as_ref().map_or(0, Vec::len));
            same(say, "template_arg_names", args, "template_arg_values", template_arg_values.as_ref().map_or(0, Vec::len));
        }
        _ => {}
    }
}

fn same(say: &mut dyn FnMut(String), a: &str, a_len: usize, b: &str, b_len: usize) {
    if a_len != b_len {
        say(format!("`{a}` has {a_len} elements for {b_len} of `{b}`"));
    }
}
