//! Which circuits are looked at.

use super::pattern::Pattern;

/// Which circuits are looked at.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those that one of these fits; all if there are none.
    pub include: Vec<Choice>,
    /// But none that one of these fits.
    pub exclude: Vec<Choice>,
}

/// A group of circuits: those whose caller and callee match what is given.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `service.name` of the caller.
    pub service: Option<Pattern>,
    /// Name of the callee or of the breaker, without port.
    pub target: Option<Pattern>,
}

impl Choice {
    fn fits(&self, service: &[u8], target: &[u8]) -> bool {
        self.service.as_ref().is_none_or(|pattern| pattern.matches(service)) && self.target.as_ref().is_none_or(|pattern| pattern.matches(target))
    }
}

impl Selection {
    /// Whether a circuit is looked at.
    pub fn takes(&self, service: &[u8], target: &[u8]) -> bool {
        let any = |choices: &[Choice]| choices.iter().any(|choice| choice.fits(service, target));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}
