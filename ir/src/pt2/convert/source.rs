//! Source lines of calls, from the Python text that the exporter keeps.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::model::Metadata;
use crate::graph::Source;

/// Source lines met so far: the calls of one line share one.
#[derive(Default)]
pub(super) struct Sources<'a>(HashMap<(&'a str, u32, &'a str, &'a str), Arc<Source>>);

impl<'a> Sources<'a> {
    /// The line that some metadata tell of.
    pub(super) fn get(&mut self, meta: &'a Metadata) -> Option<Arc<Source>> {
        let (file, line, function) = innermost_frame(meta.stack_trace.as_deref()?)?;
        let module = meta.nn_module_stack.as_deref().map_or("", module_path);
        let new = || Arc::new(Source { file: file.into(), line, function: function.into(), module: module.into() });
        Some(self.0.entry((file, line, function, module)).or_insert_with(new).clone())
    }
}

/// File, line and function of the innermost frame of a Python stack trace that is not torch's own, or of the innermost at all.
fn innermost_frame(trace: &str) -> Option<(&str, u32, &str)> {
    let frames = trace.lines().filter_map(|l| {
        let rest = l.trim_start().strip_prefix("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let (line, function) = rest.split_once(", in ")?;
        Some((file, line.trim().parse().ok()?, function.trim()))
    });
    let mut last = None;
    for frame in frames {
        let own =
            ["torch/fx/", "torch/nn/", "torch/_"].iter().any(|p| frame.0.strip_prefix(p).is_some() || frame.0.contains(&format!("/{p}")));
        match last {
            Some((_, false)) if own => {}
            _ => last = Some((frame, own)),
        }
    }
    last.map(|(frame, _)| frame)
}

/// The dotted module path of the last entry of an `nn_module_stack`: entries `key,fqn,type` joined by `;`.
fn module_path(stack: &str) -> &str {
    let last = stack.rsplit(';').find(|e| !e.starts_with("_empty_nn_module_stack")).unwrap_or("");
    last.split(',').nth(1).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_own_line_is_named() {
        let trace = "  File \"train.py\", line 7, in main\n    m(x)\n  File \"/x/torch/nn/modules/linear.py\", line 9, in forward\n    y";
        assert_eq!(innermost_frame(trace), Some(("train.py", 7, "main")));
        assert_eq!(innermost_frame("  File \"torch/fx/passes/x.py\", line 3, in f\n"), Some(("torch/fx/passes/x.py", 3, "f")));
        assert_eq!(innermost_frame("no frames"), None);
        assert_eq!(innermost_frame("  File \"a.py\", line x, in f"), None);
    }

    #[test]
    fn module_paths_come_from_the_last_entry() {
        assert_eq!(module_path("L__self__,,M;L__self___l,l,torch.nn.Linear[a,b]"), "l");
        assert_eq!(module_path(""), "");
    }
}
