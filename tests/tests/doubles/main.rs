//! Programs that compute in `f64`, lowered to compute in `f32`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use etx_tests::case::{Case, Value};
use etx_tests::compare::{Limit, compare};
use etx_tests::driver::{self, File, Trouble};
use etx_tests::tensor::Tensor;
use safetensors::Dtype;

/// The value as a file takes or gives it that has `f32` for `f64`.
fn single(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(t) = value.tensor.as_mut().filter(|t| t.dtype == Dtype::F64) {
        let numbers = t.bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32);
        *t = Tensor { dtype: Dtype::F32, shape: t.shape.clone(), bytes: numbers.flat_map(f32::to_le_bytes).collect() };
    }
    value
}

#[test]
fn what_inputs_decide_is_refused_once_a_place_and_right_in_singles_on_request() {
    let case = Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/doubles_of_inputs")).unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doubles_of_inputs.pte");
    let program = || etx::load(case.file("forward.pt2"), &[]).unwrap();
    let Err(Trouble::Refused(refused)) = driver::lower_program(program(), &out) else { unreachable!("f64 is lowered") };
    assert!(refused.len() <= 3, "{refused:?}");
    assert!(
        refused.iter().all(|r| r.why.contains("f64") && r.why.contains("--f64-as-f32") && r.why.contains("constants.py:")),
        "{refused:?}"
    );

    let lowered = etx::Lowering::mlx().options(etx::passes::Options::verified()).f64_as_f32(true).run(program()).unwrap();
    let [narrowed] = &lowered.report().f64_as_f32[..] else { unreachable!("one method computes in f64") };
    assert_eq!(
        (narrowed.method.as_str(), narrowed.inputs.as_slice(), narrowed.outputs.as_slice()),
        ("forward", &["scale".to_owned()][..], &[3][..])
    );
    assert!(!narrowed.places.is_empty());
    lowered.write(&out).unwrap();
    let mut method = File::open(&out).unwrap().load("forward", None).unwrap();
    for step in &case.steps().unwrap()["forward"] {
        let outputs = method.call(&step.inputs.iter().map(single).collect::<Vec<_>>()).unwrap();
        assert_eq!(outputs.len(), step.expected.len());
        for (got, expected) in outputs.iter().zip(step.expected.iter().map(single)) {
            // Angles of 700 are exact to the 24th bit.
            let limit = Limit::Elementwise { rtol: 1e-4, atol: 1e-4 };
            compare(got.tensor.as_ref().unwrap(), expected.tensor.as_ref().unwrap(), limit).unwrap();
        }
    }
}
