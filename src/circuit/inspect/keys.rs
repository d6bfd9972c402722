use std::sync::{Arc, LazyLock};

use super::{
    super::{
        detect::{
            library,
            rule::{self, Matcher, Place, Rule},
        },
        key::Kind,
        pattern::Pattern,
    },
    failure::{FailureOverride, FailureRule},
    slots::{Keys, SLOTS_MAX, Slot},
};

/// How spans are read, as a user writes it.
#[derive(Clone, Debug)]
pub struct RulesText {
    /// Attributes that hold a breaker's own name, first found wins.
    pub breaker_names: Vec<String>,
    /// Attributes that hold a breaker's state when the span began.
    pub breaker_states: Vec<String>,
    /// Attributes that hold how a breaker counted the call: `success`, `failure`, `rejected`; or, as a truth value,
    /// whether it was rejected.
    pub breaker_outcomes: Vec<String>,
    /// Names of span events that tell of a transition; `*` stands for anything.
    pub transition_events: Vec<String>,
    /// Attributes of such events that hold the state before.
    pub transition_from: Vec<String>,
    /// Attributes of such events that hold the state after.
    pub transition_to: Vec<String>,
    /// Attributes that hold the callee, first found wins.
    pub targets: Vec<String>,
    /// What texts of libraries mean.
    pub rules: Vec<Rule>,
    /// Kinds of spans that are calls (`SpanKind` of OTLP); those with a breaker's name are whatever their kind.
    pub span_kinds: Vec<u8>,
}

/// Attributes of a transition that hold the state before.
const TRANSITION_FROM: [&str; 13] = [
    "circuit_breaker.state_from",
    "circuit_breaker.from_state",
    "circuit_breaker.old_state",
    "from_state",
    "state_from",
    "from",
    "old_state",
    "previous_state",
    "oldState",
    "fromState",
    "previousState",
    "circuit_breaker.state.from",
    "circuit_breaker.previous_state",
];

/// Attributes of a transition that hold the state after.
const TRANSITION_TO: [&str; 17] = [
    "circuit_breaker.state_to",
    "circuit_breaker.to_state",
    "circuit_breaker.new_state",
    "to_state",
    "state_to",
    "to",
    "new_state",
    "newState",
    "toState",
    "current_state",
    "currentState",
    "circuit_breaker.state.to",
    "circuit_breaker.current_state",
    "circuit_breaker.state",
    "resilience4j.circuit_breaker.state",
    "failsafe.circuit_breaker.state",
    "state",
];

/// Attributes that mean the same as another one, unless they are listed themselves: as older conventions and single
/// instrumentations call it.
static OTHER_NAMES: [(&str, &str); 18] = [
    ("peer.hostname", "net.peer.name"),
    ("out.host", "net.peer.name"),
    ("peer.port", "net.peer.port"),
    ("out.port", "net.peer.port"),
    ("server.socket.domain", "net.sock.peer.name"),
    ("server.socket.address", "net.sock.peer.addr"),
    ("server.socket.port", "net.sock.peer.port"),
    ("peer.address", "net.peer.ip"),
    ("peer.ipv4", "net.peer.ip"),
    ("peer.ipv6", "net.peer.ip"),
    ("messaging.destination", "messaging.destination.name"),
    ("messaging.kafka.topic", "messaging.destination.name"),
    ("message_bus.destination", "messaging.destination.name"),
    ("db.instance", "db.name"),
    ("db.type", "db.system"),
    ("grpc.code", "grpc.status_code"),
    ("grpc.status", "grpc.status_code"),
    ("rpc.connect_rpc.error_code", "rpc.response.status_code"),
];

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl Default for RulesText {
    fn default() -> Self {
        Self {
            breaker_names: owned(&[
                "circuit_breaker.name",
                "resilience4j.circuit_breaker.name",
                "failsafe.circuit_breaker.name",
                "circuitbreaker.name",
                "circuitBreaker.name",
            ]),
            breaker_states: owned(&[
                "circuit_breaker.state",
                "resilience4j.circuit_breaker.state",
                "failsafe.circuit_breaker.state",
                "circuitbreaker.state",
                "circuitBreaker.state",
            ]),
            breaker_outcomes: owned(&[
                "circuit_breaker.outcome",
                "resilience4j.circuit_breaker.outcome",
                "failsafe.circuit_breaker.outcome",
                "circuit_breaker.rejected",
            ]),
            transition_events: owned(&["*circuit*", "*Circuit*", "*CIRCUIT*", "*breaker*"]),
            transition_from: owned(&TRANSITION_FROM),
            transition_to: owned(&TRANSITION_TO),
            targets: owned(&[
                "service.peer.name",
                "peer.service",
                "server.address",
                "net.peer.name",
                "url.full",
                "http.url",
                "http.host",
                "rpc.service",
                "rpc.method",
                "messaging.destination.name",
                // Of two servers of one database system each is a callee.
                "net.sock.peer.name",
                "network.peer.address",
                "net.sock.peer.addr",
                "net.peer.ip",
                "db.namespace",
                "db.name",
                "db.system.name",
                "db.system",
            ]),
            rules: library::rules(),
            span_kinds: vec![3, 4],
        }
    }
}

