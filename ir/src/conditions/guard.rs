//! One condition of the exporter, as it wrote it and parsed.

use std::sync::Arc;

use crate::graph::{Graph, Type};
use crate::program::{Input, InputKind};
use crate::sym::Expr;

/// A condition of the exporter; see the page above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// In the exporter's words (`pt2-format.md` §2.7).
    pub text: Arc<str>,
    /// Over the symbols of the method; `None` if it is about something else than sizes and integers.
    pub condition: Option<Expr>,
}

impl Guard {
    /// Reads a condition on the inputs of a graph.
    pub fn read(text: &str, graph: &Graph, inputs: &[Input]) -> Self {
        let condition = with_sizes(text, graph, inputs).and_then(|text| Expr::parse(&text).ok());
        Guard { text: text.into(), condition }
    }
}

/// The text with the sizes of inputs, and numbers among them, in the place of `L['x'].size()[0]` and `L['n']`.
fn with_sizes(guard: &str, graph: &Graph, inputs: &[Input]) -> Option<String> {
    let mut out = String::new();
    let mut rest = guard;
    while let Some((before, after)) = rest.split_once("L[") {
        out.push_str(before);
        let mut name = String::new();
        let mut number = None;
        rest = after;
        // The names and numbers in brackets, then perhaps a size.
        loop {
            let (key, after) = rest.split_once(']')?;
            match key.trim().strip_prefix('\'').and_then(|k| k.strip_suffix('\'')) {
                Some(key) => name = if name.is_empty() { key.to_owned() } else { format!("{name}_{key}") },
                None if name == "flat_args" => number = Some(key.trim().parse::<usize>().ok()?),
                None => name = format!("{name}_{}", key.trim()),
            }
            rest = after;
            match rest.strip_prefix('[') {
                Some(more) => rest = more,
                None => break,
            }
        }
        let user = |i: &&Input| matches!(i.kind, InputKind::User);
        let input = match number {
            Some(n) => inputs.iter().filter(|i| user(i) || matches!(i.kind, InputKind::Literal { .. })).nth(n)?.value,
            None => inputs.iter().filter(user).filter_map(|i| i.value).find(|&v| *graph.value(v).name == name),
        };
        let e = match (graph.ty(input?), rest.strip_prefix(".size()[")) {
            (Type::Tensor(t), Some(size)) => {
                let (axis, after) = size.split_once(']')?;
                rest = after;
                t.shape.get(axis.trim().parse::<usize>().ok()?)?.clone()
            }
            (Type::Int(e), None) => e.clone(),
            _ => return None,
        };
        out.push_str(&format!("({e})"));
    }
    out.push_str(rest);
    Some(out)
}
