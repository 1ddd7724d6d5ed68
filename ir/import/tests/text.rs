//! What is read prints as text that parses back exactly: the fixtures and examples of this repository, and the programs below `ETX_CASES`
//! if it is set.

use etx_import::pt2;
use etx_ir::text::{self, Files, NoFiles};
use etx_ir::verify::verify;

#[test]
fn programs_of_the_exporter_come_back_exactly_and_verify() {
    let mut folders = vec![
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures").into(),
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples").into(),
    ];
    if let Some(more) = std::env::var_os("ETX_CASES") {
        folders.extend(std::env::split_paths(&more));
    }
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "pt2") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut read = 0;
    for path in files {
        // Whether it loads is the reader's own test.
        let Ok(program) = pt2::load(&path) else { continue };
        verify(&program).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = text::print(&program);
        let again = text::parse(&text, &mut NoFiles).unwrap();
        assert_eq!(text::difference(&program, &again), None, "{}", path.display());
        assert_eq!(text::print(&again), text);
        // With the file at hand, weights come back with their bytes.
        let with_files = text::parse(&text, &mut Files::default().anywhere()).unwrap();
        for (a, b) in program.weights().iter().zip(with_files.weights()) {
            assert_eq!(a.data.bytes(), b.data.bytes(), "{} in {}", a.name, path.display());
        }
        assert_eq!(text::print(&with_files), text);
        read += 1;
    }
    assert!(read > 20, "{read} programs were read");
}
