//! What `etx lower` says of the calls that a file takes.

use etx::lower::Report;

use super::super::Bytes;

/// Lines on what was taken for granted of inputs: conditions, bounds, sizes without one, values that are fixed.
pub(super) fn lines(report: &Report) -> impl Iterator<Item = String> {
    let mut lines = Vec::new();
    for a in &report.assumed {
        let checked = if a.checked { "" } else { " (`etx run` cannot check this one)" };
        lines.push(format!("{}: exported for calls with {}{checked}", a.method, a.condition));
    }
    for n in &report.narrowed {
        let range = match (n.min, n.max) {
            (Some(min), Some(max)) if min == max => format!("{min}"),
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("{max} or less"),
            (None, None) => continue,
        };
        lines.push(format!("{}: by these conditions, {} is {range}", n.method, n.symbol));
    }
    if !report.assumed.is_empty() {
        lines.push(
            "`etx run` refuses other calls; ExecuTorch does not check, and computes what the exported branches and sizes give".to_owned(),
        );
    }
    for open in &report.unbounded {
        let mut line = format!("{}: no upper bound is known for dimension {} of {} ({})", open.method, open.dim, open.input, open.symbol);
        if open.planned_for > 0 {
            let (all, each) = (Bytes(open.planned_bytes), Bytes(open.bytes_per_element));
            line.push_str(&format!("; planned for up to {} (--max-size), {all} in all, {each} an element", open.planned_for));
        }
        lines.push(line);
    }
    for f in &report.fixed {
        let (method, input, value) = (&f.method, &f.input, &f.value);
        lines.push(match f.open {
            true => format!("{method}: {input} is left open: `etx run` takes any value, ExecuTorch only {value}, the one in the file"),
            false => format!("{method}: {input} was fixed to {value} when the program was exported: no other value is accepted"),
        });
    }
    lines.into_iter()
}
