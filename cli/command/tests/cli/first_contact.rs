//! What a user hears at first: what was done, what to know, and what to do about a mistake.

use std::fs;

use crate::bad_input::says;
use crate::support::{Folder, args, example, fixture, json};

#[test]
fn what_was_done_is_said_anywhere_unless_it_is_to_be_quiet() {
    let folder = Folder::new();
    let lower =
        |more: &[&str]| folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte"].into_iter().chain(more.iter().map(Into::into)));
    let said = lower(&[]).told();
    assert!(said.starts_with("a.pte: 1 method, ") && said.contains("\n1 weight shared, "), "{said}");
    // No line of a terminal is drawn where there is none.
    assert!(!said.contains('\x1b') && !said.contains('\r'), "{said:?}");
    for quiet in ["-q", "--quiet"] {
        assert_eq!(lower(&[quiet]).told(), "");
    }
    let generate = |more: &[&str]| folder.etx(["generate", "a.pte", "--ids", "1,2", "--max-tokens", "2"].iter().chain(more)).told();
    assert!(generate(&[]).starts_with("prefill: ") && generate(&["-q"]).is_empty());
}

/// Attention with dropout that is off and with dropout that is on, and a layer of dropout in evaluation.
const ATTENTION: &str = "etir 1
file $model \"model.py\"
method \"forward\" functional {
  input %q : f32[1, 2, 3, 8] = user
  %a : f32[1, 2, 3, 8] = aten.scaled_dot_product_attention.default(%q, %q, %q) at $model:1 in forward
  %b : f32[1, 2, 3, 8] = aten.scaled_dot_product_attention.default(%a, %a, %a, dropout_p=0.0) at $model:2 in forward
  %c : f32[1, 2, 3, 8] = aten.dropout.default(%b, 0.5, False) at $model:3 in forward
  %d : f32[1, 2, 3, 8] = aten.dropout.default(%c, 0.0, True) at $model:4 in forward
  %e : f32[1, 2, 3, 8] = aten.rand_like.default(%d) at $model:5 in forward
  LAST
  return %d
}
";

#[test]
fn only_lines_that_draw_are_said_to() {
    let folder = Folder::new();
    let notes = |last: &str, result: &str| {
        folder.write("a.etir", ATTENTION.replace("LAST", last).replace("return %d", &format!("return {result}")));
        let said = folder.etx(["lower", "a.etir", "-o", "a.pte", "--report", "r.json"]).told();
        let report = json(fs::read(folder.path("r.json")).unwrap());
        (said.lines().filter(|l| l.contains("draws random numbers")).map(str::to_owned).collect::<Vec<_>>(), report)
    };
    // What a random operator gives is not used.
    let (said, report) = notes("", "%d");
    assert!(said.is_empty() && report["methods"][0].get("random").is_none(), "{said:?} {report}");
    let drop = "%f : f32[1, 2, 3, 8] = aten.dropout.default(%d, 0.5, True) at $model:7 in forward of net.drop";
    let (said, report) = notes(drop, "%f");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("note: forward: model.py:7") && said[0].contains("eval mode"), "{said:?}");
    assert_eq!(report["methods"][0]["random"].as_array().map(Vec::len), Some(1));
    // The bundled example has attention, and draws nothing.
    let said = folder.etx(args!["lower", example("model.pt2"), "-o", "b.pte"]).told();
    assert!(!said.contains("random"), "{said}");
}

