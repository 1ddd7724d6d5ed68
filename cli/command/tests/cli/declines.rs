//! Calls whose formula does not apply: the refusal says why, and what to do.

use crate::bad_input::{refused, says};
use crate::support::Folder;

fn why(body: &str) -> String {
    let folder = Folder::new();
    let file = folder.write("program.etir", format!("etir 1\nmethod \"forward\" functional {{\n{body}\n}}\n"));
    refused(&folder, &file, &[])
}

#[test]
fn a_formula_with_a_reason_of_its_own() {
    let error = why("  symbol s0 [2..]
  input %x : f32[s0, 4] = user
  %d : f32[Min(4, s0 - 3)] = aten.diagonal.default(%x, offset=-3)
  return %d");
    says(&error, &["d (aten.diagonal.default): the diagonal at -3 may lie outside of the matrix — give the sizes a lower bound"]);
    let error = why("  input %x : f32[2, 3, 8, 8] = user
  input %b : f32[4, 5] = user
  %p : f32[4, 3, 2, 2], %at : i32[4, 3, 2, 2] = torchvision.roi_pool.default(%x, %b, 1.0, 2, 2)
  return %p, %at");
    says(&error, &["where in the image a result is from is not computed", "use the first result alone"]);
}

#[test]
fn a_formula_that_names_only_what_it_needs() {
    let error = why("  symbol s0 [2..]
  input %x : f32[s0, 4] = user
  %v : f32[s0], %i : i64[s0] = aten.mode.default(%x)
  return %v, %i");
    says(&error, &["v (aten.mode.default): its formula needs sizes", "here are f32[s0, 4]"]);
}

#[test]
fn loops_that_depend_on_values_and_bodies_that_are_refused() {
    let error = why("  input %x : f32[3] = user
  while_loop: %y : f32[3] = higher_order.while_loop(graph(%a : f32[3]) {
    %sum : f32[] = aten.sum.default(%a)
    %lt : bool[] = aten.lt.Scalar(%sum, 5)
    return %lt
  }, graph(%a : f32[3]) {
    %mul : f32[3] = aten.mul.Tensor(%a, 1.5)
    return %mul
  }, [%x], [])
  return %y");
    says(&error, &["while_loop (higher_order.while_loop): how often the body runs depends on values", "loop a fixed number of times"]);
    let error = why("  symbol s0 [2..]
  input %x : f32[s0, 3] = user
  map: %y : f32[s0, 3] = higher_order.map(graph(%a : f32[3]) {
    %l : f32[3] = aten.lgamma.default(%a)
    return %l
  }, [%x], [])
  return %y");
    says(&error, &["map (higher_order.map)", "in its body, l (aten.lgamma.default): MLX has no such function"]);
}
