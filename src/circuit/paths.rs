//! Whose the paths of a shared address are.
//!
//! A gateway, an ingress or a proxy answers for many services. Which of them a call went to is told by the SERVER span it
//! is the parent of, and that is remembered by the route of the call.

use super::{detect::lane::Route, process::Hashed};

/// Routes of a circuit's addresses that are remembered; further ones stay the address's own.
const PATHS_MAX: usize = 32;

/// So often in a row the same callee must answer for a route.
const SURE: u8 = 3;

/// More of its answers than these are not counted: so many of others, and the route is no longer believed to be the
/// callee's.
const SURE_MAX: u8 = 6;

/// A route that was no longer its callee's so often, each time within this many nanoseconds of the last, is answered for
/// by several; for as long it is then left alone.
const LOST_MAX: u8 = 2;
const LOST_WITHIN: u64 = 3_600_000_000_000;

/// What nobody answered for so long makes room for others. Nanoseconds.
const IDLE: u64 = 60_000_000_000;

/// Routes of a circuit's addresses that another than the circuit's own callee answers for.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    all: Vec<Path>,
    /// Whether any is another circuit's.
    told_apart: bool,
}

/// One of them.
#[derive(Clone, Debug)]
struct Path {
    address: Hashed,
    route: Route,
    /// When it was answered for last.
    seen: u64,
    /// How often it was another circuit's and was so no more, and when that was last.
    lost: u8,
    lost_at: u64,
    whose: Whose,
}

#[derive(Clone, Debug)]
enum Whose {
    /// Perhaps this callee's, which answered so often in a row. `beside`: meanwhile another answered at the same address
    /// for another route; else it is the address that moved.
    Perhaps { callee: Box<str>, sure: u8, beside: bool },
    /// It was another's, and the circuit's own callee answered last.
    Own,
    /// Its calls go to the circuit of this callee, which answered so many times more than others.
    Apart { callee: Box<str>, sure: u8 },
    /// Several answer for it: it stays the address's.
    Mixed,
}

/// What an answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that was not known.
    None,
    /// It is certain who answers for the route, and its calls do not go there yet.
    Certain,
    /// The route is no longer this callee's.
    Lost(Box<str>),
}

impl Path {
    fn is(&self, address: Hashed, route: Route) -> bool {
        self.address == address && self.route == route
    }

    fn is_apart(&self) -> bool {
        matches!(self.whose, Whose::Apart { .. })
    }

    fn callee(&self) -> Option<&str> {
        match &self.whose {
            Whose::Perhaps { callee, .. } | Whose::Apart { callee, .. } => Some(callee),
            Whose::Own | Whose::Mixed => None,
        }
    }

    /// This callee answered: `None` is the circuit's own.
    fn see(&mut self, answers: Option<&str>, now: u64) -> News {
        self.seen = now;
        let anew = || answers.map_or(Whose::Own, |callee| Whose::Perhaps { callee: callee.into(), sure: 1, beside: false });
        match &mut self.whose {
            Whose::Perhaps { callee, sure, beside } if answers == Some(&**callee) => {
                *sure = (*sure + 1).min(SURE_MAX);
                return if *beside && *sure >= SURE { News::Certain } else { News::None };
            }
            Whose::Apart { callee, sure } if answers == Some(&**callee) => *sure = (*sure + 1).min(SURE_MAX),
            Whose::Apart { sure, .. } if *sure > 1 => *sure -= 1,
            Whose::Apart { callee, .. } => {
                let callee = std::mem::take(callee);
                self.lost = if now.saturating_sub(self.lost_at) < LOST_WITHIN { self.lost.saturating_add(1) } else { 1 };
                self.lost_at = now;
                self.whose = if self.lost < LOST_MAX { anew() } else { Whose::Mixed };
                return News::Lost(callee);
            }
            Whose::Mixed if now.saturating_sub(self.lost_at) < LOST_WITHIN => {}
            Whose::Mixed | Whose::Own | Whose::Perhaps { .. } => self.whose = anew(),
        }
        News::None
    }
}

impl Paths {
    /// Whether calls have to be told apart by what they ask for.
    #[inline]
    pub(super) const fn are_told_apart(&self) -> bool {
        self.told_apart
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Path>() + self.all.iter().filter_map(Path::callee).map(str::len).sum::<usize>()
    }

    /// Who answers for a route, if that is told apart.
    pub(super) fn of(&self, address: Hashed, route: Route) -> Option<&str> {
        self.all.iter().find(|path| path.is_apart() && path.is(address, route)).and_then(Path::callee)
    }

    /// Whether an answer says nothing of whose the address is: its callee is known to answer for paths of its own there, or
    /// its route is one that several answer for.
    pub(super) fn explain(&self, address: Hashed, route: Route, callee: &str) -> bool {
        let explains = |path: &Path| match &path.whose {
            Whose::Apart { callee: known, .. } => **known == *callee,
            Whose::Mixed => path.route == route,
            Whose::Perhaps { .. } | Whose::Own => false,
        };
        self.all.iter().any(|path| path.address == address && explains(path))
    }

