//! One spelling for each operation: the pass. What becomes of what is in `table.rs`.

mod casts;
mod create;
mod layers;
mod pointwise;
mod reduce;
mod shape;
mod table;

use std::collections::HashMap;
use std::sync::LazyLock;

use etx_ir::error::Error;
use etx_ir::op::OpId;

use crate::rewrite::{Patch, Rule, Site};

/// One spelling for each operation.
///
/// ATen has many names for few things. Which are mere synonyms, [`OpId::synonym_of`] says; what else stands for what is in
/// one place, the table in `table.rs`. This pass makes every such call one of the spelling that the rest of etx knows.
/// Canonical calls have dimensions counted from 0, literal sizes wherever the result type knows them, an explicit element
/// type where they create tensors, and no layout, device or memory format. Calls whose results have no elements are
/// `full`, whatever they were: few instructions of a backend are made for nothing.
///
/// A rewrite never looks past the call and the types around it, and results keep their types.
#[derive(Clone, Copy, Debug, Default)]
pub struct Canonicalise;

/// Makes of a call what it becomes, if it can.
type Make = fn(&mut Site<'_>) -> Option<Patch>;

static TABLE: LazyLock<HashMap<OpId, Make>> = LazyLock::new(|| {
    let mut map = HashMap::new();
    for (ops, to) in table::TABLE {
        for op in *ops {
            map.insert(*op, *to);
        }
    }
    map
});

/// Whether calls of an operator are made calls of others here, by the table or by name (some calls may stay as they are).
pub fn is_respelled(op: OpId) -> bool {
    TABLE.contains_key(&op) || by_name(op).is_some()
}

/// The operator that does the same under another name: synonyms, and those whose name says that they copy what another
/// one only views.
fn by_name(op: OpId) -> Option<OpId> {
    op.synonym_of().or_else(|| op.copy_to_view())
}

impl Rule for Canonicalise {
    fn name(&self) -> &'static str {
        "canonicalise"
    }

    fn law(&self) -> &'static str {
        "every operation has one spelling; types in and out are compared, values are not touched"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        let op = site.op();
        if let Some(empty) = create::empty(site) {
            return Ok(Some(empty));
        }
        Ok(match TABLE.get(&op) {
            Some(make) => make(site),
            None => by_name(op).map(|to| Patch::Call(to, site.node().args.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_names_every_spelling_once_and_no_synonym() {
        let mut seen = BTreeSet::new();
        for op in table::TABLE.iter().flat_map(|(ops, _)| *ops) {
            assert!(seen.insert(op.target()), "{op} stands twice");
            assert_eq!(op.synonym_of(), None, "{op} has its name from elsewhere");
        }
    }
}
