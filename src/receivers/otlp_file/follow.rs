use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::{
    place::{Absence, Identity, Place, identity},
    requests::Request,
};
use crate::{net::Limits, otlp::Signal};

/// Files that are kept open at one time. Beyond that, those that have not grown for the longest time are closed; what
/// is added to one of them just before it is renamed may then be missed.
const OPEN_MAX: usize = 128;

/// Which files, and how they are read.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<Pattern>,
    pub(super) limits: Limits,
    pub(super) protobuf: Signal,
}

/// How far each file was read.
#[derive(Default)]
pub(super) struct Progress {
    /// By identity, so that a file that was renamed is not read again.
    places: BTreeMap<Identity, Place>,
    /// What the receiver followed that read last.
    followed: Option<Files>,
    troubles: Troubles,
}

/// Why files can't be read now, as it was told.
#[derive(Default)]
struct Troubles(BTreeMap<PathBuf, io::ErrorKind>);

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
    /// Files that are there now.
    fn paths(&self) -> BTreeSet<PathBuf> {
        let found = self.include.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().filter_map(Result::ok);
        let excluded = |path: &Path| self.exclude.iter().any(|pattern| pattern.matches_path_with(path, MatchOptions::default()));
        found.filter(|path| path.is_file() && !excluded(path)).collect()
    }

    /// Goes on where the receiver before this one stopped, if there was one. Files that it did not look for are taken
    /// as read if `from_end` is set; one that it looked for and does not know came since, and is read whole.
    pub(super) fn take_over(&self, progress: &mut Progress, from_end: bool) {
        let now = self.paths();
        let before = progress.followed.replace(self.clone()).map(|files| files.paths()).unwrap_or_default();
        // What is no longer looked for is forgotten; what was renamed is still read to its end.
        progress.places.retain(|_, place| now.contains(place.path()) || !before.contains(place.path()));
        if !from_end {
            return;
        }
        for path in now.difference(&before) {
            if let Err(error) = progress.skip(path, self) {
                progress.troubles.tell(path, &error);
            }
        }
    }

    /// Offers everything that was added since the last time.
    pub(super) fn poll(&self, progress: &mut Progress, offer: &mut dyn FnMut(&Path, Found) -> After) {
        let paths = self.paths();
        progress.troubles.0.retain(|path, _| paths.contains(path));
        let mut present = BTreeSet::new();
        let mut in_order = Vec::new();
        for path in &paths {
            match progress.see(path) {
                Ok(known_as) => {
                    // One file may have several names.
                    if present.insert(known_as) {
                        in_order.push(known_as);
                    }
                }
                Err(error) => progress.troubles.tell(path, &error),
            }
        }
        // What was renamed or removed is older than what stands in its place.
        if self.finish(progress, &present, offer) == After::Stop {
            return;
        }
        for known_as in in_order {
            if self.follow(progress, known_as, true, offer) == After::Stop {
                return;
            }
        }
    }

    /// Reads files that were renamed or removed to their end, and lets them go when they have not grown since.
    fn finish(&self, progress: &mut Progress, present: &BTreeSet<Identity>, offer: &mut dyn FnMut(&Path, Found) -> After) -> After {
        let absent: Vec<Identity> = progress.places.keys().filter(|known_as| !present.contains(*known_as)).copied().collect();
        for known_as in absent {
            let absence = progress.places.get_mut(&known_as).map_or(Absence::Closed, |place| place.absence(known_as));
            let over = match absence {
                Absence::Unlisted => continue,
                Absence::Closed => true,
                Absence::Leaving | Absence::Over => {
                    let grows = absence == Absence::Leaving;
                    if self.follow(progress, known_as, grows, offer) == After::Stop {
                        return After::Stop;
                    }
                    !grows
                }
            };
            if over {
                progress.places.remove(&known_as);
            }
        }
        After::Continue
    }

    fn follow(&self, progress: &mut Progress, known_as: Identity, grows: bool, offer: &mut dyn FnMut(&Path, Found) -> After) -> After {
        let Progress { places, troubles, .. } = progress;
        let Some(place) = places.get_mut(&known_as) else { return After::Continue };
        let after = match place.follow(known_as, self, grows, offer) {
            Ok(after) => {
                troubles.over(place.path());
                after
            }
            Err(error) => {
                troubles.tell(place.path(), &error);
                After::Continue
            }
        };
        // It may have been opened again.
        if place.idle() == 0 {
            progress.close_idle();
        }
        after
    }
}

