use std::{
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    follow::{After, Files, Found},
    requests::{Content, Layout, Next, PREFIX, Passing, Requests, is_of_content},
};

/// What a file is known by: its device and inode, which stay when it is renamed.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Bytes that are read at a time.
const BUFFER: usize = 64 << 10;

/// How often a file may be looked at while the rest of what it ends with does not come, before that is told: a minute
/// at the default `poll_interval`.
pub(super) const PATIENCE: u64 = 300;

/// A file, and how far it was read.
pub(super) struct Place {
    /// Where it was seen last.
    path: PathBuf,
    /// Its length when it was seen last.
    there: u64,
    /// Kept open, so that it can be read to its end when it has been renamed or removed.
    file: Option<File>,
    mark: Mark,
    /// How often it has not grown since it did.
    idle: u64,
    /// It was no longer at its path when it was looked for last.
    gone: bool,
}

/// How far a file was read.
#[derive(Default)]
struct Mark {
    /// Decided once: what stands at the place where reading goes on may be anything.
    kind: Option<Kind>,
    /// Bytes that are done with, decompressed where the file is compressed as a whole.
    consumed: u64,
    /// What is to be passed over there.
    passing: Passing,
    /// The file's length when it was read last.
    length: u64,
    /// Something within that length was not read or not taken.
    behind: bool,
    /// There is something in it that no reading gets past.
    unreadable: bool,
    /// What it ends with has no end yet.
    awaits: bool,
}

#[derive(Clone, Copy)]
struct Kind {
    /// As a whole.
    compressed: bool,
    layout: Layout,
}

/// Why a file is not among those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// It is where it was, but not looked for, or its directory could not be read.
    Unlisted,
    /// It was renamed or removed, and whoever writes it may not know yet.
    Leaving,
    /// It was renamed or removed, and has not grown since that was noticed.
    Over,
    /// It was renamed or removed, and is not open.
    Closed,
}

impl Place {
    /// A file that was not known yet.
    pub(super) fn open(path: &Path) -> io::Result<(Identity, Self)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let place = Self { path: path.to_owned(), there: metadata.len(), file: Some(file), mark: Mark::default(), idle: 0, gone: false };
        Ok((identity(&metadata), place))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How often it has not grown since it did.
    pub(super) const fn idle(&self) -> u64 {
        self.idle
    }

    pub(super) const fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Opened again when it grows.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// It is there, perhaps by another name.
    pub(super) fn seen(&mut self, path: &Path, length: u64) {
        if self.path != path {
            path.clone_into(&mut self.path);
        }
        self.there = length;
        self.gone = false;
    }

    /// Called when it is not among the files that are there.
    pub(super) fn absence(&mut self, known_as: Identity) -> Absence {
        let elsewhere = match fs::metadata(&self.path) {
            Ok(other) => identity(&other) != known_as,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        };
        if !elsewhere {
            return Absence::Unlisted;
        }
        let Some(file) = &self.file else { return Absence::Closed };
        let grown = file.metadata().is_ok_and(|now| now.len() != self.mark.length);
        let noticed = std::mem::replace(&mut self.gone, true);
        if noticed && !grown && !self.mark.behind { Absence::Over } else { Absence::Leaving }
    }

    /// Takes what is there as read. A line or record that has not been written to its end is passed over when it has.
    pub(super) fn skip_to_end(&mut self, files: &Files) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        self.mark.length = self.there;
        let skipped = self.mark.skip_to_end(file, files);
        self.mark.unreadable = skipped.as_ref().is_err_and(is_of_content);
        skipped
    }

    /// Offers what was added since the last time. Where a file no longer grows, a last line without an end is a line.
    ///
    /// An error is the system's; what it kept from being read is read the next time.
    pub(super) fn follow(
        &mut self,
        known_as: Identity,
        files: &Files,
        grows: bool,
        offer: &mut dyn FnMut(&Path, Found) -> After,
    ) -> io::Result<After> {
        let length = match &self.file {
            Some(file) => file.metadata()?.len(),
            None => self.there,
        };
        if length < self.mark.length || (self.mark.is_plain() && length < self.mark.consumed) {
            // Begun anew.
            self.mark = Mark::default();
        }
        let news = length != self.mark.length || self.mark.behind || !grows;
        if self.mark.unreadable || !news {
            self.mark.length = length;
            self.idle = self.idle.saturating_add(1);
            return if self.mark.awaits && self.idle > PATIENCE { Err(self.mark.cut_off()) } else { Ok(After::Continue) };
        }
        self.idle = 0;
        self.reopen(known_as)?;
        let Self { path, file: Some(file), mark, .. } = self else { return Ok(After::Continue) };
        let path: &Path = path;
        mark.length = length;
        mark.behind = true;
        let read = mark.read(file, files, grows, &mut |found| offer(path, found));
        match read {
            Ok(After::Continue) => {
                mark.behind = false;
                Ok(After::Continue)
            }
            Err(error) if is_of_content(&error) => {
                mark.behind = false;
                mark.unreadable = true;
                mark.awaits = false;
                let at = mark.place();
                Ok(offer(path, Found::Broken(format!("{error}, behind {at}; nothing that follows in this file can be read"))))
            }
            other => other,
        }
    }

    fn reopen(&mut self, known_as: Identity) -> io::Result<()> {
        if self.file.is_none() {
            let file = File::open(&self.path)?;
            // Another file may have this name by now.
            if identity(&file.metadata()?) == known_as {
                self.file = Some(file);
            }
        }
        Ok(())
    }
}

