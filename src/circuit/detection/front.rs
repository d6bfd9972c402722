use super::super::{collector::CircuitBreakerMetricsCollector, state::State};

/// Callees of a process that are looked at; of one that has more only what it was asked is.
const CALLEES_MAX: usize = 64;

impl CircuitBreakerMetricsCollector {
    /// Whether a circuit may not be called because what would call it fails before: in one of its processes requests end with
    /// errors, or calls to another callee fail or are turned away, while its own went well.
    pub(in crate::circuit) fn is_cut_off(&self, number: u32) -> bool {
        let Some(circuit) = self.circuits.get(number as usize) else { return false };
        circuit.members.iter().any(|(_, member)| {
            let Some(process) = self.processes.get(member.process as usize) else { return false };
            let at = process.newest_end;
            let goes_wrong = |circuit: u32| {
                let in_process = self.member_in(circuit, member.process);
                in_process.is_some_and(|member| member.is_failing(at) || member.provisional().is_some_and(|state| state != State::Closed))
            };
            let others_do = || process.seats.len() <= CALLEES_MAX && process.circuits().any(|other| other != number && goes_wrong(other));
            !goes_wrong(number) && (process.broke_off.are_close(at) || others_do())
        })
    }
}
