use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::follow::Progress;

/// How far receivers have read, by their ids, for as long as any of them runs.
///
/// A reload that changes a receiver's settings starts a new one, which knows nothing of the old one, before it stops
/// that. From here the new one learns how far the old one came: else it would read files a second time, or miss what
/// came in between. Receivers are all built from the same few things, and this is of no interest to any other.
static PROGRESS: Mutex<BTreeMap<String, Weak<Mutex<Progress>>>> = Mutex::new(BTreeMap::new());

/// How far receivers of this id have read. Whoever reads holds the lock as long as he does.
pub(super) fn progress_of(id: &str) -> Arc<Mutex<Progress>> {
    let mut all = PROGRESS.lock();
    all.retain(|_, progress| progress.strong_count() > 0);
    if let Some(known) = all.get(id).and_then(Weak::upgrade) {
        return known;
    }
    let fresh: Arc<Mutex<Progress>> = Arc::default();
    all.insert(id.to_owned(), Arc::downgrade(&fresh));
    fresh
}