impl Progress {
    /// The file at a path, from now on known if it was not.
    fn see(&mut self, path: &Path) -> io::Result<Identity> {
        let metadata = fs::metadata(path)?;
        let known_as = identity(&metadata);
        if let Some(place) = self.places.get_mut(&known_as) {
            place.seen(path, metadata.len());
            return Ok(known_as);
        }
        let (known_as, place) = Place::open(path)?;
        self.places.entry(known_as).or_insert(place);
        self.close_idle();
        Ok(known_as)
    }

    /// Takes a file as read, unless it is known.
    fn skip(&mut self, path: &Path, files: &Files) -> io::Result<()> {
        let (known_as, mut place) = Place::open(path)?;
        if self.places.contains_key(&known_as) {
            return Ok(());
        }
        let skipped = place.skip_to_end(files);
        self.places.insert(known_as, place);
        self.close_idle();
        skipped
    }

    fn close_idle(&mut self) {
        let open = self.places.values().filter(|place| place.is_open()).count();
        for _ in OPEN_MAX..open {
            if let Some(place) = self.places.values_mut().filter(|place| place.is_open()).max_by_key(|place| place.idle()) {
                place.close();
            }
        }
    }
}

impl Troubles {
    /// Says that a file can't be read, once until there is another reason.
    fn tell(&mut self, path: &Path, error: &io::Error) {
        // One that is gone is no trouble.
        if error.kind() != io::ErrorKind::NotFound && self.0.insert(path.to_owned(), error.kind()) != Some(error.kind()) {
            tracing::warn!(file = %path.display(), %error, "can't read");
        }
    }

    fn over(&mut self, path: &Path) {
        self.0.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::{super::place::PATIENCE, *};
    use crate::net::Encoding;

    /// A directory that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fuseboard-follow-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn files(&self, names: &[&str]) -> Files {
            let include = names.iter().map(|name| self.0.join(name).display().to_string()).collect();
            Files { include, exclude: Vec::new(), limits: Limits { request_bytes: 200 }, protobuf: Signal::Traces }
        }

