use etx_ir::text::{self, NoFiles};
use etx_mlx::{Access, Instr, IntOrVid, Program as MlxProgram, SlotRef};

use crate::backend::{Backend, Delegate, Partition, Payload};
use crate::cluster::divide;

use super::Mlx;

mod faults;
mod host;
mod unlike_torch;

/// The delegate of a program whose nodes all go into one partition.
fn lowered(text: &str) -> (Delegate, MlxProgram) {
    let program = text::parse(text, &mut NoFiles).unwrap();
    let (mlx, method) = (Mlx::new(), &program.methods[0]);
    let division = divide(method, &mlx.verdicts(&program, method));
    assert_eq!(division.refused.len(), 0, "{:?}", division.refused);
    assert_eq!(division.partitions.len(), 1);
    let partition = Partition { number: 0, nodes: &division.partitions[0], outputs: &division.outputs[0] };
    let delegate = mlx.compile(&program, method, &partition).unwrap();
    let Payload::Mlx(payload) = delegate.payload.clone() else { panic!("no MLX program") };
    if let Err(problems) = payload.verify() {
        panic!("{problems:?}\n{payload}");
    }
    (delegate, payload)
}

fn main_names(p: &MlxProgram) -> Vec<&'static str> {
    p.chains[p.main_chain as usize].iter().map(Instr::name).collect()
}

const CACHE: &str = "weight @0 \"cache\" f32[4] inline 0x00000000000000000000000000000000\n";

#[test]
fn a_cache_is_written_in_place_without_a_copy() {
    let (_, p) = lowered(&format!(
        "etir 1\n{CACHE}method \"forward\" functional {{
           input %cache : f32[4] = buffer @0
           input %at : i64[1] = user
           input %x : f32[1] = user
           %new : f32[4] = aten.index_copy.default(%cache, 0, %at, %x)
           %y : f32[4] = aten.neg.default(%new)
           return %new as state %cache, %y
         }}"
    ));
    assert_eq!(main_names(&p), ["IndexCopy", "Neg"]);
    assert!(matches!(p.chains[0][0], Instr::IndexCopy { dst, out, .. } if dst == out));
    assert_eq!(p.num_mutable_buffers, 1);
    assert_eq!(p.init_chain, None, "zeros need no initial value");
}

#[test]
fn old_contents_are_saved_for_those_who_still_want_them() {
    let (d, p) = lowered(&format!(
        "etir 1\n{CACHE}method \"forward\" functional {{
           input %cache : f32[4] = buffer @0
           input %at : i64[1] = user
           input %x : f32[1] = user
           %new : f32[4] = aten.index_copy.default(%cache, 0, %at, %x)
           %y : f32[4] = aten.sub.Tensor(%new, %cache)
           return %new as state %cache, %y, %cache
         }}"
    ));
    assert_eq!(main_names(&p)[..2], ["IdCopy", "IndexCopy"], "the copy comes before the update");
    assert_eq!(d.outputs.len(), 2);
}

#[test]
fn an_update_that_does_not_become_the_state_leaves_the_buffer_alone() {
    let (_, p) = lowered(&format!(
        "etir 1\n{CACHE}method \"forward\" functional {{
           input %cache : f32[4] = buffer @0
           input %at : i64[1] = user
           input %x : f32[1] = user
           %other : f32[4] = aten.index_copy.default(%cache, 0, %at, %x)
           %new : f32[4] = aten.neg.default(%cache)
           return %new as state %cache, %other
         }}"
    ));
    assert!(p.chains[0].iter().all(|i| !matches!(i, Instr::IndexCopy { dst, out, .. } if dst == out)));
}

#[test]
fn sizes_known_from_a_call_keep_that_call_in_the_partition() {
    // The slice is there for its size alone.
    let (_, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           symbol s0 [4..8]
           input %x : f32[s0, 3] = user
           %part : f32[FloorDiv(s0, 2), 3] = aten.slice.Tensor(%x, 0, 0, 9223372036854775807, 2)
           %n : int(FloorDiv(s0, 2)) = aten.sym_size.int(%part, 0)
           %y : f32[FloorDiv(s0, 2), 2] = aten.full.default([%n, 2], 0.5, dtype=f32)
           return %y
         }",
    );
    assert!(main_names(&p).contains(&"Full"), "{p}");
}

