//! A tokenizer in a process of its own.
//!
//! The tokenizers crate panics on some files and texts, and others keep it busy for ever or make it ask for all the memory
//! there is. In a process of its own that is an error like any other: the process has limits, and ends.
//!
//! Requests and answers are a letter, a length in bytes (four, little endian) and so many bytes.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Error, Tokenizer};

/// Processor time for a request, and for each megabyte that it or the file has.
const BUSY: Duration = Duration::from_millis(800);
/// The same where the system tells no processor time, and for a process that does not even start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Memory of the process, and for each byte of the file.
const MEMORY: u64 = 128 << 20;
const MEMORY_A_BYTE: u64 = 40;
/// Longest answer.
const MOST: usize = 256 << 20;

const ENCODE: u8 = b'e';
const DECODE: u8 = b'd';
const DONE: u8 = b'k';
const FAILED: u8 = b'x';

fn send(to: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("too long"))?;
    to.write_all(&[kind])?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)?;
    to.flush()
}

fn receive(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let (mut kind, mut length) = ([0], [0; 4]);
    from.read_exact(&mut kind)?;
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST {
        return Err(io::Error::other("too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok((kind[0], bytes))
}

fn pack(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|t| t.to_le_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

/// The process, as whoever asks it sees it.
#[derive(Debug)]
pub(super) struct Apart(Mutex<Asking>);

#[derive(Debug)]
struct Asking {
    child: Child,
    to: BufWriter<ChildStdin>,
    answers: Receiver<io::Result<(u8, Vec<u8>)>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fail(what: impl std::fmt::Display) -> Error {
    Error::Tokenizer(what.to_string())
}

impl Apart {
    /// Starts the command, which calls [`serve`] on the file.
    pub(super) fn start(mut command: Command, path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::metadata(path).map_err(|e| fail(format!("{}: {e}", path.display())))?.len();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| fail(format!("its process does not start: {e}")))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { return Err(fail("its process has no ends")) };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                let answer = receive(&mut from);
                let last = answer.is_err();
                if sender.send(answer).is_err() || last {
                    return;
                }
            }
        });
        let apart = Apart(Mutex::new(Asking { child, to: BufWriter::new(to), answers }));
        apart.lock().answer(bytes).map_err(|e| match e {
            Error::Tokenizer(what) => fail(format!("{}: {what}", path.display())),
            other => other,
        })?;
        Ok(apart)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Asking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut asking = self.lock();
        // If it has ended, the answer says so.
        let _ = send(&mut asking.to, kind, bytes);
        asking.answer(bytes.len() as u64)
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.ask(ENCODE, text.as_bytes()).map(|b| unpack(&b))
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        String::from_utf8(self.ask(DECODE, &pack(tokens))?).map_err(fail)
    }
}

impl Asking {
    fn answer(&mut self, bytes: u64) -> Result<Vec<u8>, Error> {
        match self.answers.recv_timeout(PATIENCE + allowed(bytes)) {
            Ok(Ok((DONE, bytes))) => Ok(bytes),
            Ok(Ok((_, bytes))) => Err(fail(String::from_utf8_lossy(&bytes))),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                let _ = self.child.wait();
                Err(fail("it ended before it answered: the file asks for more time or memory than it may have, or is damaged"))
            }
        }
    }
}

fn allowed(bytes: u64) -> Duration {
    BUSY.mul_f64(1.0 + bytes as f64 / 1e6)
}

/// What the process does: reads the file, then answers requests on its standard input until that ends.
///
/// # Errors
/// When nobody listens any more.
pub fn serve(path: &Path, input: impl Read, output: impl Write) -> io::Result<()> {
    let (mut input, mut output) = (BufReader::new(input), BufWriter::new(output));
    let bytes = File::open(path).and_then(|f| f.metadata()).map_or(0, |m| m.len());
    limit(bytes);
    let opened = {
        let _watch = watch(bytes);
        Tokenizer::open(path)
    };
    let tokenizer = match opened {
        Ok(tokenizer) => tokenizer,
        Err(Error::Tokenizer(what)) => return send(&mut output, FAILED, strip(&what, path).as_bytes()),
        Err(e) => return send(&mut output, FAILED, e.to_string().as_bytes()),
    };
    send(&mut output, DONE, &[])?;
    loop {
        let (kind, bytes) = match receive(&mut input) {
            Ok(request) => request,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let _watch = watch(bytes.len() as u64);
        let answer = match kind {
            ENCODE => tokenizer.encode(&String::from_utf8_lossy(&bytes)).map(|t| pack(&t)),
            _ => tokenizer.decode(&unpack(&bytes)).map(String::into_bytes),
        };
        match answer {
            Ok(bytes) => send(&mut output, DONE, &bytes)?,
            Err(Error::Tokenizer(what)) => send(&mut output, FAILED, what.as_bytes())?,
            Err(e) => send(&mut output, FAILED, e.to_string().as_bytes())?,
        }
    }
}

/// The message without the file's name, which whoever asks adds.
fn strip<'a>(what: &'a str, path: &Path) -> &'a str {
    what.strip_prefix(&format!("{}: ", path.display())).unwrap_or(what)
}

/// Ends the process once it has been busy for too long; stops watching when dropped.
struct Watch(Option<std::sync::mpsc::Sender<()>>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.take();
    }
}

#[cfg(unix)]
fn watch(bytes: u64) -> Watch {
    let busy = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    let (end, most) = (busy(), allowed(bytes));
    let (stop, stopped) = channel::<()>();
    std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(20)) {
            if busy().saturating_sub(end) > most {
                std::process::exit(2);
            }
        }
    });
    Watch(Some(stop))
}

#[cfg(not(unix))]
fn watch(_bytes: u64) -> Watch {
    Watch(None)
}

/// The memory that the process may have, where the system keeps count of it.
#[cfg(target_os = "linux")]
fn limit(bytes: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = MEMORY.saturating_add(bytes.saturating_mul(MEMORY_A_BYTE));
    let maximum = getrlimit(Resource::Data).maximum;
    let current = Some(maximum.map_or(most, |m| m.min(most)));
    // Without it, time alone is limited.
    let _ = setrlimit(Resource::Data, Rlimit { current, maximum });
}

#[cfg(not(target_os = "linux"))]
fn limit(_bytes: u64) {
    let _ = (MEMORY, MEMORY_A_BYTE);
}
