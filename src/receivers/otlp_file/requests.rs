use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::values::{Open, Step, Values};
use crate::{
    net::{Encoding, Inflate, Limits, TooMuch},
    otlp::{
        Signal,
        json::{self, Form, JsonError},
    },
};

/// The requests in a file that the Collector's `file` exporter, or ours, wrote: JSON lines, or records with their
/// length (4 bytes, big endian) before them, each JSON or protobuf, each perhaps compressed. JSON may as well be
/// pretty-printed, stand in an array, and be a download of Tempo, Grafana or Jaeger.
pub struct Requests<R> {
    source: R,
    limits: Limits,
    /// What protobuf is taken for: unlike JSON, it does not say.
    protobuf: Signal,
    layout: Option<Layout>,
    passing: Passing,
    consumed: u64,
    values: Values,
    ready: Ready,
}

/// Requests of one place in a file, such as a download with several traces, that were not given out yet.
#[derive(Default)]
struct Ready {
    requests: VecDeque<Request>,
    /// How many of that place were.
    given: usize,
    /// How many bytes it has.
    length: u64,
}

/// One request of a file.
#[derive(Debug)]
pub struct Request {
    /// What kind of telemetry it is.
    pub signal: Signal,
    /// In protobuf.
    pub bytes: Bytes,
}

/// What came next in a file.
#[derive(Debug)]
pub enum Next {
    /// A request.
    Request(Request),
    /// Something that is none, and why; what follows can be read.
    Broken(String),
    /// Nothing, or the beginning of something whose end has not been written yet.
    End,
}

/// How requests stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Lines,
    Records,
}

/// What stands before the next request and is to be passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Passing {
    #[default]
    Nothing,
    /// The rest of a line.
    Line,
    /// The rest of an object of JSON over many lines.
    Value(Open),
    /// So many bytes.
    Bytes(u64),
    /// So many requests of those that stand in one place.
    Requests(usize),
}

/// Bytes of the length before a record; no request is shorter than that.
pub(super) const PREFIX: u64 = 4;
/// A longer record can't be meant: text that was taken for a length gives more than this.
const LENGTH_MAX: u64 = 512 << 20;
/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What is in a file.
pub struct Content {
    /// Decompressed, if the file is compressed as a whole.
    pub reader: Box<dyn BufRead + Send>,
    /// Whether it is.
    pub compressed: bool,
}

impl Content {
    /// Looks at how a file begins.
    ///
    /// # Errors
    /// It can't be read.
    pub fn of(file: impl Read + Send + 'static) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER, file);
        let start = file.fill_buf()?;
        let (gzip, zstd) = (start.starts_with(&GZIP), start.starts_with(&ZSTD));
        let reader: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(file)))
        } else if zstd {
            Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::with_buffer(file)?))
        } else {
            Box::new(file)
        };
        Ok(Self { reader, compressed: gzip || zstd })
    }
}

impl Layout {
    /// By the first byte of a file.
    pub(super) const fn of(first: u8) -> Self {
        match first {
            // As the first of the four bytes of a length, each of these would mean more than any limit allows. The last
            // is that of a byte order mark.
            b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' | 0xef => Self::Lines,
            _ => Self::Records,
        }
    }
}

impl<R: BufRead> Requests<R> {
    /// Reads a source from its beginning. A request that is longer than the limit is passed over.
    pub fn new(source: R, limits: Limits, protobuf: Signal) -> Self {
        let (values, ready) = (Values::default(), Ready::default());
        Self { source, limits, protobuf, layout: None, passing: Passing::Nothing, consumed: 0, values, ready }
    }

    /// Reads on from where the source stands, in the layout its file begins with.
    pub(super) fn resume(source: R, limits: Limits, protobuf: Signal, layout: Layout, passing: Passing) -> Self {
        Self { layout: Some(layout), passing, ..Self::new(source, limits, protobuf) }
    }

    /// Bytes that are done with: whole requests, and what was passed over.
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// What is still to be passed over where reading goes on.
    pub(super) fn passing(&self) -> Passing {
        if self.ready.requests.is_empty() { self.passing } else { Passing::Requests(self.ready.given) }
    }

    /// Reads what comes next. Where a file still grows, a last line without an end is left for later; else it is a
    /// line too.
    ///
    /// # Errors
    /// The source can't be read, or what stands there is in neither layout: nothing that follows can be read.
    pub fn next(&mut self, grows: bool) -> io::Result<Next> {
        if let Some(request) = self.give() {
            return Ok(request);
        }
        if !self.pass()? {
            // That text is too long was said before.
            return if grows || !matches!(self.passing, Passing::Bytes(_)) { Ok(Next::End) } else { Err(cut_off()) };
        }
        loop {
            match self.layout()? {
                None => return Ok(Next::End),
                Some(Layout::Lines) => return self.line(grows),
                Some(Layout::Records) => {
                    if let Some(next) = self.record(grows)? {
                        return Ok(next);
                    }
                }
            }
        }
    }

