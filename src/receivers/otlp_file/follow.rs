use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::requests::{Content, Next, Request, Requests};
use crate::{net::Limits, otlp::Signal};

/// Which files, and how they are read.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<Pattern>,
    pub(super) limits: Limits,
    pub(super) protobuf: Signal,
}

/// How far each file was read. A file is known by its inode, so that one that was renamed is not read again.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<(u64, u64), Place>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Bytes of whole requests that were handed on, decompressed where the file is compressed as a whole.
    consumed: u64,
    /// The file's length when it was read last.
    length: u64,
}

/// What to do after a request was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Continue,
    /// It was not taken, and is to be offered again some other time.
    Stop,
}

/// Something found in a file.
pub(super) enum Found {
    Request(Request),
    Broken(String),
}

impl Files {
    /// Files that are there now, in order of their names.
    fn paths(&self) -> Vec<PathBuf> {
        let found = self.include.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().filter_map(Result::ok);
        let excluded = |path: &Path| self.exclude.iter().any(|pattern| pattern.matches_path_with(path, MatchOptions::default()));
        let mut paths: Vec<PathBuf> = found.filter(|path| path.is_file() && !excluded(path)).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Takes what is there now as read.
    pub(super) fn skip_to_end(&self, progress: &mut Progress) {
        for path in self.paths() {
            match end_of(&path) {
                Ok((identity, place)) => drop(progress.0.insert(identity, place)),
                Err(error) => tracing::warn!(file = %path.display(), %error, "can't read"),
            }
        }
    }

    /// Offers everything that was added since the last time.
    pub(super) fn poll(&self, progress: &mut Progress, offer: &mut dyn FnMut(&Path, Found) -> After) {
        let mut present = Vec::new();
        for path in self.paths() {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let identity = (metadata.dev(), metadata.ino());
            present.push(identity);
            let place = progress.0.entry(identity).or_default();
            if metadata.len() < place.length {
                // Begun anew.
                *place = Place::default();
            }
            if metadata.len() == place.length {
                continue;
            }
            match self.read(&path, place, offer) {
                Ok(After::Continue) => place.length = metadata.len(),
                Ok(After::Stop) => return,
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "can't read any further");
                    place.length = metadata.len();
                }
            }
        }
        progress.0.retain(|identity, _| present.contains(identity));
    }

    fn read(&self, path: &Path, place: &mut Place, offer: &mut dyn FnMut(&Path, Found) -> After) -> io::Result<After> {
        let mut file = File::open(path)?;
        let mut content = Content::of(file.try_clone()?)?;
        let compressed = content.compressed;
        if compressed {
            io::copy(&mut content.reader.by_ref().take(place.consumed), &mut io::sink())?;
        } else {
            file.seek(SeekFrom::Start(place.consumed))?;
            content.reader = Box::new(BufReader::new(file));
        }
        let mut requests = Requests::new(content.reader, self.limits, self.protobuf);
        let before = place.consumed;
        loop {
            let found = match requests.next(true) {
                Ok(Next::Request(request)) => Found::Request(request),
                Ok(Next::Broken(why)) => Found::Broken(why),
                Ok(Next::End) => return Ok(After::Continue),
                // The rest of a compressed file has not been written yet.
                Err(error) if compressed && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(After::Continue),
                Err(error) => return Err(error),
            };
            if offer(path, found) == After::Stop {
                return Ok(After::Stop);
            }
            place.consumed = before + requests.consumed();
        }
    }
}

fn end_of(path: &Path) -> io::Result<((u64, u64), Place)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut content = Content::of(file)?;
    let consumed = if content.compressed { io::copy(&mut content.reader, &mut io::sink())? } else { metadata.len() };
    Ok(((metadata.dev(), metadata.ino()), Place { consumed, length: metadata.len() }))
}
