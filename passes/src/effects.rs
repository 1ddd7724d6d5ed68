//! Which calls may go when nobody uses their results.

use etx_ir::graph::{Arg, Node};
use etx_ir::op::Kind;

/// Whether dropping the call loses nothing but its results. Random draws may go; writes, assertions, prints and hidden
/// state may not, nor a call of a body that holds one of those.
pub fn removable(node: &Node) -> bool {
    let op = node.op;
    if op.is_unknown() || op.mutates() || op.has_side_effects() {
        return false;
    }
    if let Some(hidden) = op.training_mutation() {
        let arg = |name: &str| op.schema().position(name).and_then(|i| node.args.get(i)).unwrap_or(&Arg::None);
        let training = arg(hidden.flag).as_bool() != Some(false);
        if training && hidden.args.iter().any(|a| *arg(a) != Arg::None) {
            return false;
        }
    }
    if op.schema().kind != Kind::HigherOrder {
        return true;
    }
    node.args.iter().all(|a| match a {
        Arg::Graph(body) => body.nodes().all(|(_, n)| removable(n)),
        // A wrapped operator that writes does so through results of the wrapper.
        Arg::Op(inner) => !inner.has_side_effects(),
        _ => true,
    })
}