#[test]
fn the_item_of_a_narrow_type_is_widened_where_the_reference_reads_beyond_it() {
    let read = |dtype: &str, number: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               symbol u0 [1..4]
               input %x : f32[6] = user
               input %n : {dtype}[] = user
               %i : {number} = aten.item.default(%n)
               %y : f32[u0] = aten.slice.Tensor(%x, 0, 0, %i, 1)
               return %y
             }}"
        ));
        main_names(&p).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for dtype in ["u8", "i8"] {
        assert_eq!(read(dtype, "int(u0)"), ["AsType", "ItemInt", "Slice"]);
    }
    for dtype in ["i32", "i64"] {
        assert_eq!(read(dtype, "int(u0)"), ["ItemInt", "Slice"]);
    }
    let (_, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           input %logits : f32[1, 8] = user
           input %t : f32[] = user
           input %k : i64[] = user
           input %p : f32[] = user
           %y : i64[1] = mlx.sample.default(%logits, %t, %k, %p)
           return %y
         }",
    );
    assert_eq!(main_names(&p)[..3], ["Greater", "AsType", "ItemInt"], "the condition is a truth value");
}

#[test]
fn a_mask_that_may_hide_every_key_gives_zeros_there() {
    let attend = |mask: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nweight @0 \"mask\" bool[2, 2] inline 0x01000101\nmethod \"forward\" functional {{
               input %q : f32[1, 1, 2, 4] = user
               input %m : {mask}
               %y : f32[1, 1, 2, 4] = aten.scaled_dot_product_attention.default(%q, %q, %q, %m)
               %z : f32[1, 1, 2, 4] = aten.scaled_dot_product_attention.default(%y, %q, %q, %m)
               return %z
             }}"
        ));
        main_names(&p)
    };
    assert_eq!(attend("bool[2, 2] = user"), ["Sdpa", "Any", "Where", "Sdpa", "Where"]);
    assert_eq!(attend("f32[2, 2] = user"), ["Sdpa", "Max", "NotEqual", "Where", "Sdpa", "Where"]);
    assert_eq!(attend("bool[2, 2] = parameter @0"), ["Sdpa", "Sdpa"], "no row of it is all false");
}

#[test]
fn two_buffers_change_places() {
    let (_, p) = lowered(&format!(
        "etir 1\n{CACHE}weight @1 \"b\" f32[4] inline 0x00000000000000000000000000000000\nmethod \"forward\" functional {{
           input %a : f32[4] = buffer @0
           input %b : f32[4] = buffer @1
           input %x : f32[4] = user
           %y : f32[4] = aten.neg.default(%x)
           return %b as state %a, %a as state %b, %y
         }}"
    ));
    // Both old contents are read before either is overwritten.
    let names = main_names(&p);
    assert_eq!(names.iter().filter(|n| **n == "IdCopy").count(), 4, "{p}");
}

#[test]
fn a_state_that_is_not_zero_is_set_once_when_the_program_is_loaded() {
    let (d, p) = lowered(
        "etir 1\nweight @0 \"total\" f32[1] inline 0x0000803f\nmethod \"forward\" functional {
           input %total : f32[1] = buffer @0
           input %x : f32[1] = user
           %new : f32[1] = aten.add.Tensor(%total, %x)
           return %new as state %total, %new
         }",
    );
    let init = &p.chains[p.init_chain.unwrap() as usize];
    assert!(matches!(init.as_slice(), [Instr::IdCopy { .. }]));
    assert_eq!(d.named_data.len(), 1);
}

#[test]
fn one_weight_used_twice_is_one_constant_and_is_transposed_once() {
    let (d, p) = lowered(
        "etir 1\nweight @0 \"w\" f32[2, 2] inline 0x0000803f000000000000000000000040\nmethod \"forward\" functional {
           input %w : f32[2, 2] = parameter @0
           input %x : f32[3, 2] = user
           %a : f32[3, 2] = aten.linear.default(%x, %w)
           %b : f32[3, 2] = aten.linear.default(%a, %w)
           return %b
         }",
    );
    assert_eq!(d.named_data.len(), 1);
    assert_eq!(main_names(&p), ["Transpose", "Addmm", "Addmm"]);
}

