//! Power cuts: a script is run once on the file system, and then the power goes after
//! every one of its operations, in every model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::check::{DATA, Expect, Origin, Pool, World};
use crate::disk::{Disk, Image, Lies, Model, Op};
use crate::lossyfs::Lossy;
use crate::random::Random;
use crate::script::{State, Step, Uploads};
use crate::store::{Failure, Outcome, Process, Running, Why};
use crate::workloads::Script;

/// The models without chance.
const CERTAIN: [Model; 7] =
    [Model::Kill, Model::Ordered, Model::Truncates, Model::Strict, Model::Names, Model::Zeros, Model::Bytes];

/// How much is tried beside the models without chance.
#[derive(Debug, Clone, Copy)]
pub struct Dice {
    pub seed: u64,
    /// Torn images of each moment.
    pub torn: u64,
    /// Disks that lie, each in its own way.
    pub lying: u64,
}

enum Event {
    Begin,
    End(Outcome),
}

/// What was done to the disk, and what the client knew at which operation.
pub struct Recording {
    name: &'static str,
    pub base: Disk,
    ops: Vec<Op>,
    /// Operations done by then, and the step it is about.
    events: Vec<(usize, usize, Event)>,
    steps: Vec<Step>,
    pub before: State,
    boot: String,
    world: Arc<World>,
}

/// How a subject is started on a directory, in a boot of a name.
pub type Start<'a> = &'a (dyn Fn(&Path, &str) -> Result<Box<dyn Running>, Failure> + Sync);

/// The linked store, in a process of its own.
pub fn start_store(data: &Path, boot: &str) -> Result<Box<dyn Running>, Failure> {
    Ok(Box::new(Process::start(data, boot)?))
}

/// A subject that is started, stopped and killed by steps.
pub struct Handle<'a> {
    start: Start<'a>,
    data: &'a Path,
    running: RwLock<Option<Box<dyn Running>>>,
    /// What each upload's beginning was acknowledged with.
    uploads: Mutex<BTreeMap<usize, String>>,
}

impl<'a> Handle<'a> {
    pub fn new(start: Start<'a>, data: &'a Path) -> Handle<'a> {
        Handle { start, data, running: RwLock::default(), uploads: Mutex::default() }
    }

    /// Asks what runs, if anything does.
    pub fn ask<T>(&self, ask: impl FnOnce(&dyn Running) -> Result<T, Failure>) -> Result<T, Failure> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        ask(&**running.as_ref().ok_or_else(|| Failure::new(Why::Gone, "there is no process"))?)
    }

    pub fn is_running(&self) -> bool {
        self.ask(|_| Ok(())).is_ok()
    }

    fn take(&self) -> Option<Box<dyn Running>> {
        self.running.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn run(&self, step: &Step) -> Outcome {
        match step {
            Step::Start { boot } => {
                let started = (self.start)(self.data, boot)?;
                *self.running.write().unwrap_or_else(PoisonError::into_inner) = Some(started);
                Ok(String::new())
            }
            Step::Kill => {
                drop(self.take());
                Ok(String::new())
            }
            Step::Stop => match self.take().is_some_and(Running::stop) {
                true => Ok(String::new()),
                false => Err(Failure::new(Why::Gone, "it had not stopped by itself")),
            },
            step => {
                let uploads = || self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
                let id = step.slot().and_then(|slot| uploads().get(&slot).cloned());
                let outcome = self.ask(|running| running.run(step, id.as_deref()));
                if let (Step::UploadBegin { slot, .. }, Ok(id)) = (step, &outcome) {
                    uploads().insert(*slot, id.clone());
                }
                outcome
            }
        }
    }
}

/// Does steps that nothing is in the way of.
pub fn prepare(handle: &Handle, steps: &[Step], state: &mut State) -> Result<(), String> {
    for step in steps {
        handle.run(step).map_err(|failure| format!("{step}: {failure}"))?;
        step.apply(state);
    }
    Ok(())
}

