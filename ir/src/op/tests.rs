use std::collections::BTreeSet;

use super::*;
use crate::DType;
use crate::error::ErrorKind;
use crate::op;

const KV: OpId = op!("mlx.kv_cache_update.default");

fn known(target: &str) -> OpId {
    OpId::lookup(target).unwrap_or_else(|| panic!("{target} is not known"))
}

fn default(target: &str, arg: &str) -> Option<Literal> {
    known(target).schema().arg(arg).unwrap_or_else(|| panic!("{target} has no {arg}")).default.clone()
}

#[test]
fn every_line_parses_and_prints_back() {
    let mut targets = BTreeSet::new();
    for id in 0..table::LEN as u32 {
        let line = table::line(id);
        let schema = parse::parse(line).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(schema.target, table::target(id), "{line}");
        assert_eq!(parse::parse(&schema.to_string()).unwrap(), schema, "{line}");
        assert_eq!(table::mutates(id), schema.args.iter().any(|a| a.mutated), "{line}");
        assert_eq!(table::find(schema.target.as_bytes()), Some(id), "not sorted: {line}");
        assert!(targets.insert(schema.target.clone()), "{line} is there twice");
        assert!(!schema.target.ends_with(FUNCTIONAL_SUFFIX), "{line}");
        let names = schema.args.iter().filter(|a| a.mutated).all(|a| a.alias_set.is_some());
        assert!(names && schema.returns.iter().all(|r| !r.mutated || !r.alias_of.is_empty()), "{line}");
    }
    assert!(targets.len() > 1500);
}