impl Mark {
    fn is_plain(&self) -> bool {
        self.kind.is_some_and(|kind| !kind.compressed)
    }

    /// Up to where the file was read, for people.
    fn place(&self) -> String {
        let content = if self.kind.is_some_and(|kind| kind.compressed) { " of its decompressed content" } else { "" };
        format!("byte {}{content}", self.consumed)
    }

    /// What it ends with has no end, and nothing came for long: whoever wrote it may be gone.
    fn cut_off(&self) -> io::Error {
        let reason =
            format!("it seems to be cut off: behind {} stands something without an end, and nothing more came; waiting for it", self.place());
        io::Error::new(io::ErrorKind::UnexpectedEof, reason)
    }

    /// Looks at how the file begins, once there is enough of it to tell.
    fn kind(&mut self, file: &File) -> io::Result<Option<Kind>> {
        if self.kind.is_none() && self.length >= PREFIX {
            let Content { mut reader, compressed } = content(file)?;
            self.kind = match reader.fill_buf() {
                Ok(start) => start.first().map(|first| Kind { compressed, layout: Layout::of(*first) }),
                Err(error) if compressed && is_end(&error) => None,
                Err(error) => return Err(error),
            };
        }
        Ok(self.kind)
    }

    fn skip_to_end(&mut self, file: &File, files: &Files) -> io::Result<()> {
        match self.kind(file)? {
            None => {}
            Some(Kind { compressed: false, layout: Layout::Lines }) => {
                let mut last = [0];
                file.read_exact_at(&mut last, self.length.saturating_sub(1))?;
                self.consumed = self.length;
                self.passing = if last == *b"\n" { Passing::Nothing } else { Passing::Line };
            }
            Some(kind) => {
                let mut requests = Requests::resume(kind.source(file, 0)?, files.limits, files.protobuf, kind.layout, Passing::Nothing);
                match requests.pass_all() {
                    Err(error) if kind.compressed && is_end(&error) => {}
                    passed => passed?,
                }
                self.consumed = requests.consumed();
                self.passing = requests.passing();
            }
        }
        Ok(())
    }

    fn read(&mut self, file: &File, files: &Files, grows: bool, offer: &mut dyn FnMut(Found) -> After) -> io::Result<After> {
        self.awaits = self.length > 0;
        let Some(kind) = self.kind(file)? else { return Ok(After::Continue) };
        // The rest of a compressed file has not been written yet.
        let waits = |error: &io::Error| grows && kind.compressed && is_end(error);
        let source = match kind.source(file, self.consumed) {
            Err(error) if waits(&error) => return Ok(After::Continue),
            source => source?,
        };
        let mut requests = Requests::resume(source, files.limits, files.protobuf, kind.layout, self.passing);
        let before = self.consumed;
        loop {
            let next = match requests.next(grows) {
                Err(error) if waits(&error) => return Ok(After::Continue),
                next => next?,
            };
            let ended = matches!(next, Next::End);
            let after = match next {
                Next::Request(request) => offer(Found::Request(request)),
                Next::Broken(reason) => offer(Found::Broken(reason)),
                Next::End => After::Continue,
            };
            if after == After::Stop {
                return Ok(After::Stop);
            }
            self.consumed = before + requests.consumed();
            self.passing = requests.passing();
            if ended {
                self.awaits = !kind.compressed && self.consumed < self.length;
                return Ok(After::Continue);
            }
        }
    }
}

impl Kind {
    /// The file from so many bytes on, decompressed where it is compressed as a whole.
    fn source(self, file: &File, from: u64) -> io::Result<Box<dyn BufRead + Send>> {
        if self.compressed {
            let mut reader = content(file)?.reader;
            io::copy(&mut reader.by_ref().take(from), &mut io::sink())?;
            return Ok(reader);
        }
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
    }
}

/// The whole file.
fn content(file: &File) -> io::Result<Content> {
    // A clone has its place in common with the file it is of.
    let mut file = file.try_clone()?;
    file.rewind()?;
    Content::of(file)
}

fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::*;
    use crate::{net::Limits, otlp::Signal};

    #[test]
    fn what_an_error_of_the_system_kept_from_being_read_is_read_later() {
        let path = std::env::temp_dir().join(format!("fuseboard-place-{}.jsonl", std::process::id()));
        let mut file = File::create(&path).unwrap();
        let files = Files { include: Vec::new(), exclude: Vec::new(), limits: Limits { request_bytes: 200 }, protobuf: Signal::Traces };
        let (known_as, mut place) = Place::open(&path).unwrap();
        file.write_all(b"{\"resourceSpans\":[]}\n").unwrap();
        let mut found = 0;
        let mut count = |_: &Path, _: Found| {
            found += 1;
            After::Continue
        };
        // A file that may be written only.
        place.file = Some(OpenOptions::new().append(true).open(&path).unwrap());
        for _ in 0..2 {
            place.follow(known_as, &files, true, &mut count).unwrap_err();
        }
        place.close();
        for _ in 0..2 {
            place.seen(&path, 21);
            place.follow(known_as, &files, true, &mut count).unwrap();
        }
        assert_eq!(found, 1);
        fs::remove_file(&path).unwrap();
    }
}