/// Runs a script on a file system mounted at `mount`, and says what happened when.
pub fn record(script: &Script, mount: &Path, start: Start) -> Result<Recording, String> {
    let fs = Lossy::new(Disk::new());
    let mounted = fs.mount(mount).map_err(|error| format!("the file system cannot be mounted: {error}"))?;
    let data = mount.join(DATA);
    let handle = Handle::new(start, &data);
    let mut before = State::new();
    prepare(&handle, &script.base, &mut before)?;
    let mut boots = script.base.iter().filter_map(|step| match step {
        Step::Start { boot } => Some(boot.clone()),
        _ => None,
    });
    let boot = boots.next_back().unwrap_or_default();
    fs.sync_all();
    fs.take_log();
    let base = fs.disk();
    let events = Mutex::new(Vec::new());
    let note = |step: usize, event: Event| {
        let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push((fs.ops(), step, event));
    };
    let mut first = 0;
    std::thread::scope(|scope| {
        for lane in &script.lanes {
            let (handle, note) = (&handle, &note);
            scope.spawn(move || {
                for (n, step) in (first..).zip(lane) {
                    note(n, Event::Begin);
                    note(n, Event::End(handle.run(step)));
                }
            });
            first += lane.len();
        }
    });
    drop(handle);
    drop(mounted);
    let events = events.into_inner().unwrap_or_else(PoisonError::into_inner);
    let steps: Vec<Step> = script.lanes.concat();
    for (_, step, event) in &events {
        if let Event::End(Err(failure)) = event {
            return Err(format!("{}: {}: {failure}", script.name, steps[*step]));
        }
    }
    let world = Arc::new(World::of(script.base.iter().chain(&steps)));
    Ok(Recording { name: script.name, base, ops: fs.take_log(), events, steps, before, boot, world })
}

impl Recording {
    /// Operations, without the kernel's own.
    pub fn len(&self) -> usize {
        self.ops.iter().filter(|op| !is_mapped(op)).count()
    }

    /// Whether anything was written to a file of this name.
    pub fn writes_to(&self, name: &str) -> bool {
        let mut disk = self.base.clone();
        self.ops.iter().any(|op| {
            disk.apply(op);
            matches!(op, Op::Write { .. }) && disk.say(op).contains(&format!("/{name} "))
        })
    }

    /// Prints every operation.
    pub fn trace(&self) {
        let mut disk = self.base.clone();
        for (n, op) in (1..).zip(&self.ops) {
            disk.apply(op);
            println!("{n:6} {}", disk.say(op));
            for (_, step, event) in self.events.iter().filter(|(at, ..)| *at == n) {
                let what = if matches!(event, Event::Begin) { "begins" } else { "is acknowledged" };
                println!("       {} {what}", self.steps[*step]);
            }
        }
    }

    /// What is owed after so many operations.
    fn expect(&self, ops: usize) -> Expect {
        let mut acked = vec![None; self.steps.len()];
        let mut begun = vec![false; self.steps.len()];
        for (_, step, event) in self.events.iter().take_while(|(at, ..)| *at <= ops) {
            match event {
                Event::Begin => begun[*step] = true,
                Event::End(outcome) => acked[*step] = Some(outcome),
            }
        }
        let mut expect = Expect {
            world: self.world.clone(),
            state: self.before.clone(),
            boot: self.boot.clone(),
            unclean: (!self.boot.is_empty()).then_some(true),
            ..Expect::default()
        };
        let (mut uploads, mut ids) = (Uploads::new(), BTreeMap::new());
        for ((step, acked), begun) in self.steps.iter().zip(acked).zip(begun) {
            if let Step::Start { boot } = step
                && begun
            {
                if *boot != expect.boot {
                    uploads.clear();
                }
                expect.boot.clone_from(boot);
                expect.unclean = acked.map(|_| true);
            }
            if matches!(step, Step::Stop) && begun {
                expect.unclean = acked.map(|_| false);
            }
            match acked {
                Some(outcome) => {
                    step.apply(&mut expect.state);
                    step.apply_uploads(&mut uploads);
                    if let (Step::UploadBegin { slot, .. }, Ok(id)) = (step, outcome) {
                        ids.insert(*slot, id.clone());
                    }
                }
                None if begun => expect.under_way.push(step.clone()),
                None => {}
            }
        }
        expect.set_uploads(&uploads, &ids);
        expect
    }