#[test]
fn targets_of_exported_programs_are_known() {
    let missing: Vec<_> = include_str!("tests_targets.txt").lines().filter(|t| OpId::lookup(t).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn spellings() {
    for spelling in [
        "aten.add.Tensor",
        "torch.ops.aten.add.Tensor",
        "executorch.exir.dialects.edge.ops.aten.add.Tensor",
        "executorch.exir.dialects.edge._ops.aten.add.Tensor",
        "executorch.exir.dialects.backend.ops.aten.add.Tensor",
        "aten::add.Tensor",
    ] {
        assert_eq!(OpId::lookup(spelling), Some(op!("aten.add.Tensor")), "{spelling}");
    }
    assert_eq!(OpId::lookup("aten::relu"), Some(op!("aten.relu.default")));
    assert_eq!(OpId::lookup("torch.ops.higher_order.cond"), Some(op!("higher_order.cond")));
    assert_eq!(known("_operator.add").schema().kind, Kind::Function);
    assert_eq!(known("torch.sym_max").schema().ns, "torch");
    assert_eq!(known("torch._functorch.predispatch._add_batch_dim").schema().name, "_add_batch_dim");
    for wrong in [
        "",
        ".",
        "::",
        "a::",
        "aten",
        "aten.add",
        "aten.add.tensor",
        "aten.add.Tensor.",
        "aten.add.Tensorx",
        "torch.ops.",
        "unknown",
        "_functional",
        "é",
    ] {
        assert_eq!(OpId::lookup(wrong), None, "{wrong}");
    }
    assert_eq!(OpId::of("aten.mn.default"), OpId::UNKNOWN);
    assert_eq!((OpId::UNKNOWN.target(), OpId::UNKNOWN.is_pure(), OpId::UNKNOWN.functional()), ("unknown", false, None));
    assert!(OpId::all().all(|op| OpId::lookup(op.target()) == Some(op)));
}

#[test]
fn signatures() {
    let schema = op!("aten.index_put_.default").schema();
    assert_eq!((&*schema.ns, &*schema.name, &*schema.overload), ("aten", "index_put_", "default"));
    assert_eq!(schema.args[1].ty, ArgType::List(Box::new(ArgType::Optional(Box::new(ArgType::Tensor))), None));
    assert_eq!(schema.mutated_args().collect::<Vec<_>>(), [0]);
    assert_eq!((&*schema.returns[0].alias_of, schema.returns[0].mutated), (&[0][..], true));
    let split = op!("aten.split.Tensor").schema();
    assert_eq!((split.returns[0].ty.to_string(), &*split.returns[0].alias_of), ("Tensor[]".to_owned(), &[0][..]));
    let keywords: Vec<_> = op!("aten.sum.dim_IntList").schema().args.iter().filter(|a| a.kw_only).map(|a| &*a.name).collect();
    assert_eq!(keywords, ["dtype"]);
    assert_eq!(op!("aten.svd.default").schema().returns[1].name.as_deref(), Some("S"));
    assert_eq!(op!("aten._print.default").schema().returns, []);
    assert!(op!("aten.cat.default").schema().args[0].ty.holds_tensors());
}

#[test]
fn defaults_have_the_type_of_their_argument() {
    let ints = |n: &[i64]| Some(Literal::List(n.iter().map(|n| Literal::Int(*n)).collect()));
    assert_eq!(default("aten.add.Tensor", "alpha"), Some(Literal::Int(1)));
    assert_eq!(default("aten.add.Tensor", "other"), None);
    assert_eq!(default("aten.max_pool2d.default", "padding"), ints(&[0, 0]));
    assert_eq!(default("aten.max_pool2d.default", "stride"), ints(&[]));
    assert_eq!(default("aten.conv2d.default", "stride"), ints(&[1, 1]));
    assert_eq!(default("aten.conv2d.padding", "padding"), Some(Literal::Str("valid".to_owned())));
    assert_eq!(default("aten.gelu.default", "approximate"), Some(Literal::Str("none".to_owned())));
    assert_eq!(default("aten.sum.dim_IntList", "dtype"), Some(Literal::None));
    assert_eq!(default("aten.scaled_dot_product_attention.default", "dropout_p"), Some(Literal::Float(0.0)));
    assert_eq!(default("aten.layer_norm.default", "eps"), Some(Literal::Float(1e-5)));
    assert_eq!(default("aten.contiguous.default", "memory_format"), Some(Literal::MemoryFormat(1)));
    assert_eq!(default("aten.tril_indices.default", "dtype"), Some(Literal::DType(DType::Int64)));
    assert_eq!(default("torchao.dequantize_int4_tensor.default", "output_dtype"), Some(Literal::DType(DType::BFloat16)));
    assert_eq!(default("torchao.quantize_affine_float8_non_decomposed.default", "float8_dtype"), Some(Literal::DType(DType::Float8E4M3)));
    assert_eq!(default("mlx.rope.default", "base"), Some(Literal::Float(500_000.0)));
}

#[test]
fn effects() {
    assert!(op!("aten.add_.Tensor").mutates() && !op!("aten.add.Tensor").mutates());
    assert!(op!("aten.view.default").is_view() && op!("aten.reshape.default").is_view());
    assert!(!op!("aten.add_.Tensor").is_view() && !op!("aten.view_copy.default").is_view());
    assert!(op!("aten.rand.default").is_random() && op!("aten.dropout.default").is_random() && op!("mlx.sample.default").is_random());
    for target in
        ["aten._assert_scalar.default", "aten._assert_tensor_metadata.default", "aten._print.default", "kvcache.update_and_attend.default"]
    {
        assert!(known(target).has_side_effects() && !known(target).is_pure(), "{target}");
    }
    for target in ["aten.mm.default", "_operator.add", "aten.sym_size.int", "aten.view.default", "aten.item.default", "mlx.rope.default"] {
        assert!(known(target).is_pure(), "{target}");
    }
    assert!(!op!("aten.batch_norm.default").is_pure() && !op!("higher_order.cond").is_pure() && !KV.is_pure());
    assert!(op!("aten.transpose_.default").is_inplace_view() && op!("aten.mm.default").is_core() && op!("aten.mul.Tensor").is_pointwise());
    for (target, TrainingMutation { flag, args }) in OpId::all().filter_map(|op| Some((op.target(), op.training_mutation()?))) {
        let schema = known(target).schema();
        assert_eq!(schema.arg(flag).map(|a| &a.ty), Some(&ArgType::Bool), "{target}");
        assert!(args.iter().all(|a| schema.arg(a).is_some()), "{target}");
    }
    assert_eq!(OpId::all().filter(|op| op.training_mutation().is_some()).count(), 4);
}

#[test]
fn relatives() {
    let to = |target: &str| known(target).inplace_to_functional().map(OpId::target);
    assert_eq!(to("aten.add_.Tensor"), Some("aten.add.Tensor"));
    assert_eq!(to("aten.copy_.default"), Some("aten.copy.default"));
    assert_eq!(to("aten.index_copy_.default"), Some("aten.index_copy.default"));
    assert_eq!(to("aten.__iand__.Tensor"), Some("aten.__and__.Tensor"));
    assert_eq!(to("aten.pow_.Scalar"), Some("aten.pow.Tensor_Scalar"));
    assert_eq!(to("aten.dropout_.default"), Some("aten.dropout.default"));
    assert_eq!(to("aten.detach_.default"), Some("aten.detach.default"));
    assert_eq!(to("aten.rrelu_with_noise_.default"), None);
    assert_eq!(to("aten.add.Tensor"), None);
    // The whole list of what has no functional form of torch's own: it must not grow unnoticed.
    let without: Vec<_> = OpId::all()
        .filter(|op| {
            op.target().starts_with("aten.") && op.schema().name.ends_with('_') && op.mutates() && op.inplace_to_functional().is_none()
        })
        .map(OpId::target)
        .collect();
    assert_eq!(
        without,
        [
            "aten._fill_mem_eff_dropout_mask_.default",
            "aten.fill_diagonal_.default",
            "aten.polygamma_.default",
            "aten.rrelu_with_noise_.default",
            "aten.set_.source_Tensor_storage_offset",
        ]
    );

    let copy = |target: &str| known(target).view_to_copy().map(OpId::target);
    assert_eq!(copy("aten.view.default"), Some("aten.view_copy.default"));
    assert_eq!(copy("aten.slice.Tensor"), Some("aten.slice_copy.Tensor"));
    assert_eq!(copy("aten.split_with_sizes.default"), Some("aten.split_with_sizes_copy.default"));
    assert_eq!(copy("aten.reshape.default"), None);
    assert_eq!(op!("aten.t_copy.default").copy_to_view(), Some(op!("aten.t.default")));
    for target in ["aten.index_copy.default", "aten._to_copy.default", "aten.view.default", "aten.lift_fresh_copy.default"] {
        assert_eq!(known(target).copy_to_view(), known(target).copy_to_view().filter(|v| v.is_view()), "{target}");
    }
    assert_eq!(op!("aten.index_copy.default").copy_to_view(), None);
    assert_eq!(op!("aten._to_copy.default").copy_to_view(), None);
}

#[test]
fn functional_twins() {
    let twin = KV.functional().unwrap();
    assert_eq!(twin.target(), "mlx.kv_cache_update.default_functional");
    assert_eq!(OpId::lookup("torch.ops.mlx.kv_cache_update.default_functional"), Some(twin));
    assert_eq!(op!("mlx.kv_cache_update.default_functional"), twin);
    assert_eq!(
        twin.schema().to_string(),
        "mlx.kv_cache_update.default_functional(Tensor cache, Tensor new_values, SymInt start_pos, SymInt ring_size=0) -> (Tensor, Tensor cache_out)"
    );
    assert!(twin.is_pure() && !twin.mutates() && twin.functional().is_none());
    assert_eq!((twin.functional_of(), KV.functional_of()), (Some(KV), None));
    let names: Vec<_> =
        known("llama.sdpa_with_kv_cache.default").functional().unwrap().schema().returns.iter().map(|r| r.name.as_deref()).collect();
    assert_eq!(names, [None, Some("key_cache_out"), Some("value_cache_out")]);
    let norm = op!("aten._native_batch_norm_legit.default").functional();
    assert_eq!(norm, Some(op!("aten._native_batch_norm_legit_functional.default")));
    assert_eq!(op!("aten.add.Tensor").functional(), None);
    assert_eq!(OpId::lookup("aten.add.Tensor_functional"), None);
    assert_eq!(OpId::of("aten.add.Tensor_functional"), OpId::UNKNOWN);
    for op in OpId::all() {
        let Some(twin) = op.functional() else { continue };
        assert_eq!(OpId::lookup(twin.target()), Some(twin));
        assert_eq!(twin.schema().returns.len(), op.schema().returns.len() + op.schema().mutated_args().count(), "{op}");
        assert!(twin.schema().same_arguments(op.schema()), "{op}");
    }
}

#[test]
fn out_variants() {
    let out = |target: &str| known(target).schema().traits.out.clone().map(|o| (o.overload, o.without_options));
    assert_eq!(out("aten.add.Tensor"), Some(("out".to_owned(), false)));
    assert_eq!(out("aten.full.default"), Some(("out".to_owned(), true)));
    assert_eq!(out("aten.sum.dim_IntList"), Some(("IntList_out".to_owned(), false)));
    assert_eq!(out("aten.view.default"), None);
    assert_eq!(OpId::of_out_variant("aten::add.out"), Some(known("aten.add.Tensor")));
    assert_eq!(OpId::of_out_variant("aten::sum.IntList_out"), Some(known("aten.sum.dim_IntList")));
    assert_eq!(OpId::of_out_variant("aten::add.Tensor"), None);
    assert_eq!(OpId::of_out_variant("aten::add"), None);
}

#[test]
fn own_operators() {
    let scale = OpId::register("test_own::scale(Tensor x, float factor=2, *, bool exact=False) -> Tensor ; pointwise").unwrap();
    assert_eq!(OpId::lookup("torch.ops.test_own.scale.default"), Some(scale));
    assert_eq!(scale.target(), "test_own.scale.default");
    assert_eq!(default("test_own.scale.default", "factor"), Some(Literal::Float(2.0)));
    assert!(scale.is_pure() && scale.is_pointwise());
    assert_eq!(OpId::register(&scale.schema().to_string()).unwrap(), scale);
    let error = OpId::register("test_own::scale(Tensor x) -> Tensor").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("test_own.scale.default"), "{error}");
    assert_eq!(OpId::register(table::line(0)).unwrap(), OpId(0));
    assert!(OpId::register("aten::add.Tensor(Tensor x) -> Tensor").is_err());
    assert!(OpId::register("test_own::scale_functional(Tensor x) -> Tensor").is_ok());
    assert!(OpId::register("test_own::scale.x_functional(Tensor x) -> Tensor").is_err());

    let store = OpId::register("test_own.store.default(Tensor(a!)? state, Tensor x) -> ()").unwrap();
    let twin = OpId::lookup("test_own.store.default_functional").unwrap();
    assert_eq!(store.functional(), Some(twin));
    assert_eq!(twin.schema().to_string(), "test_own.store.default_functional(Tensor? state, Tensor x) -> Tensor? state_out");
    assert_eq!(OpId::lookup("test_own.scale.default_functional"), None);
}

#[test]
fn registering_from_many_threads_agrees() {
    let line = "test_threads::f(Tensor x) -> Tensor";
    let ids: Vec<OpId> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..8).map(|_| scope.spawn(|| OpId::register(line).unwrap())).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0] && id.schema().args.len() == 1));
}

