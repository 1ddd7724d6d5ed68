//! No instruction can make the machine panic, whatever its fields and operands are.
//!
//! Every instruction of the table is made with random fields and run on random tensors, many times. What comes out does
//! not matter; that something comes out does.

use std::borrow::Cow;

use etx_ir::DType;
use etx_mlx::{
    FieldError, FieldKind, FieldSpec, FieldValue, FloatOrVid, INSTRUCTIONS, Instr, IntOrVid, IntOrVidOrTid, NamedSlot, Presence, Program,
    Scalar, ShapeDim, Slot, TensorMeta, Tid, Vid, VidOrTid,
};

use super::Machine;
use crate::cpu::Cpu;
use crate::engine::Engine;
use crate::tensor::Tensor;

/// Small numbers from a seed (xorshift); reproducible everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

const TENSORS: usize = 6;
const VALUES: usize = 3;

/// Mostly small, sometimes absurd.
fn int(dice: &mut Dice) -> i64 {
    dice.pick(&[-3, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 4, 5, 8, 16, 32, 64, i64::MAX, i64::MIN, i32::MIN as i64])
}

fn any_tensor(dice: &mut Dice) -> Tensor {
    let dtypes = [
        DType::Bool,
        DType::UInt8,
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::UInt32,
        DType::Float16,
        DType::BFloat16,
        DType::Float32,
        DType::Float32,
        DType::Float32,
    ];
    let rank = dice.pick(&[0, 1, 1, 2, 2, 3, 4, 4]);
    let mut shape: Vec<usize> = (0..rank).map(|_| dice.pick(&[0, 1, 1, 1, 2, 2, 2, 3, 4])).collect();
    if let Some(last) = shape.last_mut() {
        // Quantisation groups, heads and filters want more than the others.
        *last = dice.pick(&[*last, *last, 8, 16, 32, 64]);
    }
    let numel: usize = shape.iter().product();
    let dtype = dice.pick(&dtypes);
    let bytes: Vec<u8> = (0..numel * dtype.size()).map(|_| dice.pick(&[0, 1, 2, 3, 60, 0x7f, 0x80, 0xff])).collect();
    let mut tensor = Tensor::from_bytes(dtype, &shape, &bytes).unwrap();
    if dice.roll(3) == 0 && rank > 0 {
        let perm: Vec<i64> = (0..rank as i64).rev().collect();
        tensor = tensor.transpose(&perm).unwrap();
    }
    if dice.roll(4) == 0 && rank > 0 && tensor.shape()[0] > 0 {
        let len = tensor.shape()[0];
        tensor = tensor.slice_axis(0, len - 1, -1, len).unwrap();
    }
    tensor
}

fn list<T: Clone>(dice: &mut Dice, item: impl Fn(&mut Dice) -> T) -> Vec<T> {
    let n = dice.pick(&[0, 1, 1, 2, 2, 3, 4]);
    (0..n).map(|_| item(dice)).collect()
}