    /// Hands over an image of every moment in every model.
    pub fn cut(&self, pool: &mut Pool, dice: Dice) {
        let mut random = Random::of(&[dice.seed, self.ops.len() as u64]);
        let mut seeds = |count: u64| -> Vec<u64> { (0..count).map(|_| random.next() % 1_000_000).collect() };
        let mut models = CERTAIN.to_vec();
        models.extend(seeds(dice.torn).into_iter().map(Model::Torn));
        let mut liars: Vec<(u64, Disk)> =
            seeds(dice.lying).into_iter().map(|seed| (seed, self.base.lying(Lies::Some(seed)))).collect();
        let mut disk = self.base.clone();
        self.walk(|ops, last, expect| {
            if let Some(op) = last {
                disk.apply(op);
                liars.iter_mut().for_each(|(_, disk)| disk.apply(op));
            }
            let Some(expect) = expect else { return };
            let last = last.map_or("nothing".to_owned(), |op| disk.say(op));
            let origin =
                |model, lies| Origin { script: self.name.into(), ops, last: last.clone(), model, lies };
            let killed = disk.image(Model::Kill, 0);
            for model in &models {
                let image = disk.image(*model, ops as u64);
                match *model == Model::Bytes && image == killed {
                    true => pool.pass(&origin(*model, None)),
                    false => pool.check(origin(*model, None), image, expect),
                }
            }
            for (seed, disk) in &liars {
                // What the hardware kept of the rest is torn for every other of them.
                let model = if seed % 2 == 0 { Model::Strict } else { Model::Torn(*seed) };
                pool.check(origin(model, Some(*seed)), disk.image(model, ops as u64), expect);
            }
        });
    }

    /// Some moments in some models, as many as there are to be.
    pub fn sample(&self, count: usize, seed: u64) -> Vec<(Origin, Image, Arc<Expect>)> {
        let mut random = Random::of(&[seed, self.ops.len() as u64]);
        let mut disk = self.base.clone();
        let mut sample = Vec::new();
        self.walk(|ops, last, expect| {
            if let Some(op) = last {
                disk.apply(op);
            }
            let Some(expect) = expect.filter(|_| random.chance(count, self.len())) else { return };
            let torn = Model::Torn(random.next() % 1_000_000);
            let model = CERTAIN.get(random.below(CERTAIN.len() + 1)).copied().unwrap_or(torn);
            let last = last.map_or("nothing".to_owned(), |op| disk.say(op));
            let origin = Origin { script: self.name.into(), ops, last, model, lies: None };
            sample.push((origin, disk.image(model, ops as u64), expect.clone()));
        });
        sample
    }

    /// The same on hardware that does no sync of a kind, demanding what only honest hardware
    /// can keep: so that it is seen that a missing sync is seen.
    pub fn cut_lying(&self, pool: &mut Pool, lies: Lies, model: Model) {
        let mut disk = self.base.lying(lies);
        self.walk(|ops, last, expect| {
            if let Some(op) = last {
                disk.apply(op);
            }
            if let Some(expect) = expect {
                let last = last.map_or("nothing".to_owned(), |op| disk.say(op));
                let origin = Origin { script: self.name.into(), ops, last, model, lies: None };
                pool.check(origin, disk.image(model, ops as u64), expect);
            }
        });
    }

    /// Every moment: how many operations were done, the last of them, and what is owed. Not
    /// a moment to cut the power at is one after the kernel wrote a page by itself.
    fn walk(&self, mut at: impl FnMut(usize, Option<&Op>, Option<&Arc<Expect>>)) {
        let mut expect = Arc::new(self.expect(0));
        at(0, None, Some(&expect));
        for (n, op) in (1..).zip(&self.ops) {
            if self.events.iter().any(|(at, ..)| *at == n) {
                expect = Arc::new(self.expect(n));
            }
            at(n, Some(op), (!is_mapped(op)).then_some(&expect));
        }
    }
}

fn is_mapped(op: &Op) -> bool {
    matches!(op, Op::Write { mapped: true, .. })
}
