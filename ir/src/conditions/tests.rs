use super::*;
use crate::program::Program;
use crate::text::{self, NoFiles};

fn program(more: &str) -> Program {
    let head = "etir 1\nmethod \"forward\" functional {\n";
    let text = format!(
        "{head}{more}
           input %x : f32[4*s0, s1, 3] = user
           input %d_q : f32[s1] = user
           input = literal \"flag\" True
           input %n : int(s2) = user
           return %x
         }}"
    );
    text::parse(&text, &mut NoFiles).unwrap()
}

/// Whether bounds imply a condition.
fn decided(guard: &str) -> Option<bool> {
    let program = program("symbol s0 [2..16] symbol s1 [4..] symbol s2 [3..17]");
    let method = &program.methods[0];
    let guard = Guard::read(guard, &method.graph, &method.inputs);
    method.ranges.decide(guard.condition.as_ref()?)
}

#[test]
fn what_bounds_imply_is_known() {
    for guard in [
        "L['x'].size()[0] % 4 == 0",
        "(L['x'].size()[0] % 4) == 0 and L['x'].size()[2] == 3",
        "L['x'].size()[1] == L['d']['q'].size()[0]",
        "L['flat_args'][1].size()[0] >= 4",
        "L['n'] > 2",
        "not L['flat_args'][3] < 3",
        "(L['x'].size()[1] > 100 or (L['x'].size()[0] <= 64))",
        "torch.sym_max(2, L['x'].size()[1]) != 3",
        "math.trunc(0.75*torch.sym_float(L['x'].size()[1])) >= 3",
        "math.trunc(torch.sym_float(L['x'].size()[1]) ** 0.5) != 1",
        "L['x'].size()[1]*L['x'].size()[0] >= 32",
        "(L['x'].size()[1] // 2) <= L['x'].size()[1]",
        "torch.sym_max(1, math.trunc(0.4*torch.sym_float(L['x'].size()[1]))) == math.trunc(0.4*torch.sym_float(L['x'].size()[1]))",
        "1 % L['n'] != 0",
        "round(L['n'] / 2.5) < 8",
    ] {
        assert_eq!(decided(guard), Some(true), "{guard}");
    }
    for guard in ["L['x'].size()[1] < 4", "math.trunc(0.75*torch.sym_float(L['x'].size()[1])) == 2", "not (L['n'] > 2)"] {
        assert_eq!(decided(guard), Some(false), "{guard}");
    }
    for guard in [
        "L['x'].size()[1]*L['x'].size()[1] == 64",
        "L['x'].size()[0] % 4 == 0 and L['x'].size()[1] % 2 == 0",
        "L['y'].size()[0] == 3",
        "L['x'].stride()[0] == 3",
        "L['x'].size()[7] == 3",
        "L['x",
        "",
        ")(",
        "f(L['n'])",
        "L['n'] == 4 and",
        "or",
        "not",
        &"(".repeat(100_000),
        &"not ".repeat(100_000),
        &format!("{}L['n'] > 2{}", "(".repeat(100_000), ")".repeat(100_000)),
    ] {
        assert_eq!(decided(guard), None, "{guard}");
    }
}

/// The bounds of s1 and s2 by guards on `@` and `#`.
fn narrowed(guards: &[&str]) -> String {
    let lines: Vec<String> =
        guards.iter().map(|g| format!("guard \"{}\"", g.replace('@', "L['x'].size()[1]").replace('#', "L['n']"))).collect();
    let mut program = program(&format!("symbol s1 [2..] symbol s2 [2..] {}", lines.join(" ")));
    narrow(&mut program.methods[0]);
    let of = |name: &str| program.methods[0].ranges.of(&Symbol::new(name).unwrap()).to_string();
    format!("{} {}", of("s1"), of("s2"))
}

#[test]
fn bounds_are_narrowed_by_what_can_be_solved() {
    for (guards, expected) in [
        (&["math.trunc(0.75*torch.sym_float(@)) == 6"] as &[&str], "[8..9] [2..]"),
        (&["math.trunc(torch.sym_float(@) ** 0.5) == 2"], "[4..8] [2..]"),
        (&["math.ceil((((-0.5) + torch.sym_float(@ // 8)) / 1.0)) >= 2"], "[16..] [2..]"),
        (&["(@ % 3) == 0"], "[3..] [2..]"),
        (&["(@ % 3) == 0", "@ < 11"], "[3..9] [2..]"),
        (&["(@ // 2) != 1"], "[4..] [2..]"),
        (&["@*@ == 64"], "[8..8] [2..]"),
        (&["@ > #", "# >= 5"], "[6..] [5..]"),
        (&["@ == 2*# + 1", "@ <= 12"], "[5..11] [2..5]"),
        (&["@ + # < 8"], "[2..5] [2..5]"),
        (&["@ > 3 and @ < 9", "not (@ == 4)"], "[5..8] [2..]"),
        (&["not (@ < 5 or # < 7)"], "[5..] [7..]"),
        (&["@ < 5 or @ == 9"], "[2..] [2..]"),
        (&["torch.sym_max(2, torch.sym_min(@, #)) <= #"], "[2..] [2..]"),
        (&["10 - @ >= 3"], "[2..7] [2..]"),
        (&["100 // @ == 7"], "[13..14] [2..]"),
        // Nothing is left out by what holds for nothing, or cannot be computed.
        (&["@ < 1"], "[2..] [2..]"),
        (&["1 % (@ - 2) == 0"], "[2..] [2..]"),
        (&["@ == @ + 1", "@ > 9223372036854775807"], "[2..] [2..]"),
    ] {
        assert_eq!(narrowed(guards), expected, "{guards:?}");
    }
}

