//! What is added to instructions that do not answer as torch does, and where it is left out.

use super::{lowered, main_names};

fn names(inputs: &str, made: &str) -> Vec<String> {
    let (_, p) = lowered(&format!("etir 1\nmethod \"forward\" functional {{\n{inputs}\n{made}\nreturn %y\n}}"));
    main_names(&p).iter().map(ToString::to_string).collect()
}

#[test]
fn rows_of_a_mask_are_looked_at_where_one_may_be_hidden_whole() {
    let attention = |symbols: &str, mask: &str| {
        let inputs = format!("{symbols}\ninput %x : f32[1, 2, 4, 8] = user\ninput %m : f32[4, 4] = user\ninput %b : bool[4, 4] = user");
        let call = "%y : f32[1, 2, 4, 8] = aten.scaled_dot_product_attention.default(%x, %x, %x, attn_mask=%a)";
        let names = names(&inputs, &format!("{mask}\n{call}"));
        names.iter().any(|n| n == "Max")
    };
    let low = "%l : f32[] = aten.full.default([], -3.4e38, dtype=f32)";
    let none = "%n : f32[4, 4] = aten.full.default([4, 4], -inf, dtype=f32)";
    let zero = "%z : f32[4, 4] = aten.full.default([4, 4], 0.0, dtype=f32)";
    let places = "%i : i64[4] = aten.arange.start_step(0, 4, 1, dtype=i64)\n%r : i64[4, 1] = aten.unsqueeze.default(%i, 1)";
    for (hides, mask) in [
        (true, "%a : f32[4, 4] = aten.mul.Tensor(%m, 2.0)".to_owned()),
        (true, format!("{none}\n{zero}\n%a : f32[4, 4] = aten.where.self(%b, %n, %z)")),
        (false, format!("{low}\n{zero}\n%a : f32[4, 4] = aten.where.self(%b, %l, %z)")),
        // Twice the lowest number is minus infinity.
        (true, format!("{low}\n{zero}\n%w : f32[4, 4] = aten.where.self(%b, %l, %z)\n%a : f32[4, 4] = aten.add.Tensor(%w, %w)")),
        (false, format!("{none}\n%a : f32[4, 4] = aten.triu.default(%n, 1)")),
        (true, format!("{none}\n%a : f32[4, 4] = aten.triu.default(%n, 0)")),
        (true, format!("{none}\n%t : f32[4, 4] = aten.triu.default(%n, 1)\n%a : f32[4, 4] = aten.add.Tensor(%t, %m)")),
        (
            false,
            format!("{none}\n{zero}\n{places}\n%c : bool[4, 4] = aten.le.Tensor(%i, %r)\n%a : f32[4, 4] = aten.where.self(%c, %z, %n)"),
        ),
        (
            false,
            format!("{none}\n{zero}\n{places}\n%c : bool[4, 4] = aten.gt.Tensor(%i, %r)\n%a : f32[4, 4] = aten.where.self(%c, %n, %z)"),
        ),
        (true, format!("{none}\n{zero}\n{places}\n%c : bool[4, 4] = aten.lt.Tensor(%i, %r)\n%a : f32[4, 4] = aten.where.self(%c, %z, %n)")),
        (false, "%a : f32[4, 4] = aten.sigmoid.default(%m)".to_owned()),
    ] {
        assert_eq!(attention("", &mask), hides, "{mask}");
    }
}

#[test]
fn halves_are_added_up_in_singles_from_three_terms_on() {
    let of = |n: u32, call: &str| names(&format!("input %x : bf16[4, {n}] = user"), &format!("%y : bf16[4] = {call}"));
    for call in ["aten.sum.dim_IntList(%x, [1])", "aten.mean.dim(%x, [1])", "aten.prod.dim_int(%x, 1)"] {
        // The delegate rounds what it returns.
        assert_eq!(of(3, call).len(), 2, "{call}");
        assert_eq!(of(2, call).len(), 1, "{call}");
    }
    assert_eq!(of(9, "aten.logsumexp.default(%x, [1])"), ["LogSumExp"]);
    let columns = names("input %x : bf16[4, 9] = user", "%y : bf16[9] = aten.logsumexp.default(%x, [0])");
    assert_eq!(columns, ["AsType", "LogSumExp"]);
}

#[test]
fn integer_powers_see_no_negative_exponent() {
    let of = |exponent: &str| {
        names(&format!("input %x : i64[3] = user\ninput %e : {exponent}[3] = user"), "%y : i64[3] = aten.pow.Tensor_Tensor(%x, %e)")
    };
    assert!(of("i64").contains(&"BitwiseAnd".to_owned()));
    assert!(!of("u8").contains(&"BitwiseAnd".to_owned()));
    let base = |b: &str| names("input %e : i64[3] = user", &format!("%y : i64[3] = aten.pow.Scalar({b}, %e)"));
    assert_eq!(base("-1"), ["BitwiseAnd", "Power"]);
    assert_eq!(base("2"), ["BitwiseAnd", "Less", "Where", "Power", "Where"]);
}

#[test]
fn places_of_what_may_be_nan_are_looked_for() {
    let of = |t: &str| names(&format!("input %x : {t}[3, 4] = user"), "%y : i64[3] = aten.argmax.default(%x, 1)");
    assert_eq!(of("f32")[..5], ["Max", "Equal", "NotEqual", "LogicalOr", "Argmax"]);
    assert_eq!(of("i32")[..1], ["Argmax"]);
}