/// Why rules can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    /// More attributes than a span is read for.
    #[error("at most {SLOTS_MAX} attributes can be read of a span, names, states, callees and flags together")]
    Attributes,
    /// A rule for the texts of a library.
    #[error(transparent)]
    Texts(#[from] rule::BadRules),
}

/// How the callee stands in an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it is.
    Name,
    /// As a host, whose port stands in another attribute.
    Host(Slot),
    /// In a URL, or behind a colon after the host.
    Url,
    /// The name of an RPC service.
    RpcService,
    /// In the full name of a method.
    RpcMethod,
    /// A name within a system that another attribute tells.
    Within(Kind),
}

/// Attributes that are always read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fixed {
    pub(super) http_status: Slot,
    pub(super) old_http_status: Slot,
    pub(super) messaging_system: Slot,
    pub(super) db_system: Slot,
    pub(super) old_db_system: Slot,
    pub(super) error_type: Slot,
    pub(super) scheme: Slot,
    pub(super) old_scheme: Slot,
    /// Written by a Fuseboard on the way: what it says of breakers is no application's word.
    pub(super) own: Slot,
}

/// How spans are read.
#[derive(Clone, Debug)]
pub struct Rules {
    keys: Keys,
    /// Of targets, by slot.
    pub(super) shapes: [Shape; SLOTS_MAX],
    /// One bit a slot.
    pub(super) names: u64,
    pub(super) targets: u64,
    pub(super) states: u64,
    /// What tells what a call asks for.
    pub(super) routes: u64,
    pub(super) outcomes: u64,
    /// What a span, or a Fuseboard on its way, says of a breaker.
    pub(super) breakers: u64,
    /// Statuses of remote procedure calls.
    pub(super) rpc: u64,
    /// What tells the service of such a call.
    pub(super) rpc_services: u64,
    /// What tells that a database or a queue is called, and which system it is.
    pub(super) systems: u64,
    pub(super) fixed: Fixed,
    pub(super) transition_events: Vec<Pattern>,
    pub(super) transition_from: Vec<Box<[u8]>>,
    pub(super) transition_to: Vec<Box<[u8]>>,
    pub(super) name_keys: Vec<Box<[u8]>>,
    /// One bit a span kind.
    pub(super) span_kinds: u8,
    /// What texts of libraries mean; `None` if there are no rules.
    pub(super) matcher: Option<Arc<Matcher>>,
    /// Attributes that rules look at.
    pub(super) flags: Vec<(Box<str>, Slot)>,
    pub(super) flagged: u64,
    /// What a failure is.
    pub failure: FailureRule,
    /// What it is for some callees; first match wins.
    pub overrides: Vec<FailureOverride>,
    /// Whether a sampled span stands for those that were not sent.
    pub extrapolate: bool,
    /// Whether anything is read for the sake of breakers that say nothing of themselves.
    pub detects: bool,
}

impl Default for Rules {
    fn default() -> Self {
        // The defaults are few enough; a test holds it. Building what searches for texts takes milliseconds.
        static DEFAULT: LazyLock<Rules> = LazyLock::new(|| Rules::new(&RulesText::default()).unwrap_or_else(|_| Rules::empty()));
        DEFAULT.clone()
    }
}

impl Rules {
    const fn empty() -> Self {
        Self {
            keys: Keys::empty(),
            shapes: [Shape::Name; SLOTS_MAX],
            names: 0,
            targets: 0,
            states: 0,
            routes: 0,
            outcomes: 0,
            breakers: 0,
            rpc: 0,
            rpc_services: 0,
            systems: 0,
            fixed: Fixed {
                http_status: 0,
                old_http_status: 0,
                messaging_system: 0,
                db_system: 0,
                old_db_system: 0,
                error_type: 0,
                scheme: 0,
                old_scheme: 0,
                own: 0,
            },
            transition_events: Vec::new(),
            transition_from: Vec::new(),
            transition_to: Vec::new(),
            name_keys: Vec::new(),
            span_kinds: 0,
            matcher: None,
            flags: Vec::new(),
            flagged: 0,
            failure: FailureRule::empty(),
            overrides: Vec::new(),
            extrapolate: true,
            detects: true,
        }
    }

