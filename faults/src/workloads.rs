//! What registries go through: a function a workload.

use crate::script::{Blob, Step, image, index, sha256};

/// Steps that are done first and are durable, and steps at each of whose operations the
/// power may go.
pub struct Script {
    pub name: &'static str,
    pub base: Vec<Step>,
    /// Done at the same time; what one does is nothing to the others.
    pub lanes: Vec<Vec<Step>>,
}

impl Script {
    /// Whether each of its steps is a request, or a life of a process, one after the other.
    pub fn is_http(&self) -> bool {
        let steps = self.lanes.iter().flatten();
        let fits = steps.clone().all(|step| !matches!(step, Step::Collect));
        fits && self.lanes.len() == 1 && !self.base.is_empty()
    }

    /// Whether it can be gone on with after any of its steps was cut off.
    pub fn is_plain(&self) -> bool {
        let steps = self.lanes.iter().flatten();
        let fits =
            steps.clone().all(|step| step.slot().is_none() && !matches!(step, Step::Stop | Step::Kill));
        fits && self.lanes.len() == 1
    }
}

/// Every workload there is.
pub fn all() -> Vec<Script> {
    vec![
        first_start(),
        image_push(),
        parallel_pushes(),
        retags(),
        deletes(),
        mounts(),
        uploads(),
        restarts(),
        long_wal(),
        collections(),
        imports(),
        big_push(),
    ]
}

/// Longer than what the committer syncs: whoever pushes it does.
const BIG: Blob = Blob { len: (4 << 20) + 5_000, seed: 30_000 };

/// Blobs of an image: a configuration and layers, one of them of several checksums.
pub fn blobs(seed: u64) -> Vec<Blob> {
    [300, 600, 70_000, 150_000].iter().zip(seed..).map(|(len, seed)| Blob { len: *len, seed }).collect()
}

fn small(seed: u64) -> Vec<Blob> {
    vec![Blob { len: 200, seed }, Blob { len: 5_000, seed: seed + 1 }]
}

fn start(boot: &str) -> Step {
    Step::Start { boot: boot.into() }
}

/// Everything an image is made of, and its tag.
fn push_all(repo: &str, tag: &str, blobs: &[Blob]) -> Vec<Step> {
    let mut steps: Vec<Step> = blobs.iter().map(|blob| Step::push(repo, *blob)).collect();
    steps.push(Step::put(repo, tag, &image(blobs, tag)));
    steps
}

fn with_base(steps: Vec<Step>) -> Vec<Step> {
    let mut base = vec![start("boot")];
    base.extend(push_all("team/app", "latest", &small(900)));
    base.extend(steps);
    base
}

/// A directory is made, and the first image is pushed.
fn first_start() -> Script {
    let mut lane = vec![start("boot")];
    lane.extend(push_all("team/app", "latest", &small(1)));
    Script { name: "first start", base: Vec::new(), lanes: vec![lane] }
}

/// An image takes a tag over from another, and an index lists both.
fn image_push() -> Script {
    let (old, new) = (image(&small(900), "latest"), blobs(10));
    let mut lane = push_all("team/app", "latest", &new);
    let new = image(&new, "latest");
    let manifest = |body: &str| Step::PutManifest { repo: "team/app".into(), tag: None, body: body.into() };
    lane.push(manifest(&image(&blobs(10), "by digest")));
    lane.push(Step::put("team/app", "all", &index(&[&old, &new])));
    // What is there already is pushed again.
    lane.push(Step::push("team/app", blobs(10)[1]));
    lane.push(Step::put("team/app", "latest", &old));
    Script { name: "image push", base: with_base(Vec::new()), lanes: vec![lane] }
}

/// An image of megabytes, and once more what is there already.
fn big_push() -> Script {
    let mut lane = push_all("team/big", "latest", &[BIG]);
    lane.push(Step::push("team/big", BIG));
    Script { name: "big push", base: with_base(Vec::new()), lanes: vec![lane] }
}