const OPEN: &str = "symbol s0 [2..] symbol s1 [2..] symbol s2 [1..9]
  guard \"L['x'].size()[1] % 2 == 0\"
  guard \"L['x'].size()[1] < 2*L['x'].size()[0] or not L['n'] != 3\"
  guard \"math.trunc(0.75*torch.sym_float(L['x'].size()[1])) >= 3\"
  guard \"L['x'].stride()[0] == 3\"";

#[test]
fn conditions_are_written_and_read_back() {
    let mut program = program(OPEN);
    narrow(&mut program.methods[0]);
    let conditions = Conditions::of(&program.methods[0], 100).unwrap();
    let text = conditions.to_text();
    assert_eq!(
        text,
        "etx conditions 1
sizes 0 4*s0; s1; 3
sizes 1 s1
number 3 s2
symbol s0 1..100 planned
symbol s1 4..100 planned
symbol s2 1..9
guard s1 % 2 == 0
guard s1 < 8*s0 or not (s2 != 3)
"
    );
    assert_eq!(Conditions::parse(&text), Ok(conditions));
    for (text, expected) in [
        ("", "is expected"),
        ("etx conditions 2\n", "found \"etx conditions 2\""),
        ("etx conditions 1\nsizes 0\n", "line 2"),
        ("etx conditions 1\nsymbol s0 1..2 soon\n", "line 2"),
        ("etx conditions 1\nsymbol s0 1..2\nguard (((\n", "line 3"),
        ("etx conditions 1\nnumber -1 s0\n", "line 2"),
    ] {
        let error = Conditions::parse(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn calls_that_break_a_condition_are_told_which() {
    let mut program = program(OPEN);
    narrow(&mut program.methods[0]);
    let conditions = Conditions::of(&program.methods[0], 100).unwrap();
    let check = |x: &[usize], q: usize, n: i64| {
        conditions.check(&[Given::Sizes(x), Given::Sizes(&[q]), Given::Other, Given::Number(n)]).map_err(|e| e.what)
    };
    assert_eq!(check(&[16, 6, 3], 6, 4), Ok(()));
    // As in torch, one where two is the least.
    assert_eq!(check(&[4, 6, 3], 6, 4), Ok(()));
    for (x, q, n, expected) in [
        ([16, 6, 2], 6, 4, "dimension 2 of input_0 is 2, and the program takes 3 there"),
        ([15, 6, 3], 6, 4, "dimension 0 of input_0 is 15, and the program takes 4*s0 there"),
        ([16, 6, 3], 5, 4, "dimension 0 of input_1 is 5, and the program takes s1 = 6 there; s1 is 6 (dimension 1 of input_0)"),
        ([16, 2, 3], 2, 4, "dimension 1 of input_0 (s1) is 2, and the program was exported for 4 or more"),
        ([16, 102, 3], 102, 4, "dimension 1 of input_0 (s1) is 102, and memory is planned for at most 100"),
        ([16, 6, 3], 6, 10, "input_3 (s2) is 10, and the program was exported for at most 9"),
        ([16, 5, 3], 5, 4, "the program was exported for calls with s1 % 2 == 0; s1 is 5 (dimension 1 of input_0)"),
        (
            [4, 8, 3],
            8,
            4,
            "the program was exported for calls with s1 < 8*s0 or not (s2 != 3); s1 is 8 (dimension 1 of input_0); s0 is 1 (by \
             dimension 0 of input_0); s2 is 4 (input_3)",
        ),
    ] {
        assert_eq!(check(&x, q, n), Err(expected.to_owned()));
    }
    // Of what is not there or of another rank nothing is known; whoever takes it will say so.
    assert_eq!(conditions.check(&[]), Ok(()));
    assert_eq!(conditions.check(&[Given::Sizes(&[4, 8]), Given::Number(3)]), Ok(()));
    let odd = Conditions::parse("etx conditions 1\nsizes 0 s0\nguard 1 % (s0 - 2) == 0 or s0 == 9223372036854775807*s0\n").unwrap();
    assert!(odd.check(&[Given::Sizes(&[2])]).is_err(), "a condition that cannot be computed does not hold");
}

#[test]
fn conditions_read_back_as_they_are_shown() {
    for text in [
        "(s0 + 1)*s1 // 2 % 3 == -s0",
        "-1*(s0 // 3)*(s1 % 2) - 4 <= max(s0, 2) - min(s1, abs(s0 - s1))",
        "s0 // (s1 // 2) // s2 == s0 % (s1 % 7)",
        "ceil((-0.5 + float(s0 // 8)) / 1.0) != 1",
        "trunc(float(s0) ** 0.5) == 2 and (s0 == 1 or not (s1 == 2 and s2 < 3))",
        "(s0 == 1) == (s1 == 2)",
        "s0 * (s1 / 2) < -2.5 * float(s2)",
        "Where(s0 == 2, s1, -3) == round(s0 / 3) + 9223372036854775807",
    ] {
        let e = Expr::parse(text).unwrap();
        let shown = Infix(&e).to_string();
        assert_eq!(Expr::parse(&shown).as_ref(), Ok(&e), "{text}: {shown}");
    }
}
