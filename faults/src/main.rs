//! What Outport survives, tried out. README.md says what is tried and what it means.

mod check;
mod crash;
mod disk;
mod errors;
mod lossyfs;
mod random;
mod script;
mod store;
mod web;
mod workloads;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

use check::{DATA, OnViolation, Pool, Report, fresh};
use crash::{Dice, record, start_store};
use disk::{Lies, Model};
use store::Running;

const USAGE: &str = "usage: outport-faults crash | errors | web OUTPORT-BINARY | self-test | trace SCRIPT
Needs root and /dev/fuse. SEED=N repeats a run; MINUTES=N makes `crash` and `errors` go on with
other seeds for so long; ONLY=NAME tries one script or case; FIRST=1 ends after the first of them
that has a violation; KEEP=DIR keeps images of violations.";

/// Set in a mount namespace of our own. There, what is mounted ends with us, however that is;
/// and nobody else's namespace keeps a copy of it, which would keep it from ending.
const APART: &str = "OUTPORT_FAULTS_APART";

/// Torn images of each moment, and disks that lie.
const TORN: u64 = 3;
const LYING: u64 = 2;
/// Images of each script that the real binary is started on.
const SERVED: usize = 14;
/// One in so many operations of a script is one to be killed at before the power goes.
const KILLED_EVERY: usize = 6;

/// What went wrong, if anything did.
type Verdict = Result<(), String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["store", dir, boot] = words[..] {
        // A panic of any thread is the end: whoever waits for an answer hears of it.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            hook(info);
            std::process::abort();
        }));
        return store::serve(Path::new(dir), boot);
    }
    if std::env::var_os(APART).is_none() {
        // Comes back only if there is no such command.
        let own = std::env::current_exe().unwrap_or_default();
        let _ = Command::new("unshare").arg("--mount").arg(own).args(&words).env(APART, "yes").exec();
    }
    let run = match Run::new() {
        Ok(run) => run,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let verdict = match words[..] {
        ["crash"] => run.crash(),
        ["errors"] => run.errors(),
        ["web", binary] => run.web(Path::new(binary)),
        ["self-test"] => run.self_test(),
        ["trace", script] => run.trace(script),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("FAILED: {problem} (SEED={})", run.seed);
            ExitCode::FAILURE
        }
    }
}

struct Run {
    scratch: TempDir,
    mount: PathBuf,
    seed: u64,
    until: Instant,
    only: Option<String>,
    first: bool,
    on_violation: OnViolation,
}

