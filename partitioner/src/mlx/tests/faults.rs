//! Programs of which the reference makes something wrong, or that fail when they run: what etx makes of them, or says.

use etx_ir::DType;
use etx_mlx::{Instr, VidOrTid};

use super::{lowered, main_names, refused};

#[test]
fn what_may_be_nothing_is_not_filled_counted_or_repeated() {
    let names = |least: u32, made: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               symbol s0 [{least}..8]
               input %x : f32[s0, 3] = user
               %n : int(s0) = aten.sym_size.int(%x, 0)
               {made}
               return %y
             }}"
        ));
        main_names(&p)
    };
    let full = "%y : f32[s0, 2] = aten.full.default([%n, 2], 0.5, dtype=f32)";
    assert_eq!(names(1, full), ["SymSize", "Full"]);
    assert_eq!(names(0, full), ["SymSize", "BroadcastTo"]);
    let of_a_size = "%y : i64[s0] = aten.full.default([%n], %n, dtype=i64)";
    assert_eq!(names(0, of_a_size), ["SymSize", "Full", "BroadcastTo"]);
    let range = "%y : i64[s0] = aten.arange.start_step(2, s0 + 2, dtype=i64)".replace("s0 + 2", "%m");
    let range = format!("%m : int(s0 + 2) = _operator.add(%n, 2)\n{range}");
    assert_eq!(names(1, &range), ["SymSize", "AddInt", "ARange"]);
    assert_eq!(names(0, &range), ["SymSize", "AddInt", "ARange", "Slice"]);
    let repeated = "%y : f32[2*s0, 3] = aten.repeat_interleave.self_int(%x, 2, 0)";
    assert_eq!(names(1, repeated), ["Repeat"]);
    assert_eq!(names(0, repeated), ["ExpandDims", "BroadcastTo", "Reshape"]);
    let random = "%r : f32[s0] = aten.rand.default([%n], dtype=f32)\n%y : f32[s0] = aten.neg.default(%r)";
    assert_eq!(names(1, random)[..3], ["SymSize", "RandomBits", "Remainder"]);
    assert_eq!(names(0, random)[..4], ["SymSize", "AddInt", "RandomBits", "Slice"]);
}

/// Programs of one refused call, and what must be in the reason: where the reference aborts, is silently wrong, or fails when run.
const REFUSED: &[(&str, &str)] = &[
    ("input %m : bool[2] = user\n%y : f32[u0, 3] = aten.index.Tensor(%x, [%m])", "is a mask"),
    ("%y : i64[u0, 2] = aten.nonzero.default(%x)", "depends on values"),
    ("input %s : bool[] = user\n%y : bool(Eq(u0, 1)) = aten.item.default(%s)", "can be taken out of a tensor"),
    ("%n : int(s0) = aten.sym_size.int(%z, 0)\n%y : f32[2, 3] = aten.tril.default(%x, %n)", "must be known at export"),
    ("%y : f32[3] = aten.std.correction(%z, [0], correction=2)", "as few elements"),
    ("%y : i32[2, 3] = aten.view.dtype(%x, i32)", "bits"),
    ("%y : f64[2, 3] = aten._to_copy.default(%x, dtype=f64)", "f64"),
    ("input %d : f64[2] = user\n%y : f64[4] = aten.cat.default([%d, %d])", "f64"),
    ("input %i : i64[1, 2, 6] = user\ninput %k : i64[3, 2, 3] = user\n%y : i64[1, 3, 4] = aten.conv1d.default(%i, %k)", "floats only"),
    (
        "%v : f32[2, 3], %m : f32[2, 1], %r : f32[2, 1] = aten.native_layer_norm.default(%x, [3], None, None, 1e-5)\n%y : f32[2, 1] = aten.neg.default(%m)",
        "mean and rstd",
    ),
    ("input %i : i64[2, 3] = user\n%y : f32[2, 3, 3], %t : f32[2, 3] = aten.embedding_renorm.default(%x, %i, 1.0, 2.0)", "max_norm"),
];

#[test]
fn where_the_reference_aborts_or_fails_when_run_the_reason_is_said() {
    for (made, why) in REFUSED {
        let (inputs, calls): (Vec<&str>, Vec<&str>) = made.lines().partition(|l| l.starts_with("input"));
        let text = format!(
            "etir 1\nmethod \"forward\" functional {{
               symbol s0 [1..8]
               symbol u0 [0..8]
               input %x : f32[2, 3] = user
               input %z : f32[s0, 3] = user
               {}
               {}
               return %y
             }}",
            inputs.join("\n"),
            calls.join("\n")
        );
        let refusal = refused(&text);
        assert!(refusal.contains(why), "{made}: {refusal}");
    }
}

#[test]
fn positions_and_frequencies_of_rotations() {
    let program = |freqs: &str, call: &str| {
        format!(
            "etir 1\nmethod \"forward\" functional {{
               symbol u0 [0..64]
               input %x : f32[1, 2, 3, 8] = user
               input %p : i64[] = user
               {freqs}
               %n : int(u0) = aten.item.default(%p)
               %y : f32[1, 2, 3, 8] = mlx.rope.default(%x, 8, {call})
               return %y
             }}"
        )
    };
    let rope = |freqs: &str, call: &str| {
        let (_, p) = lowered(&program(freqs, call));
        let Some(Instr::Rope { offset, freqs, base, scale, traditional, .. }) = p.chains[0].last().cloned() else { panic!("{p}") };
        (matches!(offset, VidOrTid::Vid(_)), freqs.is_some(), base, scale, traditional, p.chains[0].len())
    };
    assert_eq!(rope("", "%n, True, 10000.0, 0.5"), (true, false, 10000.0, 0.5, true, 2));
    // A number, which the reference refuses: the slot is set first, or the offset is a tensor.
    let (.., length) = rope("", "3, False, 10000.0, 1.0");
    assert!(length <= 3, "{length}");
    let (_, given, ..) = rope("input %f : f32[4] = user", "%n, False, 10000.0, 1.0, %f");
    assert!(given);
    let refusal = refused(&program("input %f : f32[3, 4] = user", "%n, False, 10000.0, 1.0, %f"));
    assert!(refusal.contains("one frequency for each pair"), "{refusal}");
}

#[test]
fn numbers_that_the_edge_dialect_lifts_into_tensors_take_the_type_of_the_other_operand() {
    let program = |ty: &str, bytes: &str, call: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nweight @0 \"_lifted_tensor_constant0\" {ty}[] inline 0x{bytes}\nmethod \"forward\" functional {{
               input %s : {ty}[] = parameter @0
               input %h : f16[2] = user
               input %i : i64[2] = user
               {call}
               return %y
             }}"
        ));
        (main_names(&p), p.tensor_meta[0].dtype)
    };
    let half = "%y : f16[2] = aten.add.Tensor(%h, %s)";
    assert_eq!(program("f64", "0000000000000440", half), (vec!["Add"], DType::Float16));
    assert_eq!(program("f32", "00002040", half), (vec!["Add"], DType::Float16));
    // torch multiplies by the number before it is rounded to a half.
    let product = "%y : f16[2] = aten.mul.Tensor(%h, %s)";
    assert_eq!(program("f64", "0000000000000440", product), (vec!["Multiply"], DType::Float32));
    // An integer compared with a half is not compared with 0.
    let less = "%y : bool[2] = aten.lt.Tensor(%i, %s)";
    assert_eq!(program("f32", "0000003f", less), (vec!["AsType", "Less"], DType::Float32));
}
