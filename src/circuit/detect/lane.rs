use std::{hash::BuildHasher, sync::Arc};

use foldhash::quality::FixedState;
use smallvec::SmallVec;

/// One of the breakers of a circuit: several may guard the paths of one edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::circuit) struct Lane {
    /// The circuit, by its number.
    pub(in crate::circuit) circuit: u32,
    /// 0 for the breaker of all paths that are not known to have one of their own.
    pub(in crate::circuit) number: u8,
}

/// What a call asks for, as far as breakers tell paths apart: a hash of the first two segments of a URL's path, or of a
/// method; 0 if there is neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::circuit) struct Route(u32);

/// Breakers of one circuit at most.
const LANES_MAX: usize = 8;
/// Routes of a circuit whose texts are kept.
const ROUTES_MAX: usize = 32;
/// Segments of a path that tell routes apart.
const SEGMENTS: usize = 2;
/// A longer segment is an id.
const SEGMENT_BYTES_MAX: usize = 24;

impl Lane {
    /// The breaker of all paths of a circuit.
    pub(in crate::circuit) const fn of(circuit: u32) -> Self {
        Self { circuit, number: 0 }
    }
}

impl Route {
    /// Where it is not known.
    pub(in crate::circuit) const UNKNOWN: Self = Self(0);

    /// Of a URL, a path, or the name of a method.
    pub(in crate::circuit) fn of(text: &[u8]) -> Self {
        Self::read(text).0
    }

    /// The same, and where in the text the part ends by which it is known.
    pub(in crate::circuit) fn read(text: &[u8]) -> (Self, usize) {
        let part = Self::part(text);
        if part.is_empty() {
            return Default::default();
        }
        // The same in every process: nobody gains by a collision that makes two routes one.
        let [a, b, c, d, ..] = FixedState::with_seed(0).hash_one(part).to_le_bytes();
        let end = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize) + part.len();
        (Self(u32::from_le_bytes([a, b, c, d]).max(1)), end)
    }

    /// Whether a text goes on behind the part of another with something that tells no routes apart.
    pub(in crate::circuit) fn is_same(text: &[u8], other: &[u8], end: usize) -> bool {
        matches!(text.get(end), None | Some(b'?' | b'#')) && end > 0 && text.get(..end) == other.get(..end)
    }

    /// Whether it is known.
    pub(in crate::circuit) const fn is_known(self) -> bool {
        self.0 != 0
    }

    /// The part of a URL, a path or a method that tells routes apart: segments that look like ids do not.
    fn part(text: &[u8]) -> &[u8] {
        let authority = match text {
            [b'h', b't', b't', b'p', b':', b'/', b'/', rest @ ..] | [b'h', b't', b't', b'p', b's', b':', b'/', b'/', rest @ ..] => Some(rest),
            _ => text.windows(3).position(|window| window == b"://").and_then(|at| text.get(at + 3..)),
        };
        let path = match authority {
            Some(rest) => rest.iter().position(|byte| *byte == b'/').and_then(|at| rest.get(at..)).unwrap_or_default(),
            None => text,
        };
        if path.first() != Some(&b'/') {
            let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
            return end.and_then(|end| path.get(..end)).unwrap_or(path);
        }
        // One pass: it ends with the second segment, or before one that is an id.
        let (mut end, mut segment, mut segments) = (0, 1, 0);
        for at in 1..=path.len() {
            match path.get(at) {
                None | Some(b'?' | b'#' | b'/') => {
                    if at > segment {
                        (end, segments) = (at, segments + 1);
                    }
                    if at == segment || segments == SEGMENTS || path.get(at) != Some(&b'/') {
                        break;
                    }
                    segment = at + 1;
                }
                Some(byte) if byte.is_ascii_digit() || at - segment >= SEGMENT_BYTES_MAX => break,
                Some(_) => {}
            }
        }
        path.get(..end).unwrap_or_default()
    }
}

/// The breakers of a circuit, and which routes they guard.
#[derive(Clone, Debug, Default)]
pub(in crate::circuit) struct Lanes {
    /// From number 0 on; empty while there is but one without a name.
    all: Vec<Known>,
    texts: Vec<(Route, Arc<str>)>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// The breaker's own name.
    name: Option<Arc<str>>,
    routes: SmallVec<[Route; 2]>,
}

impl Lanes {
    /// The number of the breaker that guards a route.
    pub(in crate::circuit) fn of_route(&self, route: Route) -> u8 {
        let own = self.all.iter().skip(1).position(|lane| lane.routes.contains(&route));
        own.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
    }

    /// Whether there is more than one.
    pub(in crate::circuit) const fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The number of the breaker of this name.
    pub(in crate::circuit) fn named(&self, name: &str) -> Option<u8> {
        let at = self.all.iter().position(|lane| lane.name.as_deref() == Some(name))?;
        u8::try_from(at).ok()
    }

    /// Whether one of them has this name.
    pub(in crate::circuit) fn is_named(&self, name: &[u8]) -> bool {
        self.all.iter().any(|lane| lane.name.as_deref().is_some_and(|own| own.as_bytes() == name))
    }

    /// The name of a breaker, where it has one.
    pub(in crate::circuit) fn name(&self, number: u8) -> Option<&Arc<str>> {
        self.all.get(usize::from(number))?.name.as_ref()
    }

