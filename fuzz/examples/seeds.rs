//! Makes seeds for the fuzz targets out of the fixtures: `cargo run -p etx-fuzz --example seeds -- FOLDER [MOST_BYTES]`.
//!
//! Every target gets a folder of its name below FOLDER; only files of at most MOST_BYTES (by default 16384) are taken.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use etx::serializer::pte::PteFile;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let out = PathBuf::from(args.next().ok_or("usage: seeds FOLDER [MOST_BYTES]")?);
    let most: usize = args.next().map_or(Ok(16384), |n| n.to_string_lossy().parse())?;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let keep = |target: &str, name: &str, bytes: &[u8]| -> std::io::Result<()> {
        if bytes.len() <= most {
            let folder = out.join(target);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    };
    for folder in fs::read_dir(fixtures)? {
        let folder = folder?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = folder.join("forward.pt2");
        if !file.is_file() {
            continue;
        }
        let archive = fs::read(&file)?;
        keep("pt2", &name, &archive)?;
        keep("safetensors", &name, &fs::read(folder.join("io.safetensors"))?)?;
        // torch stores the graph as it is.
        let key = b"{\"graph_module\"";
        if let Some(at) = archive.windows(key.len()).position(|w| w == key) {
            let mut values = serde_json::Deserializer::from_slice(&archive[at..]).into_iter::<serde_json::Value>();
            if let Some(Ok(json)) = values.next() {
                keep("model_json", &name, &serde_json::to_vec(&json)?)?;
            }
        }
        let Ok(program) = etx::load(&file, &[]) else { continue };
        keep("etir", &name, etx::ir::text::print(&program).as_bytes())?;
        let Ok(lowered) = etx::Lowering::mlx().run(program) else { continue };
        let pte = std::env::temp_dir().join(format!("etx-seeds-{}.pte", std::process::id()));
        lowered.write(&pte)?;
        keep("pte", &name, &fs::read(&pte)?)?;
        let file = PteFile::open(&pte)?;
        for (i, plan) in file.methods().iter().enumerate() {
            for (j, delegate) in plan.delegates.iter().enumerate() {
                keep("payload", &format!("{name}-{i}-{j}"), file.payload(delegate)?.bytes())?;
            }
        }
        fs::remove_file(&pte)?;
    }
    keep("tokenizer", "bytes", &fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/llama/tokenizer.json"))?)?;
    for op in 0..=255u8 {
        keep("evaluation", &format!("{op}"), &[op, op % 4, 0, 2, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])?;
    }
    Ok(())
}