    /// Callees to whose circuits calls go.
    pub(super) fn leads_to(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|path| path.is_apart()).filter_map(Path::callee)
    }

    /// Somebody answered at an address for a route: a callee of this name, or `None` for the circuit's own.
    pub(super) fn see(&mut self, (address, route): (Hashed, Route), answers: Option<&str>, now: u64) -> News {
        for other in self.all.iter_mut().filter(|path| path.address == address && path.route != route) {
            if let Whose::Perhaps { callee, beside, .. } = &mut other.whose {
                *beside |= answers != Some(&**callee);
            }
        }
        if !route.is_known() {
            return News::None;
        }
        if let Some(at) = self.all.iter().position(|path| path.is(address, route)) {
            return self.see_known(at, answers, now);
        }
        let Some(callee) = answers else { return News::None };
        if self.all.len() >= PATHS_MAX {
            self.make_room(now);
        }
        if self.all.len() < PATHS_MAX {
            let whose = Whose::Perhaps { callee: callee.into(), sure: 1, beside: false };
            self.all.push(Path { address, route, seen: now, lost: 0, lost_at: 0, whose });
        }
        News::None
    }

    fn see_known(&mut self, at: usize, answers: Option<&str>, now: u64) -> News {
        let Some(path) = self.all.get_mut(at) else { return News::None };
        if answers.is_none() && path.lost == 0 && !path.is_apart() {
            // The circuit's own, after all: nothing to remember.
            self.all.swap_remove(at);
            return News::None;
        }
        let news = path.see(answers, now);
        if matches!(news, News::Lost(_)) {
            self.count();
        }
        news
    }

    /// Calls for a route go to the circuit of who answers for it from now on.
    pub(super) fn tell_apart(&mut self, address: Hashed, route: Route) {
        let Some(path) = self.all.iter_mut().find(|path| path.is(address, route)) else { return };
        if let Whose::Perhaps { callee, sure, .. } = &mut path.whose {
            path.whose = Whose::Apart { callee: std::mem::take(callee), sure: *sure };
            self.told_apart = true;
        }
    }

    /// Forgets what nobody answered for since then.
    pub(super) fn forget_before(&mut self, then: u64) {
        self.all.retain(|path| path.seen >= then);
        self.count();
    }

    /// The circuit's own callee has this name from now on: its routes need not be remembered.
    pub(super) fn forget_own(&mut self, name: &str) {
        self.all.retain(|path| path.callee() != Some(name));
        self.count();
    }

    /// Takes out what is known of an address.
    pub(super) fn split_off(&mut self, address: Hashed) -> Self {
        let mut off = Self { all: self.all.extract_if(.., |path| path.address == address).collect(), told_apart: false };
        self.count();
        off.count();
        off
    }

    /// What another circuit knew of addresses that are this one's from now on, as far as there is room; gives the callees
    /// whose paths found none.
    pub(super) fn take_in(&mut self, mut others: Self, own: &str) -> Vec<Box<str>> {
        others.forget_own(own);
        others.all.sort_by_key(|path| !path.is_apart());
        let room = PATHS_MAX.saturating_sub(self.all.len()).min(others.all.len());
        let left = others.all.split_off(room);
        self.all.append(&mut others.all);
        self.count();
        left.iter().filter(|path| path.is_apart()).filter_map(Path::callee).map(Box::from).collect()
    }

    /// Lets go of what was not heard of for the longest time, if that is long.
    fn make_room(&mut self, now: u64) {
        let spare = (0..).zip(&self.all).filter(|(_, path)| !path.is_apart()).min_by_key(|(_, path)| path.seen);
        if let Some((at, path)) = spare
            && path.seen.saturating_add(IDLE) < now
        {
            self.all.swap_remove(at);
        }
    }

    fn count(&mut self) {
        self.told_apart = self.all.iter().any(Path::is_apart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Hashed = Hashed::of(1);

    fn route(name: &str) -> Route {
        Route::of(name.as_bytes())
    }

    /// Answers at one address, a second apart: route and callee, of which an empty one is the circuit's own.
    fn see(paths: &mut Paths, answers: &[(&str, &str)]) -> Vec<News> {
        let mut now = 0;
        let mut news = Vec::new();
        for (asked, callee) in answers {
            now += 1_000_000_000;
            let told = paths.see((ADDRESS, route(asked)), (!callee.is_empty()).then_some(callee), now);
            if told == News::Certain {
                paths.tell_apart(ADDRESS, route(asked));
            }
            news.extend(Some(told).filter(|told| *told != News::None));
        }
        news
    }

    #[test]
    fn who_answers_three_times_in_a_row_beside_others_is_told_apart() {
        let mut paths = Paths::default();
        let orders = ("/orders", "orders");
        assert_eq!(see(&mut paths, &[orders; 9]), [], "it may be the address that moved");
        assert_eq!(see(&mut paths, &[("/pay", ""), orders]), [News::Certain]);
        assert_eq!((paths.are_told_apart(), paths.of(ADDRESS, route("/orders")), paths.of(ADDRESS, route("/pay"))), (true, Some("orders"), None));
        assert_eq!(paths.of(Hashed::of(2), route("/orders")), None);
        let mut paths = Paths::default();
        see(&mut paths, &[orders, ("/pay", ""), orders, ("/orders", ""), orders, orders]);
        assert!(!paths.are_told_apart(), "not in a row");
    }

    #[test]
    fn what_several_answer_for_stays_the_address_s_for_good() {
        let mut paths = Paths::default();
        let run = |paths: &mut Paths, callee: &str, times: usize| {
            let answers: Vec<(&str, &str)> = [("/api", callee), ("/pay", "")].into_iter().cycle().take(2 * times).collect();
            see(paths, &answers)
        };
        let mut changes = 0;
        for _ in 0..20 {
            changes += run(&mut paths, "orders", 8).len() + run(&mut paths, "stock", 8).len();
        }
        assert_eq!((changes, paths.of(ADDRESS, route("/api"))), (4, None), "twice told apart, twice lost");
        assert!(paths.explain(ADDRESS, route("/api"), "anybody") && !paths.explain(ADDRESS, route("/other"), "anybody"));
        // Two hours later it is one callee's.
        let orders = (ADDRESS, route("/api"));
        for _ in 0..4 {
            let told = paths.see(orders, Some("orders"), 2 * LOST_WITHIN);
            paths.see((ADDRESS, route("/pay")), None, 2 * LOST_WITHIN);
            if told == News::Certain {
                paths.tell_apart(ADDRESS, route("/api"));
            }
        }
        assert_eq!(paths.of(ADDRESS, route("/api")), Some("orders"));
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_idle_makes_room() {
        let mut paths = Paths::default();
        let names: Vec<String> = "abcdefghijklmnopqrstuvwxyz".chars().flat_map(|one| [format!("/{one}"), format!("/{one}{one}")]).collect();
        let see_all = |paths: &mut Paths, names: &[String], now: u64| {
            names.iter().for_each(|name| drop(paths.see((ADDRESS, route(name)), Some("orders"), now)));
        };
        see_all(&mut paths, &names[..40], 0);
        assert_eq!(paths.all.len(), PATHS_MAX);
        assert_eq!(paths.heap_bytes(), paths.all.capacity() * size_of::<Path>() + PATHS_MAX * "orders".len());
        see_all(&mut paths, &names[40..41], IDLE);
        assert!(!paths.all.iter().any(|path| path.route == route(&names[40])), "none is idle yet");
        see_all(&mut paths, &names[40..41], IDLE + 1);
        assert!(paths.all.iter().any(|path| path.route == route(&names[40])));
    }

    #[test]
    fn the_circuit_s_own_routes_take_no_room() {
        let mut paths = Paths::default();
        // A canary answers once on each of many routes.
        for number in 0..200 {
            let asked = format!("/{}", "abcdefghij".chars().nth(number % 10).unwrap().to_string().repeat(number / 10 + 1));
            see(&mut paths, &[(&asked, "canary"), (&asked, "")]);
        }
        assert!(paths.all.is_empty());
        let asked = [("/orders", "orders"), ("/", "")];
        assert_eq!(see(&mut paths, &asked.repeat(3)), [News::Certain], "an answer without a route is one beside it");
    }

    #[test]
    fn paths_leave_and_join_with_their_addresses() {
        let mut paths = Paths::default();
        let (orders, pay) = (("/orders", "orders"), ("/pay", ""));
        see(&mut paths, &[orders, pay, orders, orders]);
        let mut idle = paths.clone();
        idle.forget_before(u64::MAX);
        assert!(!idle.are_told_apart());
        assert!(!paths.split_off(Hashed::of(2)).are_told_apart() && paths.are_told_apart());
        let off = paths.split_off(ADDRESS);
        assert!(off.are_told_apart() && !paths.are_told_apart());
        paths.take_in(off.clone(), "orders");
        assert!(!paths.are_told_apart(), "the circuit's own");
        assert_eq!(paths.take_in(off.clone(), "pay"), []);
        assert!(paths.are_told_apart());
        // What finds no room is told.
        let mut full = Paths::default();
        (0..PATHS_MAX).for_each(|number| drop(full.see((Hashed::of(2), route(&"x".repeat(number + 1))), Some("y"), 0)));
        assert_eq!(full.take_in(off, "pay"), [Box::from("orders")]);
        paths.forget_own("orders");
        assert!(!paths.are_told_apart());
    }
}
