//! The `etx` command: one verb a file in [`verbs`], exit status and prose here.

mod signals;
mod verbs;

use std::io::{self, Write as _};
use std::panic;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "generate")]
use verbs::generate;
use verbs::{Failure, inspect, lower, ops, print, run};

/// Lowers programs that torch.export wrote to ExecuTorch files for Apple's MLX, and runs such files anywhere.
#[derive(Parser)]
#[command(name = "etx", version, propagate_version = true, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 a difference or a failed gate, 2 bad input, 3 a bug in etx.";

#[derive(Subcommand)]
enum Verb {
    Lower(lower::Opts),
    Run(run::Opts),
    #[cfg(feature = "generate")]
    Generate(generate::Opts),
    #[cfg(feature = "generate")]
    #[command(hide = true)]
    Tokenize(generate::Tokenize),
    Print(print::Opts),
    Inspect(inspect::Opts),
    Ops(ops::Opts),
}

fn main() -> ExitCode {
    // Usage errors end here, with status 2.
    let verb = Cli::parse().verb;
    signals::watch();
    panic::set_hook(Box::new(|info| {
        // What says it must not fail either.
        let _ = writeln!(io::stderr(), "error: {info}\nhelp: this is a bug in etx; please report it with the command and its input");
    }));
    // Nothing that a panic may have left half done is looked at afterwards.
    let done = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let mut out = io::BufWriter::new(io::stdout().lock());
        match verb {
            Verb::Lower(opts) => opts.run(&mut out),
            Verb::Run(opts) => opts.run(&mut out),
            #[cfg(feature = "generate")]
            Verb::Generate(opts) => opts.run(&mut out),
            #[cfg(feature = "generate")]
            Verb::Tokenize(opts) => opts.run(&mut out),
            Verb::Print(opts) => opts.run(&mut out),
            Verb::Inspect(opts) => opts.run(&mut out),
            Verb::Ops(opts) => opts.run(&mut out),
        }?;
        out.flush().map_err(Failure::from)
    }));
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        // The hook has said it.
        Err(_) => ExitCode::from(Failure::BUG),
    }
}