#[test]
fn a_symbolic_size_is_read_once() {
    let (_, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           symbol s0 [1..64]
           input %x : f32[s0, 4] = user
           %n : int(s0) = aten.sym_size.int(%x, 0)
           %a : f32[s0] = aten.full.default([%n], 1.0, dtype=f32)
           %b : f32[s0] = aten.full.default([%n], 2.0, dtype=f32)
           %c : f32[s0] = aten.add.Tensor(%a, %b)
           return %c
         }",
    );
    assert_eq!(main_names(&p), ["SymSize", "Full", "Full", "Add"]);
}

#[test]
fn halves_meet_singles_as_torch_has_it() {
    // A scalar tensor does not widen a half tensor in torch; in MLX it would. torch's sums read it in halves, its products in singles.
    for (op, instructions) in [("add", ["AsType", "Add", "Neg"]), ("mul", ["Multiply", "AsType", "Neg"])] {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               input %x : f16[2] = user
               input %s : f32[] = user
               %y : f16[2] = aten.{op}.Tensor(%x, %s)
               %z : f16[2] = aten.neg.default(%y)
               return %z
             }}"
        ));
        assert_eq!(main_names(&p), instructions);
    }
}

#[test]
fn an_integer_compared_with_a_fraction_is_compared_as_a_float() {
    let (_, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           input %x : i64[2] = user
           %y : bool[2] = aten.lt.Scalar(%x, 0.5)
           return %y
         }",
    );
    assert_eq!(main_names(&p), ["AsType", "Less"]);
}

#[test]
fn one_value_returned_twice_and_an_input_returned_cost_no_slots() {
    let (d, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[2] = user
           %y : f32[2] = aten.neg.default(%x)
           return %y, %y, %x
         }",
    );
    assert_eq!((d.outputs.len(), p.num_outputs), (1, 1));
    assert_eq!(main_names(&p), ["Neg"]);
}

/// Why the only refused node of a program is.
fn refused(text: &str) -> String {
    let program = text::parse(text, &mut NoFiles).unwrap();
    let method = &program.methods[0];
    let division = divide(method, &Mlx::new().verdicts(&program, method));
    let [(_, refusal)] = division.refused.as_slice() else { panic!("one refusal of\n{text}\n{:?}", division.refused) };
    refusal.to_string()
}

#[test]
fn a_refusal_says_what_is_in_the_way() {
    let refusal = refused(
        "etir 1\nmethod \"forward\" functional {
           input %x : f64[2] = user
           %y : f64[2] = aten.neg.default(%x)
           return %y
         }",
    );
    assert!(refusal.contains("%x f64[2]") && refusal.contains("float32"), "{refusal}");
}

#[test]
fn attention_with_dropout_is_refused_where_the_reference_aborts() {
    let refusal = refused(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[1, 2, 3, 4] = user
           %y : f32[1, 2, 3, 4] = aten.scaled_dot_product_attention.default(%x, %x, %x, None, 0.5)
           return %y
         }",
    );
    assert!(refusal.contains("without dropout") && refusal.contains("eval mode"), "{refusal}");
}

#[test]
fn arguments_of_attention_count_by_name_as_well() {
    // The reference looks at places only, and misses a mask, a direction or dropout that is named.
    let attention = |args: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               input %x : f32[1, 2, 3, 4] = user
               input %m : f32[3, 3] = user
               %y : f32[1, 2, 3, 4] = aten.scaled_dot_product_attention.default(%x, %x, %x, {args})
               return %y
             }}"
        ));
        let sdpa = p.chains[0].iter().find_map(|i| match *i {
            Instr::Sdpa { mask, causal, scale, .. } => Some((mask.is_some(), causal, scale)),
            _ => None,
        });
        sdpa.unwrap()
    };
    assert_eq!(attention("scale=2.0, attn_mask=%m"), (true, false, 2.0));
    assert_eq!(attention("is_causal=True, dropout_p=0.0"), (false, true, 0.5));
    let refusal = refused(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[1, 2, 3, 4] = user
           %y : f32[1, 2, 3, 4] = aten.scaled_dot_product_attention.default(%x, %x, %x, dropout_p=0.5)
           return %y
         }",
    );
    assert!(refusal.contains("without dropout"), "{refusal}");
}