    /// Takes all that is there as read; the rest of what has not been written to its end is passed over later.
    pub(super) fn pass_all(&mut self) -> io::Result<()> {
        while self.pass()? {
            match self.layout()? {
                None => return Ok(()),
                Some(Layout::Lines) => {
                    if self.source.fill_buf()?.is_empty() {
                        return Ok(());
                    }
                    self.passing = Passing::Line;
                }
                Some(Layout::Records) => {
                    let Some(length) = self.prefix(true)? else { return Ok(()) };
                    self.consumed += PREFIX;
                    self.passing = Passing::Bytes(length);
                }
            }
        }
        Ok(())
    }

    /// Passes over what is to be passed over, holding nothing of it; says whether its end was there.
    fn pass(&mut self) -> io::Result<bool> {
        loop {
            match self.passing {
                Passing::Nothing | Passing::Requests(_) => return Ok(true),
                Passing::Bytes(0) => {
                    self.passing = Passing::Nothing;
                    return Ok(true);
                }
                Passing::Line | Passing::Value(_) | Passing::Bytes(_) => {}
            }
            let there = self.source.fill_buf()?;
            if there.is_empty() {
                return Ok(false);
            }
            let (used, left) = match self.passing {
                Passing::Nothing | Passing::Requests(_) => (0, Passing::Nothing),
                Passing::Value(mut open) => {
                    let end = there.iter().position(|byte| open.step(*byte) != Step::Inside);
                    end.map_or((there.len(), Passing::Value(open)), |end| (end + 1, Passing::Nothing))
                }
                Passing::Line => {
                    let end = there.iter().position(|byte| *byte == b'\n');
                    end.map_or((there.len(), Passing::Line), |end| (end + 1, Passing::Nothing))
                }
                Passing::Bytes(bytes) => {
                    let used = usize::try_from(bytes).map_or(there.len(), |bytes| bytes.min(there.len()));
                    (used, Passing::Bytes(bytes - used as u64))
                }
            };
            self.source.consume(used);
            self.consumed += used as u64;
            self.passing = left;
        }
    }

    fn layout(&mut self) -> io::Result<Option<Layout>> {
        if self.layout.is_none() {
            self.layout = self.source.fill_buf()?.first().copied().map(Layout::of);
        }
        Ok(self.layout)
    }

    /// The next object of JSON, nearly always one on a line of its own.
    fn line(&mut self, grows: bool) -> io::Result<Next> {
        let limit = self.limits.request_bytes;
        loop {
            while let Some(place) = self.values.find() {
                let end = place.end;
                let object = self.values.text().get(place).unwrap_or_default();
                let read = if object.is_empty() { Ok(SmallVec::new()) } else { from_json(object, limit) };
                self.values.take(end);
                if let Some(next) = self.found(read, end as u64) {
                    return Ok(next);
                }
            }
            let begun = self.values.text().len();
            if begun > limit {
                return Ok(self.too_long(begun));
            }
            let read = self.source.by_ref().take((limit + 1 - begun) as u64).read_until(b'\n', self.values.more())?;
            let text = self.values.text();
            let ended = text.last() == Some(&b'\n');
            if grows && (read == 0 || !ended) && text.len() <= limit {
                return Ok(Next::End);
            }
            if begun == 0
                && is_object(text)
                && let Ok(requests) = from_json(text, limit)
            {
                self.values.take(read);
                if let Some(next) = self.found(Ok(requests), read as u64) {
                    return Ok(next);
                }
            } else if read == 0 {
                if begun == 0 {
                    return Ok(Next::End);
                }
                // Its end is missing, and will not come.
                let read = from_json(text, limit);
                self.values.take(begun);
                if let Some(next) = self.found(read, begun as u64) {
                    return Ok(next);
                }
            }
        }
    }

    /// Passes over what is longer than the limit.
    fn too_long(&mut self, begun: usize) -> Next {
        let limit = self.limits.request_bytes;
        let lines = self.values.text().contains(&b'\n');
        self.passing = if lines { Passing::Value(self.values.open()) } else { Passing::Line };
        self.values.take(begun);
        self.consumed += begun as u64;
        let what = if lines { "an object over several lines" } else { "a line" };
        Next::Broken(format!("{what} of more than {limit} bytes, the limit"))
    }

