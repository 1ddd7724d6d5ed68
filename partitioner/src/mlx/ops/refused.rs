//! What MLX programs cannot express, nor formulas make out of what they can: with the reason, and what to do instead.

/// Families of operators, their names without `aten.` and separated by blanks; a reason; a remedy.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "nonzero nonzero_numpy argwhere masked_select _unique _unique2 unique_dim unique_consecutive unique_dim_consecutive bincount \
         where.default",
        "the size of the result, or what stands where in it, depends on values",
        "keep a result of fixed size: torch.where, masked_fill or masked_scatter",
    ),
    (
        "repeat_interleave.Tensor repeat_interleave.self_Tensor",
        "how long the result is depends on values",
        "give its length as output_size, if it is known",
    ),
    ("torchvision.nms", "how many boxes it keeps depends on their values", "end the program before it, and leave it to the program around"),
    (
        "mode histogram.bin_ct histogram.bins_tensor",
        "MLX does not count equal values",
        "compare with each value that matters and sum, or leave it to the program around",
    ),
    (
        "lgamma digamma polygamma special_polygamma mvlgamma special_bessel_j0 special_bessel_j1 \
         special_bessel_y0 special_bessel_y1 special_modified_bessel_k0 \
         special_modified_bessel_k1 igamma igammac special_gammainc special_gammaincc special_zeta special_ndtri",
        "MLX has no such function, and no short formula gives its values",
        "compute it before export if it does not depend on inputs, or approximate it by a polynomial on the range that occurs",
    ),
    ("gcd lcm", "the number of steps depends on values", "compute it before export"),
    ("nextafter view.dtype", "MLX programs cannot look at the bits of a number as those of another type", "cast by value instead"),
    (
        "linalg_inv linalg_inv_ex inverse linalg_det _linalg_det linalg_slogdet _linalg_slogdet logdet linalg_cholesky linalg_cholesky_ex cholesky \
         linalg_qr linalg_svd _linalg_svd linalg_svdvals linalg_eigh _linalg_eigh linalg_eigvalsh linalg_eig linalg_eigvals linalg_solve \
         linalg_solve_ex _linalg_solve_ex linalg_solve_triangular linalg_lstsq linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve \
         linalg_pinv pinverse linalg_matrix_exp matrix_exp linalg_cond linalg_matrix_rank linalg_householder_product",
        "MLX programs have no factorisation of matrices",
        "compute it before export if it is one of weights, or leave it to the program around",
    ),
    (
        "binomial poisson _standard_gamma _sample_dirichlet",
        "how many draws it takes depends on what is drawn",
        "make the numbers an input of the program",
    ),
    ("fractional_max_pool2d fractional_max_pool3d", "its windows are drawn at random", "use max_pool or adaptive_max_pool"),
    (
        "_ctc_loss ctc_loss.Tensor ctc_loss.IntList",
        "its steps depend on lengths known at run time",
        "leave the loss out of what is exported",
    ),
    (
        "embedding_renorm",
        "it rewrites rows of the table whenever they are looked up",
        "export without max_norm, after the table has been brought to that norm",
    ),
    ("resize", "elements beyond those that there are would be undefined, or a view's memory is not known", "pad or slice instead"),
    ("as_strided_scatter", "how the tensor lies in memory is not known", "use slice_scatter, select_scatter or index_put instead"),
    (
        "_embedding_bag _embedding_bag_forward_only",
        "only the bags are computed, not the lists that derivatives are computed from",
        "use the first result alone, as torch.nn.EmbeddingBag does",
    ),
    ("kaiser_window bartlett_window", "its values are no short formula", "make the window a buffer of the model"),
    (
        "combinations pdist _pdist_forward",
        "which pairs there are is a long list of indices, or not known",
        "index with constants: x[rows] and x[columns]",
    ),
    (
        "higher_order.while_loop",
        "how often the body runs, or what it carries, is not known at export",
        "unroll the loop, or call the program once a step",
    ),
    (
        "higher_order.associative_scan",
        "the number of rounds is not known at export, or too large for the body to be written out each time",
        "write it as a scan, which may have any length",
    ),
    (
        "higher_order.executorch_call_delegate",
        "it was lowered already, for whatever backend",
        "lower the program that torch.export.export gave",
    ),
    (
        "torch._functorch.predispatch._add_batch_dim torch._functorch.predispatch._remove_batch_dim \
         torch._functorch.predispatch._vmap_increment_nesting torch._functorch.predispatch._vmap_decrement_nesting \
         torch._functorch.predispatch.lazy_load_decompositions",
        "inside torch.vmap an axis of every tensor is hidden",
        "save `exported_program.run_decompositions({})` instead of `exported_program`: there the axis is back; where torch refuses that, export \
         with strict=True",
    ),
];

/// Why an operator is refused for good, and what to do.
pub(super) fn refusal(target: &str) -> Option<(&'static str, &'static str)> {
    let name = target.strip_prefix("aten.").unwrap_or(target);
    let bare = name.strip_suffix(".default").unwrap_or(name);
    let listed = |names: &str| names.split_whitespace().any(|n| n == bare || n == name);
    REFUSED.iter().find(|(names, ..)| listed(names)).map(|(_, reason, remedy)| (*reason, *remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_for_good_is_not_lowered_elsewhere() {
        for o in super::super::operators() {
            assert_eq!(refusal(o.target), None, "{} is lowered", o.target);
        }
    }

    #[test]
    fn overloads_are_found_by_their_name() {
        assert!(
            refusal("aten.nonzero.default").is_some_and(|(why, what)| why.contains("depends on values") && what.contains("torch.where"))
        );
        assert!(refusal("aten.histogram.bins_tensor").is_some());
        assert!(refusal("aten.add.Tensor").is_none());
        // What is left of the core overloads that the reference has no handler for, each with its reason.
        for (name, word) in [
            ("nonzero", "depends on values"),
            ("resize", "undefined"),
            ("_pdist_forward", "list of indices"),
            ("_embedding_bag", "derivatives"),
            ("as_strided_scatter", "memory"),
        ] {
            assert!(refusal(&format!("aten.{name}.default")).is_some_and(|(why, _)| why.contains(word)), "{name}");
        }
    }
}
