//! Disks that are full and disks that fail: each operation of each kind of request is hit
//! in turn. What was acknowledged stays, the request is done or not done, and once the
//! fault is gone, it succeeds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::check::{DATA, Expect, Origin, Pool, World, difference};
use crate::crash::{Handle, Recording, prepare, start_store};
use crate::disk::{Disk, Model};
use crate::lossyfs::{Fault, Harm, Lossy, Mounted};
use crate::script::{State, Step};
use crate::store::{Outcome, Why};
use crate::workloads::{Case, Script};

/// Harm, and whether it comes once or stays until it is lifted.
const HARMS: [(Harm, bool); 6] = [
    (Harm::Full, true),
    (Harm::Full, false),
    (Harm::Broken, true),
    (Harm::Broken, false),
    (Harm::Short, true),
    (Harm::Short, false),
];
/// At so many of the first operations of a script each is one to be killed at: those that
/// make the directories of a first start.
const KILLED_EACH: usize = 32;
/// No request has more operations.
const OPS_MAX: u64 = 1_000;
/// How much is left free on a disk that fills up, in bytes, one after the other.
const FREE: [u64; 9] = [0, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];

/// What was tried, and what came of it.
#[derive(Debug, Default)]
pub struct Tried {
    /// Requests that a fault hit, and those of them that were acknowledged all the same.
    pub hit: u64,
    pub acknowledged: u64,
    /// How often the process ended because its database had failed.
    pub ended: u64,
    /// Those that a disk which stays broken while it is read took out of service, until
    /// the blob was pushed again.
    pub quarantined: u64,
    /// Deletes that were asked for with so many bytes free, and those that were done.
    pub deletes: BTreeMap<u64, (u64, u64)>,
    pub violations: Vec<String>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tried { hit, acknowledged, ended, quarantined, deletes, .. } = self;
        writeln!(
            f,
            "{hit} requests hit, {acknowledged} of them acknowledged; {ended} processes ended for the next to recover"
        )?;
        writeln!(f, "{quarantined} blobs out of service while reading failed, until they were pushed again")?;
        for (free, (asked, done)) in deletes {
            writeln!(f, "{free} bytes free: {done} of {asked} deletes done")?;
        }
        Ok(())
    }
}

impl Tried {
    fn say(&mut self, problem: String) {
        eprintln!("VIOLATION {problem}");
        self.violations.push(problem);
    }
}

/// A registry on the file system, and what it owes.
struct Site<'a> {
    fs: Lossy,
    handle: Handle<'a>,
    state: State,
    world: World,
    boot: String,
    /// Of what a torn disk keeps.
    seed: u64,
}

impl<'a> Site<'a> {
    fn new(fs: Lossy, data: &'a Path, seed: u64) -> Site<'a> {
        Site {
            fs,
            handle: Handle::new(&start_store, data),
            state: State::new(),
            world: World::default(),
            boot: "boot".into(),
            seed,
        }
    }

    /// Does what nothing is in the way of. A start of what runs, and a stop of what does
    /// not, is done already.
    fn prepare(&mut self, steps: Vec<Step>) -> Result<(), String> {
        for step in steps {
            let starts = matches!(step, Step::Start { .. });
            let ends = matches!(step, Step::Stop | Step::Kill);
            if (starts || ends) && starts == self.handle.is_running() {
                continue;
            }
            self.note(&step);
            prepare(&self.handle, &[step], &mut self.state)?;
        }
        Ok(())
    }

    /// Makes a request once more. What it deletes may be gone already.
    fn again(&mut self, step: &Step) -> Result<(), String> {
        self.note(step);
        match self.handle.run(step) {
            Ok(_) => {}
            Err(failure) if step.deletes() && failure.why == Why::NotFound => {}
            Err(failure) => return Err(format!("{step}: {failure}")),
        }
        step.apply(&mut self.state);
        Ok(())
    }

    fn note(&mut self, step: &Step) {
        if let Step::Start { boot } = step {
            self.boot.clone_from(boot);
        }
        self.world.add(step);
    }

    /// What is there must be one of these states; the first is what is owed.
    fn compare(&self, allowed: &[&State]) -> Result<(), String> {
        let keys = self.world.keys();
        let found = self.handle.ask(|running| running.look(&keys));
        match found {
            Ok(found) if allowed.contains(&&found) => Ok(()),
            Ok(found) => Err(difference(&found, allowed[0])),
            Err(failure) => Err(format!("it cannot be read: {failure}")),
        }
    }

    /// Cuts the power, so to speak, in the models that lose most, after what happened `last`.
    fn cut(&self, pool: &mut Pool, script: &str, last: &str) {
        let expect = Arc::new(Expect {
            world: Arc::new(self.world.clone()),
            state: self.state.clone(),
            boot: self.boot.clone(),
            ..Expect::default()
        });
        let (disk, ops) = (self.fs.disk(), self.fs.ops());
        for model in [Model::Kill, Model::Ordered, Model::Strict, Model::Torn(self.seed)] {
            let origin = Origin { script: script.into(), ops, last: last.into(), model, lies: None };
            pool.check(origin, disk.image(model, ops as u64), &expect);
        }
    }
}

/// What a case begins with, and durable.
fn fresh_site<'a>(
    case: &Case,
    mount: &Path,
    data: &'a Path,
    seed: u64,
) -> Result<(Mounted, Site<'a>), String> {
    let fs = Lossy::new(Disk::new());
    let mounted = fs.mount(mount).map_err(|error| error.to_string())?;
    let mut site = Site::new(fs, data, seed);
    site.prepare(case.base.clone())?;
    site.fs.sync_all();
    Ok((mounted, site))
}