impl Run {
    fn new() -> Result<Run, String> {
        let number = |name: &str| match std::env::var(name) {
            Ok(text) => text.parse().map(Some).map_err(|_| format!("{name} is no number: {text}")),
            Err(_) => Ok(None),
        };
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs() % 1_000_000);
        let memory = Path::new("/dev/shm");
        let scratch = match memory.is_dir() {
            true => TempDir::with_prefix_in("outport-faults-", memory),
            false => TempDir::with_prefix("outport-faults-"),
        };
        let scratch = scratch.map_err(|error| format!("no room for images: {error}"))?;
        let mount = scratch.path().join("mount");
        fresh(&mount).map_err(|error| error.to_string())?;
        Ok(Run {
            mount,
            scratch,
            seed: number("SEED")?.unwrap_or_else(clock),
            until: Instant::now() + Duration::from_secs(60 * number("MINUTES")?.unwrap_or(0)),
            only: std::env::var("ONLY").ok(),
            first: std::env::var_os("FIRST").is_some(),
            on_violation: OnViolation::Print { keep: std::env::var_os("KEEP").map(PathBuf::from) },
        })
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }

    fn pool(&self) -> Pool {
        Pool::new(self.scratch.path(), &self.on_violation)
    }

    /// Calls for one seed after the other until the time is up; at least once.
    fn rounds(&self, mut round: impl FnMut(u64) -> Verdict) -> Verdict {
        for seed in self.seed.. {
            round(seed)?;
            if Instant::now() >= self.until {
                break;
            }
        }
        Ok(())
    }

    /// The power goes after every operation of every script, in every model.
    fn crash(&self) -> Verdict {
        println!("SEED={}", self.seed);
        let started = Instant::now();
        let mut pool = self.pool();
        let mut checkpointed = self.only.is_some();
        self.rounds(|seed| {
            for script in workloads::all().iter().filter(|script| self.is_wanted(script.name)) {
                let recording = record(script, &self.mount, &start_store)?;
                println!("{:16} {:5} operations", script.name, recording.len());
                checkpointed |= !script.base.is_empty() && recording.writes_to("registry.db");
                recording.cut(&mut pool, Dice { seed, torn: TORN, lying: LYING });
                if self.first && pool.violated() > 0 {
                    checkpointed = true;
                    break;
                }
            }
            Ok(())
        })?;
        if !checkpointed {
            return Err("no script got as far as a checkpoint of the database's log".into());
        }
        judge(&pool.finish(), started)
    }

    /// Each operation of each kind of request fails; disks fill up; processes are killed
    /// before the power goes.
    fn errors(&self) -> Verdict {
        println!("SEED={}", self.seed);
        let started = Instant::now();
        let mut pool = self.pool();
        let mut tried = errors::Tried::default();
        let mut cases = workloads::cases();
        cases.retain(|case| self.is_wanted(case.name));
        self.rounds(|seed| {
            for case in &cases {
                let before = tried.hit;
                errors::hit_each(case, &self.mount, &mut pool, seed, &mut tried)?;
                println!("{:26} {:4} operations hit", case.name, tried.hit - before);
                if self.first && pool.violated() + tried.violations.len() as u64 > 0 {
                    return Ok(());
                }
            }
            errors::fill(&cases, &self.mount, &mut pool, seed, &mut tried)?;
            for script in workloads::all().iter().filter(|script| self.is_wanted(script.name)) {
                if script.is_plain() {
                    let recording = record(script, &self.mount, &start_store)?;
                    let every = KILLED_EVERY;
                    let killed =
                        errors::kill_then_cut(script, &recording, every, &self.mount, &mut pool, seed)?;
                    println!("{:26} {killed:4} times killed, before the power went", script.name);
                }
            }
            Ok(())
        })?;
        let report = pool.finish();
        println!("{tried}");
        match (judge(&report, started), tried.violations.len()) {
            (verdict, 0) => verdict,
            (_, violations) => {
                Err(format!("{violations} violations seen at once, {} later", report.violated()))
            }
        }
    }

    /// Some images, through the real binary.
    fn web(&self, binary: &Path) -> Verdict {
        println!("SEED={}", self.seed);
        let started = Instant::now();
        let start = |data: &Path, boot: &str| -> Result<Box<dyn Running>, store::Failure> {
            Ok(Box::new(web::Server::start(binary, data, boot)?))
        };
        let mut jobs = Vec::new();
        let scripts = workloads::all();
        for script in scripts.iter().filter(|script| script.is_http() && self.is_wanted(script.name)) {
            let recording = record(script, &self.mount, &start)?;
            println!("{:16} {:5} operations", script.name, recording.len());
            jobs.extend(recording.sample(SERVED, self.seed));
        }
        let (images, jobs) = (jobs.len(), Mutex::new(jobs));
        let violations = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                let dir = self.scratch.path().join(format!("served-{n}"));
                let (jobs, violations) = (&jobs, &violations);
                scope.spawn(move || {
                    while let Some((origin, image, expect)) = pop(jobs) {
                        let problems = match fresh(&dir).and_then(|()| image.write(&dir)) {
                            Ok(()) => {
                                web::check(binary, &dir.join(DATA), origin.model == Model::Kill, &expect)
                            }
                            Err(error) => vec![format!("the image could not be made: {error}")],
                        };
                        if !problems.is_empty() {
                            eprintln!("VIOLATION {origin}: {}", problems.join(" | "));
                            violations.lock().expect("no thread panicked").push(problems);
                        }
                    }
                });
            }
        });
        println!("{images} images served by the real binary in {:.0?}", started.elapsed());
        match violations.into_inner().expect("no thread panicked").len() {
            0 if images > 0 => Ok(()),
            0 => Err("no image was tried".into()),
            violations => Err(format!("{violations} of {images} images violate a promise")),
        }
    }

    /// Disks that do no sync of a kind must be noticed: else nobody would notice a sync that
    /// the product does not ask for.
    fn self_test(&self) -> Verdict {
        let scripts = workloads::all();
        let script = scripts.iter().find(|script| script.is_http()).ok_or("there is no such script")?;
        let recording = record(script, &self.mount, &start_store)?;
        let tests = [
            ("honest hardware", Lies::None, Model::Strict, false),
            ("no sync of a directory is done", Lies::Dirs, Model::Strict, true),
            ("no sync of a file is done", Lies::Files, Model::Names, true),
            ("no sync of a file is done, lengths survive", Lies::Files, Model::Zeros, true),
        ];
        for (name, lies, model, is_noticed) in tests {
            let mut pool = Pool::new(self.scratch.path(), &OnViolation::Expected);
            recording.cut_lying(&mut pool, lies, model);
            let report = pool.finish();
            let violations = report.violated();
            println!("{name}: {violations} violations in {} images", report.images());
            if let Some(violation) = report.violations.first() {
                println!("  such as: {violation}");
            }
            if (violations > 0) != is_noticed {
                return Err(format!("{name}: {violations} violations"));
            }
        }
        Ok(())
    }

    /// Every operation of a script, for people.
    fn trace(&self, name: &str) -> Verdict {
        let scripts = workloads::all();
        let script = scripts.iter().find(|script| script.name == name).ok_or("there is no such script")?;
        record(script, &self.mount, &start_store)?.trace();
        Ok(())
    }
}

fn pop<T>(jobs: &Mutex<Vec<T>>) -> Option<T> {
    jobs.lock().expect("no thread panicked").pop()
}

fn judge(report: &Report, started: Instant) -> Verdict {
    println!("{report}");
    println!("{} images in {:.0?}", report.images(), started.elapsed());
    match report.violated() {
        0 if report.images() > 0 => Ok(()),
        0 => Err("no image was tried".into()),
        violations => Err(format!("{violations} images violate a promise")),
    }
}
