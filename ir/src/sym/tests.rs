use super::*;

fn e(text: &str) -> Expr {
    Expr::parse(text).unwrap()
}

#[test]
fn equal_by_arithmetic_is_equal_by_structure() {
    assert_eq!(e("2*(s0 + 1) - 2"), e("s0 + s0"));
    assert_eq!(e("(s0 + 1)*(s0 - 1)"), e("s0*s0 - 1"));
    assert_eq!(e("(8*s0 + 3)//4"), e("2*s0"));
    assert_eq!(e("(4*s0*s1)//(2*s0)"), e("2*s1"));
    assert_eq!(e("(4*s0 + 7) % 4"), e("3"));
    assert_eq!(e("Max(s0, 3, Max(2, s0))"), e("Max(3, s0)"));
    assert_eq!(e("(s0 - 1)//2 + 1"), e("(s0 + 1)//2"));
    assert_eq!(e("s0 + (-s0)//2"), e("s0//2"));
    assert_eq!(e("((s0 - 1)//2 + 2)//2"), e("(s0 + 3)//4"));
    assert_eq!(e("(-s0 + 3) % 2"), e("(s0 + 1) % 2"));
    assert_eq!(e("-7 // 2"), Expr::Int(-4));
    assert_eq!(e("-7 % 3"), Expr::Int(2));
    assert_eq!(e("7 % -3"), Expr::Int(-2));
    assert_eq!(e("s0 - s0 <= 0"), Expr::Bool(true));
}

#[test]
fn srepr_of_sympy_is_read() {
    let srepr = "Add(Mul(Integer(-1), Symbol('u0', integer=True)), FloorDiv(Symbol('s77', positive=True, integer=True), Integer(2)))";
    assert_eq!(e(srepr), e("s77//2 - u0"));
    assert_eq!(e("GreaterThan(Symbol('u0', integer=True), Integer(0))"), e("0 <= u0"));
    // A truth value taken out of a tensor, as a number.
    let pieces = "Piecewise(ExprCondPair(Integer(1), Equality(Symbol('u0', integer=True), Integer(1))), ExprCondPair(Integer(0), true))";
    assert_eq!(e(pieces), e("Where(Eq(u0, 1), 1, 0)"));
}