#[test]
fn advice_fits_the_mistake() {
    let folder = Folder::new();
    fs::copy(example("model.pt2"), folder.path("m.pt2")).unwrap();
    folder.etx(["lower", "m.pt2", "-o", "good.pte"]).good();
    folder.write("m.etir", folder.etx(["print", "m.pt2"]).good());
    for line in ["run m.pt2", "generate m.pt2 --ids 1", "run m.etir"] {
        let name = line.split_whitespace().nth(1).unwrap();
        let lower = format!("help: lower it first: etx lower {name} -o m.pte");
        says(&folder.etx(line.split_whitespace()).bad(), &["only lowered ones run", &lower]);
    }
    let inputs = example("prompt.safetensors");
    says(&folder.etx(args!["run", &inputs]).bad(), &["holds tensors, not a program", "help: inputs of calls go with --inputs"]);
    let disabled = folder.etx(["lower", "m.pt2", "-o", "a.pte", "--disable-pass", "functionalise"]).bad();
    says(&disabled, &["`functionalise` makes it, and was disabled", "help: leave out --disable-pass functionalise"]);

    let good = fs::read(folder.path("good.pte")).unwrap();
    for len in [8, 63, 200, good.len() / 2, good.len() - 1] {
        folder.write("cut.pte", &good[..len]);
        for verb in ["run", "print", "inspect"] {
            says(&folder.etx([verb, "cut.pte"]).bad(), &["cut.pte", "\nhelp: the file is damaged or was cut short"]);
        }
    }
    let wrong = "etir 1\nmethod \"f\" functional {\n  input %x : f32[2] = user\n  %y : f32[3] = aten.relu.default(%x)\n  return %y\n}\n";
    for text in [wrong, &wrong.replace("f32[3]", "f99[3]"), &wrong.replace("relu", "rely"), &wrong.replace("%y :", "%y")] {
        folder.write("wrong.etir", text);
        says(&folder.etx(["lower", "wrong.etir"]).bad(), &["wrong.etir: ", "\nhelp: "]);
    }
    let complex =
        "etir 1\nmethod \"f\" functional {\n  input %x : f32[8] = user\n  %y : c64[5] = aten.fft_rfft.default(%x)\n  return %y\n}\n";
    folder.write("complex.etir", complex);
    says(&folder.etx(["lower", "complex.etir"]).bad(), &["aten.fft_rfft.default", " — ", "torch.view_as_real"]);
    let constant = "etir 1\nweight @0 \"c\" f32[1] inline 0x0000803f\nmethod \"f\" training {\n  input %c : f32[1] = constant @0\n  \
                    input %x : f32[1] = user\n  %y : f32[1] = aten.add_.Tensor(%c, %x)\n  return %y\n}\n";
    folder.write("constant.etir", constant);
    says(&folder.etx(["lower", "constant.etir"]).bad(), &["register_buffer", "\nhelp: "]);
    // What a call does not take says what it takes.
    let outputs = folder.etx(args!["run", "good.pte", "--inputs", example("prompt.expected.safetensors")]).bad();
    says(&outputs, &["no input_0", "help: the method takes input_0: "]);
}

#[test]
fn methods_keep_the_names_that_were_chosen() {
    let folder = Folder::new();
    let names = |file: &str| {
        let summary = json(folder.etx(["inspect", file, "--format", "json"]).good());
        summary["methods"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (one, two) = (fixture("named-pt2/encode.pt2"), fixture("named-pt2/two.pt2"));
    folder.etx(args!["lower", &one, "-o", "a.pte"]).good();
    assert_eq!(names("a.pte"), ["encode"]);
    folder.etx(args!["lower", &two, "-o", "a.pte"]).good();
    assert_eq!(names("a.pte"), ["decode", "encode"]);
    let method = |name: &str, file: &std::path::Path| format!("{name}={}", file.display());
    folder.etx(args!["lower", "--method", method("other", &one), "--method", method("decode", &two), "-o", "a.pte"]).good();
    assert_eq!(names("a.pte"), ["decode", "other"]);
    let absent = folder.etx(args!["lower", "--method", method("absent", &two), "-o", "a.pte"]).bad();
    says(&absent, &["none of its 2 methods is called \"absent\"", "help: choose one of decode, encode"]);
    folder.etx(args!["lower", example("model.pt2"), "-o", "b.pte"]).good();
    assert_eq!(names("b.pte"), ["forward"]);
}