/// Four clients push at once; two of them push the same layer.
fn parallel_pushes() -> Script {
    let lane = |n: u64| {
        let mut blobs = blobs(100 + 10 * n);
        blobs.truncate(3);
        blobs.push(Blob { len: 9_000, seed: 100 + n / 2 });
        push_all(&format!("team/part{n}"), "latest", &blobs)
    };
    Script { name: "parallel pushes", base: with_base(Vec::new()), lanes: (0..4).map(lane).collect() }
}

/// Tags go back and forth between manifests.
fn retags() -> Script {
    let bodies: Vec<String> = (0..4).map(|n| image(&small(900), &format!("version {n}"))).collect();
    let lane = (0..12).map(|n| Step::put("team/app", ["latest", "stable"][n % 2], &bodies[(n * 7) % 4]));
    Script { name: "re-tags", base: with_base(Vec::new()), lanes: vec![lane.collect()] }
}

/// Tags, manifests, blobs and a repository are deleted, and pushed again.
fn deletes() -> Script {
    let [one, two, three] = [small(20), small(22), small(24)];
    let mut base = push_all("team/app", "one", &one);
    base.extend(push_all("team/app", "two", &two));
    base.extend(push_all("team/gone", "three", &three));
    base.push(Step::put("team/app", "again", &image(&one, "one")));
    let repo = || "team/app".to_owned();
    let mut lane = vec![
        Step::DeleteTag { repo: repo(), tag: "latest".into() },
        Step::DeleteManifest { repo: repo(), digest: sha256(image(&one, "one").as_bytes()) },
        Step::DeleteBlob { repo: repo(), blob: one[0] },
        Step::DeleteBlob { repo: repo(), blob: one[1] },
        Step::DeleteRepo { repo: "team/gone".into() },
        Step::DeleteManifest { repo: repo(), digest: sha256(image(&two, "two").as_bytes()) },
        Step::DeleteBlob { repo: repo(), blob: two[1] },
    ];
    lane.extend(push_all("team/app", "one", &one));
    lane.extend(push_all("team/gone", "three", &three));
    Script { name: "deletes", base: with_base(base), lanes: vec![lane] }
}

/// Blobs are linked into other repositories, and outlive the one they came from.
fn mounts() -> Script {
    let layers = blobs(30);
    let mount =
        |blob: &Blob| Step::Mount { repo: "team/copy".into(), from: "team/source".into(), blob: *blob };
    let mut lane: Vec<Step> = layers.iter().map(mount).collect();
    lane.push(Step::put("team/copy", "v1", &image(&layers, "copy")));
    lane.push(Step::DeleteRepo { repo: "team/source".into() });
    lane.push(Step::Mount { repo: "team/third".into(), from: "team/copy".into(), blob: layers[2] });
    Script { name: "mounts", base: with_base(push_all("team/source", "v1", &layers)), lanes: vec![lane] }
}

/// Uploads in pieces: finished, given up, cancelled, and gone on with by a later process.
fn uploads() -> Script {
    let repo = || "team/app".to_owned();
    let blob = |seed| Blob { len: 180_000, seed };
    let begin = |slot| Step::UploadBegin { slot, repo: repo() };
    let write = |slot, seed, from, to| Step::UploadWrite { slot, repo: repo(), blob: blob(seed), from, to };
    let commit = |slot, seed| Step::UploadCommit { slot, repo: repo(), blob: blob(seed) };
    let lane = vec![
        begin(0),
        write(0, 40, 0, 100_000),
        begin(1),
        write(1, 41, 0, 70_000),
        write(0, 40, 100_000, 180_000),
        commit(0, 40),
        begin(2),
        write(2, 42, 0, 10_000),
        Step::UploadCancel { slot: 2, repo: repo() },
        Step::Kill,
        start("boot"),
        write(1, 41, 70_000, 180_000),
        commit(1, 41),
        begin(3),
        write(3, 43, 0, 180_000),
    ];
    Script { name: "uploads", base: with_base(Vec::new()), lanes: vec![lane] }
}

/// Processes stop, are killed and start again, in the same boot and in others.
fn restarts() -> Script {
    let push = |n: u64| push_all("team/app", &format!("v{n}"), &small(50 + 2 * n));
    let mut lane = push(0);
    lane.extend([Step::Kill, start("boot")]);
    lane.extend(push(1));
    lane.extend([Step::Stop, start("boot")]);
    lane.extend(push(2));
    lane.extend([Step::Kill, start("second boot")]);
    lane.extend(push(3));
    lane.extend([Step::Stop, start("third boot"), Step::Stop]);
    Script { name: "restarts", base: with_base(Vec::new()), lanes: vec![lane] }
}

