//! What a user should know of a lowered program without having asked: a line each.

use etx::lower::Report;

/// So many notes of a kind are made; the report has all.
const MOST: usize = 5;

/// Everything worth a note, the most surprising first. Sizes without an upper bound were planned for up to `max_size`.
pub(super) fn notes(report: &Report, max_size: u32) -> Vec<String> {
    let mut notes = Vec::new();
    add(&mut notes, "such draws", report.methods.iter().flat_map(|m| m.random.iter().map(|place| draw(&m.method, place))));
    let assumed = report.assumed.iter();
    add(
        &mut notes,
        "such conditions",
        assumed.map(|a| format!("{}: exported for calls with {}; the file takes others, too", a.method, a.condition)),
    );
    let unbounded = report.unbounded.iter().map(|open| {
        format!(
            "{}: no upper bound is known for dimension {} of {} ({}); planned for up to {max_size} (--max-size)",
            open.method, open.dim, open.input, open.symbol
        )
    });
    add(&mut notes, "such sizes", unbounded);
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
    use etx::lower::{Assumed, Unbounded};

    use super::*;

    #[test]
    fn a_few_of_each_kind_are_said() {
        let assumed = (0..7).map(|n| Assumed { method: "forward".into(), condition: format!("s{n} == 1") }).collect();
        let open = Unbounded { method: "forward".into(), input: "x".into(), dim: 1, symbol: "s0".into() };
        let said = notes(&Report { assumed, unbounded: vec![open], ..Report::default() }, 64);
        assert_eq!(said.len(), MOST + 2, "{said:?}");
        assert_eq!(said[0], "note: forward: exported for calls with s0 == 1; the file takes others, too");
        assert_eq!(said[MOST], "note: 2 more such conditions (--report)");
        assert!(said[MOST + 1].contains("dimension 1 of x (s0); planned for up to 64"), "{said:?}");
        assert_eq!(notes(&Report::default(), 64), [""; 0]);
    }
}
