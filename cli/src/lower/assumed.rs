//! Conditions that the exporter took for granted, those that always hold left out.

use etx_ir::graph::Type;
use etx_ir::program::{InputKind, Method};
use etx_ir::sym::{Expr, Func};

use super::Assumed;

/// The conditions of a method that the bounds of its symbols do not imply.
pub(super) fn of(method: &Method) -> Vec<Assumed> {
    let open = method.guards.iter().filter(|guard| holds(method, guard, 0) != Some(true));
    open.map(|guard| Assumed { method: method.name.to_string(), condition: guard.to_string() }).collect()
}

/// Deepest nesting of a condition that is looked into.
const MAX_DEPTH: u32 = 32;

/// Whether a condition holds for every call, or for none. Python's `and`, `or` and `not` over comparisons of sizes; of anything else
/// nothing is known.
fn holds(method: &Method, guard: &str, depth: u32) -> Option<bool> {
    if depth > MAX_DEPTH {
        return None;
    }
    let guard = guard.trim();
    let joined = |parts: Vec<&str>, deciding: bool| {
        let parts: Vec<Option<bool>> = parts.into_iter().map(|part| holds(method, part, depth + 1)).collect();
        if parts.contains(&Some(deciding)) { Some(deciding) } else { parts.iter().all(|p| *p == Some(!deciding)).then_some(!deciding) }
    };
    for (word, deciding) in [(" or ", true), (" and ", false)] {
        let parts = apart(guard, word);
        if parts.len() > 1 {
            return joined(parts, deciding);
        }
    }
    if let Some(rest) = guard.strip_prefix("not ") {
        return holds(method, rest, depth + 1).map(|b| !b);
    }
    if let Some(inner) = guard.strip_prefix('(').and_then(|g| g.strip_suffix(')'))
        && apart(inner, ")").len() == 1
    {
        return holds(method, inner, depth + 1);
    }
    let ranges = &method.ranges;
    match Expr::parse(&with_sizes(method, guard)?).ok()? {
        Expr::Bool(b) => Some(b),
        Expr::Call(func, args) => match (func, &args[..]) {
            (Func::Eq, [a, b]) => ranges.equal(a, b),
            (Func::Ne, [a, b]) => ranges.equal(a, b).map(|x| !x),
            (Func::Le, [a, b]) => ranges.at_most(a, b),
            (Func::Lt, [a, b]) => ranges.at_most(b, a).map(|x| !x),
            _ => None,
        },
        _ => None,
    }
}

/// The parts of a text between occurrences of `word` that stand in no parentheses.
fn apart<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0i32);
    for (at, c) in text.char_indices() {
        if depth == 0 && at >= start && text.get(at..).is_some_and(|rest| rest.starts_with(word)) {
            parts.extend(text.get(start..at));
            start = at + word.len();
        }
        depth += match c {
            '(' | '[' => 1,
            ')' | ']' => -1,
            _ => 0,
        };
    }
    parts.extend(text.get(start..));
    parts
}

/// The text with the sizes of inputs, and numbers among them, in the place of `L['x'].size()[0]` and `L['n']`.
fn with_sizes(method: &Method, guard: &str) -> Option<String> {
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
        let input = match number {
            Some(n) => method.inputs.iter().filter(|i| matches!(i.kind, InputKind::User | InputKind::Literal { .. })).nth(n)?.value,
            None => method.user_inputs().find(|&v| *method.graph.value(v).name == name),
        };
        let e = match (method.graph.ty(input?), rest.strip_prefix(".size()[")) {
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
    Some(out.replace("torch.sym_max(", "Max(").replace("torch.sym_min(", "Min("))
}

#[cfg(test)]
mod tests {
    use etx_ir::text::{self, NoFiles};

    use super::*;

    #[test]
    fn what_bounds_imply_is_not_assumed() {
        let program = text::parse(
            "etir 1\nmethod \"forward\" functional {
               symbol s0 [2..16]
               symbol s1 [4..]
               input %x : f32[4*s0, s1, 3] = user
               input %d_q : f32[s1] = user
               input = literal \"flag\" True
               input %n : int(s0 + 1) = user
               return %x
             }",
            &mut NoFiles,
        )
        .unwrap();
        let holds = |guard: &str| holds(&program.methods[0], guard, 0);
        for guard in [
            "L['x'].size()[0] % 4 == 0",
            "(L['x'].size()[0] % 4) == 0 and L['x'].size()[2] == 3",
            "L['x'].size()[1] == L['d']['q'].size()[0]",
            "L['flat_args'][1].size()[0] >= 4",
            "L['n'] > 2",
            "not L['flat_args'][3] < 3",
            "(L['x'].size()[1] > 100 or (L['x'].size()[0] <= 64))",
            "torch.sym_max(2, L['x'].size()[1]) != 3",
        ] {
            assert_eq!(holds(guard), Some(true), "{guard}");
        }
        assert_eq!(holds("L['x'].size()[1] < 4"), Some(false));
        for guard in [
            "L['x'].size()[1]*L['x'].size()[1] == 64",
            "L['x'].size()[0] % 4 == 0 and L['x'].size()[1] % 2 == 0",
            "L['y'].size()[0] == 3",
            "L['x'].stride()[0] == 3",
            "L['x'].size()[7] == 3",
            "L['x",
            "",
            ")(",
            "f(L['n'])",
            &"(".repeat(100_000),
            &format!("{}L['n'] > 2{}", "(".repeat(100_000), ")".repeat(100_000)),
        ] {
            assert_eq!(holds(guard), None, "{guard}");
        }
    }
}
