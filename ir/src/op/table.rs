//! The built-in operators: two schema files, indexed when etx is compiled and read line by line when asked for.

use std::sync::OnceLock;

use super::schema::Schema;
use super::{parse, registry};

/// torch's own operators, written by `tools/gen_schemas.py`.
const ATEN: &str = include_str!("aten.schema");
/// Operators of other libraries, scalar functions, higher-order operators; kept by hand, checked by the same script.
const CUSTOM: &str = include_str!("custom.schema");

const ATEN_LINES: usize = count_lines(ATEN.as_bytes());
/// Number of built-in operators.
pub(super) const LEN: usize = ATEN_LINES + count_lines(CUSTOM.as_bytes());

/// Where a line is in its file.
#[derive(Clone, Copy)]
struct Line {
    start: u32,
    end: u32,
    /// Length of the target, with which the line starts.
    target: u16,
    /// Whether it writes to an argument.
    mutates: bool,
}

/// Every line, those of `aten.schema` first, each file sorted by target.
static LINES: [Line; LEN] = index();

static SCHEMAS: [OnceLock<Box<Schema>>; LEN] = [const { OnceLock::new() }; LEN];
static FUNCTIONAL: [OnceLock<Box<Schema>>; LEN] = [const { OnceLock::new() }; LEN];

const fn count_lines(text: &[u8]) -> usize {
    let (mut lines, mut i) = (0, 0);
    while i < text.len() {
        lines += (text[i] == b'\n') as usize;
        i += 1;
    }
    lines
}

/// Runs when etx is compiled: a malformed file fails to build or fails the tests, never at run time.
const fn index() -> [Line; LEN] {
    let mut lines = [Line { start: 0, end: 0, target: 0, mutates: false }; LEN];
    fill(&mut lines, 0, ATEN.as_bytes());
    fill(&mut lines, ATEN_LINES, CUSTOM.as_bytes());
    lines
}

const fn fill(lines: &mut [Line; LEN], first: usize, text: &[u8]) {
    let mut line = Line { start: 0, end: 0, target: 0, mutates: false };
    let (mut n, mut i) = (first, 0);
    while i < text.len() {
        match text[i] {
            b'\n' => {
                line.end = i as u32;
                lines[n] = line;
                n += 1;
                line = Line { start: i as u32 + 1, end: 0, target: 0, mutates: false };
            }
            b'(' if line.target == 0 => line.target = (i as u32 - line.start) as u16,
            // Only an alias annotation, `Tensor(a!)`, has these two in sequence.
            b'!' if text[i + 1] == b')' => line.mutates = true,
            _ => {}
        }
        i += 1;
    }
}

const fn text(index: usize) -> &'static str {
    if index < ATEN_LINES { ATEN } else { CUSTOM }
}

/// Position of a canonical target. Usable in constants, hence the explicit loops.
pub(super) const fn find(target: &[u8]) -> Option<u32> {
    match search(target, 0, ATEN_LINES) {
        Some(found) => Some(found),
        None => search(target, ATEN_LINES, LEN),
    }
}

const fn search(target: &[u8], mut low: usize, mut high: usize) -> Option<u32> {
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle, target) {
            0 => return Some(middle as u32),
            less if less < 0 => low = middle + 1,
            _ => high = middle,
        }
    }
    None
}

/// Sign of the comparison of a line's target with another target.
const fn compare(index: usize, target: &[u8]) -> i32 {
    let line = LINES[index];
    let (text, length) = (text(index).as_bytes(), line.target as usize);
    let mut i = 0;
    while i < length && i < target.len() {
        let (a, b) = (text[line.start as usize + i], target[i]);
        if a != b {
            return a as i32 - b as i32;
        }
        i += 1;
    }
    (length > i) as i32 - (target.len() > i) as i32
}

/// Whether the operator writes to an argument, without reading its line.
pub(super) const fn mutates(index: u32) -> bool {
    LINES[index as usize].mutates
}

/// The schema line of an operator.
pub(super) fn line(index: u32) -> &'static str {
    let index = index as usize;
    LINES.get(index).and_then(|l| text(index).get(l.start as usize..l.end as usize)).unwrap_or("")
}

/// The target of an operator.
pub(super) fn target(index: u32) -> &'static str {
    let length = LINES.get(index as usize).map_or(0, |l| usize::from(l.target));
    line(index).get(..length).unwrap_or("")
}

/// The schema of an operator, read on first use.
pub(super) fn schema(index: u32) -> &'static Schema {
    match SCHEMAS.get(index as usize) {
        // A test reads every line, so the other schema is never seen.
        Some(cell) => cell.get_or_init(|| Box::new(parse::parse(line(index)).unwrap_or_else(|_| registry::unknown().clone()))),
        None => registry::unknown(),
    }
}

/// The schema of an operator's functional variant, made on first use.
pub(super) fn functional(index: u32) -> &'static Schema {
    match FUNCTIONAL.get(index as usize) {
        Some(cell) => cell.get_or_init(|| Box::new(super::effects::functional_schema(schema(index)))),
        None => registry::unknown(),
    }
}