#[test]
fn one_refused_attention_leaves_the_others_whole() {
    // The reference takes all calls of an operator apart when it declines one.
    let program = text::parse(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[1, 2, 3, 4] = user
           %y : f32[1, 2, 3, 4] = aten.scaled_dot_product_attention.default(%x, %x, %x)
           %z : f32[1, 2, 3, 4] = aten.scaled_dot_product_attention.default(%y, %x, %x, None, 0.5)
           return %y, %z
         }",
        &mut NoFiles,
    )
    .unwrap();
    let (mlx, method) = (Mlx::new(), &program.methods[0]);
    let division = divide(method, &mlx.verdicts(&program, method));
    assert_eq!((division.refused.len(), division.partitions.len()), (1, 1));
    let partition = Partition { number: 0, nodes: &division.partitions[0], outputs: &division.outputs[0] };
    let Payload::Mlx(p) = mlx.compile(&program, method, &partition).unwrap().payload else { panic!("no MLX program") };
    assert_eq!(main_names(&p), ["Sdpa"]);
}

#[test]
fn what_was_lowered_already_and_what_hides_an_axis_is_refused_with_the_way_around() {
    let refusal = refused(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[2, 3] = user
           %y : f32[3] = torch._functorch.predispatch._add_batch_dim(%x, 0, 1)
           return %y
         }",
    );
    assert!(refusal.contains("torch.vmap") && refusal.contains("run_decompositions({})"), "{refusal}");
    let refusal = refused(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[2, 3] = user
           %y : f32[2, 3] = higher_order.executorch_call_delegate(\"{}\", %x)
           return %y
         }",
    );
    assert!(refusal.contains("lowered already") && refusal.contains("torch.export.export"), "{refusal}");
}

const KERNEL: &str = "weight @0 \"kernel\" f32[2,2,1,1] inline 0x0000803f000000000000000000000040\nweight @1 \"line\" f32[1,2,1,1] inline 0x0000803f00000040\n";

#[test]
fn nothing_is_transposed_between_convolutions() {
    let (_, p) = lowered(&format!(
        "etir 1\n{KERNEL}method \"forward\" functional {{
           input %k : f32[2, 2, 1, 1] = parameter @0
           input %line : f32[1, 2, 1, 1] = parameter @1
           input %x : f32[1, 2, 8, 8] = user
           %a : f32[1, 2, 8, 8] = aten.conv2d.default(%x, %k)
           %b : f32[1, 2, 8, 8] = aten.mul.Tensor(%a, %line)
           %c : f32[1, 2, 8, 8] = aten.relu.default(%b)
           %d : f32[1, 2, 8, 8] = aten.conv2d.default(%c, %k)
           %e : f32[1, 2, 8, 8] = aten.add.Tensor(%d, %c)
           %f : f32[1, 4, 8, 8] = aten.cat.default([%e, %b], 1)
           %g : f32[1, 4, 4, 4] = aten.max_pool2d.default(%f, [3, 3], [2, 2], [1, 1])
           %h : f32[1, 4] = aten.mean.dim(%g, [2, 3])
           return %h
         }}"
    ));
    let expected = ["Transpose", "Conv2D", "Multiply", "Maximum", "Conv2D", "Add", "Concatenate", "Pad", "AsStrided", "Max", "Mean"];
    assert_eq!(main_names(&p), expected, "{p}");
    let shapes: Vec<_> = p.tensor_meta.iter().take(p.num_constants as usize).map(|m| format!("{:?}", m.shape)).collect();
    assert!(shapes.contains(&"[Static(1), Static(1), Static(1), Static(2)]".to_owned()), "the factor lies with channels last: {shapes:?}");
}

#[test]
fn what_reads_the_order_of_axes_gets_it() {
    let (_, p) = lowered(&format!(
        "etir 1\n{KERNEL}method \"forward\" functional {{
           input %k : f32[2, 2, 1, 1] = parameter @0
           input %x : f32[1, 2, 8, 8] = user
           %a : f32[1, 2, 8, 8] = aten.conv2d.default(%x, %k)
           %b : f32[1, 2, 64] = aten.view.default(%a, [1, 2, 64])
           %c : f32[1, 2, 8, 8] = aten.neg.default(%a)
           return %b, %c
         }}"
    ));
    assert_eq!(main_names(&p), ["Transpose", "Conv2D", "Transpose", "Reshape", "Neg"], "{p}");
}