    /// Gives a breaker its name.
    pub(in crate::circuit) fn set_name(&mut self, number: u8, name: &Arc<str>) {
        if self.all.is_empty() {
            self.all.push(Known::default());
        }
        self.all.get_mut(usize::from(number)).into_iter().for_each(|lane| lane.name = Some(Arc::clone(name)));
    }

    /// Notes the text of a route, to be shown.
    pub(in crate::circuit) fn note(&mut self, route: Route, url: &[u8]) {
        if self.texts.len() < ROUTES_MAX && route.is_known() && !self.texts.iter().any(|(known, _)| *known == route) {
            self.texts.push((route, String::from_utf8_lossy(Route::part(url)).into()));
        }
    }

    /// Whether this breaker guards any routes of its own.
    pub(in crate::circuit) fn has_routes(&self, number: u8) -> bool {
        self.all.get(usize::from(number)).is_some_and(|lane| !lane.routes.is_empty())
    }

    /// One more breaker, which guards these routes; `None` if there are too many.
    pub(in crate::circuit) fn add(&mut self, name: Option<&Arc<str>>) -> Option<u8> {
        if self.all.is_empty() {
            self.all.push(Known::default());
        }
        let number = u8::try_from(self.all.len()).ok().filter(|_| self.all.len() < LANES_MAX)?;
        self.all.push(Known { name: name.cloned(), routes: SmallVec::new() });
        Some(number)
    }

    /// These routes are guarded by this breaker from now on.
    pub(in crate::circuit) fn give(&mut self, number: u8, routes: &[Route]) {
        for lane in &mut self.all {
            lane.routes.retain(|route| !routes.contains(route));
        }
        self.all.get_mut(usize::from(number)).into_iter().for_each(|lane| lane.routes.extend(routes.iter().copied()));
    }

    /// How a breaker is called, given how the circuit is: by its own name; where there are several without one, by a
    /// route that it guards.
    pub(in crate::circuit) fn shown(&self, number: u8, circuit: &str) -> Option<Arc<str>> {
        let lane = self.all.get(usize::from(number))?;
        let route = || {
            let of = |route: &Route| self.texts.iter().find(|(known, _)| known == route).map(|(_, text)| text);
            lane.routes.iter().find_map(of).map(|text| Arc::from(format!("{circuit}{text}")))
        };
        lane.name.clone().or_else(|| (self.all.len() > 1).then(route).flatten())
    }

    /// Bytes on the heap.
    pub(in crate::circuit) fn heap_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Known>()
            + self.texts.capacity() * size_of::<(Route, Arc<str>)>()
            + self.texts.iter().map(|(_, text)| text.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_apart_by_what_is_no_id() {
        for (url, part) in [
            ("http://payments:8080/charge?card=1", "/charge"),
            ("http://payments/v/refunds/12345", "/v/refunds"),
            ("https://payments/accounts/3fa85f64-5717-4562-b3fc-2c963f66afa6/charge", "/accounts"),
            ("http://payments", ""),
            ("http://payments/", ""),
            ("/orders/open/all", "/orders/open"),
            ("shop.Payments/Charge", "shop.Payments/Charge"),
        ] {
            assert_eq!(Route::part(url.as_bytes()), part.as_bytes(), "{url}");
        }
        for url in ["http://payments:8080/charge?card=1", "/orders/open/all", "shop.Payments/Charge", "http://payments", "/a/1"] {
            let (url, end) = (url.as_bytes(), Route::read(url.as_bytes()).1);
            for other in ["?x=1", "#x", "", "/more", "s", "1"] {
                let other = [url.get(..end).unwrap_or_default(), other.as_bytes()].concat();
                assert!(!Route::is_same(&other, url, end) || Route::of(&other) == Route::of(url), "{other:?}");
            }
        }
        assert!(Route::is_same(b"http://a/charge?y", b"http://a/charge?x", 15));
        assert_eq!(Route::of(b"http://a/charge?x"), Route::of(b"http://b/charge"));
        assert!(!Route::of(b"http://a/17").is_known());
    }

    #[test]
    fn breakers_are_called_by_name_or_by_route() {
        let mut lanes = Lanes::default();
        let (charge, refund) = (Route::of(b"/charge"), Route::of(b"/refund"));
        assert_eq!((lanes.of_route(charge), lanes.shown(0, "payments")), (0, None));
        [(charge, "/charge"), (refund, "/refund")].into_iter().for_each(|(route, text)| lanes.note(route, text.as_bytes()));
        let number = lanes.add(None).unwrap();
        lanes.give(number, &[refund]);
        lanes.give(0, &[charge]);
        assert_eq!((lanes.of_route(charge), lanes.of_route(refund)), (0, 1));
        assert_eq!([0, 1].map(|number| lanes.shown(number, "payments").unwrap().to_string()), ["payments/charge", "payments/refund"]);
        lanes.set_name(1, &Arc::from("refunds"));
        assert_eq!((lanes.shown(1, "payments").as_deref(), lanes.named("refunds")), (Some("refunds"), Some(1)));
        assert!((0..100).any(|_| lanes.add(None).is_none()));
        assert_eq!(lanes.all.len(), LANES_MAX);
    }
}
