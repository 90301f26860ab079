//! A real HTTP/1.1 server on the loopback interface, with the faults of real ones.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a path is answered.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // each a fault of its own
pub struct Page {
    pub body: Vec<u8>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Does not know ranges: always the whole.
    pub no_ranges: bool,
    /// Heeds ranges but not `If-Range`.
    pub ignores_if_range: bool,
    /// The first answers end after this many bytes, each one entry.
    pub cuts: Vec<usize>,
    /// Every answer ends after this many bytes.
    pub always_cut: Option<usize>,
    /// The first answers have these statuses instead.
    pub statuses: Vec<u16>,
    pub redirect: Option<String>,
    /// Says nothing about the length and closes the connection at the end.
    pub no_length: bool,
    /// Sends chunked, so that no length is known.
    pub chunked: bool,
    /// Claims this length.
    pub claims: Option<usize>,
    /// Waits after each so many bytes.
    pub slow: Option<(usize, Duration)>,
    /// Replaced by this page after the first answer.
    pub then: Option<Box<Page>>,
}

impl Page {
    pub fn of(body: &[u8]) -> Self {
        Self { body: body.to_vec(), etag: Some("\"v1\"".into()), ..Self::default() }
    }
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
}

type Pages = Arc<Mutex<HashMap<String, Page>>>;

pub struct Server {
    address: String,
    pages: Pages,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (pages, log) = (Pages::default(), Arc::new(Mutex::new(Vec::new())));
        let (p, l) = (Arc::clone(&pages), Arc::clone(&log));
        // it ends with the test's process
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (p, l) = (Arc::clone(&p), Arc::clone(&l));
                // a client that goes away in the middle is part of the tests
                std::thread::spawn(move || drop(serve(stream, &p, &l)));
            }
        });
        Self { address, pages, log }
    }

    pub fn put(&self, path: &str, page: Page) -> String {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        self.url(path)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// The ranges asked for, in order; `-` for a request of the whole.
    pub fn ranges(&self, path: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|r| r.path == path).map(|r| r.range.clone().unwrap_or("-".into())).collect()
    }

    pub fn last(&self, path: &str) -> Request {
        self.log.lock().unwrap().iter().rfind(|r| r.path == path).cloned().unwrap()
    }
}

fn serve(stream: TcpStream, pages: &Pages, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut range, mut if_range) = (None, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "if-range" => if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    log.lock().unwrap().push(Request { path: path.clone(), range: range.clone(), if_range: if_range.clone() });
    let page = take(pages, &path);
    let Some(page) = page else { return respond(stream, "404 Not Found", &[], b"no such page") };
    if let Some(status) = page.statuses.first() {
        return respond(stream, &format!("{status} As Told"), &[], b"");
    }
    if let Some(target) = &page.redirect {
        return respond(stream, "302 Found", &[format!("Location: {target}")], b"");
    }
    answer(stream, &page, range, if_range.as_deref())
}

/// The page as it is to be answered now; what lasts only for the first answers is used up.
fn take(pages: &Pages, path: &str) -> Option<Page> {
    let mut pages = pages.lock().unwrap();
    let page = pages.get_mut(path)?;
    let now = page.clone();
    if !page.statuses.is_empty() {
        page.statuses.remove(0);
    } else if !page.cuts.is_empty() {
        page.cuts.remove(0);
    }
    if let Some(then) = page.then.take() {
        *page = *then;
    }
    Some(now)
}

fn respond(mut stream: TcpStream, status: &str, headers: &[String], body: &[u8]) -> std::io::Result<()> {
    let mut head = vec![format!("HTTP/1.1 {status}"), format!("Content-Length: {}", body.len())];
    head.extend_from_slice(headers);
    head.push("Connection: close\r\n\r\n".into());
    stream.write_all(head.join("\r\n").as_bytes())?;
    stream.write_all(body)
}

fn answer(mut stream: TcpStream, page: &Page, range: Option<String>, if_range: Option<&str>) -> std::io::Result<()> {
    let total = page.body.len();
    let same = if_range.is_none()
        || page.ignores_if_range
        || [&page.etag, &page.last_modified].iter().any(|tag| tag.as_deref() == if_range);
    let from: Option<usize> = range
        .filter(|_| !page.no_ranges && same)
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let mut head = Vec::new();
    head.extend(page.etag.iter().map(|e| format!("ETag: {e}")));
    head.extend(page.last_modified.iter().map(|e| format!("Last-Modified: {e}")));
    if from.is_some_and(|f| f >= total) {
        head.push(format!("Content-Range: bytes */{total}"));
        return respond(stream, "416 Range Not Satisfiable", &head, b"");
    }
    let body = &page.body[from.unwrap_or(0)..];
    let mut status = "200 OK";
    if let Some(from) = from {
        status = "206 Partial Content";
        head.push(format!("Content-Range: bytes {from}-{}/{total}", total - 1));
    }
    if page.chunked {
        head.push("Transfer-Encoding: chunked".into());
    } else if !page.no_length {
        head.push(format!("Content-Length: {}", page.claims.unwrap_or(body.len())));
    }
    head.push("Connection: close".into());
    stream.write_all(format!("HTTP/1.1 {status}\r\n{}\r\n\r\n", head.join("\r\n")).as_bytes())?;
    let cut = page.cuts.first().copied().or(page.always_cut).unwrap_or(usize::MAX).min(body.len());
    let body = &body[..cut];
    if page.chunked {
        for chunk in body.chunks(1000) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        // a cut is told by the missing last chunk
        return if cut == page.body.len() { stream.write_all(b"0\r\n\r\n") } else { Ok(()) };
    }
    match page.slow {
        None => stream.write_all(body),
        Some((bytes, pause)) => body.chunks(bytes).try_for_each(|chunk| {
            std::thread::sleep(pause);
            stream.write_all(chunk)
        }),
    }
}
