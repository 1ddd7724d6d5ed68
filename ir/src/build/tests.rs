use super::*;
use crate::sym::{Range, Symbol};

fn e(text: &str) -> Expr {
    Expr::parse(text).unwrap()
}

fn tensor(dtype: DType, sizes: &[&str]) -> Type {
    Type::Tensor(TensorType::new(dtype, sizes.iter().map(|n| e(n)).collect()))
}

fn ranges() -> Ranges {
    let mut r = Ranges::default();
    r.0.insert(Symbol::new("s0").unwrap(), Range { min: Some(2), max: Some(64) });
    r
}

fn listing(g: &Graph) -> Vec<String> {
    let arg = |a: &Arg| match a {
        Arg::Value(v) => g.value(*v).name.to_string(),
        Arg::Int(n) => n.to_string(),
        Arg::List(items) => format!(
            "{:?}",
            items.iter().map(|i| i.as_value().map_or(format!("{i:?}"), |v| g.value(v).name.to_string())).collect::<Vec<_>>()
        ),
        other => format!("{other:?}"),
    };
    g.nodes().map(|(_, n)| format!("{} = {}({})", n.name, n.op, n.args.iter().map(arg).collect::<Vec<_>>().join(", "))).collect()
}

#[test]
fn defaults_are_filled_in_and_numbers_spelled_as_the_schema_does() {
    let args = complete(crate::op!("aten.add.Tensor"), crate::args![1, 2], []).unwrap();
    assert_eq!(args, crate::args![1, 2, 1]);
    let args = complete(crate::op!("aten.dropout.default"), crate::args![0, 1, false], []).unwrap();
    assert_eq!(args, crate::args![0, 1.0, false]);
    let args = complete(crate::op!("aten.avg_pool2d.default"), crate::args![0, 3], [("ceil_mode", true.into())]).unwrap();
    assert_eq!(args, crate::args![0, [3, 3], Vec::<i64>::new(), [0, 0], true, true, None::<i64>]);
    let e = complete(crate::op!("aten.add.Tensor"), crate::args![1], [("beta", 1.into())]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(e.to_string().contains("unknown argument `beta`") && e.to_string().contains("`other` (Tensor) is missing"), "{e}");
}

#[test]
fn a_call_is_replaced_by_a_formula() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["s0", "8"]));
    let source = Some(Arc::new(Source { file: "m.py".into(), line: 7, function: "f".into(), module: "".into() }));
    let silu =
        g.append(crate::op!("aten.silu.default"), crate::args![x], "silu", vec![("silu", tensor(DType::Float32, &["s0", "8"]))], source);
    let y = g.node(silu).outputs[0];
    g.set_outputs(vec![y.into()]);
    let mut b = Builder::before(&mut g, &r, silu);
    let gate = b.sigmoid(x).unwrap();
    let product = b.mul(x, gate).unwrap();
    b.replace(silu, &[product]).unwrap();
    assert_eq!(listing(&g), ["sigmoid = aten.sigmoid.default(x)", "mul = aten.mul.Tensor(x, sigmoid)"]);
    assert_eq!(g.outputs(), [Arg::Value(product)]);
    assert!(g.nodes().all(|(_, n)| n.source.as_ref().is_some_and(|s| s.line == 7)));
}

#[test]
fn a_replacement_keeps_the_recorded_sizes() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["s0"]));
    let op = crate::op!("aten.narrow.default");
    let narrow = g.append(op, crate::args![x, 0, 0, 3], "narrow", vec![("narrow", tensor(DType::Float32, &["3"]))], None);
    let y = g.node(narrow).outputs[0];
    g.set_outputs(vec![y.into()]);
    let mut b = Builder::before(&mut g, &r, narrow);
    let slice = b.slice(x, 0, 0, 3).unwrap();
    assert_eq!(b.shape(slice).unwrap(), [e("Min(3, s0)")]);
    b.replace(narrow, &[slice]).unwrap();
    assert_eq!(*g.ty(slice), tensor(DType::Float32, &["3"]));
}

