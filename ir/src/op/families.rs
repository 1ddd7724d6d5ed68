//! Tables of operators by family, and which operators are others by another name.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::OpId;

/// Operators and their other spellings, which take the same arguments, one for one, and give the same results.
///
/// Left out is what is the same for some arguments only, and what differs in defaults. Words are as in [`target`].
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    // Names.
    ("abs", "absolute prims.abs.default"),
    ("acos", "arccos"),
    ("acosh", "arccosh"),
    ("asin", "arcsin"),
    ("asinh", "arcsinh"),
    ("atan", "arctan"),
    ("atan2", "arctan2"),
    ("atanh", "arctanh"),
    ("bitwise_not", "prims.bitwise_not.default"),
    ("cat", "concat concatenate"),
    ("ceil", "prims.ceil.default"),
    ("chunk", "unsafe_chunk"),
    ("clamp", "clip"),
    ("clamp.Tensor", "clip.Tensor"),
    ("digamma", "special_digamma special_psi"),
    ("erf", "special_erf"),
    ("erfc", "special_erfc"),
    ("erfinv", "special_erfinv"),
    ("exp2", "special_exp2"),
    ("expm1", "special_expm1"),
    ("floor", "prims.floor.default"),
    ("i0", "special_i0"),
    ("index.Tensor", "_unsafe_index.Tensor"),
    ("index_put", "_unsafe_index_put"),
    ("isfinite", "prims.isfinite.default"),
    ("item", "_local_scalar_dense prims.item.default"),
    ("lgamma", "special_gammaln"),
    ("log1p", "special_log1p"),
    ("log_softmax.int", "special_log_softmax"),
    ("logit", "special_logit"),
    ("logsumexp", "special_logsumexp"),
    ("matmul", "linalg_matmul"),
    ("matrix_power", "linalg_matrix_power"),
    ("maximum", "max.other prims.maximum.default"),
    ("minimum", "min.other prims.minimum.default"),
    ("movedim.int", "moveaxis.int"),
    ("movedim.intlist", "moveaxis.intlist"),
    ("narrow", "narrow_copy"),
    ("neg", "_neg_view negative prims.neg.default"),
    ("outer", "ger"),
    ("permute", "prims.transpose.default"),
    ("polygamma", "special_polygamma"),
    ("round.decimals", "special_round"),
    ("sigmoid", "special_expit"),
    ("sign", "prims.sign.default"),
    ("signbit", "prims.signbit.default"),
    ("sinc", "special_sinc"),
    ("softmax.int", "special_softmax"),
    ("split.Tensor", "unsafe_split.Tensor"),
    ("split_with_sizes", "split.sizes unsafe_split_with_sizes"),
    ("stack", "_stack"),
    ("transpose.int", "swapaxes swapdims"),
    ("trunc", "fix prims.trunc.default"),
    ("vstack", "row_stack"),
    // A number in the place of the other tensor.
    ("add.Tensor", "add.Scalar"),
    ("sub.Tensor", "sub.Scalar subtract.Scalar subtract.Tensor"),
    ("rsub.Tensor", "rsub.Scalar"),
    ("mul.Tensor", "mul.Scalar multiply.Scalar multiply.Tensor prims.mul.default"),
    ("div.Tensor", "div.Scalar divide.Scalar divide.Tensor true_divide.Scalar true_divide.Tensor"),
    ("div.Tensor_mode", "div.Scalar_mode divide.Scalar_mode divide.Tensor_mode"),
    ("floor_divide", "floor_divide.Scalar"),
    ("remainder.Tensor", "remainder.Scalar remainder.Scalar_Tensor prims.remainder.default"),
    ("fmod.Tensor", "fmod.Scalar prims.fmod.default"),
    ("copysign.Tensor", "copysign.Scalar"),
    ("eq.Tensor", "eq.Scalar prims.eq.default"),
    ("ne.Tensor", "ne.Scalar not_equal.Scalar not_equal.Tensor prims.ne.default"),
    ("lt.Tensor", "lt.Scalar less.Scalar less.Tensor prims.lt.default"),
    ("le.Tensor", "le.Scalar less_equal.Scalar less_equal.Tensor prims.le.default"),
    ("gt.Tensor", "gt.Scalar greater.Scalar greater.Tensor prims.gt.default"),
    ("ge.Tensor", "ge.Scalar greater_equal.Scalar greater_equal.Tensor prims.ge.default"),
    ("bitwise_and.Tensor", "__and__.Scalar __and__.Tensor bitwise_and.Scalar bitwise_and.Scalar_Tensor"),
    ("bitwise_or.Tensor", "__or__.Scalar __or__.Tensor bitwise_or.Scalar bitwise_or.Scalar_Tensor"),
    ("bitwise_xor.Tensor", "__xor__.Scalar __xor__.Tensor bitwise_xor.Scalar bitwise_xor.Scalar_Tensor"),
    ("bitwise_left_shift.Tensor", "bitwise_left_shift.Scalar_Tensor bitwise_left_shift.Tensor_Scalar"),
    ("bitwise_right_shift.Tensor", "bitwise_right_shift.Scalar_Tensor bitwise_right_shift.Tensor_Scalar"),
    ("xlogy.Tensor", "xlogy.Scalar_Other xlogy.Scalar_Self special_xlogy special_xlogy.other_scalar special_xlogy.self_scalar"),
    ("where.self", "where.Scalar where.ScalarOther where.ScalarSelf prims.where.default"),
    // Sizes and other numbers.
    ("sym_size.int", "size.int"),
    ("sym_stride.int", "stride.int"),
    ("sym_numel", "numel"),
    ("=_operator.add", "executorch_prim.add.Scalar"),
    ("=_operator.eq", "executorch_prim.eq.Scalar"),
    ("=_operator.floordiv", "executorch_prim.floordiv.Scalar"),
    ("=_operator.ge", "executorch_prim.ge.Scalar"),
    ("=_operator.gt", "executorch_prim.gt.Scalar"),
    ("=_operator.le", "executorch_prim.le.Scalar"),
    ("=_operator.lt", "executorch_prim.lt.Scalar"),
    ("=_operator.mod", "executorch_prim.mod.Scalar"),
    ("=_operator.mul", "executorch_prim.mul.Scalar"),
    ("=_operator.neg", "executorch_prim.neg.Scalar"),
    ("=_operator.sub", "executorch_prim.sub.Scalar"),
    ("=_operator.truediv", "executorch_prim.truediv.Scalar"),
    ("=torch.sym_float", "executorch_prim.sym_float.Scalar"),
    ("=torch.sym_int", "executorch_prim.sym_int.Scalar"),
    ("=torch.sym_ite", "executorch_prim.sym_ite.Scalar"),
    ("=torch.sym_max", "executorch_prim.sym_max.Scalar"),
    ("=torch.sym_min", "executorch_prim.sym_min.Scalar"),
    ("=torch.sym_not", "executorch_prim.sym_not.Scalar"),
    ("=math.trunc", "executorch_prim.trunc.Scalar"),
];

