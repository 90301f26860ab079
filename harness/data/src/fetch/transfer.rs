//! Downloads one file: resumes, tries again, tries mirrors, and lets nothing through that does not measure what it should.
//!
//! A part is continued only if the server vouches that it is of the same version (`If-Range`), or if a checksum will tell
//! at the end. If the end is wrong and the bytes came in several answers, the file is fetched once more from its start; if
//! it is wrong in one answer, the source is given up.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::checksum::{CHUNK_BYTES, Expected, Measured};
use super::client::{Answer, Asked, Client, Follow};
use super::error::{FetchError, FetchResult};
use super::partial::Partial;
use super::room::{CHECK_EVERY_BYTES, Room};

/// How often and after which pauses a download is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Rounds over all sources that bring no new byte before giving up.
    pub rounds: u32,
    /// Pause after the first such round; it doubles with each.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { rounds: 5, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(30) }
    }
}

/// What all downloads share.
#[derive(Clone)]
pub struct Transfer {
    /// Talks to servers.
    pub client: Client,
    /// Asks for free room.
    pub room: Room,
    /// Tries again.
    pub patience: Patience,
    /// Hosts that files without a checksum may be redirected to.
    pub hosts: Vec<String>,
    /// Set when the user wants to stop. Whoever sets it also calls [`Client::shut_down`], or a thread that waits for a
    /// silent server sees it late.
    pub interrupt: Arc<AtomicBool>,
}

/// A file to download.
pub struct Wanted<'a> {
    /// Name in messages.
    pub name: &'a str,
    /// Addresses, in the order in which they are tried.
    pub sources: &'a [String],
    /// What it should measure.
    pub expected: Expected,
    /// Where it goes.
    pub target: &'a Path,
    /// Told the bytes held and, once known, their total.
    pub progress: &'a dyn Fn(u64, Option<u64>),
}

/// A file that was downloaded.
pub struct Fetched {
    /// What it measures.
    pub measured: Measured,
    /// The address that gave (the last part of) it.
    pub source: String,
}

/// Whether another request to the same source may help.
fn may_help(error: &FetchError) -> bool {
    match error {
        FetchError::Network { .. } => true,
        // request time-out, too early, too many requests, and the server's own troubles; what it does not know to do (501, 505) stays
        FetchError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 506..=599),
        _ => false,
    }
}

/// Whether no source can help.
fn ends_all(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Interrupted | FetchError::NoRoom { .. } | FetchError::Io { .. } | FetchError::Link { .. }
    )
}

impl Transfer {
    /// With the system's disk and the usual patience.
    #[must_use]
    pub fn new(interrupt: Arc<AtomicBool>) -> Self {
        Self {
            client: Client::new(),
            room: Room::of_system(),
            patience: Patience::default(),
            hosts: Vec::new(),
            interrupt,
        }
    }

    /// Downloads one file to its place. What arrived before a failure stays in `TARGET.part` for the next time.
    ///
    /// # Errors
    /// `AllSources` with the reason of each, or what no source can help: no room, the system's refusal, an interruption.
    pub fn download(&self, wanted: &Wanted) -> FetchResult<Fetched> {
        let mut part = Partial::open(wanted.target, &self.interrupt)?;
        // per source: why it was given up
        let mut given_up: Vec<Option<FetchError>> = wanted.sources.iter().map(|_| None).collect();
        let (mut most_bytes, mut idle_rounds) = (part.bytes(), 0);
        loop {
            let mut last: Option<FetchError> = None;
            for (source, lost) in wanted.sources.iter().zip(&mut given_up).filter(|(_, lost)| lost.is_none()) {
                match self.attempt(wanted, source, &mut part) {
                    Ok(measured) => {
                        part.finish(wanted.target)?;
                        return Ok(Fetched { measured, source: source.clone() });
                    }
                    Err(_) if self.interrupt.load(Ordering::Relaxed) => return Err(FetchError::Interrupted),
                    Err(e) if ends_all(&e) => {
                        if part.bytes() == 0 {
                            part.discard();
                        }
                        return Err(e);
                    }
                    Err(e) if may_help(&e) => last = Some(e),
                    Err(e) => *lost = Some(e),
                }
            }
            idle_rounds = if part.bytes() > most_bytes { 0 } else { idle_rounds + 1 };
            most_bytes = most_bytes.max(part.bytes());
            match last {
                Some(e) if idle_rounds < self.patience.rounds => self.pause(idle_rounds, &e)?,
                last => return Err(all_failed(wanted, given_up, last, part)),
            }
        }
    }

    /// One request to one source, to the end of the file.
    fn attempt(&self, wanted: &Wanted, source: &str, part: &mut Partial) -> FetchResult<Measured> {
        if part.bytes() > 0 && !Self::may_continue(wanted, source, part) {
            part.restart(source, None)?;
        }
        // what was whole already is not asked for again
        if part.bytes() == 0 || wanted.expected.bytes != Some(part.bytes()) {
            self.request(wanted, source, part)?;
        }
        let measured = part.hasher().measured();
        let next = "report it if it stays so: the publisher's file may have changed";
        match wanted.expected.check(&measured, source, next) {
            Ok(()) => Ok(measured),
            // not the source's fault alone: the parts may be of different versions
            Err(e) if part.has_seams => Err(start_over(part, source, e.to_string())?),
            Err(e) => {
                part.restart(source, None)?;
                Err(e)
            }
        }
    }

