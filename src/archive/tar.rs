//! A tar stream, entry by entry, from somebody who may mean no good.
//!
//! The `tar` crate parses headers here and nothing more: it would take names of any length into
//! memory, and sparse files for what they say they are.

use std::io::{self, Read};

use super::{broken, refused};
use crate::error::Result;

const BLOCK: usize = 512;
/// Longest record of extended headers, and longest name, in bytes.
const EXTENDED_BYTES_MAX: u64 = 64 << 10;
const PATH_BYTES_MAX: usize = 512;
/// Deepest path.
const DEPTH_MAX: usize = 16;
/// Most extended headers in a row: one for a long name, one for a long link, one for the rest.
const EXTENDED_MAX: usize = 4;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    File,
    Dir,
    /// To another entry, by its path from the archive's root.
    Link(String),
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the archive's root: no `.`, no `..`, no slash at either end.
    pub path: String,
    pub form: Form,
    pub bytes: u64,
}

/// Reads entries one after the other; [`Read`] gives the bytes of the one that is at hand.
pub struct Tar<R> {
    from: R,
    /// Bytes of the entry at hand that nobody read yet.
    left: u64,
    /// Bytes that fill its last block.
    fill: u64,
}

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: Option<u64>,
}

impl<R: Read> Tar<R> {
    pub fn new(from: R) -> Tar<R> {
        Tar { from, left: 0, fill: 0 }
    }