/// The canonical target that a word of a table stands for: `relu` is `aten.relu.default`, `add.Tensor` is
/// `aten.add.Tensor`, anything with two dots or after `=` is a whole target.
pub(crate) fn target(word: &str) -> String {
    match (word.strip_prefix('='), word.matches('.').count()) {
        (Some(target), _) => target.to_owned(),
        (None, 0) => format!("aten.{word}.default"),
        (None, 1) => format!("aten.{word}"),
        _ => word.to_owned(),
    }
}

/// The operators that words separated by blanks stand for.
fn operators(words: &str) -> impl Iterator<Item = OpId> {
    words.split_whitespace().filter_map(|word| OpId::lookup(&target(word)))
}

/// A table of families (a rule and the operators that follow it) by operator. Other spellings follow the same rule.
pub(crate) fn index<R: Copy>(families: &[(R, &str)]) -> HashMap<OpId, R> {
    let mut rules: HashMap<OpId, R> = families.iter().flat_map(|(rule, words)| operators(words).map(|op| (op, *rule))).collect();
    for (main, other) in synonyms() {
        if let Some(rule) = rules.get(&main).copied() {
            rules.entry(other).or_insert(rule);
        }
    }
    rules
}

/// Operators with their other spellings.
fn synonyms() -> impl Iterator<Item = (OpId, OpId)> {
    let each = SYNONYMS.iter().filter_map(|(main, others)| Some((OpId::lookup(&target(main))?, *others)));
    each.flat_map(|(main, others)| operators(others).map(move |other| (main, other)))
}

impl OpId {
    /// The operator that this one is another spelling of: same arguments, one for one, and same results. `add.Scalar` is
    /// `add.Tensor` with a number for its second tensor.
    pub fn synonym_of(self) -> Option<OpId> {
        static MAIN: LazyLock<HashMap<OpId, OpId>> = LazyLock::new(|| synonyms().map(|(main, other)| (other, main)).collect());
        MAIN.get(&self).copied()
    }
}

/// Asserts that every word of a table is an operator, stands once, and is no other spelling.
#[cfg(test)]
pub(crate) fn check<R>(families: &[(R, &str)]) {
    let mut seen = std::collections::BTreeSet::new();
    for word in families.iter().flat_map(|(_, words)| words.split_whitespace()) {
        let op = OpId::lookup(&target(word)).unwrap_or_else(|| panic!("{word} is no operator"));
        assert!(seen.insert(target(word)), "{word} stands twice");
        assert_eq!(op.synonym_of(), None, "{word} is another spelling");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_synonym_is_an_operator_with_the_arguments_of_the_main_one_and_stands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (main, others) in SYNONYMS {
            let main = OpId::lookup(&target(main)).unwrap_or_else(|| panic!("{main} is no operator"));
            assert_eq!(main.synonym_of(), None, "{main} is another spelling itself");
            for word in others.split_whitespace() {
                let other = OpId::lookup(&target(word)).unwrap_or_else(|| panic!("{word} is no operator"));
                assert!(seen.insert(other.target()), "{word} stands twice");
                assert_eq!(other.schema().args.len(), main.schema().args.len(), "{other} and {main} take different arguments");
                assert_eq!(other.schema().returns.len(), main.schema().returns.len(), "{other} and {main} give different results");
            }
        }
    }
}
