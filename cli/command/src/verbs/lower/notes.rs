//! What a user should know of a lowered program without having asked: a line each.

use etx::lower::{F64, Report};

use super::inputs;

/// So many notes of a kind are made; the report has all.
const MOST: usize = 5;

/// Everything worth a note, the most surprising first; every condition on inputs, and a few of what may be many.
pub(super) fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    add(&mut notes, "such draws", report.methods.iter().flat_map(|m| m.random.iter().map(|place| draw(&m.method, place))));
    notes.extend(inputs::lines(report).map(|note| format!("note: {note}")));
    notes.extend(report.f64_as_f32.iter().map(|n| format!("note: {}: {}", n.method, in_single(n))));
    let state = report.separate_state.iter().map(|state| {
        let rest = match state.readers.as_slice() {
            [] => "each has its own, and none sees what another writes".to_owned(),
            readers => format!("read as it is now by {}", readers.join(", ")),
        };
        format!("{}: written by {}; {rest}", state.name, state.writers.join(", "))
    });
    add(&mut notes, "such buffers", state);
    notes
}

fn draw(method: &str, place: &str) -> String {
    format!("{method}: {place} draws random numbers, others at every call; export the model in eval mode if that is for training only")
}

/// One line on what is computed in `f32` and not in `f64`.
fn in_single(of: &F64) -> String {
    const NAMED: usize = 3;
    let mut text = "computed in f32, in the program in f64".to_owned();
    if !of.places.is_empty() {
        let more = of.places.len().saturating_sub(NAMED);
        text.push_str(&format!(", from {}", of.places.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ")));
        if more > 0 {
            text.push_str(&format!(" and {more} more (--report)"));
        }
    }
    for input in &of.inputs {
        text.push_str(&format!("; input {input} is f32"));
    }
    for output in &of.outputs {
        text.push_str(&format!("; result {output} is f32"));
    }
    text
}

/// The first few of a kind, and how many more there are.
fn add(notes: &mut Vec<String>, kind: &str, all: impl Iterator<Item = String>) {
    let all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(MOST);
    notes.extend(all.into_iter().take(MOST).map(|note| format!("note: {note}")));
    if more > 0 {
        notes.push(format!("note: {more} more {kind} (--report)"));
    }
}

#[cfg(test)]
mod tests {
    use etx::lower::{Assumed, SeparateState, Unbounded};

    use super::*;

    #[test]
    fn conditions_are_all_said_and_a_few_of_the_rest() {
        let assumed = (0..7).map(|n| Assumed { method: "forward".into(), condition: format!("s{n} == 1"), checked: true }).collect();
        let open = Unbounded { method: "forward".into(), input: "x".into(), dim: 1, symbol: "s0".into(), ..Unbounded::default() };
        let state = |n| SeparateState { name: format!("b{n}"), writers: vec!["a".into()], readers: vec!["b".into()] };
        let separate_state = (0..7).map(state).collect();
        let said = notes(&Report { assumed, unbounded: vec![open], separate_state, ..Report::default() });
        assert_eq!(said.len(), 7 + 1 + 1 + MOST + 1, "{said:?}");
        assert_eq!(said[0], "note: forward: exported for calls with s0 == 1");
        assert!(said[8].contains("dimension 1 of x (s0)"), "{said:?}");
        assert_eq!(said.last().map(String::as_str), Some("note: 2 more such buffers (--report)"));
        assert_eq!(notes(&Report::default()), [""; 0]);
    }
}
