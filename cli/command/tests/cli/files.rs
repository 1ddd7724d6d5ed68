//! Where the command reads from and writes to.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bad_input::says;
use crate::support::{Folder, args, example};

/// Runs the command with these bytes as standard input.
fn fed(folder: &Folder, words: &[&str], input: &[u8]) -> Output {
    let mut command = folder.command();
    let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What refuses the command line reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_dash_is_standard_output_and_input() {
    let folder = Folder::new();
    folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte"]).good();
    let lowered = fs::read(folder.path("a.pte")).unwrap();
    let model = fs::read(example("model.pt2")).unwrap();
    let done = fed(&folder, &["lower", "-", "-o", "-"], &model);
    assert!(done.status.success() && done.stdout == lowered, "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).starts_with("standard output: 1 method, "));

    let prompt = example("prompt.safetensors").display().to_string();
    let done = fed(&folder, &["run", "-", "--inputs", &prompt, "--outputs", "-"], &lowered);
    folder.etx(args!["run", "a.pte", "--inputs", &prompt, "--outputs", "out"]).good();
    assert_eq!(done.stdout, fs::read(folder.path("out")).unwrap());
    let done = fed(&folder, &["run", "a.pte", "--inputs", "-", "--outputs", "-"], &fs::read(&prompt).unwrap());
    assert_eq!(done.stdout, fs::read(folder.path("out")).unwrap());
    let done = fed(&folder, &["inspect", "-"], &lowered);
    assert!(String::from_utf8_lossy(&done.stdout).contains("SdpaNode"));
    // There is nothing to name the file after.
    let done = fed(&folder, &["lower", "-"], &model);
    assert!(done.status.code() == Some(2) && String::from_utf8_lossy(&done.stderr).contains("-o OUT.pte"));
    assert_eq!(folder.files(), ["a.pte", "out"]);
}

#[test]
fn no_output_replaces_another_or_an_input() {
    let folder = Folder::new();
    for name in ["model.pt2", "prompt.safetensors"] {
        fs::copy(example(name), folder.path(name)).unwrap();
    }
    symlink("model.pt2", folder.path("link")).unwrap();
    symlink("b.pte", folder.path("dangling")).unwrap();
    folder.etx(["lower", "model.pt2", "-o", "a.pte"]).good();
    let before = folder.files();
    for (line, expected) in [
        ("lower model.pt2 -o b.pte --report b.pte", "-o and --report are one file: b.pte"),
        ("lower model.pt2 -o b.pte --report ./b.pte", "-o and --report are one file"),
        ("lower model.pt2 -o b.pte --report dangling", "-o and --report are one file"),
        ("lower model.pt2 -o - --report -", "-o and --report are standard output"),
        ("lower model.pt2 -o model.pt2", "-o model.pt2 would replace the input model.pt2"),
        ("lower link -o model.pt2", "would replace the input link"),
        ("lower model.pt2 -o b.pte --report link", "--report link would replace the input model.pt2"),
        ("lower model.pt2 --method a=a.pte -o a.pte", "-o a.pte would replace the input a.pte"),
        ("lower g.json --weights prompt.safetensors -o prompt.safetensors", "would replace the input prompt.safetensors"),
        ("run a.pte --inputs prompt.safetensors --outputs prompt.safetensors", "would replace the input"),
        ("run a.pte --inputs prompt.safetensors --outputs a.pte", "would replace the input a.pte"),
        ("run a.pte --inputs i --outputs o --inputs i --outputs o", "--outputs is given twice for one file: o"),
        ("run a.pte --inputs i --outputs - --inputs i --outputs -", "--outputs is given twice for standard output"),
        ("run a.pte --inputs i --outputs - --inputs j", "would both write to standard output"),
        ("run a.pte --inputs i --outputs - --time", "would both write to standard output"),
    ] {
        let error = folder.etx(line.split_whitespace()).bad();
        says(&error, &[expected, "help: "]);
        assert_eq!(folder.files(), before, "{line}");
    }
    // Weights that a text names are inputs as well.
    let text = folder.etx(["print", "model.pt2"]).good();
    folder.write("a.etir", text);
    says(&folder.etx(["lower", "a.etir", "-o", "model.pt2"]).bad(), &["would replace the input model.pt2"]);
}

#[test]
fn pipes_are_read_and_what_never_ends_is_refused() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = folder.etx(["lower", "pipe", "-o", "a.pte"]).bad();
    says(&error, &["cannot read pipe: nothing comes out of this pipe"]);
    let writer = std::thread::spawn(move || fs::write(pipe, fs::read(example("model.pt2")).unwrap()).unwrap());
    folder.etx(["lower", "pipe", "-o", "a.pte"]).good();
    writer.join().unwrap();
    for verb in ["lower", "run", "inspect", "print"] {
        says(&folder.etx([verb, "/dev/zero"]).bad(), &["/dev/zero", "device"]);
    }
    assert_eq!(folder.files(), ["a.pte", "pipe"]);
}

#[test]
fn a_link_to_nothing_is_followed() {
    let folder = Folder::new();
    symlink("real.pte", folder.path("link.pte")).unwrap();
    folder.etx(args!["lower", example("model.pt2"), "-o", "link.pte"]).good();
    assert_eq!(folder.files(), ["link.pte", "real.pte"]);
    assert!(folder.path("link.pte").is_symlink() && !folder.path("real.pte").is_symlink());
    symlink("absent/real.pte", folder.path("lost.pte")).unwrap();
    says(&folder.etx(args!["lower", example("model.pt2"), "-o", "lost.pte"]).bad(), &["cannot write lost.pte: folder "]);
}

const TEXT: &str = "etir 1
weight @0 \"w\" f32[2] file \"PATH\" offset 0
method \"forward\" functional {
  input %w : f32[2] = parameter @0
  input %x : f32[2] = user
  %y : f32[2] = aten.mul.Tensor(%x, %w)
  return %y
}
";

#[test]
fn a_text_names_weights_below_its_own_folder_only() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("in/deep")).unwrap();
    folder.write("secret.bin", [0; 8]);
    folder.write("in/deep/w.bin", [1; 8]);
    symlink("../secret.bin", folder.path("in/link.bin")).unwrap();
    symlink("deep/w.bin", folder.path("in/inside.bin")).unwrap();
    let named = |path: &Path| folder.write("in/a.etir", TEXT.replace("PATH", path.to_str().unwrap()));
    for path in ["deep/w.bin", "./deep/w.bin", "inside.bin"] {
        named(path.as_ref());
        folder.etx(["lower", "in/a.etir", "-o", "a.pte"]).good();
    }
    let absolute = folder.path("secret.bin");
    for path in [Path::new("../secret.bin"), &absolute, Path::new("deep/../../secret.bin"), Path::new("link.bin")] {
        named(path);
        for verb in ["lower", "print", "inspect"] {
            says(&folder.etx([verb, "in/a.etir"]).bad(), &["in/a.etir: ", "the folder of this text", "help: ", "--allow-outside"]);
            folder.etx(args![verb, "in/a.etir", "--allow-outside"]).good();
        }
    }
}