#[test]
fn pixels_become_a_sequence_and_channels_groups_without_a_transposition() {
    let (_, p) = lowered(&format!(
        "etir 1\n{KERNEL}method \"forward\" functional {{
           input %k : f32[2, 2, 1, 1] = parameter @0
           input %x : f32[1, 2, 8, 8] = user
           %a : f32[1, 2, 8, 8] = aten.conv2d.default(%x, %k)
           %b : f32[1, 2, 64] = aten.view.default(%a, [1, 2, 64])
           %c : f32[1, 64, 2] = aten.permute.default(%b, [0, 2, 1])
           return %c
         }}"
    ));
    assert_eq!(main_names(&p), ["Transpose", "Conv2D", "Reshape"], "{p}");
}

#[test]
fn a_state_between_convolutions_keeps_its_order() {
    let (_, p) = lowered(&format!(
        "etir 1\n{KERNEL}weight @2 \"seen\" f32[1,2,1,1] inline 0x0000000000000000\nmethod \"forward\" functional {{
           input %k : f32[2, 2, 1, 1] = parameter @0
           input %seen : f32[1, 2, 1, 1] = buffer @2
           input %x : f32[1, 2, 1, 1] = user
           %a : f32[1, 2, 1, 1] = aten.conv2d.default(%x, %k)
           %b : f32[1, 2, 1, 1] = aten.add.Tensor(%a, %seen)
           %c : f32[1, 2, 1, 1] = aten.conv2d.default(%b, %k)
           return %b as state %seen, %c
         }}"
    ));
    let copies = p.chains[0].iter().filter(|i| matches!(i, Instr::IdCopy { .. })).count();
    assert_eq!(copies, 1, "the new state is written in its own order\n{p}");
}

#[test]
fn a_sequence_becomes_pixels_whatever_axes_of_size_one_are_between() {
    let (_, p) = lowered(&format!(
        "etir 1\n{KERNEL}method \"forward\" functional {{
           input %k : f32[2, 2, 1, 1] = parameter @0
           input %x : f32[1, 1, 12, 2] = user
           %a : f32[1, 1, 2, 12] = aten.permute.default(%x, [0, 1, 3, 2])
           %b : f32[1, 2, 3, 4] = aten.view.default(%a, [1, 2, 3, 4])
           %c : f32[1, 2, 3, 4] = aten.conv2d.default(%b, %k)
           return %c
         }}"
    ));
    assert_eq!(main_names(&p), ["Reshape", "Conv2D", "Transpose"], "{p}");
    assert!(p.to_string().contains("shape=[1, 3, 4, 2]"), "{p}");
}

#[test]
fn channels_are_shuffled_as_they_lie() {
    let (_, p) = lowered(&format!(
        "etir 1\n{KERNEL}method \"forward\" functional {{
           input %k : f32[2, 2, 1, 1] = parameter @0
           input %x : f32[1, 2, 8, 8] = user
           %a : f32[1, 2, 8, 8] = aten.conv2d.default(%x, %k)
           %b : f32[1, 4, 8, 8] = aten.cat.default([%a, %a], 1)
           %c : f32[1, 2, 2, 8, 8] = aten.view.default(%b, [1, 2, 2, 8, 8])
           %d : f32[1, 2, 2, 8, 8] = aten.permute.default(%c, [0, 2, 1, 3, 4])
           %e : f32[1, 4, 8, 8] = aten.view.default(%d, [1, 4, 8, 8])
           %f : f32[1, 2, 8, 8] = aten.slice.Tensor(%e, 1, 0, 2, 1)
           %g : f32[1, 2, 8, 8] = aten.conv2d.default(%f, %k)
           %h : f32[1, 2] = aten.mean.dim(%g, [2, 3])
           return %h
         }}"
    ));
    let expected = ["Transpose", "Conv2D", "Concatenate", "Reshape", "Transpose", "Reshape", "Slice", "Conv2D", "Mean"];
    assert_eq!(main_names(&p), expected, "{p}");
}