    /// What to say of so many bytes; nothing if they hold no request.
    fn found(&mut self, read: Result<SmallVec<[Request; 1]>, String>, length: u64) -> Option<Next> {
        let given = match std::mem::take(&mut self.passing) {
            Passing::Requests(given) => given,
            _ => 0,
        };
        match read {
            Ok(requests) => {
                self.ready.requests.extend(requests.into_iter().skip(given));
                (self.ready.given, self.ready.length) = (given, length);
                let next = self.give();
                if next.is_none() {
                    self.consumed += length;
                }
                next
            }
            Err(reason) => {
                self.consumed += length;
                Some(Next::Broken(reason))
            }
        }
    }

    /// The next of the requests that stand in one place; that is done with when the last of them is.
    fn give(&mut self) -> Option<Next> {
        let request = self.ready.requests.pop_front()?;
        self.ready.given += 1;
        if self.ready.requests.is_empty() {
            self.consumed += self.ready.length;
        }
        Some(Next::Request(request))
    }

    /// The length before a record; `None` at the end.
    fn prefix(&mut self, grows: bool) -> io::Result<Option<u64>> {
        let mut prefix = Vec::new();
        self.source.by_ref().take(PREFIX).read_to_end(&mut prefix)?;
        let Ok(length) = <[u8; 4]>::try_from(prefix.as_slice()) else {
            return if grows || prefix.is_empty() { Ok(None) } else { Err(cut_off()) };
        };
        if matches!(length, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "text in UTF-16; OTLP/JSON is read in UTF-8"));
        }
        let length = u64::from(u32::from_be_bytes(length));
        if length > LENGTH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "a record of {length} bytes; the limit is {}, so this is no OTLP/JSON and no length before a request",
                    self.limits.request_bytes
                ),
            ));
        }
        Ok(Some(length))
    }

    /// The next record; nothing if it holds no request.
    fn record(&mut self, grows: bool) -> io::Result<Option<Next>> {
        let Some(length) = self.prefix(grows)? else { return Ok(Some(Next::End)) };
        let limit = self.limits.request_bytes;
        if length > limit as u64 {
            self.consumed += PREFIX;
            self.passing = Passing::Bytes(length);
            return Ok(Some(Next::Broken(format!("a record of {length} bytes; the limit is {limit}"))));
        }
        let mut record = Vec::new();
        let read = self.source.by_ref().take(length).read_to_end(&mut record)? as u64;
        if read < length {
            return if grows { Ok(Some(Next::End)) } else { Err(cut_off()) };
        }
        let read = self.request(&record.into());
        Ok(self.found(read, PREFIX + length))
    }

    fn request(&self, record: &Bytes) -> Result<SmallVec<[Request; 1]>, String> {
        let encoding = match record {
            record if record.starts_with(&GZIP) => Encoding::Gzip,
            record if record.starts_with(&ZSTD) => Encoding::Zstd,
            _ => Encoding::None,
        };
        let record = encoding.inflate(record, self.limits).map_err(|why| match why {
            Inflate::TooMuch(TooMuch::Request(limit)) => format!("a record of more than {limit} bytes"),
            Inflate::TooMuch(why) => why.to_string(),
            Inflate::Broken(reason) => reason,
        })?;
        if json::without_bom(&record).first() == Some(&b'{') {
            from_json(&record, self.limits.request_bytes)
        } else {
            Ok(one(Request { signal: self.protobuf, bytes: record }))
        }
    }
}

/// Whether an error lies in what was read and not in the reading: the system's errors, such as a missing permission,
/// may be gone the next time.
pub fn is_of_content(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the last request is cut off")
}

/// Whether a text seems to be one whole object.
fn is_object(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    text.first() == Some(&b'{') && text.last() == Some(&b'}')
}

fn from_json(text: &[u8], limit: usize) -> Result<SmallVec<[Request; 1]>, String> {
    let read = || -> Result<SmallVec<[Request; 1]>, JsonError> {
        Ok(match json::form_of(text)? {
            Form::Otlp(signal) => one(Request { signal, bytes: json::to_protobuf(signal, text, limit)?.into() }),
            Form::Jaeger => {
                let requests = json::from_jaeger(text)?.into_iter();
                requests.map(|request| Request { signal: Signal::Traces, bytes: request.into() }).collect()
            }
        })
    };
    read().map_err(|error| error.to_string())
}

