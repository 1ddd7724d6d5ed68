//! Source lines of calls, from the Python text that the exporter keeps.
//!
//! That text is most of a program's JSON. Only the little that is of use is kept of it while it is read.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserializer, Visitor};

use super::model::Metadata;
use etx_ir::graph::Source;

/// What is kept of a Python stack trace: the innermost frame of the model's own code.
pub(super) struct Frame {
    file: String,
    line: u32,
    function: String,
}

/// What is kept of an `nn_module_stack`: the dotted path of the innermost module.
pub(super) struct Module(String);

/// Reads a string and keeps what the function makes of it; nothing for `null`.
struct Kept<T>(fn(&str) -> Option<T>);

impl<T> Visitor<'_> for Kept<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<T>, E> {
        Ok(self.0(text))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

/// For `#[serde(deserialize_with)]`: a stack trace.
pub(super) fn frame<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Frame>, D::Error> {
    let keep = |text: &str| {
        let (file, line, function) = innermost_frame(text)?;
        Some(Frame { file: file.to_owned(), line, function: function.to_owned() })
    };
    d.deserialize_any(Kept(keep))
}

/// For `#[serde(deserialize_with)]`: an `nn_module_stack`.
pub(super) fn module<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Module>, D::Error> {
    d.deserialize_any(Kept(|text| Some(Module(module_path(text).to_owned()))))
}

/// Source lines met so far: the calls of one line share one.
#[derive(Default)]
pub(super) struct Sources<'a>(HashMap<(&'a str, u32, &'a str, &'a str), Arc<Source>>);

impl<'a> Sources<'a> {
    /// The line that some metadata tell of.
    pub(super) fn get(&mut self, meta: &'a Metadata) -> Option<Arc<Source>> {
        let Frame { file, line, function } = meta.stack_trace.as_ref()?;
        let module = meta.nn_module_stack.as_ref().map_or("", |m| &m.0);
        let new =
            || Arc::new(Source { file: file.as_str().into(), line: *line, function: function.as_str().into(), module: module.into() });
        Some(self.0.entry((file, *line, function, module)).or_insert_with(new).clone())
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