    /// Checks what was written.
    ///
    /// # Errors
    /// Too many attributes.
    pub fn new(text: &RulesText) -> Result<Self, BadRules> {
        let mut slots = Slots::default();
        let names = slots.all(&text.breaker_names)?;
        let targets = slots.all(&text.targets)?;
        let states = slots.all(&text.breaker_states)?;
        let outcomes = slots.all(&text.breaker_outcomes)?;
        let fixed = Fixed {
            http_status: slots.of("http.response.status_code")?,
            old_http_status: slots.of("http.status_code")?,
            messaging_system: slots.of("messaging.system")?,
            db_system: slots.of("db.system.name")?,
            old_db_system: slots.of("db.system")?,
            error_type: slots.of("error.type")?,
            scheme: slots.of("url.scheme")?,
            old_scheme: slots.of("http.scheme")?,
            own: slots.of("circuit_breaker.source")?,
        };
        let rpc = slots.all(&["rpc.grpc.status_code", "rpc.response.status_code", "grpc.status_code"].map(str::to_owned))?;
        let routes = slots.all(&["url.full", "http.url", "rpc.method"].map(str::to_owned))?;
        let mut shapes = [Shape::Name; SLOTS_MAX];
        let mut rpc_services = 0;
        for target in &text.targets {
            let (shape, slot) = (slots.shape_of(target)?, slots.of(target)?);
            if matches!(shape, Shape::RpcService | Shape::RpcMethod) {
                rpc_services |= 1 << slot;
            }
            if let Some(place) = shapes.get_mut(usize::from(slot)) {
                *place = shape;
            }
        }
        let mut flags: Vec<(Box<str>, Slot)> = Vec::new();
        for rule in &text.rules {
            if let Place::Flag(key) = &rule.place
                && !flags.iter().any(|(known, _)| known == key)
            {
                flags.push((key.clone(), slots.of(key)?));
            }
        }
        let matcher = if text.rules.is_empty() { None } else { Some(Arc::new(Matcher::new(text.rules.clone())?)) };
        let keys = |texts: &[String]| texts.iter().map(|text| text.as_bytes().into()).collect();
        Ok(Self {
            keys: Keys::new(slots.keys()),
            shapes,
            names,
            targets,
            states,
            routes,
            outcomes,
            breakers: names | states | outcomes | 1 << fixed.own,
            rpc,
            rpc_services,
            systems: 1 << fixed.messaging_system | 1 << fixed.db_system | 1 << fixed.old_db_system,
            fixed,
            transition_events: text.transition_events.iter().map(|name| Pattern::new(name)).collect(),
            transition_from: keys(&text.transition_from),
            transition_to: keys(&text.transition_to),
            name_keys: keys(&text.breaker_names),
            span_kinds: text.span_kinds.iter().fold(0, |bits, kind| bits | 1_u8.checked_shl(u32::from(*kind)).unwrap_or_default()),
            matcher,
            flagged: flags.iter().fold(0, |bits, (_, slot)| bits | 1 << slot),
            flags,
            failure: FailureRule::default(),
            overrides: Vec::new(),
            extrapolate: true,
            detects: true,
        })
    }

    /// The place of an attribute, if anybody reads it.
    #[inline]
    pub(super) fn slot(&self, key: &[u8]) -> Option<Slot> {
        self.keys.slot(key)
    }

    /// The attribute of a place.
    pub(super) fn key(&self, slot: Slot) -> &[u8] {
        self.keys.key(slot)
    }

    /// What a failure is for a callee or breaker of this name.
    #[inline]
    pub(super) fn failure_of(&self, target: &[u8]) -> &FailureRule {
        if self.overrides.is_empty() {
            return &self.failure;
        }
        self.overrides.iter().find(|one| one.target.matches(target)).map_or(&self.failure, |one| &one.rule)
    }
}

/// Gives every attribute its slot. One that is listed twice keeps its first.
#[derive(Default)]
struct Slots(Vec<String>);