/// How many instructions a chain runs, those of `Scan`s once a step.
fn launches(p: &MlxProgram, chain: usize, steps: &dyn Fn(&[etx_mlx::Tid], i32) -> usize) -> usize {
    let one = |instr: &Instr| match instr {
        Instr::Scan { originals, body_chain_idx, scan_axis, .. } => {
            1 + steps(originals, *scan_axis) * launches(p, *body_chain_idx as usize, steps)
        }
        _ => 1,
    };
    p.chains[chain].iter().map(one).sum()
}

#[test]
fn a_long_gated_delta_rule_runs_by_chunks() {
    let rule = |time: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               {}
               input %q : f32[1, {time}, 2, 8] = user
               input %v : f32[1, {time}, 4, 8] = user
               input %g : f32[1, {time}, 4] = user
               input %s : f32[1, 4, 8, 8] = user
               delta: %y : f32[1, {time}, 4, 8], %t : f32[1, 4, 8, 8] = mlx.gated_delta_rule.default_functional(%q, %q, %v, %g, %g, %s)
               again: %z : f32[1, {time}, 4, 8], %u : f32[1, 4, 8, 8] = mlx.gated_delta_rule.default_functional(%q, %q, %y, %g, %g, %t)
               return %z, %u
             }}",
            if time == "s0" { "symbol s0 [1..4096]" } else { "" }
        ));
        p
    };
    // 1024 steps are 16 chunks; six levels of a triangle of 64 rows are found by tables, which are constants.
    let by_chunk = rule("1024");
    let of_chunks = |originals: &[etx_mlx::Tid], _: i32| if originals[0].0 < by_chunk.num_constants { 6 } else { 16 };
    let chunked = launches(&by_chunk, 0, &of_chunks);
    let by_step = rule("8");
    let stepped = launches(&by_step, 0, &|_, _| 1024);
    assert!(chunked < 500 && stepped > 36 * chunked, "{chunked} launches for 2 x 1024 steps, {stepped} one by one");

    // What a branch computed is let go of before the next one starts.
    let either = rule("s0");
    assert_eq!(main_names(&either), ["Repeat", "Repeat", "SymSize", "FloorDivideInt", "If", "Repeat", "Repeat", "If"], "{either}");
    let alone = by_chunk.num_temps + by_step.num_temps;
    assert!(either.num_temps <= alone, "{} temporaries, {alone} for one form each", either.num_temps);
}

#[test]
fn a_delta_rule_of_halves_adds_up_in_singles() {
    let steps = |dtype: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               input %q : {dtype}[1, 3, 2, 8] = user
               input %g : {dtype}[1, 3, 2] = user
               input %s : {dtype}[1, 2, 8, 8] = user
               delta: %y : {dtype}[1, 3, 2, 8], %t : {dtype}[1, 2, 8, 8] = mlx.gated_delta_rule.default_functional(%q, %q, %q, %g, %g, %s)
               return %y, %t
             }}"
        ));
        p.chains[1].iter().map(Instr::name).collect::<Vec<_>>()
    };
    let sums = |names: &[&str]| names.windows(3).filter(|w| *w == ["AsType", "Sum", "AsType"]).count();
    assert_eq!((sums(&steps("bf16")), sums(&steps("f16"))), (2, 2), "{:?}", steps("bf16"));
    let singles = steps("f32");
    assert!(!singles.contains(&"AsType"), "{singles:?}");
}

#[test]
fn halves_round_where_torch_rounds() {
    let names = |body: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               input %x : bf16[4, 8] = user
               input %w : bf16[8] = user
               {body}
               %z : bf16[4, 8] = aten.neg.default(%y)
               return %z
             }}"
        ));
        main_names(&p)
    };
    // Once, at the end: MLX would round the sigmoid, and what is normalised before its weight.
    assert_eq!(names("%y : bf16[4, 8] = aten.silu.default(%x)"), ["AsType", "Silu", "AsType", "Neg"]);
    assert_eq!(names("%y : bf16[4, 8] = aten.rms_norm.default(%x, [8], %w, 1e-5)"), ["AsType", "RMSNorm", "AsType", "Neg"]);
    // Before the weight, where the program says so.
    let product = "%n : bf16[4, 8] = aten.rms_norm.default(%x, [8], eps=1e-5)
                   %y : bf16[4, 8] = aten.mul.Tensor(%w, %n)";
    assert_eq!(names(product), ["RMSNorm", "Neg"]);
    let shared = format!("{product}\n%a : bf16[4, 8] = aten.mul.Tensor(%n, %y)\n").replace("%y", "%p").replace("%a", "%y");
    assert_eq!(names(&shared), ["RMSNorm", "Multiply", "Multiply", "Neg"]);
}

