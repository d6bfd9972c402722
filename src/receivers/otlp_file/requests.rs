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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Lines,
    Records,
}

/// Bytes of the length before a record.
const PREFIX: u64 = 4;
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

impl<R: BufRead> Requests<R> {
    /// Reads on from where the source stands. No request may be longer than the limit.
    pub const fn new(source: R, limits: Limits, protobuf: Signal) -> Self {
        Self { source, limits, protobuf, layout: None, consumed: 0 }
    }

    /// Bytes of whole requests that were read.
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Reads what comes next. Where a file still grows, a last line without an end is left for later; else it is a
    /// line too.
    ///
    /// # Errors
    /// The source can't be read, or what stands there is in neither layout: nothing that follows can be read.
    pub fn next(&mut self, grows: bool) -> io::Result<Next> {
        let layout = match self.layout {
            Some(layout) => layout,
            None => match self.source.fill_buf()?.first() {
                None => return Ok(Next::End),
                // As the first of four bytes of a length it would mean 2 GiB.
                Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => Layout::Lines,
                Some(_) => Layout::Records,
            },
        };
        self.layout = Some(layout);
        match layout {
            Layout::Lines => self.line(grows),
            Layout::Records => self.record(grows),
        }
    }

    fn line(&mut self, grows: bool) -> io::Result<Next> {
        loop {
            let mut line = Vec::new();
            let limit = self.limits.request_bytes as u64;
            let read = self.source.by_ref().take(limit + 1).read_until(b'\n', &mut line)? as u64;
            let ended = line.last() == Some(&b'\n');
            if !ended && read > limit {
                return self.skip_line(read);
            }
            if read == 0 || (grows && !ended) {
                return Ok(Next::End);
            }
            self.consumed += read;
            if !line.trim_ascii().is_empty() {
                return Ok(from_json(&line).map_or_else(Next::Broken, Next::Request));
            }
        }
    }

    /// Passes the rest of a line that is too long.
    fn skip_line(&mut self, mut length: u64) -> io::Result<Next> {
        loop {
            let rest = self.source.fill_buf()?;
            let end = rest.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(rest.len(), |end| end + 1);
            length += used as u64;
            self.source.consume(used);
            if end.is_some() || used == 0 {
                self.consumed += length;
                return Ok(Next::Broken(format!("a line of {length} bytes; the limit is {}", self.limits.request_bytes)));
            }
        }
    }

    fn record(&mut self, grows: bool) -> io::Result<Next> {
        let mut prefix = Vec::new();
        self.source.by_ref().take(PREFIX).read_to_end(&mut prefix)?;
        let Ok(length) = <[u8; 4]>::try_from(prefix.as_slice()) else {
            return if grows || prefix.is_empty() { Ok(Next::End) } else { Err(cut_off()) };
        };
        let length = u64::from(u32::from_be_bytes(length));
        if length > self.limits.request_bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "a record of {length} bytes; the limit is {}, so this is no OTLP/JSON and no length before a request",
                    self.limits.request_bytes
                ),
            ));
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
        let record = encoding.inflate(record, self.limits, &mut |_| Ok(())).map_err(|why| match why {
            Inflate::TooMuch(TooMuch::Memory(reason) | TooMuch::BrokenOff(reason)) => reason,
            Inflate::TooMuch(TooMuch::Request(limit)) => format!("a record of more than {limit} bytes"),
            Inflate::Broken(error) => format!("broken {} data: {error}", encoding.header().unwrap_or_default()),
        })?;
        if record.first() == Some(&b'{') { from_json(&record) } else { Ok(Request { signal: self.protobuf, bytes: record }) }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the last request is cut off")
}

fn from_json(text: &[u8]) -> Result<Request, String> {
    let signal = signal_of(text).map_err(|error| format!("invalid OTLP/JSON: {error}"))?;
    let signal = signal.ok_or("JSON without `resourceSpans`, `resourceMetrics` or `resourceLogs`")?;
    let bytes = json::to_protobuf(signal, text).map_err(|error| error.to_string())?;
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
        let protobuf = json::to_protobuf(Signal::Traces, LINE.as_bytes()).unwrap();
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
        assert_eq!(found[4], "a line of 1001 bytes; the limit is 200");
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