    /// The next entry; None at the archive's end, after which there may be zeros and nothing else.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut extended = Extended::default();
        for _ in 0..=EXTENDED_MAX {
            let Some(header) = self.header()? else {
                self.end()?;
                return Ok(None);
            };
            let bytes = header.entry_size().map_err(|_| refused("the size of an entry does not parse"))?;
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                extended.path = Some(self.record(bytes)?);
            } else if kind.is_gnu_longlink() {
                extended.link = Some(self.record(bytes)?);
            } else if kind.is_pax_local_extensions() {
                let record = self.record(bytes)?;
                extended.take(&record)?;
            } else if kind.is_pax_global_extensions() {
                // Comments, as git writes.
                self.record(bytes)?;
            } else {
                return self.begin(&header, bytes, extended).map(Some);
            }
        }
        Err(refused("an entry has too many extended headers"))
    }

    fn begin(&mut self, header: &tar::Header, bytes: u64, extended: Extended) -> Result<Entry> {
        let raw = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = clean(&raw)?;
        let kind = header.entry_type();
        let bytes = if kind.is_file() || kind.is_contiguous() { extended.bytes.unwrap_or(bytes) } else { 0 };
        // A directory's name ends with a slash in archives from before there was a type for it.
        let form = match () {
            () if kind.is_file() && raw.ends_with(b"/") => Form::Dir,
            () if kind.is_file() || kind.is_contiguous() => Form::File,
            () if kind.is_dir() => Form::Dir,
            () if kind.is_symlink() || kind.is_hard_link() => {
                let target =
                    extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
                let target = target.unwrap_or_default();
                let from = if kind.is_symlink() { parent(&path) } else { "" };
                Form::Link(follow(from, &target, &path)?)
            }
            () if kind.is_gnu_sparse() => {
                return Err(refused(format!("{path} is a sparse file, which no image has")));
            }
            () => return Err(refused(format!("{path} is no file, directory or link; no image has such"))),
        };
        if path.is_empty() && form != Form::Dir {
            return Err(refused("an entry has no name"));
        }
        self.left = bytes;
        self.fill = fill(bytes);
        Ok(Entry { path, form, bytes })
    }

    /// The next block, if it is a header; None if it is the zeros of the end.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        self.from.read_exact(header.as_mut_bytes()).map_err(|error| broken(&error))?;
        let block = header.as_bytes();
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let spaces = 8 * u32::from(b' ');
        let sum: u32 =
            block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + spaces;
        match header.cksum() {
            Ok(found) if found == sum => Ok(Some(header)),
            _ => Err(refused("it is no tar archive, or it is damaged: the checksum of a header is wrong")),
        }
    }

    /// The bytes of an extended header.
    fn record(&mut self, bytes: u64) -> Result<Vec<u8>> {
        if bytes > EXTENDED_BYTES_MAX {
            return Err(refused(format!("an extended header has {bytes} bytes; at most 64 KiB are read")));
        }
        let mut record = Vec::new();
        (self.left, self.fill) = (bytes, fill(bytes));
        self.read_to_end(&mut record).map_err(|error| broken(&error))?;
        self.skip()?;
        Ok(record)
    }

    /// Passes what is left of the entry at hand.
    fn skip(&mut self) -> Result<()> {
        let rest = self.left.saturating_add(self.fill);
        let passed =
            io::copy(&mut (&mut self.from).take(rest), &mut io::sink()).map_err(|error| broken(&error))?;
        (self.left, self.fill) = (0, 0);
        if passed < rest {
            return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// Reads on to where the bytes end: a compressed archive has its checksum there.
    fn end(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        loop {
            match self.from.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(some) if block[..some].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(refused("the archive goes on after its end")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
    }
}

impl<R: Read> Read for Tar<R> {
    /// Fails with `UnexpectedEof` where the archive ends before its entry does.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let some = self.from.read(&mut buffer[..most])?;
        if some == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= some as u64;
        Ok(some)
    }
}

impl Extended {
    /// Records of `LENGTH KEY=VALUE\n` (POSIX pax).
    fn take(&mut self, mut record: &[u8]) -> Result<()> {
        let bad = || refused("an extended header does not parse");
        while !record.is_empty() {
            let space = record.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = number(&record[..space]).ok_or_else(bad)?;
            let length = usize::try_from(length).map_err(|_| bad())?;
            if length <= space + 1 || length > record.len() || record[length - 1] != b'\n' {
                return Err(bad());
            }
            let pair = &record[space + 1..length - 1];
            let equals = pair.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let value = &pair[equals + 1..];
            match &pair[..equals] {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.bytes = Some(number(value).ok_or_else(bad)?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refused("an entry is a sparse file, which no image has"));
                }
                _ => {}
            }
            record = &record[length..];
        }
        Ok(())
    }
}

/// How many bytes the last block of so many lacks.
fn fill(bytes: u64) -> u64 {
    let block = BLOCK as u64;
    (block - bytes % block) % block
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// An entry's path, if it stays where it is.
fn clean(raw: &[u8]) -> Result<String> {
    // GNU's long names end with a zero.
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    if raw.len() > PATH_BYTES_MAX {
        return Err(refused(format!("an entry's name has {} bytes; at most 512 are taken", raw.len())));
    }
    let text = std::str::from_utf8(raw).map_err(|_| refused("an entry's name is not UTF-8"))?;
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return Err(refused("an entry's name has control characters or backslashes in it"));
    }
    if text.starts_with('/') {
        return Err(refused(format!("{text} is an absolute path; entries lie below the archive's root")));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(refused(format!("{text} leads out of the archive")));
    }
    if parts.len() > DEPTH_MAX {
        return Err(refused(format!("an entry lies {} directories deep; at most 16 are read", parts.len())));
    }
    Ok(parts.join("/"))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Where a link leads that lies in `from`: a path from the archive's root.
pub(super) fn follow(from: &str, target: &[u8], link: &str) -> Result<String> {
    let outside = || refused(format!("the link {link} leads out of the archive"));
    let target = target.strip_suffix(b"\0").unwrap_or(target);
    if target.len() > PATH_BYTES_MAX {
        return Err(refused(format!("the link {link} is longer than 512 bytes")));
    }
    let target = std::str::from_utf8(target).map_err(|_| refused(format!("the link {link} is not UTF-8")))?;
    if target.is_empty() {
        return Err(refused(format!("the link {link} leads nowhere")));
    }
    if target.starts_with('/') {
        return Err(outside());
    }
    let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_more_bytes_than_32_bits_hold() {
        // In octal digits, and what has too many of them: GNU's own way.
        for bytes in [5_000_000_000, 20_000_000_000] {
            let mut header = tar::Header::new_gnu();
            header.set_path("layer.tar").expect("is short");
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(bytes);
            header.set_cksum();
            let mut archive = Tar::new(&header.as_bytes()[..]);
            assert_eq!(archive.entry().expect("parses").expect("is one").bytes, bytes);
            assert_eq!(archive.left + archive.fill, bytes.next_multiple_of(512));
        }
    }
}