    /// Asks for what is missing, and takes it.
    fn request(&self, wanted: &Wanted, source: &str, part: &mut Partial) -> FetchResult<()> {
        let held = part.bytes();
        let follow = if wanted.expected.has_checksum() { Follow::AnyHost } else { Follow::Hosts(&self.hosts) };
        match self.client.ask(source, held, part.validator_for(source), follow) {
            Ok(Asked::Bytes(answer)) => self.receive(wanted, source, part, answer),
            // all of it was here; its checksum tells, if it has one
            Ok(Asked::NothingThere(Some(total))) if total == held && held > 0 => Ok(()),
            Ok(Asked::NothingThere(total)) => {
                let length = total.map_or("another length".into(), |t| format!("{t} bytes"));
                let message = format!("the server's file has {length}, and {held} bytes are here");
                Err(start_over(part, source, message)?)
            }
            // a range that was not asked for: once more, for the whole
            Err(e @ FetchError::Answer { .. }) if held > 0 => Err(start_over(part, source, e.to_string())?),
            Err(e) => Err(e),
        }
    }

    /// Whether the part can be the beginning of what `source` has.
    fn may_continue(wanted: &Wanted, source: &str, part: &Partial) -> bool {
        let fits = wanted.expected.bytes.is_none_or(|bytes| part.bytes() <= bytes);
        fits && (wanted.expected.has_checksum() || part.validator_for(source).is_some())
    }

    /// Takes the bytes of an answer.
    fn receive(&self, wanted: &Wanted, source: &str, part: &mut Partial, answer: Answer) -> FetchResult<()> {
        let Answer { offset, total, validator, mut body } = answer;
        if let (Some(want), Some(got)) = (wanted.expected.bytes, total)
            && want != got
        {
            let (expected, got) = (format!("{want} bytes"), format!("the server's file has {got} bytes"));
            return Err(FetchError::Answer { url: source.into(), expected, got });
        }
        let another_version = part.validator_for(source).is_some() && !part.is_of(source, validator.as_ref());
        if offset == 0 {
            part.restart(source, validator)?;
        } else if another_version {
            // the server did not heed If-Range
            return Err(start_over(part, source, "the file changed on the server while it was fetched".into())?);
        } else {
            part.has_seams = true;
        }
        let total = wanted.expected.bytes.or(total);
        self.room.require(part.path(), total.map_or(0, |t| t.saturating_sub(part.bytes())))?;
        self.pour(wanted, source, part, total, &mut body)?;
        match total {
            Some(t) if part.bytes() < t => Err(FetchError::Network {
                url: source.into(),
                message: format!("the connection ended at byte {} of {t}", part.bytes()),
                received_bytes: part.bytes(),
            }),
            _ => Ok(()),
        }
    }

    /// Appends what comes, to the end of the answer.
    fn pour(
        &self,
        wanted: &Wanted,
        source: &str,
        part: &mut Partial,
        total: Option<u64>,
        body: &mut dyn Read,
    ) -> FetchResult<()> {
        (wanted.progress)(part.bytes(), total);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut until_check = CHECK_EVERY_BYTES;
        loop {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(FetchError::Interrupted);
            }
            let n = match body.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let (url, message, received_bytes) = (source.into(), e.to_string(), part.bytes());
                    return Err(FetchError::Network { url, message, received_bytes });
                }
            };
            if let Some(t) = total.filter(|&t| part.bytes() + n as u64 > t) {
                let (expected, got) = (format!("{t} bytes"), "the answer goes on".into());
                return Err(FetchError::Answer { url: source.into(), expected, got });
            }
            part.append(chunk.get(..n).unwrap_or_default())?;
            (wanted.progress)(part.bytes(), total);
            until_check = until_check.saturating_sub(n as u64);
            if until_check == 0 {
                until_check = CHECK_EVERY_BYTES;
                self.room.require(part.path(), 0)?;
            }
        }
    }

    /// Waits longer from round to round, and at least as long as the server asks for (within bounds).
    fn pause(&self, idle_rounds: u32, error: &FetchError) -> FetchResult<()> {
        let doubled = self.patience.first_pause.saturating_mul(1 << idle_rounds.saturating_sub(1).min(16));
        let asked = match error {
            FetchError::Status { retry_after_s: Some(s), .. } => Duration::from_secs(*s),
            _ => Duration::ZERO,
        };
        let mut left = doubled.max(asked).min(self.patience.longest_pause);
        while !left.is_zero() {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(FetchError::Interrupted);
            }
            let slice = left.min(Duration::from_millis(100));
            std::thread::sleep(slice);
            left -= slice;
        }
        Ok(())
    }
}

/// Throws the part away. The error lets the source be asked again.
fn start_over(part: &mut Partial, source: &str, message: String) -> FetchResult<FetchError> {
    part.restart(source, None)?;
    Ok(FetchError::Network { url: source.to_owned(), message, received_bytes: 0 })
}

/// Sums up why each source failed. A part that nothing vouches for is not left behind.
fn all_failed(wanted: &Wanted, lost: Vec<Option<FetchError>>, last: Option<FetchError>, part: Partial) -> FetchError {
    if part.bytes() == 0 {
        part.discard();
    }
    let mut errors: Vec<FetchError> = lost.into_iter().flatten().chain(last).collect();
    // one source and a reason that speaks for itself
    if errors.len() == 1
        && let Some(only) = errors.pop_if(|e| !matches!(e, FetchError::Network { .. }))
    {
        return only;
    }
    let lines: Vec<String> = errors.iter().map(|e| format!("  {}", e.to_string().replace('\n', "\n  "))).collect();
    FetchError::AllSources { name: wanted.name.to_owned(), failures: lines.join("\n") }
}
