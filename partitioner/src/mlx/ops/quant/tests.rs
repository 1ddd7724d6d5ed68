//! What is refused about quantised weights names the weight and says what to do; what is not fits MLX's layout.

use etx_ir::error::Error;
use etx_ir::text::{self, NoFiles};
use etx_mlx::Instr;

use crate::backend::{Backend, Delegate, Partition, Payload, Refusal, Verdict};
use crate::cluster::divide;
use crate::mlx::Mlx;

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().map(|b| format!("{b:02x}")).collect()
}

fn floats(values: &[f32]) -> String {
    hex(values.iter().flat_map(|v| v.to_le_bytes()))
}

/// A linear layer over a weight `[2, 64]` in groups of 32, of which parts can be exchanged.
struct Layer {
    codes: String,
    scales: String,
    zeros: String,
    call: String,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            codes: format!("i8[2, 64] inline 0x{}", hex((0..128).map(|i| (i % 7) as u8))),
            scales: format!("f32[2, 2] inline 0x{}", floats(&[0.5, 1.0, 2.0, 4.0])),
            zeros: format!("i8[2, 2] inline 0x{}", hex([0, 1, 2, 3])),
            call: "%codes, [1, 32], %scale, %zero, i8, -8, 7".to_owned(),
        }
    }
}

impl Layer {
    fn text(&self) -> String {
        let ty = |s: &str| s.split(" inline").next().unwrap_or_default().to_owned();
        let Layer { codes, scales, zeros, call } = self;
        format!(
            "etir 1\nweight @0 \"layer.codes\" {codes}\nweight @1 \"layer.scale\" {scales}\nweight @2 \"layer.zero\" {zeros}\n\
             method \"forward\" functional {{
               input %codes : {} = parameter @0
               input %scale : {} = parameter @1
               input %zero : {} = parameter @2
               input %x : f32[3, 64] = user
               %w : f32[2, 64] = torchao.dequantize_affine.default({call})
               %y : f32[3, 2] = aten.linear.default(%x, %w)
               return %y
             }}",
            ty(codes),
            ty(scales),
            ty(zeros)
        )
    }

    fn compiled(&self) -> Result<Delegate, Error> {
        let program = text::parse(&self.text(), &mut NoFiles)?;
        let (mlx, method) = (Mlx::new(), &program.methods[0]);
        let division = divide(method, &mlx.verdicts(&program, method));
        assert_eq!(division.refused.len(), 0, "{:?}", division.refused);
        mlx.compile(&program, method, &Partition { number: 0, nodes: &division.partitions[0], outputs: &division.outputs[0] })
    }

    /// What stands in the way of the dequantisation.
    fn refusal(&self) -> Refusal {
        let program = text::parse(&self.text(), &mut NoFiles).unwrap();
        let verdicts = Mlx::new().verdicts(&program, &program.methods[0]);
        let refused = verdicts.into_iter().flatten().find_map(|v| match v {
            Verdict::No(refusal) => Some(refusal),
            Verdict::Yes(_) => None,
        });
        refused.unwrap()
    }
}

fn product(delegate: &Delegate) -> (i32, i32) {
    let Payload::Mlx(p) = &delegate.payload else { panic!("no MLX program") };
    let found = p.chains.iter().flatten().find_map(|i| match i {
        Instr::QuantizedMatmul { group_size, bits, .. } => Some((*group_size, *bits)),
        _ => None,
    });
    found.unwrap()
}

fn assert_names(refusal: &Refusal, weight: &str, what: &str) {
    assert!(refusal.reason.contains(weight) && refusal.reason.contains(what), "{refusal}");
    assert!(!refusal.remedy.is_empty(), "{refusal}");
}

#[test]
fn a_weight_in_order_is_multiplied_as_it_is_packed() {
    assert_eq!(product(&Layer::default().compiled().unwrap()), (32, 4));
}

#[test]
fn every_width_has_the_narrowest_one_that_holds_it() {
    for (low, high, bits) in [(-1, 0, 2), (-4, 3, 3), (-8, 7, 4), (-64, 63, 8), (-127, 127, 8), (0, 15, 4), (-16, 15, 5)] {
        let call = format!("%codes, [1, 32], %scale, %zero, i8, {low}, {high}");
        let codes = format!("i8[2, 64] inline 0x{}", "00".repeat(128));
        assert_eq!(product(&Layer { call, codes, ..Layer::default() }.compiled().unwrap()), (32, bits), "{low}..{high}");
    }
}

