use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    net::{Encoding, Inflate, Limits, TooMuch},
    otlp::{Signal, json},
};

/// The requests in a file that the Collector's `file` exporter, or ours, wrote: JSON lines, or records with their
/// length (4 bytes, big endian) before them, each JSON or protobuf, each perhaps compressed.
pub struct Requests<R> {
    source: R,
    limits: Limits,
    /// What protobuf is taken for: unlike JSON, it does not say.
    protobuf: Signal,
    layout: Option<Layout>,
    passing: Passing,
    consumed: u64,
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
    /// So many bytes.
    Bytes(u64),
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
            // As the first of the four bytes of a length, each of these would mean more than any limit allows.
            b'{' | b' ' | b'\t' | b'\r' | b'\n' => Self::Lines,
            _ => Self::Records,
        }
    }
}

impl<R: BufRead> Requests<R> {
    /// Reads a source from its beginning. A request that is longer than the limit is passed over.
    pub const fn new(source: R, limits: Limits, protobuf: Signal) -> Self {
        Self { source, limits, protobuf, layout: None, passing: Passing::Nothing, consumed: 0 }
    }

    /// Reads on from where the source stands, in the layout its file begins with.
    pub(super) const fn resume(source: R, limits: Limits, protobuf: Signal, layout: Layout, passing: Passing) -> Self {
        Self { source, limits, protobuf, layout: Some(layout), passing, consumed: 0 }
    }

    /// Bytes that are done with: whole requests, and what was passed over.
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// What is still to be passed over where reading goes on.
    pub(super) const fn passing(&self) -> Passing {
        self.passing
    }

    /// Reads what comes next. Where a file still grows, a last line without an end is left for later; else it is a
    /// line too.
    ///
    /// # Errors
    /// The source can't be read, or what stands there is in neither layout: nothing that follows can be read.
    pub fn next(&mut self, grows: bool) -> io::Result<Next> {
        if !self.pass()? {
            return if grows || self.passing == Passing::Line { Ok(Next::End) } else { Err(cut_off()) };
        }
        match self.layout()? {
            None => Ok(Next::End),
            Some(Layout::Lines) => self.line(grows),
            Some(Layout::Records) => self.record(grows),
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
            if matches!(self.passing, Passing::Nothing | Passing::Bytes(0)) {
                self.passing = Passing::Nothing;
                return Ok(true);
            }
            let there = self.source.fill_buf()?;
            if there.is_empty() {
                return Ok(false);
            }
            let (used, left) = match self.passing {
                Passing::Nothing => (0, Passing::Nothing),
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

    fn line(&mut self, grows: bool) -> io::Result<Next> {
        loop {
            let mut line = Vec::new();
            let limit = self.limits.request_bytes as u64;
            let read = self.source.by_ref().take(limit + 1).read_until(b'\n', &mut line)? as u64;
            let ended = line.last() == Some(&b'\n');
            if !ended && read > limit {
                self.consumed += read;
                self.passing = Passing::Line;
                return Ok(Next::Broken(format!("a line of more than {limit} bytes, the limit")));
            }
            if read == 0 || (grows && !ended) {
                return Ok(Next::End);
            }
            self.consumed += read;
            if !line.trim_ascii().is_empty() {
                return Ok(from_json(&line, self.limits.request_bytes).map_or_else(Next::Broken, Next::Request));
            }
        }
    }

    /// The length before a record; `None` at the end.
    fn prefix(&mut self, grows: bool) -> io::Result<Option<u64>> {
        let mut prefix = Vec::new();
        self.source.by_ref().take(PREFIX).read_to_end(&mut prefix)?;
        let Ok(length) = <[u8; 4]>::try_from(prefix.as_slice()) else {
            return if grows || prefix.is_empty() { Ok(None) } else { Err(cut_off()) };
        };
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

    fn record(&mut self, grows: bool) -> io::Result<Next> {
        let Some(length) = self.prefix(grows)? else { return Ok(Next::End) };
        let limit = self.limits.request_bytes;
        if length > limit as u64 {
            self.consumed += PREFIX;
            self.passing = Passing::Bytes(length);
            return Ok(Next::Broken(format!("a record of {length} bytes; the limit is {limit}")));
        }
        let mut record = Vec::new();
        let read = self.source.by_ref().take(length).read_to_end(&mut record)? as u64;
        if read < length {
            return if grows { Ok(Next::End) } else { Err(cut_off()) };
        }
        self.consumed += PREFIX + length;
        Ok(self.request(&record.into()).map_or_else(Next::Broken, Next::Request))
    }

    fn request(&self, record: &Bytes) -> Result<Request, String> {
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
        if record.first() == Some(&b'{') {
            from_json(&record, self.limits.request_bytes)
        } else {
            Ok(Request { signal: self.protobuf, bytes: record })
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the last request is cut off")
}

fn from_json(text: &[u8], limit: usize) -> Result<Request, String> {
    let signal = signal_of(text).map_err(|error| format!("invalid OTLP/JSON: {error}"))?;
    let signal = signal.ok_or("JSON without `resourceSpans`, `resourceMetrics` or `resourceLogs`")?;
    let bytes = json::to_protobuf(signal, text, limit).map_err(|error| error.to_string())?;
    Ok(Request { signal, bytes: bytes.into() })
}

/// What kind of telemetry a request in JSON is.
fn signal_of(text: &[u8]) -> Result<Option<Signal>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Keys {
        resource_spans: Option<IgnoredAny>,
        resource_metrics: Option<IgnoredAny>,
        resource_logs: Option<IgnoredAny>,
    }
    // How exporters write it; saves a pass.
    if text.starts_with(br#"{"resourceSpans":"#) {
        return Ok(Some(Signal::Traces));
    }
    let keys: Keys = serde_json::from_slice(text)?;
    let metrics = keys.resource_metrics.map(|_| Signal::Metrics);
    Ok(keys.resource_spans.map(|_| Signal::Traces).or(metrics).or(keys.resource_logs.map(|_| Signal::Logs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { request_bytes: 200 };
    const LINE: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}}]}"#;

    fn all(file: Vec<u8>) -> Vec<String> {
        let mut requests = Requests::new(Content::of(io::Cursor::new(file)).unwrap().reader, LIMITS, Signal::Logs);
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
    fn what_is_broken_costs_nothing_beside_it() {
        let traces = "traces 28";
        let found = all(format!("{{\"a\":1}}\n{LINE}\n{{broken\n{LINE}\n{}\n{LINE}", "x".repeat(1000)).into());
        assert_eq!(found.len(), 6, "{found:?}");
        assert_eq!([&found[1], &found[3], &found[5]], [traces; 3]);
        assert_eq!(found[0], "JSON without `resourceSpans`, `resourceMetrics` or `resourceLogs`");
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