fn value(dice: &mut Dice, spec: &FieldSpec) -> Option<FieldValue<'static>> {
    if spec.presence == Presence::Optional && dice.roll(2) == 0 {
        return None;
    }
    let tid = |dice: &mut Dice| Tid(dice.roll(TENSORS) as u32);
    let vid = |dice: &mut Dice| Vid(dice.roll(VALUES) as u32);
    let small = |dice: &mut Dice| int(dice).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    let dtype = |dice: &mut Dice| {
        dice.pick(&[DType::Bool, DType::Int8, DType::Int32, DType::Int64, DType::Float16, DType::BFloat16, DType::Float32])
    };
    let int_or_vid = |dice: &mut Dice| if dice.roll(3) == 0 { IntOrVid::Vid(vid(dice)) } else { IntOrVid::Int(int(dice)) };
    Some(match spec.kind {
        FieldKind::I32 => FieldValue::Scalar(Scalar::I32(small(dice))),
        FieldKind::U32 => FieldValue::Scalar(Scalar::U32(1)),
        FieldKind::U64 => FieldValue::Scalar(Scalar::U64(int(dice).unsigned_abs())),
        FieldKind::F32 => FieldValue::Scalar(Scalar::F32(dice.pick(&[0.0, 1.0, -1.5, 1e-5, f32::NAN, f32::INFINITY, 1e30]))),
        FieldKind::Bool => FieldValue::Scalar(Scalar::Bool(dice.roll(2) == 0)),
        FieldKind::DType => FieldValue::Scalar(Scalar::DType(dtype(dice))),
        FieldKind::Str => FieldValue::Str(Cow::Borrowed(dice.pick(&["constant", "edge", "affine", "nvfp4", "mxfp8", "mxfp4", "tanh", ""]))),
        FieldKind::Tid => FieldValue::Tid(tid(dice)),
        FieldKind::Vid => FieldValue::Vid(vid(dice)),
        FieldKind::IntOrVid => FieldValue::IntOrVid(int_or_vid(dice)),
        FieldKind::FloatOrVid => FieldValue::FloatOrVid(FloatOrVid::Float(dice.pick(&[0.0, 1.5, f64::NAN, 1e300]))),
        FieldKind::VidOrTid => FieldValue::VidOrTid(if dice.roll(2) == 0 { VidOrTid::Vid(vid(dice)) } else { VidOrTid::Tid(tid(dice)) }),
        FieldKind::IntOrVidOrTid => FieldValue::IntOrVidOrTid(match dice.roll(3) {
            0 => IntOrVidOrTid::Int(int(dice)),
            1 => IntOrVidOrTid::Vid(vid(dice)),
            _ => IntOrVidOrTid::Tid(tid(dice)),
        }),
        FieldKind::Tids => FieldValue::Tids(list(dice, tid).into()),
        FieldKind::IntOrVids => FieldValue::IntOrVids(list(dice, int_or_vid).into()),
        FieldKind::I32s => FieldValue::I32s(list(dice, small).into()),
        FieldKind::I8s => FieldValue::I8s(list(dice, |dice| dice.pick(&[0, 1, 2])).into()),
        FieldKind::DTypes => FieldValue::DTypes(list(dice, dtype).into()),
        FieldKind::Strs => FieldValue::Strs(list(dice, |_| "T".to_owned()).into()),
    })
}

/// A machine with two empty chains, on which single instructions are run. The verifier would refuse most of these
/// programs, so it is not asked.
fn machine() -> Machine<Cpu> {
    let meta = TensorMeta { dtype: DType::Float32, shape: vec![ShapeDim::Static(1)], dim_order: None };
    let program = Program {
        num_inputs: 1,
        num_temps: TENSORS as u32 - 1,
        num_values: VALUES as u32,
        chains: vec![vec![], vec![]],
        input_map: vec![Slot::Tensor(Tid(0))],
        named_slots: vec![NamedSlot { name: "x".into(), slot: Slot::Tensor(Tid(0)) }],
        tensor_meta: vec![meta],
        ..Program::default()
    };
    Machine::new(Cpu, program, |_, _| Tensor::scalar(0f32)).unwrap()
}

#[test]
fn no_instruction_can_panic() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut machine = machine();
    let mut worked = vec![0u32; INSTRUCTIONS.len()];
    for (spec, worked) in INSTRUCTIONS.iter().zip(&mut worked) {
        // Threads and seeds make the process-wide sequence; everything else repeats exactly.
        for _ in 0..400 {
            let instr = Instr::from_fields::<FieldError>(spec.id, |field| Ok(value(&mut dice, field))).unwrap();
            for slot in &mut machine.tensors {
                let tensor = any_tensor(&mut dice);
                *slot = (dice.roll(20) > 0).then(|| Cpu.upload(&tensor).unwrap());
            }
            for slot in &mut machine.values {
                *slot = Some(match dice.roll(6) {
                    0 => super::Scalar::Float(0.5),
                    1 => super::Scalar::Bool(true),
                    _ => super::Scalar::Int(int(&mut dice) as i32),
                });
            }
            machine.caches.clear();
            if machine.execute(&instr).is_ok() {
                *worked += 1;
            }
        }
    }
    // The test would be idle if hardly anything ran.
    let idle: Vec<&str> = INSTRUCTIONS.iter().zip(&worked).filter(|(_, n)| **n == 0).map(|(s, _)| s.name).collect();
    assert!(idle.len() * 4 < INSTRUCTIONS.len(), "never succeeded: {idle:?}");
}
