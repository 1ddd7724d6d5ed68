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
}

#[test]
fn text_reads_back_to_the_same_value() {
    for text in ["s0", "-3", "2*s0*s1 - s2 + 4", "FloorDiv(s0 + 1, 3) - 7", "Le(u0, 126)", "Max(1, s0)", "Mod(s3, 4)*2", "-s0 - 1", "0.5", "-9223372036854775808", "FloatPow(s0, 0.5)"] {
        let x = e(text);
        assert_eq!(e(&x.to_string()), x, "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_its_place() {
    for text in ["", "s0 +", "Foo(1)", "Symbol(s0)", "(((", "1 2", "Max()", "Integer(1, 2)"] {
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
    assert_eq!(r.bounds(&e("u0 % 16")), Range { min: Some(0), max: Some(15) });
    assert_eq!(r.equal(&e("s0 + u0"), &e("u0 + s0")), Some(true));
    assert_eq!(r.equal(&e("s0"), &e("9")), Some(false));
    assert_eq!(r.equal(&e("s0"), &e("4")), None);
    assert_eq!(r.at_most(&e("s0"), &e("u0 + 8")), Some(true));
    assert_eq!(r.bounds(&e("s9")), Range { min: Some(0), max: None });
}
