//! Measures Mesophyll beside what it is compared with: all in one run, in turn, on one machine.
//!
//! `make bench` and `make bench-quick` call it; docs/benchmarks.md says how to read what it prints.
//! Deliberately no part of the product's build. The benchmark starts itself again for whatever must
//! be another process (see `serve.rs`).

mod aims;
mod guard;
mod harness;
mod link;
mod load;
mod machine;
mod peer;
mod picture;
mod report;
mod selection;
mod serve;
mod store;
mod validity;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use harness::Plan;
use selection::Selection;

const USAGE: &str = "mesophyll-bench [--quick] [--only TEXT] [--out DIR]
mesophyll-bench guard FILE [--within PERCENT | --update]

  --quick      about a minute: fewer and shorter rounds
  --only TEXT  only cases whose name contains this, or the case of that row of the table; =NAME
               is that case alone; may be given again
  --out DIR    where latest.json and latest.md go (target/bench)

guard counts the instructions and allocations of a dispatch, and fails if they are 10 % above those in FILE, or so many per cent.

PostgreSQL is measured if MESOPHYLL_BENCH_POSTGRES_URL or MESOPHYLL_TEST_POSTGRES_URL names a server on which a database
may be made; NATS if there is a server at MESOPHYLL_BENCH_NATS_URL (nats://127.0.0.1:4222).";

struct Options {
    is_quick: bool,
    only: Selection,
    out: PathBuf,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.first() {
        Some(&"serve-store") if args.len() == 2 => serve::store(args[1]),
        Some(&"serve-peer") if args.len() == 2 => serve::peer(args[1]),
        Some(&"serve-bare") if args.len() == 1 => serve::bare(),
        Some(&"guard-dispatch") if args.len() == 3 => guard::dispatch(args[1], args[2]),
        Some(&"guard") if args.len() == 2 => guard::run(Path::new(args[1]), Some(guard::TOLERANCE)),
        Some(&"guard") if args.len() == 4 && args[2] == "--within" => {
            let within = args[3].parse().map_err(|_| format!("{} is no number", args[3]));
            within.and_then(|within| guard::run(Path::new(args[1]), Some(within)))
        }
        Some(&"guard") if args.len() == 3 && args[2] == "--update" => {
            guard::run(Path::new(args[1]), None)
        }
        Some(&"ping-pong") if args.len() == 4 => link::serve_ping_pong(args[1], args[2], args[3]),
        Some(&"link") => link::run_process(&args[1..]),
        Some(&"pinned") if args.get(1) == Some(&"link") => {
            machine::stay_on_one_processor().and_then(|()| link::run_process(&args[2..]))
        }
        _ => match options(&args) {
            Some(options) => bench(&options),
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mesophyll-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: &[&str]) -> Option<Options> {
    let mut options =
        Options { is_quick: false, only: Selection::default(), out: PathBuf::from("target/bench") };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--quick" => options.is_quick = true,
            "--only" => options.only.add(args.next()?),
            "--out" => options.out = PathBuf::from(*args.next()?),
            _ => return None,
        }
    }
    Some(options)
}

fn bench(options: &Options) -> Result<(), String> {
    let plan = if options.is_quick {
        Plan {
            rounds: 2,
            lasting: Duration::from_millis(150),
            warm_up: Duration::from_millis(50),
            is_quick: true,
        }
    } else {
        Plan {
            rounds: 5,
            lasting: Duration::from_secs(1),
            warm_up: Duration::from_millis(300),
            is_quick: false,
        }
    };
    let scratch = Scratch::new(&options.out)?;
    let mut machine = machine::look(scratch.path())?;
    let mut left_out = Vec::new();
    let mut rows = Vec::new();
    let wanted = |name: &str| options.only.has(name);
    link::run(scratch.path(), plan, &wanted, &mut rows, &mut left_out)?;
    store::run(scratch.path(), plan, &wanted, &mut rows, &mut left_out)?;
    if let [first, ..] = options.only.missed()[..] {
        return Err(format!("no case that can be run here has {first} in its name"));
    }
    machine.lines.push(format!("load after the run: {}", machine::load()));
    report::write(&options.out, &machine, plan, &rows, &left_out)
}

/// A folder for databases, on the disk that holds the results; gone with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new(out: &Path) -> Result<Self, String> {
        let path = out.join(format!("scratch-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
