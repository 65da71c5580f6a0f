//! `outport pull` and `outport push`: from one registry by a file to another.

use crate::binary::{BINARY, complained, outport, said};
use crate::harness::{OCI_INDEX, PASSWORD, Site, Wishes, manifest, noise, sha256};
use outport::bundle::Inventory;
use outport::names::Digest;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The command line, as admin of wherever it goes.
fn run(dir: &Path, args: &[&str]) -> std::process::Output {
    let with = ["--insecure-http", "--user", "admin", "--password-stdin"];
    outport(dir, &[args, &with].concat(), PASSWORD)
}

fn ran(dir: &Path, args: &[&str]) -> Value {
    let output = run(dir, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", complained(&output));
    serde_json::from_str(&said(&output)).unwrap()
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
    complained(&output)
}

/// A site with an index of two platforms and a signature, and what its manifests' digests are.
struct Depot {
    site: Site,
    index: String,
    images: Vec<String>,
    signature: String,
    dir: TempDir,
}

impl Depot {
    fn new() -> Depot {
        let site = Site::new();
        let mut images = Vec::new();
        let mut listed = Vec::new();
        for (at, arch) in ["amd64", "arm64"].into_iter().enumerate() {
            let config = format!(r#"{{"os":"linux","architecture":"{arch}"}}"#);
            let layer = noise((3 << 20) + at, at as u64 + 1);
            let (config_digest, shared) =
                (site.push_blob("acme/app", config.as_bytes()), site.push_blob("acme/app", b"shared"));
            let own = site.push_blob("acme/app", &layer);
            let text = manifest(&config_digest, config.len(), &[(&shared, 6), (&own, layer.len())], "");
            let digest = sha256(text.as_bytes());
            assert_eq!(site.put_manifest("acme/app", &digest, &text).status, 201);
            listed.push(json!({
                "mediaType": crate::harness::OCI_MANIFEST, "digest": digest, "size": text.len(),
                "platform": {"os": "linux", "architecture": arch},
            }));
            images.push(digest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).to_string();
        let put = site.ask("PUT", "/v2/acme/app/manifests/1.0").header("Content-Type", OCI_INDEX);
        assert_eq!(put.body(index.as_bytes()).send().status, 201);
        let about = format!(
            r#","artifactType":"application/x.signature","subject":{{"mediaType":"{OCI_INDEX}","digest":"{}","size":{}}}"#,
            sha256(index.as_bytes()),
            index.len()
        );
        let empty = site.push_blob("acme/app", b"{}");
        let signature = manifest(&empty, 2, &[], &about);
        let digest = sha256(signature.as_bytes());
        assert_eq!(site.put_manifest("acme/app", &digest, &signature).status, 201);
        let dir = tempfile::tempdir().unwrap();
        Depot { index: sha256(index.as_bytes()), images, signature: digest, site, dir }
    }

    fn name(&self) -> String {
        format!("{}/acme/app:1.0", self.site.address)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A bundle of everything.
    fn bundle(&self, name: &str) -> PathBuf {
        let file = self.file(name);
        ran(self.dir.path(), &["pull", &self.name(), "-o", file.to_str().unwrap()]);
        file
    }
}

fn has(site: &Site, repo: &str, reference: &str) -> bool {
    site.ask("HEAD", &format!("/v2/{repo}/manifests/{reference}")).header("Accept", "*/*").send().status
        == 200
}

fn document(bundle: &Path) -> Value {
    let mut archive = tar::Archive::new(std::fs::File::open(bundle).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let entry = entries.find(|entry| entry.path_bytes() == "outport/bundle.json".as_bytes()).unwrap();
    serde_json::from_reader(entry).unwrap()
}

#[test]
fn a_bundle_brings_images_with_all_that_is_about_them_to_another_registry() {
    let depot = Depot::new();
    let file = depot.bundle("all.tar");
    let there = Site::new();
    let to = format!("{}/mirror", there.address);
    let pushed = ran(depot.dir.path(), &["push", file.to_str().unwrap(), "--to", &to]);
    assert_eq!((&pushed["pushed"]["manifests"], &pushed["pushed"]["tags"]), (&json!(4), &json!(1)));
    for digest in [&depot.images[0], &depot.images[1], &depot.index, &depot.signature] {
        assert!(has(&there, "mirror/acme/app", digest), "{digest}");
    }
    let answer = there.get("/v2/mirror/acme/app/manifests/1.0");
    assert_eq!(sha256(&answer.body), depot.index);
    let referrers = there.get(&format!("/v2/mirror/acme/app/referrers/{}", depot.index)).json();
    assert_eq!(referrers["manifests"][0]["digest"], json!(depot.signature));

    let again = ran(depot.dir.path(), &["push", file.to_str().unwrap(), "--to", &to]);
    assert_eq!((&again["pushed"]["blobs"], &again["pushed"]["manifests"]), (&json!(0), &json!(0)));
    let aside = ran(depot.dir.path(), &["push", file.to_str().unwrap(), "--to", &there.address.to_string()]);
    assert_eq!(aside["pushed"]["manifests"], json!(4), "another repository is another matter");
    assert!(!depot.file("all.tar.push").exists());
}

#[test]
fn one_platform_is_pulled_without_the_layers_of_others() {
    let depot = Depot::new();
    let file = depot.file("arm.tar");
    let path = file.to_str().unwrap();
    ran(
        depot.dir.path(),
        &["pull", &depot.name(), "-o", path, "--platform", "linux/arm64", "--no-referrers"],
    );
    let document = document(&file);
    let manifests: Vec<_> =
        document["manifests"].as_array().unwrap().iter().map(|row| &row["digest"]).collect();
    assert_eq!(manifests, [&json!(depot.images[1]), &json!(depot.index)]);
    assert_eq!(document["blobs"].as_array().unwrap().len(), 3);
    let said =
        refused(depot.dir.path(), &["pull", &depot.name(), "-o", "x.tar", "--platform", "linux/s390x"]);
    assert!(said.contains("linux/amd64, linux/arm64"), "{said}");
    let digest = format!("{}/acme/app@{}", depot.site.address, depot.images[0]);
    let said = refused(depot.dir.path(), &["pull", &digest, "-o", "x.tar", "--platform", "linux/arm64"]);
    assert!(said.contains("is for linux/amd64 alone"), "{said}");
}

#[test]
fn a_pull_that_broke_off_goes_on_and_gives_the_same_bytes() {
    let depot = Depot::new();
    let whole = depot.bundle("whole.tar");
    let bytes = std::fs::read(&whole).unwrap();
    let args = ["pull", &depot.name(), "-o"];
    for (at, cut) in [100, 600, 5_000, bytes.len() / 3, bytes.len() / 2, bytes.len() - 700, bytes.len()]
        .into_iter()
        .enumerate()
    {
        let file = depot.file(&format!("{at}.tar"));
        std::fs::write(depot.file(&format!("{at}.tar.part")), &bytes[..cut]).unwrap();
        let pulled = ran(depot.dir.path(), &[&args[..], &[file.to_str().unwrap()]].concat());
        assert!(std::fs::read(&file).unwrap() == bytes, "cut at {cut}");
        assert!(pulled["pulled"]["had"].as_u64().unwrap() + 20_000 > cut as u64, "cut at {cut}: {pulled}");
        assert!(!depot.file(&format!("{at}.tar.part")).exists());
    }
}

#[test]
fn what_a_power_cut_made_of_a_pull_is_found_and_fetched_again() {
    let depot = Depot::new();
    let whole = depot.bundle("whole.tar");
    let bytes = std::fs::read(&whole).unwrap();
    let file = depot.file("torn.tar");
    for (wrong, cut) in
        [(bytes.len() / 4, bytes.len() / 3), (bytes.len() / 4, bytes.len()), (300, bytes.len() / 2)]
    {
        let mut torn = bytes[..cut].to_vec();
        torn[wrong] ^= 1;
        torn[cut - 4_096..].fill(0);
        std::fs::write(depot.file("torn.tar.part"), &torn).unwrap();
        ran(depot.dir.path(), &["pull", &depot.name(), "-o", file.to_str().unwrap()]);
        assert!(std::fs::read(&file).unwrap() == bytes, "wrong at {wrong}, cut at {cut}");
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_pull_in_volumes_is_the_same_bytes_and_goes_on_where_it_broke_off() {
    let depot = Depot::new();
    let bytes = std::fs::read(depot.bundle("whole.tar")).unwrap();
    let (file, size) = (depot.file("cut.tar"), 1_000_000);
    let args = ["pull", &depot.name(), "-o", file.to_str().unwrap(), "--volume-size", "1M"];
    let pulled = ran(depot.dir.path(), &args);
    let volumes: Vec<PathBuf> = (1..=7).map(|number| depot.file(&format!("cut.tar.{number:03}"))).collect();
    assert_eq!(pulled["pulled"]["files"], json!(volumes));
    let back = |volumes: &[PathBuf]| volumes.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    let whole: Vec<u8> = back(&volumes);
    assert!(whole == bytes);
    assert!(refused(depot.dir.path(), &args).contains("cut.tar.001 is there already"));
    let first = volumes[0].to_str().unwrap();
    assert!(
        ran(depot.dir.path(), &["push", first, "--to", &format!("{}/again", depot.site.address)])["pushed"]["tags"]
            == json!(1)
    );

    for cut in [3_400_000, 3_000_000, 400_000, 10_000] {
        for (at, volume) in volumes.iter().enumerate() {
            let left = &bytes[(at * size).min(cut)..((at + 1) * size).min(cut)];
            std::fs::remove_file(volume).unwrap();
            if !left.is_empty() {
                std::fs::write(volume.with_added_extension("part"), left).unwrap();
            }
        }
        let pulled = ran(depot.dir.path(), &args);
        let whole: Vec<u8> = back(&volumes);
        assert!(whole == bytes, "cut at {cut}");
        assert!(pulled["pulled"]["had"].as_u64().unwrap() + 20_000 > cut as u64, "cut at {cut}: {pulled}");
        assert!(!volumes.iter().any(|volume| volume.with_added_extension("part").exists()));
    }
    let said = refused(depot.dir.path(), &["pull", &depot.name(), "-o", "-", "--volume-size", "1M"]);
    assert!(said.contains("one stream"), "{said}");
}

#[test]
fn a_pull_is_signed_where_no_registry_is_and_taken_where_its_key_is_trusted() {
    let depot = Depot::new();
    let (key, file) = (depot.file("depot.key"), depot.file("signed.tar"));
    let (key, path) = (key.to_str().unwrap(), file.to_str().unwrap());
    let made = outport(depot.dir.path(), &["key", "new", "depot", "--key", key, "--json"], "");
    let public = serde_json::from_str::<Value>(&said(&made)).unwrap()["public"].as_str().unwrap().to_owned();
    let args = ["pull", &depot.name(), "-o", path, "--sign", key];
    let pulled = ran(depot.dir.path(), &args);
    assert_eq!((&pulled["pulled"]["sender"], &pulled["pulled"]["sequence"]), (&json!("depot"), &json!(1)));
    let bytes = std::fs::read(&file).unwrap();

    // Under its new number the rest of what broke off is still of use.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(depot.file("signed.tar.part"), &bytes[..bytes.len() / 2]).unwrap();
    let pulled = ran(depot.dir.path(), &args);
    assert_eq!(pulled["pulled"]["sequence"], json!(2));
    assert!(pulled["pulled"]["had"].as_u64().unwrap() + 20_000 > bytes.len() as u64 / 2, "{pulled}");
    assert_eq!(document(&file)["sequence"], json!(2));

    let there = Site::new();
    let store = there.path("");
    assert!(outport(&store, &["key", "trust", "depot", &public], "").status.success());
    let taken = outport(&store, &["import", path], "");
    assert!(taken.status.success(), "{}", complained(&taken));
    assert!(has(&there, "acme/app", "1.0"));
    let unsigned = depot.bundle("unsigned.tar");
    let taken = outport(&store, &["import", unsigned.to_str().unwrap()], "");
    assert!(complained(&taken).contains("not signed"), "{}", complained(&taken));
}

#[test]
fn a_login_that_a_helper_keeps_is_asked_for_once_and_a_helper_that_fails_is_named() {
    let depot = Depot::new();
    let (bin, asked) = (depot.file("bin"), depot.file("asked"));
    std::fs::create_dir(&bin).unwrap();
    let helper = |name: &str, body: &str| {
        let path = bin.join(format!("docker-credential-{name}"));
        std::fs::write(
            &path,
            format!("#!/bin/sh\nread host; echo \"$1 $host\" >>{}\n{body}\n", asked.display()),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let good = format!(r#"echo '{{"ServerURL":"x","Username":"admin","Secret":"{PASSWORD}"}}'"#);
    helper("good", &good);
    helper("empty", "echo credentials not found in native keychain; exit 1");
    helper("locked", "echo the keychain is locked; exit 1");
    let address = depot.site.address;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let pull = |config: &Value, file: &str| {
        std::fs::write(depot.file("config.json"), config.to_string()).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["pull", &depot.name(), "--insecure-http", "-o", depot.file(file).to_str().unwrap()]);
        command.env("DOCKER_CONFIG", depot.dir.path()).env("PATH", &path);
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_RUNTIME_DIR").output().unwrap()
    };
    for (config, file) in [
        (json!({"credsStore": "good"}), "store.tar"),
        (json!({"credsStore": "locked", "credHelpers": {address.to_string(): "good"}}), "helper.tar"),
    ] {
        let output = pull(&config, file);
        assert!(output.status.success(), "{config}: {}", complained(&output));
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), format!("get {address}\n"), "{config}");
        std::fs::remove_file(&asked).unwrap();
    }
    for (config, words) in [
        (json!({"credsStore": "empty"}), "wants a login"),
        (json!({"credsStore": "locked"}), "docker-credential-locked, which keeps the login for"),
        (json!({"credsStore": "none"}), "it is not installed"),
        (json!({"credsStore": "../good"}), "no name of a program"),
    ] {
        let output = pull(&config, "none.tar");
        assert!(complained(&output).contains(words), "{config}: {}", complained(&output));
    }
}

#[test]
fn a_pull_is_a_stream_too_and_overwrites_nothing() {
    let depot = Depot::new();
    let whole = depot.bundle("whole.tar");
    let streamed = run(depot.dir.path(), &["pull", &depot.name(), "-o", "-"]);
    assert!(streamed.status.success(), "{}", complained(&streamed));
    assert!(streamed.stdout == std::fs::read(&whole).unwrap(), "the same images are the same bytes");
    let said = refused(depot.dir.path(), &["pull", &depot.name(), "-o", whole.to_str().unwrap()]);
    assert!(said.contains("is there already"), "{said}");
    let nothing = format!("{}/acme/none:1.0", depot.site.address);
    let said = refused(depot.dir.path(), &["pull", &nothing, "-o", "x.tar"]);
    assert!(said.contains("acme/none has no image 1.0"), "{said}");

    let there = Site::new();
    let mut child = Command::new(BINARY)
        .args(["push", "-", "--insecure-http", "--user", "admin", "--to", &there.address.to_string()])
        .env("OUTPORT_REGISTRY_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&streamed.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(has(&there, "acme/app", "1.0"));
}

#[test]
fn a_push_that_was_killed_goes_on_in_the_middle_of_a_blob() {
    let site = Site::new();
    let layer = noise(24 << 20, 7);
    site.push_image("acme/app", "1.0", &layer);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.tar");
    let file = file.to_str().unwrap();
    let name = format!("{}/acme/app:1.0", site.address);
    ran(dir.path(), &["pull", &name, "-o", file]);

    let there = Site::new();
    let to = there.address.to_string();
    let mut child = Command::new(BINARY)
        .args(["push", file, "--insecure-http", "--user", "admin", "--rate", "12M", "--to", &to])
        .env("OUTPORT_REGISTRY_PASSWORD", PASSWORD)
        .spawn()
        .unwrap();
    let sessions = dir.path().join("b.tar.push");
    let config = format!("/v2/acme/app/blobs/{}", sha256(b"{}"));
    let noted = || std::fs::read_to_string(&sessions).is_ok_and(|text| text.contains("/blobs/uploads/"));
    while !noted() || there.ask("HEAD", &config).send().status != 200 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!has(&there, "acme/app", "1.0"));
    assert_eq!(there.uploads_left(), 1);
    let pushed = ran(dir.path(), &["push", file, "--to", &to]);
    assert_eq!(pushed["pushed"]["blobs"], json!(1));
    assert_eq!((there.uploads_left(), sessions.exists()), (0, false), "the upload was gone on with");
    assert_eq!(there.get(&format!("/v2/acme/app/blobs/{}", sha256(&layer))).body, layer);
}

#[test]
fn a_delta_says_what_the_registry_must_have_and_is_taken_once_it_has() {
    let depot = Depot::new();
    let full = depot.bundle("full.tar");
    let old: Vec<String> = document(&full)["blobs"]
        .as_array()
        .unwrap()
        .iter()
        .chain(document(&full)["manifests"].as_array().unwrap())
        .map(|row| row["digest"].as_str().unwrap().to_owned())
        .collect();
    let layer = noise(1_000, 99);
    let (config, new) = (depot.site.push_blob("acme/app", b"{}"), depot.site.push_blob("acme/app", &layer));
    let shared = sha256(b"shared");
    let text = manifest(&config, 2, &[(&shared, 6), (&new, layer.len())], "");
    assert_eq!(depot.site.put_manifest("acme/app", "1.1", &text).status, 201);

    let mut pages = vec![Vec::new(), old.iter().map(|digest| Digest::parse(digest).unwrap()).collect()];
    let have = Inventory::of_pages(|| Ok(pages.pop().unwrap())).unwrap();
    std::fs::write(depot.file("have.json"), have.bytes().unwrap()).unwrap();
    let delta = depot.file("delta.tar");
    let name = format!("{}/acme/app:1.1", depot.site.address);
    let have = depot.file("have.json");
    let args = ["pull", &name, "-o", delta.to_str().unwrap(), "--have", have.to_str().unwrap()];
    let done = ran(depot.dir.path(), &args);
    assert_eq!((&done["pulled"]["blobs"], &done["pulled"]["base"]), (&json!(1), &json!(2)));
    assert!(std::fs::metadata(&delta).unwrap().len() < 10_000);

    let there = Site::new();
    let to = there.address.to_string();
    let said = refused(depot.dir.path(), &["push", delta.to_str().unwrap(), "--to", &to]);
    assert!(said.contains(&format!("{to}/acme/app@{shared}")) && said.contains("builds upon"), "{said}");
    assert!(!has(&there, "acme/app", "1.1"));
    ran(depot.dir.path(), &["push", full.to_str().unwrap(), "--to", &to]);
    ran(depot.dir.path(), &["push", delta.to_str().unwrap(), "--to", &to]);
    assert_eq!(there.get("/v2/acme/app/manifests/1.1").body, text.as_bytes());
}

#[test]
fn an_oci_layout_and_an_archive_of_docker_save_are_pushed_as_they_are() {
    let site = Site::with(Wishes::anonymous());
    let to = site.address.to_string();
    let dir = tempfile::tempdir().unwrap();
    let layer = noise(9 << 20, 3);
    let config =
        json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]}}).to_string();
    let config = config.as_bytes();
    // What says how it belongs together comes last.
    let saved = tar_of(&[
        ("a/layer.tar", &layer),
        ("config.json", config),
        (
            "manifest.json",
            json!([{"Config": "config.json", "RepoTags": ["acme/old:2"], "Layers": ["a/layer.tar"]}])
                .to_string()
                .as_bytes(),
        ),
    ]);
    let file = dir.path().join("saved.tar");
    std::fs::write(&file, saved).unwrap();
    let pushed = ran(dir.path(), &["push", file.to_str().unwrap(), "--to", &to]);
    assert_eq!(pushed["pushed"]["blobs"], json!(2));
    let manifest = site.get("/v2/acme/old/manifests/2").json();
    assert_eq!(manifest["layers"][0]["digest"], json!(sha256(&layer)));

    let text = crate::harness::manifest(&sha256(config), config.len(), &[(&sha256(&layer), layer.len())], "");
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": crate::harness::OCI_MANIFEST, "digest": sha256(text.as_bytes()), "size": text.len(),
    }]});
    let blobs = dir.path().join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for bytes in [config, layer.as_slice(), text.as_bytes()] {
        std::fs::write(blobs.join(&sha256(bytes)["sha256:".len()..]), bytes).unwrap();
    }
    std::fs::write(dir.path().join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(dir.path().join("layout/index.json"), index.to_string()).unwrap();
    let layout = dir.path().join("layout");
    let layout = layout.to_str().unwrap();
    let said = refused(dir.path(), &["push", layout, "--to", &to]);
    assert!(said.contains("--as"), "{said}");
    ran(dir.path(), &["push", layout, "--to", &to, "--as", "acme/new:3"]);
    assert_eq!(site.get("/v2/acme/new/manifests/3").body, text.as_bytes());
}

#[test]
fn a_blob_of_several_repositories_is_sent_once() {
    let site = Site::new();
    let layer = noise(2 << 20, 4);
    for repo in ["acme/one", "acme/two", "acme/three"] {
        site.push_image(repo, "1", &layer);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.tar");
    let names = ["one", "two", "three"].map(|name| format!("{}/acme/{name}:1", site.address));
    let file = file.to_str().unwrap();
    ran(dir.path(), &["pull", &names[0], &names[1], &names[2], "-o", file]);
    let there = Site::new();
    let pushed = ran(dir.path(), &["push", file, "--to", &there.address.to_string()]);
    assert_eq!((&pushed["pushed"]["blobs"], &pushed["pushed"]["mounted"]), (&json!(2), &json!(4)));
    for repo in ["acme/one", "acme/two", "acme/three"] {
        assert_eq!(there.get(&format!("/v2/{repo}/blobs/{}", sha256(&layer))).body, layer);
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}