#[test]
fn a_replacement_of_another_type_is_refused() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["s0", "8"]));
    let relu =
        g.append(crate::op!("aten.relu.default"), crate::args![x], "relu", vec![("relu", tensor(DType::Float32, &["s0", "8"]))], None);
    let y = g.node(relu).outputs[0];
    g.set_outputs(vec![y.into()]);
    let mut b = Builder::before(&mut g, &r, relu);
    let half = b.cast(x, DType::Float16).unwrap();
    assert_eq!(b.replace(relu, &[half]).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(g.contains(relu));
}

#[test]
fn what_changes_nothing_is_not_written() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["s0", "8"]));
    let mut b = Builder::at_end(&mut g, &r);
    assert_eq!(b.cast(x, DType::Float32).unwrap(), x);
    assert_eq!(b.view(x, vec![e("s0"), e("8")]).unwrap(), x);
    assert_eq!(b.expand(x, &[e("s0"), e("8")], &[]).unwrap(), x);
    assert_eq!(b.cat(&[x], 0).unwrap(), x);
    assert!(g.is_empty());
}

#[test]
fn one_symbolic_size_of_a_view_is_left_open_and_two_are_computed() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["s0", "s1", "8"]));
    let mut b = Builder::at_end(&mut g, &r);
    b.view(x, vec![e("8*s0*s1")]).unwrap();
    let v = b.view(x, vec![e("s1"), e("s0"), e("8")]).unwrap();
    b.view(x, vec![e("s0"), e("2*s1"), e("4")]).unwrap();
    assert_eq!(b.shape(v).unwrap(), [e("s1"), e("s0"), e("8")]);
    assert_eq!(
        listing(&g),
        [
            r#"view = aten.view.default(x, ["Int(-1)"])"#,
            "sym_size = aten.sym_size.int(x, 1)",
            "sym_size_1 = aten.sym_size.int(x, 0)",
            r#"view_1 = aten.view.default(x, ["sym_size", "sym_size_1", "Int(8)"])"#,
            "mul = _operator.mul(2, sym_size)",
            r#"view_2 = aten.view.default(x, ["sym_size_1", "mul", "Int(4)"])"#,
        ]
    );
}

#[test]
fn sizes_are_computed_from_what_is_there() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["4*s0 + 2"]));
    let n = g.add_input("n", Type::Int(e("u0")));
    let mut b = Builder::at_end(&mut g, &r);
    assert_eq!(b.dim_arg(&e("u0"), &[]).unwrap(), Arg::Value(n));
    let size = b.dim_arg(&e("Max(1, s0//2 - u0 + 3)"), &[x]).unwrap().as_value().unwrap();
    assert_eq!(b.dim_arg(&e("Max(1, s0//2 - u0 + 3)"), &[]).unwrap(), Arg::Value(size));
    assert_eq!(*b.graph().ty(size), Type::Int(e("Max(1, s0//2 - u0 + 3)")));
    assert!(b.dim_arg(&e("s9"), &[x]).unwrap_err().to_string().contains("s9"));
    assert_eq!(
        listing(&g)[..3],
        ["sym_size = aten.sym_size.int(x, 0)", "sub = _operator.sub(sym_size, 2)", "floordiv = _operator.floordiv(sub, 4)"]
    );
}

#[test]
fn numbers_choose_their_overloads() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::BFloat16, &["s0"]));
    let mut b = Builder::at_end(&mut g, &r);
    let big = b.gt(x, 0.5).unwrap();
    let y = b.pow(x, 2).unwrap();
    let z = b.choose(big, y, 0.0).unwrap();
    let w = b.sub(1.0, z).unwrap();
    assert_eq!(*b.graph().ty(w), tensor(DType::BFloat16, &["s0"]));
    let ops: Vec<&str> = g.nodes().map(|(_, n)| n.op.target()).collect();
    assert_eq!(ops, ["aten.gt.Scalar", "aten.pow.Tensor_Scalar", "aten.full.default", "aten.where.self", "aten.sub.Tensor"]);
}

#[test]
fn a_refused_call_leaves_the_graph_alone() {
    let (mut g, r) = (Graph::new(), ranges());
    let x = g.add_input("x", tensor(DType::Float32, &["2", "3"]));
    let mut b = Builder::at_end(&mut g, &r);
    assert_eq!(b.matmul(x, x).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(b.call(crate::op!("aten.split.Tensor"), crate::args![x, 1]).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(g.is_empty());
}