#[test]
fn groups_that_do_not_divide_a_row_are_refused() {
    let layer = Layer { call: "%codes, [1, 48], %scale, %zero, i8, -8, 7".to_owned(), ..Layer::default() };
    assert_names(&layer.refusal(), "layer.codes", "do not divide");
}

#[test]
fn groups_that_would_mostly_be_padding_are_refused() {
    let layer = Layer {
        call: "%codes, [1, 8], %scale, %zero, i8, -8, 7".to_owned(),
        scales: format!("f32[2, 8] inline 0x{}", floats(&[1.0; 16])),
        zeros: format!("i8[2, 8] inline 0x{}", "00".repeat(16)),
        ..Layer::default()
    };
    assert_names(&layer.refusal(), "layer.codes", "groups of 8");
}

#[test]
fn scales_and_zero_points_of_another_shape_are_refused() {
    let scales = format!("f32[2, 1] inline 0x{}", floats(&[1.0, 1.0]));
    assert_names(&Layer { scales, ..Layer::default() }.refusal(), "layer.scale", "one for each [1, 32] of weight layer.codes");
    let zeros = format!("i8[3] inline 0x{}", "00".repeat(3));
    assert_names(&Layer { zeros, ..Layer::default() }.refusal(), "layer.zero", "there must be 4 of them");
    let scales = format!("i32[2, 2] inline 0x{}", "00".repeat(16));
    assert_names(&Layer { scales, ..Layer::default() }.refusal(), "layer.scale", "must be float32");
}

#[test]
fn widths_that_mlx_lacks_are_refused() {
    let layer = Layer { call: "%codes, [1, 32], %scale, %zero, i8, -512, 511".to_owned(), ..Layer::default() };
    assert_names(&layer.refusal(), "layer.codes", "codes from -512 to 511");
    let layer = Layer { call: "%codes, [1, 32], %scale, %zero, i8, 3, 3".to_owned(), ..Layer::default() };
    assert_names(&layer.refusal(), "layer.codes", "codes from 3 to 3");
}

#[test]
fn scales_that_are_no_numbers_are_an_error_that_names_all_of_them() {
    let scales = format!("f32[2, 2] inline 0x{}", floats(&[0.5, f32::NAN, 2.0, f32::INFINITY]));
    let e = Layer { scales, ..Layer::default() }.compiled().unwrap_err();
    assert!(e.to_string().contains("scale 1 of weight layer.scale is NaN"), "{e}");
    assert!(e.remedy().is_some());
}

#[test]
fn scales_of_blocks_that_are_no_numbers_are_an_error() {
    // MLX takes the last code of MX scales for infinity, torch for what is no number.
    let compiled = |codes: &str, bytes: usize, scales: &str, call: &str| {
        let text = format!(
            "etir 1\nweight @0 \"codes\" {codes} inline 0x{}\nweight @1 \"scales\" {scales}\nweight @2 \"one\" f32[1] inline 0x0000803f
             method \"forward\" functional {{
               input %codes : {codes} = parameter @0
               input %scales : {} = parameter @1
               input %one : f32[1] = parameter @2
               input %x : f32[3, 64] = user
               %w : f32[2, 64] = {call}
               %y : f32[3, 2] = aten.linear.default(%x, %w)
               return %y
             }}",
            "00".repeat(bytes),
            scales.split_once(" inline").unwrap().0
        );
        let program = text::parse(&text, &mut NoFiles).unwrap();
        let (mlx, method) = (Mlx::new(), &program.methods[0]);
        let division = divide(method, &mlx.verdicts(&program, method));
        assert_eq!(division.refused.len(), 0, "{:?}", division.refused);
        mlx.compile(&program, method, &Partition { number: 0, nodes: &division.partitions[0], outputs: &division.outputs[0] })
    };
    let mx = |scales: &str| {
        let call = "torchao.dequantize_mx.default(%codes, %scales, f8e4m3, 32, f32)";
        compiled("f8e4m3[2, 64]", 128, &format!("f8e8m0[2, 2] inline 0x{scales}"), call)
    };
    let nvfp4 = |scales: &str| {
        let call = "torchao.dequantize_nvfp4.default(%codes, %scales, %one, 16, f32)";
        compiled("u32[2, 8]", 64, &format!("u8[2, 4] inline 0x{scales}"), call)
    };
    assert!(mx("7ffe0080").is_ok() && nvfp4("7e00fe0138780880").is_ok());
    for e in [mx("7fff7f7f").unwrap_err(), nvfp4("38ff383838383838").unwrap_err()] {
        assert!(e.to_string().contains("scale 1 of weight scales is NaN") && e.remedy().is_some(), "{e}");
    }
}