#[test]
fn malformed_lines_are_errors() {
    let deep = format!("a::b(int{} x) -> ()", "[]".repeat(100_000));
    let brackets = format!("a::b(int[] x={}) -> ()", "[".repeat(30_000));
    let long = format!("a::b({}) -> ()", "int x, ".repeat(20_000));
    let huge_list = "a::b(int[4294967295] x=0) -> ()";
    for line in [
        "",
        "(",
        "a",
        "a::b",
        "a::b(",
        "a::b()",
        "a::b() ->",
        "a::b() -> (",
        "::() -> ()",
        "a::() -> ()",
        "::b() -> ()",
        "b() -> ()",
        "a::b::c() -> ()",
        "a..b.c() -> ()",
        "a::b(Tensor) -> ()",
        "a::b(Tensr x) -> ()",
        "a::b(int x=) -> ()",
        "a::b(int x=1.5) -> ()",
        "a::b(int x=None) -> ()",
        "a::b(int x=99999999999999999999) -> ()",
        "a::b(str x=\") -> ()",
        "a::b(str x=\"\\q\") -> ()",
        "a::b(ScalarType x=13) -> ()",
        "a::b(ScalarType x=999) -> ()",
        "a::b(MemoryFormat x=7) -> ()",
        "a::b(int x, int x) -> ()",
        "a::b(int x int y) -> ()",
        "a::b(*, *, int x) -> ()",
        "a::b(Tensor(a x) -> ()",
        "a::b(int[ x) -> ()",
        "a::b(Generator x=1) -> ()",
        "a::b() -> Tensor ; wild",
        "a::b() -> Tensor Tensor Tensor",
        "a::b() -> () é",
        "é::b() -> ()",
        "a::b(é x) -> ()",
        "a::b(str x=\"é) -> ()",
        huge_list,
        &deep,
        &brackets,
        &long,
    ] {
        let shown: String = line.chars().take(60).collect();
        let error = parse::parse(line).err().unwrap_or_else(|| panic!("accepted: {shown}"));
        assert_eq!(error.kind(), ErrorKind::Format, "{shown}");
    }
    // A line of the files with any one character replaced is an error, unless the character was in a quoted default.
    for id in (0..table::LEN as u32).step_by(37) {
        let line = table::line(id);
        for cut in 0..line.len() {
            let damaged = format!("{}é{}", &line[..cut], &line[cut + 1..]);
            if let Ok(schema) = parse::parse(&damaged) {
                let quoted = |a: &ArgSpec| matches!(&a.default, Some(Literal::Str(s)) if s.contains('é'));
                assert!(schema.args.iter().any(quoted), "{damaged}");
            }
            assert!(parse::parse(&line[..cut]).is_err() || line[..cut].contains("->"), "{}", &line[..cut]);
        }
    }
}

