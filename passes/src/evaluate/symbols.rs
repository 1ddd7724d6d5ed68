//! Symbols of sizes that were found.

use std::collections::{BTreeMap, BTreeSet};

use etx_ir::error::Error;
use etx_ir::eval::Value;
use etx_ir::graph::Type;
use etx_ir::sym::{Expr, Func, Symbol};

use crate::cse;
use crate::driver::Context;

/// Calls `f` with every symbol of a type.
pub(super) fn visit(ty: &Type, f: &mut dyn FnMut(&Symbol)) {
    match ty {
        Type::Tensor(t) => t.shape.iter().filter(|d| d.as_int().is_none()).for_each(|d| d.visit_symbols(f)),
        Type::Int(e) | Type::Float(e) | Type::Bool(e) => e.visit_symbols(f),
        Type::None | Type::Opaque(_) => {}
    }
}

/// What symbols that calls introduce are equal to.
pub(super) struct Bindings<'s> {
    /// Those that inputs have.
    given: &'s BTreeSet<Symbol>,
    introduced: &'s BTreeSet<Symbol>,
    found: BTreeMap<Symbol, Expr>,
}

impl<'s> Bindings<'s> {
    pub(super) fn new(given: &'s BTreeSet<Symbol>, introduced: &'s BTreeSet<Symbol>) -> Self {
        Self { given, introduced, found: BTreeMap::new() }
    }

    fn resolved(&self, e: &Expr) -> Expr {
        e.substitute(&|s| self.found.get(s).cloned())
    }

    /// Notes that these two are equal, if the first is a symbol of which nothing was known.
    pub(super) fn bind(&mut self, declared: &Expr, found: &Expr) {
        let (Expr::Sym(symbol), found) = (declared, self.resolved(found)) else { return };
        let mut circular = false;
        found.visit_symbols(&mut |s| circular |= s == symbol);
        if circular || !self.introduced.contains(symbol) || self.found.contains_key(symbol) {
            return;
        }
        for e in self.found.values_mut() {
            *e = e.substitute(&|s| (s == symbol).then(|| found.clone()));
        }
        self.found.insert(symbol.clone(), found);
    }

    /// Notes what a value says of the symbols of its type; `false` where it cannot be of that type.
    pub(super) fn see(&mut self, ty: &Type, value: &Value) -> bool {
        match (ty, value) {
            (Type::Tensor(t), Value::Tensor(v)) => {
                if t.dtype != v.dtype() || t.rank() != v.shape().len() {
                    return false;
                }
                t.shape.iter().zip(v.shape()).all(|(d, &n)| {
                    let n = Expr::Int(n as i64);
                    self.bind(d, &n);
                    let d = self.resolved(d);
                    d.as_int().is_none() || d == n
                })
            }
            (Type::Int(e), Value::Int(n)) => {
                self.bind(e, &Expr::Int(*n));
                true
            }
            (Type::Float(e), Value::Float(x)) => {
                self.bind(e, &Expr::float(*x));
                true
            }
            (Type::Bool(e), Value::Bool(b)) => {
                match e {
                    // Of a truth value torch names the number that it is.
                    Expr::Call(Func::Eq, of) => match &**of {
                        [s @ Expr::Sym(_), Expr::Int(1)] | [Expr::Int(1), s @ Expr::Sym(_)] => self.bind(s, &Expr::Int(i64::from(*b))),
                        _ => {}
                    },
                    e => self.bind(e, &Expr::Bool(*b)),
                }
                true
            }
            (Type::None, _) => true,
            _ => false,
        }
    }

    /// Notes what follows for the sizes of other calls, such as of slices up to a number that was taken out of a tensor.
    pub(super) fn infer(&mut self, cx: &Context<'_>) {
        let graph = cx.graph();
        for (_, node) in graph.nodes() {
            let mut open = false;
            let unknown = |s: &Symbol| self.introduced.contains(s) && !self.found.contains_key(s);
            node.outputs.iter().for_each(|v| visit(graph.ty(*v), &mut |s| open |= unknown(s)));
            if !open {
                continue;
            }
            let Ok(types) = etx_ir::infer::infer(graph, cx.ranges(), node.op, &node.args) else { continue };
            for (v, ty) in node.outputs.iter().zip(&types) {
                let (Type::Tensor(declared), Type::Tensor(found)) = (graph.ty(*v), ty) else { continue };
                for (d, n) in declared.shape.iter().zip(&found.shape) {
                    let n = self.resolved(n);
                    let mut known = true;
                    n.visit_symbols(&mut |s| known &= self.given.contains(s));
                    if known {
                        self.bind(d, &n);
                    }
                }
            }
        }
    }

    /// Puts what was found in the place of the symbols.
    pub(super) fn apply(self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.found.is_empty() {
            return Ok(());
        }
        let method = cx.edit();
        cse::substitute(&mut method.graph, &self.found)?;
        cse::merge_ranges(&mut method.ranges, &self.found);
        cx.changed(self.found.len() as u64);
        Ok(())
    }
}