#[test]
fn recurrent_layers_are_one_scan_each_whatever_the_length() {
    let weights: String = [("wx", "4, 4", 16), ("wh", "4, 4", 16), ("bx", "4", 4), ("bh", "4", 4)]
        .iter()
        .enumerate()
        .map(|(i, (name, shape, n))| format!("weight @{i} \"{name}\" f32[{shape}] inline 0x{}\n", format!("{i:02x}").repeat(4 * n)))
        .collect();
    let layer = |op: &str, time: &str, ways: usize| {
        let params = ["%wx, %wh, %bx, %bh"; 2][..ways].join(", ");
        let (out, twice) = (4 * ways, if ways == 2 { "True" } else { "False" });
        lowered(&format!(
            "etir 1\n{weights}method \"forward\" functional {{
               {}
               input %wx : f32[4, 4] = parameter @0
               input %wh : f32[4, 4] = parameter @1
               input %bx : f32[4] = parameter @2
               input %bh : f32[4] = parameter @3
               input %x : f32[{time}, 3, 4] = user
               input %h : f32[{ways}, 3, 4] = user
               layer: %y : f32[{time}, 3, {out}], %z : f32[{ways}, 3, 4] = {op}(%x, %h, [{params}], True, 1, 0.0, False, {twice}, False)
               return %y, %z
             }}",
            if time == "s0" { "symbol s0 [1..512]" } else { "" }
        ))
        .1
    };
    for time in ["s0", "400"] {
        let p = layer("aten.rnn_tanh.input", time, 1);
        assert_eq!(main_names(&p), ["Transpose", "Transpose", "Take", "Addmm", "Scan", "ExpandDims"], "{p}");
        assert_eq!(p.chains[1].iter().map(Instr::name).collect::<Vec<_>>(), ["Addmm", "Add", "Tanh", "IdCopy"]);
        let p = layer("aten.rnn_relu.input", time, 2);
        assert_eq!(p.chains.iter().flatten().filter(|i| matches!(i, Instr::Flip { .. })).count(), 2, "there and back\n{p}");
    }
    assert!(!main_names(&layer("aten.rnn_tanh.input", "1", 1)).contains(&"Scan"));
}

#[test]
fn sums_of_exponentials_of_what_may_be_nothing_get_one_more_element() {
    let names = |least: u32, call: &str| {
        let (_, p) = lowered(&format!(
            "etir 1\nmethod \"forward\" functional {{
               symbol s0 [{least}..8]
               input %x : f32[3, s0] = user
               {call}
               return %y
             }}"
        ));
        main_names(&p)
    };
    let (log_softmax, logsumexp) =
        ("%y : f32[3, s0] = aten._log_softmax.default(%x, 1, False)", "%y : f32[3] = aten.logsumexp.default(%x, [1], False)");
    assert_eq!(names(0, log_softmax), ["Pad", "LogSumExp", "Subtract"]);
    assert_eq!(names(1, log_softmax), ["LogSumExp", "Subtract"]);
    assert_eq!(names(0, logsumexp), ["Pad", "LogSumExp"]);
    assert_eq!(names(2, logsumexp), ["LogSumExp"]);
}

#[test]
fn custom_sdpa_with_a_mask_and_causal_is_refused() {
    let refusal = refused(
        "etir 1\nmethod \"forward\" functional {
           input %q : f32[1, 2, 3, 4] = user
           input %k : f32[1, 2, 8, 4] = user
           input %m : f32[3, 8] = user
           %y : f32[1, 2, 3, 4] = mlx.custom_sdpa.default(%q, %k, %k, 5, %m, 0.0, True)
           return %y
         }",
    );
    assert!(refusal.contains("a mask and is_causal exclude each other"), "{refusal}");
}

