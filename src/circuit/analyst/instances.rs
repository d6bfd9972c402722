use std::sync::Arc;

use super::health::{Facts, Health, States};
use crate::circuit::{
    analysis::config::HealthConfig,
    finding::{HealthChange, Status, What},
    state::State,
};

/// How the instances of a circuit are, by the state of their own breaker. Only those are kept that are not as the circuit is:
/// whose breaker is not closed, or was not until lately.
#[derive(Debug)]
pub(super) struct Instances {
    config: HealthConfig,
    /// In order of their places.
    ailing: Vec<Ailing>,
}

#[derive(Debug)]
struct Ailing {
    /// Its place in the circuit.
    member: usize,
    instance: Arc<str>,
    health: Health,
}

/// What was found of an instance, and when, in Unix nanoseconds.
pub(in crate::circuit) type OfInstance = (u64, Arc<str>, HealthChange);

impl Instances {
    pub(super) const fn new(config: HealthConfig) -> Self {
        Self { config, ailing: Vec::new() }
    }

    /// Judges by the breakers that are not closed, in order of their places; `instance_at` says whose place one is.
    pub(super) fn judge<'a>(
        &mut self,
        now: u64,
        restless: &[(usize, State)],
        instance_at: impl Fn(usize) -> Option<&'a Arc<str>>,
        found: &mut Vec<OfInstance>,
    ) {
        self.ailing.retain_mut(|ailing| {
            let stays = instance_at(ailing.member) == Some(&ailing.instance);
            if !stays {
                ailing.end(now, found);
            }
            stays
        });
        for (member, _) in restless {
            if let Err(place) = self.ailing.binary_search_by_key(member, |ailing| ailing.member)
                && let Some(instance) = instance_at(*member)
            {
                self.ailing.insert(place, Ailing { member: *member, instance: Arc::clone(instance), health: Health::well(self.config, now) });
            }
        }
        for Ailing { member, instance, health } in &mut self.ailing {
            let state = restless.binary_search_by_key(member, |(other, _)| *other).ok().and_then(|at| restless.get(at)).map(|(_, state)| *state);
            let is = |wanted: &[State]| u32::from(state.is_some_and(|state| wanted.contains(&state)));
            let states = States { open: is(&[State::Open, State::ForcedOpen]), half_open: is(&[State::HalfOpen]), of: 1 };
            let mut changes = Vec::new();
            health.hear(now);
            health.judge(now, &Facts { states, ..Facts::default() }, &mut changes);
            tell(instance, changes, found);
        }
        self.ailing.retain(|ailing| !ailing.health.is_well());
        if self.ailing.is_empty() {
            self.ailing = Vec::new();
        }
    }

    /// When one changes if nothing happens.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.ailing.iter().filter_map(|ailing| ailing.health.due()).min()
    }

    /// Nobody looks any more.
    pub(super) fn end(&mut self, now: u64, found: &mut Vec<OfInstance>) {
        self.ailing.drain(..).for_each(|mut ailing| ailing.end(now, found));
    }

    /// What holds now, told under another name: from unknown to that, or back.
    pub(super) fn told_again(&self, begins: bool) -> impl Iterator<Item = (Arc<str>, HealthChange)> {
        let told = self.ailing.iter().filter(|ailing| ailing.health.status() >= Status::Degraded);
        told.map(move |ailing| (Arc::clone(&ailing.instance), ailing.health.told_again(begins)))
    }

    /// How many are degraded, and how many unhealthy.
    pub(super) fn count(&self) -> (usize, usize) {
        let are = |status: Status| self.ailing.iter().filter(|ailing| ailing.health.status() == status).count();
        (are(Status::Degraded), are(Status::Unhealthy))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.ailing.capacity() * size_of::<Ailing>()
    }
}

impl Ailing {
    fn end(&mut self, now: u64, found: &mut Vec<OfInstance>) {
        let mut changes = Vec::new();
        self.health.end(now, &mut changes);
        tell(&self.instance, changes, found);
    }
}

fn tell(instance: &Arc<str>, changes: Vec<(u64, What)>, found: &mut Vec<OfInstance>) {
    found.extend(changes.into_iter().filter_map(|(at, what)| match what {
        What::Health(change) => Some((at, Arc::clone(instance), change)),
        _ => None,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_instance_is_as_its_breaker_is_and_gets_better_step_by_step() {
        let all: [Arc<str>; 2] = ["a".into(), "b".into()];
        let (mut instances, mut found) = (Instances::new(HealthConfig::default()), Vec::new());
        for second in 1..=200 {
            let restless: &[(usize, State)] = match second {
                10..20 => &[(1, State::Open)],
                20..23 => &[(1, State::HalfOpen)],
                100..105 => &[(0, State::Open)],
                _ => &[],
            };
            // The process of the first one ends, and another takes its place.
            let other = Arc::from("c");
            let at = |member: usize| if second >= 110 && member == 0 { Some(&other) } else { all.get(member) };
            instances.judge(second * SECOND, restless, at, &mut found);
            let ailing = usize::from((10..109).contains(&second)) + usize::from((100..110).contains(&second));
            assert_eq!(instances.ailing.len(), ailing, "second {second}");
        }
        use Status::{Degraded, Healthy, Unhealthy, Unknown};
        let told: Vec<_> = found.iter().map(|(at, instance, change)| (at / SECOND, &**instance, change.before, change.after)).collect();
        let expected = [
            (10, "b", Healthy, Unhealthy),
            // A minute after it was open last, then half a minute.
            (79, "b", Unhealthy, Degraded),
            (100, "a", Healthy, Unhealthy),
            (109, "b", Degraded, Healthy),
            (110, "a", Unhealthy, Unknown),
        ];
        assert_eq!(told, expected);
        assert_eq!((instances.count(), instances.deadline()), ((0, 0), None));
    }
}