        fn append(&self, name: &str, content: impl AsRef<[u8]>) {
            let mut file = OpenOptions::new().create(true).append(true).open(self.0.join(name)).unwrap();
            file.write_all(content.as_ref()).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.0.join(from), self.0.join(to)).unwrap();
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn json(name: &str) -> String {
        format!(r#"{{"resourceSpans":[{{"schemaUrl":"{name}"}}]}}"#)
    }

    fn line(name: &str) -> String {
        json(name) + "\n"
    }

    fn record(body: impl AsRef<[u8]>) -> Vec<u8> {
        [&u32::try_from(body.as_ref().len()).unwrap().to_be_bytes()[..], body.as_ref()].concat()
    }

    /// The names of the requests that came, and what was wrong with others.
    fn poll(files: &Files, progress: &mut Progress) -> Vec<String> {
        let mut all = Vec::new();
        files.poll(progress, &mut |_, found| {
            all.push(match found {
                // Behind the key and the length of the request's and of the text's field.
                Found::Request(request) => String::from_utf8(request.bytes[4..].to_vec()).unwrap(),
                Found::Broken(reason) => reason,
            });
            After::Continue
        });
        all
    }

    #[test]
    fn a_stray_byte_costs_its_line_and_no_more() {
        let directory = Directory::new("stray");
        let (files, mut progress) = (directory.files(&["a"]), Progress::default());
        directory.append("a", line("one"));
        assert_eq!(poll(&files, &mut progress), ["one"]);
        directory.append("a", "x\n");
        assert!(poll(&files, &mut progress)[0].starts_with("invalid OTLP/JSON"));
        directory.append("a", line("two"));
        assert_eq!(poll(&files, &mut progress), ["two"]);
    }

    #[test]
    fn an_end_may_be_anywhere_to_begin_at() {
        let lines = line("one") + &line("two");
        let records = [record(json("one")), record(json("two"))].concat();
        for (name, content, next) in [("lines", lines.into_bytes(), line("three").into_bytes()), ("records", records, record(json("three")))] {
            for cut in [content.len(), content.len() - 1, content.len() / 2 + 10] {
                for encoding in [Encoding::None, Encoding::Gzip] {
                    let directory = Directory::new(name);
                    let (files, mut progress) = (directory.files(&["a"]), Progress::default());
                    directory.append("a", encoding.deflate(content[..cut].to_vec().into()).unwrap());
                    files.take_over(&mut progress, true);
                    assert_eq!(poll(&files, &mut progress), [""; 0]);
                    directory.append("a", encoding.deflate([&content[cut..], &next].concat().into()).unwrap());
                    assert_eq!(poll(&files, &mut progress), ["three"], "{name} {cut} {encoding:?}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_was_emptied_begins_anew() {
        let directory = Directory::new("emptied");
        let (files, mut progress) = (directory.files(&["a"]), Progress::default());
        directory.append("a", line("one") + &line("two"));
        assert_eq!(poll(&files, &mut progress), ["one", "two"]);
        // Even in the other layout.
        fs::write(directory.0.join("a"), record(json("three"))).unwrap();
        assert_eq!(poll(&files, &mut progress), ["three"]);
    }

    #[test]
    fn what_was_not_taken_is_offered_again() {
        let directory = Directory::new("again");
        let (files, mut progress) = (directory.files(&["a"]), Progress::default());
        directory.append("a", line("one") + &line("two"));
        let mut room = 1;
        files.poll(&mut progress, &mut |_, _| {
            room -= 1;
            if room < 0 { After::Stop } else { After::Continue }
        });
        assert_eq!(poll(&files, &mut progress), ["two"]);
    }

    #[test]
    fn a_file_that_is_renamed_or_removed_is_read_to_its_end() {
        let directory = Directory::new("renamed");
        let (files, mut progress) = (directory.files(&["a"]), Progress::default());
        directory.append("a", line("one"));
        assert_eq!(poll(&files, &mut progress), ["one"]);
        directory.append("a", line("two"));
        directory.rename("a", "a.1");
        directory.append("a", line("three"));
        assert_eq!(poll(&files, &mut progress), ["two", "three"]);
        // Its writer has not noticed yet.
        directory.append("a.1", line("four"));
        assert_eq!(poll(&files, &mut progress), ["four"]);
        assert_eq!(poll(&files, &mut progress), [""; 0]);
        assert_eq!(progress.places.len(), 1);
        // A last line without an end, which nobody will write any more.
        directory.append("a", line("five") + &json("six"));
        fs::remove_file(directory.0.join("a")).unwrap();
        assert_eq!(poll(&files, &mut progress), ["five"]);
        assert_eq!(poll(&files, &mut progress), ["six"]);
        assert!(progress.places.is_empty());
    }

    #[test]
    fn a_file_is_known_by_any_name() {
        let directory = Directory::new("known");
        let (files, mut progress) = (directory.files(&["a*"]), Progress::default());
        directory.append("a", line("one"));
        assert_eq!(poll(&files, &mut progress), ["one"]);
        directory.append("a", line("two"));
        directory.rename("a", "a.1");
        directory.append("a", line("three"));
        assert_eq!(poll(&files, &mut progress), ["three", "two"]);
        assert_eq!(progress.places.len(), 2);
    }

    #[test]
    fn other_settings_go_on_with_what_was_read() {
        let directory = Directory::new("settings");
        let mut progress = Progress::default();
        let old = directory.files(&["a*", "b"]);
        old.take_over(&mut progress, true);
        directory.append("a1", line("a1"));
        directory.append("b", line("b1"));
        assert_eq!(poll(&old, &mut progress), ["a1", "b1"]);
        directory.append("b", line("b2"));
        directory.append("c", line("c1"));
        // The old one would have found it the next time.
        directory.append("a2", line("a2"));
        let new = directory.files(&["a*", "c"]);
        new.take_over(&mut progress, true);
        directory.append("a1", line("a3"));
        directory.append("c", line("c2"));
        assert_eq!(poll(&new, &mut progress), ["a3", "a2", "c2"]);
        assert_eq!(progress.places.len(), 3);
    }

    #[test]
    fn what_is_too_long_is_passed_over_as_it_comes() {
        let directory = Directory::new("long");
        let (files, mut progress) = (directory.files(&["a", "b"]), Progress::default());
        directory.append("a", line("one") + &"x".repeat(150));
        directory.append("b", record(json("one")));
        assert_eq!(poll(&files, &mut progress), ["one", "one"]);
        directory.append("a", "x".repeat(150));
        directory.append("b", [&1000_u32.to_be_bytes()[..], &[b'x'; 100]].concat());
        let told = ["a line of more than 200 bytes, the limit", "a record of 1000 bytes; the limit is 200"];
        assert_eq!(poll(&files, &mut progress), told);
        for name in ["a", "b"] {
            directory.append(name, "x".repeat(300));
        }
        assert_eq!(poll(&files, &mut progress), [""; 0]);
        directory.append("a", format!("\n{}", line("two")));
        directory.append("b", [&[b'x'; 600][..], &record(json("two"))].concat());
        assert_eq!(poll(&files, &mut progress), ["two", "two"]);
    }

    #[test]
    fn what_is_no_file_of_requests_is_told_once() {
        let directory = Directory::new("other");
        let (files, mut progress) = (directory.files(&["a"]), Progress::default());
        directory.append("a", "hello world\n");
        let told = poll(&files, &mut progress);
        assert!(told.len() == 1 && told[0].starts_with("a record of 1751477356 bytes"), "{told:?}");
        directory.append("a", "hello again\n");
        assert_eq!(poll(&files, &mut progress), [""; 0]);
        fs::write(directory.0.join("a"), "").unwrap();
        assert_eq!(poll(&files, &mut progress), [""; 0]);
        directory.append("a", line("one"));
        assert_eq!(poll(&files, &mut progress), ["one"]);
        fs::remove_file(directory.0.join("a")).unwrap();
        for _ in 0..2 {
            assert_eq!(poll(&files, &mut progress), [""; 0]);
        }
        assert!(progress.places.is_empty());
    }

    #[test]
    fn an_end_that_is_missing_is_waited_for_and_told_in_time() {
        let lines = line("one") + &line("two");
        let gzip = Encoding::Gzip.deflate(lines.clone().into()).unwrap();
        let zstd = Encoding::Zstd.deflate(lines.clone().into()).unwrap();
        let records = [record(json("one")), record(json("two"))].concat();
        for (name, content) in [("lines", lines.as_bytes()), ("gzip", &*gzip), ("zstd", &*zstd), ("records", &*records)] {
            let directory = Directory::new(&format!("missing-{name}"));
            let (files, mut progress) = (directory.files(&["a"]), Progress::default());
            let (written, rest) = content.split_at(content.len() - 3);
            directory.append("a", written);
            let mut found = poll(&files, &mut progress);
            for _ in 0..PATIENCE {
                found.extend(poll(&files, &mut progress));
            }
            assert!(progress.troubles.0.is_empty(), "{name} may still be written");
            found.extend(poll(&files, &mut progress));
            assert_eq!(progress.troubles.0.len(), 1, "{name}");
            directory.append("a", rest);
            found.extend(poll(&files, &mut progress));
            assert_eq!(found, ["one", "two"], "{name}");
            assert!(progress.troubles.0.is_empty(), "{name}");
            // Removed, it gets no end any more.
            directory.append("a", written);
            poll(&files, &mut progress);
            fs::remove_file(directory.0.join("a")).unwrap();
            let told: Vec<String> = (0..3).flat_map(|_| poll(&files, &mut progress)).collect();
            assert!(told.len() == 1 && !told[0].is_empty(), "{name}: {told:?}");
            assert!(progress.places.is_empty(), "{name}");
        }
    }

    #[test]
    fn json_over_many_lines_is_followed() {
        let directory = Directory::new("pretty");
        let (files, mut progress) = (directory.files(&["a"]), Progress::default());
        let pretty = |name: &str| json(name).replace('[', "[\n  ").replace(']', "\n]") + "\n";
        let (begin, end) = (pretty("two").get(..30).unwrap().to_owned(), pretty("two").get(30..).unwrap().to_owned());
        directory.append("a", format!("\u{feff}{}{begin}", pretty("one")));
        assert_eq!(poll(&files, &mut progress), ["one"]);
        assert_eq!(poll(&files, &mut progress), [""; 0]);
        directory.append("a", end + &line("three"));
        assert_eq!(poll(&files, &mut progress), ["two", "three"]);
    }

    #[test]
    fn few_files_are_kept_open() {
        let directory = Directory::new("many");
        let (files, mut progress) = (directory.files(&["[12]*"]), Progress::default());
        let names: Vec<String> = (100..100 + OPEN_MAX + 10).map(|number| number.to_string()).collect();
        for round in ["one", "two"] {
            for name in &names {
                directory.append(name, line(round));
            }
            assert_eq!(poll(&files, &mut progress), vec![round; names.len()]);
            assert_eq!(progress.places.values().filter(|place| place.is_open()).count(), OPEN_MAX);
        }
        // The one that grew last is open.
        assert_eq!(poll(&files, &mut progress), [""; 0]);
        directory.append(&names[0], line("three"));
        assert_eq!(poll(&files, &mut progress), ["three"]);
        directory.append(&names[0], line("four"));
        directory.rename(&names[0], "renamed");
        assert_eq!(poll(&files, &mut progress), ["four"]);
    }
}