fn one(request: Request) -> SmallVec<[Request; 1]> {
    SmallVec::from_buf([request])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { request_bytes: 200 };
    const LINE: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}}]}"#;

    fn all(file: Vec<u8>) -> Vec<String> {
        all_within(file, LIMITS)
    }

    fn all_within(file: Vec<u8>, limits: Limits) -> Vec<String> {
        let mut requests = Requests::new(Content::of(io::Cursor::new(file)).unwrap().reader, limits, Signal::Logs);
        let mut found = Vec::new();
        loop {
            match requests.next(false) {
                Ok(Next::Request(request)) => found.push(format!("{} {}", request.signal, request.bytes.len())),
                Ok(Next::Broken(why)) => found.push(why),
                Ok(Next::End) => return found,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    fn records(records: &[&[u8]]) -> Vec<u8> {
        records.iter().flat_map(|record| [&u32::try_from(record.len()).unwrap().to_be_bytes()[..], record].concat()).collect()
    }

    fn packed(encoding: Encoding, body: &[u8]) -> Bytes {
        encoding.deflate(Bytes::copy_from_slice(body)).unwrap()
    }

    #[test]
    fn every_layout_is_recognised() {
        let protobuf = json::to_protobuf(Signal::Traces, LINE.as_bytes(), usize::MAX).unwrap();
        let traces = format!("traces {}", protobuf.len());
        let lines = format!("{LINE}\n\n {LINE}");
        assert_eq!(all(lines.clone().into()), [&*traces, &*traces]);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            assert_eq!(all(packed(encoding, lines.as_bytes()).to_vec()), [&*traces, &*traces]);
            let mixed = [&packed(encoding, LINE.as_bytes())[..], &packed(encoding, &protobuf), &protobuf];
            let logs = format!("logs {}", protobuf.len());
            assert_eq!(all(records(&mixed)), [&*traces, &*logs, &*logs]);
        }
        assert_eq!(all(Vec::new()), [""; 0]);
        assert_eq!(all(br#" {"resourceMetrics":[]}"#.to_vec()), ["metrics 0"]);
    }

    #[test]
    fn json_is_read_however_it_is_laid_out() {
        let protobuf = json::to_protobuf(Signal::Traces, LINE.as_bytes(), usize::MAX).unwrap();
        let traces = format!("traces {}", protobuf.len());
        let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(LINE).unwrap()).unwrap();
        assert!(pretty.lines().count() > 10);
        let limits = Limits { request_bytes: 2 * pretty.len() };
        for (text, torn) in [
            (format!("{pretty}\n{pretty}"), 0),
            (format!("{LINE}{LINE}"), 0),
            (format!("[{LINE},\n{pretty}]"), 0),
            (format!("[{LINE},{LINE}]\n"), 0),
            (format!("\u{feff}{LINE}\n\u{feff}{LINE}\n"), 0),
            (format!("\u{feff}{pretty}\r\n{LINE}\r\n"), 0),
            // The first of three is cut off, in a string and elsewhere.
            (format!("{}\n{LINE}\n{pretty}", LINE.get(..22).unwrap()), 1),
            (format!("{}\n{LINE}\n{pretty}", LINE.get(..30).unwrap()), 1),
        ] {
            for encoding in [Encoding::None, Encoding::Gzip, Encoding::Zstd] {
                let found = all_within(packed(encoding, text.as_bytes()).to_vec(), limits);
                let (broken, good): (Vec<&String>, Vec<&String>) = found.iter().partition(|found| found.starts_with("invalid OTLP/JSON"));
                assert_eq!((broken.len(), good), (torn, vec![&traces, &traces]), "{text}");
            }
        }
        let file = records(&[format!("\u{feff}{LINE}").as_bytes()]);
        assert_eq!(all(file), [&*traces]);
        let mut utf16: Vec<u8> = vec![0xff, 0xfe];
        utf16.extend(LINE.encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(all(utf16), ["text in UTF-16; OTLP/JSON is read in UTF-8"]);
    }

    #[test]
    fn an_object_over_lines_that_is_too_long_is_passed_over() {
        let long = format!("{{\n\"resourceSpans\": [],\n\"x\": \"{}\",\n\"y\": {{\n}}\n}}\n", "}".repeat(300));
        let text = format!("{LINE}\n{long}{LINE}\n");
        assert_eq!(all(text.into()), ["traces 28", "an object over several lines of more than 200 bytes, the limit", "traces 28"]);
    }

    #[test]
    fn a_download_with_several_traces_is_gone_on_with_where_it_was_left() {
        let trace = |number: u64| {
            let span = format!(
                r#"{{"traceID":"{number}","spanID":"{number}","operationName":"t{number}","startTime":{number},"duration":1,"processID":"p"}}"#
            );
            format!(r#"{{"traceID":"{number}","spans":[{span}],"processes":{{"p":{{"serviceName":"shop"}}}}}}"#)
        };
        // As Jaeger has it, the newest first.
        let download = format!("{{\"data\":[\n{},\n{},\n{}],\"total\":0}}", trace(3), trace(2), trace(1));
        let file = format!("{{\"data\":[]}}\n{download}\n{LINE}\n");
        let limits = Limits { request_bytes: 2000 };
        let mut left = (0, Passing::Nothing);
        let mut seen = Vec::new();
        loop {
            let source = io::Cursor::new(file.as_bytes().get(usize::try_from(left.0).unwrap()..).unwrap());
            let mut requests = Requests::resume(source, limits, Signal::Traces, Layout::Lines, left.1);
            let Next::Request(request) = requests.next(false).unwrap() else { break };
            let text = String::from_utf8_lossy(&request.bytes).into_owned();
            seen.push(["t1", "t2", "t3"].into_iter().find(|name| text.contains(name)).unwrap_or("line"));
            left = (left.0 + requests.consumed(), requests.passing());
        }
        assert_eq!(seen, ["t1", "t2", "t3", "line"]);
    }

    #[test]
    fn what_is_broken_costs_nothing_beside_it() {
        let traces = "traces 28";
        let found = all(format!("{{\"a\":1}}\n{LINE}\n{{broken\n{LINE}\n{}\n{LINE}", "x".repeat(1000)).into());
        assert_eq!(found.len(), 6, "{found:?}");
        assert_eq!([&found[1], &found[3], &found[5]], [traces; 3]);
        assert!(
            found[0].starts_with("invalid OTLP/JSON: expected the key `resourceSpans`") && found[0].ends_with("but it begins with \"a\""),
            "{}",
            found[0]
        );
        assert!(found[2].starts_with("invalid OTLP/JSON"), "{}", found[2]);
        assert_eq!(found[4], "a line of more than 200 bytes, the limit");
    }

    #[test]
    fn what_is_too_long_is_passed_over() {
        let traces = "traces 28";
        let line = [&vec![b'x'; 4 << 20][..], b"\n", LINE.as_bytes()].concat();
        assert_eq!(all([LINE.as_bytes(), b"\n", &line].concat()), [traces, "a line of more than 200 bytes, the limit", traces]);
        let long = vec![b'x'; 4 << 20];
        let found = all(records(&[LINE.as_bytes(), &long, LINE.as_bytes()]));
        assert_eq!(found, [traces, "a record of 4194304 bytes; the limit is 200", traces]);
        // One whose end is not there.
        let found = all(records(&[LINE.as_bytes(), &long])[..1000].to_vec());
        assert_eq!(found, [traces, "a record of 4194304 bytes; the limit is 200", "the last request is cut off"]);
    }

    #[test]
    fn what_is_there_can_be_taken_as_read() {
        let lines = format!("{LINE}\n{LINE}");
        let records = records(&[LINE.as_bytes(), LINE.as_bytes()]);
        let half = records.len() - 10;
        for (file, layout, passing) in [
            (lines.as_bytes(), Layout::Lines, Passing::Line),
            (format!("{lines}\n").as_bytes(), Layout::Lines, Passing::Nothing),
            (&records[..half], Layout::Records, Passing::Bytes(10)),
            (&records[..], Layout::Records, Passing::Nothing),
        ] {
            let mut requests = Requests::resume(io::Cursor::new(file), LIMITS, Signal::Traces, layout, Passing::Nothing);
            requests.pass_all().unwrap();
            assert_eq!((requests.consumed(), requests.passing()), (file.len() as u64, passing));
        }
    }

    #[test]
    fn what_is_no_file_of_requests_is_said_so() {
        assert!(all(b"hello world".to_vec())[0].starts_with("a record of 1751477356 bytes; the limit is 200"));
        assert_eq!(all(vec![0, 0]), ["the last request is cut off"]);
        assert_eq!(all(vec![0, 0, 0, 9, 1]), ["the last request is cut off"]);
    }

    #[test]
    fn the_end_of_a_growing_file_is_left_for_later() {
        let whole = format!("{LINE}\n");
        let half = &whole.as_bytes()[..40];
        let mut requests = Requests::new(io::Cursor::new([whole.as_bytes(), half].concat()), LIMITS, Signal::Traces);
        assert!(matches!(requests.next(true).unwrap(), Next::Request(_)));
        assert!(matches!(requests.next(true).unwrap(), Next::End));
        assert_eq!(requests.consumed(), whole.len() as u64);
    }
}
