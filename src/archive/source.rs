//! Where an archive's bytes come from: a file, its volumes, standard input; compressed or not.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{broken, refused};
use crate::error::Result;

/// How much is read at once.
const BUFFER_BYTES: usize = 128 << 10;
/// How many times its size a compressed archive may have unpacked, beyond the first 64 MiB: an
/// image's layers are compressed to a tenth at best.
const RATIO_MAX: u64 = 200;
const FREE_BYTES: u64 = 64 << 20;
/// Largest window of zstd, in bytes: what every decoder must take (RFC 8878 §3.1.1.1.2), and all
/// that `zstd` uses without `--long` or `--ultra`.
const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// Most volumes of an archive: names end with three digits.
pub const VOLUMES_MAX: usize = 999;

/// Unpacks a stream if it is compressed with gzip or zstd, by what it begins with.
pub fn unpack<'a>(from: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Counted { from, taken: taken.clone() };
    let mut from = BufReader::with_capacity(BUFFER_BYTES, counted);
    let head = head_of(&mut from)?;
    let [a, b, c, d] = head;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(Bounded { from: MultiGzDecoder::new(from), taken, given: 0 }),
        _ if is_zstd(u32::from_le_bytes([a, b, c, d])) => {
            Box::new(Bounded { from: Zstd::new(from), taken, given: 0 })
        }
        _ => Box::new(from),
    })
}

/// The first four bytes, which stay to be read.
fn head_of(from: &mut impl BufRead) -> Result<[u8; 4]> {
    let seen = from.fill_buf().map_err(|error| broken(&error))?;
    if seen.is_empty() {
        return Err(refused("it is empty"));
    }
    let mut head = [0; 4];
    let some = seen.len().min(4);
    head[..some].copy_from_slice(&seen[..some]);
    Ok(head)
}

const ZSTD_FRAME: u32 = 0xfd2f_b528;

fn is_skippable(magic: u32) -> bool {
    magic & 0xffff_fff0 == 0x184d_2a50
}

fn is_zstd(magic: u32) -> bool {
    magic == ZSTD_FRAME || is_skippable(magic)
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.from.read(buffer)?;
        self.taken.fetch_add(some as u64, Ordering::Relaxed);
        Ok(some)
    }
}

/// Ends where more comes out than can have gone in.
struct Bounded<R> {
    from: R,
    taken: Arc<AtomicU64>,
    given: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.from.read(buffer)?;
        self.given += some as u64;
        let most = FREE_BYTES.saturating_add(self.taken.load(Ordering::Relaxed).saturating_mul(RATIO_MAX));
        if self.given > most {
            return Err(io::Error::other(refused(format!(
                "it unpacks to more than {RATIO_MAX} times its size; unpack it by hand if it is to be trusted"
            ))));
        }
        Ok(some)
    }
}

/// Frames of zstd one after the other, as `zstd`, `pzstd` and `cat` make them.
struct Zstd<R> {
    from: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(from: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        Zstd { from, decoder, within: false }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            let mut magic = [0; 4];
            self.from.read_exact(&mut magic)?;
            if !is_skippable(u32::from_le_bytes(magic)) {
                self.decoder.init(magic.chain(&mut self.from)).map_err(|error| match error {
                    FrameDecoderError::WindowSizeTooBig { .. } => io::Error::other(refused(
                        "it was compressed with a window of more than 8 MiB; compress it without --long and --ultra",
                    )),
                    error => io::Error::new(io::ErrorKind::InvalidData, error),
                })?;
                self.within = true;
                return Ok(true);
            }
            let mut length = [0; 4];
            self.from.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut (&mut self.from).take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(false)
    }

    /// Ends a frame, whose checksum the decoder leaves to us.
    fn finish(&mut self) -> io::Result<()> {
        self.within = false;
        match self.decoder.get_checksum_from_data() {
            Some(sum) if self.decoder.get_calculated_checksum() != Some(sum) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            match self.decoder.read(buffer)? {
                0 => self.finish()?,
                some => return Ok(some),
            }
        }
    }
}

/// The files that hold an archive, in order: one, or its volumes by the first of them.
///
/// Fails with a sentence that names what is missing or torn.
pub fn volumes(path: &Path) -> Result<Vec<PathBuf>> {
    let first = match path.extension() {
        Some(number) if number == "001" => path.to_owned(),
        _ if path.exists() => return Ok(vec![path.to_owned()]),
        _ => numbered(path, 1),
    };
    let name = first.with_extension("");
    if !first.exists() {
        return Err(refused(match path.extension() {
            Some(number) if number == "001" => format!("the first volume, {}, is missing", first.display()),
            _ => format!("there is no {}", path.display()),
        }));
    }
    let there: Vec<bool> = (1..=VOLUMES_MAX).map(|number| numbered(&name, number).exists()).collect();
    let last = there.iter().rposition(|there| *there).map_or(1, |at| at + 1);
    if let Some(gap) = there[..last].iter().position(|there| !there) {
        let (gap, last) = (numbered(&name, gap + 1), numbered(&name, last));
        return Err(refused(format!(
            "the volume {} is missing; there are others up to {}",
            gap.display(),
            last.display()
        )));
    }
    let volumes: Vec<PathBuf> = (1..=last).map(|number| numbered(&name, number)).collect();
    let bytes =
        |path: &PathBuf| std::fs::metadata(path).map(|found| found.len()).map_err(|e| unreadable(path, &e));
    let whole = bytes(&volumes[0])?;
    for volume in &volumes[..last - 1] {
        let found = bytes(volume)?;
        if found != whole {
            return Err(refused(format!(
                "the volume {} has {found} bytes and the first one {whole}; all but the last are of one size: \
                 copy it again",
                volume.display()
            )));
        }
    }
    Ok(volumes)
}

/// A volume of a file: `NAME.001` is the first one.
pub fn numbered(name: &Path, number: usize) -> PathBuf {
    let mut text = name.as_os_str().to_owned();
    text.push(format!(".{number:03}"));
    text.into()
}

/// Several files read as one.
pub struct Volumes {
    paths: std::vec::IntoIter<PathBuf>,
    open: Option<File>,
    ended: Arc<AtomicBool>,
}

impl Volumes {
    /// What comes with it turns true once all of them were read.
    pub fn new(paths: Vec<PathBuf>) -> (Volumes, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(false));
        (Volumes { paths: paths.into_iter(), open: None, ended: ended.clone() }, ended)
    }
}

impl Read for Volumes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                match file.read(buffer)? {
                    0 => self.open = None,
                    some => return Ok(some),
                }
            }
            let Some(path) = self.paths.next() else {
                self.ended.store(true, Ordering::Relaxed);
                return Ok(0);
            };
            self.open = Some(File::open(&path).map_err(|error| io::Error::other(unreadable(&path, &error)))?);
        }
    }
}

/// The error of a file that cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> crate::error::Error {
    refused(format!("{} cannot be read: {error}", path.display()))
}
