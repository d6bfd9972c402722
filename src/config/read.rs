//! Files that a configuration is made of.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

/// The text of a regular file of at most `limit` bytes, without the byte order mark that some editors put first; an
/// error is for people and doesn't name the file.
pub(super) fn text(path: &Path, limit: usize) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("can't read it: {error}");
    // Opening a pipe would hold the start up for ever, and a device has no end: only regular files are opened.
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if about.len() > limit as u64 {
        return Err(format!("it has {} bytes, at most {limit} are read", about.len()));
    }
    let mut text = String::new();
    // What is regular may still grow, or not know its length, as files under /proc.
    File::open(path).map_err(failed)?.take(limit as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > limit {
        return Err(format!("it has more than the {limit} bytes that are read at most"));
    }
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        assert!(text(Path::new("/dev/zero"), 10).unwrap_err().contains("regular file"));
        assert!(text(Path::new("/"), 10).unwrap_err().contains("regular file"));
        assert!(text(Path::new("/nowhere/at/all"), 10).unwrap_err().contains("can't read it"));
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(text(Path::new(manifest), 10).unwrap_err().contains("at most 10"));
        assert!(text(Path::new(manifest), 1 << 20).unwrap().starts_with("[package]"));
    }
}
