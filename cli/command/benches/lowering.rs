//! What lowering costs, as tables for the README.
//!
//! `cargo bench -p etx-cli --bench lowering -- [--runs N] [--scratch DIR] PROGRAM.pt2…`
//!
//! * Time and memory to lower and write each program, beside `cp` of the same file into the same folder: runs of both alternate,
//!   the best of each counts, all writes are flushed before the next run begins.
//! * Graph work (load, passes, partition) a node: give programs of 1, 4 and 16 times the layers to see how it grows.
//!   `tests/scripts/make_benchmark_llama.py` makes programs of any size.
//! * With `REFERENCE_PYTHON`, the Python of an environment with ExecuTorch, also its own lowering.
//!
//! Memory is what the process holds beyond mapped files (`RssAnon` of Linux, sampled every millisecond). Without a program, the bundled
//! example is measured.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::Value;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lowering: {e}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    runs: usize,
    scratch: PathBuf,
    programs: Vec<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options { runs: 5, scratch: env::temp_dir(), programs: Vec::new() };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Given by cargo.
            "--bench" => {}
            "--runs" => options.runs = args.next().ok_or("--runs needs a number")?.parse()?,
            "--scratch" => options.scratch = args.next().ok_or("--scratch needs a folder")?.into(),
            _ if arg.starts_with('-') => return Err(format!("unknown option {arg}").into()),
            _ => options.programs.push(arg.into()),
        }
    }
    if options.programs.is_empty() {
        options.programs.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/llama/model.pt2"));
    }
    options.scratch.push(format!("etx-bench-{}", std::process::id()));
    Ok(options)
}

fn bench() -> Result<()> {
    let options = options()?;
    fs::create_dir_all(&options.scratch)?;
    let measured: Result<Vec<Row>> = options.programs.iter().map(|program| measure(program, &options)).collect();
    fs::remove_dir_all(&options.scratch)?;
    let rows = measured?;

    println!("\n| program | size | `cp` | `etx lower` | ratio | memory |\n|---|---|---|---|---|---|");
    for r in &rows {
        let (cp, lower) = (r.cp.as_secs_f64(), r.lower.as_secs_f64());
        let memory = r.memory.map_or("–".to_owned(), |kib| format!("{:.0} MB", kib as f64 * 1024.0 / 1e6));
        println!("| {} | {:.1} MB | {cp:.3} s | {lower:.3} s | {:.2} | {memory} |", r.name, r.bytes as f64 / 1e6, lower / cp);
    }
    println!("\n| program | nodes | load | passes | partition | graph work | a node |\n|---|---|---|---|---|---|---|");
    for r in &rows {
        let [load, passes, partition] = r.phases;
        let all = load + passes + partition;
        let ms = |s: f64| format!("{:.1} ms", s * 1e3);
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.1} µs |",
            r.name,
            r.nodes,
            ms(load),
            ms(passes),
            ms(partition),
            ms(all),
            all * 1e6 / (r.nodes.max(1) as f64)
        );
    }
    if let Ok(python) = env::var("REFERENCE_PYTHON") {
        println!("\n| program | lowering by ExecuTorch | processor time | peak memory |\n|---|---|---|---|");
        for program in &options.programs {
            println!("| {} | {} |", name(program), reference(&python, program)?);
        }
    }
    Ok(())
}

struct Row {
    name: String,
    bytes: u64,
    cp: Duration,
    lower: Duration,
    /// Most memory of any run, in KiB.
    memory: Option<u64>,
    /// Calls in the exported program.
    nodes: u64,
    /// Least seconds of load, passes, partition.
    phases: [f64; 3],
}

fn name(program: &Path) -> String {
    program.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn measure(program: &Path, options: &Options) -> Result<Row> {
    let target = options.scratch.join("out");
    let report = options.scratch.join("report.json");
    let mut row = Row {
        name: name(program),
        bytes: fs::metadata(program).map_err(|e| format!("{}: {e}", program.display()))?.len(),
        cp: Duration::MAX,
        lower: Duration::MAX,
        memory: None,
        nodes: 0,
        phases: [f64::INFINITY; 3],
    };
    // Both read from the page cache.
    std::io::copy(&mut fs::File::open(program)?, &mut std::io::sink())?;
    for _ in 0..options.runs {
        let (time, _) = timed(Command::new("cp").arg(program).arg(&target), &target)?;
        row.cp = row.cp.min(time);

        let mut lower = Command::new(env!("CARGO_BIN_EXE_etx"));
        lower.arg("lower").arg(program).args(["--backend", "mlx", "-o"]).arg(&target).arg("--report").arg(&report);
        let (time, memory) = timed(&mut lower, &target)?;
        row.lower = row.lower.min(time);
        row.memory = row.memory.max(memory);

        let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
        for (least, phase) in row.phases.iter_mut().zip(["load", "passes", "partition"]) {
            let seconds = report["seconds"][phase].as_f64().ok_or("the report has no times")?;
            *least = least.min(seconds);
        }
        // The first pass on each method sees the program as it was exported.
        let first = report["passes"][0]["pass"].as_str().ok_or("the report has no passes")?;
        let passes = report["passes"].as_array().into_iter().flatten();
        row.nodes = passes.filter(|p| p["pass"] == first).filter_map(|p| p["nodes_before"].as_u64()).sum();
    }
    Ok(row)
}

/// Time of a command that writes `target`, which is removed then, and the most memory it had beyond mapped files, in KiB.
fn timed(command: &mut Command, target: &Path) -> Result<(Duration, Option<u64>)> {
    // What runs before this one wrote must not be written back during it.
    Command::new("sync").status()?;
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn()?;
    let memory = watch(&mut child)?;
    let status = child.wait()?;
    let time = start.elapsed();
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    fs::remove_file(target)?;
    Ok((time, memory))
}

/// Samples the memory of a process until it ends.
fn watch(child: &mut Child) -> Result<Option<u64>> {
    let status = format!("/proc/{}/status", child.id());
    let mut most = None;
    while child.try_wait()?.is_none() {
        let anonymous = fs::read_to_string(&status).ok().and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        most = most.max(anonymous);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(most)
}

/// Cells for the reference's lowering.
fn reference(python: &str, program: &Path) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reference.py");
    let out = Command::new(python).arg(script).arg(program).stderr(Stdio::null()).output()?;
    if !out.status.success() {
        return Ok(format!("{} | – | –", out.status));
    }
    let last = String::from_utf8(out.stdout)?;
    let result: Value = serde_json::from_str(last.lines().last().unwrap_or_default())?;
    let number = |key: &str| result[key].as_f64().ok_or_else(|| format!("reference.py gave no {key}"));
    Ok(format!("{:.1} s | {:.1} s | {:.1} GB", number("seconds")?, number("processor_seconds")?, number("peak_bytes")? / 1e9))
}