fn call<'a>(args: &[(&'a str, u8, i32)]) -> Vec<(&'a str, ArgKind, i32)> {
    args.iter().map(|(name, kind, x)| (*name, ArgKind::from_pt2_code(i64::from(*kind)).unwrap(), *x)).collect()
}

#[test]
fn binding() {
    let sdpa = op!("aten.scaled_dot_product_attention.default").schema();
    // As torch writes it, whatever the kind; dropped defaults stay empty.
    let bound = bind(sdpa, call(&[("query", 1, 0), ("key", 1, 1), ("value", 1, 2), ("is_causal", 1, 5), ("enable_gqa", 2, 7)])).unwrap();
    assert_eq!(bound.args, [Some(0), Some(1), Some(2), None, None, Some(5), None, Some(7)]);
    // Names decide, not order.
    assert_eq!(bind(sdpa, call(&[("value", 0, 2), ("query", 0, 0), ("key", 0, 1)])).unwrap().args[..3], [Some(0), Some(1), Some(2)]);
    // Edge `_ops` style: unnamed positional arguments, then keywords.
    let bound = bind(sdpa, call(&[("", 1, 0), ("", 1, 1), ("", 1, 2), ("scale", 2, 6)])).unwrap();
    assert_eq!(bound.args, [Some(0), Some(1), Some(2), None, None, None, Some(6), None]);

    let problems = |args: &[(&str, u8, i32)]| bind(sdpa, call(args)).unwrap_err().problems;
    assert_eq!(
        problems(&[("query", 1, 0), ("query", 1, 0), ("nope", 2, 0), ("key", 1, 0)]),
        [
            BindProblem::Duplicate("query".to_owned()),
            BindProblem::Unknown("nope".to_owned()),
            BindProblem::Missing("value".to_owned(), ArgType::Tensor)
        ]
    );
    assert_eq!(problems(&[("", 1, 0); 9]), [BindProblem::TooMany(6)]);
    assert_eq!(problems(&[("query", 1, 0), ("key", 1, 0), ("value", 1, 0), ("", 2, 0)]), [BindProblem::Unknown(String::new())]);
    let error = bind(sdpa, call(&[("query", 1, 0), ("key", 1, 0)])).unwrap_err();
    assert_eq!(error.to_string(), "call of aten.scaled_dot_product_attention.default: argument `value` (Tensor) is missing");

    let autocast = op!("higher_order.wrap_with_autocast").schema();
    let bound = bind(autocast, call(&[("", 1, 0), ("", 1, 1), ("", 1, 2), ("", 1, 3), ("", 1, 4), ("", 1, 5), ("", 1, 6)])).unwrap();
    assert_eq!((bound.args.len(), bound.extra.len()), (5, 2));
    let wrapped = op!("higher_order.auto_functionalized_v2").schema();
    let bound = bind(wrapped, call(&[("", 1, 0), ("start_pos", 2, 1), ("_all_bases", 2, 2)])).unwrap();
    assert_eq!(bound.extra[1], ("_all_bases".to_owned(), ArgKind::Keyword, 2));
}
