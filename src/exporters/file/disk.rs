use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{self, Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::Config;

/// Files this process writes to, or wrote to, by path.
///
/// A reload that changes an exporter starts the new one while the old one still empties its queue. Both write through
/// one handle, so that neither mends or renames the file under the other. And a path that was begun stays here for
/// good, so that without `append` a reload does not erase what this same process wrote before it.
static FILES: Mutex<BTreeMap<PathBuf, Known>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Known {
    /// Whether this process has written there.
    begun: bool,
    /// The handle, while an exporter has one.
    current: Weak<Mutex<Current>>,
}

/// Where one exporter writes to.
pub(super) struct Target {
    config: Arc<Config>,
    /// The path, the same however the user wrote it.
    key: PathBuf,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    file: Option<File>,
    torn: Option<Torn>,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Into the file that was open.
    ToSameFile,
    /// Into another one at the same path, since somebody had moved the open one away or deleted it.
    ToNewFile,
}

/// A file that may end in a part of a record.
#[derive(Clone, Copy)]
struct Torn {
    device: u64,
    inode: u64,
    /// Where the last whole record ends.
    whole: u64,
}

impl Target {
    pub(super) fn new(config: Arc<Config>) -> Self {
        let key = path::absolute(&config.path).unwrap_or_else(|_no_working_directory| config.path.clone());
        let mut files = FILES.lock();
        let known = files.entry(key.clone()).or_default();
        let current = known.current.upgrade().unwrap_or_default();
        known.current = Arc::downgrade(&current);
        drop(files);
        Self { config, key, current }
    }

    /// Opens the file, so that a path that can't be written to is found at the start. Nothing is erased yet: something
    /// else may still keep the program from starting, such as another one that runs already and writes there.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut current = self.current.lock();
        if current.file.is_none() {
            current.file = Some(open(&self.config)?);
        }
        Ok(())
    }

    /// Adds a record. Where that fails, nothing of it stays.
    pub(super) fn write(&self, record: &[u8]) -> io::Result<Written> {
        self.put(record.len() as u64, |file| file.write_all(record))
    }

    fn put(&self, bytes: u64, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Written> {
        let mut current = self.current.lock();
        // Whatever fails from here on, the file is closed; it is opened again, and not emptied, for the next attempt.
        let (mut file, written) = match current.file.take() {
            Some(file) if stands_at(&file, &self.config.path)? => (file, Written::ToSameFile),
            Some(_) => (open(&self.config)?, Written::ToNewFile),
            None => (open(&self.config)?, Written::ToSameFile),
        };
        self.begin(&file)?;
        mend(&file, &mut current.torn)?;
        let mut before = file.metadata()?;
        if let Some(rotation) = &self.config.rotation
            && before.len() > 0
            && before.len().saturating_add(bytes) > rotation.max_megabytes.saturating_mul(1_000_000)
        {
            rotate(&self.config.path, rotation.max_backups)?;
            file = open(&self.config)?;
            before = file.metadata()?;
        }
        let Err(error) = write(&mut file) else {
            current.file = Some(file);
            return Ok(written);
        };
        // The next record must not follow a part of this one. Devices and pipes can't take anything back.
        if !before.is_file() || file.set_len(before.len()).is_ok() {
            current.file = Some(file);
        } else {
            current.torn = Some(Torn { device: before.dev(), inode: before.ino(), whole: before.len() });
        }
        Err(error)
    }

    /// Empties the file before the first record of this process, unless it is to be added to.
    fn begin(&self, file: &File) -> io::Result<()> {
        let mut files = FILES.lock();
        let known = files.entry(self.key.clone()).or_default();
        if !known.begun {
            if !self.config.append && file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            known.begun = true;
        }
        Ok(())
    }
}

fn open(config: &Config) -> io::Result<File> {
    if let (true, Some(directory)) = (config.create_directory, config.path.parent()) {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(&config.path)
}

/// Whether an open file is still the one at its path. Where the path can't be looked at, nothing says that it is not.
fn stands_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(match fs::metadata(path) {
        Ok(there) => (there.dev(), there.ino()) == (open.dev(), open.ino()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}

/// Takes back the part of a record that could not be taken back when it was written.
fn mend(file: &File, torn: &mut Option<Torn>) -> io::Result<()> {
    if let Some(Torn { device, inode, whole }) = *torn {
        let now = file.metadata()?;
        if (now.dev(), now.ino()) == (device, inode) && now.len() > whole {
            file.set_len(whole)?;
        }
        *torn = None;
    }
    Ok(())
}

/// `path` becomes `path.1`, `path.1` becomes `path.2`, and the last one goes.
fn rotate(path: &Path, backups: usize) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    // Files move up as far as the first number that is free, so that attempts that fail halfway push none out.
    let mut free = 1;
    while free < backups && numbered(free).try_exists()? {
        free += 1;
    }
    for number in (1..free).rev() {
        fs::rename(numbered(number), numbered(number + 1))?;
    }
    match fs::rename(path, numbered(1)) {
        // Somebody took it away; a new one begins all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporters::file::Rotation;

    /// A directory that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fuseboard-file-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("spans.jsonl")
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn target(path: PathBuf) -> Target {
        Target::new(Arc::new(Config { path, ..Config::default() }))
    }

    /// Begins a new file for every record.
    fn rotating(path: PathBuf, max_backups: usize) -> Target {
        let rotation = Some(Rotation { max_megabytes: 0, max_backups });
        Target::new(Arc::new(Config { path, rotation, ..Config::default() }))
    }

    #[test]
    fn nothing_stays_of_a_record_that_was_not_written_to_its_end() {
        let directory = Directory::new("half");
        let target = target(directory.path());
        target.write(b"one\n").unwrap();
        let half = |file: &mut File| -> io::Result<()> {
            file.write_all(b"tw")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        target.put(4, half).unwrap_err();
        target.write(b"three\n").unwrap();
        assert_eq!(directory.read("spans.jsonl"), "one\nthree\n");
    }

    #[test]
    fn what_can_not_be_taken_back_at_once_is_taken_back_later() {
        let directory = Directory::new("torn");
        let target = target(directory.path());
        target.write(b"one\n").unwrap();
        // Neither written nor cut.
        target.current.lock().file = Some(File::open(directory.path()).unwrap());
        target.write(b"two\n").unwrap_err();
        assert!(target.current.lock().file.is_none());
        OpenOptions::new().append(true).open(directory.path()).unwrap().write_all(b"tw").unwrap();
        target.write(b"three\n").unwrap();
        assert_eq!(directory.read("spans.jsonl"), "one\nthree\n");
    }

    #[test]
    fn only_the_first_record_of_the_process_empties_the_file() {
        let directory = Directory::new("begun");
        fs::write(directory.path(), "before\n").unwrap();
        let old = target(directory.path());
        old.open().unwrap();
        assert_eq!(directory.read("spans.jsonl"), "before\n");
        old.write(b"one\n").unwrap();
        // As a reload does it: the new one starts before the old one ends.
        let new = target(directory.0.join(".").join("spans.jsonl"));
        new.open().unwrap();
        new.write(b"two\n").unwrap();
        old.write(b"three\n").unwrap();
        drop((old, new));
        target(directory.path()).write(b"four\n").unwrap();
        assert_eq!(directory.read("spans.jsonl"), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn a_file_that_was_moved_away_or_deleted_is_begun_anew() {
        let directory = Directory::new("moved");
        let target = target(directory.path());
        assert_eq!(target.write(b"one\n").unwrap(), Written::ToSameFile);
        fs::rename(directory.path(), directory.0.join("moved")).unwrap();
        assert_eq!(target.write(b"two\n").unwrap(), Written::ToNewFile);
        assert_eq!(target.write(b"three\n").unwrap(), Written::ToSameFile);
        fs::remove_file(directory.path()).unwrap();
        assert_eq!(target.write(b"four\n").unwrap(), Written::ToNewFile);
        // Somebody else's file in its place is added to.
        fs::remove_file(directory.path()).unwrap();
        fs::write(directory.path(), "other\n").unwrap();
        assert_eq!(target.write(b"five\n").unwrap(), Written::ToNewFile);
        assert_eq!((directory.read("moved"), directory.read("spans.jsonl")), ("one\n".to_owned(), "other\nfive\n".to_owned()));
    }

    #[test]
    fn a_directory_that_was_deleted_is_waited_for() {
        let directory = Directory::new("gone");
        let inner = directory.0.join("inner");
        fs::create_dir(&inner).unwrap();
        let target = target(inner.join("spans.jsonl"));
        target.write(b"one\n").unwrap();
        fs::remove_dir_all(&inner).unwrap();
        assert_eq!(target.write(b"two\n").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&inner).unwrap();
        target.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(inner.join("spans.jsonl")).unwrap(), "two\n");
    }

    #[test]
    fn a_rotation_that_fails_costs_nothing() {
        let directory = Directory::new("rotation");
        let target = rotating(directory.path(), 1);
        target.write(b"one\n").unwrap();
        // A file can't take the place of a directory.
        let in_the_way = directory.0.join("spans.jsonl.1");
        fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            target.write(b"two\n").unwrap_err();
            assert_eq!(directory.read("spans.jsonl"), "one\n");
        }
        fs::remove_dir(&in_the_way).unwrap();
        target.write(b"two\n").unwrap();
        assert_eq!((directory.read("spans.jsonl.1"), directory.read("spans.jsonl")), ("one\n".to_owned(), "two\n".to_owned()));
    }

    #[test]
    fn old_files_are_kept_by_number() {
        let directory = Directory::new("backups");
        let target = rotating(directory.path(), 2);
        for record in ["a", "b", "c", "d"] {
            target.write(record.as_bytes()).unwrap();
        }
        assert_eq!(["spans.jsonl", "spans.jsonl.1", "spans.jsonl.2"].map(|name| directory.read(name)), ["d", "c", "b"]);
        assert!(!directory.0.join("spans.jsonl.3").exists());
        // A free number is filled, and nothing moves beyond it.
        fs::remove_file(directory.0.join("spans.jsonl.1")).unwrap();
        rotate(&directory.path(), 2).unwrap();
        assert_eq!(["spans.jsonl.1", "spans.jsonl.2"].map(|name| directory.read(name)), ["d", "b"]);
    }

    #[test]
    fn directories_are_made_where_asked_for() {
        let directory = Directory::new("made");
        let path = directory.0.join("a").join("b").join("spans.jsonl");
        assert_eq!(target(path.clone()).open().unwrap_err().kind(), io::ErrorKind::NotFound);
        Target::new(Arc::new(Config { path: path.clone(), create_directory: true, ..Config::default() })).open().unwrap();
        assert!(path.exists());
    }
}