/// What a person does who has put in a better disk: earlier failures are of no account.
fn mend(data: &Path) {
    // It is there only if there were any.
    let _ = std::fs::remove_file(data.join("failures"));
}

/// Hits one kind of request at each of its operations, in every way.
pub fn hit_each(
    case: &Case,
    mount: &Path,
    pool: &mut Pool,
    seed: u64,
    tried: &mut Tried,
) -> Result<(), String> {
    let data = mount.join(DATA);
    for ((harm, once), killed) in HARMS.into_iter().flat_map(|harm| [(harm, false), (harm, true)]) {
        let mut mounted = None;
        let mut site = None;
        for n in (0..OPS_MAX).step_by(case.every) {
            // A first start is one only on a disk that is new.
            if site.is_none() || case.base.is_empty() {
                drop(site.take());
                drop(mounted.take());
                let (fresh, made) = fresh_site(case, mount, &data, seed)?;
                (mounted, site) = (Some(fresh), Some(made));
            }
            let site = site.as_mut().expect("made above");
            let once_word = if once { " once" } else { "" };
            let killed_word = if killed { ", then killed" } else { "" };
            let name = format!("{} ({harm:?}{once_word} at operation {n}{killed_word})", case.name);
            let say = |problem: String| format!("{name}: {problem}");
            mend(&data);
            site.prepare((case.before)(n)).map_err(say)?;
            let request = (case.request)(n);
            site.fs.arm(Fault { harm, after: n, once });
            let outcome = site.handle.run(&request);
            let hits = site.fs.disarm();
            site.note(&request);
            if hits == 0 {
                if let Err(failure) = outcome {
                    tried.say(say(format!("it fails without a fault: {failure}")));
                }
                break;
            }
            let hit = Hit { harm, once, killed };
            if let Err(problem) = settle(site, pool, &name, &request, &outcome, hit, tried) {
                tried.say(say(problem));
                // What comes next would only say the same.
                break;
            }
        }
    }
    Ok(())
}

/// What happened to a request.
#[derive(Clone, Copy)]
struct Hit {
    harm: Harm,
    once: bool,
    /// The process is killed afterwards, while what was not synced is still in memory.
    killed: bool,
}

/// Looks at what a request left that a fault had hit, and makes it again. The power is cut
/// before and after: made again, a request mends what the first one only promised.
fn settle(
    site: &mut Site,
    pool: &mut Pool,
    name: &str,
    request: &Step,
    outcome: &Outcome,
    Hit { harm, once, killed }: Hit,
    tried: &mut Tried,
) -> Result<(), String> {
    tried.hit += 1;
    let mut new = site.state.clone();
    request.apply(&mut new);
    let life = matches!(request, Step::Start { .. } | Step::Stop);
    match outcome {
        Ok(_) => {
            tried.acknowledged += 1;
            site.state.clone_from(&new);
            site.cut(pool, name, "the request was acknowledged");
        }
        Err(failure) if failure.why == Why::WrongBytes => return Err(format!("I2: {failure}")),
        Err(failure) if failure.why == Why::Gone && !life => {
            return Err(format!("I6: the process ended: {failure}"));
        }
        Err(failure) if harm == Harm::Full && failure.why != Why::Full && !life => {
            return Err(format!("a full disk is told otherwise: {failure}"));
        }
        Err(_) => {}
    }
    if killed {
        site.prepare(vec![Step::Kill])?;
    } else if site.handle.ask(|running| Ok(running.has_failed())).unwrap_or_default() {
        // A server ends by itself then, and is started again.
        tried.ended += 1;
        site.prepare(vec![Step::Stop])?;
    }
    let start = Step::Start { boot: site.boot.clone() };
    site.prepare(vec![start]).map_err(|problem| format!("I4: {problem}"))?;
    let quarantined = match request {
        // A blob that cannot be read is out of service until somebody pushes it again.
        Step::Pull { repo, blob } if harm == Harm::Broken && !once => {
            let outcome = site.handle.run(request);
            let again = outcome.is_err_and(|failure| failure.why == Why::NotFound);
            if again {
                site.prepare(vec![Step::push(repo, *blob)]).map_err(|problem| format!("I5: {problem}"))?;
            }
            again
        }
        _ => false,
    };
    tried.quarantined += u64::from(quarantined);
    let allowed = [&site.state, &new];
    site.compare(&allowed).map_err(|problem| format!("I1, I3: {problem}"))?;
    if let Some(again) = request.again() {
        site.again(&again).map_err(|problem| format!("I5: once more: {problem}"))?;
        site.compare(&[&site.state]).map_err(|problem| format!("I5: {problem}"))?;
    }
    site.cut(pool, name, "the request was made again");
    Ok(())
}