/// So many commits that the write-ahead log is checkpointed and begins anew.
fn long_wal() -> Script {
    let push = |n: u64| push_all("team/app", &format!("v{}", n % 5), &small(200 + 2 * n));
    let base = (0..6).flat_map(push).collect();
    Script { name: "long log", base: with_base(base), lanes: vec![(6..9).flat_map(push).collect()] }
}

/// What no manifest relies on is collected, beside what is relied on; some of it is pushed
/// again, and collected again.
fn collections() -> Script {
    let [kept, gone] = [small(60), blobs(70)];
    let mut base = push_all("team/app", "kept", &kept);
    base.extend(push_all("team/app", "gone", &gone));
    base.push(Step::push("team/other", gone[1]));
    base.push(Step::push("team/other", kept[0]));
    let lane = vec![
        Step::DeleteManifest { repo: "team/app".into(), digest: sha256(image(&gone, "gone").as_bytes()) },
        Step::Collect,
        Step::push("team/app", gone[2]),
        Step::push("team/app", gone[0]),
        Step::Collect,
        Step::push("team/app", gone[0]),
        Step::put("team/app", "back", &image(&gone[..1], "back")),
        Step::Collect,
    ];
    Script { name: "collections", base: with_base(base), lanes: vec![lane] }
}

/// Archives come in: a new image, one that shares layers with it and takes its tag, and the first
/// once more; what is left of others is collected.
fn imports() -> Script {
    let [one, mut two] = [blobs(80), blobs(90)];
    two[2] = one[2];
    let lane = vec![
        Step::import("team/app", "latest", &one),
        Step::import("site/new", "v1", &two),
        Step::import("site/new", "v1", &one),
        Step::Collect,
        Step::import("team/app", "latest", &two),
    ];
    Script { name: "imports", base: with_base(Vec::new()), lanes: vec![lane] }
}

/// One kind of request, to be hit by a fault at each of its operations in turn.
pub struct Case {
    pub name: &'static str,
    /// What is there before any of it.
    pub base: Vec<Step>,
    /// What goes before the request, each time, without a fault.
    pub before: fn(u64) -> Vec<Step>,
    /// The request, by how often it was made before.
    pub request: fn(u64) -> Step,
    /// One in so many of its operations is hit.
    pub every: usize,
}

const REPO: &str = "team/app";

/// A blob of its own for each time.
fn nth(n: u64) -> Blob {
    Blob { len: 3_000, seed: 10_000 + n }
}

fn nth_large(n: u64) -> Blob {
    Blob { len: 150_000, seed: 20_000 + n }
}

fn nth_body(n: u64) -> String {
    image(&small(900), &format!("number {n}"))
}

fn nth_manifest(n: u64) -> Step {
    Step::put(REPO, "mine", &nth_body(n))
}

fn delete_blob(blob: Blob) -> Step {
    Step::DeleteBlob { repo: REPO.into(), blob }
}

fn delete_manifest(n: u64) -> Step {
    Step::DeleteManifest { repo: REPO.into(), digest: sha256(nth_body(n).as_bytes()) }
}

/// What undoes the request before this one, if there was one: so nothing piles up.
fn undo(n: u64, step: fn(u64) -> Step) -> Vec<Step> {
    n.checked_sub(1).map(step).into_iter().collect()
}

