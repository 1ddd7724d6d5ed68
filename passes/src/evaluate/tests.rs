use etx_ir::program::Program;
use etx_ir::text::{self, NoFiles};

use super::{EvaluateConstants, LIMITS, Limits};
use crate::{Dce, FoldConstants, Options, Pipeline};

fn run(source: &str, limits: Limits) -> Program {
    let mut program = text::parse(source, &mut NoFiles).unwrap();
    let passes = Pipeline::new().then(EvaluateConstants { limits }).then(FoldConstants).then(Dce);
    passes.run(&mut program, &mut Options::verified()).unwrap();
    program
}

fn after(weights: &str, body: &str) -> String {
    let source = format!("etir 1\n{weights}\nmethod \"forward\" functional {{\n{body}\n}}");
    text::print(&run(&source, LIMITS))
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_constant_mask_is_positions_and_its_symbol_a_number() {
    let body = "symbol u0 [0..4]
        input %m : bool[4] = buffer @0
        input %x : f32[3, 4] = user
        %y : f32[3, u0] = aten.index.Tensor(%x, [None, %m])
        %n : int(u0) = aten.sym_size.int(%y, 1)
        %z : f32[u0] = aten.full.default([%n], 1.0)
        %s : f32[3, u0] = aten.add.Tensor(%y, %z)
        return %s";
    let ir = after("weight @0 \"m\" bool[4] inline 0x01000101", body);
    assert!(!ir.contains("u0") && ir.contains("aten.full.default([3]") && ir.contains("i64[3] inline 0x0000000000000000020000"), "{ir}");
    // What the caller gives is no constant, nor what the method writes to.
    let given = body.replace("buffer @0", "user");
    let ir = after("", &given);
    assert!(ir.contains("f32[3, u0]"), "{ir}");
    let written = body.replace("return %s", "%no : bool[4] = aten.logical_not.default(%m)\n return %no as state %m, %s");
    let ir = after("weight @0 \"m\" bool[4] inline 0x01000101", &written);
    assert!(ir.contains("f32[3, u0]") && ir.contains("aten.index.Tensor(%x, [None, %m])"), "{ir}");
}

#[test]
fn numbers_taken_out_of_constants_are_sizes() {
    let ir = after(
        "weight @0 \"n\" i64[] inline 0x0300000000000000",
        "symbol u0 [-9..9]
         symbol u1 [0..8]
         input %n : i64[] = buffer @0
         input %x : f32[2, 8] = user
         %i : int(u0) = aten.item.default(%n)
         %y : f32[2, u1] = aten.slice.Tensor(%x, 1, 0, %i, 1)
         return %y",
    );
    assert!(ir.contains("%y : f32[2, 3] = aten.slice.Tensor(%x, dim=1, start=0, end=3)") && !ir.contains("aten.item"), "{ir}");
}

#[test]
fn doubles_are_computed_where_constants_decide_and_left_where_inputs_do() {
    let ir = after(
        "weight @0 \"s\" f64[] inline 0x000000000000e03f",
        "input %s : f64[] = buffer @0
         input %x : f32[4] = user
         input %k : i64[4] = user
         %a : f64[4] = aten.arange.start_step(0, 4, 1, dtype=f64)
         %e : f64[4] = aten.exp.default(%a)
         %c : f32[4] = aten._to_copy.default(%e, dtype=f32)
         %y : f32[4] = aten.mul.Tensor(%x, %c)
         %h : f32[4] = aten.div.Tensor(%s, %y)
         %d : f64[4] = aten.mul.Tensor(%k, %s)
         %f : f32[4] = aten._to_copy.default(%d, dtype=f32)
         return %h, %f",
    );
    assert!(!ir.contains("aten.exp") && !ir.contains("aten.arange"), "{ir}");
    // One half, as `f32`; beside integers it is what makes `f64` of them.
    assert!(ir.contains("f32[] inline 0x0000003f") && ir.contains("%d : f64[4] = aten.mul.Tensor(%k, %s)"), "{ir}");
}

#[test]
fn large_constants_are_described_and_any_piece_is_that_of_the_whole() {
    let doubles = hex((0..12).flat_map(|i| (f64::from(i) / 7.0).to_le_bytes()));
    let codes = hex((0..12u8).map(|i| i * 9 + 20));
    let scales = hex((1..5).flat_map(|i| (i as f32 / 3.0).to_le_bytes()));
    let source = format!(
        "etir 1
         weight @0 \"w\" f64[4, 3] inline 0x{doubles}
         weight @1 \"q\" f8e4m3[4, 3] inline 0x{codes}
         weight @2 \"s\" f32[4, 1] inline 0x{scales}
         method \"forward\" functional {{
           input %w : f64[4, 3] = parameter @0
           input %q : f8e4m3[4, 3] = parameter @1
           input %s : f32[4, 1] = parameter @2
           input %x : f32[2, 4] = user
           %t : f64[3, 4] = aten.permute.default(%w, [1, 0])
           %c : bf16[3, 4] = aten._to_copy.default(%t, dtype=bf16)
           %d : f32[4, 3] = aten._to_copy.default(%q, dtype=f32)
           %m : f32[4, 3] = aten.mul.Tensor(%d, %s)
           %y : f32[2, 3] = aten.mm.default(%x, %m)
           return %c, %y
         }}"
    );
    let described = run(&source, Limits { described: 0, ..LIMITS });
    let made: Vec<_> = described.weights().iter().skip(3).map(|w| w.data.clone()).collect();
    assert_eq!(made.iter().map(|d| (d.dtype().name(), d.bytes().is_none())).collect::<Vec<_>>(), [("bf16", true), ("f32", true)]);
    let table = run(&source, LIMITS);
    let computed: Vec<_> = table.weights().iter().skip(3).map(|w| w.data.to_vec().unwrap()).collect();
    for (data, name) in made.iter().zip(["bf16", "f32"]) {
        let whole = data.to_vec().unwrap();
        assert!(computed.contains(&whole), "{name}");
        let size = data.granule() as usize;
        for start in (0..whole.len()).step_by(size) {
            let mut piece = vec![0; size * 2.min((whole.len() - start) / size)];
            data.produce(start as u64, &mut piece).unwrap();
            assert_eq!(piece, whole[start..start + piece.len()]);
        }
    }
    // 8-bit floats: 20 is 0.03125 · 1.5, scaled by a third.
    let first = f32::from_le_bytes(made[1].to_vec().unwrap()[..4].try_into().unwrap());
    assert_eq!(first, 0.046875 * (1.0 / 3.0));
}

#[test]
fn weights_that_are_multiplied_as_they_are_stay() {
    let codes = hex((0..32u8).map(|i| i + 30));
    let ir = after(
        &format!("weight @0 \"q\" f8e4m3[1, 32] inline 0x{codes}\nweight @1 \"s\" f8e8m0[1, 1] inline 0x7f"),
        "input %q : f8e4m3[1, 32] = parameter @0
         input %s : f8e8m0[1, 1] = parameter @1
         input %x : f32[2, 32] = user
         %w : f32[1, 32] = torchao.dequantize_mx.default(%q, %s, f8e4m3, 32, f32)
         %y : f32[2, 1] = aten.linear.default(%x, %w)
         return %y",
    );
    assert!(ir.contains("torchao.dequantize_mx.default(%q, %s"), "{ir}");
}
