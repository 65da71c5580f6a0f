//! `carry`: what an import and an export of one large image cost, beside what it costs to hash and
//! write as many bytes.

use clap::Args;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::server::{self, Server};

/// What an import and an export of one large image cost.
#[derive(Args)]
pub struct Carry {
    /// The binary to measure; otherwise the one beside this program
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where files are written; four times the image's size must fit
    #[arg(long, default_value = ".")]
    within: PathBuf,
    /// GiB of the image's one layer
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// How often each is done; the middle one counts
    #[arg(long, default_value_t = 3)]
    times: usize,
    /// Print JSON instead of Markdown
    #[arg(long)]
    json: bool,
}

/// How many bytes are read and written at once.
const PIECE: usize = 1 << 20;
/// How often a process is looked at while it runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const MIB: f64 = 1_048_576.0;

#[derive(Clone, Serialize)]
struct Row {
    what: &'static str,
    secs: f64,
    mib_per_sec: f64,
    /// Most memory it ever had; none for the yardstick.
    rss_peak_mib: Option<f64>,
    /// How fast it is beside the yardstick: 1 is as fast.
    of_yardstick: f64,
}

impl Carry {
    pub fn run(&self) -> Result<()> {
        let binary = server::binary(self.binary.as_deref())?;
        let dir = tempfile::tempdir_in(&self.within)?;
        let (layout, tar) = (dir.path().join("layout"), dir.path().join("image.tar"));
        let bytes = self.gib << 30;
        let layer = make_layout(&layout, bytes)?;
        let depot = dir.path().join("depot");
        make_registry(&binary, &depot)?;
        run(&binary, &["import", text(&layout)?, "--as", "bench/big:1"], &depot)?;
        std::fs::remove_dir_all(&layout)?;

        let mut found: [Vec<(Duration, Option<f64>)>; 3] = Default::default();
        for _ in 0..self.times.max(1) {
            let _ = std::fs::remove_file(&tar);
            found[2].push(run(&binary, &["export", "bench/big:1", "-o", text(&tar)?], &depot)?);
            found[0].push((hash_and_write(&tar, &dir.path().join("copy"))?, None));
            let site = dir.path().join("site");
            make_registry(&binary, &site)?;
            found[1].push(run(&binary, &["import", text(&tar)?], &site)?);
            if !site.join("blobs/sha256").join(&layer).exists() {
                return Err("the import did not bring the layer".into());
            }
            std::fs::remove_dir_all(&site)?;
        }
        let [yardstick, import, export] = found.map(middle);
        let row = |what, (took, rss): (Duration, Option<f64>)| Row {
            what,
            secs: took.as_secs_f64(),
            mib_per_sec: bytes as f64 / MIB / took.as_secs_f64(),
            rss_peak_mib: rss,
            of_yardstick: yardstick.0.as_secs_f64() / took.as_secs_f64(),
        };
        let rows = [
            row("read, hash, write and sync, by one thread", yardstick),
            row("import of the tar", import),
            row("export to a tar", export),
        ];
        if self.json {
            println!("{}", serde_json::to_string_pretty(&rows)?);
            return Ok(());
        }
        println!("An image of {} GiB:\n", self.gib);
        println!("| | s | MiB/s | beside the first row | peak RSS, MiB |\n|---|--:|--:|--:|--:|");
        for row in rows {
            let rss = row.rss_peak_mib.map_or_else(String::new, |rss| format!("{rss:.1}"));
            let (what, secs, rate, ratio) = (row.what, row.secs, row.mib_per_sec, row.of_yardstick);
            println!("| {what} | {secs:.1} | {rate:.0} | {ratio:.2} | {rss} |");
        }
        Ok(())
    }
}

/// An empty registry.
fn make_registry(binary: &Path, data: &Path) -> Result<()> {
    let address = server::free_address()?;
    drop(Server::start(server::plain_outport(binary, data, address), address, false)?);
    Ok(())
}

/// Runs the binary to its end: how long that took, and the most memory it had.
fn run(binary: &Path, verb: &[&str], data: &Path) -> Result<(Duration, Option<f64>)> {
    let began = Instant::now();
    let mut child = Command::new(binary)
        .args(verb)
        .arg("--data")
        .arg(data)
        .env("OUTPORT_STORAGE_RESERVE_BYTES", "0")
        .stdout(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0_u64;
    let outcome = loop {
        let said = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = said.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak_kib = peak_kib.max(peak.trim().trim_end_matches(" kB").parse().unwrap_or_default());
        match child.try_wait()? {
            Some(outcome) => break outcome,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    match outcome.success() {
        true => Ok((began.elapsed(), Some(peak_kib as f64 / 1024.0))),
        false => Err(format!("outport {} failed; what it said is above", verb[0]).into()),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the path is not UTF-8".into())
}

fn middle(mut found: Vec<(Duration, Option<f64>)>) -> (Duration, Option<f64>) {
    found.sort_by_key(|(took, _)| *took);
    let most = found.iter().filter_map(|(_, rss)| *rss).reduce(f64::max);
    (found[found.len() / 2].0, most)
}

/// What an import cannot do without: each byte is read, hashed, written, and all are synced.
fn hash_and_write(from: &Path, to: &Path) -> Result<Duration> {
    let began = Instant::now();
    let (mut from, mut file) = (File::open(from)?, File::create(to)?);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; PIECE]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read])?;
    }
    std::hint::black_box(hash.finalize());
    file.sync_data()?;
    let took = began.elapsed();
    std::fs::remove_file(to)?;
    Ok(took)
}

/// An OCI image layout with an image of one layer of noise; returns the layer's hash.
fn make_layout(dir: &Path, bytes: u64) -> Result<String> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let growing = dir.join("layer");
    let (mut file, mut hash) = (File::create(&growing)?, Sha256::new());
    let (mut state, mut buffer, mut left) = (0x9e37_79b9_7f4a_7c15_u64, vec![0; PIECE], bytes);
    while left > 0 {
        for eight in buffer.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            eight.copy_from_slice(&state.to_le_bytes());
        }
        let now = left.min(PIECE as u64);
        let piece = &buffer[..usize::try_from(now)?];
        hash.update(piece);
        file.write_all(piece)?;
        left -= now;
    }
    let layer = hex(&hash.finalize());
    std::fs::rename(growing, blobs.join(&layer))?;

    let put = |body: &serde_json::Value| -> Result<serde_json::Value> {
        let body = serde_json::to_vec(body)?;
        let name = hex(&Sha256::digest(&body));
        std::fs::write(blobs.join(&name), &body)?;
        Ok(json!({"digest": format!("sha256:{name}"), "size": body.len()}))
    };
    let described = |mut descriptor: serde_json::Value, kind: &str| {
        descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{kind}"));
        descriptor
    };
    let diff = format!("sha256:{layer}");
    let config = put(&json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff]}}))?;
    let manifest = put(&json!({"schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(config, "config.v1+json"),
        "layers": [described(json!({"digest": diff, "size": bytes}), "layer.v1.tar")]}))?;
    let index = json!({"schemaVersion": 2, "manifests": [described(manifest, "manifest.v1+json")]});
    std::fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(layer)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
