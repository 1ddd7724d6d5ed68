//! Calls that an exporter made functional by wrapping: `auto_functionalized`, `with_effects`.

use std::sync::Arc;

use etx_ir::graph::{Arg, Node, NodeId, Type, ValueId};
use etx_ir::op;
use etx_ir::op::{ArgType, OpId};

use super::{Walk, plain, unobserved};

/// An argument of the wrapped operator that it writes to.
struct Target {
    /// Position in `_all_bases` (in the version without bases: among the written arguments).
    base: usize,
    /// The part of the base that it is: dimension, start, end.
    part: Option<(i64, Arg, Arg)>,
    value: ValueId,
}

/// What the wrapper got by name.
type Named<'n> = &'n [(Arc<str>, Arg)];

fn by_name<'n>(named: Named<'n>, name: &str) -> Option<&'n Arg> {
    named.iter().find(|(k, _)| **k == *name).map(|(_, a)| a)
}

impl Walk<'_> {
    /// `auto_functionalized_v2(op, …, _x_base_index=0, _all_bases=[x])` becomes the functional form of `op`; its
    /// results are those of `op`, then the new value of every base (`pt2-format.md` §2.12).
    pub(super) fn unwrap_call(&mut self, node: NodeId, n: &Node) {
        let [Arg::Op(wrapped), .., Arg::Dict(named)] = n.args.as_slice() else {
            return self.refuse(node, "it names no operator and no arguments");
        };
        match self.unwrapped(node, n, *wrapped, named) {
            Ok(values) => {
                for (&old, new) in n.outputs.iter().zip(values) {
                    match new {
                        Arg::Value(new) => self.stands_for(old, new),
                        _ if self.graph.value(old).use_count() == 0 => {}
                        other => self.graph.replace_uses_with(old, &other),
                    }
                }
                self.dead.push(node);
                self.changes += 1;
            }
            Err(why) => self.refuse(node, format!("wrapping {wrapped}: {why}")),
        }
    }

    fn unwrapped(&mut self, node: NodeId, n: &Node, wrapped: OpId, named: Named<'_>) -> Result<Vec<Arg>, String> {
        let schema = wrapped.schema();
        let bases: Option<Vec<ValueId>> = match by_name(named, "_all_bases") {
            Some(list) => Some(list.as_list().and_then(|l| l.iter().map(Arg::as_value).collect()).ok_or("its bases are no tensors")?),
            None => None,
        };
        let mut list = Vec::new();
        let mut targets = Vec::new();
        for spec in &schema.args {
            let given = by_name(named, &spec.name);
            let default = || spec.default.as_ref().map_or(Arg::None, Arg::from);
            if !spec.mutated {
                list.push(given.cloned().unwrap_or_else(default));
                continue;
            }
            if matches!(spec.ty.required(), ArgType::List(..)) {
                return Err(format!("it writes to a list of tensors, `{}`", spec.name));
            }
            let target = match &bases {
                Some(bases) => self.target(node, named, &spec.name, bases)?,
                None => given.and_then(Arg::as_value).map(|value| Target { base: targets.len(), part: None, value }),
            };
            list.push(target.as_ref().map_or(Arg::None, |t| Arg::Value(t.value)));
            targets.extend(target);
        }
        let written = bases.as_ref().map_or(targets.len(), Vec::len);
        let returned = n.outputs.len().checked_sub(written).ok_or("it has fewer results than bases")?;
        let (results, new) = self.functional_call(node, n, wrapped, list, &targets, returned)?;
        let mut last: Vec<Arg> = match &bases {
            Some(bases) => bases.iter().map(|&b| Arg::Value(b)).collect(),
            None => vec![Arg::None; written],
        };
        for (target, value) in targets.iter().zip(new) {
            let Some(base) = last.get_mut(target.base) else { continue };
            *base = match &target.part {
                None => value,
                Some((dim, start, end)) => {
                    let ty = base.as_value().map_or(Type::None, |v| plain(self.graph.ty(v)));
                    let list = vec![base.clone(), value, Arg::Int(*dim), start.clone(), end.clone(), Arg::Int(1)];
                    self.emit(node, op!("aten.slice_scatter.default"), list, ty)
                }
            };
        }
        Ok(results.into_iter().chain(last).collect())
    }

    /// The argument `name` of the wrapped operator, a base or a part of one.
    fn target(&mut self, node: NodeId, named: Named<'_>, name: &str, bases: &[ValueId]) -> Result<Option<Target>, String> {
        let of = |what: &str| by_name(named, &format!("_{name}_{what}"));
        let base = match of("base_index") {
            None | Some(Arg::None) => return Ok(None),
            Some(index) => index.as_int().and_then(|i| usize::try_from(i).ok()).ok_or("its base index is no number")?,
        };
        let value = *bases.get(base).ok_or("its base index is beyond its bases")?;
        if let (Some(dim), Some(start), Some(end)) = (of("slice_dim"), of("slice_start"), of("slice_end")) {
            let dim = dim.as_int().ok_or("the dimension of its slice is no number")?;
            let list = vec![Arg::Value(value), Arg::Int(dim), start.clone(), end.clone(), Arg::Int(1)];
            let slice = op!("aten.slice.Tensor");
            let types = etx_ir::infer::infer(self.graph, self.ranges, slice, &list).map_err(|e| e.to_string())?;
            let part = self.emit_all(node, slice, list, types).first().copied().ok_or("a slice without a result")?;
            return Ok(Some(Target { base, part: Some((dim, start.clone(), end.clone())), value: part }));
        }
        if let (Some(size), Some(t)) = (of("size").and_then(Arg::as_list), self.graph.tensor(value)) {
            let same = size.len() == t.rank() && size.iter().zip(&t.shape).all(|(a, d)| self.expr(a).as_ref() == Some(d));
            if !same {
                return Err(format!("`{name}` is a strided part of its base"));
            }
        }
        Ok(Some(Target { base, part: None, value }))
    }

    /// Calls the functional form. Gives what the operator returned, and the new values of what it wrote to.
    fn functional_call(
        &mut self,
        node: NodeId,
        n: &Node,
        wrapped: OpId,
        list: Vec<Arg>,
        targets: &[Target],
        returned: usize,
    ) -> Result<(Vec<Arg>, Vec<Arg>), String> {
        if let (Some(op), [target]) = (wrapped.inplace_to_functional(), targets) {
            let Type::Tensor(t) = self.graph.ty(target.value).clone() else { return Err("it writes to what is no tensor".to_owned()) };
            let value = self.functional_value(node, op, list, &t);
            return Ok((vec![value.clone(); returned], vec![value]));
        }
        let op = wrapped.functional().ok_or("it writes to nothing")?;
        // A void operator's wrapper still has one result, nothing.
        let void = wrapped.schema().returns.is_empty();
        let returns = n.outputs.iter().take(if void { 0 } else { returned }).map(|&v| self.graph.ty(v).clone());
        let types: Vec<Type> = returns.chain(targets.iter().map(|t| plain(self.graph.ty(t.value)))).collect();
        let results: Vec<Arg> = self.emit_all(node, op, list, types).into_iter().map(Arg::Value).collect();
        let (returns, new) = results.split_at(results.len() - targets.len());
        let mut returns = returns.to_vec();
        returns.resize(returned, Arg::None);
        Ok((returns, new.to_vec()))
    }

    /// `with_effects(token, op, …)` becomes the call itself: calls with effects keep their order here without tokens.
    pub(super) fn unwrap_effects(&mut self, node: NodeId, n: &Node) {
        let [token, Arg::Op(wrapped), rest @ ..] = n.args.as_slice() else {
            return self.refuse(node, "it names no operator");
        };
        let (rest, named): (&[Arg], Named<'_>) = match rest {
            [rest @ .., Arg::Dict(named)] => (rest, named),
            rest => (rest, &[]),
        };
        if let Some(&out) = n.outputs.first() {
            self.graph.replace_uses_with(out, token);
        }
        self.dead.push(node);
        self.changes += 1;
        if unobserved(*wrapped) {
            return;
        }
        let mut given = rest.iter();
        let list = wrapped.schema().args.iter().map(|spec| {
            let positional = if spec.kw_only { None } else { given.next() };
            let default = || spec.default.as_ref().map_or(Arg::None, Arg::from);
            positional.or_else(|| by_name(named, &spec.name)).cloned().unwrap_or_else(default)
        });
        let list: Vec<Arg> = list.collect();
        let void = wrapped.schema().returns.is_empty();
        let types = n.outputs.iter().skip(1).filter(|_| !void).map(|&v| self.graph.ty(v).clone()).collect();
        let results = self.emit_all(node, *wrapped, list, types);
        for (&old, new) in n.outputs.iter().skip(1).zip(results) {
            self.stands_for(old, new);
        }
    }
}