/// Kills the process at an operation of a script, starts it again in the same boot, lets it
/// go on, and then cuts the power: what the first process had not synced must not be relied
/// on by the second.
pub fn kill_then_cut(
    script: &Script,
    recording: &Recording,
    every: usize,
    mount: &Path,
    pool: &mut Pool,
    seed: u64,
) -> Result<u64, String> {
    let data = mount.join(DATA);
    let [lane] = &script.lanes[..] else { return Err("only one thing at a time".into()) };
    let mut killed = 0;
    let often = KILLED_EACH.min(recording.len());
    for n in (0..often).chain((often..recording.len()).step_by(every)) {
        let fs = Lossy::new(recording.base.clone());
        let mounted = fs.mount(mount).map_err(|error| error.to_string())?;
        let mut site = Site::new(fs, &data, seed);
        let name = format!("{}, killed at operation {n}", script.name);
        site.state.clone_from(&recording.before);
        site.world = World::of(&script.base);
        if !script.base.is_empty() {
            site.prepare(vec![Step::Start { boot: site.boot.clone() }])?;
        }
        site.fs.arm(Fault { harm: Harm::Dead, after: n as u64, once: false });
        let mut left = lane.iter();
        let cut_off = left.find(|step| {
            site.note(step);
            let done = site.handle.run(step).is_ok();
            if done {
                step.apply(&mut site.state);
            }
            !done
        });
        if site.handle.is_running() {
            site.prepare(vec![Step::Kill])?;
        }
        if site.fs.disarm() == 0 {
            break;
        }
        killed += 1;
        site.prepare(vec![Step::Start { boot: site.boot.clone() }])
            .map_err(|problem| format!("{name}: I4: {problem}"))?;
        if let Some(again) = cut_off.and_then(Step::again) {
            site.again(&again).map_err(|problem| format!("{name}: I5: {problem}"))?;
        }
        site.prepare(left.take(2).cloned().collect()).map_err(|problem| format!("{name}: I5: {problem}"))?;
        site.cut(pool, &name, "the script went on");
        drop(site);
        drop(mounted);
    }
    Ok(killed)
}

/// Fills the disk: with a little room after the other, each kind of request is done or
/// refused, pulls go on, and nothing is spoiled.
pub fn fill(
    cases: &[Case],
    mount: &Path,
    pool: &mut Pool,
    seed: u64,
    tried: &mut Tried,
) -> Result<(), String> {
    let data = mount.join(DATA);
    for case in cases.iter().filter(|case| !case.base.is_empty()) {
        let (mounted, mut site) = fresh_site(case, mount, &data, seed)?;
        for (n, free) in (0..).zip(FREE) {
            let name = format!("{} ({free} bytes free)", case.name);
            // A start takes the room for deleting again, if the one before used it up.
            site.prepare(vec![Step::Stop, Step::Start { boot: site.boot.clone() }])?;
            mend(&data);
            site.prepare((case.before)(n)).map_err(|problem| format!("{name}: {problem}"))?;
            let request = (case.request)(n);
            site.fs.leave_free(Some(free));
            let outcome = site.handle.run(&request);
            site.note(&request);
            let mut new = site.state.clone();
            request.apply(&mut new);
            let reads = site.handle.is_running().then(|| site.compare(&[&site.state, &new]));
            site.fs.leave_free(None);
            if let Some(Err(problem)) = reads {
                tried.say(format!("{name}: I1, on the full disk: {problem}"));
            }
            if request.deletes() || matches!(request, Step::Collect) {
                let (asked, done) = tried.deletes.entry(free).or_default();
                *asked += 1;
                *done += u64::from(outcome.is_ok());
                if let Err(failure) = &outcome {
                    tried.say(format!("{name}: I5: nothing can be deleted: {failure}"));
                }
            }
            let hit = Hit { harm: Harm::Full, once: false, killed: n % 2 == 1 };
            if let Err(problem) = settle(&mut site, pool, &name, &request, &outcome, hit, tried) {
                tried.say(format!("{name}: {problem}"));
                break;
            }
        }
        drop(site);
        drop(mounted);
    }
    Ok(())
}
