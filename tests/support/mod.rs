//! The program under test, what it sends to, and what is sent to it.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "every test uses its part")]

pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod sink;
pub(crate) mod spans;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// The longest a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fuseboard");

/// A directory that goes with the test.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fuseboard-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> std::process::Output {
    Command::new(PROGRAM).args(arguments).env_remove("FUSEBOARD_CONFIG").env_remove("RUST_LOG").output().unwrap()
}

/// Lines that appear one after the other.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn follow(from: impl std::io::Read + Send + 'static) -> Self {
        let lines = Self::default();
        let (into, more) = (lines.clone(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                into.0.0.lock().unwrap().push(line);
                more.0.1.notify_all();
            }
        });
        lines
    }

    /// Waits until enough lines make sense of; gives what `find` found.
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = find(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let all = lines.join("\n");
                drop(lines);
                panic!("{what}; there is only:\n{all}");
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for a line that contains this.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        self.wait(&format!("no line says `{part}`"), |lines| lines.iter().find(|line| line.contains(part)).cloned())
    }

    /// Waits for so many lines that contain this.
    pub(crate) fn wait_for_several(&self, part: &str, several: usize) {
        self.wait(&format!("not {several} lines say `{part}`"), |lines| {
            (lines.iter().filter(|line| line.contains(part)).count() >= several).then_some(())
        });
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }
}

/// A running program.
pub(crate) struct Fuseboard {
    child: Child,
    pub(crate) log: Lines,
    pub(crate) out: Lines,
    pub(crate) config: PathBuf,
    directory: Directory,
}

impl Fuseboard {
    /// Starts it with this configuration, and waits until it listens.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(Directory::new(), config)
    }

    /// Starts it in a directory that holds more than its configuration.
    pub(crate) fn start_in(directory: Directory, config: &str) -> Self {
        Self::start_with(directory, config, &[])
    }

    /// Starts it with these variables in its environment.
    pub(crate) fn start_with(directory: Directory, config: &str, variables: &[(&str, &str)]) -> Self {
        let path = directory.file("fuseboard.yaml", config);
        let mut child = Command::new(PROGRAM)
            .arg("--config")
            .arg(&path)
            .current_dir(&directory.0)
            .env_remove("RUST_LOG")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, out) = (Lines::follow(child.stderr.take().unwrap()), Lines::follow(child.stdout.take().unwrap()));
        let fuseboard = Self { child, log, out, config: path, directory };
        fuseboard.log.wait_for("everything is running");
        fuseboard
    }

    /// Where it listens for a protocol (`grpc`, `http`).
    pub(crate) fn address(&self, protocol: &str) -> SocketAddr {
        let line = self.log.wait_for(&format!("protocol=\"{protocol}\""));
        line.split_once("endpoint=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The most memory it ever held, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory.0
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes another configuration and asks for it to be taken.
    pub(crate) fn reload(&self, config: &str) {
        std::fs::write(&self.config, config).unwrap();
        self.signal("HUP");
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it has stopped by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Fuseboard {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("the program said:\n{}", self.log.all().join("\n"));
        }
    }
}