/// What stands in the way of a dequantisation of these weights, all of zeros, to `f32[2, 64]`.
fn refused(target: &str, weights: &[(&str, &str)], call: &str) -> Refusal {
    let mut text = "etir 1\n".to_owned();
    let bytes = |ty: &str| {
        let (dtype, shape) = ty.split_once('[').unwrap();
        let n: usize = shape.trim_end_matches(']').split(", ").map(|n| n.parse::<usize>().unwrap()).product();
        n * if dtype.contains('8') { 1 } else { 4 }
    };
    for (i, (name, ty)) in weights.iter().enumerate() {
        text += &format!("weight @{i} \"{name}\" {ty} inline 0x{}\n", "00".repeat(bytes(ty)));
    }
    text += "method \"forward\" functional {\n";
    for (i, (name, ty)) in weights.iter().enumerate() {
        text += &format!("input %{name} : {ty} = parameter @{i}\n");
    }
    text += &format!("%w : f32[2, 64] = {target}({call})\nreturn %w\n}}");
    let program = text::parse(&text, &mut NoFiles).unwrap();
    let verdicts = Mlx::new().verdicts(&program, &program.methods[0]);
    verdicts.into_iter().flatten().find_map(|v| if let Verdict::No(r) = v { Some(r) } else { None }).unwrap()
}

#[test]
fn mx_elements_other_than_e4m3_and_e2m1_are_refused_by_name() {
    let mx = |codes, scales, element, block| {
        let call = format!("%codes, %scale, {element}, {block}, f32");
        refused("torchao.dequantize_mx.default", &[("codes", codes), ("scale", scales)], &call)
    };
    assert_names(&mx("f8e5m2[2, 64]", "f8e8m0[2, 2]", "f8e5m2", 32), "elem_dtype", "not of f8e5m2");
    assert_names(&mx("u8[2, 64]", "f8e8m0[2, 2]", "\"fp6_e2m3\"", 32), "elem_dtype", "not of fp6_e2m3");
    let other_blocks = mx("u8[2, 32]", "f8e8m0[2, 4]", "u8", 16);
    assert!(other_blocks.reason.contains("block_size") && other_blocks.reason.contains("blocks of 32"), "{other_blocks}");
    assert_names(&mx("u8[2, 32]", "f8e8m0[2, 1]", "u8", 32), "scale", "must be [2, 2]");
}

#[test]
fn packed_weights_of_another_length_are_refused() {
    let int4 = |codes, scale| {
        refused(
            "torchao.dequantize_int4_tensor.default",
            &[("codes", codes), ("scale", scale), ("zero", "f32[2, 2]")],
            "%codes, %scale, %zero, 32, f32",
        )
    };
    assert_names(&int4("u8[2, 30]", "f32[2, 2]"), "codes", "whole groups of 32");
    assert_names(&int4("u8[2, 32]", "f32[2, 3]"), "scale", "must be [2, 2]");
    let nvfp4 = |scale, factor| {
        refused(
            "torchao.dequantize_nvfp4.default",
            &[("codes", "u32[2, 8]"), ("scale", scale), ("factor", factor)],
            "%codes, %scale, %factor, 16, f32",
        )
    };
    assert_names(&nvfp4("u8[2, 3]", "f32[1]"), "scale", "must be bytes [2, 4]");
    assert_names(&nvfp4("u8[2, 4]", "f32[2]"), "factor", "one float32");
    assert_names(
        &refused("torchao.dequantize_gguf.default", &[("blob", "u8[2, 143]")], "%blob, \"q4_k\", f32"),
        "blob",
        "not whole blocks of 144",
    );
}

#[test]
fn formats_that_the_reference_takes_for_others_are_refused_by_name() {
    let nvfp4 = [("codes", "u32[2, 8]"), ("scale", "u8[2, 2]"), ("factor", "f32[1]")];
    let refusal = refused("torchao.dequantize_nvfp4.default", &nvfp4, "%codes, %scale, %factor, 32, f32");
    assert!(refusal.to_string().contains("NVFP4 has blocks of 16"), "{refusal}");
    for kind in ["q8_0", "q3_k", "iq4_xs"] {
        let refusal = refused("torchao.dequantize_gguf.default", &[("blob", "u8[2, 144]")], &format!("%blob, \"{kind}\", f32"));
        assert!(refusal.to_string().contains(kind), "{refusal}");
    }
}
