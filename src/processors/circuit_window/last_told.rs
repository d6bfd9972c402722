use std::collections::BTreeMap;

/// Gauges that hold, by what tells them apart, as they were told last.
#[derive(Debug)]
pub(super) struct LastTold<K, V>(BTreeMap<K, (V, u64)>);

impl<K, V> Default for LastTold<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V: Copy + PartialEq> LastTold<K, V> {
    /// What there is to tell, given all that holds: what changed since it was told, what was not told for so many
    /// nanoseconds, and what holds no more, without a value.
    pub(super) fn due(&self, holds: &BTreeMap<K, V>, now: u64, whole_after: u64) -> Vec<(K, Option<V>)> {
        let is_due = |key: &K, value: V| self.0.get(key).is_none_or(|(told, at)| *told != value || now.saturating_sub(*at) >= whole_after);
        let changed = holds.iter().filter(|(key, value)| is_due(key, **value)).map(|(key, value)| (key.clone(), Some(*value)));
        let gone = self.0.keys().filter(|key| !holds.contains_key(*key)).map(|key| (key.clone(), None));
        changed.chain(gone).collect()
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<(K, V, u64)>()
    }

    /// This was told.
    pub(super) fn told(&mut self, told: &[(K, Option<V>)], now: u64) {
        for (key, value) in told {
            match value {
                Some(value) => _ = self.0.insert(key.clone(), (*value, now)),
                None => _ = self.0.remove(key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_the_rest_now_and_then_and_an_end_once() {
        let mut last = LastTold::default();
        let holds = |all: &[(&'static str, u8)]| all.iter().copied().collect::<BTreeMap<_, _>>();
        let due = last.due(&holds(&[("a", 1), ("b", 2)]), 2, 60);
        assert_eq!(due, [("a", Some(1)), ("b", Some(2))]);
        last.told(&due, 2);
        assert_eq!(last.due(&holds(&[("a", 1), ("b", 3)]), 61, 60), [("b", Some(3))]);
        assert_eq!(last.due(&holds(&[("a", 1), ("b", 2)]), 62, 60).len(), 2);
        let ends = last.due(&holds(&[("a", 1)]), 70, 60);
        assert!(ends.contains(&("b", None)));
        last.told(&ends, 70);
        assert_eq!(last.due(&holds(&[("a", 1)]), 71, 60), []);
    }
}