/// Every kind of request that there is.
pub fn cases() -> Vec<Case> {
    let case = |name, before, request| Case { name, base: with_base(Vec::new()), before, request, every: 1 };
    vec![
        case("push a blob", |n| undo(n, |n| delete_blob(nth(n))), |n| Step::push(REPO, nth(n))),
        case(
            "push a large blob",
            |n| undo(n, |n| delete_blob(nth_large(n))),
            |n| Step::push(REPO, nth_large(n)),
        ),
        Case {
            every: 4,
            ..case("push a big blob", |n| undo(n, |_| delete_blob(BIG)), |_| Step::push(REPO, BIG))
        },
        case(
            "push a blob again",
            |n| if n == 0 { vec![Step::push(REPO, nth_large(0))] } else { Vec::new() },
            |_| Step::push(REPO, nth_large(0)),
        ),
        case(
            "finish an upload",
            |n| {
                let blob = nth_large(n);
                let mut steps = undo(n, |n| delete_blob(nth_large(n)));
                steps.push(Step::UploadBegin { slot: slot(n), repo: REPO.into() });
                steps.push(Step::UploadWrite {
                    slot: slot(n),
                    repo: REPO.into(),
                    blob,
                    from: 0,
                    to: blob.len,
                });
                steps
            },
            |n| Step::UploadCommit { slot: slot(n), repo: REPO.into(), blob: nth_large(n) },
        ),
        case(
            "write to an upload",
            |n| vec![Step::UploadBegin { slot: slot(n), repo: REPO.into() }],
            |n| {
                let blob = nth_large(n);
                Step::UploadWrite { slot: slot(n), repo: REPO.into(), blob, from: 0, to: blob.len }
            },
        ),
        Case {
            base: with_base(push_all("team/source", "v1", &[nth(0)])),
            ..case(
                "mount a blob",
                |n| undo(n, |_| delete_blob(nth(0))),
                |_| Step::Mount { repo: REPO.into(), from: "team/source".into(), blob: nth(0) },
            )
        },
        case("put a manifest", |n| undo(n, delete_manifest), nth_manifest),
        case("move a tag", |n| vec![nth_manifest(n % 2)], |n| nth_manifest((n + 1) % 2)),
        case(
            "put an index",
            |_| Vec::new(),
            |n| Step::put(REPO, "all", &index(&[&image(&small(900), "latest"), &nth_body(n % 2)])),
        ),
        case(
            "delete a tag",
            |n| vec![nth_manifest(n % 2)],
            |_| Step::DeleteTag { repo: REPO.into(), tag: "mine".into() },
        ),
        case("delete a manifest", |n| vec![nth_manifest(n)], delete_manifest),
        case("delete a blob", |n| vec![Step::push(REPO, nth(n % 2))], |n| delete_blob(nth(n % 2))),
        case(
            "delete a repository",
            |_| push_all("team/gone", "v1", &[nth(0)]),
            |_| Step::DeleteRepo { repo: "team/gone".into() },
        ),
        case(
            "collect",
            |n| vec![Step::push(REPO, nth(n)), Step::push("team/other", nth(n))],
            |_| Step::Collect,
        ),
        case(
            "import an image",
            |n| undo(n, |n| delete_image(&imported(n))),
            |n| Step::import(REPO, "mine", &imported(n)),
        ),
        case("pull a blob", |_| Vec::new(), |_| Step::Pull { repo: REPO.into(), blob: small(900)[1] }),
        case(
            "pull a manifest",
            |_| Vec::new(),
            |_| Step::PullManifest {
                repo: REPO.into(),
                reference: "latest".into(),
                digest: sha256(image(&small(900), "latest").as_bytes()),
            },
        ),
        case("stop", |_| Vec::new(), |_| Step::Stop),
        case("start", |_| vec![Step::Stop], |_| start("boot")),
        case("start after a kill", |n| vec![Step::push(REPO, nth(n % 2)), Step::Kill], |_| start("boot")),
        case("start in a new boot", |_| vec![Step::Kill], |n| start(&format!("boot {n}"))),
        // It hashes a password, which takes its time.
        Case {
            base: Vec::new(),
            every: 5,
            ..case("start for the first time", |_| Vec::new(), |_| start("boot"))
        },
    ]
}

/// The blobs of an image that shares one with what is there.
fn imported(n: u64) -> Vec<Blob> {
    vec![small(900)[0], nth(n)]
}

fn delete_image(blobs: &[Blob]) -> Step {
    Step::DeleteManifest { repo: REPO.into(), digest: sha256(image(blobs, "mine").as_bytes()) }
}

fn slot(n: u64) -> usize {
    usize::try_from(n).unwrap_or_default()
}
