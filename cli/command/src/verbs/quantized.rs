//! What quantising does to weights, as tables.

use std::io::{self, Write};

use etx::lower::{QuantizedWeight, Report};

use super::{Bytes, Count};

/// Every weight, with the form it gets and its sizes.
pub(super) fn plan(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = Vec::new();
    for w in &report.quantized {
        let shape = w.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let from = format!("{}[{shape}]", w.dtype);
        rows.push([w.name.clone(), w.uses.join(", "), from, w.format.clone(), sizes(w.bytes_before, w.bytes_after), notes(w)]);
    }
    table(&["weight", "use", "as it is", "becomes", "size", ""], &rows, out)?;
    writeln!(out, "{}", total(report))
}

/// Weights that are alike but for numbers in their names, together, with what was lost.
pub(super) fn outcome(report: &Report) -> io::Result<String> {
    if report.quantized.is_empty() {
        return Ok(String::new());
    }
    let mut out = Vec::new();
    let mut kinds: Vec<(String, Vec<&QuantizedWeight>)> = Vec::new();
    for w in &report.quantized {
        let name =
            w.name.split('.').map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { "*" } else { part }).collect::<Vec<_>>().join(".");
        match kinds.iter_mut().find(|(n, of)| *n == name && of.iter().all(|o| (&o.format, &o.uses) == (&w.format, &w.uses))) {
            Some((_, of)) => of.push(w),
            None => kinds.push((name, vec![w])),
        }
    }
    let mut rows = Vec::new();
    for (name, of) in &kinds {
        let Some(first) = of.first() else { continue };
        let sum = |f: fn(&QuantizedWeight) -> u64| of.iter().map(|w| f(w)).sum();
        let worst = of.iter().filter_map(|w| w.max_error).fold(0.0, f64::max);
        let snr = of.iter().filter_map(|w| w.snr_db).reduce(f64::min);
        rows.push([
            if of.len() > 1 { format!("{name} × {}", of.len()) } else { first.name.clone() },
            first.uses.join(", "),
            first.format.clone(),
            sizes(sum(|w| w.bytes_before), sum(|w| w.bytes_after)),
            format!("{worst:.2e}"),
            snr.map_or("exact".to_owned(), |db| format!("{db:.1} dB")),
        ]);
    }
    table(&["weight", "use", "format", "size", "max error", "least SNR"], &rows, &mut out)?;
    writeln!(out, "{}", total(report))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn sizes(before: u64, after: u64) -> String {
    format!("{} → {}", Bytes(before), Bytes(after))
}

fn notes(w: &QuantizedWeight) -> String {
    let mut notes = Vec::new();
    if !w.ties.is_empty() {
        notes.push(format!("also {}", w.ties.join(", ")));
    }
    if w.bytes_before == 0 {
        notes.push("written a second time: its uses have different formats".to_owned());
    }
    if !w.kept_for.is_empty() {
        notes.push(format!("also kept as it is, for {}", w.kept_for.join(", ")));
    }
    notes.join("; ")
}

fn total(report: &Report) -> String {
    let sum = |f: fn(&QuantizedWeight) -> u64| report.quantized.iter().map(f).sum();
    let (before, after) = (sum(|w| w.bytes_before), sum(|w| w.bytes_after));
    format!("{} quantised, {}", Count(report.quantized.len(), "weight"), sizes(before, after))
}

/// Columns as wide as they must be; the last one as it comes.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([head[i].chars().count()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut line = |cells: [&str; N]| {
        let padded: String = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        writeln!(out, "{}", padded.trim_end())
    };
    line(*head)?;
    rows.iter().try_for_each(|r| line(std::array::from_fn(|i| r[i].as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(name: &str, max_error: f64) -> QuantizedWeight {
        QuantizedWeight {
            name: name.into(),
            ties: Vec::new(),
            uses: vec!["linear"],
            kept_for: Vec::new(),
            format: "4w:32".into(),
            dtype: "f32",
            shape: vec![2, 32],
            bytes_before: 256,
            bytes_after: 40,
            max_error: Some(max_error),
            rms_error: Some(0.1),
            snr_db: Some(20.0 + max_error),
        }
    }

    #[test]
    fn layers_that_are_alike_are_one_line_with_the_worst_of_them() {
        let quantized = vec![weight("l.0.up", 0.25), weight("head", 1.0), weight("l.11.up", 0.5)];
        let table = outcome(&Report { quantized, ..Report::default() }).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "l.*.up × 2  linear  4w:32   512 B → 80 B  5.00e-1    20.2 dB");
        assert_eq!(lines[2..], ["head        linear  4w:32   256 B → 40 B  1.00e0     21.0 dB", "3 weights quantised, 768 B → 120 B"]);
        assert_eq!(outcome(&Report::default()).unwrap(), "");
    }
}
