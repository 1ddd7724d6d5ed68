//! What people read, word for word: texts in `snapshots/`, written anew by `BLESS=1`.

use std::fs;
use std::path::Path;

use crate::support::{Done, Folder, args, example, fixture};

/// Compares with `snapshots/<name>.txt`.
#[track_caller]
fn same(name: &str, said: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots").join(name).with_extension("txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, said).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let line = said.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    assert!(
        said == expected,
        "{} differs in line {}:\n{:?}, expected\n{:?}\nIf the change is meant, run the test with BLESS=1 and read the diff.",
        path.display(),
        line + 1,
        said.lines().nth(line),
        expected.lines().nth(line)
    );
}

/// Standard output and error as a terminal shows them.
fn both(done: &Done) -> String {
    format!("{}{}", done.stdout, done.stderr)
}

#[test]
fn the_text_of_a_program() {
    let folder = Folder::new();
    fs::copy(fixture("rms_norm_default_eps/forward.pt2"), folder.path("m.pt2")).unwrap();
    same("program", &folder.etx(["print", "m.pt2"]).good());
    same("program-rewritten", &folder.etx(["lower", "m.pt2", "--stop-after", "fuse-rms-norm"]).good());
    folder.etx(["lower", "m.pt2"]).good();
    same("program-lowered", &folder.etx(["print", "m.pte"]).good());
}

#[test]
fn the_plan_of_a_file_with_portable_kernels() {
    let folder = Folder::new();
    same("plan-with-kernels", &folder.etx(args!["print", fixture("conditional/reference.pte")]).good());
}

#[test]
fn summaries() {
    let folder = Folder::new();
    for (file, name) in
        [(example("model.pt2"), "m.pt2"), (fixture("conditional/reference.pte"), "m.pte"), (example("step.safetensors"), "m.safetensors")]
    {
        fs::copy(file, folder.path(name)).unwrap();
        same(&format!("inspect-{}", name.replace('.', "-")), &folder.etx(["inspect", name]).good());
    }
}

#[test]
fn refusals() {
    let folder = Folder::new();
    folder.write("m.etir", crate::REFUSED);
    let done = folder.etx(["lower", "m.etir", "-o", "m.pte"]);
    same("refused", &both(&done));
}