impl Slots {
    fn next(&self) -> Result<Slot, BadRules> {
        Slot::try_from(self.0.len()).ok().filter(|next| usize::from(*next) < SLOTS_MAX).ok_or(BadRules::Attributes)
    }

    fn of(&mut self, key: &str) -> Result<Slot, BadRules> {
        if let Some(at) = self.0.iter().position(|known| known == key) {
            return Slot::try_from(at).map_err(|_| BadRules::Attributes);
        }
        let slot = self.next()?;
        self.0.push(key.to_owned());
        Ok(slot)
    }

    /// How a callee stands in this attribute.
    fn shape_of(&mut self, target: &str) -> Result<Shape, BadRules> {
        let meant = OTHER_NAMES.iter().find(|(other, _)| *other == target).map_or(target, |(_, name)| *name);
        Ok(match meant {
            "server.address" => Shape::Host(self.of("server.port")?),
            "net.peer.name" | "net.peer.ip" => Shape::Host(self.of("net.peer.port")?),
            "network.peer.address" => Shape::Host(self.of("network.peer.port")?),
            "net.sock.peer.name" | "net.sock.peer.addr" => Shape::Host(self.of("net.sock.peer.port")?),
            "url.full" | "http.url" | "http.host" => Shape::Url,
            "rpc.service" => Shape::RpcService,
            "rpc.method" => Shape::RpcMethod,
            "messaging.destination.name" => Shape::Within(Kind::Topic),
            "db.namespace" | "db.name" => Shape::Within(Kind::Database),
            _ => Shape::Name,
        })
    }

    /// All keys that are read, with their slots.
    fn keys(&self) -> impl Iterator<Item = (&str, Slot)> {
        let keys = &self.0;
        let listed = move || keys.iter().map(String::as_str).zip(0_u8..);
        let slot_of = move |key: &str| listed().find(|(known, _)| *known == key).map(|(_, slot)| slot);
        let others = OTHER_NAMES.iter().filter(move |(other, _)| slot_of(other).is_none());
        listed().chain(others.filter_map(move |(other, name)| Some((*other, slot_of(name)?))))
    }

    /// Slots of several attributes, one bit each.
    fn all(&mut self, keys: &[String]) -> Result<u64, BadRules> {
        keys.iter().try_fold(0, |bits, key| Ok(bits | 1 << self.of(key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_is_found_and_no_other() {
        let rules = Rules::new(&RulesText::default()).unwrap();
        let text = RulesText::default();
        let read = text.targets.iter().chain(&text.breaker_names).chain(&text.breaker_states).chain(&text.breaker_outcomes);
        for key in read.map(String::as_str).chain(["server.port", "http.status_code", "error.type"]) {
            assert!(rules.slot(key.as_bytes()).is_some(), "{key}");
        }
        for key in ["", "http.methodd", "server.porT", &"x".repeat(96), &"x".repeat(97), &"x".repeat(10_000)] {
            assert_eq!(rules.slot(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn older_names_are_read_as_the_newer_ones_unless_they_are_listed() {
        let rules = Rules::default();
        for (other, name) in &OTHER_NAMES {
            assert!(rules.slot(other.as_bytes()).is_some(), "{other}");
            assert_eq!(rules.slot(other.as_bytes()), rules.slot(name.as_bytes()), "{other}");
        }
        let targets = ["db.instance", "peer.address", "db.name"].map(str::to_owned).to_vec();
        let rules = Rules::new(&RulesText { targets, ..RulesText::default() }).unwrap();
        let slots = ["db.instance", "peer.address", "db.name", "messaging.destination"].map(|key| rules.slot(key.as_bytes()));
        assert!(slots[0] < slots[1] && slots[1] < slots[2] && slots[3].is_none(), "{slots:?}");
        let shape = |slot: Option<Slot>| rules.shapes[usize::from(slot.unwrap())];
        assert!(matches!((shape(slots[0]), shape(slots[1])), (Shape::Within(Kind::Database), Shape::Host(_))));
    }

    #[test]
    fn users_find_room_for_attributes_of_their_own() {
        let mut text = RulesText::default();
        text.targets.extend((0..10).map(|number| format!("app.upstream.{number}")));
        assert!(Rules::new(&text).is_ok());
    }

    #[test]
    fn too_many_attributes_are_an_error() {
        let targets = (0..70).map(|number| format!("key{number}")).collect();
        assert_eq!(Rules::new(&RulesText { targets, ..RulesText::default() }).map(drop), Err(BadRules::Attributes));
    }
}
