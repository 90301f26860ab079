//! A download that is under way: `NAME.part` beside its later place, and `NAME.part.json` that says which version of
//! which address its bytes are.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::checksum::{Hasher, feed};
use super::client::Validator;
use super::error::{FetchError, FetchResult};

/// What the bytes of a partial file are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    url: String,
    validator: Option<Validator>,
}

/// A partial file, open for appending, with the digests of what it holds.
pub struct Partial {
    path: PathBuf,
    origin_path: PathBuf,
    file: File,
    hasher: Hasher,
    origin: Option<Origin>,
    /// Whether its bytes came in more than one answer: then a wrong checksum may be a seam, and is worth a second try.
    pub has_seams: bool,
}

/// Adds to the whole file name: `a.edf` → `a.edf.part`.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Partial {
    /// Opens the partial file of `target`, and reads what is there.
    ///
    /// # Errors
    /// If the system refuses, or the user interrupts.
    pub fn open(target: &Path, interrupt: &AtomicBool) -> FetchResult<Self> {
        let path = with_suffix(target, ".part");
        let origin_path = with_suffix(target, ".part.json");
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(FetchError::io(folder))?;
        }
        for path in [&path, &origin_path] {
            // writing to a link would be writing to where it leads
            if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
                let target = fs::read_link(path).unwrap_or_default();
                return Err(FetchError::Link { path: path.clone(), target });
            }
        }
        let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = options.map_err(FetchError::io(&path))?;
        let mut hasher = Hasher::default();
        feed(&mut file, &mut hasher, &path, interrupt)?;
        // An origin that cannot be read is as good as none: the bytes are then only used if a checksum can vouch for them.
        let origin = fs::read(&origin_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let has_seams = hasher.bytes() > 0;
        Ok(Self { path, origin_path, file, hasher, origin, has_seams })
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// The digests of what is held.
    #[must_use]
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version that the bytes are of, if they came from `url`.
    #[must_use]
    pub fn validator_for(&self, url: &str) -> Option<&Validator> {
        self.origin.as_ref().filter(|o| o.url == url).and_then(|o| o.validator.as_ref())
    }

    /// Whether the bytes are of this version of `url`.
    #[must_use]
    pub fn is_of(&self, url: &str, validator: Option<&Validator>) -> bool {
        validator.is_some() && self.validator_for(url) == validator
    }

    /// Throws the bytes away; those that come next are of this version of `url`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn restart(&mut self, url: &str, validator: Option<Validator>) -> FetchResult<()> {
        // first without origin, then without bytes, then with the new origin: no moment tells a wrong tale
        match fs::remove_file(&self.origin_path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(FetchError::io(&self.origin_path)(e)),
            _ => self.origin = None,
        }
        self.file.set_len(0).map_err(FetchError::io(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(FetchError::io(&self.path))?;
        (self.hasher, self.has_seams) = (Hasher::default(), false);
        let origin = Origin { url: url.to_owned(), validator };
        let text = serde_json::to_vec(&origin).map_err(|e| FetchError::io(&self.origin_path)(e.into()))?;
        fs::write(&self.origin_path, text).map_err(FetchError::io(&self.origin_path))?;
        self.origin = Some(origin);
        Ok(())
    }

    /// Appends.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn append(&mut self, bytes: &[u8]) -> FetchResult<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // some of it may have been written: what is on disk must stay what was hashed
            let _ = self.file.set_len(self.hasher.bytes());
            let _ = self.file.seek(SeekFrom::Start(self.hasher.bytes()));
            return Err(FetchError::io(&self.path)(error));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn finish(self, target: &Path) -> FetchResult<()> {
        self.file.sync_all().map_err(FetchError::io(&self.path))?;
        fs::rename(&self.path, target).map_err(FetchError::io(target))?;
        // left behind it would only be overwritten
        let _ = fs::remove_file(&self.origin_path);
        Ok(())
    }

    /// Removes the file.
    pub fn discard(self) {
        // what cannot be removed is thrown away by the next attempt's checksum
        let _ = fs::remove_file(&self.origin_path);
        let _ = fs::remove_file(&self.path);
    }
}