#[test]
fn every_function_of_the_schema_is_read_and_computed() {
    let at = |s: &Symbol| match s.name() {
        "s0" => Some(7),
        "u0" => Some(-7),
        _ => None,
    };
    let (s0, u0) = ("Symbol('s0', positive=True, integer=True)", "Symbol('u0', integer=True)");
    let whole = |text: &str| text.replace('@', s0).replace('$', u0).replace('#', "Integer");
    let value = |text: &str| e(&whole(text)).eval(&at);
    for (text, expected) in [
        ("Add(@, #(-3), $)", -3),
        ("Mul(#(-1), @, #(2))", -14),
        ("Pow($, #(3))", -343),
        ("PowByNatural($, #(2))", 49),
        ("FloorDiv($, #(2))", -4),
        ("CleanDiv(Mul(#(2), @), #(2))", 7),
        ("CeilDiv($, #(2))", -3),
        ("Mod(@, #(4))", 3),
        ("PythonMod($, #(4))", 1),
        ("PythonMod(@, #(-4))", -1),
        ("ModularIndexing(@, #(2), #(2))", 1),
        ("Max(#(0), $, #(3))", 3),
        ("Min(@, $)", -7),
        ("Abs($)", 7),
        ("Identity(@)", 7),
        ("LShift(@, #(2))", 28),
        ("RShift($, #(1))", -4),
        ("TruncToInt(IntTrueDiv($, #(2)))", -3),
        ("FloorToInt(FloatTrueDiv(ToFloat($), Float('2.0', precision=53)))", -4),
        ("CeilToInt(Mul(Rational(1, 2), @))", 4),
        ("RoundToInt(IntTrueDiv(@, #(2)))", 4),
        ("RoundToInt(IntTrueDiv(Add(@, #(-2)), #(2)))", 2),
        ("BitwiseFn_bitwise_and(@, #(3))", 3),
        ("BitwiseFn_bitwise_or(@, #(8))", 15),
        ("BitwiseFn_bitwise_xor(@, #(1))", 6),
        ("Where(StrictLessThan($, #(0)), @, #(1))", 7),
        ("Piecewise(ExprCondPair(#(1), StrictGreaterThan($, @)), ExprCondPair(#(2), Equality(@, #(7))), ExprCondPair(#(3), true))", 2),
        ("Piecewise(ExprCondPair(@, true))", 7),
        ("IsNonOverlappingAndDenseIndicator(#(2), @, @, #(1))", 1),
        ("IsNonOverlappingAndDenseIndicator(#(2), @, #(8), #(1))", 0),
    ] {
        assert_eq!(value(text), Some(Num::Int(expected)), "{text}");
    }
    for (text, expected) in [
        ("Equality(@, #(7))", true),
        ("Unequality(@, #(7))", false),
        ("GreaterThan(@, $)", true),
        ("LessThan(@, $)", false),
        ("StrictGreaterThan(@, @)", false),
        ("And(true, StrictLessThan($, @), Not(false))", true),
        ("Or(false, LessThan(oo, ToFloat(@)))", false),
        ("LessThan(ToFloat(@), int_oo)", true),
        ("LessThan(-oo, ToFloat($))", true),
    ] {
        assert_eq!(value(text), Some(Num::Bool(expected)), "{text}");
    }
    let half = 0.5f64;
    for (text, expected) in [
        ("Pow(@, #(-1))", 1.0 / 7.0),
        ("FloatPow(ToFloat(@), Float('-0.5', precision=53))", 7f64.powf(-0.5)),
        ("TruncToFloat(Float('-2.5', precision=53))", -2.0),
        ("RoundDecimal(Float('2.675', precision=53), #(1))", 2.7),
        ("Mod(Float('-0.5', precision=53), Float('2.0', precision=53))", 1.5),
        ("OpaqueUnaryFn_sqrt(@)", 7f64.sqrt()),
        ("OpaqueUnaryFn_sin(@)", 7f64.sin()),
        ("OpaqueUnaryFn_cos(@)", 7f64.cos()),
        ("OpaqueUnaryFn_tan(@)", 7f64.tan()),
        ("OpaqueUnaryFn_sinh(@)", 7f64.sinh()),
        ("OpaqueUnaryFn_cosh(@)", 7f64.cosh()),
        ("OpaqueUnaryFn_tanh(@)", 7f64.tanh()),
        ("OpaqueUnaryFn_asin(Float('0.5', precision=53))", half.asin()),
        ("OpaqueUnaryFn_acos(Float('0.5', precision=53))", half.acos()),
        ("OpaqueUnaryFn_atan(@)", 7f64.atan()),
        ("OpaqueUnaryFn_asinh(@)", 7f64.asinh()),
        ("OpaqueUnaryFn_exp(@)", 7f64.exp()),
        ("OpaqueUnaryFn_log(@)", 7f64.ln()),
        ("OpaqueUnaryFn_log2(@)", 7f64.log2()),
    ] {
        assert_eq!(value(text), Some(Num::Float(expected)), "{text}");
    }
    for wrong in ["Piecewise(ExprCondPair(#(1), StrictGreaterThan($, @)))", "Piecewise(@)", "Piecewise()", "ExprCondPair(@)"] {
        assert!(Expr::parse(&whole(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn text_reads_back_to_the_same_value() {
    for text in [
        "s0",
        "-3",
        "2*s0*s1 - s2 + 4",
        "FloorDiv(s0 + 1, 3) - 7",
        "Le(u0, 126)",
        "Max(1, s0)",
        "Mod(s3, 4)*2",
        "-s0 - 1",
        "0.5",
        "-9223372036854775808",
        "FloatPow(s0, 0.5)",
    ] {
        let x = e(text);
        assert_eq!(e(&x.to_string()), x, "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_its_place() {
    let perhaps = "Piecewise(ExprCondPair(Integer(1), Symbol('u0')))";
    for text in ["", "s0 +", "Foo(1)", "Symbol(s0)", "(((", "1 2", "Max()", "Integer(1, 2)", "Piecewise()", "Piecewise(1)", perhaps] {
        assert!(Expr::parse(text).is_err(), "{text}");
    }
    assert!(Expr::parse(&"(".repeat(100_000)).is_err());
    assert!(Expr::parse(&"-".repeat(100_000)).is_err());
    assert!(Expr::parse("s0 $").unwrap_err().contains("byte 3"));
}

#[test]
fn overflow_stays_a_call() {
    let big = e("9223372036854775807*s0");
    let sum = big.plus(&big);
    assert!(matches!(sum, Expr::Call(Func::Sum, _)));
    assert_eq!(sum.eval_int(&|_| Some(0)), Some(0));
    assert_eq!(sum.eval_int(&|_| Some(1)), None);
    assert_eq!(e("9223372036854775807 + 1").eval_int(&|_| None), None);
}

#[test]
fn bounds_follow_the_ranges() {
    let mut r = Ranges::default();
    r.0.insert(Symbol::new("s0").unwrap(), Range { min: Some(2), max: Some(8) });
    r.0.insert(Symbol::new("u0").unwrap(), Range { min: Some(0), max: Some(126) });
    assert_eq!(r.bounds(&e("3*s0 - 1")), Range { min: Some(5), max: Some(23) });
    assert_eq!(r.bounds(&e("1 - s0")), Range { min: Some(-7), max: Some(-1) });
    assert_eq!(r.bounds(&e("s0*s0")), Range { min: Some(4), max: Some(64) });
    assert_eq!(r.bounds(&e("(s0 - 5)//2")), Range { min: Some(-2), max: Some(1) });
    assert_eq!(r.bounds(&e("(-s0)//2")), Range { min: Some(-4), max: Some(-1) });
    assert_eq!(r.bounds(&e("s0 - s0//2")), Range { min: Some(1), max: Some(4) });
    assert_eq!(r.bounds(&e("u0 % 16")), Range { min: Some(0), max: Some(15) });
    assert_eq!(r.equal(&e("s0 + u0"), &e("u0 + s0")), Some(true));
    assert_eq!(r.equal(&e("s0"), &e("9")), Some(false));
    assert_eq!(r.equal(&e("s0"), &e("4")), None);
    assert_eq!(r.at_most(&e("s0"), &e("u0 + 8")), Some(true));
    assert_eq!(r.bounds(&e("s9")), Range { min: Some(0), max: None });
}

#[test]
fn divisions_keep_their_value_in_canonical_form() {
    let floor = |a: i64, b: i64| a.div_euclid(b) - i64::from(b < 0 && a.rem_euclid(b) != 0);
    for (m, k, d, j, c) in (0..4000i64).map(|i| (i % 11 - 5, i % 7 - 3, i % 5 - 2, i % 3 - 1, i % 4 + 1)).filter(|t| t.2 != 0) {
        let once = Expr::sum([&e("s0").times(&m.into()), &k.into()]).floor_div(&d.into());
        let twice = once.plus(&j.into()).floor_div(&c.into());
        let rest = Expr::sum([&e("s0").times(&m.into()), &k.into()]).modulo(&d.into());
        for s in [0, 1, 2, 3, 7, 12] {
            let (at, n) = (|_: &Symbol| Some(s), m * s + k);
            assert_eq!(once.eval_int(&at), Some(floor(n, d)), "({m}*{s} + {k}) // {d}");
            assert_eq!(twice.eval_int(&at), Some(floor(floor(n, d) + j, c)), "(({m}*{s} + {k}) // {d} + {j}) // {c}");
            assert_eq!(rest.eval_int(&at), Some(n - d * floor(n, d)), "({m}*{s} + {k}) % {d}");
            let mut r = Ranges::default();
            r.0.insert(Symbol::new("s0").unwrap(), Range { min: Some(s), max: Some(s + 3) });
            for x in [&once, &twice] {
                let (b, v) = (r.bounds(x), x.eval_int(&at).unwrap());
                assert!(b.min.is_none_or(|m| m <= v) && b.max.is_none_or(|m| v <= m), "{x} at {s}: {v} is not in {b}");
            }
        }
    }
}

#[test]
fn awkward_numbers_and_names_read_back_too() {
    let floats = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, -f64::NAN, -0.0, -0.25, 1e300, 5e-324];
    let mut all: Vec<Expr> = floats.into_iter().map(Expr::float).collect();
    all.extend(["inf", "NaN", "True", "false"].map(|name| Expr::Sym(Symbol::new(name).unwrap())));
    all.extend([
        e("s0 - 0.25 + 0.5"),
        e("s0").plus(&Expr::Int(i64::MIN)),
        e("s0").times(&Expr::Int(i64::MIN)).plus(&e("u0")),
        e("0.0/0.0"),
    ]);
    for x in &all {
        assert_eq!(e(&x.to_string()), *x, "{x}");
        let sum = e("s1*s2 + 7").plus(x);
        assert_eq!(e(&sum.to_string()), sum, "{sum}");
        let product = e("s1 + 1").times(x);
        assert_eq!(e(&product.to_string()), product, "{product}");
    }
}

#[test]
fn arithmetic_at_the_limits_is_left_alone() {
    assert_eq!(e("-9223372036854775808 % -1"), Expr::Int(0));
    assert_eq!(e("(-9223372036854775808*s0) // (-1*s0)").eval_int(&|_| Some(1)), None);
    assert_eq!(e("-9223372036854775808 // -1").eval_int(&|_| None), None);
    let mut r = Ranges::default();
    r.0.insert(Symbol::new("s0").unwrap(), Range { min: Some(1), max: Some(0) });
    r.0.insert(Symbol::new("u0").unwrap(), Range { min: Some(1), max: Some(i64::MIN) });
    assert_eq!(r.bounds(&e("7 // s0")), Range::ANY);
    assert_eq!(r.bounds(&e("s1 % u0")).min, Some(0));
}

#[test]
fn a_few_characters_do_not_become_a_large_expression() {
    let (mut power, mut ceil, mut sums) = ("s0".to_owned(), "s0".to_owned(), "s0 // 7".to_owned());
    let sum = (0..60).map(|i| format!("s{i}")).collect::<Vec<_>>().join(" + ");
    for _ in 0..8 {
        power = format!("({power})**16");
        ceil = format!("CeilDiv(s8, CeilDiv(s9, {ceil}))");
        sums = format!("(({sums})*({sum})) // 7");
    }
    for text in [power, ceil, sums] {
        assert!(Expr::parse(&text).unwrap_err().contains("too large"), "{text}");
    }
    assert_eq!(e(&e("(s0**16)**16").to_string()), e("(s0**16)**16"));
    assert!(Expr::parse(&format!("s0{}", "//s1".repeat(1_000_000))).unwrap_err().contains("nested too deeply"));
    // Long but flat is only long.
    let long = (0..50_000).map(|i| format!("s{i}")).collect::<Vec<_>>().join(" + ");
    assert_eq!(e(&e(&long).to_string()), e(&long));
    assert!(Expr::parse(&vec!["s0"; 50_000].join("*")).is_err());
}
