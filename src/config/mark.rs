//! What is known of a value beside the value itself.

use std::collections::HashMap;

use super::problem::Path;

/// How a value came to be, where that matters to its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It came from `${…}` or `--set`, where nobody says whether `4317` is a number: it takes the type that is wanted.
    Untyped,
    /// Its `${…}` could not be expanded. That is reported already, and nothing else is to be said of it.
    Failed,
}

/// The marks of a document, by path.
pub(super) type Marks = HashMap<Path, Mark>;