#[test]
fn the_sorted_flag_of_experts_is_not_overwritten_before_its_last_use() {
    let (_, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           symbol s0 [1..64]
           input %x : f32[s0, 4] = user
           input %i : i64[s0, 2] = user
           input %w : f32[3, 4, 4] = user
           %a : f32[2*s0, 1, 4], %e : i64[2*s0], %f : i32[], %p : i64[2*s0] = mlx.moe_gather_inputs.default(%x, %i, 2, 8)
           %u : f32[2*s0, 1, 4] = mlx.gather_mm.default(%a, %w, %e, None, %f)
           %d : f32[2*s0, 1, 4] = mlx.gather_mm.default(%u, %w, %e, None, %f)
           %y : f32[s0, 2, 4] = mlx.moe_scatter_outputs.default(%d, %f, %p, 2)
           return %y
         }",
    );
    let flags: Vec<_> = p
        .chains
        .iter()
        .flatten()
        .filter_map(|i| if let Instr::GatherMm { sorted_indices_flag, .. } = i { *sorted_indices_flag } else { None })
        .collect();
    let [IntOrVid::Vid(flag), again] = flags[..] else { panic!("two products by one flag: {flags:?}") };
    assert_eq!(again, IntOrVid::Vid(flag));
    let mut written = 0;
    for instr in p.chains.iter().flatten() {
        instr.visit_slots(|slot, access| written += usize::from(slot == SlotRef::Value(flag) && access == Access::Write));
    }
    assert_eq!(written, 1, "{p}");
}

#[test]
fn zero_points_of_experts_are_subtracted_where_eager_adds_them() {
    // The reference's own operator adds them in Python, and its delegate subtracts them: that is what a zero point means.
    let (d, p) = lowered(&format!(
        "etir 1\nweight @0 \"w\" i8[1, 2, 32] inline 0x{}\nweight @1 \"scales\" f32[1, 2, 1] inline 0x0000003f0000803f
         weight @2 \"zeros\" i8[1, 2, 1] inline 0x02fd\nmethod \"forward\" functional {{
           input %w : i8[1, 2, 32] = parameter @0
           input %scales : f32[1, 2, 1] = parameter @1
           input %zeros : i8[1, 2, 1] = parameter @2
           input %x : f32[3, 1, 32] = user
           input %i : i64[3] = user
           %y : f32[3, 1, 2] = mlx.gather_qmm.default(%x, %w, %scales, %zeros, %i)
           return %y
         }}",
        "00".repeat(64)
    ));
    assert!(p.chains[0].iter().any(|i| matches!(i, Instr::GatherQmm { biases: Some(_), bits: 4, .. })), "{p}");
    let biases = d.named_data.iter().find(|(key, _)| key.contains("to_biases")).unwrap().1.to_vec().unwrap();
    // -scale * (zero point + 8): -0.5 * 10 and -1 * 5.
    assert_eq!(biases, [-5.0f32, -5.0].map(f32::to_le_bytes).concat());
}

#[test]
fn a_tensor_strided_as_it_lies_is_that_tensor_whatever_its_batch() {
    let strided = |x: &str, strides: &str| {
        format!(
            "etir 1\nmethod \"forward\" functional {{
               symbol s0 [1..8]
               input %x : {x} = user
               %n : int(s0) = aten.sym_size.int(%x, 0)
               %a : {x} = aten.neg.default(%x)
               %y : f32[s0, 12, 1, 1] = aten.as_strided.default(%a, [%n, 12, 1, 1], {strides})
               %z : f32[s0, 12, 1, 1] = aten.exp.default(%y)
               return %z
             }}"
        )
    };
    let (_, p) = lowered(&strided("f32[s0, 12, 1, 1]", "[12, 1, 12, 12]"));
    assert_eq!(main_names(&p), ["Neg", "Exp"]);
    for other in [strided("f32[s0, 12, 1, 1]", "[1, 8, 1, 1]"), strided("f32[s0, 24, 1, 1]", "[24, 2, 1, 1]")] {
        assert!(refused(&other).contains("must be known at export"));
    }
}
