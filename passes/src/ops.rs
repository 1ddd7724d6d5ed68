//! Choosing by operator. [`etx_ir::op!`] checks targets when compiled but is no pattern; these take its place in `match`
//! and `matches!`.

/// `match` on an operator: arms are targets, optionally with a guard, the last arm is `_`.
macro_rules! by_op {
    ($op:expr, { $($($target:literal)|+ $(if $guard:expr)? => $value:expr,)* _ => $default:expr $(,)? }) => {{
        let op: ::etx_ir::op::OpId = $op;
        $(if ($(op == ::etx_ir::op!($target))||+) $(&& $guard)? { $value } else)* { $default }
    }};
}

/// `matches!` on an operator.
macro_rules! is_op {
    ($op:expr, $($target:literal)|+) => {{
        let op: ::etx_ir::op::OpId = $op;
        $(op == ::etx_ir::op!($target))||+
    }};
}
