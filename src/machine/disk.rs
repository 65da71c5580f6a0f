//! What the kernel tells of where a directory lies: its file system, and how worn its card is.

use std::path::{Path, PathBuf};

/// A file system as it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `ext4`, `vfat`, `nfs4`, …
    pub kind: String,
    /// Of the mount and of the file system: `rw`, `noatime`, `nobarrier`, …
    pub options: Vec<String>,
    /// The block device, `MAJOR:MINOR`.
    device: String,
    /// What was mounted: a device, most of the time.
    source: String,
}

/// How worn a card or chip says it is (JEDEC eMMC, EXT_CSD; linux/drivers/mmc/core/mmc.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wear {
    /// At most so much of its life is used up, in percent; 110: more than its maker promised.
    /// None where it does not tell.
    pub used_percent: Option<u8>,
    /// Of its spare blocks 80 % are used (2), or nearly all (3).
    pub spare: u8,
}

/// Where an existing directory lies; None if the kernel does not tell.
pub fn mount_of(dir: &Path) -> Option<Mount> {
    let dir = dir.canonicalize().ok()?;
    mount_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
}

/// The last and longest mount point that the directory is below (proc(5), mountinfo).
fn mount_in(mountinfo: &str, dir: &Path) -> Option<Mount> {
    let mut found: Option<(PathBuf, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((place, about)) = line.split_once(" - ") else { continue };
        let place: Vec<&str> = place.split(' ').collect();
        let about: Vec<&str> = about.split(' ').collect();
        let ([_, _, device, _, point, options, ..], [kind, source, more, ..]) =
            (place.as_slice(), about.as_slice())
        else {
            continue;
        };
        let point = PathBuf::from(unescaped(point));
        let longest = found.as_ref().is_none_or(|(best, _)| point.starts_with(best));
        if dir.starts_with(&point) && longest {
            let options = options.split(',').chain(more.split(',')).map(str::to_owned).collect();
            let (kind, device, source) = ((*kind).to_owned(), (*device).to_owned(), (*source).to_owned());
            found = Some((point, Mount { kind, options, device, source }));
        }
    }
    found.map(|(_, mount)| mount)
}

/// Spaces and their like stand there in octal.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

impl Mount {
    /// One of no device.
    #[cfg(test)]
    pub fn new(kind: &str, options: &str) -> Mount {
        let options = options.split(',').map(str::to_owned).collect();
        Mount { kind: kind.into(), options, device: "0:0".into(), source: "none".into() }
    }

    /// How worn the card below it is, the most worn where it lies on several. None where no disk
    /// below it tells, which SD cards do not and eMMC chips do.
    pub fn wear(&self) -> Option<Wear> {
        let device = match std::fs::metadata(&self.source) {
            // A file system over several devices has a number that is none of theirs.
            Ok(found) if self.source.starts_with("/dev/") => {
                use std::os::unix::fs::MetadataExt;
                let number = found.rdev();
                format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
            }
            _ => self.device.clone(),
        };
        let device = Path::new("/sys/dev/block").join(device);
        let worn = disks(&device, SLAVES_DEPTH).into_iter().filter_map(|disk| wear(&disk));
        worn.max_by_key(|wear| (wear.spare, wear.used_percent))
    }
}

/// Encryption over logical volumes over RAID over partitions, and one more.
const SLAVES_DEPTH: u8 = 5;

/// The disks below a device of sysfs: below a mapped one those that it is made of.
fn disks(device: &Path, depth: u8) -> Vec<PathBuf> {
    let Ok(device) = device.canonicalize() else { return Vec::new() };
    if let (true, Some(disk)) = (device.join("partition").exists(), device.parent()) {
        return vec![disk.to_owned()];
    }
    let slaves = std::fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
    let below: Vec<_> = match depth.checked_sub(1) {
        Some(depth) => slaves.flat_map(|slave| disks(&slave.path(), depth)).collect(),
        None => Vec::new(),
    };
    if below.is_empty() { vec![device] } else { below }
}

fn wear(disk: &Path) -> Option<Wear> {
    let read = |name: &str| std::fs::read_to_string(disk.join("device").join(name)).ok();
    let number = |word: &str| u8::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let spare = read("pre_eol_info").as_deref().map(str::trim).and_then(number);
    // Two kinds of cells; each in tenths, 0 for "does not tell", 11 for "more than promised".
    let tenths = read("life_time")?.split_whitespace().filter_map(number).max()?;
    let used_percent = (1..=11).contains(&tenths).then(|| tenths * 10);
    Some(Wear { used_percent, spare: spare.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw,nobarrier\n\
30 22 0:25 / /run rw,nosuid - tmpfs tmpfs rw,size=10%\n\
40 22 8:1 / /media/my\\040stick rw,relatime shared:9 - vfat /dev/sda1 rw,fmask=0022\n\
41 40 0:44 / /media/my\\040stick rw,relatime - nfs4 far:/export rw,vers=4.2\n\
nonsense\n";

    #[test]
    fn a_directory_lies_on_the_last_mount_above_it() {
        let of = |dir: &str| mount_in(MOUNTINFO, Path::new(dir)).expect("some mount");
        let root = of("/var/lib/outport");
        assert_eq!((root.kind.as_str(), root.source.as_str()), ("ext4", "/dev/mmcblk0p2"));
        assert_eq!(root.options, ["rw", "noatime", "rw", "nobarrier"]);
        assert_eq!(of("/runner").kind, "ext4");
        assert_eq!(of("/run/outport").kind, "tmpfs");
        assert_eq!(of("/media/my stick/data").kind, "nfs4");
        assert_eq!(mount_in("", Path::new("/")), None);
    }

    #[test]
    fn a_card_says_how_worn_it_is_through_partitions_and_what_is_mapped_onto_them() {
        let sys = tempfile::tempdir().expect("a directory");
        let make = |dir: &str, name: &str, text: &str| {
            let dir = sys.path().join(dir);
            std::fs::create_dir_all(&dir).expect("is made");
            std::fs::write(dir.join(name), text).expect("is written");
        };
        make("mmcblk0/device", "life_time", "0x02 0x09\n");
        make("mmcblk0/device", "pre_eol_info", "0x02\n");
        make("mmcblk0/mmcblk0p2", "partition", "2\n");
        make("mmcblk1/device", "life_time", "0x00 0x00\n");
        make("sda", "size", "1\n");
        std::fs::create_dir_all(sys.path().join("dm-0/slaves")).expect("is made");
        let slave = sys.path().join("dm-0/slaves/mmcblk0p2");
        std::os::unix::fs::symlink(sys.path().join("mmcblk0/mmcblk0p2"), slave).expect("is linked");
        let wear_of = |name: &str| {
            let disks = disks(&sys.path().join(name), SLAVES_DEPTH);
            disks.iter().find_map(|disk| wear(disk))
        };
        let worn = Some(Wear { used_percent: Some(90), spare: 2 });
        for name in ["mmcblk0", "mmcblk0/mmcblk0p2", "dm-0"] {
            assert_eq!(wear_of(name), worn, "{name}");
        }
        assert_eq!(wear_of("mmcblk1"), Some(Wear { used_percent: None, spare: 0 }));
        assert_eq!(wear_of("sda"), None);
        assert_eq!(wear_of("none"), None);
    }
}
