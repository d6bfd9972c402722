//! Who may decompress or translate now: work that takes much memory at once.

use std::{sync::LazyLock, thread::available_parallelism};

use tokio::{sync::Semaphore, task::block_in_place};

/// How much work something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// So little that it is done where it comes up.
    Small,
    /// So much that it is done away from the threads that serve.
    Medium,
    /// So much that others must get their turn beside it.
    Large,
}

/// As many at one time as there are cores: more would take more memory and be done no sooner.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(cores()));
/// Large ones leave a core to the others where there are several. They wait here first, so that they are not in the way.
static LARGE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(cores().saturating_sub(1).max(1)));

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Does some work when its turn has come, in order of arrival. Who waits holds nothing but what came.
pub async fn in_turn<T>(work: Work, how: impl FnOnce() -> T) -> T {
    // Neither is ever closed.
    let _large = if work == Work::Large { LARGE.acquire().await.ok() } else { None };
    let _turn = TURNS.acquire().await.ok();
    if work == Work::Small { how() } else { block_in_place(how) }
}
