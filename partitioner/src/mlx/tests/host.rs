//! What the delegate reads on the host, and the memory that it does not own.

use etx_mlx::Instr;

use super::{CACHE, lowered, main_names};

fn names(body: &str) -> Vec<&'static str> {
    let (_, p) = lowered(&format!("etir 1\n{CACHE}method \"forward\" functional {{\n{body}\n}}"));
    main_names(&p)
}

/// A copy to the places that these calls make of `%i`.
fn copied_to(make: &str) -> Vec<&'static str> {
    names(&format!(
        "input %i : i64[3, 3] = user
         input %s : i32[1] = user
         input %x : f32[4] = user
         input %y : f32[3] = user
         {make}
         %new : f32[4] = aten.index_copy.default(%x, 0, %at, %y)
         return %new"
    ))
}

#[test]
fn an_index_that_may_be_a_view_is_made_contiguous() {
    assert_eq!(copied_to("%at : i64[3] = aten.select.int(%i, 1, 0)"), ["Take", "Contiguous", "IndexCopy"]);
    assert_eq!(copied_to("%at : i64[3] = aten.select.int(%i, 0, 1)"), ["Take", "IndexCopy"]);
    let expanded = "%e : i32[3] = aten.expand.default(%s, [3])\n%n : i32[3] = aten.mul.Tensor(%e, %e)\n%at : i64[3] = aten._to_copy.default(%n, dtype=i64)";
    assert_eq!(copied_to(expanded), ["BroadcastTo", "Multiply", "AsType", "Contiguous", "IndexCopy"]);
}

#[test]
fn a_constant_is_written_over_by_another_name() {
    let body = "input %w : f32[4] = parameter @0
         input %x : f32[2] = user
         %y : f32[4] = aten.slice_scatter.default(%w, %x, 0, 1, 3, 1)
         return %y";
    assert_eq!(names(body), ["IdCopy", "SliceUpdate"]);
}

#[test]
fn an_update_that_is_its_own_buffer_is_kept_aside() {
    let body = "input %cache : f32[4] = buffer @0
         input %at : i64[4] = user
         %new : f32[4] = aten.index_copy.default(%cache, 0, %at, %cache)
         %y : f32[4] = aten.neg.default(%new)
         return %new as state %cache, %y";
    let (_, p) = lowered(&format!("etir 1\n{CACHE}method \"forward\" functional {{\n{body}\n}}"));
    assert_eq!(main_names(&p), ["IdCopy", "IndexCopy", "Neg"]);
    assert!(matches!(p.chains[0][1], Instr::IndexCopy { dst, update, out, .. } if dst == out && update != dst));
}

#[test]
fn state_keeps_no_memory_of_the_caller() {
    let forward = |state: &str| {
        names(&format!(
            "input %cache : f32[4] = buffer @0
             input %x : f32[4] = user
             %y : f32[4] = aten.add.Tensor(%x, %cache)
             {state}"
        ))
    };
    // The input itself: copied, and the copy made before the call ends.
    assert_eq!(forward("return %x as state %cache, %y"), ["Add", "IdCopy", "Where", "AsStrided", "ItemInt"]);
    // What no output asks for.
    let doubled = "%z : f32[4] = aten.mul.Tensor(%x, %x)\nreturn %z as state %cache, %y";
    assert_eq!(forward(doubled), ["Add", "Multiply", "IdCopy", "AsStrided", "ItemInt"]);
    // What one does.
    assert_eq!(forward("return %y as state %cache, %y"), ["Add", "IdCopy"]);
}

#[test]
fn inputs_without_elements_are_not_passed() {
    let (d, p) = lowered(
        "etir 1\nmethod \"forward\" functional {
           input %x : f32[3, 0] = user
           input %y : f32[3, 2] = user
           %z : f32[3, 2] = aten.cat.default([%x, %y], 1)
           return %z
         }",
    );
    assert_eq!((p.num_inputs, d.inputs.len()), (1, 1), "{p}");
}
