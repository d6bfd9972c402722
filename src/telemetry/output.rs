//! A writer that never holds up whoever has something to say.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// The most that waits to be written, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Lines on their way to an output that may not be read: a thread of its own writes them, and what finds no room is
/// dropped and counted.
pub(super) struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A line came, or no more will.
    arrived: Condvar,
    /// Nothing is left to write.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<String>,
    /// What waits and what is being written, in bytes.
    bytes: usize,
    dropped: u64,
    closed: bool,
}

impl Output {
    /// Begins to write.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(into: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write(into))?;
        Ok(Self(shared))
    }

    /// Writes a line as soon as may be; drops it where there is no room.
    pub(super) fn offer(&self, line: String) {
        let mut state = self.0.state.lock();
        if state.bytes + line.len() > BYTES_MAX {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.waiting.push_back(line);
        drop(state);
        self.0.arrived.notify_one();
    }

    /// Lines that were dropped, for want of room or since they could not be written.
    pub(super) fn dropped(&self) -> u64 {
        self.0.state.lock().dropped
    }

    /// Waits until everything is written, so long at the most; says whether it is.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut state = self.0.state.lock();
        while state.bytes > 0 {
            if self.0.written.wait_until(&mut state, until).timed_out() {
                return state.bytes == 0;
            }
        }
        true
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.arrived.notify_one();
    }
}

impl Shared {
    fn write(&self, mut into: impl Write) {
        while let Some(line) = self.next() {
            let written = into.write_all(line.as_bytes()).and_then(|()| into.flush());
            let mut state = self.state.lock();
            state.bytes -= line.len();
            state.dropped += u64::from(written.is_err());
            if state.bytes == 0 {
                self.written.notify_all();
            }
        }
    }

    /// The next line; `None` when all were written and no more will come.
    fn next(&self) -> Option<String> {
        let mut state = self.state.lock();
        loop {
            if let Some(line) = state.waiting.pop_front() {
                return Some(line);
            }
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes one line for each go it is given.
    struct Slow {
        go: mpsc::Receiver<()>,
        lines: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
            drop(self.lines.send(String::from_utf8_lossy(bytes).into_owned()));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_nobody_reads_is_dropped_counted_and_waited_for_no_longer() {
        let (go, gone) = mpsc::channel();
        let (lines, read) = mpsc::channel();
        let output = Output::start(Slow { go: gone, lines }).unwrap();
        let line = "x".repeat(BYTES_MAX / 4);
        (0..6).for_each(|_| output.offer(line.clone()));
        assert_eq!(output.dropped(), 2);
        assert!(!output.finish(Duration::ZERO));
        (0..4).for_each(|_| go.send(()).unwrap());
        assert!(output.finish(Duration::from_secs(60)));
        assert_eq!(read.try_iter().count(), 4);
        output.offer("more\n".to_owned());
        go.send(()).unwrap();
        assert_eq!(read.recv().unwrap(), "more\n");
        // Nobody is there any more.
        drop(go);
        output.offer("lost\n".to_owned());
        assert!(output.finish(Duration::from_secs(60)));
        assert_eq!(output.dropped(), 3);
    }
}
