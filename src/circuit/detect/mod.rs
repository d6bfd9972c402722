//! Breakers in spans that say nothing of them: what texts tell, which edge they belong to, and what follows from it.
//!
//! `rule`, `cause` and `library` turn the texts that libraries write into what they mean; `habit` knows which edges an
//! operation usually calls; `watch` puts together what one process did in one trace; `suspect` follows one breaker through it.

mod cause;
pub(super) mod habit;
pub mod inferred;
pub(super) mod lane;
pub mod library;
pub(super) mod manner;
pub mod rule;
pub(super) mod strikes;
pub(super) mod suspect;
pub(super) mod watch;
