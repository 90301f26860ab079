//! The rules that every member of an archive must obey before a byte of it is written.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::checksum::{CHUNK_BYTES, Hasher, Measured};
use super::error::{FetchError, FetchResult};
use super::paths::SafePath;
use super::room::{CHECK_EVERY_BYTES, Room};

/// Most members accepted. The largest archive (`LibriSpeech`'s train-other-500) has about 155 000.
const MEMBERS_MAX: u64 = 2_000_000;

/// A member that was written to the staging folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path below the archive's top folder.
    pub path: SafePath,
    /// What it measures.
    pub measured: Measured,
}

/// Takes members one after another and writes them below a staging folder.
pub struct Staging<'a> {
    archive: &'a Path,
    folder: &'a Path,
    room_bytes: u64,
    room: &'a Room,
    interrupt: &'a AtomicBool,
    top: Option<String>,
    seen: u64,
    written_bytes: u64,
    checked_bytes: u64,
    members: Vec<Member>,
}

impl<'a> Staging<'a> {
    /// For one archive; `folder` exists and is empty.
    #[must_use]
    pub fn new(
        archive: &'a Path,
        folder: &'a Path,
        room_bytes: u64,
        room: &'a Room,
        interrupt: &'a AtomicBool,
    ) -> Self {
        let (top, members) = (None, Vec::new());
        Self { archive, folder, room_bytes, room, interrupt, top, seen: 0, written_bytes: 0, checked_bytes: 0, members }
    }

    /// An error about a member.
    pub fn refuse(&self, member: &[u8], what: impl Into<String>) -> FetchError {
        let member = member.escape_ascii().to_string();
        FetchError::Archive { archive: self.archive.to_owned(), member, what: what.into() }
    }

    /// The member's path below the top folder that all members share; `None` for the top folder itself.
    fn path(&mut self, name: &[u8]) -> FetchResult<Option<SafePath>> {
        self.seen += 1;
        if self.seen > MEMBERS_MAX {
            return Err(self.refuse(name, format!("more than {MEMBERS_MAX} members")));
        }
        let text = std::str::from_utf8(name).map_err(|_| self.refuse(name, "a name that is not UTF-8"))?;
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() || text == "." {
            return Ok(None);
        }
        let path = SafePath::new(text).map_err(|what| self.refuse(name, what))?;
        let (top, rest) = path.as_str().split_once('/').unwrap_or((path.as_str(), ""));
        match &self.top {
            None => self.top = Some(top.to_owned()),
            Some(known) if known != top => {
                return Err(self.refuse(name, format!("outside of {known}/, the folder of the members before it")));
            }
            Some(_) => {}
        }
        if rest.is_empty() {
            return Ok(None);
        }
        SafePath::new(rest).map(Some).map_err(|what| self.refuse(name, what))
    }

    /// A folder.
    ///
    /// # Errors
    /// If its name is not allowed, or a file has it.
    pub fn folder(&mut self, name: &[u8]) -> FetchResult<()> {
        match self.path(name)? {
            None => Ok(()),
            Some(path) => self.make_folder(name, &path.below(self.folder)),
        }
    }

    fn make_folder(&self, name: &[u8], folder: &Path) -> FetchResult<()> {
        fs::create_dir_all(folder).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
                self.refuse(name, "a folder where another member is a file")
            }
            _ => FetchError::io(folder)(e),
        })
    }

    /// A file of `size_bytes`, whose content is read from `content` to its end.
    ///
    /// # Errors
    /// If its name is not allowed or taken, it is longer than it says, the archive takes more room than declared, its
    /// content cannot be read, the disk is full, or the user interrupts.
    pub fn file(&mut self, name: &[u8], size_bytes: u64, content: &mut dyn Read) -> FetchResult<()> {
        let Some(path) = self.path(name)? else {
            return Err(self.refuse(name, "a file that is not inside a folder"));
        };
        // the claim is checked before the content is read, and the content is held to the claim
        if size_bytes > self.room_bytes.saturating_sub(self.written_bytes) {
            let total = self.written_bytes.saturating_add(size_bytes);
            let what = format!("unpacks to {total} bytes at least, more than the {} declared", self.room_bytes);
            return Err(self.refuse(name, what));
        }
        let target = path.below(self.folder);
        if let Some(parent) = target.parent() {
            self.make_folder(name, parent)?;
        }
        let measured = self.write(name, &target, size_bytes, content)?;
        self.members.push(Member { path, measured });
        Ok(())
    }

    fn write(
        &mut self,
        name: &[u8],
        target: &PathBuf,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> FetchResult<Measured> {
        // `create_new` never opens what is there: no file twice, and no link to somewhere else
        let mut file = OpenOptions::new().write(true).create_new(true).open(target).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => self.refuse(name, "a second member of this name"),
            _ => FetchError::io(target)(e),
        })?;
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(FetchError::Interrupted);
            }
            let n = match content.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.refuse(name, format!("damaged: {e}"))),
            };
            let bytes = chunk.get(..n).unwrap_or_default();
            hasher.update(bytes);
            if hasher.bytes() > size_bytes {
                return Err(self.refuse(name, format!("longer than the {size_bytes} bytes it says")));
            }
            file.write_all(bytes).map_err(FetchError::io(target))?;
            self.written_bytes += n as u64;
            if self.written_bytes - self.checked_bytes > CHECK_EVERY_BYTES {
                self.checked_bytes = self.written_bytes;
                self.room.require(target, 0)?;
            }
        }
        if hasher.bytes() < size_bytes {
            return Err(self.refuse(name, format!("ends after {} of {size_bytes} bytes", hasher.bytes())));
        }
        Ok(hasher.measured())
    }

    /// All members.
    ///
    /// # Errors
    /// If there is no file among them.
    pub fn finish(self) -> FetchResult<Vec<Member>> {
        if self.members.is_empty() {
            return Err(self.refuse(b"(all members)", "there is no file among them"));
        }
        Ok(self.members)
    }
}
